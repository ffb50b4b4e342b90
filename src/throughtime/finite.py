"""Where NaN and infinity came from: the first value that is not finite, and the lag up to which an error still was.

What an update is made of is looked through in the order in which it depends on each other: weights, data, what the
credit carries, the forward pass step by step from the state that was carried in, errors, and the way back of one error.
Steps and streams count from 0, as Chunk's axes; layers from 1; lag k is k steps before the error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear

from throughtime.cells import GRU, LSTM, Cell
from throughtime.chunk import Chunk
from throughtime.credit import Credit, Estimate
from throughtime.credit.segments import check_forwards
from throughtime.nets import Loss, Network, sum_errors
from throughtime.recurrent import FullyRecurrent
from throughtime.shapes import Tensor
from throughtime.stack import direction_of
from throughtime.state import State, change, flatten, random_state, restart, set_random_state

GATES: dict[type[Cell], tuple[str, ...]] = {LSTM: ("i", "f", "g", "o"), GRU: ("r", "z", "n")}
"""The gates of a cell in their order, which are also the first that its `forward` keeps."""
PIECE = 256
"""Steps that are run at once while all is finite."""
FAR = 1024
"""Steps, the last ones before the update, that are searched for the error whose way back is not finite."""

LOWER = "Lower the learning rate, or set clip."
MEND = "Mend the data."
SHORTEN = "Let errors go back fewer steps, or start from smaller recurrent weights."


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became NaN or infinite."""


def check_weights(net: nn.Module, update: int) -> None:
    """Raise NonFiniteError when a weight is not finite after an update."""
    for name, weight in net.named_parameters():
        if not _finite(weight):
            raise NonFiniteError(f"the weight {name} is not finite after update {update}. Lower the learning rate.")


def first_bad(net: nn.Module, loss: Loss, chunk: Chunk, credit: Credit, memory: Any, estimate: Estimate) -> str:
    """In words: of an estimate that is not finite, the first value that is not, and what to do.

    memory  what credit held before it read the chunk. Random numbers are left as they are.
    Cost: the steps since the state that memory holds, run once more, and a few passes back through up to FAR of them.
    """
    state, read = credit.held(memory)
    stretch = _Stretch(net, loss, state, (*read, chunk))
    random = random_state(chunk.x.device)
    try:
        return (
            _bad_weight(net)
            or _bad_data(stretch)
            or _bad_memory(net, state, memory)
            or _bad_in_time(stretch)
            or _bad_estimate(estimate)
        )
    finally:
        set_random_state(random, chunk.x.device)


@dataclass(frozen=True, eq=False)
class _Stretch:
    """The steps that an estimate was made of, from the state before them; the last chunk is the one just read."""

    net: nn.Module
    loss: Loss
    state: State
    chunks: tuple[Chunk, ...]

    @property
    def steps(self) -> int:
        return sum(chunk.steps for chunk in self.chunks)

    def step(self, t: int) -> str:
        """Where step t of the stretch is."""
        place = t - self.steps + self.chunks[-1].steps
        return f"at step {place} of the chunk" if place >= 0 else f"{-place} steps before the chunk"

    def pieces(self) -> Iterator[tuple[int, Chunk]]:
        """All steps in pieces of up to PIECE, each with the step of the stretch that it begins at."""
        first = 0
        for chunk in self.chunks:
            for start in range(0, chunk.steps, PIECE):
                yield first + start, chunk[start : start + PIECE]
            first += chunk.steps

    def run(self, piece: Chunk, state: State) -> tuple[State, Tensor | None]:
        """The state after a piece, and the sum of its errors where it has targets."""
        prediction, state = self.net(piece.x, state, piece.reset)
        return state, None if piece.y is None else sum_errors(self.loss, prediction, piece)[0]


# Weights, data, memory


