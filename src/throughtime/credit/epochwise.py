"""Epochwise BPTT in segments of time: the whole gradient, with as many start states kept as the memory allows.

    forward    (L_k, s_{k+1}) = segment k from s_k                 for k = 0 .. n-1
    backward   dW += dL_k/dW + (ds_{k+1}/dW)^T ds_{k+1};  ds_k = (dL_k + ds_{k+1} ...)/ds_k      for k = n-1 .. 0

Every segment runs network, readout and loss; outputs are never kept, and dW is summed segment by segment. Where the
graphs of all segments do not fit, the start states of some are kept, and a segment runs again from the nearest one
before it, with the random numbers of the first time (Griewank and Walther 2000; the order is `checkpoint.schedule`).
The same operations on the same numbers: on the library's networks the gradient is the same to the last bit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import nn

from throughtime.chunk import Chunk, join
from throughtime.credit.base import Estimate, learning
from throughtime.credit.checkpoint import bounds, schedule
from throughtime.credit.segments import as_leaves, cuts, release, runs_native, tensors_of
from throughtime.nets import Loss, Network, sum_errors
from throughtime.shapes import Tensor
from throughtime.state import Random, State, change, detach, random_state, set_random_state


class Stream:
    """Chunks that follow each other in time, read in any order without a copy of the whole.

    Raises ValueError as `join` does where they do not fit together.
    """

    def __init__(self, chunks: Sequence[Chunk]) -> None:
        join([chunk[:0] for chunk in chunks])
        self.chunks = [chunk for chunk in chunks if chunk.steps]
        self.starts = [0, *accumulate(chunk.steps for chunk in self.chunks)]

    @property
    def steps(self) -> int:
        return self.starts[-1]

    def __getitem__(self, time: slice) -> Chunk:
        first, last = bisect_right(self.starts, time.start) - 1, bisect_right(self.starts, time.stop - 1) - 1
        return join(
            [
                self.chunks[k][max(0, time.start - self.starts[k]) : time.stop - self.starts[k]]
                for k in range(first, last + 1)
            ]
        )


@dataclass(frozen=True, eq=False)
class _Pass:
    """One segment with its graph: the state it started from, the sum of its errors, their count, its last state."""

    starts: list[Tensor]
    error: Tensor
    count: float
    end: State


@dataclass(frozen=True, eq=False)
class _Start:
    """What a segment starts from, to run again as it ran: its state and the random numbers."""

    state: State
    random: Random


def settle(
    net: nn.Module, loss: Loss, stream: Stream, state: State, segments: int, slots: int | None
) -> tuple[Estimate, State]:
    """The gradient of all errors of a stream of at least one step, and the state after it.

    slots: the start states that may be kept at a time; None: the graphs of all segments are kept.
    """
    run = _Run(net, loss, stream, segments)
    state = run.stored(state) if slots is None else run.again(state, slots)
    return Estimate(torch.as_tensor(run.error), run.count, run.grads), state


class _Run:
    """Going through a stream and back: what has gone back so far is in error, count, grads and dstate."""

    def __init__(self, net: nn.Module, loss: Loss, stream: Stream, segments: int) -> None:
        self.net, self.loss, self.stream = net, loss, stream
        self.bounds = bounds(stream.steps, segments)
        self.native = runs_native(net)
        self.device = stream.chunks[0].x.device
        self.error: Tensor | float = 0.0
        self.count = 0.0
        self.grads: dict[str, Tensor] = {}
        self.dstate: list[Tensor | None] = []

    def stored(self, state: State) -> State:
        """All graphs are kept."""
        passes: list[_Pass] = []
        for segment in range(len(self.bounds)):
            passes.append(self.forward(segment, state))
            state = _copy(passes[-1].end)
        self.dstate = [None] * len(tensors_of(state))
        while passes:
            self.backward(passes.pop())
        return state

    def again(self, state: State, slots: int) -> State:
        """At most so many start states are kept, and one graph."""
        kept = {0: _Start(detach(state), random_state(self.device))}
        after: _Start | None = None
        for what, segment in schedule(len(self.bounds), slots):
            release(self.device)
            if what == "restore":
                state = kept[segment].state
                set_random_state(kept[segment].random, self.device)
            elif what == "store":
                kept[segment] = self._start(state, kept[max(kept)])
            elif what == "forward":
                state = self.advance(segment, state)
            else:
                done = self.forward(segment, state)
                release(self.device)
                if after is None:
                    after = self._start(_copy(done.end), kept[0])
                    self.dstate = [None] * len(tensors_of(done.end))
                self.backward(done)
                kept.pop(segment, None)
                del done
        assert after is not None
        set_random_state(after.random, self.device)
        return after.state

    def _start(self, state: State, before: _Start) -> _Start:
        """What a segment starts from now; random numbers that nobody drew are held once."""
        now = random_state(self.device)
        same = all(a is b or torch.equal(a, b) for a, b in zip(now, before.random, strict=True))  # type: ignore
        return _Start(state, before.random if same else now)

    def advance(self, segment: int, state: State) -> State:
        """The state after a segment, without its graph.

        The native kernels give the same bits with and without one; torch's LSTM does not, so others make one.
        """
        part = self._part(segment)
        with torch.set_grad_enabled(not self.native):
            if isinstance(self.net, Network) and cuts(self.net):
                return _copy(self.net.advance(part.x, state, part.reset))
            return _copy(self.net(part.x, state, part.reset)[1])

    @torch.enable_grad()
    def forward(self, segment: int, state: State) -> _Pass:
        """A segment with its graph; the first one starts from a value, which gets no credit."""
        part = self._part(segment)
        state = as_leaves(state) if segment else detach(state)
        prediction, end = self.net(part.x, state, part.reset)
        error, count = sum_errors(self.loss, prediction, part)
        return _Pass(tensors_of(state), error, count, end)

    def backward(self, done: _Pass) -> None:
        """Go back through one segment: its errors and what came back to its last state."""
        back = [(end, error) for end, error in zip(tensors_of(done.end), self.dstate, strict=True) if error is not None]
        if done.count:
            back.append((done.error, torch.ones_like(done.error)))
        grads, self.dstate = self._differentiate(done.starts, back) if back else ({}, [None] * len(done.starts))
        self.error = done.error.detach() + self.error
        self.count += done.count
        for name, grad in grads.items():  # in place: nothing new that lasts is made between one segment and the next
            self.grads[name] = self.grads[name].add_(grad) if name in self.grads else grad.clone()

    def _differentiate(
        self, starts: list[Tensor], back: list[tuple[Tensor, Tensor]]
    ) -> tuple[dict[str, Tensor], list[Tensor | None]]:
        """The gradient by name of parameter, and that of each start."""
        weights = learning(self.net)
        back = [(output, error) for output, error in back if output.requires_grad]
        if not back:
            raise ValueError("net must have parameters that its errors depend on; got an error without a gradient.")
        leaves = [part for part in starts if part.requires_grad]
        outputs, errors = zip(*back, strict=True)
        found = torch.autograd.grad(outputs, [*weights.values(), *leaves], errors, allow_unused=True)
        grads = {name: grad for name, grad in zip(weights, found, strict=False) if grad is not None}
        dstarts = iter(found[len(weights) :])
        return grads, [next(dstarts) if part.requires_grad else None for part in starts]

    def _part(self, segment: int) -> Chunk:
        start, stop = self.bounds[segment]
        return self.stream[start:stop]


def _copy(state: State) -> State:
    """The state in memory of its own: it holds on to nothing else, and a product reads it the same way every time
    (its rounding may depend on where numbers lie)."""
    return change(lambda part: part.detach().clone(), state)
