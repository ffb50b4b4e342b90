"""What the tests of the measurements share: small networks in float64, and a stretch of random numbers."""

import torch
from torch import nn

from throughtime.chunk import Chunk
from throughtime.nets import Network

T, B, I, H, A = 40, 3, 4, 5, 6
CELLS = ["elman", "elman:phi=relu", "elman:phi=sigmoid", "elman:phi=identity", "gru", "lstm", "ctrnn:alpha=0.3"]


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def network(cell: str, **options: int) -> Network:
    return Network(cell, **{"inputs": I, "units": H, "outputs": A, **options}).double()


def chunk(steps: int = T, **parts: torch.Tensor) -> Chunk:
    return Chunk(numbers(steps, B, I), torch.randint(A, (steps, B)), **parts)


class Wrapped(nn.Module):
    """A user's network around torch's own recurrence, streams first inside."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 1, **options: object):
        super().__init__()
        self.embed = nn.Embedding(7, I, dtype=torch.float64)
        self.rnn = kind(I, H, layers, batch_first=True, dtype=torch.float64, **options)
        self.head = nn.Linear(self.rnn.proj_size or H, A, dtype=torch.float64)

    def forward(self, x, state=None, reset=None):
        x = x if x.is_floating_point() else self.embed(x)
        h, state = self.rnn(x.transpose(0, 1), state)
        return self.head(h).transpose(0, 1), state


def linear(W: torch.Tensor) -> Network:
    """h_t = W h_{t-1} + what comes in."""
    net = network("elman:phi=identity", units=len(W))
    with torch.no_grad():
        net.get_parameter("layers.weight_hh_l0").copy_(W)
    return net
