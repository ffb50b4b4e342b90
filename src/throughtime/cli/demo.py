"""The demo: two minutes of training on Shakespeare, and a report of what was learned and how far back."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from shlex import quote

import torch

from throughtime.cli.commands import announcement, beside_ngrams, progress_of
from throughtime.cli.fitting import SHIPPED, Job, fit, prepare, read_text
from throughtime.cli.options import Options, TrainingOptions
from throughtime.cli.reporting import baseline, summary_of
from throughtime.inference import sample
from throughtime.report import sentence_case, write_report
from throughtime.runs import CONFIG, Run, load

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
    samples = (("before training", before.strip()), ("after training", after.strip()))
    summary = summary_of(run, text=text, found=found, samples=samples)
    if summary.flow is not None:
        print(sentence_case(summary.flow.verdict))
    print(f"Report: {write_report(folder, replace(summary, title='A network learns to write like Shakespeare'))}")
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
