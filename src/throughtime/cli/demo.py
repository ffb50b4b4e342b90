"""The demo: two minutes of training on Shakespeare, and a report of what was learned and how far back."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from shlex import quote

import torch

from throughtime.baselines import Baseline
from throughtime.cli.commands import announcement, baseline, beside_ngrams, progress_of
from throughtime.cli.fitting import SHIPPED, Job, fit, prepare, read_text
from throughtime.cli.options import Options, TrainingOptions
from throughtime.credit import BPTT
from throughtime.flow import error_by_lag
from throughtime.inference import sample
from throughtime.kernels import why
from throughtime.nets import cross_entropy, parameters_of
from throughtime.report import Summary, read_error_by_lag, write_report
from throughtime.runs import CONFIG, Run, load

LAGS = 128
LENGTH = 400


def demo(time: str, folder: Path) -> int:
    """Train, print a sample before and after, the loss beside the n-grams', and the error by lag; the exit code."""
    section = {"shipped": SHIPPED}
    text = read_text(section)
    job = prepare(text, section, Options(training=TrainingOptions(time=time)))
    job.sections["command"] = {"name": "demo"}
    _make_room(folder)
    progress = progress_of(job)
    progress.note(announcement(job, folder))
    before = _untrained(job)
    print(f"Before training it writes:\n\n{before.strip()}\n", flush=True)
    stopped = fit(job, folder, progress)
    go_on = f"throughtime train --resume {quote(str(folder))}"
    if stopped:
        progress.note(f"{folder} is saved. Go on: {go_on}")
        return 128 + stopped
    run = load(folder)
    after = run.sample(length=LENGTH, seed=0)
    print(f"After training it writes:\n\n{after.strip()}\n")
    found = baseline(text, text.part("validation"))
    print("\n".join(beside_ngrams(run, text, found, "Two minutes on two cores are enough; give it more --time.")))
    summary = _summary(run, job, found, (before, after), time)
    if summary.lag is not None:
        print(read_error_by_lag(summary.lag, summary.h))
    print(f"Report: {write_report(folder, summary)}")
    return 0


def _make_room(folder: Path) -> None:
    """Remove an earlier demo, and nothing else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not (folder / CONFIG).is_file() or Run(folder).config.get("command") != {"name": "demo"}:
        raise ValueError(f"--run must be a new folder or that of an earlier demo; {folder} is neither. Give another.")
    Run(folder).discard()


def _untrained(job: Job) -> str:
    """What the first weights write; it draws from random numbers of its own, so that training is not changed."""
    prompt = torch.from_numpy(job.text.encode("\n"))
    return job.text.decode(islice(sample(job.net.eval(), prompt, never=[0], seed=0), LENGTH))


def _summary(run: Run, job: Job, found: Baseline | None, samples: tuple[str, str], time: str) -> Summary:
    text, net = job.text, job.net.config()
    before, after = samples
    lag = error_by_lag(run.net, cross_entropy, text.chunks(8, LAGS + 128, "validation")[0], LAGS)
    records = run.records()
    facts = (
        ("text", f"eight plays of Shakespeare, {len(text.part())} characters to learn from, {text.size} different"),
        ("network", f"{net['cell']}, {net['layers']} x {net['units']} units, {parameters_of(job.net)} weights"),
        ("credit", run.config["training"]["credit"]),
        ("streams, steps", f"{job.chunks.streams}, {job.chunks.steps}"),
        ("updates", records[-1]["update"]),
        ("kernel", why(run.net)),
    )
    return Summary(
        title="throughtime demo",
        sentence=f"A network learned to write like Shakespeare for {records[-1]['seconds']:.0f} seconds.",
        facts=facts,
        records=records,
        baseline=None if found is None else (f"{found.kind} {found.order + 1}-grams", found.nats),
        samples=(("before training", before.strip()), ("after training", after.strip())),
        lag=lag,
        h=job.credit.h if isinstance(job.credit, BPTT) else None,
        reproduce=f"throughtime demo --time {time}",
    )
