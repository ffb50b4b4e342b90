"""One long row of steps cut into B contiguous streams, and those into chunks: the law of all data here.

Of N steps, stream b of B takes b L, b L + 1, ..., with L = ceil(N / B); what lies at or beyond N is padding.
So every step is in exactly one stream, and how long the chunks are changes nothing about what stands in it.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime.shapes import Tensor


@dataclass(frozen=True)
class Streams:
    """N = count steps in B = streams rows, read `steps` at a time. Raises ValueError when B > N."""

    count: int
    streams: int
    steps: int
    what: str = "the data"

    def __post_init__(self) -> None:
        if self.streams < 1 or self.steps < 1:
            raise ValueError(
                f"streams and steps must be at least 1; got streams={self.streams} and steps={self.steps}."
            )
        if self.count < self.streams:
            raise ValueError(
                f"streams must be at most the {self.count} targets of {self.what}; got {self.streams}. "
                "Use fewer streams or more data."
            )

    @property
    def length(self) -> int:
        """L, the steps of the longest stream."""
        return -(-self.count // self.streams)

    def __len__(self) -> int:
        return -(-self.length // self.steps)

    def __getitem__(self, index: int) -> Window:
        """The steps of chunk `index` (negative: from the end), in O(1). Raises IndexError beyond the last."""
        place = operator.index(index)
        place = place + len(self) if place < 0 else place
        if not 0 <= place < len(self):
            raise IndexError(f"chunk must lie in [0, {len(self)}); got {index}.")
        time = np.arange(place * self.steps, min((place + 1) * self.steps, self.length))
        position = time[:, None] + self.length * np.arange(self.streams)
        inside = position < self.count
        return Window(
            position=np.minimum(position, self.count - 1),
            inside=None if inside.all() else inside,
            first=place == 0,
            last=place == len(self) - 1,
        )


@dataclass(frozen=True)
class Window:
    """The steps of one chunk.

    position  (T, B): where each step stands in the long row.
    inside    (T, B): False on padding; None where nothing is padded.
    """

    position: NDArray[np.int64]
    inside: NDArray[np.bool_] | None
    first: bool
    last: bool

    def mask(self, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return None if self.inside is None else torch.from_numpy(self.inside).to(dtype)

    def reset(self, streams: int) -> Tensor | None:
        """True for all rows at the first step of the first chunk; None in the others."""
        if not self.first:
            return None
        reset = torch.zeros(len(self.position), streams, dtype=torch.bool)
        reset[0] = True
        return reset
