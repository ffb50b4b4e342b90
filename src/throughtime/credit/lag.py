"""All windows of BPTT(h; 1) at once, lag by lag, with the weights frozen over a segment of time.

With J_t = d s_t / d s_{t-1} and e_t = d loss_t / d s_t, the error of step t reaches the weights of the h steps up to
t. What the windows of all t together bring to step tau is

    G_h[tau] = sum_{k<h} J_{tau+1}^T ... J_{tau+k}^T e_{tau+k}
    G_1[tau] = e_tau,    G_{k+1}[tau] = e_tau + gamma J_{tau+1}^T G_k[tau+1]                   gamma = 1

so h - 1 products, each over all steps, take the place of T windows of h steps (Horner's scheme over the lags of
Williams and Peng's BPTT(h), 1990). gamma < 1 weighs the error at lag k with gamma^k: a window that fades.
A cell is pointwise, so its derivative is a set of factors, made once for all lags:
    du = A ds,    dv = B ds,    ds_{t-1} = P ds + W_h^T dv        A, B, P diagonal in the units
In a stack the error goes down the layers within a step and back a step in all layers: k counts steps of the network.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from throughtime.cells import Cell
from throughtime.chunk import Chunk
from throughtime.credit.base import Credit, Estimate, check_steps, gradient
from throughtime.credit.trace import Layer, Trace, add_layer, carry, check, follow, read
from throughtime.kernels import lags as kernel
from throughtime.nets import Loss, Network, Window, sum_errors
from throughtime.shapes import Bool, Float, Slots, Tensor
from throughtime.stack import direction_of
from throughtime.state import State, detach

BLOCK = 2**22
"""Numbers of a layer's gates that are carried back at once; a longer chunk goes in parts, which changes nothing."""


@dataclass(frozen=True, eq=False)
class Past:
    """What ParallelBPTT holds between two calls: the state after the steps read, and the trace of the last h - 1."""

    state: State = None
    trace: Trace | None = None


@dataclass(frozen=True)
class ParallelBPTT(Credit):
    """BPTT(h), where every error goes back h steps, its own included, settled at every chunk for all its steps at once.

    h      steps that an error goes back, its own included.
    decay  the weight of an error falls by this factor with every step that it goes back, 0 < decay <= 1.

    Equal to BPTT(h) at fixed weights. BPTT(h) settles at every step, so that the weights can change there; this
    settles once a chunk, and pays h - 1 products over the whole chunk where BPTT(h) pays a window a step.
    Steps before the chunk are read as they were when they passed, and the error goes through the weights of now, as
    in BPTT(h, replay=False): off by the order of the learning rate over the first h - 1 steps of a chunk.

    Cost per step: one step forward and h steps back, in large products. Memory: a chunk and h - 1 steps.
    Bias: that of BPTT(h). Not for h above some hundreds: BPTT(2 h, every=h) sends every error back as far, at the
    price of two steps. For the library's own networks; TypeError for others.
    """

    h: int = 32
    decay: float = 1.0
    memories = (Past, Trace, Layer)

    def __post_init__(self) -> None:
        check_steps(h=self.h)
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay must be above 0 and at most 1; got {self.decay}.")

    def start(self, net: nn.Module, state: State = None) -> Past:
        check(net, "ParallelBPTT", "BPTT(h)")
        return Past(detach(state))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Past) -> tuple[Estimate, Past]:
        total = Estimate.nothing(chunk.x)
        if chunk.steps:
            block = _block(net, chunk, self.h)
            for first in range(0, chunk.steps, block):
                estimate, memory = self._settle(net, loss, chunk[first : first + block], memory)
                total += estimate
        return total, Past(memory.state) if chunk.end else memory

    def _settle(self, net: nn.Module, loss: Loss, new: Chunk, memory: Past) -> tuple[Estimate, Past]:
        if isinstance(net, Window):
            with torch.enable_grad():
                prediction, state = net(new.x, memory.state, new.reset)
                error, count = sum_errors(loss, prediction, new)
                grads = gradient(net, error) if count else {}
            return Estimate(error.detach(), count, grads), Past(detach(state))
        assert isinstance(net, Network)
        trace, state = read(net, new, memory.state)
        if memory.trace is not None:
            trace = follow(memory.trace, trace, None)
        estimate = carry(net, loss, trace, new, partial(through_lags_at_once, self, new.steps))
        return estimate, Past(state, last_steps(trace, self.h - 1) if self.h > 1 else None)


