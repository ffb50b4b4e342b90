"""Scores of forecasts: of points, of intervals and of whole distributions.

Everywhere y are the values that came, (N,) or (W, H); where y is NaN nothing is counted. A forecast that is NaN where
a value came makes the score NaN: it is not left out. `past` is what the forecast
was made from; a season m > 1 scales by what the value one season before would have cost there.

    MASE    mean |y - f| / mean_t |past_t - past_{t-m}|                 Hyndman and Koehler (2006)
    RMSSE   sqrt(mean (y - f)^2 / mean_t (past_t - past_{t-m})^2)       Makridakis, Spiliotis, Assimakopoulos (2022), M5
    sMAPE   200 mean |y - f| / (|y| + |f|), 0 where both are 0          Makridakis (1993), as in the M4 competition
    pinball mean max(q (y - f), (q - 1) (y - f))                        Koenker and Bassett (1978)
    CRPS    integral of (F(x) - 1[x >= y])^2 dx                         Matheson and Winkler (1976)
            = 2 integral_0^1 pinball_q(y, F^-1(q)) dq = E|X - y| - E|X - X'| / 2   Gneiting and Raftery (2007)
    NMSE    mean (y - f)^2 / var(y)                                     Weigend and Gershenfeld (1994), Santa Fe
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


def mase(y: ArrayLike, forecast: ArrayLike, past: ArrayLike, *, season: int = 1) -> float:
    """Mean absolute error in units of that of the (seasonal) naive forecast on the past; NaN where that is 0."""
    y, forecast = _pair(y, forecast)
    return _over(np.abs(y - forecast).mean(), scale(past, season=season))


def rmsse(y: ArrayLike, forecast: ArrayLike, past: ArrayLike, *, season: int = 1) -> float:
    """Root mean squared error in units of that of the (seasonal) naive forecast on the past; NaN where that is 0."""
    y, forecast = _pair(y, forecast)
    return _over(np.sqrt(((y - forecast) ** 2).mean()), scale(past, season=season, power=2))


def scale(past: ArrayLike, *, season: int = 1, power: int = 1) -> float:
    """The mean size (power 1) or root mean square (2) of past_t - past_{t-season}; NaN where there is none."""
    if season < 1:
        raise ValueError(f"season must be at least 1 step; got {season}.")
    values = np.asarray(past, np.float64)
    steps = np.abs(values[season:] - values[:-season]) ** power
    steps = steps[~np.isnan(steps)]
    return float(steps.mean() ** (1 / power)) if len(steps) else np.nan


def smape(y: ArrayLike, forecast: ArrayLike) -> float:
    """Symmetric mean absolute percentage error, from 0 to 200."""
    y, forecast = _pair(y, forecast)
    total = np.abs(y) + np.abs(forecast)
    ratio = np.abs(y - forecast) / np.where(total > 0, total, 1.0)
    return 200 * float(ratio.mean())


def coverage(y: ArrayLike, low: ArrayLike, high: ArrayLike) -> float:
    """Share of the values within low .. high, ends included."""
    known, low = _pair(y, low)
    _, high = _pair(y, high)
    inside = np.where(np.isnan(low + high), np.nan, (known >= low) & (known <= high))
    return float(inside.mean())


def pinball(y: ArrayLike, forecast: ArrayLike, level: float) -> float:
    """The quantile loss of forecasts of the `level` quantile, 0 < level < 1."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1; got {level}.")
    y, forecast = _pair(y, forecast)
    left = y - forecast
    return float(np.maximum(level * left, (level - 1) * left).mean())


def crps_quantiles(y: ArrayLike, quantiles: ArrayLike, levels: ArrayLike) -> float:
    """CRPS from quantiles (..., Q): twice the pinball losses, each weighted by its level's share of 0 .. 1.

    A level's share goes half way to its neighbours, and to 0 and 1 at the ends; of levels (k - 1/2) / Q each is 1 / Q.
    """
    values, table, q = np.asarray(y, np.float64), np.asarray(quantiles, np.float64), np.asarray(levels, np.float64)
    if table.shape != (*values.shape, len(q)):
        raise ValueError(
            f"quantiles must be one for each value and level, {(*values.shape, len(q))}; got {table.shape}."
        )
    if not len(q) or q[0] <= 0 or q[-1] >= 1 or (np.diff(q) <= 0).any():
        raise ValueError(f"levels must be rising numbers between 0 and 1; got {q}.")
    borders = np.concatenate([[0.0], (q[1:] + q[:-1]) / 2, [1.0]])
    known = _known(values)
    left = values[known][:, None] - table[known]
    return 2 * float(np.maximum(q * left, (q - 1) * left).mean(0) @ np.diff(borders))


def crps_samples(y: ArrayLike, samples: ArrayLike) -> float:
    """CRPS of the distribution that puts an equal weight on each of samples (..., S)."""
    values, drawn = np.asarray(y, np.float64), np.sort(np.asarray(samples, np.float64), axis=-1)
    if drawn.shape[:-1] != values.shape or not drawn.shape[-1]:
        raise ValueError(f"samples must be {values.shape} with one more axis, not empty; got {drawn.shape}.")
    S = drawn.shape[-1]
    apart = (drawn * (2 * np.arange(1, S + 1) - S - 1)).sum(-1) / S**2  # E|X - X'| / 2 of the sorted ones
    known = _known(values)
    return float((np.abs(drawn - values[..., None]).mean(-1) - apart)[known].mean())


def nmse(y: ArrayLike, forecast: ArrayLike) -> float:
    """Mean squared error in units of the variance of the values that came: 1 is what their mean would give."""
    y, forecast = _pair(y, forecast)
    return _over(((y - forecast) ** 2).mean(), float(y.var()))


def _pair(y: ArrayLike, forecast: ArrayLike) -> tuple[Numbers, Numbers]:
    """(N,): the values that came and what was said of them."""
    values, other = np.asarray(y, np.float64), np.asarray(forecast, np.float64)
    if values.shape != other.shape:
        raise ValueError(f"forecasts must have the shape of y, {values.shape}; got {other.shape}.")
    known = _known(values)
    return values[known], other[known]


def _known(values: Numbers) -> NDArray[np.bool_]:
    known = ~np.isnan(values)
    if not known.any():
        raise ValueError("y must have at least one value to score; got none.")
    return known


def _over(error: Any, unit: float) -> float:
    return float(error / unit) if unit > 0 else np.nan
