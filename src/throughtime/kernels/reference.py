"""The reference backend: the projection of the inputs in one product, then the sweep."""

from collections.abc import Sequence

import torch
from torch.nn.functional import embedding, linear

from throughtime.cells import Cell
from throughtime.shapes import Slots, Tensor
from throughtime.sweep import sweep


def refusal(cell: Cell, reset: bool, lengths: bool, tensors: Sequence[Tensor] = ()) -> str:
    """Why this cannot run here; empty when it can. The reference runs everything."""
    return ""


def run(
    cell: Cell,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    state: Slots,
    reset: Tensor | None,
    lengths: Tensor | None,
) -> tuple[Tensor, Slots]:
    """See kernels.run."""
    T, B = x.shape[:2]
    if lengths is not None:
        # No number may come from the padding, not even 0 * NaN: its x is 0, and every step of it starts anew.
        over = torch.arange(T, device=x.device)[:, None] >= lengths  # T B
        x = x.masked_fill(over[..., None] if x.is_floating_point() else over, 0)
        reset = over if reset is None else reset | over
    W_x, W_h, b_x, b_h = weights
    if x.is_floating_point():
        u = linear(x, W_x, b_x)
    else:
        u = embedding(x, W_x.T) if b_x is None else embedding(x, W_x.T) + b_x
    u = u.unflatten(-1, (cell.gates, W_h.shape[1]))  # T B G H
    states = sweep(cell, u, W_h, b_h, state, reset)
    if lengths is None:
        return states[0], tuple(slot[-1] for slot in states) if T else state
    every = tuple(torch.cat((first[None], slot)) for first, slot in zip(state, states, strict=True))
    last = lengths, torch.arange(B, device=x.device)
    return states[0].masked_fill(over[..., None], 0), tuple(slot[last] for slot in every)
