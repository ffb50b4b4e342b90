"""A copy of a module whose recurrence carries nothing but counts: each error marks every use of the weights it reaches.

The outputs of every recurrent layer are one constant vector, so that equal errors arrive with equal weight at every
step; going back, a step hands the error that it gets to the step before as it is, and writes it into the entry of
the weights' `.grad` that stands for its place in the stream. What the user's loop detaches, adds, drops or zeroes
then shows in the numbers that the optimizer is given: 1 for a use that an error reaches once.
States carry the place that they come from in their values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime.layers import Recurrent
from throughtime.shapes import Tensor
from throughtime.verify.places import Places

LAYERS = (nn.RNN, nn.LSTM, nn.GRU, Recurrent)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
TINY = 2.0**-40
"""The scale of every gradient, so that none is ever large enough to be clipped; exact in any float."""
NOTCH = 2.0**-16
"""How much a state's values grow with the place that they name."""
FRESH, UNKNOWN = -1, -2
"""Places of states that come from no step: zeros, and anything else."""


@dataclass(frozen=True)
class Carrier:
    """What carries an error back in time: one slot (0: h, 1: c) of one layer of one recurrent module."""

    module: str
    layer: int
    slot: int


@dataclass
class Use:
    """One use of the weights: the places in the stream of its rows, those that their states came from, and those
    that an error reached."""

    places: list[int]
    before: list[int]
    reached: set[int] = field(default_factory=set)


@dataclass
class Tape:
    """What one run of the loop shows, with one carrier open.

    places    finds stream places in what modules are called with; None: `calls`, of an earlier run, tells them.
    first     the place whose uses the first entry of the weights' gradient counts.
    calls     the places (n, rows) of every call of a recurrent module; UNKNOWN for other data under no_grad.
    events    backward, step, clip, in their order.
    updates   what the optimizer was given at each of its steps, by place.
    spread    what backward wrote, whether or not an optimizer took it, by place.
    slots     layers and slots of every recurrent module, by name.
    """

    carrier: Carrier
    total: int
    first: int = 0
    places: Places | None = None
    calls: list[Tensor] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    updates: list[Tensor] = field(default_factory=list)
    spread: Tensor = field(init=False)
    slots: dict[str, tuple[int, int]] = field(default_factory=dict)
    given: bool = False
    called: int = 0
    grid: Tensor | None = None
    cursor: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spread = torch.zeros(self.total, dtype=torch.float64)

    def see(self, inputs: Iterable[Any]) -> None:
        """Look for steps of the stream in what a module is called with; the first tensor that has them counts."""
        if self.places is None:
            return
        for value in inputs:
            if isinstance(value, PackedSequence):
                grid = self.places.find_rows(*pad_packed_sequence(value))
            else:
                grid = self.places.find(value) if isinstance(value, Tensor) else None
            if grid is not None:
                self.grid, self.cursor = grid, {}
                return

    def locate(self, name: str, steps: int, rows: int) -> Tensor:
        """The places (steps, rows) of the call that a recurrent module gets now."""
        self.called += 1
        if self.places is None:
            if self.called > len(self.calls) or self.calls[self.called - 1].shape != (steps, rows):
                raise ValueError("loop must make the same calls each time. Take out what is drawn or remembered.")
            return self.calls[self.called - 1]
        start = self.cursor.get(name, 0)
        self.cursor[name] = start + steps
        part = None if self.grid is None else self.grid[start : start + steps]
        if part is not None and rows == 1 != part.shape[1]:
            part = part[:, :1]
        if part is None or part.shape != (steps, rows):
            if not torch.is_grad_enabled():
                self.calls.append(torch.full((steps, rows), UNKNOWN))
                return self.calls[-1]
            raise ValueError(
                f"module must be called with steps of x as they stand there; {name} got {steps} x {rows} others. "
                "Give x in the form in which the module reads it."
            )
        self.places.read(part)
        self.calls.append(part)
        return part

    def log(self, event: str) -> None:
        if not (event == "backward" and self.events and self.events[-1] == "backward"):
            self.events.append(event)


