"""Unbiased online recurrent optimisation: the influence is carried as one random product of two vectors.

    M_t ~ s_t theta_t^T,  E[s_t theta_t^T] = M_t
    s_t = rho_0 J_t s_{t-1} + rho_1 nu               nu: a sign for every entry of the state, drawn anew at each step
    theta_t = theta_{t-1} / rho_0 + (dP/dtheta)^T nu / rho_1
    dL_t/dtheta ~ (dL_t/ds_{t-1} s_{t-1}) theta_{t-1} + the part of step t itself, which is exact

Tallec and Ollivier (2018), with their norms, which balance the two vectors and cost no bias:
    rho_0^2 = |theta_{t-1}| / |J_t s_{t-1}|,   rho_1^2 = |(dP/dtheta)^T nu| / |nu|
The signs are those of a counter (Philox; Salmon et al. 2011): step t of a stream has its own, however it is cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit.base import Credit, Estimate, check_seed
from throughtime.credit.influence import Linear, by_name, check_linear, inject, linearise, mix, settle_window
from throughtime.credit.trace import Trace, read
from throughtime.nets import Loss, Network, Window
from throughtime.shapes import Float, Tensor
from throughtime.state import State, detach

SMALL = 1e-7
"""What is added to every norm, so that vectors that start from zero have a ratio."""


@dataclass(frozen=True, eq=False)
class Memory:
    """What UORO holds between two calls.

    state   the state of the stream.
    step    steps that signs were drawn for since the start; it goes on after `end`, so that no stretch repeats them.
    s       of every layer, its entries of the first vector, (B, S, H).
    theta   the second vector by parts of the weights, (B, ...): U and V of every layer, and E.
    """

    state: State = None
    step: int = 0
    s: tuple[Tensor, ...] = ()
    theta: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class UORO(Credit):
    """UORO(seed), for Network alone: unbiased at the memory of one gradient a stream; every chunk settles its own.

    seed  of the signs. Runs with one seed are equal, and go on exactly from what was saved.

    For n entries of a stream's state and P weights, memory is n + P a stream and a step costs n^2 + P operations. All
    layers are carried together, so what a layer does through the ones above it is counted.
    Bias: none at fixed weights, but the variance grows with n: a single estimate is mostly noise, and learning rates
    must be small. After an update both vectors are stale by the order of the learning rate. Not where RTRL is
    affordable, nor where BPTT(h) with a short h is enough.
    Streams draw signs of their own: the estimate of a row depends on its place among the rows, its mean does not.
    """

    seed: int = 0
    memories = (Memory,)

    def __post_init__(self) -> None:
        check_seed("seed", self.seed)

    def start(self, net: nn.Module, state: State = None) -> Memory:
        check_linear(net, "uoro")
        return Memory(detach(state))

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Memory) -> tuple[Estimate, Memory]:
        if not chunk.steps:
            estimate = Estimate.nothing(chunk.x)
        elif isinstance(net, Window):
            estimate, state = settle_window(net, loss, chunk, memory.state)
            memory = replace(memory, state=state)
        else:
            assert isinstance(net, Network)
            estimate, memory = _settle(net, loss, chunk, memory, self.seed)
        return estimate, Memory(memory.state, memory.step) if chunk.end else memory


def signs(seed: int, step: int, shape: tuple[int, int]) -> Float[Tensor, "T N"]:
    """N signs of every one of T steps from a step on, of double precision."""
    steps, count = shape
    blocks = -(-count // 256)  # a draw of the counter gives 256 bits
    bits = np.random.Philox(key=seed)
    bits.advance(step * blocks)
    words = bits.random_raw(steps * blocks * 4).reshape(steps, -1).astype("<u8")
    ones = np.unpackbits(words.view(np.uint8), axis=1)[:, :count]
    return torch.from_numpy(2.0 * ones - 1.0)


@torch.no_grad()
def _settle(net: Network, loss: Loss, chunk: Chunk, memory: Memory, seed: int) -> tuple[Estimate, Memory]:
    trace, state = read(net, chunk, memory.state)
    error, count, dtop, readout = inject(net, loss, trace, chunk)
    layers = linearise(net, trace)
    (T, B), (S, _, H) = chunk.x.shape[:2], layers[0].D_u.shape[2:]
    nu = signs(seed, memory.step, (T, B * len(layers) * S * H)).to(dtop).view(T, B, len(layers), S, H)
    step = _Steps(net, trace, layers, dtop, nu)
    s = memory.s or tuple(dtop.new_zeros(B, S, H) for _ in layers)
    theta = memory.theta or {name: grad.new_zeros(B, *grad.shape) for name, grad in step.grads.items()}
    for t in range(T):
        if trace.reset[t].any():
            rows = trace.reset[t][:, None, None]
            s = tuple(part.masked_fill(rows, 0) for part in s)
            theta = {name: part.masked_fill(rows, 0) for name, part in theta.items()}
        through = sum((part * ds[t]).sum((1, 2)) for part, ds in zip(s, step.ds, strict=True))
        for name, part in theta.items():
            step.grads[name] += torch.tensordot(through, part, 1)
        s, theta = _advance(s, theta, step, t)
    estimate = Estimate(error, count, by_name(net, step.grads, readout) if count else {})
    return estimate, Memory(state, memory.step + T, s, theta)


class _Steps:
    """What every step of a chunk does by itself, all at once.

    grads  the part of the errors that their own step gives, by parts of the weights.
    ds     what the errors put on the state before their step, by layers, (T, B, S, H).
    nu     the signs, (T, B, L, S, H), and `outer` what they put on the parts: d (T, B, GH) and z (T, B, Z), whose
           product it is, or for E, d (T, B, E) and the ids.
    norm   of that, (T, B).
    """

    def __init__(
        self, net: Network, trace: Trace, layers: tuple[Linear, ...], dtop: Tensor, nu: Float[Tensor, "T B L S H"]
    ) -> None:
        self.layers, self.nu = layers, nu
        self.grads: dict[str, Tensor] = {}
        self.outer: dict[str, tuple[Tensor, Tensor]] = {}
        self.ds: list[Tensor] = []
        square = dtop.new_zeros(dtop.shape[:2])
        up = torch.stack((dtop, torch.zeros_like(dtop)), 2)  # T B R H; of two rows the errors, and the signs
        for depth, layer in reversed(list(enumerate(layers))):
            ds = torch.stack((torch.zeros_like(nu[:, :, depth]), nu[:, :, depth]), 2)  # T B R S H
            ds[..., 0, :] += up
            du, dv = (mix(ds, D.unsqueeze(2)) for D in (layer.D_u, layer.D_v))  # T B R G H
            before = mix(ds[:, :, 0], layer.D_s)
            before[..., 0, :] += dv[:, :, 0].flatten(2) @ layer.W_h
            self.ds.insert(0, before if layer.cut is None else before.masked_fill(layer.cut[..., None, None], 0))
            for name, d, z in ((f"U{depth}", du.flatten(3), layer.x), (f"V{depth}", dv.flatten(3), layer.h)):
                self.grads[name] = d[:, :, 0].flatten(0, 1).T @ z.flatten(0, 1)
                self.outer[name] = d[:, :, 1], z
                square += d[:, :, 1].square().sum(-1) * z.square().sum(-1)
            up = layer.to_inputs(du, slice(None))
        if net.embed is not None:
            table = torch.zeros_like(net.embed.weight)
            self.grads["E"] = table.index_add_(0, trace.x.flatten(), up[:, :, 0].flatten(0, 1))
            self.outer["E"] = up[:, :, 1], trace.x
            square += up[:, :, 1].square().sum(-1)
        self.norm = square.sqrt()


def _advance(
    s: tuple[Tensor, ...], theta: Mapping[str, Tensor], step: _Steps, t: int
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Both vectors after a step."""
    moved = _push(step.layers, t, s)
    nu = step.nu[t]  # B L S H
    rho_0 = _ratio(_norm(theta.values()), _norm(moved))
    rho_1 = _ratio(step.norm[t], nu.flatten(1).norm(dim=1))
    s = tuple(rho_0[:, None, None] * part + rho_1[:, None, None] * nu[:, depth] for depth, part in enumerate(moved))
    after = {}
    for name, part in theta.items():
        d, z = step.outer[name]
        new = d[t] / rho_1[:, None]
        part = part / rho_0[:, None, None]
        if name == "E":
            part[torch.arange(len(new), device=new.device), z[t]] += new
        else:
            part.baddbmm_(new.unsqueeze(2), z[t].unsqueeze(1))
        after[name] = part
    return s, after


