"""What a training shows while it runs, and the times that may be given."""

from __future__ import annotations

import json
import math
import re
from io import StringIO

import pytest
from rich.console import Console
from terminal import run_command, trained_run

from throughtime import training
from throughtime.cli import progress
from throughtime.cli.options import seconds_of

__all__ = ["run_command", "trained_run"]


def record(update: int = 1, **values) -> training.Record:
    plain = {"epoch": 0, "targets": 1000.0 * update, "loss": 2.0, "norm": 0.5, "clipped": False, "rate": 1e-3}
    return training.Record(**{**plain, "update": update, "seconds": float(update), **values})


def test_a_line_has_what_was_promised(capsys):
    shown = progress.Progress(characters=2.0, targets=10_000, limits={"epochs": 2, "updates": None, "seconds": None})
    with shown:
        shown.show(record(1))
        shown.show(record(2, validation=math.log(4)))
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("0:19 left  train 1.443 bits/char")
    assert "validation 1.000 bits/char" in second
    assert "2k char/s" in second
    assert "gradient 0.5  update 2" in second  # nothing is clipped without a bound


def test_the_last_memory_and_the_share_of_clipped_updates_stay_in_the_line(capsys):
    shown = progress.Progress(characters=1.0, targets=9, limits={"updates": 9})
    shown.show(record(1))
    assert "memory" not in shown.line(record(1))
    shown.show(record(2, memory=23.44, clipped=True, clip_share=0.5))
    assert "memory 23.4 steps  gradient 0.5, 50 % clipped  update 2" in shown.line(record(2, clip_share=0.5))
    assert "memory 23.4 steps  gradient 0.5, 33 % clipped  update 3" in shown.line(record(3, clip_share=1 / 3))
    shown.show(record(4, memory=math.inf))
    assert "the error does not fade  gradient" in shown.line(record(4))


@pytest.mark.parametrize("columns", [20, 40, 200])
def test_a_terminal_gets_one_line_of_its_width(columns, monkeypatch):
    screen = StringIO()
    console = Console(file=screen, force_terminal=True, width=columns, no_color=True)
    monkeypatch.setattr(progress, "Console", lambda **_: console)
    monkeypatch.setenv("TERM", "xterm")
    shown = progress.Progress(characters=1.0, targets=100, limits={"epochs": None, "updates": 9, "seconds": None})
    with shown:
        shown.show(record(1, validation=1.0))
        shown.note("a note")
    lines = re.sub(r"\x1b\[[?\d;]*[a-zA-Z]", "", screen.getvalue()).replace("\r", "\n").splitlines()
    assert max(map(len, lines)) <= columns
    assert "a note" in lines


def test_json_has_no_nan(capsys):
    shown = progress.Progress(characters=1.0, targets=1, limits={"updates": 9}, json=True)
    shown.show(record(loss=math.nan))
    assert json.loads(capsys.readouterr().out)["loss"] is None


@pytest.mark.parametrize(
    ("words", "seconds"), [("90s", 90), ("3m", 180), ("1h30m", 5400), ("2min", 120), ("45", 45), ("0.5h", 1800)]
)
def test_times(words, seconds):
    assert seconds_of(words) == seconds


@pytest.mark.parametrize("words", ["", "0", "-3s", "3x", "1.2.3s", "m", "inf", "nan"])
def test_no_times(words):
    with pytest.raises(ValueError, match="time must be above 0"):
        seconds_of(words)
