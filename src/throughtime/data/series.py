"""Series of numbers as chunks: predict the next value, or targets of your own, from all values before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from throughtime.chunk import Chunk
from throughtime.data.split import PARTS, Split, borders_of, check_split
from throughtime.data.streams import Streams
from throughtime.shapes import Tensor

Numbers = NDArray[np.float64]


class Series:
    """T steps of I numbers, each scaled by the mean and the standard deviation of the training part.

    values   (T,), (T, I) or (T, B, I). A missing value (NaN) is read as the last one seen, or as the mean.
    targets  None: the next values, scaled like them. Else (T,), (T, A) or (T, B, A) numbers, taken as they
             are. A target that is NaN gets mask 0.
    split    fractions of the steps by position, (train, validation, test); None: all is the training part.
    scaling  False leaves the numbers as they are.

    Raises ValueError for infinities, shapes that do not fit, and a part that is too short.
    """

    def __init__(
        self,
        values: ArrayLike,
        *,
        targets: ArrayLike | None = None,
        split: Split | None = (0.7, 0.15, 0.15),
        scaling: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.values = _steps_streams_numbers(values, "values")
        self.targets = None if targets is None else _steps_streams_numbers(targets, "targets")
        if self.targets is not None and self.targets.shape[:2] != self.values.shape[:2]:
            raise ValueError(f"targets must begin with {self.values.shape[:2]}; got {self.targets.shape}.")
        self.split = None if split is None else check_split(split)
        self.dtype = dtype
        self._borders = borders_of(self.split, len(self.values))
        known = self.values[: self._borders[1]].reshape(-1, self.inputs)
        if np.isnan(known).all(axis=0).any():
            raise ValueError("values must have a number in every column of the training part; got only NaN.")
        deviation = np.nanstd(known, axis=0) if scaling else np.ones(self.inputs)
        self.mean: Numbers = np.nanmean(known, axis=0) if scaling else np.zeros(self.inputs)
        self.deviation: Numbers = np.where(deviation > 0, deviation, 1.0)
        # Missing inputs are filled once, over the whole series and looking backwards only.
        self._x = _filled(self.scale(self.values))
        self._y = self.scale(self.values)[1:] if self.targets is None else self.targets
        self._missing = bool(np.isnan(self._y).any())

    @property
    def inputs(self) -> int:
        """I, the numbers of a step."""
        return int(self.values.shape[2])

    @property
    def outputs(self) -> int:
        """A, the numbers of a target."""
        return int(self._y.shape[2])

    def scale(self, values: ArrayLike) -> Numbers:
        """(..., I) in the units of the series to mean 0 and deviation 1."""
        return (np.asarray(values, np.float64) - self.mean) / self.deviation

    def unscale(self, values: ArrayLike) -> Numbers:
        """The inverse of scale: predictions of the next value in the units of the series."""
        return np.asarray(values, np.float64) * self.deviation + self.mean

    def chunks(self, streams: int = 1, steps: int = 64, part: str = "train") -> SeriesChunks:
        """A part as chunks of `steps` steps; it is cut into `streams` contiguous streams, as a Text is."""
        if part not in PARTS:
            raise ValueError(f"part must be train, validation or test; got {part!r}.")
        start, stop = list(pairwise(self._borders))[PARTS.index(part)]
        count = stop - start - (self.targets is None)
        return SeriesChunks(self, start, Streams(max(count, 0), streams, steps, f"the {part} part"))


@dataclass(frozen=True)
class SeriesChunks:
    """Chunks of a series: x (T, B, I), y (T, B, A), with B = streams times the rows of the series itself.

    The mask is (T, B) where A = 1. Where A > 1 and any target of the series is missing, every chunk has a
    mask (T, B, A), so that the weight of a target does not change from chunk to chunk.
    """

    series: Series
    start: int
    cut: Streams

    def __len__(self) -> int:
        return len(self.cut)

    def __getitem__(self, index: int) -> Chunk:
        window = self.cut[index]
        rows = self.series.values.shape[1]
        place = self.start + window.position
        x, y = self._rows(self.series._x[place]), self._rows(self.series._y[place])
        mask = window.mask(self.series.dtype)
        mask = None if mask is None else mask.repeat_interleave(rows, dim=1)
        if self.series._missing and (mask is not None or self.series.outputs > 1 or bool(y.isnan().any())):
            known = (~y.isnan()).to(y.dtype)
            known = known if mask is None else known * mask[..., None]
            mask = known[..., 0] if self.series.outputs == 1 else known
        return Chunk(x, y.nan_to_num(), mask, window.reset(x.shape[1]), window.last)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))

    def _rows(self, numbers: Numbers) -> Tensor:
        steps, streams, rows, width = numbers.shape
        return torch.from_numpy(numbers.reshape(steps, streams * rows, width)).to(self.series.dtype)


def _steps_streams_numbers(values: ArrayLike, name: str) -> Numbers:
    array: Numbers = np.asarray(values, np.float64)
    if array.ndim not in (1, 2, 3) or not array.size:
        raise ValueError(f"{name} must be (T,), (T, I) or (T, B, I) and not empty; got shape {array.shape}.")
    if np.isinf(array).any():
        raise ValueError(f"{name} must be finite or NaN (missing); got an infinity.")
    return array.reshape(len(array), array.shape[1] if array.ndim == 3 else 1, -1)


def _filled(values: Numbers) -> Numbers:
    """NaN replaced by the last number of its column, or by 0, the mean, where there is none yet."""
    time = np.arange(len(values))[:, None, None]
    seen = np.maximum.accumulate(np.where(np.isnan(values), 0, time), axis=0)
    return np.nan_to_num(np.take_along_axis(values, seen, axis=0))
