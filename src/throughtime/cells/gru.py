"""The gated recurrent unit of Cho et al. (2014), in the variant that torch and cuDNN compute.

    r = sigmoid(u_r + v_r)
    z = sigmoid(u_z + v_z)
    n = tanh(u_n + r v_n)            reset after the product; Cho resets h before it, which is another function
    h_t = (1 - z) n + z h_{t-1}      gates in the order r, z, n
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from throughtime.cells.base import Cell, Gates, Kept
from throughtime.shapes import Slots


@dataclass(frozen=True)
class GRU(Cell):
    """Two gates, one slot h: r decides what of the past enters n, z how much of h stays."""

    gates: ClassVar[int] = 3
    slots: ClassVar[int] = 1

    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        (h,) = s
        r, z = torch.sigmoid(u[..., :2, :] + v[..., :2, :]).unbind(-2)
        v_n = v[..., 2, :]
        n = torch.tanh(u[..., 2, :] + r * v_n)
        return (n + z * (h - n),), (r, z, n, v_n, h)

    def backward(self, ds: Slots, kept: Kept) -> tuple[Gates, Gates, Slots]:
        (dh,) = ds
        r, z, n, v_n, h = kept
        dz = dh * (h - n) * z * (1 - z)
        dn = dh * (1 - z) * (1 - n * n)
        dr = dn * v_n * r * (1 - r)
        return torch.stack((dr, dz, dn), -2), torch.stack((dr, dz, dn * r), -2), (dh * z,)
