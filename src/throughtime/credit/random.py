"""Truncation at random places, with the error that passes a place magnified so that its mean is exact (ARTBP).

Between step t and t+1 the error is cut with probability c_t; where it is not, it is multiplied:

    g_t = e_t                                     cut after t
    g_t = e_t + J_{t+1}^T g_{t+1} / (1 - c_t)     otherwise

An error reaches k steps back with probability prod (1 - c) and is multiplied by the inverse: the mean over the cuts is
the gradient of epochwise BPTT. Tallec and Ollivier, Unbiasing truncated backpropagation through time (2017).
With d steps since the last cut and a = (alpha - 2) mean, the law is one of
    c = 1 / mean                     lengths fall off as (1 - 1 / mean)^n
    c = (alpha - 1) / (a + d)        lengths fall off as n^(1 - alpha), so that magnification grows as a power only
and either has segments of `mean` steps in the mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from throughtime.chunk import Chunk, join
from throughtime.credit.base import Credit, Estimate, check_seed, gradient
from throughtime.nets import Loss, sum_errors
from throughtime.shapes import Tensor
from throughtime.state import State, change, detach


@dataclass(frozen=True, eq=False)
class Segment:
    """What RandomTruncation holds between two calls.

    step     steps read so far, in all epochs; says which random number is next.
    length   steps since the last cut, all of them in `pending`.
    state    the state before them.
    """

    step: int = 0
    length: int = 0
    state: State = None
    pending: tuple[Chunk, ...] = ()


@dataclass(frozen=True)
class RandomTruncation(Credit):
    """Chunks of random length, unbiased: anticipated reweighted truncated backpropagation (Tallec and Ollivier 2017).

    mean   mean length of a segment in steps, at least 1; 1 is BPTT(1).
    alpha  None: every step cuts with the same probability. Above 2: the power law, with many short segments and a
           few very long ones.
    seed   of the cuts: step n of a training is cut by its n-th random number, whatever the chunks, so that a resumed
           run goes on exactly. Nothing is drawn from torch's random numbers.

    All rows are cut at the same steps: a segment can then be settled, and forgotten, where it ends. Cuts of each
    row's own would vary less, and would keep every row until the last one is cut.
    A segment is settled at its end, and at `end`. Restarts in a row cut as ever, and change no random number.

    Cost per step: a forward and a backward step, one by one, as the error is multiplied between them; slower than
    BPTT, which runs a window in one call. Memory: a segment, `mean` steps in the mean, but of no fixed bound.
    Bias: none at fixed weights; with updates, that of weights that change from segment to segment. Spread: the price.
    With the constant law it grows without bound where the error fades more slowly than sqrt(1 - 1 / mean) a step; the
    power law bounds it wherever errors fade geometrically. Not where BPTT(h) has no bias that matters.
    """

    mean: float = 35.0
    alpha: float | None = None
    seed: int = 0
    memories = (Segment, Chunk)

    def __post_init__(self) -> None:
        if not 1 <= self.mean < float("inf"):
            raise ValueError(f"mean must be a number of steps, at least 1; got {self.mean}.")
        if self.alpha is not None and not 2 < self.alpha < float("inf"):
            raise ValueError(
                f"alpha must be above 2, or None for cuts of constant probability; got {self.alpha}. "
                "At 2 and below segments have no mean length."
            )
        check_seed("seed", self.seed)

    def start(self, net: nn.Module, state: State = None) -> Segment:
        return Segment(state=detach(state))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Segment) -> tuple[Estimate, Segment]:
        total = Estimate.nothing(chunk.x)
        first, length, state, pending = 0, memory.length, memory.state, memory.pending
        for t in range(chunk.steps):
            length += 1
            if uniform(self.seed, memory.step + t) < self.cut(length) and not (chunk.end and t + 1 == chunk.steps):
                segment = join((*pending, chunk[first : t + 1]))
                estimate, state = self._settle(net, loss, segment, state)
                total += estimate
                first, length, pending = t + 1, 0, ()
        pending = (*pending, chunk[first:]) if first < chunk.steps or chunk.end else pending
        if chunk.end:
            segment = join(pending)
            if segment.steps:
                estimate, state = self._settle(net, loss, segment, state)
                total += estimate
            length, pending = 0, ()
        return total, Segment(memory.step + chunk.steps, length, state, pending)

    def cut(self, length: int) -> float:
        """The probability of a cut after the given number of steps since the last one."""
        if self.alpha is None:
            return 1 / self.mean
        return (self.alpha - 1) / ((self.alpha - 2) * self.mean + length)

    def _settle(self, net: nn.Module, loss: Loss, segment: Chunk, state: State) -> tuple[Estimate, State]:
        """Run a segment step by step and differentiate it; also the state after."""
        outputs = []
        with torch.enable_grad():
            for t in range(segment.steps):
                step = segment[t : t + 1]
                if t:
                    state = magnify(state, 1 / (1 - self.cut(t)))
                y, state = net(step.x, state, step.reset)
                outputs.append(y)
            error, count = sum_errors(loss, torch.cat(outputs), segment)
            grads = gradient(net, error) if count else {}
        return Estimate(error.detach(), count, grads), detach(state)


def uniform(seed: int, number: int) -> float:
    """The number-th of a sequence of random numbers in [0, 1), at no cost for those before it.

    SplitMix64 (Steele, Lea and Flood 2014), begun at a place of the sequence that the seed's own hash gives.
    """
    return _mixed(_mixed(seed) + number) / 2**64


def _mixed(place: int) -> int:
    bits = (place + 1) * 0x9E3779B97F4A7C15 % 2**64
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB % 2**64
    return bits ^ bits >> 31


def magnify(state: State, factor: float) -> State:
    """The same state; the error that comes back through it is multiplied."""
    return change(lambda part: _Magnify.apply(part, factor) if part.requires_grad else part, state)


class _Magnify(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return part.view_as(part)

    @staticmethod
    def backward(ctx: Any, error: Tensor) -> tuple[Tensor, None]:
        return error * ctx.factor, None
