"""The influence cut to what can be afforded: SnAp(n) keeps its nearest entries, RFLO drops W_h from J.

    M_t = (J_t M_{t-1} + dP/dtheta) * pattern          dL_t/dtheta = (dL_t/ds_t) M_t

SnAp (Menick et al. 2021): the pattern holds the entries that become other than zero within n steps, those of the units
that a weight's own unit reaches over at most n - 1 recurrent edges. RFLO (Murray 2019): J_t without its paths through
W_h, so that of a leaky unit (1 - alpha) is left:
    M_t = (1 - alpha) M_{t-1} + alpha phi'(a_t) [x_t h_{t-1} 1]
In a stack the layers above a weight's own are reached at once through dense W_x, and their influence is kept whole;
so is that of an embedding, which feeds every unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit.base import Credit, Estimate, check_seed
from throughtime.credit.influence import Linear, by_name, check_linear, inject, linearise, settle_window
from throughtime.credit.trace import Trace, read
from throughtime.nets import Loss, Network, Window
from throughtime.shapes import Float, Int, Tensor
from throughtime.state import State, detach


@dataclass(frozen=True, eq=False)
class Reached:
    """The influence of one layer's weights, or of the embedding, as far as it is kept.

    units  of its own layer: the units that each unit reaches, itself first, (H, R); -1 where it reaches fewer.
           None for an embedding, which has no layer.
    own    the influence on these, (B, H, S R, C): C weights of a unit, of all gates, U's before V's.
    above  the influence on the layers above, each (B, S H, P), P weights of the layer.
    """

    units: Int[Tensor, "H R"] | None
    own: Tensor | None
    above: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class Memory:
    """The state of the stream and the influence by layers, then the embedding's; empty before the first chunk."""

    state: State = None
    influence: tuple[Reached, ...] = ()


@dataclass(frozen=True)
class SnAp(Credit):
    """SnAp(n), for Network alone: RTRL on the influence's entries within n steps' reach; every chunk settles its own.

    n  steps within which a weight must reach a unit, at least 1; 1 keeps the unit that the weight feeds.

    The pattern is that of W_h, as it is when the stream starts: keep its zeros by masking them after every update.
    Where a unit reaches R units, memory is R times the P weights a stream and a step R^2 P operations: with dense W_h
    SnAp(2) is RTRL, at more than its cost. The layers above a weight's own cost H and H^2 times P.
    Bias: what passes through entries that are dropped is lost. None where nothing is: SnAp(1) with diagonal W_h, and n
    as large as the longest path. Not for dense W_h with n > 1: use RTRL. A stale influence as in RTRL.
    """

    n: int = 1
    memories = (Memory, Reached)

    def __post_init__(self) -> None:
        if not isinstance(self.n, int) or isinstance(self.n, bool) or self.n < 1:
            raise ValueError(f"n must be a whole number of steps, at least 1; got {self.n!r}.")

    def start(self, net: nn.Module, state: State = None) -> Memory:
        check_linear(net, "snap")
        return Memory(detach(state))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        return _forward(self, net, loss, chunk, memory, reach=self.n, recurrent=True, feedback=None)


@dataclass(frozen=True)
class RFLO(Credit):
    """Random-feedback local online learning, for Network alone; every chunk settles its own errors.

    feedback  None: errors go down to the last layer through the readout's own weights. A whole number: through fixed
              random ones, normal with the variance 1 / outputs, that it is the seed of; the readout's own gradient
              stays exact.

    Memory is the P weights a stream and a step P operations; the layers above a weight's own cost H times that.
    Bias: everything that W_h carries is lost, and at alpha = 1 (elman) all of the past: then it is BPTT(1; 1). Other
    cells keep what their own state carries: a GRU through z, an LSTM through f, which is the truncated gradient of
    Hochreiter and Schmidhuber (1997). Not where the past counts through the recurrent weights. Stale as RTRL is.
    """

    feedback: int | None = None
    memories = (Memory, Reached)

    def __post_init__(self) -> None:
        check_seed("feedback", self.feedback)

    def start(self, net: nn.Module, state: State = None) -> Memory:
        check_linear(net, "rflo")
        return Memory(detach(state))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        return _forward(self, net, loss, chunk, memory, reach=1, recurrent=False, feedback=self.feedback)


