"""The error by lag of the library's Network, all sampled steps at once: one product a lag and layer.

    G_0[t] = d loss_t / d h_t;  G_{k+1}[t] = G_k[t] J_{t-k}      for every sampled t together, k = 0, 1, ...

G has a part for every layer and slot. Through the step t-k the error also climbs down from a layer to the one below,
so each of them sends back what came from its own later step and what came from above.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import dropout as drop

from throughtime.chunk import Chunk
from throughtime.credit.lag import Factors, factors, times
from throughtime.credit.trace import Trace, read
from throughtime.flow.error import FLOOR
from throughtime.flow.parts import names
from throughtime.nets import Loss, Network, sum_errors
from throughtime.shapes import Float, Slots, Tensor
from throughtime.state import State

BLOCK = 8
"""Lags after which the rows are brought back to near 1."""


@torch.no_grad()
def by_lags(
    net: Network, loss: Loss, chunk: Chunk, at: NDArray[np.int64], lags: int, state: State
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64], NDArray[np.bool_]]:
    """As by_windows, and equal to it up to rounding, but for what lies beyond a restart.

    Cost: T steps of B streams forward, and `lags` products of samples * B rows. Every row is kept near 1 by a power of
    two, which is exact, so that a norm may be as small or large as float64 holds, whatever the dtype of the net.
    """
    trace, last = read(net, chunk, state)
    errors = _errors(net, loss, trace, chunk)
    layers = factors(net, trace)
    steps = torch.from_numpy(at).to(errors.device)
    nothing = errors.new_zeros(len(at), chunk.streams, net.layers.units)
    G: list[Slots] = [(nothing,) * net.layers.cell.slots for _ in layers]
    G[-1] = (errors[steps], *G[-1][1:])
    power = torch.zeros(nothing.shape[:2], dtype=torch.float64, device=errors.device)
    found = []
    for first in range(0, lags + 1, BLOCK):
        seen = [G]
        for k in range(first, min(first + BLOCK, lags + 1) - 1):
            seen.append(_back(layers, seen[-1], steps - k))
        parts = torch.stack([torch.stack([part for slots in zip(*lag, strict=True) for part in slots]) for lag in seen])
        norms = torch.linalg.vector_norm(parts, dim=-1, dtype=torch.float64)  # k SL N B
        found.append(norms * power.exp2())
        if first + BLOCK <= lags:
            excess = torch.frexp(torch.linalg.vector_norm(norms[-1], dim=0))[1]
            power = power + excess
            scale = torch.exp2(-excess.to(errors.dtype))[:, :, None]
            G = [tuple(part * scale for part in slots) for slots in seen[-1]]
            G = _back(layers, G, steps - (first + BLOCK - 1))
    by_part = np.nan_to_num(torch.cat(found).cpu().numpy(), nan=np.inf, posinf=np.inf)  # infinity times zero
    outlet = by_part[0].max(0)  # all others are zero there, and are not seen
    by_name = dict(zip(names(net, last), by_part.swapaxes(0, 1), strict=True))
    for name, part in by_name.items():
        if name != f"h of layer {len(layers)}":
            part[0] = np.nan
    return by_name, outlet, outlet > FLOOR


def _errors(net: Network, loss: Loss, trace: Trace, chunk: Chunk) -> Float[Tensor, "T B H"]:
    """d loss_t / d h_t of the last layer."""
    with torch.enable_grad():
        top = trace.h.detach().requires_grad_()
        error, _ = sum_errors(loss, net.readout(drop(top, net.dropout, net.training)), chunk)
        if not error.isfinite():
            raise ValueError(f"net must give finite errors to measure; got {error.item()}. Look at its weights.")
        found = torch.autograd.grad(error, top)[0] if error.requires_grad else None
    return torch.zeros_like(trace.h) if found is None else found


def _back(layers: list[Factors], G: list[Slots], step: Tensor) -> list[Slots]:
    """G, S tensors (N, B, H) of each layer, one step earlier, through the steps `step` of each sample.

    Over a restart as if there were none: the caller counts no pair beyond it.
    """
    above: Tensor | None = None
    earlier: list[Slots] = []
    for layer, (top, *others) in zip(reversed(layers), reversed(G), strict=True):
        ds = tuple(part[:, :, None] for part in (top if above is None else top + above, *others))
        dv = times(_at(layer.dv, step), ds, 0).flatten(2)
        if layer is not layers[0]:
            du = dv if layer.dv is layer.du else times(_at(layer.du, step), ds, 0).flatten(2)
            above = du @ layer.W_x
            above = above if layer.noise is None else above * layer.noise[step]
        before: list[Tensor] = []
        for slot, parts in enumerate(layer.ds):
            back = torch.zeros_like(top) if slot else dv @ layer.W_h
            for part, d in zip(parts, ds, strict=True):
                if part is not None:
                    back.addcmul_(part.index_select(0, step)[:, :, 0], d[:, :, 0])
            before.append(back)
        earlier.append(tuple(before))
    return earlier[::-1]


def _at(parts: Slots, step: Tensor) -> Slots:
    return tuple(part.index_select(0, step) for part in parts)
