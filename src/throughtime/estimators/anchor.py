"""The line that a network departs from: of each series a scale and a linear forecast, chosen on its past alone.

A series y (T,) is read as z = (f(y) - centre) / scale, where f is the identity or asinh(y / width), which is linear
near 0 and a logarithm far from it. The anchor is the weighted mean of a few linear forecasts (throughtime.baselines).
What the network learns at step t for the horizons h = 1 .. H is what the anchor leaves over, in units of its usual
error,

    r_{t,h} = (z_{t+h} - anchor_{t,h}) / spread_h,

so a network that says nothing forecasts as the anchor does, trends and seasons included. Kinds of forecasts are judged
on the last part of the past, fitted on what comes before, at up to three borders; those whose mean absolute error is
within NEAR of the lowest share the anchor, each with a weight of error^-POWER.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from throughtime.baselines.series import Kind, Linear, Numbers, Places, fit, harmonics, largest_order, naive

NEAR, POWER, MOST = 1.15, 4, 5
"""How near to the best error a kind must be to share, how its weight falls with its error, how many share at most."""
BENT = 1.05
"""What the error of a bent scale is multiplied by: it must earn its place."""
WAVES = 3
"""Harmonics of the season that an anchor may have."""
HELD = 0.2
"""Share of a series that anchors and networks are judged on."""
LONGEST_HELD = 4000
"""Steps at the end of a series that are held out at most; a longer part tells no more and costs time."""
JUDGED = 400
"""Origins that an anchor is judged from at most, spread over the held part."""
RECENT = 50_000
"""Steps that anchors are fitted on at most, the last ones."""
SHORT = 3000
"""Steps of a series up to which it is judged at three borders; a longer one has enough after one."""
ALONE = 20
"""Of more series than this, the kinds are chosen once for all, on so many of them."""


@dataclass(frozen=True)
class Scaling:
    """z = (f(y) - centre) / scale; width 0: f is the identity, else f(y) = asinh(y / width)."""

    centre: float
    scale: float
    width: float = 0.0

    def inward(self, y: Numbers) -> Numbers:
        return ((np.arcsinh(y / self.width) if self.width else y) - self.centre) / self.scale

    def outward(self, z: Numbers) -> Numbers:
        y = z * self.scale + self.centre
        return np.sinh(np.clip(y, -300, 300)) * self.width if self.width else y


def scaling_of(y: Numbers, bent: bool = False) -> Scaling:
    """The scaling of the values that are there: their median, and their mean absolute deviation from it."""
    known = y[~np.isnan(y)]
    width = float(np.median(np.abs(known))) / 10 if bent else 0.0
    if width:
        known = np.arcsinh(known / width)
    centre = float(np.median(known))
    scale = float(np.abs(known - centre).mean())
    return Scaling(centre, scale if scale > 1e-12 * abs(centre) else 1.0, width)


@dataclass(frozen=True)
class Past:
    """One series as an anchor sees it: y (T,) with NaN where missing, its first place on the time axis, the season.

    horizon is H; covariates (T + more, C) may go on beyond the last value, where they are known.
    """

    y: Numbers
    start: int
    horizon: int
    season: float
    covariates: Numbers | None = None

    def cut(self, stop: int) -> Past:
        return replace(self, y=self.y[:stop])

    def recent(self) -> Past:
        """The last RECENT steps."""
        first = max(0, len(self.y) - RECENT)
        later = None if self.covariates is None else self.covariates[first:]
        return replace(self, y=self.y[first:], start=self.start + first, covariates=later)


@dataclass(frozen=True)
class Choice:
    """A kind of forecast, whether on a bent scale, and its share in the anchor."""

    kind: Kind
    bent: bool = False
    weight: float = 1.0


@dataclass(frozen=True)
class Part:
    """A choice fitted: its recurrence in its own scaling, and what it reads beside the values."""

    weight: float
    scaling: Scaling
    linear: Linear
    season: float
    waves: int
    covariates: bool

    @property
    def sees(self) -> tuple[int, bool]:
        """What tells its numbers beside from those of the other parts of an anchor."""
        return self.waves, self.covariates

    def beside(self, start: int, steps: int, covariates: Numbers | None) -> Numbers | None:
        """(steps, K) numbers known beforehand from a place on: harmonics, then covariates and those one step before.

        Beyond the last covariates that are known they are taken as constant.
        """
        parts = [harmonics(start + np.arange(steps), self.season, self.waves)] if self.waves else []
        if self.covariates and covariates is not None:
            more = np.repeat(covariates[-1:], max(0, steps - len(covariates)), 0)
            now = np.concatenate([covariates, more])[:steps]
            parts += [now, np.concatenate([now[:1], now[:-1]])]
        return np.concatenate(parts, axis=1) if parts else None


@dataclass(frozen=True)
class Anchor:
    """One series' scaling and linear forecasts, and the units of what they leave over.

    parts   the forecasts that share, the best first; z and what is missing go by the scaling of the first.
    spread  (H,) the usual error at each horizon, in z; change: that of z_t - z_{t-1}.
    steady  whether the level itself comes back to a mean, and not only its differences.
    """

    parts: tuple[Part, ...]
    spread: Numbers
    change: float
    steady: bool

    @property
    def scaling(self) -> Scaling:
        return self.parts[0].scaling

    @property
    def reach(self) -> int:
        return max(part.linear.reach for part in self.parts)

    def fill(self, y: Numbers, before: Numbers, beside: Numbers | None) -> Numbers:
        """z of new values y (N,), where a missing one is what the first part expects from those before it.

        before (P,) are the z that precede; beside, of the first part, is of y's places.
        """
        linear = self.parts[0].linear
        lags, weights = np.array(linear.lags, np.int64), np.array(linear.weights)
        start, z = len(before), np.concatenate([before, self.scaling.inward(y)])
        for t in start + np.nonzero(np.isnan(y))[0]:
            step = linear.intercept + float(weights @ z[np.maximum(t - lags, 0)])
            if linear.beside and beside is not None:
                step += float(beside[t - start] @ np.array(linear.beside))
            z[t] = step
        return z[start:]


@dataclass(frozen=True)
class Track:
    """One series under its anchor: z (T,) filled, missing (T,), its first place on the time axis, covariates.

    inner and beside are what each part of the anchor reads: z in its scaling, and the numbers known beforehand.
    stride above 0: z holds many pasts of so many slots each, which all begin at `start`.
    """

    anchor: Anchor
    z: Numbers
    missing: NDArray[np.bool_]
    start: int
    covariates: Numbers | None
    inner: tuple[Numbers, ...]
    beside: tuple[Numbers | None, ...]
    stride: int = 0

    def places(self, origins: Places) -> Places:
        """Where the origins are on the time axis."""
        return self.start + (origins % self.stride if self.stride else origins)

    def paths(self, origins: Places, horizon: int) -> Numbers:
        """(N, horizon): the anchor's forecast of z from each origin."""
        anchor = self.anchor
        total = np.zeros((len(origins), horizon))
        for part, z, beside in zip(anchor.parts, self.inner, self.beside, strict=True):
            path = part.linear.paths(z, origins, horizon, beside=beside)
            total += part.weight * (path if part.scaling == anchor.scaling else _between(part, anchor, path))
        return total


