"""Audit of an Ignite trainer: python audit_ignite.py"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

import throughtime as tt

try:
    from ignite.engine import Engine, Events
except ModuleNotFoundError as error:
    sys.exit(f"ignite must be installed for this example; {error}. Install it: pip install pytorch-ignite")

STEPS, ROWS, K = 20, 2, 6


class Model(nn.Module):
    """A GRU and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.readout = nn.GRU(3, 8), nn.Linear(8, 1)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        h, state = self.rnn(x, state)
        return self.readout(h), state


def train(model: nn.Module, x: Tensor, y: Tensor, drop_rest: bool = False) -> None:
    """A truncated trainer: the engine's state holds the network's state between the chunks of an epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def update(engine: Engine, batch: tuple[Tensor, Tensor]) -> float:
        part, wanted = batch
        prediction, state = model(part, engine.state.hidden)
        engine.state.hidden = state.detach()
        loss = (prediction - wanted).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = Engine(update)

    @trainer.on(Events.EPOCH_STARTED)
    def start(engine: Engine) -> None:
        engine.state.hidden = None

    stop = len(x) // K * K if drop_rest else len(x)
    trainer.run(list(zip(x[:stop].split(K), y[:stop].split(K), strict=True)), max_epochs=1)


def dropping(model: nn.Module, x: Tensor, y: Tensor) -> None:
    """The same, without the rest that fills no chunk."""
    train(model, x, y, drop_rest=True)


if __name__ == "__main__":
    x, y = torch.randn(STEPS, ROWS, 3), torch.randn(STEPS, ROWS, 1)
    print(tt.audit(train, Model(), x, y))
    print()
    print(tt.audit(dropping, Model(), x, y))
