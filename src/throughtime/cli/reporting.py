"""What `report` does, and what a training ends with: from a run's folder to its page, and to a page of several runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from torch import nn

from throughtime.baselines import Baseline, best_ngram
from throughtime.chunk import Chunk
from throughtime.cli.fitting import optimizers, reach, reading, text_of
from throughtime.cli.options import check_out, flag
from throughtime.cli.twin import twin_of
from throughtime.data import Text
from throughtime.flow import Flow, clipping, measure, spectra
from throughtime.inference import evaluate
from throughtime.kernels import why
from throughtime.nets import Network, losses, parameters_of
from throughtime.pictures import Eigenvalues, Picture, gallery
from throughtime.report import Summary, write_comparison, write_report
from throughtime.runs import Run, load
from throughtime.spelling import spell

NOUNS = {"char": "character", "byte": "byte", "word": "word"}
COUNTED = 20_000_000
"""Tokens above which no n-grams are counted: it would take minutes and gigabytes."""

LAGS, FURTHEST = 128, 512
STREAMS = 8
"""Lags that the error is measured over, as `flow` does: twice h where that is more, but no more than FURTHEST, as a
page must not take long; and streams."""
SAMPLE = 400
"""Tokens that the network writes for a page."""

FAILURES = (OSError, ValueError, TypeError, RuntimeError, ArithmeticError, LookupError, ImportError, MemoryError)
"""What may go wrong with a page after a training without harm: the run is saved by then."""


def report(folders: Sequence[Path], out: Path | None) -> int:
    """Write the page of a run into its folder, or one page of several; the exit code."""
    if out is not None:
        check_out(out, "comparison.html")
    if len(folders) == 1:
        if out is not None:
            raise ValueError("--out must be left out with one run: its report.html goes into the run.")
        print(write_report(folders[0], summary_of(load(folders[0]))))
        return 0
    names = _names(folders)
    first = folders[0] if folders[0].name else folders[0].resolve()
    path = first.parent / "comparison.html" if out is None else out
    runs = [load(folder) for folder in folders]
    summaries = {name: summary_of(run, whole=False) for name, run in zip(names, runs, strict=True)}
    print(write_comparison(path, summaries))
    return 0


def _names(folders: Sequence[Path]) -> list[str]:
    """What the runs are called on their page: the folders' names, or whole paths where two are the same."""
    if not folders:
        raise ValueError("RUN must be given: the folder of a run, or several to compare.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("RUN must name different runs; one is given twice.")
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]


def report_after(run: Run, text: Text, found: Baseline | None) -> str:
    """Write the page of a run that was just trained; the line that says so, or why there is none."""
    try:
        return f"Report: {write_report(run.path, summary_of(run, text=text, found=found))}"
    except FAILURES as error:
        again = f"throughtime report {quote(str(run.path))}"
        return f"No report was written ({type(error).__name__}: {error}). The run is whole; try again: {again}"


def baseline(text: Text, held: np.ndarray) -> Baseline | None:
    """The best n-gram of the training part; None where that is too large."""
    return None if len(text.part()) > COUNTED else best_ngram(text.part(), held, text.size)


def summary_of(
    run: Run,
    *,
    text: Text | None = None,
    found: Baseline | None = None,
    samples: Sequence[tuple[str, str]] | None = None,
    whole: bool = True,
) -> Summary:
    """Everything that can be told of a run, with a sentence for what cannot.

    text, found  where they are at hand already: the run's own text, and the n-grams counted on it.
    samples      texts that the network wrote; None: it writes one now.
    whole        False leaves out what a page of several runs does not show.
    """
    missing: list[str] = []
    net = _network(run, missing)
    if text is None:
        text = _text(run, missing)
        found = None if text is None or len(text.part("validation")) < 2 else baseline(text, text.part("validation"))
    flow, pictures = (None, []) if net is None or text is None else _measured(run, net, text, missing, whole)
    if net is not None and flow is None and (matrices := spectra(net)):
        pictures = [Eigenvalues({name: spectrum.eigenvalues for name, spectrum in matrices.items()})]
    if samples is None:
        samples = _written(run, missing) if whole and net is not None and text is not None else []
    records, command = run.records(), command_of(run.config)
    if not command:
        missing.append("One command that makes it again: it was made in Python, by a program of its own.")
    return Summary(
        title=f"{run.path.resolve().name}: {_title(run, net)}",
        sentence=_sentence(run, net, text),
        facts=_facts(run, net, text),
        config=flat(run.config),
        records=records,
        loss=_loss(run, net, text),
        baseline=None if found is None else (f"{found.kind} {found.order + 1}-grams", found.nats),
        without=without_memory(run, text),
        samples=samples,
        flow=flow,
        pictures=pictures,
        missing=missing,
        advice=_advice(run, flow),
        longer=longer(run),
        weights=None if net is None else parameters_of(net),
        reproduce=command,
        unit=NOUNS.get(run.config.get("text", {}).get("unit"), "step"),
    )


