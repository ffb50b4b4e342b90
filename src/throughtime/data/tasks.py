"""Problems that need memory, drawn from a seed: with what guessing costs, and what no network can do better.

A task is a source of chunks. It holds `batches` batches of `streams` sequences, each drawn from the seed and its own
number alone: the same seed gives the same data, in whatever order, and in pieces of whatever length it is asked for.

    task = Adding(100, batches=1000)
    net = Network("lstm", inputs=task.inputs, units=32, outputs=task.outputs)
    train(net, task, loss=task.loss, validation=Adding(100, batches=10, seed=1))

An error sees h steps when it is told what stands in the last h, its own included; BPTT(h) from a start state that knows
nothing is such a case. `floor(h)` is the lowest mean error that is left then, which is the Bayes error.
"""

from __future__ import annotations

import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import KW_ONLY, dataclass
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime.chunk import Chunk
from throughtime.shapes import Tensor

Drawn = tuple[NDArray[np.generic], NDArray[np.generic]]
"""x and y of a batch of sequences."""


@dataclass(frozen=True)
class Task(ABC):
    """Batches of sequences as chunks; every sequence starts anew, and the last piece of each batch has end=True.

    T        how long: the steps of a sequence, but for Copy, where it is the delay.
    streams  B, sequences side by side.
    batches  how many batches there are.
    steps    steps of a chunk; None: whole sequences, one batch a chunk.
    seed     of all that is drawn, at least 0.
    dtype    of the numbers in x, y and mask.

    inputs, outputs and loss are what a network needs: `Network(cell, inputs=..., outputs=...)`, `train(loss=...)`.
    `task[i]` costs the drawing of one batch, whatever i is. Raises ValueError for a size that is too small.
    """

    T: int
    _: KW_ONLY
    streams: int = 32
    batches: int = 100
    steps: int | None = None
    seed: int = 0
    dtype: torch.dtype = torch.float32

    loss: ClassVar[str]
    shortest: ClassVar[int] = 1

    def __post_init__(self) -> None:
        least = {"T": self.shortest, "streams": 1, "batches": 1, "steps": 1, "seed": 0}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and value < bound:
                raise ValueError(f"{name} must be at least {bound}; got {value}.")

    @property
    @abstractmethod
    def inputs(self) -> int:
        """Numbers a step, or how many ids there are."""

    @property
    @abstractmethod
    def outputs(self) -> int:
        """Numbers a step that a network must give."""

    @property
    def length(self) -> int:
        """The steps of a sequence."""
        return self.T

    @property
    def guess(self) -> float:
        """The mean error of the best answer that knows the step, and nothing of what stands in the sequence."""
        return self.floor(0)

    @property
    def needed_h(self) -> int:
        """The smallest number of steps that an error must see for the lowest error of all."""
        return next(h for h in range(self.length + 1) if self.floor(h) <= self.floor())

    def floor(self, h: int | None = None) -> float:
        """The lowest mean error, in the units of `loss`, when every error sees h steps and the time; None: all."""
        if h is not None and h < 0:
            raise ValueError(f"h must be a number of steps, at least 0; got {h}.")
        return self._floor(self.length if h is None else min(h, self.length))

    def __len__(self) -> int:
        return self.batches * self._pieces

    def __getitem__(self, index: int) -> Chunk:
        """Chunk `index` (negative: from the end). Raises IndexError beyond the last."""
        place = operator.index(index)
        place = place + len(self) if place < 0 else place
        if not 0 <= place < len(self):
            raise IndexError(f"chunk must lie in [0, {len(self)}); got {index}.")
        batch, piece = divmod(place, self._pieces)
        steps = self.length if self.steps is None else self.steps
        return self._batch(batch)[piece * steps : (piece + 1) * steps]

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

    @property
    def _pieces(self) -> int:
        return 1 if self.steps is None else -(-self.length // self.steps)

    def _batch(self, batch: int) -> Chunk:
        x, y = self._draw(np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(batch,))))
        reset = torch.zeros(self.length, self.streams, dtype=torch.bool)
        reset[0] = True
        return Chunk(self._tensor(x), self._tensor(y), self._mask(), reset, end=True)

    def _tensor(self, array: NDArray[np.generic]) -> Tensor:
        """Ids as int64, numbers as dtype."""
        return torch.from_numpy(array).to(self.dtype if array.dtype.kind == "f" else torch.int64)

    def _mask(self) -> Tensor | None:
        """Which errors count: that of the last step."""
        mask = torch.zeros(self.length, self.streams, dtype=self.dtype)
        mask[-1] = 1
        return mask

    @abstractmethod
    def _draw(self, random: np.random.Generator) -> Drawn: ...

    @abstractmethod
    def _floor(self, h: int) -> float: ...


