"""All lags of one layer in C++, csrc/lags.hpp: what credit/lag.py does lag by lag, on plain tensors on the CPU."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from throughtime.cells import Cell
from throughtime.kernels import native
from throughtime.shapes import Bool, Float, Slots, Tensor


def refusal(cell: Cell, *tensors: Tensor) -> str:
    """Why this cannot run here; empty when it can."""
    return native.refusal(cell, False, False, tensors)


def carry(
    dv: Sequence[Float[Tensor, "T B G H"]],
    ds: Sequence[Sequence[Float[Tensor, "T B 1 H"] | None]],
    W_h: Float[Tensor, "GH H"],
    errors: Float[Tensor, "T B H"],
    reset: Bool[Tensor, "T B"] | None,
    *,
    fresh: int,
    h: int,
    gamma: float,
) -> Slots:
    """ds of the sum over the lags below h, S tensors (T, B, 1, H).

    dv, ds   what the cell's backward step multiplies with, of each slot; ds before the step for each slot after it.
    errors   of the outputs, zero but in the last `fresh` steps.
    gamma    the weight of an error falls by this factor a step.
    """
    T, B, G, H = dv[0].shape
    held = [part.contiguous() for part in (*dv, W_h, errors)]
    factors = [None if part is None else part.contiguous() for parts in ds for part in parts]
    reset = None if reset is None else reset.contiguous()
    out = tuple(torch.empty_like(errors, memory_format=torch.contiguous_format) for _ in dv)
    native._native.lags(
        errors.dtype is torch.float64,
        (T, B, G, H, fresh, h),
        gamma,
        [part.data_ptr() for part in held[: len(dv)]],
        [native._address(part) for part in factors],
        held[-2].data_ptr(),
        held[-1].data_ptr(),
        native._address(reset),
        [slot.data_ptr() for slot in out],
        torch.get_num_threads(),
    )
    return tuple(slot[:, :, None] for slot in out)
