"""The first Ctrl-C, or another request to stop, waits for the update that runs; the second stops at once."""

from __future__ import annotations

import os
import signal
from types import FrameType
from typing import Any

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interruption:
    """A context in which `signal` is the number of the signal that asked to stop, or 0; main thread only."""

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.signal:
            raise KeyboardInterrupt
        self.signal = number
        # A handler may run in the middle of a print, which must not be entered twice.
        os.write(2, b"\nStopping after this update; once more to stop at once.\n")
