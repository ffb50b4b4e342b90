"""tanh and the logistic function of the native backend, one number at a time, against float64."""

from __future__ import annotations

import pytest
import torch
from native_case import instructions, needed

from throughtime.cells import Elman
from throughtime.kernels import Weights, run

pytestmark = needed
__all__ = ["instructions"]

EXACT = {"tanh": torch.tanh, "sigmoid": torch.sigmoid}
MOST = {"tanh": 3.0, "sigmoid": 2.5}
"""Units in the last place: an exponential within one, a sum or two, and a quotient."""


@pytest.mark.parametrize("phi", EXACT)
def test_float32_to_the_last_places(phi: str, instructions: str) -> None:
    """Everywhere: near 0 too, where tanh is as small as its argument, and far out."""
    size = torch.logspace(-35, 1.93, 200_001, dtype=torch.double).float()
    x = torch.cat((-size.flip(0), torch.zeros(1), size, torch.linspace(-20, 20, 200_003)))
    one, zero = torch.ones(1, 1), torch.zeros(1, 1)
    y, _ = run(Elman(phi), x[None, :, None], Weights(one, zero), (torch.zeros(len(x), 1),), backend="native")
    wanted = EXACT[phi](x.double())
    place = 2.0 ** (torch.frexp(wanted).exponent.double() - 24).clamp(min=-149)
    worst = ((y[0, :, 0].double() - wanted).abs() / place).max()
    assert worst <= MOST[phi]
