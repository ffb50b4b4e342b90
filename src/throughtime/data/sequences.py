"""Sequences of unequal length: from the shapes that people have them in, and as batches of chunks.

A batch holds sequences of similar length in B rows, one after the other where a row has room, each beginning with a
reset; what stands behind the last one is padding, whose mask is 0. B is the same in all batches, so that every credit
can read them, and chosen so that they cost the least.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from throughtime.chunk import Chunk

Numbers = NDArray[np.float64]
Array = NDArray[Any]

LAYOUTS = ("ntc", "nct", "tnc")
STEP = 3
"""What a step costs beside its rows, in rows."""
JITTER = 0.1
"""Sequences whose lengths differ by less than this share of them meet in one batch by chance."""


def sequences_of(
    X: Any,
    *,
    layout: str = "ntc",
    lengths: ArrayLike | None = None,
    features: int | None = None,
    missing: bool = False,
    name: str = "X",
) -> list[Numbers]:
    """Each sequence as (T_i, I) numbers; T_i may be 0.

    X         (N, T) univariate sequences; (N, T, I) with the axes that layout names (n sequences, t time, c features);
              or a list, a tuple or an object array of N sequences (T_i,), (T_i, I), or (I, T_i) with layout="nct".
    lengths   the steps of each sequence of a 3-D array, or of a 2-D one; what stands behind them is not read.
    features  I, where it is known already. missing: NaN is allowed.

    Raises ValueError, with both shapes where another axis would fit; TypeError for what is no sequences at all.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be {', '.join(LAYOUTS)}; got {layout!r}.")
    dense = _dense(X)
    if dense is not None:
        found = _cut(_rows(dense, layout, name), lengths, name)
    elif lengths is not None:
        raise ValueError(
            f"lengths must go with an array of 2 or 3 axes; {name} is a list of sequences, which has them."
        )
    else:
        found = _each(X, layout, name)
    found = _of_one_width(found, features, layout, name)
    for place, sequence in enumerate(found):
        if np.isinf(sequence).any() or (not missing and np.isnan(sequence).any()):
            what = "infinity" if np.isinf(sequence).any() else "NaN"
            step, column = np.argwhere(~np.isfinite(sequence))[0]
            raise ValueError(
                f"{name} must be finite numbers; got {what} in sequence {place}, step {step}, feature {column}. "
                "Fill what is missing, or leave the sequence out."
            )
    return found


def _dense(X: Any) -> Array | None:
    """X as one array of numbers, or None where it is sequences one by one."""
    if hasattr(X, "detach") and hasattr(X, "numpy"):  # a tensor of torch
        X = X.detach().cpu().numpy()
    if isinstance(X, np.ndarray) and X.dtype != object:
        return X
    if isinstance(X, np.ndarray) and X.ndim == 2:
        return _numbers(X, "X")
    return None


def _rows(dense: Array, layout: str, name: str) -> Array:
    """(N, T, I) of an array of 2 or 3 axes."""
    if dense.ndim not in (2, 3):
        raise ValueError(
            f"{name} must be (N, T) or (N, T, I), N sequences of T steps of I numbers; got shape {dense.shape}. "
            "Reshape your data: of one sequence it is X[None]."
        )
    dense = _numbers(dense, name)
    if dense.ndim == 2:
        if layout != "ntc":
            raise ValueError(f"layout must be left out for an array (N, T), which has no other; got {layout!r}.")
        return dense[:, :, None]
    return dense.transpose([layout.index(axis) for axis in "ntc"])


def _cut(rows: Array, lengths: ArrayLike | None, name: str) -> list[Numbers]:
    if lengths is None:
        return list(rows)
    steps = np.asarray(lengths)
    if steps.shape != rows.shape[:1] or steps.dtype.kind not in "iu":
        raise ValueError(
            f"lengths must be a whole number for each of the {len(rows)} sequences; got {steps.dtype} {steps.shape}."
        )
    if steps.size and (steps.min() < 0 or steps.max() > rows.shape[1]):
        raise ValueError(f"lengths must be from 0 to the {rows.shape[1]} steps of {name}; got up to {steps.max()}.")
    return [row[:count] for row, count in zip(rows, steps.tolist(), strict=True)]


def _each(X: Any, layout: str, name: str) -> list[Numbers]:
    if isinstance(X, (str, bytes)) or not hasattr(X, "__len__") or not hasattr(X, "__iter__"):
        raise TypeError(f"{name} must be an array or a list of sequences; got {type(X).__name__}.")
    if layout == "tnc":
        raise ValueError("layout must be ntc or nct for a list of sequences, of which each is one n; got 'tnc'.")
    found = []
    for place, sequence in enumerate(X):
        array = _numbers(sequence, f"{name}[{place}]")
        if array.ndim == 0:
            raise ValueError(
                f"{name} must be (N, T), (N, T, I) or a list of sequences; {name}[{place}] is one number. "
                "Reshape your data: of one sequence it is [X]."
            )
        if array.ndim > 2:
            raise ValueError(f"{name}[{place}] must be (T,) or (T, I); got shape {array.shape}.")
        array = array[:, None] if array.ndim == 1 else array.T if layout == "nct" else array
        found.append(array)
    return found


def _numbers(values: Any, name: str) -> Numbers:
    if hasattr(values, "detach") and hasattr(values, "numpy"):
        values = values.detach().cpu().numpy()
    array = np.asarray(values)
    if array.dtype.kind == "c":
        raise ValueError(f"Complex data not supported: {name} must be real numbers.")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be numbers; got {array.dtype} such as {str(array.flat[0])!r}.") from None