def _between(part: Part, anchor: Anchor, z: Numbers) -> Numbers:
    return anchor.scaling.inward(part.scaling.outward(z))


def track_of(
    anchor: Anchor,
    z: Numbers,
    missing: NDArray[np.bool_],
    *,
    start: int,
    more: int,
    covariates: Numbers | None = None,
) -> Track:
    """The track of filled values z (T,), with what is known beforehand of `more` steps beyond."""
    inner: dict[Scaling, Numbers] = {anchor.scaling: z}
    for part in anchor.parts:
        if part.scaling not in inner:
            inner[part.scaling] = part.scaling.inward(anchor.scaling.outward(z))
    known: dict[tuple[int, bool], Numbers | None] = {}
    for part in anchor.parts:
        if part.sees not in known:
            known[part.sees] = part.beside(start, len(z) + more, covariates)
    return Track(
        anchor,
        z,
        missing,
        start,
        covariates,
        tuple(inner[part.scaling] for part in anchor.parts),
        tuple(known[part.sees] for part in anchor.parts),
    )


def kinds(steps: int, season: int) -> Iterator[Kind]:
    """The kinds of forecasts that so many steps allow, simple ones first."""
    yield Kind("naive", difference=1, intercept=False)
    yield Kind("drift", difference=1)
    yield Kind("mean")
    whole = season if season > 1 and steps >= 2 * season + 2 else 1
    if whole > 1:
        yield Kind("seasonal naive", seasonal=1, season=whole, intercept=False)
        yield Kind("seasonal naive with drift", seasonal=1, season=whole)
    most = largest_order(steps, whole)
    if most < 2:
        return
    yield Kind("autoregression", most=most)
    yield Kind("autoregression of steps", difference=1, intercept=False, most=most)
    yield Kind("autoregression of steps with drift", difference=1, most=most)
    if whole > 1:
        yield Kind("autoregression of seasonal steps", seasonal=1, season=whole, most=most)
        short = min(most, 25)
        yield Kind("autoregression and harmonics", most=short, harmonics=True)
        yield Kind("autoregression of steps and harmonics", difference=1, most=short, harmonics=True)


