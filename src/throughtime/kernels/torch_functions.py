"""The torch backend: torch's own recurrent functions, cut where rows restart, packed where unequal."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.nn.functional import one_hot
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime.cells import GRU, LSTM, Cell, Elman
from throughtime.shapes import Slots, Tensor
from throughtime.state import run_segments

MODES: dict[str, Cell] = {
    "RNN_TANH": Elman("tanh"),
    "RNN_RELU": Elman("relu"),
    "GRU": GRU(),
    "LSTM": LSTM(),
}
"""The cell of each `mode` of torch's layers."""

FUNCTIONS: dict[Cell, Callable[..., Any]] = {
    Elman("tanh"): torch.rnn_tanh,
    Elman("relu"): torch.rnn_relu,
    GRU(): torch.gru,
    LSTM(): torch.lstm,
}


def refusal(cell: Cell, reset: bool, lengths: bool, tensors: Sequence[Tensor] = ()) -> str:
    """Why this cannot run here; empty when it can."""
    if cell not in FUNCTIONS:
        return "torch has no recurrent function for this cell"
    if reset and lengths:
        return "torch has no restarts inside rows of unequal length"
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
    if not x.is_floating_point():
        x = one_hot(x, weights[0].shape[1]).to(weights[0].dtype)
    W_x, W_h, b_x, b_h = weights
    biases = [b for b in (b_x, b_h) if b is not None]
    if len(biases) == 1:  # torch has both or none
        biases = [torch.zeros_like(biases[0]) if b is None else b for b in (b_x, b_h)]
    flat = [W_x, W_h, *biases]
    # cuDNN keeps what a gradient needs in training mode only; without dropout the mode changes no number.
    options = (len(flat) == 4, 1, 0.0, torch.is_grad_enabled(), False)

    def call(data: Tensor, slots: Slots, batch_sizes: Tensor | None = None) -> tuple[Tensor, Slots]:
        hx = tuple(slot[None] for slot in slots) if cell.slots > 1 else slots[0][None]
        if batch_sizes is None:
            y, *last = FUNCTIONS[cell](data, hx, flat, *options, False)
        else:
            y, *last = FUNCTIONS[cell](data, batch_sizes, hx, flat, *options)
        return y, tuple(slot[0] for slot in last)

    if lengths is not None:
        return _unequal(call, x, state, lengths)
    return run_segments(call, x, state, reset)


def _unequal(call, x: Tensor, state: Slots, lengths: Tensor) -> tuple[Tensor, Slots]:  # type: ignore[no-untyped-def]
    """Rows of unequal length, as torch's packed sequences; these know no empty row, so those are left out."""
    rows = lengths.nonzero().flatten()
    if rows.numel() == 0:
        return x.new_zeros(*x.shape[:2], state[0].shape[-1]), state
    packed = pack_padded_sequence(x[:, rows], lengths[rows].cpu(), enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    data, last = call(packed.data, tuple(slot[rows][order] for slot in state), packed.batch_sizes)
    y, _ = pad_packed_sequence(PackedSequence(data, packed.batch_sizes, order, back), total_length=x.shape[0])
    y = torch.zeros(*x.shape[:2], y.shape[-1], dtype=y.dtype, device=y.device).index_copy(1, rows, y)
    return y, tuple(slot.index_copy(0, rows, new[back]) for slot, new in zip(state, last, strict=True))