def _bad_weight(net: nn.Module) -> str:
    name, weight = next(((name, part) for name, part in net.named_parameters() if not _finite(part)), ("", None))
    if weight is None:
        return ""
    gate = ""
    if isinstance(net, Network) and name.startswith("layers.") and type(net.layers.cell) in GATES:
        row = int((~weight.isfinite()).reshape(len(weight), -1).any(1).nonzero()[0])
        gate = (
            f", gate {GATES[type(net.layers.cell)][row // net.layers.units]} of layer {int(name.split('_l')[-1]) + 1}"
        )
    return f"the weight {name}{gate}. {LOWER}"


def _bad_data(stretch: _Stretch) -> str:
    for first, piece in stretch.pieces():
        for name, counted in (("x", _read_inputs(stretch.net, piece)), ("y", _read_targets(piece))):
            bad = (~counted.isfinite()).flatten(2).any(-1) if counted is not None else None
            if bad is not None and bad.any():
                t, b = bad.nonzero()[0].tolist()
                return f"{name} {stretch.step(first + t)}, stream {b}. {MEND}"
    return ""


def _read_inputs(net: nn.Module, piece: Chunk) -> Tensor:
    """x with its feature axis; NaN in a column of a teacher's means that it leaves the unit free."""
    x = piece.x if piece.x.dim() > 2 else piece.x[..., None]
    if isinstance(net, FullyRecurrent) and net.forced:
        taught = x[..., net.inputs :]
        return torch.cat((x[..., : net.inputs], taught.masked_fill(taught.isnan(), 0)), -1)
    return x


def _read_targets(piece: Chunk) -> Tensor | None:
    """y with a last axis, and zeros under a mask of 0, where it is never read."""
    if piece.y is None or piece.mask is None:
        return None if piece.y is None else piece.y[..., None]
    mask = piece.mask.reshape(*piece.mask.shape, *(1,) * (piece.y.dim() - piece.mask.dim()))
    return piece.y.masked_fill(mask == 0, 0)[..., None]


def _bad_memory(net: nn.Module, state: State, memory: Any) -> str:
    """What came from earlier chunks; of those that stand in the memory themselves, the data was looked through."""
    for name, part in _parts(net, state).items():
        if not _finite(part):
            return f"{name} in the carried state{_stream(part)}. {LOWER}"
    for name, part in flatten(memory, "memory")[1].items():
        if not name.endswith((".x", ".y")) and not _finite(part):
            return f"{name}, which the credit carries. {LOWER}"
    return ""


def _parts(net: nn.Module, state: State) -> dict[str, Tensor]:
    """The tensors of a state (..., B, H), by the names that the measurements of the error flow have for them."""
    tensors = {"state" + "".join(f"[{key}]" for key in name.split(".")[1:]): part for name, part in _flat(state)}
    if not isinstance(net, Network):
        return tensors
    slots = [(_slot(place), part) for place, part in enumerate(tensors.values())]
    return {f"{name} of layer {depth + 1}": part[depth] for depth in range(net.layers.depth) for name, part in slots}


def _flat(state: State) -> list[tuple[str, Tensor]]:
    """The tensors of a state that can be infinite, in order."""
    return [(name, part) for name, part in flatten(state)[1].items() if part.is_floating_point()]


def _slot(place: int) -> str:
    return "hc"[place] if place < 2 else f"slot {place + 1}"


# Forward


def _bad_in_time(stretch: _Stretch) -> str:
    """Which step, which error; empty for what does not run in single steps, of which only sums are known."""
    try:
        check_forwards(stretch.net)
        return _bad_step(stretch) or _bad_way_back(stretch)
    except (TypeError, ValueError, RuntimeError):  # the update itself ran: this net, or this loss, needs whole chunks
        return ""


