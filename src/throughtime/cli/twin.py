"""The network without memory beside a run: as many weights, the same data, as many updates; in the run's own folder."""

from __future__ import annotations

from dataclasses import replace
from inspect import signature
from pathlib import Path

import torch

from throughtime.cli.fitting import NO_LIMITS, Job, fit
from throughtime.cli.progress import Progress
from throughtime.credit import BPTT
from throughtime.nets import Network, window_like
from throughtime.runs import CONFIG, Run

FOLDER = "without-memory"
WINDOW = 8
"""Tokens that it sees."""


def check_twin(job: Job) -> None:
    """Raise ValueError, before the work, where there is no memory to leave out, or nothing to compare on."""
    if not isinstance(job.net, Network):
        raise ValueError("--twin must be left out with --cell mlp, which has no memory to begin with.")
    if job.validation is None:
        raise ValueError("--twin must be left out where nothing is held out, as both are compared on that.")


def train_twin(job: Job, run: Run, updates: int, progress: Progress) -> int:
    """Train it beside a run of so many updates, or go on to so many; the number of a signal that stopped it, or 0."""
    assert isinstance(job.net, Network)
    torch.manual_seed(run.config["training"]["seed"])
    net = window_like(job.net, WINDOW).to(next(job.net.parameters()).device)
    kind = type(job.optimizer)
    options = {name: value for name, value in job.optimizer.defaults.items() if name in signature(kind).parameters}
    twin = replace(
        job,
        net=net,
        credit=BPTT(h=job.chunks.steps, every=job.chunks.steps),
        optimizer=kind(net.parameters(), **options),
        limits={**NO_LIMITS, "updates": updates},
        patience=None,
        probe_every=0,
        sections={},
    )
    path = run.path / FOLDER
    return fit(twin, path, progress, resume=(path / CONFIG).is_file())


def twin_of(run: Run) -> Run | None:
    """The run of the network without memory, where there is one."""
    path = Path(run.path) / FOLDER
    return Run(path) if (path / CONFIG).is_file() else None
