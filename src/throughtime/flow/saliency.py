"""Which inputs an error, or a prediction, depends on: the gradient by the input vector of every step before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.flow.parts import leaf
from throughtime.flow.sampling import undisturbed
from throughtime.nets import Loss, Network, sum_errors
from throughtime.shapes import Tensor
from throughtime.state import State, detach


def saliency(net: nn.Module, loss: Loss | None, chunk: Chunk, t: int, state: State = None) -> NDArray[np.float64]:
    """(T, B): the norm of the gradient of the error at step t by what the network read at each step; zeros after t.

    Of ids it is the gradient by their embedded vector, or by their one-hot row. Without a loss: of the largest output
    at t, the prediction, which needs no targets. In evaluation mode.
    Cost: t + 1 steps forward and backward. Raises ValueError for a step that is not there, TypeError for ids that
    pass through no nn.Embedding.
    """
    if not 0 <= t < chunk.steps:
        raise ValueError(f"t must be a step of the chunk, from 0 to {chunk.steps - 1}; got {t}.")
    past = chunk[: t + 1]
    with undisturbed(net), torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
        x = past.x
        if isinstance(net, Network) and net.embed is None:
            x = net.encode(x)
        with _vectors(net, leaf(x)) as (x, read):
            y, _ = net(x, detach(state), past.reset)
        value = y[t].flatten(1).amax(1).sum() if loss is None else sum_errors(loss, y[t:], past[t:])[0]
        grads = torch.autograd.grad(value, read, allow_unused=True) if value.requires_grad else [None] * len(read)
    found = np.zeros(chunk.x.shape[:2])
    for grad in grads:
        if grad is not None:
            squares = grad.double().square().flatten(2).sum(2)
            found[: t + 1] = np.hypot(found[: t + 1], squares.sqrt().cpu().numpy())
    return found


@contextmanager
def _vectors(net: nn.Module, x: Tensor) -> Iterator[tuple[Tensor, list[Tensor]]]:
    """The input, and the vectors that a gradient is taken by: itself, or what embeddings make of it."""
    if x.is_floating_point():
        yield x, [x]
        return
    read: list[Tensor] = []

    def watch(_: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> Tensor:
        vectors = leaf(made)
        if given[0].shape == x.shape:
            read.append(vectors)
        return vectors

    hooks = [module.register_forward_hook(watch) for module in net.modules() if isinstance(module, nn.Embedding)]
    try:
        yield x, read
    finally:
        for hook in hooks:
            hook.remove()
    if not read:
        raise TypeError("x must be numbers, or ids that all pass through an nn.Embedding at once; got other ids.")
