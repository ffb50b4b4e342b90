"""What BPTT(h) keeps of the gradient of the weights, for every h at once."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.flow.result import Kept
from throughtime.flow.windows import gradient_by_lag
from throughtime.nets import Loss, parameters_of
from throughtime.state import State

MOST = 2**27
"""Numbers of gradients that are held at once; of larger networks h is measured at powers of two."""


def kept(
    net: nn.Module, loss: Loss, chunk: Chunk, at: NDArray[np.int64], lags: int, state: State, h: int | None
) -> Kept | None:
    """How much of the summed gradient of the errors at the steps `at` BPTT(h) keeps, for h up to `lags`.

    None when no weight learns, or the gradient is zero or not finite.
    Cost: `lags` steps of samples * B streams forward and backward. Memory: the graph of `lags` steps of 64 streams, or
    B, and a gradient for each h.
    """
    weights = parameters_of(net)
    if not weights:
        return None
    places = _places(lags, h)
    if len(places) * weights > MOST:
        places = sorted({2**k for k in range(lags.bit_length())} | {lags} | {h for h in (h,) if h and h <= lags})
    rows = gradient_by_lag(net, loss, chunk, at, places, state)
    g = torch.zeros(weights, dtype=torch.float64)
    for row in rows:
        g += row
    size = float(g.norm())
    if not 0 < size < float("inf"):
        return None
    g_h, error, share = torch.zeros_like(g), [], []
    for row in rows:
        g_h += row
        error.append(float((g_h - g).norm()) / size)
        share.append(float(g_h @ g) / size**2)
    return Kept(np.array(places), np.array(error), np.array(share))


def _places(lags: int, h: int | None) -> list[int]:
    """The h that are measured: all up to 16, then in steps of a sixteenth, the one asked for and the last."""
    found = [1]
    while found[-1] < lags:
        found.append(max(found[-1] + 1, found[-1] * 17 // 16))
    return sorted({place for place in (*found, h or 1) if place <= lags} | {lags})
