"""What a forecaster's network reads and is asked at every step of many series, as chunks in time order.

At step t of a series it reads numbers about the past (all within LIMIT of their usual sizes): the level, the last
change, what the anchor did not foresee, where the anchor goes, the season, whether the value is missing, and the
covariates of the next H steps. It is asked what the anchor leaves over at t + 1 .. t + H. The series stand one after
the other in one long row, which is cut into streams; the state starts anew where a series does.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime.baselines.series import BLOCK, Numbers, Places, harmonics
from throughtime.chunk import Chunk
from throughtime.data.streams import Streams
from throughtime.estimators.anchor import Anchor, Track

LIMIT = 8.0
"""Bound on every number that is read: one outlier must not be all that the network sees."""
LOCAL = 24
"""Steps that the local level is the mean of at least; two seasons where that is more."""
TURNS = 2
"""Harmonics of the season that are read."""
TABLE = 30_000_000
"""Numbers that are made beforehand at most; of longer data every chunk is made when it is read."""


@dataclass(frozen=True)
class View:
    """Which numbers are read: the horizon H, the season in steps (1: none), the number of covariates C."""

    horizon: int
    season: float
    covariates: int

    @property
    def width(self) -> int:
        return 5 + (self.horizon > 1) + self.covariates * self.horizon + (1 + 2 * self.turns if self.season > 1 else 0)

    @property
    def turns(self) -> int:
        return min(TURNS, int(self.season / 2))

    @property
    def local(self) -> int:
        return max(LOCAL, 2 * round(self.season))

    def reach(self, anchor: Anchor) -> int:
        """How many values back a step reads, itself included."""
        return max(self.local, anchor.reach, round(self.season)) + 2


def look(view: View, track: Track, origins: Places) -> tuple[Numbers, Numbers]:
    """What is read at each origin (N, I), and the anchor's forecast there (N, H)."""
    a, z = track.anchor, track.z
    paths = track.paths(origins, view.horizon)
    before = np.maximum(origins - 1, 0)
    foreseen = track.paths(before, 1)[:, 0]
    now = z[origins]
    columns = [
        now if a.steady else (now - _local_mean(z, origins, view.local)),
        (now - z[before]) / a.change,
        (now - foreseen) / a.spread[0],
        (paths[:, 0] - now) / a.spread[0],
        track.missing[origins].astype(np.float64),
    ]
    if view.horizon > 1:
        columns.append((paths[:, -1] - now) / a.spread[-1])
    table = [np.stack(columns, axis=1)]
    if view.season > 1:
        ago = z[np.maximum(origins - round(view.season), 0)]
        table.append(((now - ago) / a.spread[-1])[:, None])
        table.append(harmonics(track.places(origins), view.season, view.turns))
    if view.covariates:
        assert track.covariates is not None
        ahead = np.minimum(origins[:, None] + np.arange(1, view.horizon + 1), len(track.covariates) - 1)
        table.append(track.covariates[ahead].reshape(len(origins), -1))
    return np.clip(np.concatenate(table, axis=1), -LIMIT, LIMIT), paths


def asked(view: View, track: Track, origins: Places, paths: Numbers, since: int, stop: int) -> Numbers:
    """(N, H): what the anchor leaves over, in its spreads; NaN where the value is missing or outside since .. stop."""
    ahead = origins[:, None] + np.arange(1, view.horizon + 1)
    inside = np.minimum(ahead, len(track.z) - 1)
    left = (track.z[inside] - paths) / track.anchor.spread
    return np.where(
        (ahead >= since) & (ahead < stop) & ~track.missing[inside], np.clip(left, -10 * LIMIT, 10 * LIMIT), np.nan
    )


def _local_mean(z: Numbers, origins: Places, steps: int) -> Numbers:
    """The mean of the last steps; before the first value it is taken as constant."""
    sums = np.concatenate([[0.0], np.cumsum(z - z[0])])
    return z[0] + (sums[origins + 1] - sums[np.maximum(origins + 1 - steps, 0)]) / steps


@dataclass(frozen=True)
class Span:
    """The origins first .. stop - 1 of a track; those from `counted` on are asked about values since .. known - 1."""

    track: Track
    first: int
    stop: int
    counted: int
    known: int
    since: int = 0


class Horizons:
    """The spans one after the other as chunks of `streams` streams and `steps` steps.

    carried  the first step goes on from a state; otherwise every stream starts anew, as every span does.
    """

    def __init__(self, view: View, spans: list[Span], streams: int, steps: int, *, carried: bool = False) -> None:
        self.view, self.spans, self.carried = view, spans, carried
        self.ends = np.cumsum([span.stop - span.first for span in spans])
        self.cut = Streams(int(self.ends[-1]), streams, steps, "the series")
        self.starts = np.concatenate([[0], self.ends[:-1]])
        self._table = self._whole() if self._small() else None

    def _small(self) -> bool:
        return int(self.ends[-1]) * (self.view.width + self.view.horizon) <= TABLE

    def __len__(self) -> int:
        return len(self.cut)

    def __getitem__(self, index: int) -> Chunk:
        window = self.cut[index]
        place = window.position
        if self._table is not None:
            x, y = (part[place] for part in self._table)
        else:
            x, y = (part.reshape(*place.shape, -1) for part in self._make(place.ravel()))
        known = ~np.isnan(y)
        if window.inside is not None:
            known &= window.inside[..., None]
        reset = np.isin(place, self.starts)
        if window.first:
            reset[0] = not self.carried
        return Chunk(
            torch.from_numpy(np.ascontiguousarray(x)),
            torch.from_numpy(np.nan_to_num(y)),
            torch.from_numpy(known.astype(np.float32)),
            torch.from_numpy(reset) if reset.any() else None,
            window.last,
        )

    def _whole(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        total = int(self.ends[-1])
        x = np.zeros((total, self.view.width), np.float32)
        y = np.zeros((total, self.view.horizon), np.float32)
        for start in range(0, total, BLOCK):
            part = np.arange(start, min(start + BLOCK, total))
            x[part], y[part] = self._make(part)
        return x, y

    def _make(self, place: Places) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Inputs (N, I) and targets (N, H) of places in the long row."""
        x = np.zeros((len(place), self.view.width), np.float32)
        y = np.full((len(place), self.view.horizon), np.nan, np.float32)
        owner = np.searchsorted(self.ends, place, side="right")
        order = np.argsort(owner, kind="stable")
        owners, begins = np.unique(owner[order], return_index=True)
        for one, rows in zip(owners, np.split(order, begins[1:]), strict=True):
            span = self.spans[one]
            origins = place[rows] - self.starts[one] + span.first
            seen, paths = look(self.view, span.track, origins)
            x[rows] = seen
            wanted = asked(self.view, span.track, origins, paths, span.since, span.known)
            wanted[origins < span.counted] = np.nan
            y[rows] = wanted
        return x, y
