"""What the check of a law gives: the error that was measured, and the tolerance that it must not exceed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from throughtime.shapes import Tensor


@dataclass(frozen=True)
class Result:
    """One law checked on one subject.

    error      the largest difference found, relative to the size of what it should be; for a yes-no law the
               number of faults.
    tolerance  what rounding may do; 0 for a yes-no law.
    seconds    the time that the check took.
    detail     what is wrong, in words, where a number does not say it.
    """

    law: str
    subject: str
    error: float
    tolerance: float
    seconds: float
    detail: str = ""

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


class Measured(NamedTuple):
    """The outcome of a check, before it is named and timed."""

    error: float
    tolerance: float = 0.0
    detail: str = ""


def check(law: str, subject: str, measure: Callable[[], Measured], seed: int = 0) -> Result:
    """Measure one law under a seed of its own; the caller's random numbers go on as if none were drawn."""
    begin = time.perf_counter()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        error, tolerance, detail = measure()
    return Result(law, subject, float(error), float(tolerance), time.perf_counter() - begin, detail)


def require(results: Iterable[Result]) -> None:
    """Raise AssertionError, with one sentence for every law that does not hold."""
    broken = [_sentence(result) for result in results if not result.passed]
    if broken:
        raise AssertionError("\n".join(broken))


def _sentence(result: Result) -> str:
    what = f"{result.law!r} must hold for {result.subject}"
    if result.tolerance:
        what += f" to {result.tolerance:.1e}; got an error of {result.error:.1e}."
    else:
        what += f"; got {result.error:g} fault{'s' * (result.error != 1)}."
    return f"{what} {result.detail}".rstrip()


def table(results: Iterable[Result]) -> str:
    """Plain text, one line a law: the subjects, the largest error beside its tolerance, pass or fail."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.law, []).append(result)
    rows = [("law", "subjects", "largest error", "tolerance", "")]
    for law, group in groups.items():
        worst = max(group, key=_severity)
        verdict = "pass" if all(result.passed for result in group) else f"FAIL: {worst.subject}"
        subjects = group[0].subject if len(group) == 1 else f"{len(group)}: {_short(group)}"
        rows.append((law, subjects, f"{worst.error:.1e}", f"{worst.tolerance:.1e}", verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, row, [*widths, 0])).rstrip() for row in rows)


def _short(group: list[Result], width: int = 40) -> str:
    """The first words of the subjects, each once, cut to a width."""
    words = ", ".join(dict.fromkeys(result.subject.split()[0] for result in group))
    return words if len(words) <= width else f"{words[: width - 3]}..."


def _severity(result: Result) -> float:
    """How far an error is above its tolerance; what is not a number is furthest."""
    if not result.error < float("inf"):
        return float("inf")
    return result.error / result.tolerance if result.tolerance else result.error * 1e300


def rounding(dtype: torch.dtype, steps: int = 1, width: int = 1) -> float:
    """What rounding may do to a result, relative to its size.

    Forward and backward, each step sums `width` products and makes some thirty operations on single numbers,
    and every one of them is off by at most eps.
    """
    return 2 * steps * (width + 32) * torch.finfo(dtype).eps


def distance(a: Any, b: Any) -> float:
    """The largest difference of two nestings of tensors and numbers, relative to each tensor of b.

    Relative to the largest entry of a tensor, that is, or to FLOOR when it has none that large. Infinite when
    they are not of one shape; not a number when a is none where b is one.
    """
    if isinstance(b, Mapping):
        if set(a) != set(b):
            return float("inf")
        return _largest(distance(a[name], b[name]) for name in b)
    if isinstance(b, (tuple, list)):
        if len(a) != len(b):
            return float("inf")
        return _largest(distance(x, y) for x, y in zip(a, b, strict=True))
    a, b = (torch.as_tensor(part, dtype=torch.float64).detach() for part in (a, b))
    if a.shape != b.shape:
        return float("inf")
    if not a.numel():
        return 0.0
    return float((a - b).abs().max() / b.abs().max().clamp_min(FLOOR))


FLOOR = 0.01
"""Entries are compared with at least this size, so that what should be zero can be compared too."""


def _largest(errors: Iterable[float]) -> float:
    """The largest, or the one that is not a number."""
    return float(torch.tensor([0.0, *errors], dtype=torch.float64).max())


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers of double precision, rounded to dtype."""
    return torch.randn(*shape, dtype=torch.float64).to(dtype)
