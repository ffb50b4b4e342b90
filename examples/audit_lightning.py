"""Audit of a Lightning module under its own Trainer: python audit_lightning.py"""

from __future__ import annotations

import logging
import sys
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import throughtime as tt

try:
    import lightning
except ModuleNotFoundError as error:
    sys.exit(f"lightning must be installed for this example; {error}. Install it: pip install lightning")

STEPS, ROWS, K = 18, 2, 6


class Forecaster(lightning.LightningModule):
    """Chunks of a stream, one batch each; the state is carried on."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.readout, self.state = nn.GRU(3, 8), nn.Linear(8, 1), None

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, y = (part[0] for part in batch)
        h, state = self.rnn(x, self.state)
        self.state = state.detach()
        return nn.functional.mse_loss(self.readout(h), y, reduction="sum")

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters())


def fit(model: Forecaster, x: Tensor, y: Tensor, shuffle: bool = False) -> None:
    """What one would do for training: a loader of chunks, and Trainer.fit."""
    chunks = TensorDataset(x.reshape(-1, K, *x.shape[1:]), y.reshape(-1, K, *y.shape[1:]))
    trainer = lightning.Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(chunks, batch_size=1, shuffle=shuffle))


def shuffled(model: Forecaster, x: Tensor, y: Tensor) -> None:
    """The same with shuffled chunks, though the state is carried on."""
    fit(model, x, y, shuffle=True)


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    x, y = torch.randn(STEPS, ROWS, 3), torch.randn(STEPS, ROWS, 1)
    print(tt.audit(fit, Forecaster(), x, y))
    print()
    print(tt.audit(shuffled, Forecaster(), x, y))
