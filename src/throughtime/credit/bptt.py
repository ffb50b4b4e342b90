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
from throughtime.credit.trace import Layer, Trace, carry, check, follow, read
from throughtime.nets import Loss, Network, Window, sum_errors
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
    """

    step: int = 0
    state: State = None
    past: Chunk | None = None
    stored: tuple[Stored, ...] = ()
    trace: Trace | None = None
    pending: tuple[Chunk, ...] = ()


@dataclass(frozen=True)
class BPTT(Credit):
    """BPTT() is epochwise: exact over the whole sequence, settled at `end`. BPTT(h, every) is truncated.

    h       steps that an error goes back, its own included; None: all of them.
    every   errors are settled after this many steps, 1 <= every <= h; 1 when left out.
    replay  how the past is read after an update (see the module); False is for the library's own networks.

    Cost per step: a forward and a backward step epochwise and for every = h; else h / every of both, and one
    forward step more. Memory: the sequence epochwise; at most h + every steps truncated, however long the stream.
    Bias: none epochwise; truncated, what comes from further back than h is lost. Not for dependencies longer than
    h, and not epochwise for streams without an end.
    At `end` a last, shorter window is settled, still h steps back. Its start lies between two stored states: the
    steps from the nearest one before it are run again without credit, which changes nothing at fixed weights.
    """

    h: int | None = None
    every: int | None = None
    replay: bool = True
    memories = (Memory, Stored, Chunk, Trace, Layer)

    def __post_init__(self) -> None:
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
        state = detach(state)
        return Memory(state=state, stored=(Stored(0, state),))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        total = Estimate.nothing(chunk.x)
        pending = (*memory.pending, chunk)
        period = None if self.h is None else self.period
        ready = period is not None and sum(part.steps for part in pending) >= period
        if not (ready or chunk.end):
            return total, replace(memory, pending=pending)
        steps, memory = join(pending), replace(memory, pending=())
        while steps.steps and (steps.end or steps.steps >= self.period):
            new, steps = steps[:period], steps[steps.steps if period is None else period :]
            estimate, memory = self._settle(net, loss, new, memory)
            total += estimate
        if chunk.end:
            return total, self.start(net, memory.state)
        return total, replace(memory, pending=(steps,) if steps.steps else ())

    def _settle(self, net: nn.Module, loss: Loss, new: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        """The estimate of the errors of the new steps, and the memory after them."""
        if not self.replay and not isinstance(net, Window):
            return self._settle_kept(net, loss, new, memory)
        if self.h is None or isinstance(net, Window):
            estimate, state = _credit(net, loss, None, new, memory.state)
            return estimate, replace(memory, state=state)
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


def _credit(
    net: nn.Module, loss: Loss, past: Chunk | None, new: Chunk, state: State
) -> tuple[Estimate, State]:
    """Run the window from a state, inject the errors of its new steps, and differentiate; also the state after."""
    with torch.enable_grad():
        if past is not None:
            _, state = net(past.x, state, past.reset)
        prediction, state = net(new.x, state, new.reset)
        error, count = sum_errors(loss, prediction, new)
        grads = gradient(net, error) if count else {}
    return Estimate(error.detach(), count, grads), detach(state)
