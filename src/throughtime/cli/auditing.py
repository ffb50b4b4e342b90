"""What `audit` does: it calls a function of the user's file that audits a loop, and prints what it returns."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure

from throughtime.cli.options import check_picture
from throughtime.verify.audit import Audit

HOUSE = str(Path(__file__).parents[1])


def audit(sources: Sequence[str], picture: Path | None) -> int:
    """Print the report of each FILE.py[:FUNCTION]; 1 when any of them has findings."""
    check_picture(picture)
    if not sources:
        raise ValueError("FILE.py must be given: a Python file with a function audit() that returns tt.audit(...).")
    if picture is not None and len(sources) > 1:
        raise ValueError(f"--picture must go with one FILE.py; got {len(sources)}.")
    wrong = False
    for number, source in enumerate(sources):
        report = report_of(source)
        title = [f"\n{source}" if number else source] * (len(sources) > 1)
        print("\n".join([*title, str(report)]))
        wrong |= bool(report.findings)
        if picture is not None:
            report.plot(Figure(layout="constrained").subplots()).figure.savefig(picture)
    return int(wrong)


def report_of(source: str) -> Audit:
    """What the function of `FILE.py:FUNCTION` returns; `audit` where none is named. What it prints goes to stderr."""
    path, _, name = source.rpartition(":")
    if not path.endswith(".py"):
        path, name = source, ""
    name = name or "audit"
    if not path.endswith(".py"):
        raise ValueError(f"FILE.py must be a Python file, FILE.py:FUNCTION or FILE.py; got {source}.")
    code = Path(path).read_bytes()
    with _told(path), redirect_stdout(sys.stderr):
        names = _names(path, code)
        function = names.get(name)
        if not callable(function):
            raise ValueError(
                f"{path} must define a function {name}() that returns tt.audit(loop, module, x, y); it does not. "
                "Write one, or name another: FILE.py:FUNCTION."
            )
        needed = [p.name for p in signature(function).parameters.values() if p.default is p.empty and p.kind < 2]
        if needed:
            raise ValueError(f"{name} of {path} must take no arguments and return tt.audit(...); it needs {needed[0]}.")
        report = function()
    if not isinstance(report, Audit):
        raise ValueError(
            f"{name} of {path} must return the report, as in return tt.audit(loop, module, x, y); got "
            f"{type(report).__name__}."
        )
    return report


def _names(path: str, code: bytes) -> dict[str, Any]:
    """What a file defines, run as a module of its own."""
    module = ModuleType(f"audited_{Path(path).stem}")
    module.__file__ = path
    sys.modules[module.__name__] = module
    exec(compile(code, path, "exec"), vars(module))
    return vars(module)


@contextmanager
def _told(path: str) -> Iterator[None]:
    """The file may import what lies beside it; what it does wrong is a sentence with its line. Raises ValueError."""
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        yield
    except SystemExit as error:
        raise ValueError(f"{path} must not exit; it did: {error.code}") from error
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        if isinstance(error, (ValueError, TypeError)) and frames[-1].filename.startswith(HOUSE):
            raise
        lines = [frame.lineno for frame in frames if frame.filename == path]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        said = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
        raise ValueError(f"{path}, line {line}: {type(error).__name__}: {said}") from error
    finally:
        sys.path.pop(0)
