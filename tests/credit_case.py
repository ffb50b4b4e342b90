"""The networks and streams that the algorithms that go back in time are tested on."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from throughtime.chunk import Chunk
from throughtime.credit import Estimate
from throughtime.nets import Network
from throughtime.verify.credit import compare

DOUBLE = torch.float64
B, I, H, A = 3, 2, 4, 5
CELLS = [
    "elman",
    "elman:phi=relu",
    "elman:phi=sigmoid",
    "elman:phi=identity",
    "gru",
    "lstm",
    "ctrnn:alpha=0.3",
]


def network(cell: str = "gru", **options: Any) -> Network:
    return Network(cell, **{"inputs": I, "units": H, "outputs": A} | options).double()


def stream(steps: int, rows: int = B, axes: int = 2, restarts: float = 0.2) -> Chunk:
    """Numbers in and out, weights of 0 and between 0 and 1 on the errors, restarts in mid-row."""
    shape = (steps, rows, A)[:axes]
    mask = torch.rand(shape, dtype=DOUBLE) * (torch.rand(shape) < 0.7)
    x, y = torch.randn(steps, rows, I, dtype=DOUBLE), torch.randn(steps, rows, A, dtype=DOUBLE)
    return Chunk(x, y, mask, torch.rand(steps, rows) < restarts, end=True)


def assert_same(given: Estimate, wanted: Estimate, steps: int) -> None:
    error, tolerance, _ = compare(given, wanted, steps)
    assert error <= tolerance


def cut(steps: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, steps), max_size=5).map(sorted)


class Multiply(nn.Module):
    """x_t = w x_{t-1}, the input unread: a module whose forward is `(x, hx) -> (y, hx)`."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.2, dtype=DOUBLE))

    def forward(self, x: Tensor, hx: Tensor) -> tuple[Tensor, Tensor]:
        outputs = []
        for _ in x:
            hx = self.w * hx
            outputs.append(hx)
        return torch.stack(outputs), hx


class Learned(nn.Module):
    """A user's net that starts from a learned state where it is given none; `net(x, state, reset)` of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.h0 = nn.Parameter(torch.randn(1, 1, H))
        self.gru, self.out = nn.GRU(I, H), nn.Linear(H, A)

    def forward(self, x: Tensor, state: Tensor | None = None, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if state is None:
            state = self.h0.expand(1, x.shape[1], H).contiguous()
        h, state = self.gru(x, state)
        return self.out(h), state