def _push(layers: tuple[Linear, ...], t: int, s: tuple[Tensor, ...]) -> tuple[Float[Tensor, "B S H"], ...]:
    """J_t times a vector, given and returned by layers."""
    moved: list[Tensor] = []
    for layer, part in zip(layers, s, strict=True):
        dv = (part[:, 0] @ layer.W_h.T).unflatten(1, layer.D_v.shape[-2:]).unsqueeze(1)  # B 1 G H
        ds = (layer.D_v[t] * dv).sum(2) + (layer.D_s[t] * part.unsqueeze(1)).sum(2)
        if moved:
            dx = moved[-1][:, 0] if layer.noise is None else moved[-1][:, 0] * layer.noise[t]
            du = (dx @ layer.W_x.T).unflatten(1, layer.D_u.shape[-2:]).unsqueeze(1)
            ds += (layer.D_u[t] * du).sum(2)
        moved.append(ds)
    return tuple(moved)


def _norm(parts: Iterable[Tensor]) -> Float[Tensor, " B"]:
    """The norm of a vector that is given in parts."""
    return torch.stack([part.flatten(1).square().sum(1) for part in parts]).sum(0).sqrt()


def _ratio(a: Float[Tensor, " B"], b: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
    return ((a + SMALL) / (b + SMALL)).sqrt()
