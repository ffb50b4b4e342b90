"""The long short-term memory of Hochreiter and Schmidhuber (1997) with the forget gate of Gers et al. (2000).

    i, f, o = sigmoid(u + v)         input, forget and output gate
    g = tanh(u_g + v_g)              gates in torch's order i, f, g, o
    c_t = f c_{t-1} + i g
    h_t = o tanh(c_t)                no peepholes
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from throughtime.cells.base import Cell, Gates, Kept
from throughtime.shapes import Slots


@dataclass(frozen=True)
class LSTM(Cell):
    """Three gates, two slots (h, c): c carries the past by a product with f alone."""

    gates: ClassVar[int] = 4
    slots: ClassVar[int] = 2

    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        _, c_before = s
        a_i, a_f, a_g, a_o = (u + v).unbind(-2)
        i, f, g, o = torch.sigmoid(a_i), torch.sigmoid(a_f), torch.tanh(a_g), torch.sigmoid(a_o)
        c = f * c_before + i * g
        tanh_c = torch.tanh(c)
        return (o * tanh_c, c), (i, f, g, o, c_before, tanh_c)

    def backward(self, ds: Slots, kept: Kept) -> tuple[Gates, Gates, Slots]:
        dh, dc = ds
        i, f, g, o, c_before, tanh_c = kept
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        di = dc * g * i * (1 - i)
        df = dc * c_before * f * (1 - f)
        dg = dc * i * (1 - g * g)
        do = dh * tanh_c * o * (1 - o)
        da = torch.stack((di, df, dg, do), -2)
        return da, da, (torch.zeros_like(dh), dc * f)
