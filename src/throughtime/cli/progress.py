"""What a training shows while it runs: a line in a terminal, lines when piped, JSON for programs."""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from dataclasses import asdict

from rich.console import Console
from rich.live import Live
from rich.text import Text as Line

from throughtime.runs import clean
from throughtime.training import Record

PAUSE = 5.0
"""Seconds between two lines when piped."""


class Progress:
    """Shows records, on stderr; with json=True each also as a line of JSON on stdout.

    characters  characters a token has: it turns nats a token into bits a character.
    targets     tokens of one epoch.
    limits      of the training, as `train` has them.
    """

    def __init__(self, *, characters: float, targets: int, limits: dict[str, float | None], json: bool = False) -> None:
        self.characters, self.targets, self.limits, self.json = characters, targets, limits, json
        self.last: Record | None = None
        self._losses: deque[float] = deque(maxlen=50)
        self._validation: float | None = None
        self._memory: float | None = None
        self._first: Record | None = None
        self._printed = -math.inf
        self._console = Console(stderr=True, highlight=False)
        wide = self._console.is_terminal and not self._console.is_dumb_terminal
        self._live = Live(console=self._console, transient=True, auto_refresh=False) if wide else None
        self._drawn = -math.inf

    def __enter__(self) -> Progress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def note(self, sentence: str) -> None:
        """A sentence that stays, above the line."""
        if self._live is not None:
            self._console.print(sentence, markup=False)
        else:
            print(sentence, file=sys.stderr, flush=True)

    def show(self, record: Record) -> None:
        self.last = record
        self._first = self._first or record
        self._losses.append(record.loss)
        if record.validation is not None:
            self._validation = record.validation
        if record.memory is not None:
            self._memory = record.memory
        if self.json:
            print(json.dumps(clean(asdict(record))), flush=True)
        if record.note:
            self.note(record.note)
        now = time.monotonic()
        if self._live is not None and now - self._drawn > 0.1:
            self._drawn = now
            self._live.update(Line(self.line(record), no_wrap=True, overflow="ellipsis"), refresh=True)
        if self._live is None and (record.validation is not None or now - self._printed > PAUSE):
            self._printed = now
            print(self.line(record), file=sys.stderr, flush=True)

    def line(self, record: Record) -> str:
        """The record in one line, the most wanted first, as a narrow terminal cuts the rest."""
        bits = self.characters * math.log(2)
        parts = [f"{_clock(self._left(record))} left", f"train {sum(self._losses) / len(self._losses) / bits:.3f}"]
        if self._validation is not None:
            parts.append(f"validation {self._validation / bits:.3f}")
        parts[-1] += " bits/char"
        assert self._first is not None
        seconds = record.seconds - self._first.seconds
        if seconds > 0:
            rate = (record.targets - self._first.targets) * self.characters / seconds
            parts.append(f"{_thousands(rate)} char/s")
        if self._memory is not None:
            finite = math.isfinite(self._memory)
            parts.append(f"memory {self._memory:.3g} steps" if finite else "the error does not fade")
        clipped = "" if record.clip_share is None else f", {100 * record.clip_share:.0f} % clipped"
        parts += [f"gradient {record.norm:.2g}{clipped}", f"update {record.update}"]
        return "  ".join(parts)

    def _left(self, record: Record) -> float:
        """Seconds to the first of the limits, at the speed so far."""
        done = {"epochs": record.targets / self.targets, "updates": record.update, "seconds": record.seconds}
        share = max(done[name] / limit for name, limit in self.limits.items() if limit is not None)
        return record.seconds * max(0.0, 1 - share) / share if share else math.inf


def _clock(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _thousands(number: float) -> str:
    for size, name in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{name}"
    return f"{number:.3g}"