def _of_one_width(found: Sequence[Numbers], features: int | None, layout: str, name: str) -> list[Numbers]:
    """The sequences, what holds no number as (0, I). Raises ValueError unless all others have I features."""
    known = [(place, s.shape) for place, s in enumerate(found) if s.size]
    wanted = features if features is not None else next((shape[1] for _, shape in known), None)
    for place, (steps, width) in known:
        if width == wanted:
            continue
        turned = {"ntc": "nct", "nct": "ntc"}.get(layout)
        hint = "Give every step the same features."
        if steps == wanted and turned is not None:
            hint = f"Its other axis is {wanted}: is it layout={turned!r}?"
        raise ValueError(f"{name} must be sequences (T, {wanted}); sequence {place} is ({steps}, {width}). {hint}")
    return [s if s.size or wanted is None else np.zeros((0, wanted)) for s in found]


@dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
    """Sequences as chunks, one batch a chunk, each chunk with end; the batches of one epoch after those of another.

    x        N arrays (T_i, I) of numbers or (T_i,) of ids. Those without a step are left out.
    y        each: N arrays (T_i, ...), a target for every step. Else (N, ...): one, at the last step.
    weight   each: N arrays (T_i,). Else (N,). Of the errors, >= 0; None: 1.
    each     whether every step has a target.
    size     sequences in a batch, about: N is shared out evenly.
    epochs   passes; in every one chance puts sequences of similar length together, and orders the batches.
    seed     of that chance; None: batches are by length, always the same.
    """

    x: Sequence[Array]
    y: Any
    weight: Any = None
    each: bool = False
    size: int = 32
    epochs: int = 1
    seed: int | None = None
    dtype: torch.dtype = torch.float32
    _lengths: NDArray[np.int64] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.size < 1 or self.epochs < 1:
            raise ValueError(f"size and epochs must be at least 1; got size={self.size}, epochs={self.epochs}.")
        object.__setattr__(self, "_lengths", np.array([len(s) for s in self.x], np.int64))
        if not self._lengths.any():
            raise ValueError("x must have a sequence with at least one step; got none to learn from.")

    @cached_property
    def _used(self) -> NDArray[np.int64]:
        return np.flatnonzero(self._lengths)

    @property
    def per_epoch(self) -> int:
        """Batches of one epoch."""
        return -(-len(self._used) // self.size)

    @cached_property
    def streams(self) -> int:
        """B, up to the sequences of a batch: where their lengths differ much, fewer and longer rows cost less."""
        groups = self._groups(0, None)
        rows = range(1, max(len(group) for group in groups) + 1)
        return min(rows, key=lambda B: (B + STEP) * sum(self._pack(group, B)[1] for group in groups))

    def __len__(self) -> int:
        return self.epochs * self.per_epoch

    def __getitem__(self, index: int) -> Chunk:
        """Batch `index`, the same whenever it is asked for. Raises IndexError beyond the last."""
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"batch must lie in [0, {len(self)}); got {index}.")
        epoch, batch = divmod(place, self.per_epoch)
        return self._chunk(self._epoch(epoch)[batch])

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

    def _epoch(self, epoch: int) -> list[NDArray[np.int64]]:
        """The sequences of each batch of an epoch; the last epoch that was asked for is at hand."""
        held: tuple[int, Any] | None = self.__dict__.get("_held")
        if held is None or held[0] != epoch:
            held = (epoch, self._groups(epoch, self.seed))
            self.__dict__["_held"] = held
        return held[1]

    def _groups(self, epoch: int, seed: int | None) -> list[NDArray[np.int64]]:
        used, lengths = self._used, self._lengths[self._used].astype(float)
        if seed is None:
            return np.array_split(used[np.argsort(-lengths, kind="stable")], self.per_epoch)
        chance = np.random.default_rng((seed, epoch))
        order = np.lexsort((chance.random(len(used)), np.round(np.log(lengths) / JITTER + chance.random())))
        groups = np.array_split(used[order], self.per_epoch)
        return [groups[place] for place in chance.permutation(len(groups))]

    def _pack(self, group: NDArray[np.int64], rows: int) -> tuple[list[tuple[int, int, int]], int]:
        """(sequence, row, first step) of each, the longest first into the emptiest row; and T."""
        filled, places = np.zeros(rows, np.int64), []
        for sequence in sorted(group.tolist(), key=lambda s: -int(self._lengths[s])):
            row = int(filled.argmin())
            places.append((sequence, row, int(filled[row])))
            filled[row] += self._lengths[sequence]
        return places, int(filled.max())

    def _chunk(self, group: NDArray[np.int64]) -> Chunk:
        B = self.streams
        places, T = self._pack(group, B)
        first = self.x[places[0][0]]
        ids = first.dtype.kind in "iu"
        x = np.zeros((T, B, *first.shape[1:]), np.int64 if ids else np.float64)
        pattern = np.asarray(self.y[places[0][0]])
        shape = pattern.shape[1:] if self.each else pattern.shape
        y = np.zeros((T, B, *shape), pattern.dtype)
        mask, reset = np.zeros((T, B)), np.zeros((T, B), bool)
        reset[0] = True
        for sequence, row, start in places:
            stop = start + int(self._lengths[sequence])
            where = slice(start, stop) if self.each else stop - 1
            x[start:stop, row] = self.x[sequence]
            y[where, row] = self.y[sequence]
            mask[where, row] = 1.0 if self.weight is None else self.weight[sequence]
            reset[start, row] = True
            if stop < T:
                reset[stop, row] = True  # what is padded belongs to no sequence: read backwards, it ends here
        numbers = lambda array: torch.from_numpy(array).to(self.dtype if array.dtype.kind == "f" else torch.int64)  # noqa: E731
        return Chunk(numbers(x), numbers(y), numbers(mask), torch.from_numpy(reset), True)
