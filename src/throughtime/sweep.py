"""The only time loop: forward over the steps, and backward with the error carried from t to t-1.

    forward    s <- k s;  v_t = W_h h_{t-1} + b_h;  s_t = P(u_t, v_t, s_{t-1})
    backward   ds_t += the error of step t;  (du_t, dv_t, ds_{t-1}) = dP(ds_t);  dh_{t-1} += W_h^T dv_t;
               ds_{t-1} <- k ds_{t-1}

k is 0 where a row restarts, or where a single unit does: a teacher's value (Williams and Zipser 1989) enters in the
place of that unit as one more input, so it is part of u. Elsewhere k is 1.
This is backpropagation through time (Rumelhart, Hinton and Williams 1986; Werbos 1990) and the definition
that every kernel must equal. Only the products with W_h are sequential: dW_h is one product over all steps.
"""

from typing import Any

import torch
from torch.autograd import forward_ad
from torch.nn.functional import linear

from throughtime.cells.base import Cell, Gates, Kept
from throughtime.shapes import Bool, Float, Slots, Tensor


def sweep(
    cell: Cell,
    u: Float[Tensor, "T B G H"],
    W_h: Float[Tensor, "GH H"],
    b_h: Float[Tensor, " GH"] | None,
    s0: Slots,
    reset: Bool[Tensor, "T B"] | Bool[Tensor, "T B H"] | None = None,
) -> Slots:
    """The states of all steps, S tensors (T, B, H); differentiable, twice too.

    u = W_x x + b_x of all steps; s0 is S tensors (B, H), and may be a function of anything.
    Rows, or with (T, B, H) single units, restart from zeros before the steps where reset is True; state and gradient
    are both cut there.
    """
    if torch.jit.is_tracing():  # a trace that is to be saved must not hold a call of Python
        return forward(cell, u, W_h, b_h, s0, reset)
    return _Sweep.apply(cell, reset, u, W_h, b_h, *s0)


def forward(cell: Cell, u: Tensor, W_h: Tensor, b_h: Tensor | None, s0: Slots, reset: Tensor | None) -> Slots:
    """The loop as it is written above, in operations that autograd can follow."""
    s = s0
    states: list[Slots] = []
    for t in range(u.shape[0]):
        if reset is not None:
            s = restarted(s, reset[t])
        v = linear(s[0], W_h, b_h).view_as(u[t])
        s, _ = cell.forward(u[t], v, s)
        states.append(s)
    if not states:
        return tuple(slot.new_zeros(0, *slot.shape) for slot in s0)
    return tuple(torch.stack(slots) for slots in zip(*states, strict=True))  # T B H


def restarted(s: Slots, reset: Tensor) -> Slots:
    """k s: zeros in the rows (..., B) or the single units (..., B, H) that restart."""
    reset = reset[..., None] if reset.dim() < s[0].dim() else reset
    return tuple(slot.masked_fill(reset, 0) for slot in s)


def backward(
    cell: Cell, kept: Kept, W_h: Tensor, reset: Tensor | None, dstates: tuple[Tensor | None, ...]
) -> tuple[Gates, Gates, Slots]:
    """du and dv of all steps (T, B, G, H), and ds0, from what was kept and the errors of each step."""
    T = kept[0].shape[0]
    errors = [error for error in dstates if error is not None]
    ds = tuple(torch.zeros_like(errors[0][0]) for _ in dstates)
    du: list[Tensor] = []
    dv: list[Tensor] = []
    for t in reversed(range(T)):
        ds = tuple(d if error is None else d + error[t] for d, error in zip(ds, dstates, strict=True))
        du_t, dv_t, (dh, *rest) = cell.backward(ds, tuple(part[t] for part in kept))
        ds = (dh + dv_t.reshape(-1, W_h.shape[0]) @ W_h, *rest)
        if reset is not None:
            ds = restarted(ds, reset[t])
        du.append(du_t)
        dv.append(dv_t)
    return torch.stack(du[::-1]), torch.stack(dv[::-1]), ds


def recall(
    cell: Cell, u: Tensor, W_h: Tensor, b_h: Tensor | None, s0: Slots, states: Slots, reset: Tensor | None
) -> tuple[Slots, Kept]:
    """The state before each step, S tensors (T, B, H), and what each step keeps; one product, no loop."""
    before = tuple(torch.cat((first[None], slot[:-1])) for first, slot in zip(s0, states, strict=True))
    if reset is not None:
        before = restarted(before, reset)
    v = linear(before[0], W_h, b_h).view_as(u)
    return before, cell.forward(u, v, before)[1]


class _Sweep(torch.autograd.Function):
    """forward and backward as one operation that keeps only u and the states.

    What a step keeps is recalled from the inputs and outputs, which know their own gradients: backward is
    differentiable in its turn.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(cell: Cell, reset: Tensor | None, u: Tensor, W_h: Tensor, b_h: Tensor | None, *s0: Tensor) -> Slots:
        return forward(cell, u, W_h, b_h, s0, reset)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Slots) -> None:
        ctx.cell, reset, u, W_h, b_h, *s0 = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(reset, u, W_h, b_h, *s0, *output)
        ctx.save_for_forward(reset, u, W_h, b_h, *s0)

    @staticmethod
    def backward(ctx: Any, *dstates: Tensor | None) -> tuple[Tensor | None, ...]:
        reset, u, W_h, b_h, *rest = ctx.saved_tensors
        s0, states = tuple(rest[: ctx.cell.slots]), tuple(rest[ctx.cell.slots :])
        if all(error is None for error in dstates) or u.shape[0] == 0:
            return (None,) * (5 + len(s0))
        before, kept = recall(ctx.cell, u, W_h, b_h, s0, states, reset)
        du, dv, ds0 = backward(ctx.cell, kept, W_h, reset, dstates)
        rows = dv.reshape(-1, W_h.shape[0])  # TB GH
        dW_h = rows.T @ before[0].reshape(-1, W_h.shape[1])
        return None, None, du, dW_h, None if b_h is None else rows.sum(0), *ds0

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor | None, ...]:
        """Forward mode: the loop itself, for what was saved still carries its tangents."""
        reset, u, W_h, b_h, *s0 = ctx.saved_tensors
        with forward_ad._set_fwd_grad_enabled(True):
            states = forward(ctx.cell, u, W_h, b_h, tuple(s0), reset)
            return tuple(forward_ad.unpack_dual(state).tangent for state in states)
