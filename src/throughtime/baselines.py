"""Witten-Bell interpolated n-grams: what counting alone reaches, and a recurrent network has to beat.

With a context c of n ids, c' the same without its oldest id, N(c) how often c was followed by anything and
T(c) by how many distinct ids:

    p(w | c) = (N(c, w) + T(c) p(w | c')) / (N(c) + T(c)),    p(w | c) = p(w | c') where c was never seen,

down to the empty context, below which p = 1 / V. Witten and Bell (1991), interpolated form.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
UNSEEN = -1


@dataclass(frozen=True)
class Level:
    """The counts of one order. A context is numbered 0, 1, ...; its key is (number of c') * V + oldest id."""

    keys: Ids  # sorted keys of the contexts; empty for order 0, where the empty context is number 0
    followed: Ids  # N(c)
    distinct: Ids  # T(c)
    pairs: Ids  # sorted, number of c * V + w
    counts: Ids  # N(c, w)


class WittenBell:
    """An n-gram model with contexts of up to `order` ids over an alphabet of `size` ids (<unk> included).

    Ids are whole numbers in [0, size); anything else raises ValueError. Fitting sorts the ids twice an order,
    O(order N log N) time and O(N) memory an order, whatever the size.
    """

    def __init__(self, order: int, size: int) -> None:
        if order < 0 or size < 1:
            raise ValueError(f"order must be at least 0 and size at least 1; got {order} and {size}.")
        self.order = order
        self.size = size
        self.levels_: list[Level] = []

    def fit(self, ids: ArrayLike) -> WittenBell:
        """Count the ids (N,) of one stream and return the model itself; earlier counts are forgotten."""
        ids = _checked(ids, self.size)
        if not len(ids):
            raise ValueError("ids must have at least one id to count; got none. Fit on the training ids.")
        self.levels_ = []
        context = np.zeros(len(ids), np.int64)
        for order in range(self.order + 1):
            keys = np.empty(0, np.int64)
            if order:
                # The first `order` ids have no context of this length: the arrays lose one at the front.
                key = context[1:] * self.size + ids[: len(ids) - order]
                keys, context = np.unique(key, return_inverse=True)
            pairs, counts = np.unique(context * self.size + ids[order:], return_counts=True)
            owner = pairs // self.size
            contexts = len(keys) if order else 1
            self.levels_.append(
                Level(
                    keys=keys,
                    followed=np.bincount(context, minlength=contexts),
                    distinct=np.bincount(owner, minlength=contexts),
                    pairs=pairs,
                    counts=counts,
                )
            )
            if len(context) <= 1:
                break
        return self

    def nats(self, ids: ArrayLike, before: ArrayLike | None = None) -> Nats:
        """-ln p of each of the ids (N,), given those before it; `before` is what preceded the first."""
        *_, last = self._by_order(ids, before)
        return last

    def _by_order(self, ids: ArrayLike, before: ArrayLike | None) -> Iterator[Nats]:
        """-ln p with contexts of 0, 1, ..., order ids: a model of one order contains all smaller ones."""
        if not self.levels_:
            raise ValueError("fit must be called before nats. Give it the training ids.")
        past = _checked([] if before is None else before, self.size)[-self.order or None :]
        past = past if self.order else past[:0]
        new = _checked(ids, self.size)
        stream = np.concatenate([past, new])
        context = np.zeros(len(new), np.int64)
        p = np.full(len(new), 1.0 / self.size)
        for order in range(self.order + 1):
            if order < len(self.levels_):
                level = self.levels_[order]
                if order:
                    context = self._longer(context, order, stream, level.keys)
                p = self._mix(p, context, new, level)
            yield -np.log(p)

    def _longer(self, context: Ids, order: int, stream: Ids, keys: Ids) -> Ids:
        """The numbers of the contexts that are one id longer; UNSEEN where training had none such."""
        position = np.arange(len(stream) - len(context), len(stream)) - order
        known = (context != UNSEEN) & (position >= 0)
        found = _find(keys, context[known] * self.size + stream[position[known]])
        longer = np.full_like(context, UNSEEN)
        longer[known] = found
        return longer

    def _mix(self, p: Nats, context: Ids, ids: Ids, level: Level) -> Nats:
        known = context != UNSEEN
        seen = context[known]
        pair = _find(level.pairs, seen * self.size + ids[known])
        count = np.where(pair == UNSEEN, 0, level.counts[pair])
        followed, distinct = level.followed[seen], level.distinct[seen]
        mixed = p.copy()
        mixed[known] = (count + distinct * p[known]) / (followed + distinct)
        return mixed


def best_witten_bell(
    train: ArrayLike, held: ArrayLike, size: int, orders: Iterable[int] = range(7)
) -> tuple[int, float]:
    """The order whose n-gram, fitted on train, is least surprised by held, and its mean in nats per id.

    Held is read as what follows train. The order is chosen on held itself, which favours the n-gram a little.
    """
    wanted = set(orders)
    means = _means(train, held, size, max(wanted))
    order = min(wanted, key=lambda order: (means[order], order))
    return order, means[order]


def _means(train: ArrayLike, held: ArrayLike, size: int, most: int) -> list[float]:
    held = np.asarray(held)
    if held.size == 0:
        raise ValueError("held must have at least one id; got none. Give the n-gram something to predict.")
    model = WittenBell(most, size).fit(train)
    return [float(nats.mean()) for nats in model._by_order(held, train)]


def _find(keys: Ids, wanted: Ids) -> Ids:
    """Where each wanted key stands among sorted keys; UNSEEN where it is missing."""
    if not len(keys):
        return np.full(len(wanted), UNSEEN, np.int64)
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNSEEN)


def _checked(ids: ArrayLike, size: int) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"ids must be one row of whole numbers; got {array.dtype} of shape {array.shape}.")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= size):
        raise ValueError(f"ids must lie in [0, {size}); got {array.min()} to {array.max()}.")
    return array.astype(np.int64)
