"""Finds which steps of a stream a loop hands to a module, by their values."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch

from throughtime.shapes import Tensor


def known(calls: Sequence[Tensor]) -> set[int]:
    """The places that calls read."""
    return {place for call in calls for place in call.flatten().tolist() if place >= 0}


class Places:
    """Finds the steps of a stream by their values. Place t B + b is step t of row b.

    Values may repeat (ids, padding): then a run of steps is found as a whole, and where several fit, the one that
    goes on from the last call is taken.
    """

    def __init__(self, x: Tensor, batch_first: bool) -> None:
        self.rows, self.axes = x.shape[1], x.dim() - 2
        self.trail = x.shape[2:]
        self.floating, self.batch_first = x.is_floating_point(), batch_first
        self.table: dict[tuple[float, ...], list[int]] = {}
        for place, key in enumerate(self._keys(x)):
            self.table.setdefault(key, []).append(place)
        self.last: dict[int, int] = {}

    def _keys(self, x: Tensor) -> list[tuple[float, ...]]:
        width = max(1, self.trail.numel())
        return [tuple(row) for row in x.detach().float().reshape(-1, width).tolist()]

    def find(self, x: Tensor) -> Tensor | None:
        """The places (n, rows) of a tensor's steps, in whatever order its axes are; None if any is not there."""
        if x.is_floating_point() != self.floating or x.dtype == torch.bool or not x.numel():
            return None
        lead = x.shape
        if self.trail.numel() > 1:
            if x.dim() < self.axes or x.shape[x.dim() - self.axes :] != self.trail:
                return None
            lead = x.shape[: x.dim() - self.axes]
        found = [self.table.get(key) for key in self._keys(x)]
        axes = [size for size in lead if size > 1]
        if len(axes) > 2 or any(part is None for part in found):
            return None
        known = [part for part in found if part is not None]
        if len(axes) < 2:
            together = set.intersection(*({p // self.rows for p in part} for part in known))
            best = [[part] for part in known] if together and not self._follows(known) else [known]
        else:
            best = max(_arrangements(known, axes, self.batch_first), key=lambda lanes: sum(map(self._follows, lanes)))
        return torch.tensor([self._resolve(row, lane) for row, lane in enumerate(best)]).T

    def find_rows(self, x: Tensor, lengths: Tensor) -> Tensor | None:
        """The same for rows of unequal lengths (T, B, ...); after a row's last step its place stands again."""
        found = [self.find(x[:length, row : row + 1]) for row, length in enumerate(lengths.tolist())]
        lanes = [grid[torch.arange(len(x)).clamp_max(len(grid) - 1), 0] for grid in found if grid is not None]
        return torch.stack(lanes, 1) if len(lanes) == len(found) else None

    def _follows(self, lane: Sequence[list[int]]) -> int:
        """How often one step of a lane is followed by the next of the stream."""
        return sum(any(p + self.rows in b for p in a) for a, b in pairwise(lane))

    def _resolve(self, row: int, lane: Sequence[list[int]]) -> list[int]:
        runs = [
            first for first in lane[0] if all(first + index * self.rows in found for index, found in enumerate(lane))
        ]
        if not runs:
            return [found[0] for found in lane]
        wanted = self.last.get(row, row - self.rows) + self.rows
        first = wanted if wanted in runs else runs[0]
        return [first + index * self.rows for index in range(len(lane))]

    def read(self, grid: Tensor) -> None:
        """Remember where the rows of a call end."""
        self.last = dict(enumerate(grid[-1].tolist()))


def _arrangements(found: list[list[int]], axes: list[int], batch_first: bool) -> list[list[list[list[int]]]]:
    """The lanes (rows, each a list of steps) that the cells of two axes may stand for, the likeliest first."""
    rows = [found[i * axes[1] : (i + 1) * axes[1]] for i in range(axes[0])]
    columns = [list(column) for column in zip(*rows, strict=True)]
    return [rows, columns] if batch_first else [columns, rows]
