"""What forecast, classify and tag share: a sign of life, a run's folder, and the sentences about what was done."""

from __future__ import annotations

import math
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from shlex import quote
from typing import Any

from rich.console import Console

from throughtime.cells import cell_named
from throughtime.cli.options import flag
from throughtime.cli.task_options import TaskOptions
from throughtime.credit import credit_named
from throughtime.estimators.saving import save
from throughtime.nets import parameters_of
from throughtime.runs import Run
from throughtime.task_report import TaskSummary, write_task_report

LOGGED = 200
"""Updates of a training that its learning curve is drawn from; more would make the page heavy."""


@contextmanager
def working(what: str) -> Iterator[None]:
    """Say on stderr what is being done, and for how long it took."""
    start = time.monotonic()
    console = Console(stderr=True, highlight=False)
    if console.is_terminal and not console.is_dumb_terminal:
        with console.status(f"{what} ..."):
            yield
    else:
        print(f"{what} ...", file=sys.stderr, flush=True)
        yield
    seconds = time.monotonic() - start
    print(f"{what}: {seconds:.{int(seconds < 10)}f} s", file=sys.stderr, flush=True)


def units_for(weights: int, build: Callable[[int], Any]) -> int:
    """The width at which build(width) is the network with the nearest number of weights to so many."""
    count = lambda units: parameters_of(build(units))  # noqa: E731
    most = 1
    while count(most) < weights:
        most *= 2
    units = 1 + bisect_left(range(1, most + 1), weights, key=count)
    return min((max(1, units - 1), units), key=lambda near: abs(count(near) - weights))


def counted(count: int, noun: str) -> str:
    """1 word, 2 words."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def check_folder(folder: Path) -> None:
    """Raise FileExistsError for a run that is there already, and ValueError for a place where none can be made, before
    the work."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"--run must be a new folder; {folder} exists. Give another name.")
    above = next(part for part in (folder.absolute(), *folder.absolute().parents) if part.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        raise ValueError(f"--run must be where a folder can be made; nothing can be written to {above}.")


def check_options(options: TaskOptions) -> None:
    """Raise ValueError, before the work, for a network that has no memory or that there is none of."""
    if options.cell is not None and options.cell.partition(":")[0] == "mlp":
        raise ValueError(
            "--cell must have a memory, as gru, lstm, elman and ctrnn do; got mlp. The network without memory is "
            "trained beside it; --window says what it sees."
        )
    if options.cell is not None:
        cell_named(options.cell)
    if options.credit is not None:
        credit_named(options.credit)


def keep(estimator: Any, folder: Path, sections: Mapping[str, Any]) -> Run:
    """Save a fitted estimator as a new run, with more sections of config.toml."""
    run = Run(save(estimator, folder))
    try:
        run.amend(sections)
    except BaseException:
        run.discard()
        raise
    return run


def conclude(run: Run, net: Any, summary: TaskSummary, files: Mapping[str, str], *, report: bool) -> int:
    """Write more files and the page of a new run, or leave no run, and say what came of it; the exit code."""
    page = None
    try:
        for name, text in files.items():
            (run.path / name).write_text(text, encoding="utf-8")
        if report:
            page = write_task_report(run.path, summary)
    except BaseException:  # Ctrl-C too: a run without its files or page is none
        run.discard()
        raise
    print(f"{run.path}: {described(net)}")
    for card in summary.cards:
        print(f"{card.heading}: {card.text}")
    if page is not None:
        print(f"Report: {page}")
    print(f"Go on: throughtime predict {quote(str(run.path))} FILE", flush=True)
    return 0


def thinned(records: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Records for a learning curve: every one with a validation loss, and of the others so many as can be seen."""
    stride = max(1, math.ceil(len(records) / LOGGED))
    return [
        record
        for place, record in enumerate(records)
        if record.get("validation") is not None or place % stride == 0 or place == len(records) - 1
    ]


def described(net: Any) -> str:
    """A network in a few words: its cell, directions, width and weights."""
    config = net.config() if hasattr(net, "config") else {}
    several, config = len(config.get("nets", ())), config.get("nets", [config])[0]
    cell = str(config.get("cell", "mlp"))
    both = "bidirectional " if config.get("bidirectional") else ""
    layers = config.get("layers", 1)
    size = f"{layers} x {config['units']} units, " if "units" in config else ""
    mean = f"mean of {several} networks: " * (several > 1)
    return f"{mean}{both}{cell}, {size}{parameters_of(net):,} weights"


def changed(options: Any) -> dict[str, Any]:
    """The options that are not as they are without a word."""
    plain = type(options)()
    return {name: value for name, value in vars(options).items() if value != getattr(plain, name)}


def command_line(words: Sequence[str], options: Mapping[str, Any]) -> str:
    """The command that does it again; options that are None or False are left out."""
    told = [quote(word) for word in words]
    for name, value in options.items():
        if value is None or value is False or value == ():
            continue
        if value is True:
            told.append(flag(name))
        else:
            text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            told.append(f"{flag(name)}={quote(text)}" if text.startswith("-") else f"{flag(name)} {quote(text)}")
    return " ".join(told)
