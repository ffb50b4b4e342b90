"""Sequences of numbers as a network reads them: every feature less its mean, over its standard deviation, in frames.

A frame is the last `frame` steps side by side, and one is read every `stride` steps, so that the last one ends with
the sequence; before its start the first step stands again. frame = stride = 1 is step by step.

Where a feature varies far less in most sequences than over all of them, the standard deviation of all would make most
sequences flat lines (the currents of large and of small machines). Such a feature is read as asinh((x - mean) / u), u
the median of the standard deviations of the sequences: linear below u and logarithmic above. Beside it, where the
whole sequence may be read at once, stands the feature less the sequence's own mean, over its own standard deviation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]
FLAT = 1e-10
"""A feature whose standard deviation is below this share of its size is constant, and only its mean is taken off."""
UNEVEN = 10.0
"""A feature is uneven where its standard deviation is above so many times the median of those of the sequences."""
FAR = 1e6
"""What is further from the mean, in standard deviations, is read as if it were so far, which float32 can hold."""


def _none() -> Numbers:
    return np.zeros(0)


@dataclass(eq=False)
class NumberReader:
    """Mean and scale of each feature over all steps of the sequences that it was fitted to.

    frame, stride   steps in a frame, and from one frame to the next.
    whole           a sequence is read when all of it is there: an uneven feature is also read on its own scale.
    scale           the standard deviation, or u of an uneven feature; uneven says which ones are.
    The weight of a sequence is that of its steps. Nothing is learned from what is only read.
    """

    frame: int = 1
    stride: int = 1
    whole: bool = False
    mean: Numbers = field(default_factory=_none)  # I
    scale: Numbers = field(default_factory=_none)  # I
    uneven: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))  # I

    ids = False

    def fit(self, sequences: Sequence[NDArray[Any]], weight: ArrayLike | None = None) -> NumberReader:
        """From sequences (T_i, I), at least one of them with a step and a weight above 0; returns self."""
        weights = np.ones(len(sequences)) if weight is None else np.asarray(weight, np.float64)
        steps = np.repeat(weights, [len(sequence) for sequence in sequences])
        if not steps.any():
            raise ValueError("X must have a sequence with at least one step; got none to learn from.")
        values = np.concatenate([sequence for sequence in sequences if len(sequence)])  # steps, I
        share = steps / steps.sum()
        size = np.abs(values).max(0)  # so that squares of huge or tiny numbers stay what they are
        size[size == 0] = 1.0
        mean = share @ (values / size)
        spread = np.sqrt(share @ (values / size - mean) ** 2)
        used = [(sequence / size, w) for sequence, w in zip(sequences, weights, strict=True) if len(sequence) and w]
        typical = _median(np.array([_deviation(s)[1] for s, _ in used]), np.array([w for _, w in used]))
        self.uneven = (spread > UNEVEN * typical) & (typical > 0)
        spread = np.where(self.uneven, typical, spread)
        self.mean, self.scale = mean * size, np.where(spread <= FLAT * np.abs(mean), 1.0, spread * size)
        return self

    def read(self, sequences: Sequence[NDArray[Any]]) -> list[Numbers]:
        """Of each its frames, (T_i, I) with T_i steps over stride, rounded up."""
        return [self._framed(self._scaled(s)) if len(s) else np.zeros((0, self.inputs)) for s in sequences]

    def _scaled(self, values: NDArray[Any]) -> Numbers:
        scaled = (values - self.mean) / self.scale
        if self.uneven.any():
            scaled[:, self.uneven] = np.arcsinh(scaled[:, self.uneven])
            if self.whole:
                mean, spread = _deviation(values[:, self.uneven] / self.scale[self.uneven])
                own = (values[:, self.uneven] / self.scale[self.uneven] - mean) / np.where(spread > 0, spread, 1.0)
                scaled = np.concatenate((scaled, np.where(spread > 0, own, 0.0)), 1)
        return np.clip(scaled, -FAR, FAR)

    def _framed(self, values: Numbers) -> Numbers:
        T = len(values)
        ends = np.arange((T - 1) % self.stride, T, self.stride)
        steps = ends[:, None] + np.arange(1 - self.frame, 1)  # of each frame, oldest first
        return values[np.maximum(steps, 0)].reshape(len(ends), -1)

    @property
    def features(self) -> int:
        """Numbers of a step."""
        return len(self.mean)

    @property
    def channels(self) -> int:
        """Numbers of a step as it is read: with whole an uneven feature is two."""
        return self.features + self.whole * int(self.uneven.sum())

    @property
    def inputs(self) -> int:
        """Numbers of a frame."""
        return self.frame * self.channels


def _deviation(values: Numbers) -> tuple[Numbers, Numbers]:
    """Mean and standard deviation of each feature of (T, I), the latter 0 where only rounding sets steps apart."""
    mean, spread = values.mean(0), values.std(0)
    return mean, np.where(spread <= FLAT * np.abs(mean), 0.0, spread)


def _median(values: Numbers, weight: Numbers) -> Numbers:
    """Of each column of (N, I) the lowest number that rows of half the weight do not exceed."""
    order = values.argsort(0)
    reached = weight[order].cumsum(0) >= weight.sum() / 2
    return np.take_along_axis(values, np.take_along_axis(order, reached.argmax(0)[None], 0), 0)[0]
