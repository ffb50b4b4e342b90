"""The native backend's arithmetic: tanh and the logistic function against float64; what is too small to be normal."""

from __future__ import annotations

import pytest
import torch
from native_case import Case, few_cells, instructions, memories, needed, threads

from throughtime.cells import Elman
from throughtime.kernels import Weights, run

pytestmark = needed
__all__ = ["instructions", "threads"]

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


@few_cells
@memories
@pytest.mark.parametrize("count", [1, 2])
def test_what_has_vanished_is_zero(name: str, memory: str, count: int, threads: None, instructions: str) -> None:
    """An error that fades over 400 steps ends in zeros, not in numbers that a processor handles far more slowly."""
    torch.set_num_threads(count)
    case = Case(name, (400, 5, 3, 20), torch.float)
    for weights in (case.weights.W_h, case.weights.b_h, case.weights.b_x):
        assert weights is not None
        weights *= 0.1
    case.errors[0] = torch.zeros(400, 5, 20)
    dx = case.all(memory=memory)[1 + case.cell.slots]
    tiny = torch.finfo(torch.float).tiny
    assert not ((dx != 0) & (dx.abs() < tiny)).any()
    assert (dx[-1] != 0).all()
    assert name == "lstm" or (dx[0] == 0).all()
