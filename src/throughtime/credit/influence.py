"""A network linearised along a stretch of its stream: what the algorithms that go forward in time share.

A cell is a pointwise map, so unit i of a layer has a slope of its own in each of its arguments, and
    ds_t = D_u (W_x dx_t) + D_v (W_h dh_{t-1}) + D_s ds_{t-1}         du = D_u^T ds, dv = D_v^T ds on the way back
    dU = du [x_t 1]^T,  dV = dv [h_{t-1} 1]^T                         what W_x with b_x, and W_h with b_h, receive
These slopes are the hand-written derivative of the cell, asked once for every slot. Nothing else is differentiated.

The influence of the weights on the state, M = ds/dtheta, is kept by parts: U and V of every layer, and E of the
embedding. The state is written as one vector, the last layer first, each layer slot by slot: what a layer's weights
reach is then a prefix of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.functional import dropout as drop
from torch.nn.functional import pad

from throughtime.cells import Cell
from throughtime.cells.base import Kept
from throughtime.chunk import Chunk
from throughtime.credit.base import Estimate, gradient, learning
from throughtime.credit.trace import Trace, check
from throughtime.nets import Loss, Network, Window, sum_errors
from throughtime.shapes import Bool, Float, Tensor
from throughtime.stack import direction_of
from throughtime.state import State, detach


@dataclass(frozen=True, eq=False)
class Linear:
    """One layer, linearised along T steps.

    D_u, D_v, D_s   the slope of every unit's next state in u, in v and in its state of before.
    x, h            what multiplies du and dv: the inputs and the h of before, each with a last entry of one.
    cut             where rows restart, so that nothing comes through from before; None: nowhere.
    noise           the dropout factors of the inputs, if any.
    """

    W_x: Float[Tensor, "GH I"]
    W_h: Float[Tensor, "GH H"]
    D_u: Float[Tensor, "T B S G H"]
    D_v: Float[Tensor, "T B S G H"]
    D_s: Float[Tensor, "T B S S H"]
    x: Float[Tensor, "T B I+1"]
    h: Float[Tensor, "T B H+1"]
    cut: Bool[Tensor, "T B"] | None
    noise: Float[Tensor, "T B I"] | None

    @property
    def width(self) -> int:
        """How many entries of the state are this layer's."""
        return self.D_s.shape[2] * self.D_s.shape[4]

    def steps(self, part: slice, recurrent: bool = True) -> Float[Tensor, "T B SH SH"]:
        """The derivative of the state by the state of before at the steps of a part, zero where a row restarts.

        recurrent: whether through W_h too, or through the cell alone.
        """
        D_v, D_s = self.D_v[part], self.D_s[part]
        J = torch.diag_embed(D_s).transpose(-3, -2)  # T B S H S H
        if recurrent:
            W_h = self.W_h.unflatten(0, D_v.shape[-2:])  # G H H
            J[..., 0, :] += torch.einsum("tbsgi,gij->tbsij", D_v, W_h)
        J = J.flatten(-4, -3).flatten(-2)
        return J if self.cut is None else J.masked_fill(self.cut[part][..., None, None], 0)

    def to_inputs(self, du: Float[Tensor, "T B R G H"], part: slice) -> Float[Tensor, "T B R I"]:
        """What R errors put on the layer's inputs at the steps of a part."""
        dx = du.flatten(3) @ self.W_x
        return dx if self.noise is None else dx * self.noise[part, :, None]


def is_plain(net: nn.Module) -> bool:
    """Whether a network's recurrence can be linearised here: a Network whose recurrent weights are its parameters."""
    if type(net) is not Network:
        return False
    try:
        check(net)
    except TypeError:
        return False
    return True


def check_linear(net: nn.Module, name: str) -> None:
    """Raise TypeError unless an algorithm that knows the library's own networks alone can run on this one."""
    if not (type(net) is Window or is_plain(net)):
        raise TypeError(
            f"net must be a Network with plain weights for {name}; got {type(net).__name__}. "
            "Use rtrl, which takes any module."
        )