def instrument(module: nn.Module, cells: tuple[Any, ...], tape: Tape) -> nn.Module:
    """A deep copy whose recurrent modules write to a tape."""
    copy = deepcopy(module)
    for name, found in recurrent(copy, cells):
        part: Any = found
        if isinstance(part, cells):
            _replace_forward(part, _custom_forward(name, part, part.forward, tape))
        elif isinstance(part, CELLS):
            _replace_forward(part, _cell_forward(name, part, tape))
        else:
            _check_layer(name, part)
            _replace_forward(part, _layer_forward(name, part, tape))
        for weight in part.parameters():
            weight.counted = True
    for part in copy.modules():
        part.register_forward_pre_hook(_watch(tape), with_kwargs=True)
        if isinstance(part, nn.modules.dropout._DropoutNd):
            part.p = 0.0
    for weight in copy.parameters():
        if weight.requires_grad and not hasattr(weight, "counted"):
            weight.register_hook(lambda grad: grad * TINY)
    return copy


def recurrent(module: nn.Module, cells: tuple[Any, ...]) -> list[tuple[str, nn.Module]]:
    """The recurrent modules by name, none of them inside another."""
    found: list[tuple[str, nn.Module]] = []
    for name, part in module.named_modules():
        inside = any(name.startswith(f"{outer}." if outer else "") for outer, _ in found)
        kinds: tuple[Any, ...] = (*LAYERS, *CELLS, *cells)
        if not inside and isinstance(part, kinds):
            found.append((name, part))
    return found


def counter(part: nn.Module) -> nn.Parameter | None:
    """The weights whose gradient counts the uses: the largest that learn."""
    weights = [weight for weight in part.parameters() if weight.requires_grad]
    return max(weights, key=Tensor.numel, default=None)


def _replace_forward(part: Any, forward: Callable[..., Any]) -> None:
    part.forward = forward


def _check_layer(name: str, part: Any) -> None:
    if part.bidirectional:
        raise ValueError(f"{name} must go forward in time; got a bidirectional layer, which has no online order.")
    if getattr(part, "proj_size", 0):
        raise ValueError(f"{name} must have no proj_size; got {part.proj_size}. Leave it out of the copy to audit.")


def _watch(tape: Tape) -> Callable[..., None]:
    return lambda module, args, kwargs: tape.see((*args, *kwargs.values()))


def pattern(width: int, like: Tensor) -> Tensor:
    """The fixed vector of a width: of outputs, and of what an error is weighed with. Its first entry is 1."""
    return _pattern(width).to(like)


@cache
def _pattern(width: int) -> Tensor:
    return 1 + 0.5 * torch.sin(2.4 * torch.arange(width, dtype=torch.float64))


def _name_places(places: Sequence[int], width: int, like: Tensor) -> Tensor:
    """State values (rows, width) that name the places that they come from."""
    grown = 1 + NOTCH * (torch.tensor(places, dtype=torch.float64) + 1)
    return (grown[:, None].to(like.device) * pattern(width, like).double()).to(like)


def _places_named(state: Tensor) -> list[int]:
    """The places that state values (rows, width) name."""
    return [_place_named(value) for value in state.detach()[:, 0].double().tolist()]


def _place_named(value: float) -> int:
    if value == 0:
        return FRESH
    place = (value - 1) / NOTCH - 1
    return round(place) if place > -0.5 and abs(place - round(place)) < 0.1 else UNKNOWN


class _Step(torch.autograd.Function):
    """One step of the open carrier: (outputs, state after); without a carrier, outputs that hand errors to x."""

    @staticmethod
    def forward(ctx: Any, note: _Note, x: Tensor, carrier: Tensor | None, *weights: Tensor) -> Any:
        ctx.note, ctx.open, ctx.x = note, carrier is not None, x.shape
        ctx.save_for_backward(*weights)
        out = pattern(note.width, note.like).expand(len(note.use.places), -1).clone()
        if carrier is None:
            return out
        return out, _name_places(note.use.places, carrier.shape[-1], note.like)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        note, weights = ctx.note, ctx.saved_tensors
        error = torch.stack([grad.double() @ pattern(grad.shape[-1], grad).double() for grad in grads]).sum(0)
        back = lambda width: error[:, None] * _unit(width, grads[0])  # noqa: E731
        if not ctx.open:
            return None, back(ctx.x[-1]).reshape(ctx.x).to(note.like), None, *map(torch.zeros_like, weights)
        note.use.reached |= {place for place, part in zip(note.use.places, error.tolist(), strict=True) if part}
        note.tape.log("backward")
        places = torch.tensor(note.use.places)
        note.tape.spread.index_add_(0, places, error.cpu())
        written = [
            _written(weight, places - note.tape.first, error) if index == note.counter else torch.zeros_like(weight)
            for index, weight in enumerate(weights)
        ]
        return None, note.like.new_zeros(ctx.x), back(grads[1].shape[-1]).to(note.like), *written


