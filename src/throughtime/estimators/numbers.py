"""Sequences of numbers as a network reads them: every feature less its mean, over its standard deviation, in frames.

A frame is the last `frame` steps side by side, and one is read every `stride` steps, so that the last one ends with
the sequence; before its start the first step stands again. frame = stride = 1 is step by step.
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
FAR = 1e6
"""What is further from the mean, in standard deviations, is read as if it were so far, which float32 can hold."""


def _none() -> Numbers:
    return np.zeros(0)


@dataclass(eq=False)
class NumberReader:
    """Mean and standard deviation of each feature over all steps of the sequences that it was fitted to.

    frame, stride   steps in a frame, and from one frame to the next.
    The weight of a sequence is that of its steps. Nothing is learned from what is only read.
    """

    frame: int = 1
    stride: int = 1
    mean: Numbers = field(default_factory=_none)  # I
    scale: Numbers = field(default_factory=_none)  # I

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
        self.mean, self.scale = mean * size, np.where(spread <= FLAT * np.abs(mean), 1.0, spread * size)
        return self

    def read(self, sequences: Sequence[NDArray[Any]]) -> list[Numbers]:
        """Of each its frames, (T_i, I) with T_i steps over stride, rounded up."""
        return [self._framed(self._scaled(s)) if len(s) else np.zeros((0, self.inputs)) for s in sequences]

    def _scaled(self, values: NDArray[Any]) -> Numbers:
        return np.clip((values - self.mean) / self.scale, -FAR, FAR)

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
    def inputs(self) -> int:
        """Numbers of a frame."""
        return self.frame * self.features
