"""Gradient descent on one sequence, W <- W - eta dW, under BPTT(h) for every h: what the page shows of learning.

dW is the sum over the steps, never divided by their number. With h = T nothing is cut: epochwise BPTT.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch

from throughtime.credit import ParallelBPTT
from throughtime.explain.passes import Forward, forward
from throughtime.explain.problem import Problem
from throughtime.nets import Network
from throughtime.shapes import Tensor

MOMENTS = (0, 1, 2, 3, 4, 5, 10, 20, 50, 100)
"""Updates after which the whole network is kept; its loss is kept after every one."""


@dataclass(frozen=True, eq=False)
class Descent:
    """The training under one h.

    losses   the sum of the errors before the first update and after each.
    grads    by name of parameter, under the first weights.
    weights  by name, at each of MOMENTS; passes: the forward pass then.
    """

    losses: tuple[float, ...]
    grads: dict[str, Tensor]
    weights: tuple[dict[str, Tensor], ...]
    passes: tuple[Forward, ...]


def descend(net: Network, problem: Problem, h: int, rate: float) -> Descent:
    """Train a copy of the network. Raises ValueError when a loss is not finite."""
    net, credit = deepcopy(net), ParallelBPTT(h)  # equal to BPTT(h) where the weights change once a sequence
    losses: list[float] = []
    weights, passes = [], []
    first: dict[str, Tensor] = {}
    for update in range(MOMENTS[-1] + 1):
        estimate, _ = credit(net, problem.loss, problem.chunk, credit.start(net))
        first = first or estimate.grads
        losses.append(estimate.loss.item())
        if not torch.isfinite(estimate.loss):
            raise ValueError(f"--rate must be lower: with {rate:g} the loss is {losses[-1]} after {update} updates.")
        if update in MOMENTS:
            weights.append({name: weight.detach().clone() for name, weight in net.named_parameters()})
            passes.append(forward(net, problem))
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if name in estimate.grads:
                    weight.sub_(rate * estimate.grads[name])
    return Descent(tuple(losses), first, tuple(weights), tuple(passes))
