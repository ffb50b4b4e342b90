"""What each command does: it calls the library and prints the results on stdout."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Sequence
from copy import copy
from itertools import chain, islice
from pathlib import Path
from shlex import quote
from typing import TextIO

import numpy as np
import torch

from throughtime import kernels, verify
from throughtime.baselines import Baseline
from throughtime.cells import cell_named, cells
from throughtime.cli.fitting import Job, Limits, fit, prepare, read_text, reading, restore, text_of, text_section
from throughtime.cli.folders import free_folder
from throughtime.cli.options import Options, given
from throughtime.cli.progress import Progress
from throughtime.cli.reporting import COUNTED, NOUNS, baseline, longer, report_after, without_memory
from throughtime.cli.twin import check_twin, train_twin
from throughtime.credit import BPTT
from throughtime.data import Text
from throughtime.data.vocabulary import words
from throughtime.inference import evaluate as evaluate_chunks
from throughtime.inference import read as read_prompt
from throughtime.inference import surprise
from throughtime.nets import parameters_of
from throughtime.runs import Run, load
from throughtime.training import NonFiniteError
from throughtime.version import __version__

FEW = 40
"""A training part of up to so many targets is shown whole, position by position."""


# train


def train(
    files: tuple[str, ...],
    string: str | None,
    options: Options,
    folder: str | None,
    *,
    twin: bool,
    json: bool,
    report: bool,
) -> int:
    """A new run; the exit code."""
    section = text_section(files, string, given(options.text))
    text = read_text(section)
    job = prepare(text, section, options)
    if twin:
        check_twin(job)
    path = Path(folder) if folder else free_folder(files, string or section.get("shipped"))
    progress = progress_of(job, json=json)
    progress.note(announcement(job, path))
    if isinstance(job.credit, BPTT) and job.credit.memory is not None:
        steps = -(-(len(text.part()) - 1) // job.chunks.streams)
        progress.note(str(job.credit.plan(job.net, steps, job.chunks.streams)))  # a budget too small ends it here
    return _learn(job, path, progress, resume=False, twin=twin, report=report)


def resume(folder: str, options: Options, *, twin: bool, json: bool, report: bool) -> int:
    """Go on with a run; the exit code."""
    for part in (options.text, options.network):
        for name in given(part):
            raise ValueError(f"--{name} must be left out with --resume: the run has its own.")
    run = load(folder)
    job = restore(run, options.training)
    if twin:
        check_twin(job)
    return _learn(job, run.path, progress_of(job, json=json), resume=True, twin=twin, report=report)


def _learn(job: Job, path: Path, progress: Progress, *, resume: bool, twin: bool, report: bool) -> int:
    go_on = f"throughtime train --resume {quote(str(path))}"
    try:
        stopped = fit(job, path, progress, resume=resume)
    except NonFiniteError as error:
        if progress.last is None and not resume:
            load(path).discard()
            raise
        raise NonFiniteError(f"{error} {path} holds the weights that were saved last.") from error
    except KeyboardInterrupt:
        print(f"Stopped at once; {path} is as it was last saved. Go on: {go_on}", file=sys.stderr)
        return 130
    if stopped:
        progress.note(f"{path} is saved. Go on: {go_on}")
        return 128 + stopped
    if progress.last is None and not twin:
        raise ValueError(
            f"{path} must have something left to train; it is at its end. Give a larger --epochs, --updates or --time."
        )
    run = load(path)
    if twin:
        last = run.records()[-1]["update"]
        progress.note(f"Now the network without memory, for {last} updates.")
        if stopped := train_twin(job, run, last, progress_of(job, limits={"updates": last})):
            progress.note(f"{path} is whole; its network without memory goes on with: {go_on} --twin")
            return 128 + stopped
    return _conclude(job, run, sys.stderr if progress.json else sys.stdout, report=report)


def _conclude(job: Job, run: Run, out: TextIO, *, report: bool) -> int:
    """Say what came of a training, and write its page."""
    last = run.records()[-1]
    print(f"{run.path}: {last['update']} updates in {last['seconds']:.0f} s", file=out)
    found = None if job.validation is None else baseline(job.text, job.text.part("validation"))
    for line in [*_positions(run, job.text), *_verdict(run, job, found)]:
        print(line, file=out)
    if bare := without_memory(run, job.text):
        print(f"without memory  {figures(bare[1], job.text)}, {bare[0]}", file=out)
    print(f"Go on: throughtime sample {quote(str(run.path))}", file=out, flush=True)
    if report:
        print(report_after(run, job.text, found), file=out, flush=True)
    return 0


def progress_of(job: Job, *, json: bool = False, limits: Limits | None = None) -> Progress:
    """What shows this training, or one of the same text under other limits."""
    text, limits = job.text, job.limits if limits is None else limits
    return Progress(characters=text.characters_per_token, targets=job.chunks.count, limits=limits, json=json)


def announcement(job: Job, path: Path) -> str:
    """What is about to happen, with the choices that the user did not make."""
    config, text = job.net.config(), job.text
    what = config.get("cell", f"mlp over {config.get('window')} tokens")
    limit = ", ".join(f"{value:g} {name}" for name, value in job.limits.items() if value)
    different = text.size - (text.unit != "byte")
    return (
        f"{path}: {len(text.part())} {NOUNS[text.unit]}s to learn from, {different} different; {what}, layers x units "
        f"{config['layers']} x {config['units']}, {parameters_of(job.net)} weights; streams x steps "
        f"{job.chunks.streams} x {job.chunks.steps}, rate {job.optimizer.param_groups[0]['lr']:g}, {limit}"
    )


def _positions(run: Run, text: Text) -> list[str]:
    """What a small network learned at each position of its text, read from the beginning."""
    ids = torch.from_numpy(text.part().astype(np.int64))
    if len(ids) - 1 > FEW:
        return []
    with torch.no_grad():
        prediction, _ = run.net(ids[:-1, None], None)
    p = prediction[:, 0].softmax(-1)
    guesses = p.argmax(-1)
    name = lambda id: shown(text.vocabulary.tokens[id])  # noqa: E731
    rows = [("given", "next", "predicted", "probability")]
    for given_id, wanted, guess, row in zip(ids, ids[1:], guesses, p, strict=False):
        rows.append((name(given_id), name(wanted), name(guess), f"{row[guess]:.3f}"))
    right = int((guesses == ids[1:]).sum())
    before, after = (text.decode(part.tolist()) for part in (ids[:-1], guesses))
    return [*aligned(rows), f"right at {right} of {len(guesses)} positions: {before} -> {after}"]


def _verdict(run: Run, job: Job, found: Baseline | None) -> list[str]:
    """The validation loss of the weights that were kept, beside what counting n-grams reaches."""
    if job.validation is None:
        score = evaluate_chunks(run.net, reading(job.text, "train"))
        return [f"training text  {figures(score.mean, job.text)}; nothing was held out"]
    return beside_ngrams(run, job.text, found, f"Train longer, as with {longer(run)}, or on more text.")


def beside_ngrams(run: Run, text: Text, found: Baseline | None, advice: str) -> list[str]:
    """The validation loss of a run and that of the n-grams found, and which is better; else the advice."""
    net = evaluate_chunks(run.net, reading(text, "validation")).mean
    lines = [f"validation   {figures(net, text)}"]
    if found is None:
        return lines
    by = f"{abs(found.nats - net):.4f} nats per {NOUNS[text.unit]}."
    won = net < found.nats
    return [
        *lines,
        counted(found, text),
        f"The network {'beats' if won else 'loses to'} the n-grams by {by} {'' if won else advice}".strip(),
    ]


# sample, predict, evaluate


def sample(folder: str, prompt: str, length: int, temperature: float, top_k: int | None, seed: int | None) -> int:
    """Write tokens as they are drawn; the exit code."""
    if temperature == 0 and (top_k is not None or seed is not None):
        raise ValueError("--top-k and --seed must be left out at --temperature 0; they would have no effect.")
    run = load(folder)
    ids = run.encode_prompt(prompt).tolist() if prompt else []
    tokens = run.tokens(prompt, temperature=temperature, top_k=top_k, seed=seed)
    sys.stdout.write(prompt)
    pieces = run.vocabulary.pieces(chain(ids, islice(tokens, length)))
    for piece in islice(pieces, len(ids), None):
        sys.stdout.write(piece)
        sys.stdout.flush()
    print(flush=True)
    return 0


def predict(folder: str, prompt: str, top: int) -> int:
    """The probabilities of the next token; the exit code."""
    run = load(folder)
    logits, _ = read_prompt(run.net, run.encode_prompt(prompt))
    p = logits.double().softmax(-1)
    best = p.topk(min(top, len(p)))
    tokens = run.vocabulary.tokens
    rows = [("token", "probability")]
    rows += [(shown(tokens[id]), f"{value:.6f}") for value, id in zip(best.values, best.indices, strict=True)]
    if len(p) > top:
        rows.append((f"the {len(p) - top} others", f"{1 - best.values.sum():.6f}"))
    print("\n".join(aligned(rows)))
    return 0


def evaluate(folder: str, file: str | None, string: str | None, part: str | None, *, shuffle: bool) -> int:
    """How surprised a run is, and what n-grams reach on the same; the exit code."""
    if file is not None and string is not None:
        raise ValueError("FILE and --text must not be given together; leave one out.")
    if part is not None and (file is not None or string is not None):
        raise ValueError("--part must be left out with FILE or --text; it names a part of the run's own text.")
    run = load(folder)
    if string is not None:
        text, part = Text.of(string, split=None, vocabulary=run.vocabulary), "train"
        print("\n".join(_surprises(run, text, string)))
    elif file is not None:
        text, part = Text(file, split=None, vocabulary=run.vocabulary), "train"
    else:
        text, part = text_of(run), part or "validation"
        if len(text.part(part)) < 2:
            raise ValueError(f"{run.path} must have a {part} part; it has none. Give a FILE, --text or --part train.")
    net = evaluate_chunks(run.net, reading(text, part))
    noun, own = NOUNS[text.unit], file is None and string is None
    print(f"{int(net.count)} {noun}s predicted{f', the {part} part of {run.path}' if own else ''}")
    print(f"network      {figures(net.mean, text)}")
    print(_beside(run, text, part, own))
    if shuffle:
        mean, spread, tries = shuffled(run, text, part)
        print(f"shuffled     {figures(mean, text)}, mean of {tries} orders (+- {spread:.4f})")
        print(f"Order is worth {mean - net.mean:.4f} nats per {noun}.")
    return 0


def _beside(run: Run, text: Text, part: str, own: bool) -> str:
    """The line of the n-grams, counted on the training part of the run; or why there is none."""
    if own and part == "train":
        return "No n-grams beside it: they would be counted on this very part."
    try:
        learned = text if own else text_of(run)
    except (OSError, ValueError) as error:
        return f"No n-grams beside it: {error}"
    found = baseline(learned, text.part(part))
    if found is None:
        return f"No n-grams beside it: counting more than {COUNTED} tokens takes too long."
    return f"{counted(found, text)} of the run's training part"


def _surprises(run: Run, text: Text, string: str) -> list[str]:
    """A line for every token: its surprise given all before it."""
    ids = text.part()
    nats = surprise(run.net, torch.from_numpy(ids.astype(np.int64))).tolist()
    unit = text.vocabulary.unit
    originals = list(string) if unit == "char" else words(string) if unit == "word" else None
    rows = [("token", "nats", "bits")]
    for place, id in enumerate(ids.tolist()):
        unknown = originals is not None and id == 0
        token = shown(originals[place] if originals else text.vocabulary.tokens[id])
        values = (f"{nats[place - 1]:.4f}", f"{nats[place - 1] / math.log(2):.4f}") if place else ("given", "")
        rows.append((token + " (never seen in training)" * unknown, *values))
    return aligned(rows)


def shuffled(run: Run, text: Text, part: str, tries: int = 5) -> tuple[float, float, int]:
    """Mean and standard deviation over random orders of the same tokens; the first stays, as it is not predicted."""
    means = []
    for seed in range(tries):
        other = copy(text)
        other.ids = np.array(text.ids)
        np.random.default_rng(seed).shuffle(other.part(part)[1:])
        means.append(evaluate_chunks(run.net, reading(other, part)).mean)
    return float(np.mean(means)), float(np.std(means)), tries


# verify, doctor


def check(names: tuple[str, ...]) -> int:
    """The laws on this machine; 1 when one of them does not hold."""
    results = []
    for result in verify.run(names or None):
        results.append(result)
        if sys.stderr.isatty():
            print(f"\r{len(results)} checks", end="\r", file=sys.stderr, flush=True)
    print(verify.table(results))
    broken = sum(not result.passed for result in results)
    seconds = sum(result.seconds for result in results)
    verdict = f"{broken} of {len(results)} checks failed" if broken else f"All {len(results)} checks passed"
    print(f"{verdict} in {seconds:.0f} s.")
    return int(bool(broken))


def doctor() -> int:
    """What this machine has, and which backend runs which cell, and why."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none that torch finds"
    rows = [
        ("throughtime", __version__),
        ("python", f"{platform.python_version()}, {platform.system()} {platform.machine()}"),
        ("torch", torch.__version__),
        ("numpy", np.__version__),
        ("GPU", gpu),
        ("threads", f"{torch.get_num_threads()}; OMP_NUM_THREADS changes it"),
        ("kernels", kernels.native.describe()),
        *((f"cell {name}", kernels.choose(cell_named(name)).why) for name in cells),
    ]
    print("\n".join(aligned(rows)))
    return 0


# What is printed


def counted(found: Baseline, text: Text) -> str:
    """The line of an n-gram."""
    return f"{found.kind:11}  {figures(found.nats, text)}, counting {found.order + 1}-grams"


def figures(nats: float, text: Text) -> str:
    """A mean error in the three ways it is quoted."""
    bits = nats / math.log(2) / text.characters_per_token
    perplexity = math.exp(min(nats, 700.0))
    return f"{nats:.4f} nats per {NOUNS[text.unit]}, {bits:.4f} bits per character, perplexity {perplexity:.4g}"


def shown(token: str) -> str:
    """A token as it can stand in a table."""
    return token if token.isprintable() and not token.isspace() and token else repr(token)


def aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Rows as lines, with columns under each other."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
