"""The command `throughtime`: reads what the user typed, calls what does it, and turns errors into sentences and codes.

Exit codes: 0 done; 1 the job failed; 2 something the user gave is wrong; 128 + n stopped by signal n (Ctrl-C: 130).
Torch is imported when a command runs, not before, so that help and version answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from cyclopts import CycloptsError

from throughtime.cli import inspection, language, tasks
from throughtime.cli.application import app

__all__ = ["app", "inspection", "language", "main", "tasks"]


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command line, sys.argv's when none is given; returns the exit code."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _mend_streams()
    try:
        return _guarded(words) or 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        sentence, code = _judge(error, words)
        print(sentence, file=sys.stderr)
        return code


def _guarded(words: list[str]) -> int | None:
    """The command itself, with what is no error: Ctrl-C, and a reader of stdout who has seen enough."""
    try:
        code = app(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _judge(error: Exception, words: list[str]) -> tuple[str, int]:
    if isinstance(error, CycloptsError):
        command = words[0] if words and words[0] in app else ""
        return f"{error} See: {' '.join(['throughtime', *filter(None, [command]), '--help'])}", 2
    if isinstance(error, ImportError):
        return f"A part of throughtime, or of torch, cannot be loaded: {error}. Install it again.", 1
    from throughtime.cli.failures import judge

    return judge(error)


def _mend_streams() -> None:
    """A closed stream takes what is written to it, and one that cannot spell a character writes another."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        reconfigure: Callable[..., None] | None = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
