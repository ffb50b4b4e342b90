"""Linear forecasts of a series: naive, seasonal naive, drift, mean, and autoregressions fitted by least squares.

All are one recurrence in which forecasts take the place of values that are not known yet,

    z_t = c + sum_i a_i z_{t-i} + sum_k b_k g_{t,k},

where g are numbers known beforehand, such as the harmonics cos(2 pi k t / m), sin(2 pi k t / m) of a season m:
naive a_1 = 1; seasonal naive a_m = 1; drift a_1 = 1 and c the mean step; mean c alone. An autoregression is fitted
to w = (1 - B)^d (1 - B^m)^D z, B z_t = z_{t-1}; its order p has the lowest AICc (Hurvich and Tsai, 1989).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
Places = NDArray[np.int64]

BLOCK = 2**15
"""Rows that are held at once, so that a long series costs no more memory than a short one."""
ROUNDED = 1e-13
"""What is smaller beside values of at most 1 is what rounding leaves over of them."""
RIDGE = 1e-9
"""Share of a column's sum of squares that is added to it: series that repeat exactly have equal columns."""


@dataclass(frozen=True)
class Linear:
    """The recurrence: lags i >= 1 in rising order with their weights a_i, the intercept c, and the weights b of g."""

    name: str
    lags: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    intercept: float = 0.0
    beside: tuple[float, ...] = ()

    @property
    def reach(self) -> int:
        """How many values back it reads."""
        return max(self.lags, default=0)

    def forecast(self, values: ArrayLike, horizon: int, *, beside: Numbers | None = None) -> Numbers:
        """(horizon,) values that follow `values` (T,), which has no NaN; beside (horizon, K) is g from then on."""
        z = np.asarray(values, np.float64)
        known = None if beside is None else np.concatenate([np.zeros((len(z), beside.shape[1])), beside])
        return self.paths(z, np.array([len(z) - 1]), horizon, beside=known)[0]

    def paths(self, z: Numbers, origins: Places, horizon: int, *, beside: Numbers | None = None) -> Numbers:
        """(N, horizon): what follows each origin, from the values up to it.

        z (T,) has no NaN; before its first value it is taken as constant. beside (at least last origin + 1 + horizon,
        K) is g by place in z; places beyond its end are read as its last row.
        """
        found = np.zeros((len(origins), horizon))
        for h in range(horizon):
            step = found[:, h]
            step += self.intercept
            if self.beside and beside is not None:
                step += beside[np.minimum(origins + h + 1, len(beside) - 1)] @ np.array(self.beside)
            for lag, weight in zip(self.lags, self.weights, strict=True):
                if lag <= h:
                    step += weight * found[:, h - lag]
                else:
                    step += weight * z[np.maximum(origins + h + 1 - lag, 0)]
        return found


def naive() -> Linear:
    """The last value stays."""
    return Linear("naive", (1,), (1.0,))


def seasonal_naive(season: int) -> Linear:
    """The value one season before comes again; naive where season is 1."""
    return Linear("seasonal naive", (season,), (1.0,)) if season > 1 else naive()


def mean(values: Numbers) -> Linear:
    """The mean of the values that are there."""
    return Linear("mean", intercept=float(np.nanmean(values)))


def drift(values: Numbers) -> Linear:
    """The straight line through the first and the last value."""
    (known,) = np.nonzero(~np.isnan(values))
    steps = known[-1] - known[0]
    slope = (values[known[-1]] - values[known[0]]) / steps if steps else 0.0
    return Linear("drift", (1,), (1.0,), float(slope))


@dataclass(frozen=True)
class Kind:
    """What kind of autoregression: d and D differences, with or without c, and with as many lags as AICc wants.

    season is m, in steps; most is the largest order that is tried, and 0 leaves the differences alone.
    """

    name: str
    difference: int = 0
    seasonal: int = 0
    season: int = 1
    intercept: bool = True
    most: int = 0
    harmonics: bool = field(default=False)