def border_of(steps: int, horizon: int) -> int:
    """Where the part begins that anchors and networks are judged on; the half of a very short series."""
    held = max(round(HELD * steps), min(2 * horizon, steps // 3), min(6, steps // 2))
    return steps - min(held, LONGEST_HELD)


def choose(pasts: Sequence[Past]) -> tuple[Choice, ...]:
    """The kinds of forecasts that share an anchor, the best first; of several series one choice for all."""
    pasts = [past.recent() for past in pasts]
    longest = max(pasts, key=lambda past: len(past.y))
    rivals = list(_rivals(longest, pasts))
    errors = np.mean([_errors(past, rivals) for past in pasts], axis=0)
    order = [int(i) for i in np.argsort(errors, kind="stable")]
    best = errors[order[0]]
    if not np.isfinite(best):
        return (Choice(Kind("naive", difference=1, intercept=False)),)
    shared = [i for i in order if errors[i] <= NEAR * best][:MOST]
    if best <= 0:
        shared = shared[:1]
    weights = np.array([(best / errors[i]) ** POWER if errors[i] > 0 else 1.0 for i in shared])
    weights = weights / weights.sum()
    return tuple(replace(rivals[i], weight=float(weight)) for i, weight in zip(shared, weights, strict=True))


def _rivals(longest: Past, pasts: Sequence[Past]) -> Iterator[Choice]:
    early = longest.y[: border_of(len(longest.y), longest.horizon)]
    steps = int((~np.isnan(early)).sum())
    every = list(kinds(steps, round(longest.season)))
    yield from map(Choice, every)
    if steps >= 24 and all(_bends(past.y) for past in pasts):
        yield from (Choice(kind, True) for kind in every if kind.name not in ("naive", "seasonal naive", "mean"))


def _bends(y: Numbers) -> bool:
    """Whether a bent scale can be of use: no value below 0, and the range above half of the median."""
    known = y[~np.isnan(y)]
    return bool((known >= 0).all() and np.ptp(known) > np.median(known) / 2 > 0)


def _errors(past: Past, rivals: Sequence[Choice]) -> Numbers:
    """The mean absolute error of each rival over the borders, in units of that of the naive forecast."""
    n = len(past.y)
    border = border_of(n, past.horizon)
    held = n - border
    earlier = [border - k * (held // 2) for k in (1, 2) if n <= SHORT and border - k * (held // 2) > n // 3]
    found = []
    for start in (border, *earlier):
        stop = min(start + held, n)
        row = [_error(fit_anchor(past.cut(start), (rival,)), past.cut(stop), start) for rival in rivals]
        found.append(np.array(row) / (row[0] if 0 < row[0] < np.inf else 1.0))
    with np.errstate(invalid="ignore"):
        return np.mean(found, axis=0) * np.array([BENT if rival.bent else 1.0 for rival in rivals])


def _error(anchor: Anchor | None, past: Past, border: int) -> float:
    """Mean absolute error in the units of y, of forecasts from border - 1 on; infinite where they overflow."""
    if anchor is None:
        return np.inf
    z = carried(anchor.scaling.inward(past.y))
    origins = _some(np.arange(border - 1, len(z) - 1), JUDGED)
    track = track_of(anchor, z, np.isnan(past.y), start=past.start, more=past.horizon, covariates=past.covariates)
    with np.errstate(over="ignore", invalid="ignore"):
        forecast = anchor.scaling.outward(track.paths(origins, past.horizon))
        error = np.abs(ahead_of(past.y, origins, past.horizon) - forecast)
    error = error[~np.isnan(ahead_of(past.y, origins, past.horizon))]
    return float(error.mean()) if len(error) and np.isfinite(error).all() else np.inf


def fit_anchor(past: Past, choices: Sequence[Choice]) -> Anchor | None:
    """The anchor of the choices on a whole past, with its usual errors there; None where none of them can be fitted."""
    past = past.recent()
    parts = [part for part in (_fit_part(past, choice) for choice in choices) if part is not None]
    if not parts:
        return None
    share = sum(part.weight for part in parts)
    parts = [replace(part, weight=part.weight / share) for part in parts]
    steady = not (choices[0].kind.difference or choices[0].kind.seasonal)
    anchor = Anchor(tuple(parts), np.ones(past.horizon), 1.0, steady)
    z = carried(anchor.scaling.inward(past.y))
    track = track_of(anchor, z, np.isnan(past.y), start=past.start, more=past.horizon, covariates=past.covariates)
    origins = _some(np.arange(min(anchor.reach, len(z) // 2), len(z) - 1), 10 * JUDGED)
    wanted = anchor.scaling.inward(ahead_of(past.y, origins, past.horizon))
    with np.errstate(over="ignore", invalid="ignore"):
        left = wanted - track.paths(origins, past.horizon)
    step = float(np.abs(np.diff(z)).mean()) if len(z) > 1 else 0.0
    return replace(anchor, spread=_spread(left), change=step if step > 0 else 1.0)


def plain_anchor(past: Past) -> Anchor:
    """The naive forecast, for what no choice can be fitted to."""
    part = Part(1.0, scaling_of(past.y), naive(), past.season, 0, False)
    return Anchor((part,), np.ones(past.horizon), 1.0, False)


def _fit_part(past: Past, choice: Choice) -> Part | None:
    kind = choice.kind
    waves = min(WAVES, int(past.season / 2)) if kind.harmonics else 0
    covariates = past.covariates is not None and kind.most > 0
    scaling = scaling_of(past.y, choice.bent)
    part = Part(choice.weight, scaling, naive(), past.season, waves, covariates)
    try:
        linear = fit(scaling.inward(past.y), kind, beside=part.beside(past.start, len(past.y), past.covariates))
    except ValueError:  # too few steps of this series for this kind
        return None
    return replace(part, linear=linear)


def carried(z: Numbers) -> Numbers:
    """Missing values replaced by the last one there, or the first one that comes."""
    missing = np.isnan(z)
    if not missing.any():
        return z
    (known,) = np.nonzero(~missing)
    last = np.searchsorted(known, np.arange(len(z)), side="right") - 1
    return np.asarray(z[known[np.maximum(last, 0)]])


def ahead_of(y: Numbers, origins: Places, horizon: int) -> Numbers:
    """(N, H): the values after each origin; NaN where they are missing or still to come."""
    ahead = origins[:, None] + np.arange(1, horizon + 1)
    return np.where(ahead < len(y), y[np.minimum(ahead, len(y) - 1)], np.nan)


def _some(places: Places, most: int) -> Places:
    """At most so many of the places, evenly spread."""
    return places if len(places) <= most else places[np.linspace(0, len(places) - 1, most).astype(np.int64)]


def _spread(left: Numbers) -> Numbers:
    """(H,) root mean square of each column; where too little is known that of the horizon before; 1 for 0."""
    spread = np.ones(left.shape[1])
    last = 0.0
    for h in range(left.shape[1]):
        known = left[:, h][np.isfinite(left[:, h])]
        if len(known) >= 2:
            last = float(np.sqrt((known**2).mean()))
        spread[h] = last
    return np.where(spread > 1e-9, spread, 1.0)