def _forward(
    credit: Credit,
    net: nn.Module,
    loss: Loss,
    chunk: Chunk,
    memory: Memory,
    *,
    reach: int,
    recurrent: bool,
    feedback: int | None,
) -> tuple[Estimate, Memory]:
    """One chunk under a pattern; without recurrent J leaves W_h out."""
    if not chunk.steps:
        estimate = Estimate.nothing(chunk.x)
    elif isinstance(net, Window):
        estimate, state = settle_window(net, loss, chunk, memory.state)
        memory = Memory(state)
    else:
        assert isinstance(net, Network)
        with torch.no_grad():
            trace, state = read(net, chunk, memory.state)
            error, count, dtop, readout = inject(net, loss, trace, chunk, _feedback(net, feedback))
            layers = linearise(net, trace)
            influence = memory.influence or _nothing(net, layers, reach)
            grads, influence = _steps(net, trace, layers, dtop, influence, recurrent)
        estimate = Estimate(error, count, by_name(net, grads, readout) if count else {})
        memory = Memory(state, influence)
    return estimate, credit.start(net, memory.state) if chunk.end else memory


def _feedback(net: Network, seed: int | None) -> Tensor | None:
    if seed is None:
        return None
    weight = net.readout.weight
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * weight.shape[0] ** -0.5
    return drawn.to(weight)


def reached(W_h: Float[Tensor, "GH H"], n: int) -> Int[Tensor, "H R"]:
    """The units that every unit reaches over at most n - 1 recurrent edges, itself first; -1 where there are fewer."""
    H = W_h.shape[1]
    itself = torch.eye(H, dtype=torch.bool, device=W_h.device)
    edges = ((W_h.view(-1, H, H) != 0).any(0) | itself).double()
    pattern = itself.double()
    for _ in range(min(n - 1, H)):
        pattern = (edges @ pattern).clamp_max(1)  # to, from
    most = int(pattern.sum(0).max())
    kept, units = (pattern + itself).T.topk(most, 1)
    return units.masked_fill(kept == 0, -1)


def _nothing(net: Network, layers: tuple[Linear, ...], reach: int) -> tuple[Reached, ...]:
    """No influence, in the shapes that it is kept in."""
    B = layers[0].x.shape[1]
    influence = []
    for depth, layer in enumerate(layers):
        S, G, H = layer.D_u.shape[2:]
        units = reached(layer.W_h, reach)
        C = G * (layer.x.shape[2] + layer.h.shape[2])
        above = tuple(layer.h.new_zeros(B, S * H, H * C) for _ in layers[depth + 1 :])
        influence.append(Reached(units, layer.h.new_zeros(B, H, S * units.shape[1], C), above))
    if net.embed is not None:
        P = net.embed.weight.numel()
        influence.append(Reached(None, None, tuple(layer.h.new_zeros(B, layer.width, P) for layer in layers)))
    return tuple(influence)


def _steps(
    net: Network,
    trace: Trace,
    layers: tuple[Linear, ...],
    dtop: Float[Tensor, "T B H"],
    influence: tuple[Reached, ...],
    recurrent: bool,
) -> tuple[dict[str, Tensor], tuple[Reached, ...]]:
    """Carry the influence over a chunk, step by step; the gradient by parts, and the influence after it."""
    T, _, H = dtop.shape
    own = [_Local(layer, part.units, recurrent) for layer, part in zip(layers, influence, strict=False)]
    groups = [(local, depth + 1) for depth, local in enumerate(own)] + [(None, 0)] * (net.embed is not None)
    grads = [torch.zeros(())] * len(groups)
    for t in range(T):
        steps = [_whole(layer, t, recurrent) for layer in layers] if len(groups) > 1 else []
        influence = tuple(
            _one_step(before, local, steps[first:], t, trace.x[t], H)
            for before, (local, first) in zip(influence, groups, strict=True)
        )
        grads = [grad + _through(part, dtop[t]) for grad, part in zip(grads, influence, strict=True)]
    parts: dict[str, Tensor] = {}
    for depth, (layer, grad) in enumerate(zip(layers, grads, strict=False)):
        wide = layer.D_u.shape[3] * layer.x.shape[2]  # G (I+1)
        for name, part in (("U", grad.view(H, -1)[:, :wide]), ("V", grad.view(H, -1)[:, wide:])):
            parts[f"{name}{depth}"] = part.unflatten(1, (layer.D_u.shape[3], -1)).transpose(0, 1).flatten(0, 1)
    if net.embed is not None:
        parts["E"] = grads[-1].view(net.embed.weight.shape)
    return parts, influence


