"""Real-time recurrent learning: the influence of the weights on the state is carried forward, and nothing goes back.

    M_t = J_t M_{t-1} + dP/dtheta          M = ds/dtheta,  J_t = ds_t/ds_{t-1}
    dL_t/dtheta = (dL_t/ds_t) M_t

Williams and Zipser (1989). With the weights frozen over a chunk of T steps from state s_0 to state s_T the same is
    dL/dtheta = the errors through the chunk's own steps + (dL/ds_0) M_0
    M_T = J M_0 + ds_T/dtheta through the chunk's own steps            J = J_T ... J_1
so that a chunk costs one product with the influence in place of T. A row that restarts forgets its influence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit.base import Credit, Estimate, add, learning
from throughtime.credit.influence import Linear, by_name, inject, is_plain, linearise, mix
from throughtime.credit.trace import Trace, read
from throughtime.nets import Loss, Network, Window, sum_errors
from throughtime.shapes import Float, Tensor
from throughtime.state import State, change, detach


@dataclass(frozen=True, eq=False)
class Memory:
    """What RTRL holds between two calls.

    state      the state of the stream.
    influence  its derivative by the weights, (B, N, ...): N entries of the state of a stream (of a Network, those
               that the weights can reach) by U and V of every layer and E, or by every parameter of another module.
               Empty before the first chunk, where it is zero.
    """

    state: State = None
    influence: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class RTRL(Credit):
    """Exact real-time recurrent learning: every chunk settles its own errors, all the way back, at once.

    For n entries of a stream's state and P weights, memory is n P a stream, however long the stream. A chunk of T
    steps costs a stream n^2 P + T n P operations for a Network; its steps are linearised through the cell's own
    derivative, and only a product n by n with W_h is left in the loop. Any other module `net(x, state, reset)` is
    run step by step, with one backward pass for every entry of the state of every stream and chunk.
    Bias: none at fixed weights. After an update the influence that is carried belongs to the weights of before: it is
    stale by the order of the learning rate. Not for wide networks: n P is cubic in the number of units, n^2 P quartic.
    The state must be tensors with the streams on axis -2, and streams must not see each other.
    """

    memories = (Memory,)

    def start(self, net: nn.Module, state: State = None) -> Memory:
        return Memory(detach(state))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        if not chunk.steps:
            estimate = Estimate.nothing(chunk.x)
        elif is_plain(net):
            assert isinstance(net, Network)
            estimate, memory = _structured(net, loss, chunk, memory)
        else:
            estimate, memory = _generic(net, loss, chunk, memory)
        return estimate, self.start(net, memory.state) if chunk.end else memory


@torch.no_grad()
def _structured(net: Network, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
    trace, state = read(net, chunk, memory.state)
    error, count, dtop, readout = inject(net, loss, trace, chunk)
    layers = linearise(net, trace)
    if chunk.steps == 1 and len(layers) == 1:
        grads, influence = _one_step(net, layers[0], trace.x[0], dtop[0], memory.influence)
    else:
        grads, influence = _many_steps(net, layers, trace, dtop, memory.influence)
    estimate = Estimate(error, count, by_name(net, grads, readout) if count else {})
    return estimate, Memory(state, influence)


def _many_steps(
    net: Network, layers: tuple[Linear, ...], trace: Trace, dtop: Float[Tensor, "T B H"], before: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The gradient of a chunk by parts, and the influence after it."""
    moved = transport(net, layers, trace, dtop)
    for name, M in before.items():
        n, flat = M.shape[1], M.flatten(2)
        grad, now = moved.grads[name], moved.immediate[name]
        grad += (moved.ds[:, :n].reshape(1, -1) @ flat.flatten(0, 1)).view(grad.shape)
        now.flatten(2).baddbmm_(moved.J[:, :n, :n], flat)
    return moved.grads, moved.immediate