@torch.no_grad()
def linearise(net: Network, trace: Trace) -> tuple[Linear, ...]:
    """Every layer along a stretch that was read."""
    cut = trace.reset if trace.reset.any() else None
    layers = []
    for depth, layer in enumerate(trace.layers):
        W_x, W_h, *_ = direction_of(net.layers, f"l{depth}").weights
        slopes = _slopes(net.layers.cell, layer.kept, layer.before)
        x, h = (pad(part, (0, 1), value=1.0) for part in (layer.x, layer.before))
        layers.append(Linear(W_x.detach(), W_h.detach(), *slopes, x, h, cut, layer.noise))
    return tuple(layers)


def _slopes(cell: Cell, kept: Kept, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """D_u, D_v and D_s, from the cell's derivative of the sum of all units, one slot after the other."""
    ones, zeros = torch.ones_like(like), torch.zeros_like(like)
    D_u, D_v, D_s = [], [], []
    for slot in range(cell.slots):
        du, dv, ds = cell.backward(tuple(ones if s == slot else zeros for s in range(cell.slots)), kept)
        D_u.append(du)
        D_v.append(dv)
        D_s.append(torch.stack(ds, -2))
    u = torch.stack(D_u, 2)
    v = u if all(du is dv for du, dv in zip(D_u, D_v, strict=True)) else torch.stack(D_v, 2)
    return u, v, torch.stack(D_s, 2)


def mix(ds: Float[Tensor, "*R S H"], D: Float[Tensor, "*R S K H"]) -> Float[Tensor, "*R K H"]:
    """Errors of the slots times the slopes of every unit."""
    if D.shape[-3] == 1:
        return ds * D[..., 0, :, :]
    return (ds.unsqueeze(-2) * D).sum(-3)


def inject(
    net: Network, loss: Loss, trace: Trace, chunk: Chunk, feedback: Tensor | None = None
) -> tuple[Tensor, float, Float[Tensor, "T B H"], dict[int, Tensor]]:
    """The summed errors of a chunk, their count, what they put on the last layer's h, and the readout's gradient by id.

    feedback: weights (A, H) that the errors go down to h through, in place of the readout's.
    """
    top = trace.h.detach().requires_grad_()
    readout = [weight for weight in net.readout.parameters() if weight.requires_grad]
    with torch.enable_grad():
        h = drop(top, net.dropout, net.training)
        prediction = net.readout(h if feedback is None else h.detach())
        if feedback is not None:
            down = h @ feedback.T
            prediction = prediction + (down - down.detach())
        error, count = sum_errors(loss, prediction, chunk)
        if not count:
            return error.detach(), count, torch.zeros_like(top), {}
        dtop, *found = torch.autograd.grad(error, [top, *readout])
    return error.detach(), count, dtop, {id(weight): grad for weight, grad in zip(readout, found, strict=True)}


def by_name(net: Network, parts: Mapping[str, Tensor], grads: dict[int, Tensor]) -> dict[str, Tensor]:
    """The gradient by the name of a weight, from that of the parts: U0 (GH, I+1), V0 (GH, H+1), U1, ... and E.

    Adds to grads, by id: a weight that several places share gets their sum.
    """
    for depth in range(net.layers.depth):
        W_x, W_h, b_x, b_h = direction_of(net.layers, f"l{depth}").weights
        dU, dV = parts[f"U{depth}"], parts[f"V{depth}"]
        for weight, grad in ((W_x, dU[:, :-1]), (W_h, dV[:, :-1]), (b_x, dU[:, -1]), (b_h, dV[:, -1])):
            _add(grads, weight, grad)
    if net.embed is not None:
        _add(grads, net.embed.weight, parts["E"])
    return {name: grads[id(weight)] for name, weight in learning(net).items() if id(weight) in grads}


def _add(grads: dict[int, Tensor], weight: Tensor | None, grad: Tensor) -> None:
    grads[id(weight)] = grads[id(weight)] + grad if id(weight) in grads else grad.contiguous()


def settle_window(net: Window, loss: Loss, chunk: Chunk, state: State) -> tuple[Estimate, State]:
    """The gradient of a network without memory, which every algorithm gives exactly; also the state after the chunk."""
    with torch.enable_grad():
        prediction, state = net(chunk.x, state, chunk.reset)
        error, count = sum_errors(loss, prediction, chunk)
        grads = gradient(net, error) if count else {}
    return Estimate(error.detach(), count, grads), detach(state)
