"""Eigenvalues and singular values of the recurrent weights, of each gate apart."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from throughtime.flow.parts import BLOCKS, recurrence_of
from throughtime.flow.result import Spectrum
from throughtime.recurrent import FullyRecurrent
from throughtime.shapes import Tensor


def spectra(net: nn.Module) -> dict[str, Spectrum]:
    """The spectrum of every W_h: `W_h of layer 1`, of a gated cell `W_h of layer 1, f`.

    Where a network has several recurrent modules, each name says of which. With a projection h = W_r m the matrix is
    W_h W_r. Empty where the recurrence is of another kind; a matrix with NaN or infinity has no spectrum and is left
    out. Cost: O(H^3) a matrix.
    """
    modules = {name: list(_matrices(module)) for name, module in net.named_modules()}
    several = sum(bool(found) for found in modules.values()) > 1
    return {
        f"W_h of {f'{name}, ' if several else ''}{what}": _spectrum(matrix)
        for name, found in modules.items()
        for what, matrix in found
        if matrix.isfinite().all()
    }


def _matrices(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The square matrices of one module, by layer and gate."""
    if isinstance(module, FullyRecurrent):
        yield "all units", module.weight[:, : module.units]
    known = recurrence_of(module)
    if known is None:
        return
    for depth in range(known.depth):
        W_h = getattr(module, f"weight_hh_l{depth}")
        W_r = getattr(module, f"weight_hr_l{depth}", None)
        blocks = W_h.chunk(known.cell.gates)
        gates = BLOCKS.get(type(known.cell), tuple(f"gate {place + 1}" for place in range(len(blocks))))
        for gate, block in zip(gates, blocks, strict=True):
            what = f"layer {depth + 1}" + (f", {gate}" if len(blocks) > 1 else "")
            yield what, block if W_r is None else block @ W_r


def _spectrum(matrix: Tensor) -> Spectrum:
    matrix = matrix.detach().double().cpu()
    eigenvalues = torch.linalg.eigvals(matrix)
    order = eigenvalues.abs().argsort(descending=True)
    return Spectrum(eigenvalues[order].numpy(), torch.linalg.svdvals(matrix).numpy())
