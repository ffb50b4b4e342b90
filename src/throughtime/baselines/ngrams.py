"""N-grams: what counting alone reaches, and a recurrent network has to beat.

With a context c of n ids, c' the same without its oldest id, N(c, w) how often w followed c, N(c) the sum of these
over w and T(c) the number of different w among them, both models mix a context with the next shorter one,

    p(w | c) = p(w | c') where c was never seen, down to the empty context, below which p = 1 / V.

Witten and Bell (1991), interpolated:  p(w | c) = (N(c, w) + T(c) p(w | c')) / (N(c) + T(c)).

Kneser and Ney (1995), interpolated and with the three discounts of Chen and Goodman (1998):

    p(w | c) = (N(c, w) - D(N(c, w)) + sum_v D(N(c, v)) p(w | c')) / N(c)

where in all contexts but the longest N(c, w) is instead the number of different ids that stood before (c, w).
D(0) = 0 and D(k) = k - (k + 1) Y n_{k+1} / n_k for k = 1, 2, 3 and more, Y = n_1 / (n_1 + 2 n_2), each order with
its own n_k, the number of different (c, w) with N(c, w) = k.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ids = NDArray[np.int64]
Nats = NDArray[np.float64]
UNSEEN = -1


@dataclass(frozen=True)
class Level:
    """The counts of one order. A context is numbered 0, 1, ...; its key is (number of c') * V + oldest id."""

    keys: Ids  # sorted keys of the contexts; empty for order 0, where the empty context is number 0
    contexts: int
    pairs: Ids  # sorted, number of c * V + w
    counts: Ids  # N(c, w)
    first: int  # the place in pairs of the one that stands at the beginning of the stream


@dataclass(frozen=True)
class Mixture:
    """One order of a model: p(w | c) = gain[c, w] + rest[c] p(w | c')."""

    gain: Nats  # by place in Level.pairs; 0 for a pair that was never seen
    rest: Nats  # by number of the context


class Ngram:
    """An n-gram model with contexts of up to `order` ids over an alphabet of `size` ids (<unk> included).

    kind is a name in `kinds`. Ids are whole numbers in [0, size); anything else raises ValueError. Fitting sorts the
    ids twice an order, O(order N log N) time and O(N) memory an order, whatever the size.
    """

    def __init__(self, kind: str, order: int, size: int) -> None:
        if kind not in kinds:
            raise ValueError(f"kind must be {' or '.join(kinds)}; got {kind!r}.")
        if order < 0 or size < 1:
            raise ValueError(f"order must be at least 0 and size at least 1; got {order} and {size}.")
        self.kind, self.order, self.size = kind, order, size
        self.levels_: list[Level] = []

    def fit(self, ids: ArrayLike) -> Ngram:
        """Count the ids (N,) of one stream and return the model itself; earlier counts are forgotten."""
        return self.weigh(count(ids, self.order, self.size))

    def weigh(self, levels: list[Level]) -> Ngram:
        """Fit to what was counted before, at this order and size."""
        self.levels_ = levels
        self.mixtures_ = kinds[self.kind](levels, self.size)
        return self

    def nats(self, ids: ArrayLike, before: ArrayLike | None = None) -> Nats:
        """-ln p of each of the ids (N,), given those before it; `before` is what preceded the first."""
        *_, last = self.by_order(ids, before)
        return last

    def by_order(self, ids: ArrayLike, before: ArrayLike | None = None) -> Iterator[Nats]:
        """-ln p of the models of orders 0, 1, ..., order, which share their counts."""
        p: Nats | float = 1 / self.size
        for n, (context, pair) in enumerate(places(self.levels_, self.order, self.size, ids, before)):
            if n < len(self.levels_):
                longest, shorter = self.mixtures_[n]
                whole, p = (_mixed(p, context, pair, mixture) for mixture in (longest, shorter))
            yield -np.log(whole)


Mixtures = list[tuple[Mixture, Mixture]]
"""Of every order: as the longest context of a model, and under a longer one."""


def witten_bell(levels: list[Level], size: int) -> Mixtures:
    """The same at every length of context."""
    found = []
    for level in levels:
        owner = level.pairs // size
        followed = np.bincount(owner, level.counts, level.contexts)
        distinct = np.bincount(owner, minlength=level.contexts)
        mixture = Mixture(level.counts / (followed + distinct)[owner], distinct / (followed + distinct))
        found.append((mixture, mixture))
    return found


def kneser_ney(levels: list[Level], size: int) -> Mixtures:
    """Modified Kneser-Ney. A discount that the n_k do not give (one of them 0, or the result not above 0), as in a
    small text, is k / 2. At the beginning of the stream what stands before counts as an id of its own."""
    longest = [_discounted(level, size) for level in levels]
    shorter = [_discounted(_continued(*pair, size), size) for pair in pairwise(levels)]
    return list(zip(longest, [*shorter, longest[-1]], strict=True))


kinds = {"Witten-Bell": witten_bell, "Kneser-Ney": kneser_ney}


def _continued(level: Level, longer: Level, size: int) -> Level:
    """The level with N(c, w) as the number of different ids that stood before (c, w)."""
    owner, w = np.divmod(longer.pairs, size)
    place = _find(level.pairs, longer.keys[owner] // size * size + w)
    counts = np.bincount(place, minlength=len(level.pairs))
    counts[level.first] += 1
    return replace(level, counts=counts)


def _discounted(level: Level, size: int) -> Mixture:
    owner = level.pairs // size
    followed = np.bincount(owner, level.counts, level.contexts)
    discount = discounts(level.counts)[np.minimum(level.counts, 3)]
    kept = np.bincount(owner, discount, level.contexts)
    return Mixture((level.counts - discount) / followed[owner], kept / followed)


def discounts(counts: Ids) -> Nats:
    """D(0), D(1), D(2) and D(3 and more) of modified Kneser-Ney, from the counts N(c, w) of one order."""
    n = np.bincount(np.minimum(counts, 5), minlength=6).tolist()
    found = [0.0, 0.5, 1.0, 1.5]
    for k in (1, 2, 3):
        if n[1] and n[k] and n[k + 1]:
            D = k - (k + 1) * n[1] / (n[1] + 2 * n[2]) * n[k + 1] / n[k]
            found[k] = D if D > 0 else found[k]
    return np.array(found)


@dataclass(frozen=True)
class Baseline:
    """The best of some n-grams: its kind, the ids of its longest context, and its mean nats per id."""

    kind: str
    order: int
    nats: float


def best_ngram(train: ArrayLike, held: ArrayLike, size: int, orders: Iterable[int] = range(7)) -> Baseline:
    """The kind and order that, fitted on train, is least surprised by held; Witten-Bell where both are equal.

    Held is read as what follows train. The choice is made on held itself, which favours the n-gram a little.
    """
    if np.asarray(held).size == 0:
        raise ValueError("held must have at least one id; got none. Give the n-gram something to predict.")
    wanted = set(orders)
    levels = count(train, max(wanted), size)
    found = []
    for kind in kinds:
        every = Ngram(kind, max(wanted), size).weigh(levels).by_order(held, train)
        found += [Baseline(kind, order, float(nats.mean())) for order, nats in enumerate(every) if order in wanted]
    return min(found, key=lambda ngram: ngram.nats)


def count(ids: ArrayLike, order: int, size: int) -> list[Level]:
    """The counts of one stream of ids (N,) in contexts of 0, 1, ..., order ids, as far as they are that long."""
    ids = _checked(ids, size)
    if not len(ids):
        raise ValueError("ids must have at least one id to count; got none. Fit on the training ids.")
    levels = []
    context, keys, contexts = np.zeros(len(ids), np.int64), np.empty(0, np.int64), 1
    for n in range(min(order + 1, len(ids))):
        if n:
            # The first n ids have no context of this length: the arrays lose one at the front.
            keys, context = np.unique(context[1:] * size + ids[: len(ids) - n], return_inverse=True)
            contexts = len(keys)
        pair = context * size + ids[n:]
        pairs, counts = np.unique(pair, return_counts=True)
        levels.append(Level(keys, contexts, pairs, counts, int(np.searchsorted(pairs, pair[0]))))
    return levels


def places(
    levels: list[Level], order: int, size: int, ids: ArrayLike, before: ArrayLike | None
) -> Iterator[tuple[Ids, Ids]]:
    """For orders 0, 1, ..., order: the number of the context of each of the ids (N,), and the place of the pair.

    UNSEEN where training had none such, or where so many ids do not precede.
    """
    if not levels:
        raise ValueError("fit must be called before nats. Give it the training ids.")
    past = _checked([] if before is None else before, size)
    past = past[max(0, len(past) - order) :]
    new = _checked(ids, size)
    stream = np.concatenate([past, new])
    context = np.zeros(len(new), np.int64)
    for n in range(order + 1):
        if n:
            position = np.arange(len(past), len(stream)) - n
            known = (context != UNSEEN) & (position >= 0)
            longer = np.full_like(context, UNSEEN)
            if n < len(levels):
                longer[known] = _find(levels[n].keys, context[known] * size + stream[position[known]])
            context = longer
        pair = np.full_like(context, UNSEEN)
        if n < len(levels):
            known = context != UNSEEN
            pair[known] = _find(levels[n].pairs, context[known] * size + new[known])
        yield context, pair


def _mixed(p: Nats | float, context: Ids, pair: Ids, mixture: Mixture) -> Nats:
    """p(w | c) from p(w | c'), of each id."""
    rest = np.where(context == UNSEEN, 1.0, mixture.rest[context])
    gain = np.where(pair == UNSEEN, 0.0, mixture.gain[pair])
    return gain + rest * p


def _find(keys: Ids, wanted: Ids) -> Ids:
    """Where each wanted key stands among sorted keys, at least one; UNSEEN where it is missing."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, place, UNSEEN)


def _checked(ids: ArrayLike, size: int) -> Ids:
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"ids must be one row of whole numbers; got {array.dtype} of shape {array.shape}.")
    if array.size and (int(array.min()) < 0 or int(array.max()) >= size):
        raise ValueError(f"ids must lie in [0, {size}); got {array.min()} to {array.max()}.")
    return array.astype(np.int64)