# What there is to measure on


def _network(run: Run, missing: list[str]) -> nn.Module | None:
    try:
        return run.net
    except (ValueError, FileNotFoundError) as error:
        missing.append(f"Memory, units, gates and weights: {error}")
        return None


def _text(run: Run, missing: list[str]) -> Text | None:
    try:
        return text_of(run)
    except (ValueError, OSError) as error:
        missing.append(f"What is measured on the text that it learned from: {error}")
        return None


def _measured(
    run: Run, net: nn.Module, text: Text, missing: list[str], whole: bool
) -> tuple[Flow | None, list[Picture]]:
    """How far back the error reaches in a run's network, on its own text, and the pictures of it."""
    training = run.config.get("training", {})
    loss = losses.get(training.get("loss", "softmax"))
    if loss is None:
        missing.append(f"Memory, units and gates: the loss {training['loss']} is one of your own.")
        return None, []
    h, bound = reach(training.get("credit")), clipping(run.records(), training.get("clip"))
    chunk = passage(text, h)
    try:
        flow = measure(net, loss, chunk, h=h, clipping=bound)
    except (TypeError, ValueError) as error:
        missing.append(f"How far back the error reaches: {error}")
        return None, []
    names = [text.vocabulary.tokens[token] for token in chunk.x[:, 0].tolist()]
    return flow, list(gallery(net, loss, chunk, flow, names)) if whole else []


def _written(run: Run, missing: list[str]) -> list[tuple[str, str]]:
    """What a network writes when it is left to itself."""
    try:
        return [(f"{SAMPLE} tokens that it made up", run.sample(length=SAMPLE, seed=0).strip("\n"))]
    except ValueError as error:
        missing.append(f"What it writes: {error}")
        return []


