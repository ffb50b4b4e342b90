"""A network whose step is a token with features: the mean of their vectors enters a SequenceNetwork."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import embedding_bag

from throughtime.inputs import check_sizes
from throughtime.kernels import check_ids
from throughtime.layers import Recurrent
from throughtime.sequence_network import SequenceNetwork, Windowed
from throughtime.shapes import Bool, Float, Int, Tensor
from throughtime.state import State

UNKNOWN = 1


class TokenNetwork(nn.Module):
    """Features of tokens -> mean of their vectors -> SequenceNetwork.

    inputs      different ids; 0 means no feature and counts in no mean, 1 is the token that is not known.
    embedding   width of the vectors.
    forget      share of tokens whose own id is read as 1 in training, so that the other features learn to stand for it.
    cell, units, outputs, layers, dropout, reads, bidirectional, window, backend   as in SequenceNetwork; dropout also
                falls on what enters the first layer.

    Call: `net(x, state, reset) -> (y, state)` with ids (T, B), or (T, B, F) of which the first is the token's own.
    """

    def __init__(
        self,
        cell: str,
        *,
        inputs: int,
        embedding: int,
        units: int,
        outputs: int,
        layers: int = 1,
        dropout: float = 0.0,
        forget: float = 0.0,
        reads: str = "each",
        bidirectional: bool = False,
        window: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, embedding=embedding)
        if not 0 <= forget < 1:
            raise ValueError(f"forget must be at least 0 and below 1; got {forget}.")
        self.inputs, self.forget = inputs, forget
        self.embed = nn.Embedding(inputs, embedding, padding_idx=0)
        self.read = SequenceNetwork(
            cell,
            inputs=embedding,
            units=units,
            outputs=outputs,
            layers=layers,
            dropout=dropout,
            reads=reads,
            bidirectional=bidirectional,
            window=window,
            backend=backend,
        )

    @property
    def layers(self) -> Recurrent | Windowed:
        """The layers of the SequenceNetwork."""
        return self.read.layers

    @property
    def readout(self) -> nn.Linear:
        """The readout of the SequenceNetwork."""
        return self.read.readout

    def forward(
        self,
        x: Int[Tensor, "T B"] | Int[Tensor, "T B F"],
        state: State = None,
        reset: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B A"], State]:
        h, state = self.summaries(x, state, reset)
        return self.readout(drop(h, self.read.dropout, self.training)), state

    def summaries(self, x: Tensor, state: State = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """What the readout is of, as in SequenceNetwork; and the state."""
        return self.read.summaries(drop(self.vectors(x), self.read.dropout, self.training), state, reset)

    def vectors(self, x: Tensor) -> Float[Tensor, "T B E"]:
        """The mean vector of every token's features. Raises ValueError for what are no ids (T, B) or (T, B, F)."""
        if x.is_floating_point() or x.dim() not in (2, 3):
            raise ValueError(f"x must be ids (T, B) or (T, B, F); got {x.dtype} {tuple(x.shape)}.")
        check_ids("x", x, self.inputs)
        x = x.long() if x.dim() == 3 else x.long()[..., None]
        if self.training and self.forget:
            own = x[..., :1]
            gone = (torch.rand(own.shape, device=x.device) < self.forget) & (own > 0)
            x = torch.cat((own.masked_fill(gone, UNKNOWN), x[..., 1:]), -1)
        return embedding_bag(x.flatten(0, 1), self.embed.weight, mode="mean", padding_idx=0).view(*x.shape[:2], -1)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; `build` makes the network anew from them."""
        inner = self.read.config()
        del inner["noise"]
        return {
            **inner,
            "network": "tokens",
            "inputs": self.inputs,
            "embedding": self.embed.embedding_dim,
            "forget": self.forget,
        }
