"""Audit of a plain PyTorch loop, and of the popular recipe that goes back k2 steps every k1: python audit_pytorch.py

Or one of them: throughtime audit audit_pytorch.py, throughtime audit audit_pytorch.py:audit_recipe
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

import throughtime as tt

STEPS, ROWS = 22, 2


class Model(nn.Module):
    """An LSTM and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.readout = nn.LSTM(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.rnn(x, state)
        return self.readout(h), state


def train(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """Chunks of 8 steps with the state carried on; it has two faults."""
    optimizer, state = torch.optim.Adam(model.parameters()), None
    for part, wanted in zip(x.split(8), y.split(8), strict=True):
        prediction, state = model(part, state)
        loss = nn.functional.mse_loss(prediction, wanted)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        h, c = state
        state = (h.detach(), c)


class Stepwise(nn.Module):
    """A cell and a readout, one step a call."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.readout = nn.GRUCell(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        h = self.cell(x, h)
        return self.readout(h), h


def recipe(model: nn.Module, x: Tensor, y: Tensor, k1: int = 1, k2: int = 3) -> None:
    """Keeps (detached state in, state out) of every step, and hands the .grad of one to the step before."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    h, pairs = torch.zeros(x.shape[1], 8), []
    for t in range(len(x)):
        entered = h.detach().requires_grad_()
        prediction, h = model(x[t], entered)
        pairs = [*pairs, (entered, h)][-k2:]
        if (t + 1) % k1 == 0:
            optimizer.zero_grad()
            (prediction - y[t]).square().sum().backward(retain_graph=True)
            for (_, left), (later, _) in list(pairwise(pairs))[::-1]:
                left.backward(later.grad, retain_graph=True)
            optimizer.step()


def audit() -> Any:
    """What the command calls."""
    return tt.audit(train, Model(), torch.randn(STEPS, ROWS, 3), torch.randn(STEPS, ROWS, 1))


def audit_recipe() -> Any:
    """The same of the recipe."""
    return tt.audit(recipe, Stepwise(), torch.randn(9, ROWS, 3), torch.randn(9, ROWS, 1))


if __name__ == "__main__":
    print(audit())
    print()
    print(audit_recipe())