@dataclass(frozen=True)
class Copy(Task):
    """Say again, T steps later, what was read: the copy memory problem.

    `symbols` = n ids drawn from `alphabet` = K; T - 1 blanks (id K); a sign to speak (id K + 1); n blanks. Wanted are
    T + n blanks and then the n ids, each T + n steps after it was read. x, y (T + 2 n, B) ids below K + 2; every error
    counts. Guessing costs n ln K / (T + 2 n) nats a step, for n = 10 and K = 8: 10 ln 8 / (T + 20).
    Hochreiter and Schmidhuber (1997); in these sizes Arjovsky, Shah and Bengio (2016).
    """

    _: KW_ONLY
    symbols: int = 10
    alphabet: int = 8

    loss: ClassVar[str] = "softmax"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.symbols < 1 or self.alphabet < 2:
            raise ValueError(
                f"symbols must be at least 1 and alphabet at least 2; got {self.symbols} and {self.alphabet}."
            )

    @property
    def inputs(self) -> int:
        return self.alphabet + 2

    @property
    def outputs(self) -> int:
        return self.alphabet + 2

    @property
    def length(self) -> int:
        return self.T + 2 * self.symbols

    def _mask(self) -> None:
        return None

    def _draw(self, random: np.random.Generator) -> Drawn:
        told = random.integers(self.alphabet, size=(self.symbols, self.streams))
        x = np.full((self.length, self.streams), self.alphabet)
        y = x.copy()
        x[: self.symbols] = y[-self.symbols :] = told
        x[self.symbols + self.T - 1] = self.alphabet + 1
        return x, y

    def _floor(self, h: int) -> float:
        lost = self.symbols if h <= self.T + self.symbols else 0
        return lost * math.log(self.alphabet) / self.length


