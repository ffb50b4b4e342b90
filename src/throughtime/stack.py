"""Recurrent layers on top of each other, in one direction or two: what RNN, GRU, LSTM and Recurrent share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import linear

from throughtime.cells import Cell
from throughtime.kernels import Weights, run
from throughtime.shapes import Bool, Float, Int, Slots, Tensor


class Direction(NamedTuple):
    """One layer in one direction: its weights, and the projection h = W_r m of Sak et al. (2014) if it has one."""

    weights: Weights
    W_r: Float[Tensor, "P H"] | None = None


def suffixes(layers: int, bidirectional: bool) -> list[str]:
    """The endings of torch's parameter names: l0, l0_reverse, l1, ..."""
    return [f"l{layer}{end}" for layer in range(layers) for end in ("", "_reverse")[: 1 + bidirectional]]


def direction_of(module: nn.Module, suffix: str) -> Direction:
    """The weights of a module under torch's names, as they are now (pruned, parametrised, swapped in)."""
    W_x, W_h, b_x, b_h, W_r = (
        getattr(module, f"{name}_{suffix}", None)
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")
    )
    return Direction(Weights(W_x, W_h, b_x, b_h), W_r)  # type: ignore[arg-type]


def run_stack(
    cell: Cell,
    layers: Sequence[Sequence[Direction]],
    x: Float[Tensor, "T B I"],
    state: Slots,
    *,
    reset: Bool[Tensor, "T B"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    dropout: float = 0.0,
    backend: str = "auto",
) -> tuple[Float[Tensor, "T B DH"], Slots]:
    """Outputs of the last layer, directions side by side, and the last state, S tensors (L, B, H).

    Layer by layer, forward direction before backward, as torch stacks them; dropout acts between layers.
    The backward direction reads each sequence from its last step: a restart or a row's length cuts it there.
    """
    last: list[Slots] = []
    for depth, directions in enumerate(layers):
        if depth and dropout:
            x = drop(x, dropout)
        outputs = []
        for reverse, direction in enumerate(directions):
            start = tuple(slot[len(last)] for slot in state)
            y, end = _run_direction(cell, direction, x, start, reset, lengths, bool(reverse), backend)
            outputs.append(y)
            last.append(end)
        x = torch.cat(outputs, -1) if len(outputs) > 1 else outputs[0]
    return x, tuple(torch.stack(slots) for slots in zip(*last, strict=True))


def _run_direction(
    cell: Cell,
    direction: Direction,
    x: Tensor,
    state: Slots,
    reset: Tensor | None,
    lengths: Tensor | None,
    reverse: bool,
    backend: str,
) -> tuple[Tensor, Slots]:
    step = run if direction.W_r is None else _run_projected(direction.W_r)
    if not reverse:
        return step(cell, x, direction.weights, state, reset=reset, lengths=lengths, backend=backend)
    T, B = x.shape[:2]
    time = torch.arange(T, device=x.device)[:, None].expand(T, B)
    ends = torch.full((B,), T, device=x.device) if lengths is None else lengths
    order = torch.where(time < ends, ends - 1 - time, time)  # T B, its own inverse
    rows = torch.arange(B, device=x.device)
    if reset is not None:
        reset = torch.cat((torch.zeros_like(reset[:1]), reset[order, rows][:-1]))
    y, last = step(cell, x[order, rows], direction.weights, state, reset=reset, lengths=lengths, backend=backend)
    return y[order, rows], last


def _run_projected(W_r: Tensor):  # type: ignore[no-untyped-def]
    """`run` for a layer whose output is h = W_r m.

    The product with W_h is (W_h W_r) m, so the sweep runs on m; the h_0 that came in enters as part of the
    first input: [x h_0] [W_x; W_h].
    """

    def step(cell, x, weights, state, *, reset, lengths, backend):  # type: ignore[no-untyped-def]
        W_x, W_h, b_x, b_h = weights
        h0, *rest = state
        first = h0 if reset is None else h0.masked_fill(reset[0, :, None], 0)
        entering = torch.cat((first[None], first.new_zeros(x.shape[0] - 1, *first.shape)))
        inner = Weights(torch.cat((W_x, W_h), 1), W_h @ W_r, b_x, b_h)
        start = (rest[0].new_zeros(rest[0].shape), *rest)
        x = torch.cat((x, entering), -1)
        m, (m_last, *last) = run(cell, x, inner, start, reset=reset, lengths=lengths, backend=backend)
        h_last = linear(m_last, W_r)
        if lengths is not None:
            h_last = torch.where(lengths[:, None] > 0, h_last, h0)
        return linear(m, W_r), (h_last, *last)

    return step
