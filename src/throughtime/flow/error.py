"""The error by lag, |d loss_t / d s_{t-k}|, and what follows from it: decay, half-life, memory, shares."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

FLOOR = 1e-38
"""Norms below this, exact zeros among them, count as this: about the smallest number that float32 holds."""
LEFT = 0.01
"""The memory ends where this share of the first lag's typical norm is left."""
T_QUANTILES = (12.706, 4.303, 3.182, 2.776)
"""97.5 % of Student's t with 1 to 4 degrees of freedom."""


@dataclass(frozen=True)
class Decay:
    """The factor by which the norm changes with every step back: below 1 the error fades, above 1 it grows.

    rate       e to the slope of ln norm on the lag, by least squares over all pairs, each with a level of its own.
    low, high  its 95 % confidence interval, NaN with fewer than two clusters. A cluster is what a stream has within a
               stretch as long as the lags: pairs that share their steps are not counted as if they knew more.
    lags       the first and the last lag that it is from: from 1 on, as long as half of the pairs are there and above
               FLOOR. (0, 0) and NaN where fewer than two lags are.
    clusters   their number.
    """

    rate: float
    low: float
    high: float
    lags: tuple[int, int]
    clusters: int


@dataclass(frozen=True, eq=False)
class ErrorByLag:
    """|d loss_t / d s_{t-k}| of one part of the state s, or of all of it.

    lags   (K,) the lags k, in steps, ascending, without a gap.
    at     (N,) the sampled steps t of the chunk, ascending.
    norms  (K, N, B) by lag, step and stream; NaN where there is no pair: a restart lies between t-k and t, the error at
           t does not count or has no gradient, or this part of the state is not seen at this lag. Infinite where it
           overflowed.
    """

    lags: NDArray[np.int64]
    at: NDArray[np.int64]
    norms: NDArray[np.float64]

    @cached_property
    def _logs(self) -> NDArray[np.float64]:
        """(K, NB) log10 of the norms, from FLOOR to the largest number."""
        return np.log10(np.clip(self.norms, FLOOR, np.finfo(np.float64).max)).reshape(len(self.lags), -1)

    @cached_property
    def count(self) -> NDArray[np.int64]:
        """(K,) the pairs of a step and a stream that there are."""
        return (~np.isnan(self._logs)).sum(1)

    @cached_property
    def mean(self) -> NDArray[np.float64]:
        """(K,) the typical norm: mean of log10 over the pairs, below FLOOR counted as FLOOR; NaN without any."""
        return np.where(self.count > 0, np.nansum(self._logs, 1) / np.maximum(self.count, 1), np.nan)

    @property
    def low(self) -> NDArray[np.float64]:
        """(K,) the 10 % quantile of log10 of the norm."""
        return self.quantile(0.1)

    @property
    def high(self) -> NDArray[np.float64]:
        """(K,) the 90 % quantile of log10 of the norm."""
        return self.quantile(0.9)

    def quantile(self, q: float) -> NDArray[np.float64]:
        """(K,) a quantile of log10 of the norm over the pairs; NaN where there is none."""
        there = [row[~np.isnan(row)] for row in self._logs]
        return np.array([np.quantile(row, q) if len(row) else math.nan for row in there])

    @cached_property
    def summed(self) -> NDArray[np.float64]:
        """(K,) the sum of the norms themselves; where there is no pair, nothing is added."""
        with np.errstate(over="ignore"):
            return np.nansum(self.norms, (1, 2))

    def share(self, h: int) -> float:
        """The share of the summed norm that lies at lags below h, of all the lags measured; NaN when all is zero.

        Of the gradient of the state: what BPTT(h) lets through. How much of the gradient of the weights that is, where
        errors of different steps add up or cancel, is `Flow.kept`.
        """
        if h < 1:
            raise ValueError(f"h must be a number of steps, at least 1; got {h}.")
        total = float(self.summed.sum())
        if not total or math.isinf(total):
            return math.nan
        return float(self.summed[self.lags < h].sum()) / total

    def smallest_h(self, tolerance: float) -> int | None:
        """The smallest h that cuts off at most this share of the summed norm, of what lies beyond the lags too.

        Beyond them the norm is taken to go on as it decays. None where no h up to the last lag does.
        """
        if not 0 < tolerance < 1:
            raise ValueError(f"tolerance must be a share between 0 and 1; got {tolerance}.")
        lost = self.summed.sum() - self.summed.cumsum() + self._beyond()  # what h = lag + 1 cuts off
        with np.errstate(invalid="ignore"):
            enough = lost <= tolerance * (self.summed.sum() + self._beyond())
        if not self.summed.sum() or not np.isfinite(lost).all() or not enough.any():
            return None
        return max(1, int(self.lags[enough.argmax()]) + 1)

    def _beyond(self) -> float:
        """The norms at lags after the last, if they go on as they decay."""
        last, rate = float(self.summed[-1]), self.decay.rate
        if not last:
            return 0.0
        return last * rate / (1 - rate) if rate < 1 else math.inf

    @property
    def half_life(self) -> float | None:
        """Steps after which half of the typical norm is gone, interpolated; None when it is not within the lags."""
        return self.until(0.5)

    @property
    def memory(self) -> float | None:
        """Effective memory length: the steps after which a hundredth (LEFT) of the typical norm is left.

        Counted from the first lag and interpolated. An error that fades by the factor a has ln 0.01 / ln a of them: 6.6
        for a = 0.5, 44 for 0.9, 458 for 0.99. None when it is longer than the lags measured; 0 when nothing arrives.
        """
        return self.until(LEFT)

    def until(self, share: float) -> float | None:
        """Steps from the first lag on until the typical norm is first down to this share of its; None when never."""
        seen = np.flatnonzero(self.count)
        if not len(seen):
            return None
        k, logs = self.lags[seen].astype(float), self.mean[seen]
        if logs[0] <= math.log10(FLOOR):
            return 0.0
        wanted = logs[0] + math.log10(share)
        below = np.flatnonzero(logs <= wanted)
        if not len(below):
            return None
        b = below[0]
        a = b - 1
        return float(k[a] + (k[b] - k[a]) * (logs[a] - wanted) / (logs[a] - logs[b]) - k[0])

    @cached_property
    def decay(self) -> Decay:
        """The factor a step of the norm, with its confidence interval; see Decay."""
        usable = self._usable()
        there = self._alive()[usable]
        x = _centred(self.lags[usable].astype(float)[:, None, None], there)  # K N B, about each pair's own mean
        y = _centred(math.log(10) * self._logs.reshape(self.norms.shape)[usable], there)
        square = float((x * x).sum())
        if not square:
            return Decay(math.nan, math.nan, math.nan, (0, 0), 0)
        slope = float((x * y).sum()) / square
        lags = int(self.lags[usable[0]]), int(self.lags[usable[-1]])
        doubt, clusters = self._doubt((x * (y - slope * x)).sum(0), there.sum(0) > 1, lags[1])
        rate, low, high = (math.exp(min(700.0, slope + way * doubt / square)) for way in (0, -1, 1))
        if clusters < 2:
            low = high = math.nan
        return Decay(rate, low, high, lags, clusters)

    def _doubt(self, scores: NDArray[np.float64], there: NDArray[np.bool_], stretch: int) -> tuple[float, int]:
        """Half of the interval of a sum of scores (N, B), and the number of clusters (Liang and Zeger 1986)."""
        number = (self.at - self.at[0]) // stretch
        sums = np.stack([scores[number == place].sum(0) for place in np.unique(number)])
        counted = np.stack([there[number == place].sum(0) > 0 for place in np.unique(number)])
        G = int(counted.sum())
        return (t_quantile(G - 1) * math.sqrt(G / (G - 1) * float((sums**2).sum())) if G > 1 else 0.0), G

    def _alive(self) -> NDArray[np.bool_]:
        """(K, N, B) where there is a pair with a finite norm above FLOOR."""
        alive: NDArray[np.bool_] = np.isfinite(self.norms)
        return alive & (self.norms > FLOOR)

    def _usable(self) -> NDArray[np.int64]:
        """Places of the lags that the decay is from."""
        alive = self._alive().sum((1, 2))
        start = int(np.searchsorted(self.lags, 1))
        if start >= len(alive) or not alive[start]:
            return np.arange(0)
        few = np.flatnonzero(2 * alive[start:] < alive[start])
        return np.arange(start, start + few[0] if len(few) else len(alive))


def _centred(values: NDArray[np.float64], there: NDArray[np.bool_]) -> NDArray[np.float64]:
    """values (K, N, B) about their mean over the lags where a pair is there; 0 where it is not."""
    kept = np.where(there, values, 0)
    return np.where(there, kept - kept.sum(0) / np.maximum(there.sum(0), 1), 0)


def t_quantile(freedom: int) -> float:
    """97.5 % of Student's t; beyond four degrees of freedom to a thousandth (Abramowitz and Stegun 26.7.5)."""
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = 1.959964
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom ** (power + 1) for power, term in enumerate(terms))
