"""The leaky, continuous-time network: h_t = (1 - alpha) h_{t-1} + alpha phi(u_t + v_t).

Euler's step of tau dh/dt = -h + phi(W_x x + W_h h + b) with alpha = dt / tau; alpha = 1 is Elman's cell.
The leak is on the activity, as in Murray (2019); the variant that leaks the pre-activation is another cell.
"""

from dataclasses import dataclass
from typing import ClassVar

from throughtime.cells.base import Cell, Gates, Kept
from throughtime.cells.elman import PHI, check_phi
from throughtime.shapes import Slots


@dataclass(frozen=True)
class CTRNN(Cell):
    """h_t = (1 - alpha) h_{t-1} + alpha phi(W_x x_t + b_x + W_h h_{t-1} + b_h), 0 < alpha <= 1."""

    alpha: float = 0.5
    phi: str = "tanh"
    gates: ClassVar[int] = 1
    slots: ClassVar[int] = 1

    def __post_init__(self) -> None:
        check_phi(self.phi)
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must be above 0 and at most 1; got {self.alpha}.")

    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        f = PHI[self.phi][0]((u + v).squeeze(-2))
        return ((1 - self.alpha) * s[0] + self.alpha * f,), (f,)

    def backward(self, ds: Slots, kept: Kept) -> tuple[Gates, Gates, Slots]:
        (dh,), (f,) = ds, kept
        da = (self.alpha * dh * PHI[self.phi][1](f)).unsqueeze(-2)
        return da, da, ((1 - self.alpha) * dh,)
