"""What the tests of training share: a text, a small network over it, its weights as a vector."""

from __future__ import annotations

import torch
from torch.nn.utils import parameters_to_vector

import throughtime as tt
from throughtime.data import Text

TEXT = "the cat saw the dog; the dog saw a man, and the man ran far away from the cat. " * 3


def text(split: tuple[float, float, float] | None = (0.7, 0.3, 0.0)) -> Text:
    return Text.of(TEXT, split=split)


def network(cell: str = "lstm", seed: int = 0, **options) -> tt.Network:
    torch.manual_seed(seed)
    size = text().size
    return tt.Network(cell, inputs=size, outputs=size, **{"units": 6, "embedding": 5, **options})


def weights(net: torch.nn.Module) -> torch.Tensor:
    return parameters_to_vector(net.parameters()).detach().clone()


def sgd(net: torch.nn.Module, rate: float = 0.5, **options) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=rate, **options)