def _through(part: Reached, dh: Float[Tensor, "B H"]) -> Tensor:
    """The gradient of a part, from the errors on the last layer's h."""
    if part.above:
        return torch.einsum("bh,bhp->p", dh, part.above[-1][:, : dh.shape[1]])
    assert part.units is not None
    assert part.own is not None
    R = part.units.shape[1]
    errors = dh[:, part.units.clamp_min(0)] * (part.units >= 0)  # B H R
    return torch.einsum("bkr,bkrc->kc", errors, part.own[:, :, :R])


def _whole(layer: Linear, t: int, recurrent: bool) -> tuple[Tensor, Tensor]:
    """The derivative of a layer's state at a step by that of before (B, SH, SH), and by its inputs (B, SH, I)."""
    W_x = layer.W_x.unflatten(0, layer.D_u.shape[-2:])  # G H I
    K = torch.einsum("bsgi,gij->bsij", layer.D_u[t], W_x).flatten(1, 2)
    if layer.noise is not None:
        K = K * layer.noise[t, :, None]
    return layer.steps(slice(t, t + 1), recurrent)[0], K


class _Local:
    """A layer's own weights on the units that they reach, with what does not change over the steps of a chunk."""

    def __init__(self, layer: Linear, units: Tensor | None, recurrent: bool) -> None:
        assert units is not None
        self.layer, self.known = layer, units >= 0
        self.units = units.clamp_min(0)  # H R
        G, H = layer.D_v.shape[-2:]
        W_h = layer.W_h.view(G, H, H)[:, self.units.unsqueeze(2), self.units.unsqueeze(1)]  # G H R R
        self.W_h = W_h * (self.known.unsqueeze(2) & self.known.unsqueeze(1)) if recurrent else None

    def step(self, t: int) -> Float[Tensor, "B H SR SR"]:
        """The derivative of the state that is reached by that of before."""
        layer = self.layer
        D_s = layer.D_s[t][..., self.units].movedim(3, 1) * self.known.unsqueeze(1).unsqueeze(1)  # B H S S R
        J = torch.diag_embed(D_s).transpose(-3, -2)  # B H S R S R
        if self.W_h is not None:
            D_v = layer.D_v[t][..., self.units]  # B S G H R
            J[..., 0, :] += torch.einsum("bsgka,gkac->bksac", D_v, self.W_h)
        J = J.flatten(4).flatten(2, 3)
        return J if layer.cut is None else J.masked_fill(layer.cut[t][:, None, None, None], 0)

    def immediate(self, t: int) -> Float[Tensor, "B H S C"]:
        """The derivative of every unit's own state by the weights that feed it."""
        layer = self.layer
        pairs = ((layer.D_u[t], layer.x[t]), (layer.D_v[t], layer.h[t]))
        each = [D.movedim(-1, 1).unsqueeze(-1) * z[:, None, None, None] for D, z in pairs]  # B H S G Z
        return torch.cat([part.flatten(3) for part in each], 3)


def _one_step(
    before: Reached, local: _Local | None, steps: list[tuple[Tensor, Tensor]], t: int, ids: Tensor, H: int
) -> Reached:
    """The influence after a step: on a layer's own units, then on the layers above it, whose derivatives are given.

    local is None for the embedding, of which the step reads ids.
    """
    own = below = None
    if local is not None:
        assert before.own is not None
        own = local.step(t) @ before.own
        B, _, _, C = own.shape
        R = local.units.shape[1]
        slots = own.view(B, H, -1, R, C)
        slots[:, :, :, 0] += local.immediate(t)
        if steps:
            where = local.units[:, :, None].expand(B, H, R, C)
            spread = own.new_zeros(B, H, H, C).scatter_add_(2, where, slots[:, :, 0])
            below = spread.transpose(1, 2).flatten(2)  # B H P
    above = []
    for (J, K), M in zip(steps, before.above, strict=True):
        now = J @ M
        if below is None:
            now.unflatten(2, (-1, K.shape[2]))[torch.arange(len(ids), device=ids.device), :, ids] += K
        else:
            now += K @ below
        above.append(now)
        below = now[:, :H]
    return Reached(before.units, own, tuple(above))