@torch.no_grad()
def _bad_step(stretch: _Stretch) -> str:
    """The first step after which the state or an error that counts is not finite, and what in it is the first."""
    state = stretch.state
    for first, piece in stretch.pieces():
        after, error = stretch.run(piece, state)
        if _finite_state(after) and (error is None or _finite(error)):
            state = after
            continue
        for t in range(piece.steps):
            step = piece[t : t + 1]
            after, error = stretch.run(step, state)
            if not _finite_state(after) or not (error is None or _finite(error)):
                what, stream = _inside(stretch.net, step, state, after)
                return f"{what} {stretch.step(first + t)}{stream}. {LOWER}"
            state = after
    return ""


def _inside(net: nn.Module, step: Chunk, state: State, after: State) -> tuple[str, str]:
    """What in one step is the first that is not finite, and in which stream where that is known."""
    if isinstance(net, Network) and (found := _inside_network(net, step, state)):
        return found
    if not isinstance(net, Network) and (name := _inside_module(net, step, state)):
        return name, ""
    for name, part in _parts(net, after).items():
        if not _finite(part):
            return name, _stream(part)
    return "the loss", ""


def _inside_network(net: Network, step: Chunk, state: State) -> tuple[str, str] | None:
    """The step by the reference, which knows all gates, in the order of its operations."""
    layers, cell = net.layers, net.layers.cell
    x = net.encode(step.x)
    state = layers.start(x) if state is None else state
    if step.reset is not None:
        state = restart(state, step.reset[0])
    h = x[0]
    for depth in range(layers.depth):
        W_x, W_h, b_x, b_h = direction_of(layers, f"l{depth}").weights
        before = tuple(slot[depth] for slot in state)
        u = linear(h, W_x, b_x).unflatten(-1, (cell.gates, layers.units))  # B G H
        s, kept = cell.forward(u, linear(before[0], W_h, b_h).view_as(u), before)
        gates = [(f"gate {name}", value) for name, value in zip(GATES.get(type(cell), ()), kept, strict=False)]
        slots = [(_slot(place), value) for place, value in enumerate(s)]
        for name, value in [*gates, *reversed(slots)]:  # h is made of c
            if not _finite(value):
                return f"{name} of layer {depth + 1}", _stream(value)
        h = s[0]
    y = net.readout(h)
    return None if _finite(y) else ("the output of readout", _stream(y))


def _inside_module(net: nn.Module, step: Chunk, state: State) -> str:
    """The first module whose output is not finite, in the order in which they run."""
    bad: list[str] = []

    def look(name: str, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and not _finite(first):
            bad.append(f"the output of {name or 'the network'}")

    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: look(name, output))
        for name, module in net.named_modules()
    ]
    try:
        net(step.x, state, step.reset)
    finally:
        for hook in hooks:
            hook.remove()
    return bad[0] if bad else ""


def _stream(part: Tensor) -> str:
    """The first stream of (..., B, H) that is not finite."""
    if part.dim() < 2:
        return ""
    return f", stream {int((~part.isfinite()).any(-1).reshape(-1, part.shape[-2]).any(0).nonzero()[0])}"


# Backward


