"""The simple recurrent network of Elman (1990): h_t = phi(u_t + v_t).

phi is tanh, relu, sigmoid or identity. Its slope is a function of h itself, so h is all that is kept.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from throughtime.cells.base import Cell, Gates, Kept
from throughtime.shapes import Slots, Tensor

PHI: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "tanh": (torch.tanh, lambda h: 1 - h * h),
    "relu": (torch.relu, lambda h: (h > 0).to(h.dtype)),
    "sigmoid": (torch.sigmoid, lambda h: h * (1 - h)),
    "identity": (lambda a: a, torch.ones_like),
}
"""phi, and its slope as a function of its value."""


def check_phi(phi: str) -> None:
    """Raise ValueError unless phi is one of the names in PHI."""
    if phi not in PHI:
        raise ValueError(f"phi must be one of {', '.join(PHI)}; got {phi!r}.")


@dataclass(frozen=True)
class Elman(Cell):
    """h_t = phi(W_x x_t + b_x + W_h h_{t-1} + b_h)."""

    phi: str = "tanh"
    gates: ClassVar[int] = 1
    slots: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_phi(self.phi)

    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        h = PHI[self.phi][0]((u + v).squeeze(-2))
        return (h,), (h,)

    def backward(self, ds: Slots, kept: Kept) -> tuple[Gates, Gates, Slots]:
        (dh,), (h,) = ds, kept
        da = (dh * PHI[self.phi][1](h)).unsqueeze(-2)
        return da, da, (torch.zeros_like(dh),)
