"""The networks and streams that the algorithms that go forward in time are tested on."""

from __future__ import annotations

import torch
from credit_case import CELLS, DOUBLE, A, B, H, I, network
from credit_case import stream as numbers
from torch import Tensor

from throughtime.chunk import Chunk
from throughtime.credit import RFLO, RTRL, UORO, Credit, Estimate, SnAp
from throughtime.nets import Network
from throughtime.verify.credit import compare

__all__ = ["CELLS", "DOUBLE", "A", "B", "H", "I", "network"]
LIBRARYS_OWN: list[Credit] = [SnAp(), SnAp(3), RFLO(), RFLO(feedback=1), UORO()]
EVERY: list[Credit] = [RTRL(), *LIBRARYS_OWN]


def stream(steps: int, rows: int = B, axes: int = 3, restarts: float = 0.2) -> Chunk:
    """Numbers in and out, with a weight for every output."""
    return numbers(steps, rows, axes, restarts)


def text(steps: int, rows: int = B) -> Chunk:
    x, y = torch.randint(0, A, (2, steps, rows))
    return Chunk(x, y, torch.rand(steps, rows, dtype=DOUBLE), torch.rand(steps, rows) < 0.2, end=True)


def assert_same(given: Estimate, wanted: Estimate, tolerance: float = 1e-10) -> None:
    assert compare(given, wanted, 1).error <= tolerance


def keep(net: Network, pattern: Tensor) -> None:
    """Put entries of every W_h to zero, of all gates alike."""
    for depth in range(net.layers.depth):
        W_h = net.layers.get_parameter(f"weight_hh_l{depth}")
        W_h.data = torch.randn_like(W_h) * pattern.repeat(len(W_h) // H, 1)
