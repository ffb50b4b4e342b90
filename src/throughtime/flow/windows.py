"""The error by lag of any module that carries a state, one step back at a time, by automatic differentiation.

    d loss_t / d s_{t-k-1} = (d loss_t / d s_{t-k}) J_{t-k},        J_t = d s_t / d s_{t-1}
    d loss_t / d W at t-k  = (d loss_t / d s_{t-k}) d s_{t-k} / d W   with s_{t-k-1} held fixed

The windows that lead to the sampled steps run side by side as streams, each step in a graph of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.flow.error import FLOOR
from throughtime.flow.parts import leaf, names, parted, real, recurrence, squared
from throughtime.flow.sampling import side_by_side, states_before
from throughtime.nets import Loss, sum_errors
from throughtime.shapes import Bool, Float, Tensor
from throughtime.state import State, change

ROWS = 64
"""Streams that run side by side: memory is for as many times the lags."""

Norms = dict[str, NDArray[np.float64]]
"""By part of the state (K, N, B), from lag 0 on; NaN at lag 0 for a part that is not seen there."""


def by_windows(
    net: nn.Module, loss: Loss, chunk: Chunk, at: NDArray[np.int64], lags: int, state: State
) -> tuple[Norms, NDArray[np.float64] | None, NDArray[np.bool_]]:
    """The norms by part of the state; those (N, B) of what the net's `readout` reads at t, None without one; and where
    an error has a gradient at all, (N, B)."""
    each = [_by_windows(net, loss, chunk, some, lags, state) for some in _groups(at, chunk.streams)]
    norms = {name: np.concatenate([found[name] for found, *_ in each], 1) for name in each[0][0]}
    outlets = [outlet for _, outlet, _ in each if outlet is not None]
    return norms, np.concatenate(outlets) if outlets else None, np.concatenate([felt for *_, felt in each])


def _by_windows(
    net: nn.Module, loss: Loss, chunk: Chunk, at: NDArray[np.int64], lags: int, state: State
) -> tuple[Norms, NDArray[np.float64] | None, NDArray[np.bool_]]:
    walk = _Walk(net, loss, chunk, at, lags, state)
    found = {name: np.full((lags + 1, len(at), chunk.streams), np.nan) for name in walk.names}
    for k, (_, deltas) in enumerate(walk.back([]), 1):
        for name, part in zip(walk.names, _each(deltas, walk.shapes), strict=True):
            found[name][k] = _norms(part, len(at), chunk.streams)
    outlet = None
    if walk.read is not None:
        outlet = _norms(walk.outlet, len(at), chunk.streams)
    known = recurrence(net)
    if outlet is not None and known is not None and f"h of layer {known.depth}" in found:
        found[f"h of layer {known.depth}"][0] = outlet
    return found, outlet, walk.felt.view(len(at), -1).cpu().numpy()


def gradient_by_lag(
    net: nn.Module, loss: Loss, chunk: Chunk, at: NDArray[np.int64], h: Sequence[int], state: State
) -> Float[Tensor, "R P"]:
    """What the errors of the sampled steps add to the gradient of the weights that learn, between one h and the next.

    Row i: from the uses of the weights at lags h[i - 1] to h[i] - 1 (from 0 on in the first row), so that the rows up
    to i add up to the gradient of BPTT(h[i]); h ascends. On the CPU.
    """
    weights = [weight for weight in net.parameters() if weight.requires_grad]
    total = torch.zeros(len(h), sum(weight.numel() for weight in weights), dtype=weights[0].dtype)
    for some in _groups(at, chunk.streams):
        for k, (grads, _) in enumerate(_Walk(net, loss, chunk, some, h[-1], state).back(weights)):
            flat = [torch.zeros_like(w) if g is None else g for w, g in zip(weights, grads, strict=True)]
            total[int(np.searchsorted(h, k, side="right"))] += torch.cat([g.flatten() for g in flat]).cpu()
    return total


def _groups(at: NDArray[np.int64], streams: int) -> list[NDArray[np.int64]]:
    """The sampled steps, a few at a time, so that their graphs are of at most ROWS streams, or of one sample."""
    size = max(1, ROWS // streams)
    return [at[first : first + size] for first in range(0, len(at), size)]


def _norms(part: Tensor | None, samples: int, streams: int) -> NDArray[np.float64]:
    """(N, B) of a gradient with the streams of all samples; what is no number overflowed: infinity times zero."""
    if part is None:
        return np.zeros((samples, streams))
    norms = squared(part).sqrt().view(samples, streams).cpu().numpy()
    return np.nan_to_num(norms, nan=np.inf, posinf=np.inf)


class _Walk:
    """The windows of the sampled steps: forward at once, a graph a step, and back once."""

    def __init__(
        self, net: nn.Module, loss: Loss, chunk: Chunk, at: NDArray[np.int64], steps: int, state: State
    ) -> None:
        state = states_before(net, chunk, at - steps + 1, state)
        windows = side_by_side([chunk[t - steps + 1 : t + 1] for t in map(int, at)])
        self.outlet: Tensor | None = None
        self.tape: list[tuple[list[Tensor], list[Tensor]]] = []  # the state before each step, and after it
        # cuDNN's recurrent functions have no backward in evaluation mode; torch's own have.
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _read_by_readout(net) as outlets:
            state = change(leaf, state)
            for t in range(steps):
                step = windows[t : t + 1]
                before = real(state)
                y, after = net(step.x, state, step.reset)
                self.tape.append((before, real(after)))
                state = change(leaf, after)
            self.names = names(net, state)
            self.shapes = [part.shape for part in self.tape[-1][1]]
            self.error, _ = sum_errors(loss, y, windows[steps - 1 :])
            self.read = outlets[-1] if outlets else None
            self.felt = _felt(self.error, y)
        if not self.error.isfinite():
            raise ValueError(f"net must give finite errors to measure; got {self.error.item()}. Look at its weights.")

    def back(self, weights: Sequence[Tensor]) -> Iterator[tuple[list[Tensor | None], list[Tensor | None]]]:
        """From the last step to the first: the gradients of the weights in that step, and of the state before it."""
        outputs: list[Tensor] = [self.error]
        deltas: list[Tensor | None] = [torch.ones_like(self.error)]
        read = [] if self.read is None else [self.read]
        while self.tape:
            before, _ = self.tape.pop()
            grads = _pulled(outputs, deltas, [*weights, *before, *read])
            if read:
                (self.outlet,), read = grads[len(weights) + len(before) :], []
            deltas = grads[len(weights) : len(weights) + len(before)]
            outputs = self.tape[-1][1] if self.tape else []
            yield grads[: len(weights)], deltas


def _felt(error: Tensor, y: Tensor) -> Bool[Tensor, " B"]:
    """Where the summed error has a gradient by the prediction y of one step, (1, B, ...)."""
    if not (error.requires_grad and y.requires_grad):
        return torch.ones(y.shape[1], dtype=torch.bool, device=y.device)
    (grad,) = torch.autograd.grad(error, y, retain_graph=True, materialize_grads=True)
    return grad.double().reshape(y.shape[1], -1).norm(dim=1) > FLOOR


def _pulled(
    outputs: Sequence[Tensor], deltas: Sequence[Tensor | None], inputs: Sequence[Tensor]
) -> list[Tensor | None]:
    """The gradients of inputs from those of outputs; None where nothing arrives."""
    pairs = [(o, d) for o, d in zip(outputs, deltas, strict=True) if d is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    reached, given = zip(*pairs, strict=True)
    return list(torch.autograd.grad(reached, inputs, given, allow_unused=True))


def _each(deltas: Sequence[Tensor | None], shapes: Sequence[torch.Size]) -> Iterator[Tensor | None]:
    """As parted, with None for every part of a tensor that nothing arrives at."""
    for delta, shape in zip(deltas, shapes, strict=True):
        yield from (None,) * (shape[0] if len(shape) > 2 else 1) if delta is None else parted([delta])


@contextmanager
def _read_by_readout(net: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what the net's `readout` reads at each step; stays empty where there is none."""
    outlets: list[Tensor] = []
    readout = getattr(net, "readout", None)
    if not isinstance(readout, nn.Module):
        yield outlets
        return
    hook = readout.register_forward_pre_hook(lambda _, read: outlets.append(_watched(read[0])))
    try:
        yield outlets
    finally:
        hook.remove()


def _watched(part: Tensor) -> Tensor:
    """The tensor, as a part of the graph from here on if a gradient can reach it."""
    return part.requires_grad_() if part.is_floating_point() and not part.requires_grad else part