def _bad_way_back(stretch: _Stretch) -> str:
    """The first error whose gradient by some state before it is not finite, and the last lag at which it is."""
    way = _Way(stretch)
    errors = [t for t, error in enumerate(way.errors) if error is not None and error.requires_grad]
    if not errors or way.finite(errors):
        return ""
    while len(errors) > 1:  # a sum of gradients is finite where each of them is, but for an overflow of the sum alone
        half = errors[: len(errors) // 2]
        errors = errors[len(half) :] if way.finite(half) else half
    for lag, name, grad in way.back(errors[0]):
        if not _finite(grad):
            upto = f"finite up to lag {lag - 1}, not at lag {lag}" if lag else "not finite at lag 0"
            at = stretch.step(way.first + errors[0])
            return f"the gradient of the error {at}: {upto}, by {name}. {SHORTEN if lag else LOWER}"
    return f"the sum of gradients that are finite each. {SHORTEN}"


class _Way:
    """The graph of the last FAR steps of a stretch, step by step.

    first   the step of the stretch that it begins at.
    errors  of each step their sum, None where it has no targets.
    near    of each step, by name, what its error goes through at lag 0: the prediction, what the readout reads.
    states  of each step the state after it, as it enters the next.
    """

    def __init__(self, stretch: _Stretch) -> None:
        self.net = stretch.net
        self.first = max(0, stretch.steps - FAR)
        self.errors: list[Tensor | None] = []
        self.near: list[dict[str, Tensor]] = []
        self.states: list[State] = []
        state = stretch.state
        # cuDNN's recurrent functions have no backward in evaluation mode; torch's own have.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _read_by_readout(self.net) as read:
            for start, piece in stretch.pieces():
                early = min(piece.steps, max(0, self.first - start))
                if early:
                    with torch.no_grad():
                        state = stretch.run(piece[:early], state)[0]
                for t in range(early, piece.steps):
                    step = piece[t : t + 1]
                    prediction, state = self.net(step.x, state, step.reset)
                    state = change(_watched, state)
                    self.errors.append(None if step.y is None else sum_errors(stretch.loss, prediction, step)[0])
                    self.near.append({"the prediction": prediction, **read})
                    self.states.append(state)

    def finite(self, errors: Sequence[int]) -> bool:
        """Whether the gradient of the sum of these errors is finite, by all that it goes through."""
        parts = [part for near in self.near for part in near.values()]
        parts += [part for state in self.states for _, part in _flat(state)]
        return all(_finite(grad) for grad in self._pull(errors, parts))

    def back(self, t: int) -> Iterator[tuple[int, str, Tensor]]:
        """The gradient of the error of step t by what it goes through on its way back: the lag, the name, the gradient.

        The state after step t itself is what the readout reads, or the prediction is all that is seen of it.
        """
        near = self.near[t]
        before = list(reversed(self.states[:t]))
        tensors = [part for state in before for _, part in _flat(state)]
        grads = self._pull([t], [*near.values(), *tensors])
        yield from ((0, name, grad) for name, grad in zip(near, grads, strict=False))
        rest = iter(grads[len(near) :])
        for lag, state in enumerate(before, 1):
            filled = change(lambda part: next(rest) if part.is_floating_point() else part, state)
            yield from ((lag, name, grad) for name, grad in _parts(self.net, filled).items())

    def _pull(self, errors: Sequence[int], parts: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of the sum of these errors by parts of the graph; zeros where nothing arrives."""
        total = torch.stack([error for t in errors if (error := self.errors[t]) is not None]).sum()
        grads = torch.autograd.grad(total, parts, retain_graph=True, allow_unused=True, materialize_grads=True)
        return list(grads)


@contextmanager
def _read_by_readout(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """What the net's `readout` has read last, by name; stays empty where there is none."""
    seen: dict[str, Tensor] = {}
    readout = getattr(net, "readout", None)
    if not isinstance(readout, nn.Module):
        yield seen
        return
    name = f"h of layer {net.layers.depth}" if isinstance(net, Network) else "what the readout reads"
    hook = readout.register_forward_pre_hook(lambda _, read: seen.update({name: _watched(read[0])}))
    try:
        yield seen
    finally:
        hook.remove()


def _watched(part: Tensor) -> Tensor:
    """The tensor, as a part of the graph from here on if a gradient can reach it."""
    return part.requires_grad_() if part.is_floating_point() and not part.requires_grad else part


def _bad_estimate(estimate: Estimate) -> str:
    """What is left: the sums that the credit made of finite parts."""
    if not _finite(estimate.loss):
        return f"the loss. {LOWER}"
    for name, grad in estimate.grads.items():
        if not _finite(grad):
            return f"the gradient of {name}. {LOWER}"
    return f"the norm of the gradient, of which every part is finite. {LOWER}"


def _finite(part: Tensor) -> bool:
    return bool(part.isfinite().all())


def _finite_state(state: State) -> bool:
    return all(_finite(part) for _, part in _flat(state))
