"""Backpropagation through time: epochwise, and BPTT(h; h'), which goes back h steps every h' steps.

Williams and Peng (1990): the last h steps are kept; every h' steps the errors of the h' newest steps are injected,
each error once, and carried back through the window. h counts the steps whose weights get a gradient, the present
one included: BPTT(1; 1) has only the immediate gradient, BPTT(h; h) is the disjoint chunks of most libraries, and
an error reaches back h - h' steps always, h - 1 at most.

After an update the past can be read in two ways, equal as the learning rate goes to zero:
    replay=True    the window is run again under the weights of now, from the state stored when the stream first
                   passed its start: the exact gradient of the replayed window.
    replay=False   the activations of then are kept and delta is carried through the weights of now, as in Williams
                   and Peng and in Mikolov's code: cheaper, and off by the order of the learning rate.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import nn

from throughtime.chunk import Chunk, join
from throughtime.credit.base import Credit, Estimate, gradient
from throughtime.credit.checkpoint import Plan, Sizes, bytes_from, plan, spell_bytes
from throughtime.credit.epochwise import Stream, settle
from throughtime.credit.segments import check_forwards, cuts, segment_steps, sizes_of
from throughtime.credit.trace import Layer, Trace, carry, check, follow, read
from throughtime.inputs import check_sizes
from throughtime.nets import Loss, Network, Window, sum_errors
from throughtime.shapes import Tensor
from throughtime.state import State, detach


@dataclass(frozen=True, eq=False)
class Stored:
    """A state of the stream and the step before which it stood; written once, when the stream passed it."""

    step: int
    state: State


@dataclass(frozen=True, eq=False)
class Memory:
    """What BPTT holds between two calls.

    step     steps of the stream that are settled.
    state    the state after them.
    past     the inputs of the steps from the oldest stored state to `step`.
    stored   the states that later windows start from, oldest first.
    trace    with replay=False, the activations of the last h steps.
    pending  steps that arrived and are not settled yet.
    sizes    under a memory budget, what a segment of the last sequence took.
    """

    step: int = 0
    state: State = None
    past: Chunk | None = None
    stored: tuple[Stored, ...] = ()
    trace: Trace | None = None
    pending: tuple[Chunk, ...] = ()
    sizes: Sizes | None = None


@dataclass(frozen=True)
class BPTT(Credit):
    """BPTT() is epochwise: exact over the whole sequence, settled at `end`. BPTT(h, every) is truncated.

    h       steps that an error goes back, its own included; None: all of them.
    every   errors are settled after this many steps, 1 <= every <= h; 1 when left out.
    replay  how the past is read after an update (see the module); False is for the library's own networks.
    memory  epochwise: the bytes that settling may take beyond the chunks and the weights, "256 MB" or a number. The
            gradient stays the same, to the last bit on a Network; what does not fit is run again. See `plan`.

    Cost per step: a forward and a backward step epochwise and for every = h; else h / every of both, and one
    forward step more; under a budget the forward steps that `plan` tells, seldom more than twice as many.
    Memory: the sequence epochwise, or the budget; at most h + every steps truncated, however long the stream.
    Bias: none epochwise; truncated, what comes from further back than h is lost. Not for dependencies longer than
    h, and not epochwise for streams without an end.
    At `end` a last, shorter window is settled, still h steps back. Its start lies between two stored states: the
    steps from the nearest one before it are run again without credit, which changes nothing at fixed weights.
    """

    h: int | None = None
    every: int | None = None
    replay: bool = True
    memory: str | int | None = None
    memories = (Memory, Stored, Chunk, Trace, Layer, Sizes)

    def __post_init__(self) -> None:
        if self.memory is not None:
            if self.h is not None:
                raise ValueError(
                    f"memory must go with epochwise BPTT, without h; got h={self.h}, memory={self.memory!r}. "
                    "BPTT(h) holds h + every steps at most: leave memory out."
                )
            object.__setattr__(self, "memory", spell_bytes(bytes_from(self.memory)))
        if self.h is None:
            if self.every is not None or not self.replay:
                raise ValueError("every and replay must go with h, the steps to go back. Give h, as in BPTT(h=70).")
            return
        for name, value in (("h", self.h), ("every", self.every)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ValueError(f"{name} must be a whole number of steps, at least 1; got {value!r}.")
        if self.h < self.period:
            raise ValueError(
                f"h must be at least every; got h={self.h}, every={self.every}. "
                "Errors older than h steps would never be settled: raise h or lower every."
            )

    @property
    def period(self) -> int:
        """Steps between two settlements of a truncated algorithm."""
        return 1 if self.every is None else self.every

    def start(self, net: nn.Module, state: State = None) -> Memory:
        if not self.replay:
            check(net)
        if self.memory is not None:
            check_forwards(net)
        state = detach(state)
        return Memory(state=state, stored=(Stored(0, state),))

    def plan(self, net: nn.Module, steps: int, streams: int, x: Tensor | None = None) -> Plan:
        """What settling so many steps of so many streams keeps, runs again and takes; str(plan) says it in words.

        x is one step or more of the inputs, for a module that is not the library's. The bytes are predicted for a
        softmax loss. Raises ValueError for a budget that is too small, with the smallest; and for BPTT(h).
        """
        if self.h is not None:
            raise ValueError(f"plan must be asked of epochwise BPTT, without h; got h={self.h}.")
        check_sizes(steps=steps, streams=streams)
        segments = self._segments(net, steps, streams)
        budget = None if self.memory is None else bytes_from(self.memory)
        return plan(steps, segments, sizes_of(net, -(-steps // segments), streams, x), budget)

    def _segments(self, net: nn.Module, steps: int, streams: int) -> int:
        """How many segments a sequence is cut into; other modules run whole unless there is a budget."""
        if self.memory is None and not cuts(net):
            return 1
        check_forwards(net)
        return -(-steps // segment_steps(net, streams))

    def _settle_all(
        self, net: nn.Module, loss: Loss, chunks: tuple[Chunk, ...], memory: Memory
    ) -> tuple[Estimate, Memory]:
        """The estimate of a whole sequence, and the memory after its end."""
        stream, total = Stream(chunks), Estimate.nothing(chunks[0].x)
        state, sizes, slots = memory.state, memory.sizes, None
        if stream.steps:
            x = stream[0:1].x
            segments = self._segments(net, stream.steps, x.shape[1])
            if self.memory is not None:
                longest = -(-stream.steps // segments)
                if sizes is None or not sizes.fit(longest, x.shape[1], net.training):
                    sizes = sizes_of(net, longest, x.shape[1], x, state)
                slots = plan(stream.steps, segments, sizes, bytes_from(self.memory)).slots
            estimate, state = settle(net, loss, stream, state, segments, slots)
            total += estimate
        return total, replace(self.start(net, state), sizes=sizes)

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        total = Estimate.nothing(chunk.x)
        pending = (*memory.pending, chunk)
        if self.h is None and chunk.end:
            return self._settle_all(net, loss, pending, memory)
        ready = self.h is not None and sum(part.steps for part in pending) >= self.period
        if not (ready or chunk.end):
            return total, replace(memory, pending=pending)
        steps, memory = join(pending), replace(memory, pending=())
        while steps.steps and (steps.end or steps.steps >= self.period):
            new, steps = steps[: self.period], steps[self.period :]
            estimate, memory = self._settle(net, loss, new, memory)
            total += estimate
        if chunk.end:
            return total, self.start(net, memory.state)
        return total, replace(memory, pending=(steps,) if steps.steps else ())

    def held(self, memory: Memory) -> tuple[State, tuple[Chunk, ...]]:
        if memory.past is None or self.h == self.period:
            return memory.state, memory.pending
        return memory.stored[0].state, (memory.past, *memory.pending)

    def _settle(self, net: nn.Module, loss: Loss, new: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        """The estimate of the errors of the new steps, and the memory after them."""
        if not self.replay and not isinstance(net, Window):
            return self._settle_kept(net, loss, new, memory)
        if isinstance(net, Window):
            estimate, state = _credit(net, loss, None, new, memory.state)
            return estimate, replace(memory, state=state)
        assert self.h is not None
        first = max(0, memory.step + new.steps - self.h)
        if self.h == self.period and first == memory.step:
            estimate, state = _credit(net, loss, None, new, memory.state)
            stored = _store(memory.stored, memory.step, memory.state)
        else:
            stored, state = self._pass(net, new, memory)
            past, origin = _rewind(net, memory, first)
            estimate, _ = _credit(net, loss, past, new, origin)
        return estimate, self._advance(new, memory, stored, state)

    def _pass(self, net: nn.Module, new: Chunk, memory: Memory) -> tuple[tuple[Stored, ...], State]:
        """Carry the stream over the new steps; store the state that a window will start from."""
        assert self.h is not None
        stored, state = memory.stored, memory.state
        offset = -(self.h + memory.step) % self.period
        for start, part in ((0, new[:offset]), (offset, new[offset:])):
            if part.steps:
                if start == offset:
                    stored = _store(stored, memory.step + start, state)
                with torch.no_grad():
                    _, state = net(part.x, state, part.reset)
        return stored, state

    def _advance(self, new: Chunk, memory: Memory, stored: tuple[Stored, ...], state: State) -> Memory:
        """Forget what no later window can reach."""
        assert self.h is not None
        step = memory.step + new.steps
        oldest = max(entry.step for entry in stored if entry.step <= max(0, step + 1 - self.h))
        past = new.inputs() if memory.past is None else join((memory.past, new.inputs()))
        stored = tuple(entry for entry in stored if entry.step >= oldest)
        return Memory(step, state, past[max(0, past.steps - (step - oldest)) :], stored)

    def _settle_kept(self, net: nn.Module, loss: Loss, new: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        assert isinstance(net, Network)
        trace, state = read(net, new, memory.state)
        if memory.trace is not None:
            trace = follow(memory.trace, trace, self.h)
        estimate = carry(net, loss, trace, new)
        return estimate, Memory(memory.step + new.steps, state, trace=trace)


def _store(stored: tuple[Stored, ...], step: int, state: State) -> tuple[Stored, ...]:
    return stored if stored[-1].step == step else (*stored, Stored(step, state))


def _rewind(net: nn.Module, memory: Memory, first: int) -> tuple[Chunk | None, State]:
    """The inputs from step `first` to the settled ones, and the state before them."""
    start = max((entry for entry in memory.stored if entry.step <= first), key=lambda entry: entry.step)
    if first == memory.step:
        return None, memory.state
    assert memory.past is not None
    past = memory.past[memory.past.steps - (memory.step - start.step) :]
    early, late = past[: first - start.step], past[first - start.step :]
    state = start.state
    if early.steps:
        with torch.no_grad():
            _, state = net(early.x, state, early.reset)
    return late, state


def _credit(net: nn.Module, loss: Loss, past: Chunk | None, new: Chunk, state: State) -> tuple[Estimate, State]:
    """Run the window from a state, inject the errors of its new steps, and differentiate; also the state after."""
    with torch.enable_grad():
        if past is not None:
            _, state = net(past.x, state, past.reset)
        prediction, state = net(new.x, state, new.reset)
        error, count = sum_errors(loss, prediction, new)
        grads = gradient(net, error) if count else {}
    return Estimate(error.detach(), count, grads), detach(state)