@dataclass(frozen=True)
class Adding(Task):
    """The sum of the two marked numbers of T: one somewhere in the first half, one in the second.

    x (T, B, 2): a number from [0, 1), and 1 where it is marked, else 0. y (T, B, 1): the sum; the last step counts.
    The loss is half the squared error: always answering 1 costs 1/12, a mean squared error of 1/6.
    Hochreiter and Schmidhuber (1997); in this form Arjovsky, Shah and Bengio (2016).
    """

    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 1
    loss: ClassVar[str] = "squared"
    shortest: ClassVar[int] = 2

    @property
    def places(self) -> tuple[range, range]:
        """Where the marked numbers may stand."""
        return range(self.T // 2), range(self.T // 2, self.T)

    def _draw(self, random: np.random.Generator) -> Drawn:
        numbers, marks = random.random((self.T, self.streams)), np.zeros((self.T, self.streams))
        for places in self.places:
            marks[random.integers(places.start, places.stop, self.streams), np.arange(self.streams)] = 1
        y = np.broadcast_to((numbers * marks).sum(0), numbers.shape)
        return np.stack([numbers, marks], -1), y[..., None].copy()

    def _floor(self, h: int) -> float:
        return sum(_before(places, self.T - h) for places in self.places) / 24


@dataclass(frozen=True)
class Parity(Task):
    """Whether the number of ones so far is odd.

    x (T, B) ids 0 or 1; y (T, B, 1): 0 or 1. Every error counts, or with last=True that of the last step alone.
    Guessing costs ln 2. With every error counting two steps tell the rule, and the state does the rest: the problem
    asks for a memory without an end, and teaches it at once. With the last alone nothing but all T steps teach it.
    """

    _: KW_ONLY
    last: bool = False

    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 1
    loss: ClassVar[str] = "bernoulli"

    def _mask(self) -> Tensor | None:
        return super()._mask() if self.last else None

    def _draw(self, random: np.random.Generator) -> Drawn:
        x = random.integers(2, size=(self.T, self.streams))
        return x, (x.cumsum(0) % 2).astype(np.float64)[..., None]

    def _floor(self, h: int) -> float:
        return math.log(2) * (float(h < self.T) if self.last else (self.T - h) / self.T)


@dataclass(frozen=True)
class TemporalOrder(Task):
    """Which two signs were read, in which order, among distractors.

    Each sign is X or Y (ids 4 and 5), one in the steps from T/10 to 2T/10, one from 4T/10 to 5T/10; the others are one
    of four letters (ids 0 to 3). x (T, B) ids; y (T, B): 2 (first sign is Y) + (second is Y); the last step counts.
    Guessing costs ln 4. Hochreiter and Schmidhuber (1997), problem 6a; in these proportions Pascanu, Mikolov and
    Bengio (2013).
    """

    inputs: ClassVar[int] = 6
    outputs: ClassVar[int] = 4
    loss: ClassVar[str] = "softmax"
    shortest: ClassVar[int] = 10

    @property
    def places(self) -> tuple[range, range]:
        """Where the two signs may stand."""
        first, second = ((tenths * self.T // 10, (tenths + 1) * self.T // 10) for tenths in (1, 4))
        return range(*first), range(*second)

    def _draw(self, random: np.random.Generator) -> Drawn:
        x, rows = random.integers(4, size=(self.T, self.streams)), np.arange(self.streams)
        y = np.zeros_like(x)
        for places in self.places:
            sign = random.integers(2, size=self.streams)
            x[random.integers(places.start, places.stop, self.streams), rows] = 4 + sign
            y = 2 * y + sign
        return x, y

    def _floor(self, h: int) -> float:
        return math.log(2) * sum(_before(places, self.T - h) for places in self.places)


LAGS, WEIGHTS = (3, 8), (0.5, -0.25)
"""The coin that comes up is weighed by the flips so many steps before."""


@dataclass(frozen=True)
class Coin(Task):
    """A coin whose chance depends on two flips before: P(y_t = 1) = 0.5 + 0.5 x_{t-3} - 0.25 x_{t-8}.

    x (T, B) ids 0 or 1, of a fair coin; y (T, B, 1): 0 or 1. The flips before a sequence's start are drawn too, and
    never shown. Every error counts, or with last=True that of the last step alone: Coin(h, last=True) is what BPTT(h)
    sees from a state that knows nothing. The floors in nats are 0.6616 for h <= 3, 0.5192 for 4 to 8, and 0.4545 from
    9 on; knowing the flip of 8 steps before alone would leave 0.6277. After an idea of r2rt.com (2016).
    A state that is carried on echoes earlier flips even where no error goes back to them, and a readout alone learns
    from echoes: on long sequences an h below 9 is seen to fall below its floor.
    """

    _: KW_ONLY
    last: bool = False

    inputs: ClassVar[int] = 2
    outputs: ClassVar[int] = 1
    loss: ClassVar[str] = "bernoulli"

    def _mask(self) -> Tensor | None:
        return super()._mask() if self.last else None

    def _draw(self, random: np.random.Generator) -> Drawn:
        most = max(LAGS)
        flips = random.integers(2, size=(most + self.T, self.streams))
        chance = np.full((self.T, self.streams), 0.5)
        for lag, weight in zip(LAGS, WEIGHTS, strict=True):
            chance += weight * flips[most - lag : most - lag + self.T]
        y = (random.random(chance.shape) < chance).astype(np.float64)
        return flips[most:], y[..., None]

    def _floor(self, h: int) -> float:
        steps = (self.T,) if self.last else range(1, self.T + 1)
        return sum(coin_entropy(lag < min(h, step) for lag in LAGS) for step in steps) / len(steps)


def coin_entropy(known: Iterable[bool]) -> float:
    """The mean entropy in nats of the coin when those of the two flips are known; an unknown one is 0.5 in the mean."""
    flips = product(*((0, 1) if seen else (0.5,) for seen in known))
    chances = [0.5 + sum(w * x for w, x in zip(WEIGHTS, flip, strict=True)) for flip in flips]
    return sum(-p * math.log(p) for chance in chances for p in (chance, 1 - chance) if p > 0) / len(chances)


def _before(places: range, step: int) -> float:
    """The share of the places before a step."""
    return min(max(step - places.start, 0), len(places)) / len(places)