def _block(net: nn.Module, chunk: Chunk, h: int) -> int:
    """The steps that are carried back at once: many times h, as h - 1 past steps go with every block."""
    if isinstance(net, Window):
        return chunk.steps
    assert isinstance(net, Network)
    return max(8 * h, BLOCK // (chunk.streams * net.layers.cell.gates * net.layers.units))


def last_steps(part: Any, steps: int) -> Any:
    """A trace, or a part of one, cut to its last steps."""
    if isinstance(part, Tensor):
        return part[-steps:].clone()
    if isinstance(part, tuple):
        return tuple(last_steps(inner, steps) for inner in part)
    if isinstance(part, (Layer, Trace)):
        return type(part)(**{name: last_steps(inner, steps) for name, inner in vars(part).items()})
    return None


@dataclass(frozen=True, eq=False)
class Factors:
    """The backward step of one layer at every step of a trace, as numbers to multiply ds (T, B, 1, H) with.

    du, dv  A and B of each slot (T, B, G, H); the same tensors where the cell has du = dv.
    ds      P, of each slot before the step for each slot after it (T, B, 1, H), None where it is zero throughout.
    """

    du: tuple[Tensor, ...]
    dv: tuple[Tensor, ...]
    ds: tuple[tuple[Tensor | None, ...], ...]
    W_x: Tensor
    W_h: Tensor
    noise: Tensor | None


def factors(net: Network, trace: Trace) -> list[Factors]:
    """The factors of all layers, first layer first; one backward step a slot, with ds = 1 there and 0 elsewhere."""
    return [
        _layer_factors(net.layers.cell, layer, *direction_of(net.layers, f"l{depth}").weights[:2])
        for depth, layer in enumerate(trace.layers)
    ]


def _layer_factors(cell: Cell, layer: Layer, W_x: Tensor, W_h: Tensor) -> Factors:
    zero, one = torch.zeros_like(layer.before), torch.ones_like(layer.before)
    found = [
        cell.backward(tuple(one if other == slot else zero for other in range(cell.slots)), layer.kept)
        for slot in range(cell.slots)
    ]
    du = tuple(each[0] for each in found)
    dv = du if all(each[0] is each[1] for each in found) else tuple(each[1] for each in found)
    before = zip(*(each[2] for each in found), strict=True)
    ds = tuple(tuple(part[:, :, None] if part.any() else None for part in parts) for parts in before)
    return Factors(du, dv, ds, W_x, W_h, layer.noise)


@dataclass(frozen=True, eq=False)
class Space:
    """Where the lags of one layer are worked out, for fresh memory at every lag costs more than the products.

    ds, back  of each slot, ds and what comes back from the step after (T, B, 1, H).
    dv        (T, B, G, H).
    """

    ds: Slots
    back: Slots
    dv: Tensor

    @staticmethod
    def of(layer: Factors) -> Space:
        ds, back = (tuple(torch.zeros_like(part[:, :, :1]) for part in layer.du) for _ in range(2))
        return Space(ds, back, torch.empty_like(layer.dv[0]))


@torch.no_grad()
def lags(
    layers: list[Factors],
    reset: Bool[Tensor, "T B"],
    errors: Float[Tensor, "T B H"],
    new: int,
    h: int,
    gamma: float = 1,
) -> Iterator[tuple[int, list[Slots]]]:
    """For k = 0 ... h - 1 the first step that an error reaches at lag k, and of each layer ds, S tensors (T, B, 1, H),
    zero before that step. They are overwritten at the next lag.

    errors  of the last layer's outputs; only those of the last `new` steps may be other than zero.
    gamma   above 0: G_{k+1}, the sum over the lags up to k, as the errors enter anew at every lag (Horner).
            0: what arrives at lag k alone, where ds of step tau belongs to the error of step tau + k.
    """
    cuts = reset[..., None, None] if reset.any() else None
    spaces = [Space.of(layer) for layer in layers]
    errors = errors[:, :, None]
    for k in range(h):
        first = max(0, len(errors) - new - k)
        above = errors[first:] if gamma or not k else torch.zeros_like(errors[first:])
        for depth in reversed(range(len(layers))):
            layer, (top, *others) = layers[depth], spaces[depth].ds
            torch.add(spaces[depth].back[0][first:], above, out=top[first:])
            for ds, back in zip(others, spaces[depth].back[1:], strict=True):
                ds[first:] = back[first:]
            if depth:
                above = (times(layer.du, (top, *others), first).flatten(2) @ layer.W_x)[:, :, None]
                above = above if layer.noise is None else above * layer.noise[first:, :, None]
            if k + 1 < h:
                _carry_back(layer, spaces[depth], max(1, first), cuts, gamma or 1)
        yield first, [space.ds for space in spaces]


def times(parts: tuple[Tensor, ...], ds: Slots, first: int, out: Tensor | None = None) -> Float[Tensor, "T B G H"]:
    """The sum over the slots of ds with their factors, of the steps from first on."""
    total = torch.mul(parts[0][first:], ds[0][first:], out=out)
    for part, slot in zip(parts[1:], ds[1:], strict=True):
        total.addcmul_(part[first:], slot[first:])
    return total


def _carry_back(layer: Factors, space: Space, start: int, cuts: Tensor | None, gamma: float) -> None:
    """Write what ds of the steps from `start` on, 1 or later, sends one step back to the place of that step."""
    GH, H = layer.W_h.shape
    dv = times(layer.dv, space.ds, start, space.dv[start:])
    torch.mm(dv.view(-1, GH), layer.W_h, out=space.back[0][start - 1 : -1].view(-1, H))
    for index, parts in enumerate(layer.ds):
        back = space.back[index][start - 1 : -1]
        if index:
            back.zero_()
        for part, ds in zip(parts, space.ds, strict=True):
            if part is not None:
                back.addcmul_(part[start:], ds[start:])
        if gamma != 1:
            back *= gamma
        if cuts is not None:
            back.masked_fill_(cuts[start:], 0)


def through_lags_at_once(
    credit: ParallelBPTT, new: int, net: Network, trace: Trace, dh: Tensor, grads: dict[int, Tensor]
) -> Tensor:
    """As through_layers, h steps back from each of the new steps."""
    layers = factors(net, trace)
    last = _summed(credit, new, net, layers, trace.reset, dh)
    dx = dh
    for depth, (layer, ds) in reversed(list(enumerate(zip(layers, last, strict=True)))):
        du = times(layer.du, ds, 0)
        dv = du if layer.dv is layer.du else times(layer.dv, ds, 0)
        dx = add_layer(net, trace, depth, du, dv, grads)
    return dx


def _summed(
    credit: ParallelBPTT, new: int, net: Network, layers: list[Factors], reset: Tensor, errors: Tensor
) -> list[Slots]:
    """G_h of each layer; of a single one by the compiled kernel where it runs."""
    if len(layers) == 1 and net.layers.backend in ("auto", "native"):
        layer = layers[0]
        if not kernel.refusal(net.layers.cell, layer.W_h, errors, *layer.dv):
            cuts = reset if reset.any() else None
            return [
                kernel.carry(layer.dv, layer.ds, layer.W_h, errors, cuts, fresh=new, h=credit.h, gamma=credit.decay)
            ]
    for _, found in lags(layers, reset, errors, new, credit.h, credit.decay):
        last = found
    return last
