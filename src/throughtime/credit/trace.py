"""The past as it was: activations kept when the stream passed, and delta carried back through the weights of now.

    delta_t^l = P'(kept_t^l) [ e_t + W_h^T delta_{t+1}^l + W_x^{l+1 T} delta_t^{l+1} ]       W as it is now
    dW_h^l = sum_t delta_t^l h_{t-1}^{l T},  dW_x^l = sum_t delta_t^l x_t^{l T}              h, x as they were

Williams and Peng (1990), with the activations of then and the weights of now; Mikolov's rnnlm does the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import linear

from throughtime import kernels, sweep
from throughtime.cells.base import Gates, Kept
from throughtime.chunk import Chunk
from throughtime.credit.base import Estimate, learning
from throughtime.nets import Loss, Network, Window, sum_errors
from throughtime.shapes import Slots, Tensor
from throughtime.stack import direction_of


@dataclass(frozen=True, eq=False)
class Layer:
    """One layer over a window: its inputs (T, B, I), the h that entered each step (T, B, H), what the cell kept,
    and the dropout factors that its inputs were multiplied with, if any."""

    x: Tensor
    before: Tensor
    kept: Kept
    noise: Tensor | None


@dataclass(frozen=True, eq=False)
class Trace:
    """All layers over a window, with the network's input, its restarts, and the last layer's output (T, B, H)."""

    x: Tensor
    reset: Tensor
    layers: tuple[Layer, ...]
    h: Tensor


Back = Callable[[Network, Trace, Tensor, dict[int, Tensor]], Tensor]
"""Adds the gradients of all layers to those by id, from dL/dh of the last layer; returns dL/dx of the first."""


def check(net: nn.Module, what: str = "replay=False", instead: str = "replay=True") -> None:
    """Raise TypeError unless the activations of this network can be kept, as `what` needs; `instead` does without."""
    plain = {id(weight) for weight in net.parameters()}
    if type(net) is Window or (type(net) is Network and all(id(w) in plain for w in _weights(net))):
        return
    raise TypeError(
        f"net must be a Network with plain weights for {what}; got {type(net).__name__}. "
        f"Its activations cannot be kept apart from its graph: use {instead}."
    )


def _weights(net: Network) -> Iterator[Tensor]:
    """The weights that delta is carried through by hand."""
    for depth in range(net.layers.depth):
        yield from (weight for weight in direction_of(net.layers, f"l{depth}").weights if weight is not None)
    if net.embed is not None:
        yield net.embed.weight


@torch.no_grad()
def read(net: Network, chunk: Chunk, state: Slots | None) -> tuple[Trace, Slots]:
    """Pass the stream over a chunk and keep its activations; also the state after it."""
    layers, cell = net.layers, net.layers.cell
    x = net.encode(chunk.x)
    state = layers.start(x) if state is None else state
    reset = chunk.reset
    traced: list[Layer] = []
    last: list[Slots] = []
    for depth in range(layers.depth):
        noise = None
        if depth and layers.dropout:
            noise = drop(torch.ones_like(x), layers.dropout, layers.training)
            x = x * noise
        W_x, W_h, b_x, b_h = weights = direction_of(layers, f"l{depth}").weights
        u = linear(x, W_x, b_x).unflatten(-1, (cell.gates, layers.units))
        s0 = tuple(slot[depth] for slot in state)
        if cell.slots == 1:  # else the kernels do not say what the slots beside h were
            states: Slots = (kernels.run(cell, x, weights, s0, reset=reset, backend=layers.backend)[0],)
        else:
            states = sweep.forward(cell, u, W_h, b_h, s0, reset)
        before, kept = sweep.recall(cell, u, W_h, b_h, s0, states, reset)
        traced.append(Layer(x, before[0], kept, noise))
        last.append(tuple(slot[-1] for slot in states))
        x = states[0]
    cuts = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device) if reset is None else reset
    ids = chunk.x if chunk.x.is_floating_point() else chunk.x.long()
    return Trace(ids, cuts, tuple(traced), x), tuple(torch.stack(slots) for slots in zip(*last, strict=True))


def follow(past: Trace, new: Trace, h: int | None) -> Trace:
    """Two traces as one, cut to its last h steps."""

    def joined(a: Any, b: Any) -> Any:
        if isinstance(a, Tensor):
            return torch.cat((a, b))[-h if h else 0 :]
        if isinstance(a, tuple):
            return tuple(joined(x, y) for x, y in zip(a, b, strict=True))
        if isinstance(a, (Layer, Trace)):
            return replace(a, **{name: joined(part, getattr(b, name)) for name, part in vars(a).items()})
        return None

    return joined(past, new)


def carry(net: Network, loss: Loss, trace: Trace, new: Chunk, back: Back | None = None) -> Estimate:
    """Inject the errors of the new steps, the last of the trace, and carry them back through the weights of now.

    back  how: through_layers, all the way, when left out.
    """
    steps = trace.h.shape[0]
    top = trace.h[steps - new.steps :].detach().requires_grad_()
    with torch.enable_grad():
        error, count = sum_errors(loss, net.readout(drop(top, net.dropout, net.training)), new)
    if not count:
        return Estimate(error.detach(), count, {})
    readout = [weight for weight in net.readout.parameters() if weight.requires_grad]
    dtop, *found = torch.autograd.grad(error, [top, *readout])
    grads = {id(weight): grad for weight, grad in zip(readout, found, strict=True)}
    dh = torch.cat((torch.zeros_like(trace.h[: steps - new.steps]), dtop))
    with torch.no_grad():
        dx = (back or through_layers)(net, trace, dh, grads)
        if net.embed is not None:
            table = torch.zeros_like(net.embed.weight)
            _add(grads, net.embed.weight, table.index_add_(0, trace.x.flatten(), dx.flatten(0, 1)))
    named = {id(weight): name for name, weight in learning(net).items()}
    return Estimate(error.detach(), count, {named[key]: grad for key, grad in grads.items() if key in named})


def through_layers(net: Network, trace: Trace, dh: Tensor, grads: dict[int, Tensor]) -> Tensor:
    """Delta through the layers from the last to the first; adds to grads, by id; returns dL/dx of the first."""
    cell = net.layers.cell
    for depth, layer in reversed(list(enumerate(trace.layers))):
        W_h = direction_of(net.layers, f"l{depth}").weights.W_h
        errors = (dh, *(None,) * (cell.slots - 1))
        du, dv, _ = sweep.backward(cell, layer.kept, W_h, trace.reset, errors)
        dh = add_layer(net, trace, depth, du, dv, grads)
    return dh


def add_layer(net: Network, trace: Trace, depth: int, du: Gates, dv: Gates, grads: dict[int, Tensor]) -> Tensor:
    """Add the gradients of a layer's weights to grads, by id; returns dL/dx of its inputs."""
    layer = trace.layers[depth]
    W_x, W_h, b_x, b_h = direction_of(net.layers, f"l{depth}").weights
    du, dv = du.flatten(2).flatten(0, 1), dv.flatten(2).flatten(0, 1)  # TB GH
    _add(grads, W_x, du.T @ layer.x.flatten(0, 1))
    _add(grads, W_h, dv.T @ layer.before.flatten(0, 1))
    _add(grads, b_x, du.sum(0))
    _add(grads, b_h, dv.sum(0))
    dx = (du @ W_x).view_as(layer.x)
    return dx if layer.noise is None else dx * layer.noise


def _add(grads: dict[int, Tensor], weight: Tensor | None, grad: Tensor) -> None:
    grads[id(weight)] = grads[id(weight)] + grad if id(weight) in grads else grad
