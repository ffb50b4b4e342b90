"""One sequence through a small network and back, with every number on the way.

    forward    u_t = W_x x_t + b_x;  v_t = W_h h_{t-1} + b_h;  s_t = P(u_t, v_t, s_{t-1});  o_t = W_q h_t + b_q
    backward   r_t = dl_t/do_t;  e_t = W_q^T r_t;  ds_t = e_t + what step t + 1 sent;  (du_t, dv_t) = dP(ds_t);
               sent to t - 1: W_h^T dv_t, and what the cell passes on directly

Both are `throughtime.sweep`'s; backward is asked for one step at a time, so that what arrives at each can be read.
The stream is one, so there is no axis B here.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import linear

from throughtime import sweep
from throughtime.cells import GRU, LSTM, Cell, Elman
from throughtime.cells.elman import PHI
from throughtime.explain.problem import Problem
from throughtime.nets import Network
from throughtime.shapes import Float, Slots, Tensor
from throughtime.stack import direction_of

GATES: dict[type[Cell], tuple[str, ...]] = {Elman: ("h",), GRU: ("r", "z", "n"), LSTM: ("i", "f", "g", "o")}
"""What the G pre-activations of a unit become, in the order of the weights."""


@dataclass(frozen=True, eq=False)
class Forward:
    """The forward pass.

    x       (T, I)      what enters: one-hot rows of letters, or numbers.
    inputs  (T, G, H)   W_x x_t, without b_x.
    v       (T, G, H)   W_h h_{t-1} + b_h.
    a       (T, G, H)   what each gate's function is applied to.
    gates   (T, G, H)   what comes out of it: h of Elman; r, z, n; i, f, g, o.
    states  S (T+1, H)  the states, that before the first step included.
    o       (T, A)      the readout; p: its softmax, of a word.
    losses  (T,)        nats, or halves of squares.
    kept    what the backward steps need, (T, 1, H) each.
    """

    x: Float[Tensor, "T I"]
    inputs: Float[Tensor, "T G H"]
    v: Float[Tensor, "T G H"]
    a: Float[Tensor, "T G H"]
    gates: Float[Tensor, "T G H"]
    states: Slots
    o: Float[Tensor, "T A"]
    p: Float[Tensor, "T A"] | None
    losses: Float[Tensor, " T"]
    kept: Slots


@dataclass(frozen=True, eq=False)
class Back:
    """What step t does with the error that arrives at it.

    own      (H,)       e_t, the error of the step itself, zeros where it is not injected.
    product  (H,)       W_h^T dv_{t+1}, what the step after sends through the weights.
    direct   S (H,)     what the cell of the step after passes on beside the weights, of each slot.
    ds       S (H,)     their sum: the gradient by the state of step t, by c as far as it comes from step t + 1.
    dc       (H,)       of an LSTM the whole gradient by c: what comes through h of step t is added. None of others.
    du, dv   (G, H)     the gradient by W_x x_t + b_x, and by W_h h_{t-1} + b_h.
    to_x     (G, H)     its share in dW_x: of the row of W_x that read the input, in dive into deep learning's order.
    to_h     (H, G, H)  its share in dW_h, [from, gate, to]. (In db_x its share is du.)
    """

    t: int
    own: Tensor
    product: Tensor
    direct: Slots
    ds: Slots
    dc: Tensor | None
    du: Tensor
    dv: Tensor
    to_x: Tensor
    to_h: Tensor


@torch.no_grad()
def forward(net: Network, problem: Problem) -> Forward:
    """The pass over all steps, from zeros."""
    cell, chunk = net.layers.cell, problem.chunk
    x = net.encode(chunk.x)
    W_x, W_h, b_x, b_h = direction_of(net.layers, "l0").weights
    inputs = linear(x, W_x).unflatten(-1, (cell.gates, net.layers.units))
    u = linear(x, W_x, b_x).view_as(inputs)
    s0 = tuple(slot[0] for slot in net.layers.start(x))
    states = sweep.forward(cell, u, W_h, b_h, s0, None)
    before, kept = sweep.recall(cell, u, W_h, b_h, s0, states, None)
    v = linear(before[0], W_h, b_h).view_as(u)
    gates = torch.stack(kept[: cell.gates], -2)
    a = u + v
    if isinstance(cell, GRU):  # r acts on the product before it is added
        a = torch.cat((a[..., :2, :], u[..., 2:, :] + gates[..., :1, :] * v[..., 2:, :]), -2)
    o = net.readout(states[0])
    assert chunk.y is not None
    losses = problem.loss(o, chunk.y).reshape(chunk.steps)
    whole = tuple(torch.cat((first, slot[:, 0])) for first, slot in zip(s0, states, strict=True))
    p = o[:, 0].softmax(-1) if problem.tokens else None
    return Forward(x[:, 0], inputs[:, 0], v[:, 0], a[:, 0], gates[:, 0], whole, o[:, 0], p, losses, kept)


def errors_of(net: Network, problem: Problem, there: Forward) -> tuple[Float[Tensor, "T A"], Float[Tensor, "T H"]]:
    """r_t = dl_t/do_t and e_t = dl_t/dh_t, the latter through the readout of step t alone."""
    h = there.states[0][1:].requires_grad_()
    with torch.enable_grad():
        o = net.readout(h)
        assert problem.chunk.y is not None
        error = problem.loss(o[:, None], problem.chunk.y).sum()
    r, e = torch.autograd.grad(error, [o, h])
    return r, e


@torch.no_grad()
def backward(net: Network, there: Forward, errors: Float[Tensor, "T H"], last: int, first: int = 0) -> list[Back]:
    """The steps last, last - 1, ..., first; errors are injected at the steps where they are not zero."""
    cell, W_h = net.layers.cell, direction_of(net.layers, "l0").weights.W_h
    zero = torch.zeros_like(errors[0])
    product, direct = zero, (zero,) * cell.slots
    carried: Slots = (zero,) * cell.slots
    found = []
    for t in range(last, first - 1, -1):
        ds = (carried[0] + errors[t], *carried[1:])
        kept = tuple(part[t : t + 1] for part in there.kept)
        du, dv, past = sweep.backward(cell, kept, W_h, None, tuple(part[None, None] for part in ds))
        h = there.states[0][t]
        to_x = du[0, 0] * there.x[t].sum()  # one-hot rows have a single 1, and values a single number
        to_h = h[:, None, None] * dv[0, 0]
        dc = _whole_dc(ds, tuple(part[0, 0] for part in kept)) if isinstance(cell, LSTM) else None
        found.append(Back(t, errors[t], product, direct, ds, dc, du[0, 0], dv[0, 0], to_x, to_h))
        carried = tuple(part[0] for part in past)
        product = (dv[0].flatten(1) @ W_h)[0]
        direct = tuple(part[0, 0] for part in cell.backward(tuple(part[None, None] for part in ds), kept)[2])
    return found


def _whole_dc(ds: Slots, kept: Slots) -> Tensor:
    """dL/dc_t: of the steps after, and through h_t = o tanh(c_t)."""
    o, tanh_c = kept[3], kept[5]
    return ds[1] + ds[0] * o * (1 - tanh_c * tanh_c)


def alone(errors: Float[Tensor, "T H"], t: int) -> Float[Tensor, "T H"]:
    """The errors with that of step t alone."""
    return torch.zeros_like(errors).index_copy(0, torch.tensor([t]), errors[t : t + 1])


def slope(cell: Cell, h: Tensor) -> Tensor | None:
    """phi' of an Elman cell as a function of its state; None for cells with gates."""
    return PHI[cell.phi][1](h) if isinstance(cell, Elman) else None
