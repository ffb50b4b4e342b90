"""What the runs of an audit add up to, and its name.

A window of BPTT(h; h') is the h' errors that reach back to the same step f; with e the last of them, h = e - f + 1
(Williams and Peng 1990).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

import torch

from throughtime.shapes import Tensor
from throughtime.verify.letters import listed
from throughtime.verify.tape import Use

SAME = 0.01
"""Counts that differ by less are the same: states name their places in values that heads of cells see."""


@dataclass(frozen=True)
class Evidence:
    """What the runs of a loop showed; places are t rows + b, and errors those of row 0.

    updates   of each carrier (U, T, places): what the optimizer was given of each error.
    spread    of each carrier (T, places): what backward wrote, taken or not.
    uses      of each carrier: those of its module's weights.
    padded    places that no error should count; behind: steps after a row's end whose outputs got one.
    targets   the steps whose errors should count; read: the steps that the loop read.
    given     whether an optimizer stepped on recurrent weights; ungiven: weights of the module that none stepped on.
    errors    whether what came back to the outputs was other than zero; None: nothing came back.
    swapped   whether row 1 got the target of row 0 where that was changed.
    strict    what torch says against the graph, or nothing.
    """

    steps: int
    rows: int
    updates: dict[str, Tensor]
    spread: dict[str, Tensor]
    uses: dict[str, list[Use]]
    padded: set[int]
    behind: set[int]
    targets: list[int]
    read: list[int]
    events: list[str]
    given: bool
    ungiven: list[str]
    errors: bool | None
    swapped: bool
    strict: str
    expect: tuple[int, int] | None


@dataclass(frozen=True)
class Window:
    """Errors from `start` to `stop` (inclusive) that all reach back to step `first`, and not further."""

    start: int
    stop: int
    first: int

    @property
    def h(self) -> int:
        return self.stop - self.first + 1

    @property
    def every(self) -> int:
        return self.stop - self.start + 1


@dataclass(frozen=True)
class Account:
    """One carrier's counts: C (U, T, T) with an error's first count at its own step as unit, and the weight of each
    error against the middle one; stacked: updates hold what the ones before held too."""

    updates: Tensor
    weights: Tensor
    stacked: bool
    epochs: int

    @property
    def matrix(self) -> Tensor:
        return self.updates.sum(0) * self.weights[:, None]

    def windows(self) -> list[Window]:
        """Runs of errors that reach back to the same step."""
        reached = (self.updates.abs() > SAME).any(0)
        first = [(t, int(row.nonzero()[0])) for t, row in enumerate(reached) if row.any()]
        groups = [[t for t, _ in group] for _, group in groupby(first, key=lambda pair: pair[1])]
        starts = dict(first)
        return [Window(group[0], group[-1], starts[group[0]]) for group in groups]


def account_of(given: Tensor, spread: Tensor, rows: int) -> Account:
    """What updates (U, T, places) gave the weights of row 0, of the first epoch when epochs repeat; spread (T, places):
    what backward wrote for them."""
    own = given[:, :, ::rows][:, :, : given.shape[1]]
    own = own[(own.abs().amax((1, 2)) > 0)]
    more = own.sum(0).abs().sum() > 1.01 * spread[:, ::rows][:, : given.shape[1]].abs().sum()
    stacked = bool(more) and _is_stacked(own)
    if stacked:
        own = torch.cat((own[:1], own[1:] - own[:-1]))
    epochs = _epochs(own)
    own = own[: len(own) // epochs]
    weights = torch.zeros(own.shape[1], dtype=own.dtype)
    largest = own.abs().max() if own.numel() else torch.tensor(0.0)
    own = torch.where(own.abs() > 1e-4 * largest, own, 0)
    for t in range(own.shape[1]):
        found = [update[t, t] for update in own if update[t].any()]
        weights[t] = next((value for value in found if value), own[:, t].abs().max() if len(own) else 0.0)
    counted = weights != 0
    scale = torch.where(counted, weights, 1)
    middle = weights[counted].median() if counted.any() else torch.tensor(1.0)
    return Account(own / scale[:, None], weights / middle, stacked, epochs)


def _is_stacked(updates: Tensor) -> bool:
    """Whether each update holds all that the one before held, and more: gradients that nobody zeroes."""
    small = 1e-4 * float(updates.abs().max()) if updates.numel() else 0.0
    for before, after in pairwise(updates):
        more = (after - before) * before.sign()
        if more.min() < -small or (after - before).abs().max() <= small:
            return False
    return len(updates) > 1


def _epochs(updates: Tensor) -> int:
    """How many times the same updates repeat."""
    count = len(updates)
    for epochs in range(count, 1, -1):
        if count % epochs == 0:
            parts = updates.reshape(epochs, count // epochs, *updates.shape[1:])
            if (parts - parts[:1]).abs().max() <= 1e-4 * parts.abs().max():
                return epochs
    return 1


def name_of(account: Account, steps: int) -> str:
    """BPTT(h; h') where the errors are settled so, or a description."""
    windows = account.windows()
    counted = int((account.weights != 0).sum())
    if windows == [Window(0, counted - 1, 0)]:
        updates = len(account.updates)
        if updates == 1:
            return f"BPTT({counted}; {counted}), epochwise"
        every = max(int((update.diagonal() != 0).sum()) for update in account.updates)
        return f"BPTT({counted}; {every}), back to the first step at every update"
    cut = [window for window in windows if window.first > 0]
    if not cut:
        return "no BPTT(h; h')"
    gaps = {b.start - a.stop for a, b in pairwise(windows)}
    if gaps != {1}:
        return _sparse(account, windows)
    inner = cut[:-1] or cut
    h, every = inner[0].h, inner[0].every
    last = cut[-1]
    regular = all((window.h, window.every) == (h, every) for window in inner)
    regular &= last.every <= every and last.h in (h, last.every)
    regular &= windows[0].first > 0 or windows[0].stop < h
    if regular and _filled(account):
        return f"BPTT({h}; {every})"
    sizes = sorted({window.h for window in windows})
    return f"windows of {listed(sizes)} steps, no BPTT(h; h')"


def _filled(account: Account) -> bool:
    """Whether every error reaches all uses from its furthest to its own."""
    for t, row in enumerate((account.updates.abs() > SAME).any(0)):
        if row.any() and not row[int(row.nonzero()[0]) : t + 1].all():
            return False
    return True


def _sparse(account: Account, windows: Sequence[Window]) -> str:
    steps = {b.stop - a.stop for a, b in pairwise(windows)}
    reach = {window.h for window in windows if window.first > 0}
    if len(steps) == 1 and len(reach) == 1 and all(window.every == 1 for window in windows):
        return f"the last error of every {steps.pop()} steps, back through {reach.pop()}"
    return "no BPTT(h; h')"
