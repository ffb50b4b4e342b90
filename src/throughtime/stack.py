"""Recurrent layers on top of each other, in one direction or two: what RNN, GRU, LSTM and Recurrent share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import linear, pad

from throughtime.cells import Cell
from throughtime.kernels import Weights
from throughtime.shapes import Bool, Float, Int, Slots, Tensor


class Direction(NamedTuple):
    """One layer in one direction: its weights, and the projection h = W_r m of Sak et al. (2014), if any."""

    weights: Weights
    W_r: Float[Tensor, "P H"] | None = None


Order = tuple[Callable[[Tensor], Tensor], Tensor | None]
"""How a direction reads time: what turns (T, B, ...) into its order and back, and where rows restart then."""

Run = Callable[..., tuple[Tensor, Slots]]
"""What runs one layer in one direction: kernels.run or one of the backends' own, with its options."""


def suffixes(layers: int, bidirectional: bool) -> list[str]:
    """The endings of torch's parameter names: l0, l0_reverse, l1, ..."""
    return [f"l{layer}{end}" for layer in range(layers) for end in ("", "_reverse")[: 1 + bidirectional]]


def direction_of(module: nn.Module, suffix: str) -> Direction:
    """The weights of a module under torch's names, as they are now (pruned, parametrised, swapped in)."""
    names = (f"{name}_{suffix}" for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    return Direction(Weights(*(getattr(module, name) for name in names)))


def directions_from(flat: Sequence[Tensor], count: int, *, projected: bool) -> list[Direction]:
    """The directions in torch's flat list of weights: of each, count of Weights, then W_r where projected."""
    each = count + projected
    parts = [flat[start : start + each] for start in range(0, len(flat), each)]
    return [Direction(Weights(*part[:count]), *part[count:]) for part in parts]


def autocasts(device: torch.device) -> bool:
    """Whether torch now chooses the dtype of products on a device."""
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def run_stack(
    cell: Cell,
    directions: Sequence[Direction],
    x: Float[Tensor, "T B I"] | Int[Tensor, "T B"],
    state: Slots,
    *,
    bidirectional: bool = False,
    reset: Bool[Tensor, "T B"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    dropout: float = 0.0,
    run: Run,
) -> tuple[Float[Tensor, "T B DH"], Slots]:
    """Outputs of the last layer, directions side by side, and the last state, S tensors (L, B, H).

    directions and state are in torch's order, layer by layer, forward first; dropout acts between layers.
    The backward direction reads each sequence from its last step: a restart or a row's length cuts it there.
    x may be ids. Under autocast everything runs in the dtype of the weights.
    """
    autocast = autocasts(x.device)
    if autocast:
        dtype = directions[0].weights.W_h.dtype
        x = x.to(dtype) if x.is_floating_point() else x
        state = tuple(slot.to(dtype) for slot in state)
    orders: list[Order] = [(_forwards, reset)]
    if bidirectional:
        orders.append(_backwards(x, reset, lengths))
    last: list[Slots] = []
    with torch.autocast(x.device.type, enabled=False) if autocast else nullcontext():
        for first in range(0, len(directions), len(orders)):
            if first and dropout:
                x = drop(x, dropout)
            outputs = []
            for direction, (turn, restarts) in zip(directions[first:], orders, strict=False):
                start = tuple([slot[len(last)] for slot in state])
                y, end = _run_direction(cell, turn(x), direction, start, restarts, lengths, run)
                outputs.append(turn(y))
                last.append(end)
            x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    if len(last) == 1:
        return x, tuple([slot[None] for slot in last[0]])
    return x, tuple(torch.stack(slots) for slots in zip(*last, strict=True))


def _forwards(part: Tensor) -> Tensor:
    return part


def _backwards(x: Tensor, reset: Tensor | None, lengths: Tensor | None) -> Order:
    """Every row is read from its last step; steps after a row's length stay where they are."""
    T, B = x.shape[:2]
    time, rows = torch.arange(T, device=x.device)[:, None], torch.arange(B, device=x.device)
    order = torch.where(time < lengths, lengths - 1 - time, time) * B + rows if lengths is not None else None

    def turn(part: Tensor) -> Tensor:
        if order is None:
            return part.flip(0)
        return part.flatten(0, 1).index_select(0, order.flatten()).view(part.shape)

    if reset is not None:
        reset = torch.cat((torch.zeros_like(reset[:1]), turn(reset)[:-1]))
    return turn, reset


def _run_direction(
    cell: Cell,
    x: Tensor,
    direction: Direction,
    state: Slots,
    reset: Tensor | None,
    lengths: Tensor | None,
    run: Run,
) -> tuple[Tensor, Slots]:
    """One layer in one direction.

    With a projection the product with W_h is (W_h W_r) m, so the sweep runs on m; the h_0 that came in enters
    as part of the first input: [x h_0] [W_x; W_h].
    """
    (W_x, W_h, b_x, b_h), W_r = direction
    if W_r is None:
        return run(cell, x, direction.weights, state, reset=reset, lengths=lengths)
    T, (h0, *rest), (P, I) = x.shape[0], state, (W_h.shape[1], W_x.shape[1])
    first = h0 if reset is None else h0.masked_fill(reset[0, :, None], 0)
    start = (rest[0].new_zeros(rest[0].shape), *rest)
    # Padding, for the gradients of cat are views into its own, which are not contiguous as torch's are.
    x = pad(x, (0, P)) + pad(first[None], (I, 0, 0, 0, 0, T - 1))
    inner = Weights(pad(W_x, (0, P)) + pad(W_h, (I, 0)), W_h @ W_r, b_x, b_h)
    m, (m_last, *last) = run(cell, x, inner, start, reset=reset, lengths=lengths)
    h_last = linear(m_last, W_r)
    if lengths is not None:
        h_last = torch.where(lengths[:, None] > 0, h_last, h0)
    return linear(m, W_r), (h_last, *last)