def autoregression(values: ArrayLike, *, season: int = 1, most: int | None = None) -> Linear:
    """The linear autoregression with an intercept whose order AICc chooses on these values (T,); NaN: missing.

    Orders go up to `most`, by default the larger of 25 and season + 2 as far as a quarter of the values allows.
    """
    z = np.asarray(values, np.float64)
    return fit(z, Kind("linear autoregression", most=largest_order(len(z), season) if most is None else most))


def largest_order(steps: int, season: int) -> int:
    """The largest order worth trying: what describes a season, and no more than a quarter of the steps."""
    return max(0, min(max(25, season + 2), steps // 4))


def fit(z: Numbers, kind: Kind, *, beside: Numbers | None = None) -> Linear:
    """The kind's recurrence with least squared one-step errors on z (T,), where NaN is missing.

    beside (T, K) are the numbers g that are regressed on too. Raises ValueError when no step can be used.
    """
    w = z
    for lag in (1,) * kind.difference + (kind.season,) * kind.seasonal:
        w = _step(w, lag)
    centre = float(np.nanmean(w)) if kind.intercept and not np.isnan(w).all() else 0.0
    w = w - centre  # for the numbers' sake: the ridge and the sums of squares are then of what varies
    constants = [np.ones((len(z), 1))] if kind.intercept else []
    known = [] if beside is None else [beside]
    columns = np.concatenate([*constants, *known], axis=1) if constants or known else None
    fixed = 0 if columns is None else columns.shape[1]
    most = kind.most
    gram, rows = _gram(w, columns, most)
    while most and rows < fixed + most + 2:
        most //= 2
        gram, rows = _gram(w, columns, most)
    if not rows and (fixed or kind.most):
        raise ValueError(f"values must have steps to fit the {kind.name} on; got none. Give a longer series.")
    solution = _nested(gram, rows, fixed) if rows else np.zeros(0)
    constant, weights = solution[: kind.intercept], solution[fixed:]
    lags = _expand(weights, kind)
    places = np.nonzero(np.abs(lags) > 1e-12)[0]
    return Linear(
        kind.name,
        tuple(int(i) + 1 for i in places),
        tuple(float(a) for a in lags[places]),
        float(constant[0]) + centre * (1 - float(weights.sum())) if kind.intercept else 0.0,
        tuple(float(b) for b in solution[kind.intercept : fixed]),
    )


def _step(z: Numbers, lag: int) -> Numbers:
    """(1 - B^lag) z, NaN where that reaches before the start."""
    w = np.full_like(z, np.nan)
    w[lag:] = z[lag:] - z[:-lag]
    return w


def _blocks(w: Numbers, columns: Numbers | None, most: int) -> Iterator[Numbers]:
    """Rows [columns, w_{t-1} .. w_{t-most}, w_t] of all t at which every number is there."""
    if len(w) <= most:
        return
    windows = sliding_window_view(w, most + 1)
    for start in range(0, len(windows), BLOCK):
        part = windows[start : start + BLOCK]
        rows = np.concatenate([part[:, :-1][:, ::-1], part[:, -1:]], axis=1)
        if columns is not None:
            rows = np.concatenate([columns[most + start : most + start + len(part)], rows], axis=1)
        yield rows[np.isfinite(rows).all(axis=1)]


def _gram(w: Numbers, columns: Numbers | None, most: int) -> tuple[Numbers, int]:
    """The sums of products of all columns and the target, and how many rows they are of."""
    size = (0 if columns is None else columns.shape[1]) + most + 1
    gram, rows = np.zeros((size, size)), 0
    for block in _blocks(w, columns, most):
        gram += block.T @ block
        rows += len(block)
    return gram, rows


def _nested(gram: Numbers, rows: int, fixed: int) -> Numbers:
    """The least-squares weights of the first fixed + p columns, p by AICc: one Cholesky factor serves every p."""
    size = len(gram) - 1
    diagonal = np.diag(gram).copy()
    R = np.linalg.cholesky(gram + np.diag(RIDGE * diagonal + 1e-300)).T
    effect = R[:size, -1]
    floor = RIDGE * diagonal[-1] + 1e-300
    left = R[-1, -1] ** 2 + np.concatenate([np.cumsum(effect[::-1] ** 2)[::-1], [0.0]])  # by number of columns
    best, chosen = np.inf, fixed
    for columns in range(fixed, size + 1):
        free = rows - columns - 2
        penalty = 2 * (columns + 1) * rows / free if free > 0 else np.inf if columns > fixed else 0.0
        score = rows * np.log(max(left[columns], floor) / rows) + penalty
        if score < best - 1e-9:
            best, chosen = score, columns
    if not chosen:
        return np.zeros(0)
    return np.asarray(np.linalg.solve(R[:chosen, :chosen], effect[:chosen]), np.float64)


def _expand(weights: Numbers, kind: Kind) -> Numbers:
    """The a_i of z from those of w: 1 - sum a_i B^i = (1 - sum weights_i B^i) (1 - B)^d (1 - B^m)^D."""
    polynomial = np.concatenate([[1.0], -weights])
    for lag in (1,) * kind.difference + (kind.season,) * kind.seasonal:
        factor = np.zeros(lag + 1)
        factor[0], factor[lag] = 1.0, -1.0
        polynomial = np.convolve(polynomial, factor)
    return -polynomial[1:]


def harmonics(place: NDArray[np.int64] | Numbers, season: float, count: int) -> Numbers:
    """(N, 2 count): cos and sin of 1 .. count turns a season at each place."""
    angle = 2 * np.pi / season * np.outer(np.asarray(place, np.float64) % season, np.arange(1, count + 1))
    return np.concatenate([np.cos(angle), np.sin(angle)], axis=1)


def season_of(values: ArrayLike, *, longest: int = 400, least: float = 0.3) -> int:
    """The number of steps after which a series looks like itself again; 1 where none stands out.

    It is the highest local maximum of the autocorrelation beyond its first fall below zero, of the steps
    z_t - z_{t-1} and of the values without their straight line, at least `least` and twice 2 / sqrt(T). It has to come
    again: its height counts at most as 1.5 times that after two seasons, which a wandering level does not keep.
    """
    z = np.asarray(values, np.float64)[-20_000:]
    known = ~np.isnan(z)
    if known.sum() < 8:
        return 1
    z = z / (np.abs(z[known]).max() or 1.0)  # whose squares are neither too large nor 0
    time = np.arange(len(z))
    line = np.polyfit(time[known], z[known], 1) if np.ptp(z[known]) else np.zeros(2)
    best, season = max(least, 4 / np.sqrt(len(z))), 1
    for w in (z - np.polyval(line, time), np.diff(z)):
        lag, height = _peak(w, min(longest, len(w) // 3))
        if height > best:
            best, season = height, lag
    return season


def _peak(w: Numbers, longest: int) -> tuple[int, float]:
    """The lag and the height of the highest local maximum of the autocorrelation after its first fall below 0."""
    if np.isnan(w).all():
        return 1, 0.0
    w = np.nan_to_num(w - np.nanmean(w))
    total = float(w @ w)
    if longest < 3 or total <= len(w) * ROUNDED**2:
        return 1, 0.0
    size = 2 ** int(np.ceil(np.log2(2 * len(w))))
    power = np.abs(np.fft.rfft(w, size)) ** 2
    lag = np.arange(2 * longest + 2)
    r = np.fft.irfft(power, size)[: 2 * longest + 2] / total * (len(w) / (len(w) - lag))
    (below,) = np.nonzero(r < 0)
    if not len(below):
        return 1, 0.0
    lags = np.arange(max(2, int(below[0])), longest + 1)
    peaks = lags[(r[lags] >= r[lags - 1]) & (r[lags] >= r[lags + 1]) & (r[lags] > 0)]
    if not len(peaks):
        return 1, 0.0
    again = np.array([r[2 * peak - 1 : 2 * peak + 2].max() for peak in peaks])
    height = np.minimum(r[peaks], 1.5 * again)
    if height.max() <= 0:
        return 1, 0.0
    place = int(np.nonzero(height >= 0.95 * height.max())[0][0])  # of equal heights the first: not two seasons for one
    return int(peaks[place]), float(height[place])
