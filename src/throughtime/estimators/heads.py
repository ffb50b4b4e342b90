"""What a forecaster's readout says of each horizon: quantiles, a Gaussian, or a point; all of r, what is left over.

Quantiles between those that were learned are read off straight lines over the normal scores Phi^-1(q); beyond them they
are as far from the median as those of the Gaussian through the last one. They are sorted, so that they never cross
(Chernozhukov, Fernandez-Val and Galichon, 2010), and stretched about the median so that on the held-out part as many
values lie below as should (after the conformalized quantile regression of Romano, Patterson and Candes, 2019, with a
factor in place of their sum), or by the usual factor where that part is too short to tell.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.nets import Loss, Quantile, gaussian, squared_error

Numbers = NDArray[np.float64]

HEADS = ("quantile", "gaussian", "point")
ENOUGH = 30
"""Errors that quantiles are taken from; fewer give the size of a Gaussian."""
EVEN = 10.0
"""Independent held-out errors at which the stretch that they ask for counts as much as the usual one."""
UNSEEN = 1.3
"""The usual stretch: what comes is further away than what the anchor and the network were fitted to and chosen by.
With 1 the intervals of 90 % held 81 % of what came, on 40 series with a test part of a quarter each; with this 87 %, at
the same CRPS."""
BOUNDS = 0.5, 3.0
"""The least and the most that a quantile is stretched."""


def normal_scores(q: ArrayLike) -> Numbers:
    """Phi^-1(q), elementwise."""
    return np.vectorize(NormalDist().inv_cdf, otypes=[np.float64])(np.asarray(q, np.float64))


@dataclass(frozen=True)
class Head:
    """kind: a name in HEADS. levels: the quantiles learned, with 0.5 among them. stretch: a factor for each, or one."""

    kind: str
    levels: tuple[float, ...]
    stretch: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in HEADS:
            raise ValueError(f"head must be {', '.join(HEADS[:-1])} or {HEADS[-1]}; got {self.kind!r}.")
        if self.kind == "quantile" and 0.5 not in Quantile(tuple(self.levels)).levels:
            raise ValueError(f"quantiles must have the median, 0.5, among them; got {self.levels}.")

    @property
    def each(self) -> int:
        """Outputs for each horizon."""
        return {"quantile": len(self.levels), "gaussian": 2, "point": 1}[self.kind]

    @property
    def loss(self) -> Loss:
        if self.kind == "quantile":
            return Quantile(self.levels)
        return gaussian if self.kind == "gaussian" else squared_error

    def start(self, left: Numbers) -> Numbers:
        """The readout's first biases, with which the forecast is the anchor's: the median 0, and about it the spread of
        what is left over (N, H), NaN where unknown; that of all horizons where one has too few."""
        H = left.shape[1]
        columns = [left[:, h][~np.isnan(left[:, h])] for h in range(H)]
        every = np.concatenate(columns) if columns else np.zeros(0)
        columns = [column if len(column) >= ENOUGH else every for column in columns]
        if self.kind == "point":
            return np.zeros(H)
        sizes = np.array([_size(column) for column in columns])
        if self.kind == "gaussian":
            return np.concatenate([np.zeros(H), np.log(np.maximum(sizes, 1e-4))])
        table = sizes[:, None] * normal_scores(self.levels)
        for h, column in enumerate(columns):
            if len(column) >= ENOUGH:
                table[h] = np.quantile(column, self.levels)
        middle = self.levels.index(0.5)
        return (table - table[:, [middle]]).ravel()

    def quantiles(self, out: Numbers, wanted: Numbers) -> Numbers:
        """(N, H, Q): the wanted quantiles of r from outputs (N, H each)."""
        return self.median(out)[..., None] + self._spans(out) @ self._weights(wanted)

    def median(self, out: Numbers) -> Numbers:
        """(N, H)."""
        if self.kind == "quantile":
            return np.sort(out.reshape(len(out), out.shape[1] // self.each, self.each), -1)[..., self.levels.index(0.5)]
        return out[:, : out.shape[1] // self.each]

    def draw(self, out: Numbers, random: np.random.Generator) -> Numbers:
        """(N,): one value of r at the first horizon of each row."""
        if self.kind == "point":
            return self.median(out)[:, 0]
        weights = self._weights(np.clip(random.random(len(out)), 0.005, 0.995))  # K N
        return self.median(out)[:, 0] + (self._spans(out)[:, 0] * weights.T).sum(1)

    def calibrated(self, out: Numbers, left: Numbers, horizon: int) -> Head:
        """The head with the stretch that what was left over on the held-out part (N, H) asks for, none of it at worst.

        The factor that fits there and the usual one, UNSEEN, share by how many independent errors were seen.
        """
        if self.kind == "point":
            return self
        known = ~np.isnan(left)
        independent = known.any(1).sum() / max(1.0, horizon / 2)
        weight = float(independent / (independent + EVEN)) if known.sum() >= 10 else 0.0
        away, spans = (left - self.median(out))[known], self._spans(out)[known]  # M, M K
        if self.kind == "gaussian":
            factors = [float(np.sqrt(np.mean((away / spans[:, 0]) ** 2))) if weight else 1.0]
        else:
            factors = [_factor(away, span, q) if weight else 1.0 for q, span in zip(self.levels, spans.T, strict=True)]
        stretch = (float(np.clip(factor, *BOUNDS) ** weight * UNSEEN ** (1 - weight)) for factor in factors)
        return replace(self, stretch=tuple(stretch))

    def _spans(self, out: Numbers) -> Numbers:
        """(N, H, K): what `_weights` multiplies: quantiles less the median, or the standard deviation."""
        if self.kind == "quantile":
            q = np.sort(out.reshape(len(out), out.shape[1] // self.each, self.each), -1)
            away = q - q[..., [self.levels.index(0.5)]]
            return np.sort(away * np.array(self.stretch), -1) if self.stretch else away
        if self.kind == "gaussian":
            sigma = np.exp(np.clip(out[:, out.shape[1] // 2 :], -10, 10))
            return (sigma * (self.stretch[0] if self.stretch else 1.0))[..., None]
        return np.zeros((len(out), out.shape[1], 1))

    def _weights(self, wanted: Numbers) -> Numbers:
        """(K, Q): how each wanted quantile is put together from the spans."""
        scores = normal_scores(wanted)
        if self.kind != "quantile":
            return scores[None]
        known = normal_scores(self.levels)
        if len(known) == 1:
            return np.zeros((1, len(scores)))
        right = np.clip(np.searchsorted(known, scores), 1, len(known) - 1)
        share = (scores - known[right - 1]) / (known[right] - known[right - 1])
        weights = np.zeros((len(known), len(scores)))
        weights[right, np.arange(len(scores))] = share
        weights[right - 1, np.arange(len(scores))] += 1 - share
        for end, beyond in ((0, scores < known[0]), (-1, scores > known[-1])):
            weights[:, beyond] = 0.0
            weights[end, beyond] = scores[beyond] / known[end]
        return weights


def _factor(away: Numbers, span: Numbers, q: float) -> float:
    """The factor of spans with which a share q of the errors lies below them (above, where q is below a half)."""
    fine = np.abs(span) > 1e-9
    return float(np.quantile(away[fine] / span[fine], max(q, 1 - q))) if q != 0.5 and fine.any() else 1.0


def _size(column: Numbers) -> float:
    """The usual size of few errors, a little above what they show; 0 where there are fewer than 3."""
    return float(np.sqrt((column**2).mean()) * (1 + 2 / len(column))) if len(column) >= 3 else 0.0