def passage(text: Text, h: int | None) -> Chunk:
    """What the error is measured on, twice as long as it is followed back: held-out text, or else what was learned."""
    part = "validation" if len(text.part("validation")) > 2 else "train"
    targets = len(text.part(part)) - 1
    steps = 2 * max(1, min(max(LAGS, 2 * (h or 0)), FURTHEST, targets // 2))
    return text.chunks(max(1, min(STREAMS, targets // steps)), steps, part)[0]


def _loss(run: Run, net: nn.Module | None, text: Text | None) -> float | None:
    """The loss on the validation part of a run made in Python, which may have looked at anything; else None."""
    if "command" in run.config or net is None or text is None or len(text.part("validation")) < 2:
        return None
    return evaluate(net, reading(text, "validation")).mean


def without_memory(run: Run, text: Text | None) -> tuple[str, float] | None:
    """The network without memory that was trained beside a run, and its lowest loss on text held out."""
    twin = twin_of(run)
    if twin is None:
        return None
    losses = [record["validation"] for record in twin.records() if record.get("validation") is not None]
    if not losses or text is None:
        return None
    network = twin.config["network"]
    return f"an MLP over {network['window']} {NOUNS[text.unit]}s with {parameters_of(twin.net):,} weights", min(losses)


# Words


def _title(run: Run, net: nn.Module | None) -> str:
    config = run.config.get("network", {})
    if net is None or "units" not in config:
        return str(config.get("class", config.get("network", "a network")))
    cell, _, options = str(config.get("cell", "mlp")).partition(":")
    kind = {"lstm": "LSTM", "gru": "GRU", "elman": "Elman", "ctrnn": "CTRNN", "mlp": "MLP"}.get(cell, cell)
    kind += f" ({options})" * bool(options) + f" over {config.get('window')} tokens" * ("window" in config)
    layers = "" if config.get("layers", 1) == 1 else f"{config['layers']} layers of "
    return f"{kind}, {layers}{config['units']} units"


def _sentence(run: Run, net: nn.Module | None, text: Text | None) -> str:
    what = "A network" if net is None else f"A network of {parameters_of(net):,} weights"
    learned = f"learned from {_source(run)}"
    if text is not None:
        learned = f"learned from {len(text.part()):,} {NOUNS[text.unit]}s of {_source(run)}"
    records = run.records()
    if not records:
        return f"{what} {learned}; no update is on record."
    last = records[-1]
    seconds = last.get("seconds", 0)
    return f"{what} {learned}: {last['update']:,} updates in {seconds:,.{int(seconds < 10)}f} seconds."


def _source(run: Run) -> str:
    section = run.config.get("text", {})
    if not {"source", "shipped", "text"} & section.keys():
        return "data that its config.toml does not name"
    if "source" in section:
        first, *others = (Path(path).name for path in section["source"])
        return first if not others else f"{first} and {len(others)} more"
    if "shipped" in section:
        return "eight plays of Shakespeare"
    return f"“{section['text'][:40]}{'...' * (len(section['text']) > 40)}”"


def _facts(run: Run, net: nn.Module | None, text: Text | None) -> list[tuple[str, object]]:
    training = run.config.get("training", {})
    facts: dict[str, object] = {"network": _title(run, net)}
    if text is not None:
        facts["text"] = f"{_source(run)}: {len(text.ids):,} {NOUNS[text.unit]}s, {text.size} different"
    if "credit" in training:
        facts["credit"] = training["credit"]
    if "streams" in training:
        facts["streams x steps"] = f"{training['streams']} x {training['steps']}"
    if "optimizer" in training:
        optimizer = training["optimizer"]
        facts["optimiser"] = f"{optimizer['name']}, learning rate {optimizer.get('lr', 0):g}"
    facts["clipping"] = f"the norm of the gradient to {training['clip']:g}" if "clip" in training else "none"
    if records := run.records():
        facts["updates"] = f"{records[-1]['update']:,}"
    if isinstance(net, Network):
        facts["kernel"] = why(net)
    return [*facts.items(), ("throughtime", run.config["throughtime"])]


def _advice(run: Run, flow: Flow | None) -> list[str]:
    steps = []
    if flow is not None and flow.h is not None and not flow.advice:
        further = f"throughtime compare {quote(str(run.path))} --credit bptt:h={2 * flow.h},every={flow.h}"
        steps.append(f"See what twice that h would change: {further}")
    recurrent = run.config.get("network", {}).get("network") == "recurrent"
    if recurrent and command_of(run.config) and twin_of(run) is None:
        steps.append(f"See what memory adds: throughtime train --resume {quote(str(run.path))} --twin")
    return steps


def longer(run: Run) -> str:
    """The command that trains a run twice as long; nothing for one made in Python."""
    training, command = run.config.get("training", {}), run.config.get("command", {}).get("name")
    limits = [(name, training[name]) for name in ("epochs", "updates", "seconds") if name in training]
    if command is None or not limits:
        return ""
    name, limit = limits[0]
    more = f"--time {2 * limit:.12g}s" if name == "seconds" else f"--{name} {2 * limit:.12g}"
    return (
        f"throughtime demo {more}" if command == "demo" else f"throughtime train --resume {quote(str(run.path))} {more}"
    )


def flat(config: Mapping[str, Any], before: str = "") -> dict[str, object]:
    """A configuration as one mapping with dotted names."""
    found: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else value
    return found


# How it is done again


def command_of(config: Mapping[str, Any]) -> str:
    """The one command that makes a run again from its config.toml; nothing for a run made in Python."""
    name = config.get("command", {}).get("name")
    training = config.get("training", {})
    if name == "demo":
        return f"throughtime demo --time {training['seconds']:.12g}s"
    if name != "train":
        return ""
    text = config["text"]
    words = [quote(path) for path in text.get("source", ())]
    flags: dict[str, object] = {name: text.get(name) for name in ("text", "shipped", "unit", "split", "least", "most")}
    flags |= _network_flags(config["network"]) | _training_flags(training)
    if "window" in flags:
        del flags["probe_every"]  # no error goes back through it
    for name, value in flags.items():
        if value is not None and value is not False:
            words.append(flag(name) if value is True else _spelled(flag(name), value))
    return " ".join(["throughtime train", *words])


def _spelled(name: str, value: object) -> str:
    text = str(value).removesuffix(".0") if isinstance(value, float) else str(value)
    return quote(f"{name}={text}") if text.startswith("-") else f"{name} {quote(text)}"


def _network_flags(net: Mapping[str, Any]) -> dict[str, object]:
    names = ("window", "units", "layers", "embedding", "dropout", "tie", "backend")
    flags = {name: net[name] for name in names if name in net and net[name] != "auto"}
    return {"cell": net.get("cell", "mlp"), **flags}


def _training_flags(training: Mapping[str, Any]) -> dict[str, object]:
    optimizer = training["optimizer"]
    kind = optimizers()[optimizer["name"].lower()]
    options = {field.name: optimizer[field.name] for field in fields(kind) if field.name in optimizer}
    return {
        "credit": training["credit"],
        "streams": training["streams"],
        "steps": training["steps"],
        "optimizer": spell(kind(**options), optimizers()),
        "rate": optimizer["lr"],
        "decay": optimizer.get("weight_decay"),
        "schedule": training.get("schedule") or "none",
        "clip": training.get("clip") or 0,
        "epochs": training.get("epochs"),
        "updates": training.get("updates"),
        "time": f"{training['seconds']:.12g}s" if "seconds" in training else None,
        "validate_every": training.get("validate_every"),
        "patience": training.get("patience"),
        "probe_every": training.get("probe_every"),
        "seed": training["seed"],
    }