def _unit(width: int, like: Tensor) -> Tensor:
    """What the pattern weighs as 1."""
    vector = pattern(width, like).double()
    return vector / vector.square().sum()


def _written(weight: Tensor, entries: Tensor, error: Tensor) -> Tensor:
    grad = torch.zeros(weight.numel(), dtype=torch.float64)
    kept = (entries >= 0) & (entries < len(grad))
    grad.index_add_(0, entries[kept], error.cpu()[kept])
    return (grad * TINY).to(weight).reshape(weight.shape)


@dataclass
class _Note:
    """What a step has to know: its tape, its use, the width of its outputs, which weights count, and a dtype."""

    tape: Tape
    use: Use
    width: int
    counter: int
    like: Tensor


def _step(
    part: nn.Module, tape: Tape, places: Tensor, x: Tensor, carrier: Tensor | None, width: int
) -> tuple[Tensor, Tensor | None]:
    weights = [weight for weight in part.parameters() if weight.requires_grad]
    like = next(part.parameters()).detach()
    counted = counter(part)
    index = next((i for i, weight in enumerate(weights) if weight is counted), -1)
    use = Use(places.tolist(), [] if carrier is None else _places_named(carrier))
    if carrier is not None:
        tape.uses.append(use)
    x = x if x.is_floating_point() else like.new_zeros(len(use.places), 1)
    result = _Step.apply(_Note(tape, use, width, index, like), x, carrier, *weights)
    return (result, None) if carrier is None else result


def _as_state(out: Tensor, places: Sequence[int], width: int) -> Tensor:
    """A state that names its places and hands its error to outputs."""
    weigh = _unit(out.shape[-1], out)[:, None] * pattern(width, out).double()
    return (out - out.detach()) @ weigh.to(out) + _name_places(places, width, out)


def _layer_forward(name: str, part: Any, tape: Tape) -> Callable[..., Any]:
    ours = isinstance(part, Recurrent)
    layers = part.depth if ours else part.num_layers
    slots = part.cell.slots if ours else 1 + isinstance(part, nn.LSTM)
    units = part.units if ours else part.hidden_size
    tape.slots[name] = (layers, slots)

    def forward(x: Any, hx: Any = None, reset: Tensor | None = None, lengths: Any = None) -> Any:
        packed = isinstance(x, PackedSequence)
        batch_first = not ours and part.batch_first
        if packed:
            x, lengths = pad_packed_sequence(x)
        single = not ours and not packed and x.dim() == 2
        x = x[:, None] if single else x.transpose(0, 1) if batch_first and not packed else x
        if reset is not None:
            reset = reset[:, None] if single else reset.T if batch_first else reset
        rows = x.shape[1]
        like = next(part.parameters()).detach()
        given = (hx,) if isinstance(hx, Tensor) else hx or (like.new_zeros(layers, rows, units),) * slots
        state = [slot[:, None] if single else slot for slot in given]
        places = tape.locate(name, x.shape[0], rows)
        open = tape.carrier.module == name
        carrier = state[tape.carrier.slot][tape.carrier.layer] if open else None
        last, ends, outs = like.new_zeros(rows, units), [FRESH] * rows, []
        for i in range(x.shape[0]):
            live = torch.ones(rows, dtype=torch.bool) if lengths is None else torch.as_tensor(lengths) > i
            if reset is not None and carrier is not None:
                carrier = carrier.masked_fill(reset[i][:, None], 0)
            out, after = _step(part, tape, places[i], x[i], carrier, units)
            if carrier is not None and after is not None:
                carrier = torch.where(live[:, None], after, carrier)
            last = torch.where(live[:, None], out, last)
            ends = [int(p) if alive else end for p, alive, end in zip(places[i], live, ends, strict=True)]
            outs.append(out * live[:, None])
        final = _final(tape.carrier if open else None, carrier, last, ends, layers, slots)
        final = [slot[:, 0] if single else slot for slot in final]
        y: Any = torch.stack(outs)
        y = y[:, 0] if single else y.transpose(0, 1) if batch_first and not packed else y
        if packed:
            y = pack_padded_sequence(y, torch.as_tensor(lengths), enforce_sorted=False)
        return y, tuple(final) if ours or slots > 1 else final[0]

    return forward


