"""Where a forecaster stands in one series: the last values it still needs, and the network's state before them.

The state has read all steps but the last few, the pending ones: one, or with covariates the H whose future numbers are
not all known yet. A forecast reads the pending steps and leaves the state where it was; new values move it on in a time
that does not depend on how many came before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.baselines.series import Numbers
from throughtime.data.panel import Line
from throughtime.estimators.anchor import Anchor, Track, track_of
from throughtime.estimators.heads import Head
from throughtime.estimators.horizons import View, look
from throughtime.state import State, change

READ = 20_000
"""Steps that a state is read from at most when a series is first seen, the last ones."""
PIECE = 512
"""Steps that the network reads in one call."""


@dataclass(frozen=True)
class Standing:
    """z, missing (T,) and covariates (T, C) of the last steps, the place of the first on the time axis, and the state
    after the steps before index `read`."""

    id: Any
    anchor: Anchor
    z: Numbers
    missing: NDArray[np.bool_]
    covariates: Numbers
    start: int
    read: int
    state: State = None

    @property
    def stop(self) -> int:
        """The place after the last step."""
        return self.start + len(self.z)

    def track(self, future: Numbers | None, more: int) -> Track:
        """The last steps as a track, with the covariates (more, C) of what comes."""
        covariates = None
        if self.covariates.shape[1]:
            ahead = np.zeros((0, self.covariates.shape[1])) if future is None else future
            covariates = np.concatenate([self.covariates, ahead])
            covariates = np.concatenate(
                [covariates, np.repeat(covariates[-1:], len(self.z) + more - len(covariates), 0)]
            )
        return track_of(self.anchor, self.z, self.missing, start=self.start, more=more, covariates=covariates)


def pending(view: View) -> int:
    """How many of the last steps the state does not hold."""
    return view.horizon if view.covariates else 1


def stand(net: nn.Module, view: View, anchor: Anchor, line: Line) -> Standing:
    """Read a series from its beginning, or its last READ steps; its covariates are scaled."""
    y, covariates = line.values, line.covariates
    beside = anchor.parts[0].beside(line.start, len(y), covariates if covariates.shape[1] else None)
    z = anchor.fill(y, np.zeros(0), beside)
    unread = max(0, len(z) - READ)
    return _advance(net, view, Standing(line.id, anchor, z, np.isnan(y), covariates, line.start, unread))


class Continued(nn.Module):
    """A network whose empty state is one that was carried here."""

    def __init__(self, net: nn.Module, state: State) -> None:
        super().__init__()
        self.net, self.state = net, state

    def forward(self, x: torch.Tensor, state: State = None, reset: torch.Tensor | None = None) -> Any:
        return self.net(x, self.state if state is None else state, reset)


def move(net: nn.Module, view: View, at: Standing, y: Numbers, covariates: Numbers) -> Standing:
    """The standing after new values y (N,), with NaN where missing, and their covariates (N, C)."""
    return _advance(net, view, append(at, y, covariates))


def append(at: Standing, y: Numbers, covariates: Numbers) -> Standing:
    """The new values behind the others, not read yet."""
    whole = np.concatenate([at.covariates, covariates])
    beside = at.anchor.parts[0].beside(at.start, len(at.z) + len(y), whole if whole.shape[1] else None)
    z = at.anchor.fill(y, at.z, None if beside is None else beside[len(at.z) :])
    return replace(at, z=np.concatenate([at.z, z]), missing=np.concatenate([at.missing, np.isnan(y)]), covariates=whole)


def _advance(net: nn.Module, view: View, at: Standing) -> Standing:
    """Read all but the pending steps, and let go of the values that are needed no more."""
    stop = max(at.read, len(at.z) - pending(view))
    _, _, state = read(net, view, at.track(None, view.horizon), np.arange(at.read, stop), at.state)
    kept = max(0, stop - view.reach(at.anchor) - 2)
    return replace(
        at,
        z=at.z[kept:],
        missing=at.missing[kept:],
        covariates=at.covariates[kept:],
        start=at.start + kept,
        read=stop - kept,
        state=state,
    )


@torch.no_grad()
def read(
    net: nn.Module, view: View, track: Track, origins: NDArray[np.int64], state: State, *, rows: int = 1
) -> tuple[Numbers, Numbers, State]:
    """The network's outputs (N, A) and the anchor's forecasts (N, H) at the origins, and the state after them.

    With more rows the origins are one step of each of so many streams.
    """
    weight = next(net.parameters())
    outputs, paths = [], []
    for first in range(0, len(origins), PIECE if rows == 1 else len(origins)):
        part = origins[first : first + PIECE] if rows == 1 else origins
        seen, path = look(view, track, part)
        x = torch.from_numpy(seen).to(weight.dtype)
        y, state = net(x[None] if rows > 1 else x[:, None], state)
        outputs.append(y.reshape(len(part), -1).double().numpy())
        paths.append(path)
    if not outputs:
        return np.zeros((0, 0)), np.zeros((0, view.horizon)), state
    return np.concatenate(outputs), np.concatenate(paths), state


def direct(net: nn.Module, view: View, head: Head, at: Standing, wanted: Numbers, future: Numbers | None) -> Numbers:
    """(H, Q): the wanted quantiles of the next H values, in their units, all from the last step."""
    track = at.track(future, view.horizon)
    out, paths, _ = read(net, view, track, np.arange(at.read, len(at.z)), at.state)
    r = head.quantiles(out[-1:], wanted)[0]
    scaled: Numbers = at.anchor.scaling.outward(paths[-1][:, None] + at.anchor.spread[:, None] * r)
    return scaled


def recursive(
    net: nn.Module,
    view: View,
    head: Head,
    at: Standing,
    wanted: Numbers,
    future: Numbers | None,
    *,
    horizon: int,
    samples: int,
    random: np.random.Generator,
) -> Numbers:
    """(horizon, Q): the wanted quantiles of the next values, from sampled paths, each fed its own values."""
    P = 1 if head.kind == "point" else samples
    T, stride = len(at.z), len(at.z) + horizon + 1
    base = at.track(future, horizon + 1)
    z = np.tile(np.concatenate([at.z, np.zeros(horizon + 1)]), P)
    missing = np.tile(np.concatenate([at.missing, np.zeros(horizon + 1, bool)]), P)
    first = np.arange(P) * stride
    state = change(lambda part: part.repeat_interleave(P, -2), at.state)
    found = np.zeros((P, horizon))
    for index in range(at.read, T + horizon - 1):
        track = _many(base, z, missing, P, stride)
        out, paths, state = read(net, view, track, first + index, state, rows=P)
        if index >= T - 1:
            value = paths[:, 0] + at.anchor.spread[0] * head.draw(out, random)
            found[:, index - T + 1] = value
            z[first + index + 1] = value
    values = at.anchor.scaling.outward(found)
    return np.quantile(values, wanted, axis=0).T


def _many(base: Track, z: Numbers, missing: NDArray[np.bool_], count: int, stride: int) -> Track:
    """Many pasts side by side, each in `stride` slots, under what one track knows beforehand."""
    tile = lambda table: None if table is None else np.tile(table[:stride], (count, 1))  # noqa: E731
    made = track_of(base.anchor, z, missing, start=base.start, more=0)
    return replace(
        made, beside=tuple(tile(one) for one in base.beside), covariates=tile(base.covariates), stride=stride
    )
