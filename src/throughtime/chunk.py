"""A chunk is a slice of time of B streams; everything that enters the library becomes chunks in time order."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch

from throughtime.shapes import Tensor


@dataclass(frozen=True, eq=False)
class Chunk:
    """T steps of B streams, with the errors that count and the places where a sequence starts anew.

    x      (T, B) ids or (T, B, I) numbers.
    y      (T, B) ids or (T, B, A) numbers; what is wanted at each step.
    mask   (T, B) or (T, B, A), weights >= 0: which errors count. None: all, with weight 1 a step.
    reset  (T, B) bool: True where a new sequence starts in a row, before its step. None: nowhere.
    end    True when nothing follows.
    """

    x: Tensor
    y: Tensor | None = None
    mask: Tensor | None = None
    reset: Tensor | None = None
    end: bool = False

    def __post_init__(self) -> None:
        if self.x.dim() < 2:
            raise ValueError(
                f"x must have time and streams as its first axes, (T, B) or (T, B, I); got {tuple(self.x.shape)}."
            )
        for name in ("y", "mask", "reset"):
            value = getattr(self, name)
            if value is not None and value.shape[:2] != self.x.shape[:2]:
                raise ValueError(
                    f"{name} must begin with the (T, B) of x, {tuple(self.x.shape[:2])}; got {tuple(value.shape)}."
                )
        if self.reset is not None and (self.reset.dtype != torch.bool or self.reset.dim() != 2):
            raise ValueError(f"reset must be bool (T, B); got {self.reset.dtype} {tuple(self.reset.shape)}.")

    @property
    def steps(self) -> int:
        return self.x.shape[0]

    @property
    def streams(self) -> int:
        return self.x.shape[1]

    def __getitem__(self, time: slice) -> Chunk:
        """The steps of a slice of time; it keeps `end` only if it holds the last step."""
        if not isinstance(time, slice):
            raise TypeError(f"time must be a slice, such as chunk[{time!r} : {time!r} + 1]; got {time!r}.")
        start, stop, stride = time.indices(self.steps)
        if stride != 1:
            raise ValueError(f"time must be a slice of stride 1; got {stride}.")
        return self._each(lambda part: part[start:stop], end=self.end and stop == self.steps)

    def to(self, device: torch.device | str) -> Chunk:
        return self._each(lambda part: part.to(device), end=self.end)

    def _each(self, change: Callable[[Tensor], Tensor], end: bool) -> Chunk:
        x, y, mask, reset = (None if p is None else change(p) for p in (self.x, self.y, self.mask, self.reset))
        assert x is not None
        return Chunk(x, y, mask, reset, end)

    def inputs(self) -> Chunk:
        """The chunk without its targets: all that a later replay needs of the past."""
        return replace(self, y=None, mask=None)


@runtime_checkable
class Source(Protocol):
    """Chunks in time order; `[i]` costs O(1), so that a stopped run resumes anywhere."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Chunk: ...


def join(chunks: Sequence[Chunk]) -> Chunk:
    """Chunks that follow each other in time, as one.

    Where only some have a mask or a reset, the others get ones or False. Raises ValueError when a chunk
    follows one that has `end`, or when only some have targets.
    """
    if len(chunks) == 1:
        return chunks[0]
    if any(chunk.end for chunk in chunks[:-1]):
        raise ValueError("chunks must not follow one with end=True. Start a new stream instead.")
    has_y = {chunk.y is not None for chunk in chunks}
    if len(has_y) > 1:
        raise ValueError("chunks must all have y, or none of them; got a mixture.")
    mask = reset = None
    axes = {None if chunk.mask is None else chunk.mask.dim() for chunk in chunks}
    if len(axes - {None}) > 1 or (None in axes and axes - {None, 2}):
        raise ValueError("mask must have the same axes in chunks that are settled together; give every one a mask.")
    if axes != {None}:
        mask = torch.cat(_masks(chunks))
    if any(chunk.reset is not None for chunk in chunks):
        nowhere = [torch.zeros(c.x.shape[:2], dtype=torch.bool, device=c.x.device) for c in chunks]
        reset = torch.cat([n if c.reset is None else c.reset for c, n in zip(chunks, nowhere, strict=True)])
    y = torch.cat([c.y for c in chunks if c.y is not None]) if has_y == {True} else None
    return Chunk(torch.cat([c.x for c in chunks]), y, mask, reset, chunks[-1].end)


def _masks(chunks: Sequence[Chunk]) -> list[Tensor]:
    pattern = next(chunk.mask for chunk in chunks if chunk.mask is not None)
    return [
        torch.ones(c.x.shape[:2] + pattern.shape[2:], dtype=pattern.dtype, device=c.x.device)
        if c.mask is None
        else c.mask
        for c in chunks
    ]