def _final(
    open: Carrier | None, carrier: Tensor | None, last: Tensor, ends: list[int], layers: int, slots: int
) -> list[Tensor]:
    """The state after a call: the open carrier, the h of that layer and those above it, and what carries nothing."""
    closed, spoken = _name_places(ends, last.shape[-1], last), _as_state(last, ends, last.shape[-1])

    def at(layer: int, slot: int) -> Tensor:
        if open is not None and carrier is not None and (layer, slot) == (open.layer, open.slot):
            return carrier
        return spoken if slot == 0 and (open is None or layer >= open.layer) else closed

    return [torch.stack([at(layer, slot) for layer in range(layers)]) for slot in range(slots)]


def _cell_forward(name: str, part: Any, tape: Tape) -> Callable[..., Any]:
    slots = 1 + isinstance(part, nn.LSTMCell)
    tape.slots[name] = (1, slots)

    def forward(x: Tensor, hx: Any = None, reset: Tensor | None = None) -> Any:
        single = x.dim() == 1
        zeros = next(part.parameters()).detach().new_zeros(1 if single else len(x), part.hidden_size)
        given = (hx,) if isinstance(hx, Tensor) else hx or (zeros,) * slots
        state = [slot[None] if single else slot for slot in given]
        if reset is not None:
            state = [slot.masked_fill(reset.reshape(-1, 1), 0) for slot in state]
        _, final = _once(name, part, tape, x[None] if single else x, state, part.hidden_size)
        final = [slot[0] for slot in final] if single else final
        return final[0] if slots == 1 else tuple(final)

    return forward


def _custom_forward(name: str, part: nn.Module, plain: Callable[..., Any], tape: Tape) -> Callable[..., Any]:
    """A cell of the user's: `cell(x, state)` of one step, which returns the state, or (outputs, state)."""

    def forward(x: Tensor, state: Any = None) -> Any:
        with torch.no_grad():
            shape = plain(x, state)
        whole = isinstance(shape, Tensor) or (isinstance(state, tuple) and len(shape) == len(state) > 1)
        whole = whole and not (isinstance(shape, tuple) and isinstance(shape[-1], tuple))
        out, after = (None, shape) if whole else shape
        new = (after,) if isinstance(after, Tensor) else tuple(after)
        tape.slots[name] = (1, len(new))
        old = (state,) if isinstance(state, Tensor) else state or tuple(map(torch.zeros_like, new))
        flat = [slot.reshape(-1, slot.shape[-1]) if slot.dim() else slot.reshape(1, 1) for slot in old]
        width = new[0].shape[-1] if out is None or not out.dim() else out.shape[-1]
        given, final = _once(name, part, tape, x, flat, width)
        shaped = [slot.reshape(like.shape) for slot, like in zip(final, new, strict=True)]
        result = shaped[0] if isinstance(after, Tensor) else tuple(shaped)
        return result if out is None else (given.reshape(out.shape), result)

    return forward


def _once(
    name: str, part: nn.Module, tape: Tape, x: Tensor, state: Sequence[Tensor], width: int
) -> tuple[Tensor, list[Tensor]]:
    """One step of a cell: its outputs and the state after, each slot (rows, width)."""
    places = tape.locate(name, 1, len(state[0]))[0]
    slot = tape.carrier.slot if tape.carrier.module == name else None
    out, after = _step(part, tape, places, x, None if slot is None else state[slot], width)
    ends = places.tolist()
    final = [_name_places(ends, old.shape[-1], out) for old in state]
    final[0] = _as_state(out, ends, state[0].shape[-1])
    if slot is not None and after is not None:
        final[slot] = after
    return out, final
