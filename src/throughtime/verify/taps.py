"""A copy of a module whose recurrence carries nothing but counts: each error marks every use of the weights it reaches.

The outputs of every recurrent layer are one constant vector, so that equal errors arrive with equal weight at every
step; going back, a step hands the error that it gets to the step before as it is, and writes it into the entry of
the weights' `.grad` that stands for its place in the stream. What the user's loop detaches, adds, drops or zeroes
then shows in the numbers that the optimizer is given: 1 for a use that an error reaches once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime.layers import Recurrent
from throughtime.shapes import Tensor
from throughtime.verify.tape import FRESH, TINY, Tape, Use

LAYERS = (nn.RNN, nn.LSTM, nn.GRU, Recurrent)
CELLS = (nn.RNNCell, nn.LSTMCell, nn.GRUCell)
HALF = (torch.float16, torch.bfloat16)


def instrument(module: nn.Module, cells: tuple[Any, ...], tape: Tape) -> nn.Module:
    """A deep copy whose recurrent modules write to a tape; one of half precision is in float32, which can count."""
    copy = deepcopy(module)
    half = [tensor for tensor in chain(copy.parameters(), copy.buffers()) if tensor.dtype in HALF]
    for tensor in half:
        tensor.data = tensor.data.float()
    parts = recurrent(copy, cells)
    tape.modules = [name for name, _ in parts]
    for name, found in parts:
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
        part.register_forward_pre_hook(_watch(tape, raises=bool(half)), with_kwargs=True)
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


def counter(name: str, part: nn.Module, given: frozenset[str] = frozenset()) -> nn.Parameter | None:
    """The weights whose gradient counts the uses: the largest that learn, of those that an optimizer is given."""
    dot = f"{name}." * bool(name)
    learn = {f"{dot}{key}": weight for key, weight in part.named_parameters() if weight.requires_grad}
    held = [weight for key, weight in learn.items() if key in given]
    return max(held or learn.values(), key=Tensor.numel, default=None)


def _replace_forward(part: Any, forward: Callable[..., Any]) -> None:
    part.forward = forward


def _check_layer(name: str, part: Any) -> None:
    if part.bidirectional:
        raise ValueError(f"{name} must go forward in time; got a bidirectional layer, which has no online order.")
    if getattr(part, "proj_size", 0):
        raise ValueError(f"{name} must have no proj_size; got {part.proj_size}. Leave it out of the copy to audit.")


def _watch(tape: Tape, *, raises: bool) -> Callable[..., Any]:
    def before(module: nn.Module, args: Any, kwargs: Any) -> Any:
        if raises:
            args, kwargs = raised(args), raised(kwargs)
        tape.see((*args, *kwargs.values()))
        return args, kwargs

    return before


def raised(value: Any) -> Any:
    """The value with float32 in place of half precision."""
    if isinstance(value, (Tensor, PackedSequence)):
        return value.float() if (value if isinstance(value, Tensor) else value.data).dtype in HALF else value
    if type(value) in (tuple, list):
        return type(value)(map(raised, value))
    return {name: raised(part) for name, part in value.items()} if type(value) is dict else value


class _Step(torch.autograd.Function):
    """One step of the open carrier: (outputs, state after); without a carrier, outputs that hand errors to x."""

    @staticmethod
    def forward(ctx: Any, note: _Note, x: Tensor, carrier: Tensor | None, *weights: Tensor) -> Any:
        ctx.note, ctx.open, ctx.x = note, carrier is not None, x.shape
        ctx.save_for_backward(*weights)
        out = note.tape.pattern(note.width, note.like).expand(len(note.use.places), -1).clone()
        if carrier is None:
            return out
        return out, note.tape.named(note.module, note.use.places, carrier.shape[-1], note.like)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        note, weights, tape = ctx.note, ctx.saved_tensors, ctx.note.tape
        error = torch.stack([grad.double() @ tape.pattern(grad.shape[-1], grad).double() for grad in grads]).sum(0)
        back = lambda width: error[:, None] * tape.unit(width, grads[0])  # noqa: E731
        tape.errors = bool(tape.errors) or bool(error.any())
        if not ctx.open:
            return None, back(ctx.x[-1]).reshape(ctx.x).to(note.like), None, *map(torch.zeros_like, weights)
        note.use.reached |= {place for place, part in zip(note.use.places, error.tolist(), strict=True) if part}
        tape.log("backward")
        places = torch.tensor(note.use.places)
        tape.spread.index_add_(0, places, error.cpu())
        written = [
            _written(weight, places - tape.first, error) if index == note.counter else torch.zeros_like(weight)
            for index, weight in enumerate(weights)
        ]
        return None, note.like.new_zeros(ctx.x), back(grads[1].shape[-1]).to(note.like), *written


def _written(weight: Tensor, entries: Tensor, error: Tensor) -> Tensor:
    grad = torch.zeros(weight.numel(), dtype=torch.float64)
    kept = (entries >= 0) & (entries < len(grad))
    grad.index_add_(0, entries[kept], error.cpu()[kept])
    return (grad * TINY).to(weight).reshape(weight.shape)


@dataclass
class _Note:
    """What a step has to know: tape, module and use, the width of its outputs, which weights count, and a dtype."""

    tape: Tape
    module: str
    use: Use
    width: int
    counter: int
    like: Tensor


def _step(
    name: str, part: nn.Module, tape: Tape, places: Tensor, x: Tensor, carrier: Tensor | None, width: int
) -> tuple[Tensor, Tensor | None]:
    weights = [weight for weight in part.parameters() if weight.requires_grad]
    like = next(part.parameters()).detach()
    counted = counter(name, part, tape.given)
    index = next((i for i, weight in enumerate(weights) if weight is counted), -1)
    use = Use(places.tolist(), [] if carrier is None else tape.places_named(name, carrier))
    if carrier is not None:
        tape.uses.append(use)
    x = x if x.is_floating_point() else like.new_zeros(len(use.places), 1)
    result = _Step.apply(_Note(tape, name, use, width, index, like), x, carrier, *weights)
    return (result, None) if carrier is None else result


def _as_state(name: str, tape: Tape, out: Tensor, places: Sequence[int], width: int) -> Tensor:
    """A state that names its places and hands its error to outputs."""
    weigh = tape.unit(out.shape[-1], out)[:, None] * tape.pattern(width, out).double()
    return (out - out.detach()) @ weigh.to(out) + tape.named(name, places, width, out)


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
            out, after = _step(name, part, tape, places[i], x[i], carrier, units)
            if carrier is not None and after is not None:
                carrier = torch.where(live[:, None], after, carrier)
            last = torch.where(live[:, None], out, last)
            ends = [int(p) if alive else end for p, alive, end in zip(places[i], live, ends, strict=True)]
            outs.append(out)
        final = _final(name, tape, carrier, last, ends, (layers, slots))
        final = [slot[:, 0] if single else slot for slot in final]
        y: Any = torch.stack(outs)
        if lengths is not None:
            y = y * (torch.arange(len(outs))[:, None] < torch.as_tensor(lengths)).to(y)[..., None]
            watch_padding(y, torch.as_tensor(lengths), False, tape)
        y = y[:, 0] if single else y.transpose(0, 1) if batch_first and not packed else y
        if packed:
            y = pack_padded_sequence(y, torch.as_tensor(lengths), enforce_sorted=False)
        return y, tuple(final) if ours or slots > 1 else final[0]

    return forward


def watch_padding(y: Tensor, lengths: Tensor, batch_first: bool, tape: Tape) -> None:
    """Note the steps behind the ends of rows at which outputs (T, B, H) get an error."""
    first = int(tape.calls[-1].min()) if tape.places is not None and tape.calls else -1
    if first < 0 or not y.requires_grad:
        return

    def note(grad: Tensor) -> None:
        grad = grad.transpose(0, 1) if batch_first else grad
        dead = torch.arange(len(grad))[:, None] >= lengths.cpu()
        counted = (dead.to(grad.device) & grad.flatten(2).any(-1)).any(1)
        tape.padding.update((first, step) for step in counted.nonzero().flatten().tolist())

    y.register_hook(note)


def _final(
    name: str, tape: Tape, carrier: Tensor | None, last: Tensor, ends: list[int], sizes: tuple[int, int]
) -> list[Tensor]:
    """The state after a call: the open carrier, the h of that layer and those above it, and what carries nothing."""
    closed, spoken = tape.named(name, ends, last.shape[-1], last), _as_state(name, tape, last, ends, last.shape[-1])

    def at(layer: int, slot: int) -> Tensor:
        if carrier is not None and (layer, slot) == (tape.carrier.layer, tape.carrier.slot):
            return carrier
        return spoken if slot == 0 and (carrier is None or layer >= tape.carrier.layer) else closed

    layers, slots = sizes
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
    out, after = _step(name, part, tape, places, x, None if slot is None else state[slot], width)
    ends = places.tolist()
    final = [tape.named(name, ends, old.shape[-1], out) for old in state]
    final[0] = _as_state(name, tape, out, ends, state[0].shape[-1])
    if slot is not None and after is not None:
        final[slot] = after
    return out, final
