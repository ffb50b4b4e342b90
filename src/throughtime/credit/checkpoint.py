"""The plan of an exact gradient under a memory budget: which start states of segments are kept, at what cost.

Time is cut into n segments. With m slots for start states, one of which holds the first, the fewest segments run
forward to go back through all of them, the last run of each with its graph, is (binomial checkpointing)

    C(n, m) = min over y of  y + C(n - y, m - 1) + C(y, m),     C(1, m) = 1,   C(n, 1) = n (n + 1) / 2
            = n + r n - beta(m + 1, r - 1),     beta(m, r) = (m + r)! / (m! r!),  r the least with beta(m, r) >= n

Griewank and Walther (2000), Algorithm 799: revolve. Only numbers here; `epochwise` runs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import comb
from typing import NamedTuple

UNITS = {"GB": 10**9, "MB": 10**6, "KB": 10**3, "B": 1}


def bytes_from(memory: str | int) -> int:
    """The bytes of "256 MB", "64MB", "1.5 GB" or a number; a KB is 1000 bytes.

    Raises ValueError for what is no size, TypeError for what is neither text nor a whole number.
    """
    sentence = f"memory must be a size such as '256 MB' or a number of bytes; got {memory!r}."
    if isinstance(memory, bool) or not isinstance(memory, (str, int)):
        raise TypeError(sentence)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]?B)?\s*", str(memory), re.IGNORECASE)
    size = round(float(found[1]) * UNITS[(found[2] or "B").upper()]) if found else 0
    if size < 1:
        raise ValueError(sentence)
    return size


def spell_bytes(size: int) -> str:
    """The one spelling of a size in records: a whole number of the largest unit that divides it, as in 256MB."""
    unit = next(unit for unit, factor in UNITS.items() if size % factor == 0)
    return f"{size // UNITS[unit]}{unit}"


def operations(segments: int, slots: int) -> int:
    """C(n, m): the segments that run forward, at the least, with m slots for start states."""
    if segments <= 1:
        return segments
    r = _repeats(segments, slots)
    return segments + r * segments - comb(slots + r, r - 1)


def split(segments: int, slots: int) -> int:
    """The y of the minimum: how many segments to run before the next start state is kept; slots at least 2."""
    r = _repeats(segments, slots)
    return max(1, comb(slots + r - 2, slots) if r > 1 else 0, segments - comb(slots - 1 + r, r))


def _repeats(segments: int, slots: int) -> int:
    r = 0
    while comb(slots + r, r) < segments:
        r += 1
    return r


class Action(NamedTuple):
    """One thing to do: restore or store the start state of a segment; run it forward; or run it and go back."""

    what: str
    segment: int


def schedule(segments: int, slots: int) -> Iterator[Action]:
    """What to do, in order, to go back through all segments with at most so many start states at a time.

    The start state of segment 0 is there and stored; a stored state is free once its segment has gone back.
    """
    stored, stop, at = [0], segments, 0
    while stop:
        start = stored[-1]
        if at != start:
            yield Action("restore", start)
        here, last = start, stop - 1
        while here < last and len(stored) < slots:
            next_start = here + split(stop - here, slots - len(stored) + 1)
            yield from (Action("forward", segment) for segment in range(here, next_start))
            yield Action("store", next_start)
            stored.append(next_start)
            here = next_start
        yield from (Action("forward", segment) for segment in range(here, last))
        yield Action("backward", last)
        if stored[-1] == last:
            stored.pop()
        stop, at = last, last + 1


@dataclass(frozen=True)
class Sizes:
    """What one segment of so many steps and streams takes, in bytes.

    kept       what its graph keeps until it goes back.
    working    what comes on top while one segment runs and goes back, the gradients of the weights included.
    state      one start state, with the random numbers of its segment where dropout draws some.
    training   whether the network was in its training mode.
    """

    steps: int
    streams: int
    training: bool
    kept: int
    working: int
    state: int

    def fit(self, steps: int, streams: int, training: bool) -> bool:
        """Whether these are the sizes of such a segment."""
        return (self.steps, self.streams, self.training) == (steps, streams, training)


@dataclass(frozen=True)
class Plan:
    """How an exact gradient is made under a budget; str(plan) says it in words.

    slots      start states that are kept at a time; None: the graphs of all segments are.
    forwards   segments that run forward, C(segments, slots); backwards are `segments`.
    peak       predicted bytes beyond inputs and weights.
    budget     bytes allowed; None: no bound.
    """

    steps: int
    segments: int
    sizes: Sizes
    slots: int | None
    forwards: int
    peak: int
    budget: int | None

    @property
    def recompute(self) -> float:
        """How often a segment runs forward, on average: 1 without a budget."""
        return self.forwards / self.segments

    def __str__(self) -> str:
        streams = f"{self.sizes.streams} stream{'s' * (self.sizes.streams > 1)}"
        if self.slots is None:
            kept = f"what all {self.segments:,} need to go back"
        else:
            kept = f"{self.slots:,} start states ({_megabytes(self.slots * self.sizes.state)}) and what one needs"
        pieces = f"{self.segments:,} segment{'s' * (self.segments > 1)}"
        bound = "no bound was given" if self.budget is None else f"allowed {_megabytes(self.budget)}"
        return (
            f"exact gradient through {self.steps:,} steps of {streams}, "
            f"{pieces} of at most {self.sizes.steps:,} steps: stored is {kept}; "
            f"predicted peak {_megabytes(self.peak)} beyond inputs and weights, {bound}; "
            f"{self.forwards:,} segments run forward, {self.recompute:.2f} times each."
        )


def _megabytes(size: int) -> str:
    return f"{size / UNITS['MB']:,.1f} MB"


def plan(steps: int, segments: int, sizes: Sizes, budget: int | None) -> Plan:
    """The plan with the fewest forward runs within a budget; sizes are those of the longest segment.

    Raises ValueError when the budget holds not even one segment and one start state; it says what the smallest is.
    """
    plain = sizes.working + segments * (sizes.kept + sizes.state)
    if budget is None or plain <= budget:
        return Plan(steps, segments, sizes, None, segments, plain, budget)
    fixed = sizes.working + sizes.kept
    smallest = fixed + sizes.state
    if budget < smallest:
        enough = spell_bytes(-(-smallest // 1000) * 1000)
        streams = f"{sizes.streams} stream{'s' * (sizes.streams > 1)}"
        raise ValueError(
            f"memory must be at least {enough} for this network and {streams}, one segment of "
            f"{sizes.steps} steps; got {spell_bytes(budget)}. Raise it, or use fewer streams."
        )
    slots = min(segments - 1, (budget - fixed) // sizes.state)
    forwards, peak = operations(segments, slots), fixed + slots * sizes.state
    return Plan(steps, segments, sizes, slots, forwards, peak, budget)


def bounds(steps: int, segments: int) -> list[tuple[int, int]]:
    """Where each segment begins and ends: equal parts, to a step; the longer ones last.

    Going back starts at the last: memory taken for it fits the others.
    """
    short, longer = divmod(steps, segments)
    starts = [k * short + max(0, k - (segments - longer)) for k in range(segments + 1)]
    return list(pairwise(starts))