def _one_step(
    net: Network, layer: Linear, ids: Tensor, dh: Float[Tensor, "B H"], before: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same for one step of one layer, where each weight feeds one unit, so that nothing need go back."""
    J = layer.steps(slice(0, 1))[0]
    B, S, G, H = layer.D_u.shape[1:]
    now: dict[str, Tensor] = {}
    for name, D, z in (("U0", layer.D_u[0], layer.x[0]), ("V0", layer.D_v[0], layer.h[0])):
        M = torch.bmm(J, before[name].flatten(2)) if before else J.new_zeros(B, S * H, G * H * z.shape[1])
        own = M.view(B, S, H, G, H, -1).diagonal(dim1=2, dim2=4)  # B S G Z H
        own += D.unsqueeze(3) * z[:, None, None, :, None]
        now[name] = M.view(B, S * H, G * H, -1)
    if net.embed is not None:
        table = net.embed.weight
        M = torch.bmm(J, before["E"].flatten(2)) if before else J.new_zeros(B, S * H, table.numel())
        now["E"] = M.view(B, S * H, *table.shape)
        W_x = layer.W_x.unflatten(0, (G, H))
        K = torch.einsum("bsgi,gij->bsij", layer.D_u[0], W_x).flatten(1, 2)  # B SH E
        now["E"][torch.arange(B, device=ids.device), :, ids] += K
    return {name: torch.einsum("bh,bhpz->pz", dh, M[:, :H]) for name, M in now.items()}, now


@dataclass(frozen=True, eq=False)
class Moved:
    """What a chunk does, from its first state to its last.

    J          the derivative of the last state by the first.
    ds         what the errors put on the first state.
    immediate  the derivative of the last state by the parts of the weights, through the chunk's own steps.
    grads      what the errors put on the parts of the weights, through the chunk's own steps.
    """

    J: Float[Tensor, "B N N"]
    ds: Float[Tensor, "B N"]
    immediate: dict[str, Tensor]
    grads: dict[str, Tensor]


def transport(net: Network, layers: tuple[Linear, ...], trace: Trace, dtop: Float[Tensor, "T B H"]) -> Moved:
    """Carry the errors of a chunk, and beside them one unit error for every entry of its last state, back to its start.

    Of R rows that go back together the first is the chunk's errors, the others are in the order of the state's
    vector; a layer sees the rows of its own and the layers above, which are the first ones.
    """
    rows = [1 + sum(layer.width for layer in layers[depth:]) for depth in range(len(layers))]
    carried = [_unit_errors(layer, count) for layer, count in zip(layers, rows, strict=True)]
    sums = _Sums()
    for part in _blocks(layers):
        up = dtop[part].unsqueeze(2)  # T B R H
        for depth in reversed(range(len(layers))):
            layer = layers[depth]
            ds, carried[depth] = _back(layer, part, carried[depth], up)
            du = mix(ds, layer.D_u[part].unsqueeze(2))  # T B R G H
            dv = du if layer.D_v is layer.D_u else mix(ds, layer.D_v[part].unsqueeze(2))
            sums.add(f"U{depth}", du, layer.x[part])
            sums.add(f"V{depth}", dv, layer.h[part])
            if depth or net.embed is not None:
                up = layer.to_inputs(du, part)
        if net.embed is not None:
            sums.add_table(up, trace.x[part], net.inputs)
    ends = carried[::-1]
    ds = torch.cat([end[:, 0] for end in ends], 1)
    J = torch.cat([nn.functional.pad(end[:, 1:], (0, 0, 0, rows[0] - end.shape[1])) for end in ends], 2)
    return Moved(J, ds, sums.immediate, sums.grads)


class _Sums:
    """Sums over the blocks of a chunk by parts: the first row's for the gradient, the others' for the influence."""

    def __init__(self) -> None:
        self.grads: dict[str, Tensor] = {}
        self.immediate: dict[str, Tensor] = {}

    def add(self, name: str, d: Float[Tensor, "T B R G H"], z: Float[Tensor, "T B Z"]) -> None:
        rows = d.flatten(3)  # T B R GH
        first = rows[:, :, 0].flatten(0, 1).T @ z.flatten(0, 1)
        others = rows[:, :, 1:].flatten(2).permute(1, 2, 0)  # B NGH T
        if name in self.grads:
            self.grads[name] += first
            self.immediate[name].flatten(1, 2).baddbmm_(others, z.transpose(0, 1))
        else:
            self.grads[name] = first
            self.immediate[name] = torch.bmm(others, z.transpose(0, 1)).unflatten(1, (-1, rows.shape[3]))

    def add_table(self, dx: Float[Tensor, "T B R E"], ids: Tensor, V: int) -> None:
        _, B, R, E = dx.shape
        own = (ids + V * torch.arange(B, device=ids.device)).flatten()
        table = dx.new_zeros(B * V, R * E).index_add_(0, own, dx.flatten(2).flatten(0, 1))
        every = table.view(B, V, R, E).transpose(1, 2)  # B R V E
        for sums, new in ((self.grads, every[:, 0].sum(0)), (self.immediate, every[:, 1:])):
            sums["E"] = sums["E"] + new if "E" in sums else new.contiguous()


def _unit_errors(layer: Linear, rows: int) -> Float[Tensor, "B R SH"]:
    """No error on a layer's last state, but a one for each of its own entries, the last rows."""
    B, width = layer.x.shape[1], layer.width
    ones = torch.eye(width, dtype=layer.h.dtype, device=layer.h.device)
    return nn.functional.pad(ones, (0, 0, rows - width, 0)).expand(B, rows, width)


def _blocks(layers: tuple[Linear, ...]) -> Iterator[slice]:
    """The last steps first: so many that what is kept of them takes no more than the influence itself."""
    T = layers[0].x.shape[0]
    most = max(layer.x.shape[2] + layer.h.shape[2] for layer in layers)
    for stop in range(T, 0, -most):
        yield slice(max(0, stop - most), stop)


def _back(
    layer: Linear, part: slice, last: Float[Tensor, "B R SH"], up: Float[Tensor, "T B R H"]
) -> tuple[Float[Tensor, "T B R S H"], Float[Tensor, "B R SH"]]:
    """The errors on a layer's states at every step of a part, and on the state before it.

    last: on the state after it. up: on each h, from above, for the first rows.
    """
    (T, B, fed, H), (_, R, SH) = up.shape, last.shape
    ds = last.new_empty(T + 1, B, R, SH)
    ds[T] = last
    steps, J, errors = ds.unbind(0), layer.steps(part).unbind(0), up.unbind(0)
    into_h = ds[1:, :, :fed, :H].unbind(0)
    for t in reversed(range(T)):
        into_h[t].add_(errors[t])
        torch.bmm(steps[t + 1], J[t], out=steps[t])
    return ds[1:].unflatten(-1, (-1, H)), ds[0]


def _generic(net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
    """Any module: autograd's graph of the chunk, asked for its errors and then for every entry of its last state."""
    start = change(_leaf, memory.state)
    weights, parts = learning(net), _tensors(start)
    with torch.enable_grad():
        prediction, state = net(chunk.x, start, chunk.reset)
        error, count = sum_errors(loss, prediction, chunk)
    leaves = [*weights.values(), *parts]
    grads: dict[str, Tensor] = {}
    if count:
        if not error.requires_grad:
            raise ValueError("net must have parameters that its errors depend on; got an error without a gradient.")
        found = torch.autograd.grad(error, leaves, retain_graph=True, allow_unused=True)
        grads = {name: grad for name, grad in zip(weights, found, strict=False) if grad is not None}
        if memory.influence:
            ds = _vectors(parts, found[len(weights) :])
            through = {name: torch.einsum("bn,bn...->...", ds, M) for name, M in memory.influence.items()}
            grads = add(grads, {name: grad for name, grad in through.items() if name in weights})
    influence = {} if isinstance(net, Window) else _influence(weights, parts, _tensors(state), memory.influence)
    return Estimate(error.detach(), count, grads), Memory(detach(state), influence)


def _leaf(part: Tensor) -> Tensor:
    return part.detach().requires_grad_(part.is_floating_point())


def _tensors(state: State) -> list[Tensor]:
    """The tensors of a state that can have a derivative."""
    found: list[Tensor] = []
    change(lambda part: found.append(part) or part, state)  # type: ignore[func-returns-value]
    return [part for part in found if part.is_floating_point()]


def _vectors(parts: Sequence[Tensor], values: Sequence[Tensor | None]) -> Float[Tensor, "B N"]:
    """Values of the shapes of a state's tensors, None being zeros, as one vector a stream."""
    filled = [torch.zeros_like(part) if value is None else value for part, value in zip(parts, values, strict=True)]
    return torch.cat([value.movedim(-2, 0).flatten(1) for value in filled], 1)


def _influence(
    weights: Mapping[str, Tensor], parts: list[Tensor], ends: list[Tensor], before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """M of the last state, from one backward pass for every entry of it; before: M of the first."""
    if not ends:
        return {}
    with torch.enable_grad():
        last = _vectors(ends, ends)
    B, N = last.shape
    now = {name: weight.new_zeros(B, N, *weight.shape) for name, weight in weights.items()}
    J = torch.zeros_like(last).unsqueeze(2).expand(B, N, N).clone()
    for b, n in product(range(B), range(N if last.requires_grad else 0)):
        leaves = [*weights.values(), *parts]
        found = torch.autograd.grad(last[b, n], leaves, retain_graph=True, allow_unused=True)
        for M, grad in zip(now.values(), found, strict=False):
            if grad is not None:
                M[b, n] = grad
        if before:
            J[b, n] = _vectors(parts, found[len(weights) :])[b]
    for name, M in before.items():
        if name in now:
            now[name] += (J @ M.flatten(2)).view_as(now[name])
    return now
