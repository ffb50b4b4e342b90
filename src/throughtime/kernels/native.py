"""The native backend: the sweep in C++, compiled for this processor, on plain tensors on the CPU.

csrc/kernel.hpp says what the compiled part is asked for. It trusts its pointers, so all that it relies on is
checked here. Of each step it keeps for backward either the gates, or the states alone, from which it rebuilds
the gates by one product. Numbers too small to be normal count as 0, for an error that has vanished would take
several times as long as one that has not. A second derivative, and whatever else must look inside, goes through
the reference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd import forward_ad

from throughtime.cells import CTRNN, GRU, LSTM, Cell, Elman
from throughtime.cells.elman import PHI
from throughtime.kernels import reference
from throughtime.shapes import Slots, Tensor

try:
    import throughtime._native as _native
except ImportError as error:
    MISSING = f"the compiled part is not installed: {error}"
else:
    MISSING = ""

CELLS: dict[type[Cell], int] = {Elman: 0, CTRNN: 1, GRU: 2, LSTM: 3}
KEPT = {Elman: 0, CTRNN: 1, GRU: 4, LSTM: 5}
"""Numbers that the compiled part keeps of a unit and step as gates; of an Elman cell h says all."""
PHIS = {phi: number for number, phi in enumerate(PHI)}
NOTHING, GATES, STATES = 0, 1, 2
MEMORY = {"gates": GATES, "states": STATES}
GATES_AT_MOST = 256 * 2**20
"""Bytes of gates that one layer in one direction keeps under memory="auto"; above, it keeps states."""

Operands = Sequence[Any]
"""x, W_x, W_h, b_x, b_h, reset, lengths, *state: tensors, or None for those that are missing."""

KINDS = {Tensor, torch.nn.Parameter}
_made = torch.empty(0)
with torch.inference_mode():
    PLAIN = {torch._C._dispatch_keys(made).raw_repr() for made in (_made, torch.empty(0))}
"""The dispatch keys of dense memory on the CPU that nobody has wrapped, negated or left out."""


def plain(tensor: Tensor) -> bool:
    """Whether the numbers of a tensor are those at its address."""
    return type(tensor) in KINDS and torch._C._dispatch_keys(tensor).raw_repr() in PLAIN


def refusal(cell: Cell, reset: bool, lengths: bool, tensors: Sequence[Tensor] = ()) -> str:
    """Why this cannot run here; empty when it can. tensors: x (numbers or ids), weights and state, as far as known."""
    if MISSING:
        return MISSING
    if type(cell) not in CELLS:
        return "it has no sweep for this cell"
    watched = _watched()
    if watched:
        return watched
    dtype = None
    keys = torch._C._dispatch_keys
    for tensor in tensors:
        if type(tensor) not in KINDS or keys(tensor).raw_repr() not in PLAIN:
            return f"it runs on plain dense tensors on the CPU; got {type(tensor).__name__}, {tensor.device}"
        found = tensor.dtype
        if found is dtype or (found is torch.int64 and tensor is tensors[0]):
            continue
        if found is not torch.float32 and found is not torch.float64:
            return f"it computes in float32 and float64; got {found}"
        if dtype is not None:
            return f"all of it must be of one dtype; got {dtype} and {found}"
        dtype = found
    return ""


def _watched() -> str:
    """Who would look inside and could not, if anyone."""
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        return "tracers and compilers cannot look inside it"
    if torch._C._are_functorch_transforms_active():
        return "transforms of torch.func cannot look inside it"
    if forward_ad._current_level >= 0:
        return "it has no derivative in forward mode"
    if torch._C._len_torch_dispatch_stack():
        return "a dispatch mode is on, which cannot look inside it"
    return ""


def describe() -> str:
    """The compiled part: its instruction set, among those that this processor has; or what to do without it."""
    if MISSING:
        return f"{MISSING}. Install throughtime again where a C++ compiler is, or from a wheel."
    sets = ", ".join(_native.instruction_sets())
    threads = "OpenMP" if _native.openmp() else "one thread, as it was built without OpenMP"
    return f"{_native.instruction_set()}; this processor has {sets}; {threads}"


def plan() -> str:
    """What runs now."""
    threads = torch.get_num_threads() if _native.openmp() else 1
    return f"{_native.instruction_set()}, {threads} thread{'s' * (threads > 1)}"


def roles(cell: Cell, sizes: tuple[int, int, int, int], dtype: torch.dtype) -> str:
    """What each of several threads does in a layer of these sizes, T, B, I, H; empty for one thread."""
    threads = torch.get_num_threads() if _native.openmp() else 1
    return _native.plan(CELLS[type(cell)], dtype is torch.float64, sizes, threads) if threads > 1 else ""


def keeps(memory: str, cell: Cell, steps: int, H: int, dtype: torch.dtype) -> str:
    """What is kept where a gradient is wanted, gates or states; steps are those of all rows, T B."""
    if memory != "auto":
        return memory
    kept = KEPT.get(type(cell), 0)
    return "gates" if kept and steps * kept * H * dtype.itemsize <= GATES_AT_MOST else "states"


def run(
    cell: Cell,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    state: Slots,
    reset: Tensor | None,
    lengths: Tensor | None,
    memory: str = "auto",
    batch_first: bool = False,
) -> tuple[Tensor, Slots]:
    """See kernels.run, which has asked for a refusal and checked the ids."""
    _check(cell, x, weights, state, reset, lengths)
    operands = (x, *weights, reset, lengths, *state)
    if torch.is_grad_enabled() and any(part is not None and part.requires_grad for part in operands):
        steps = x.shape[0] * x.shape[1]
        if memory == "auto" and torch._C._autograd._top_saved_tensors_default_hooks(False) is not None:
            memory = "states"  # whoever watches over what is saved (a checkpoint) sees tensors, and gates are none
        keep = MEMORY[keeps(memory, cell, steps, weights[1].shape[1], weights[1].dtype)]
        y, *last = _Sweep.apply(cell, keep, batch_first, *operands)
    else:
        y, last, _ = _forward(cell, NOTHING, batch_first, operands)
    return y.transpose(0, 1) if batch_first else y, tuple(last)


def _check(
    cell: Cell,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None, Tensor | None],
    state: Slots,
    reset: Tensor | None,
    lengths: Tensor | None,
) -> None:
    """Raise ValueError unless all shapes fit, and reset and lengths are what the compiled part reads."""
    W_x, W_h, b_x, b_h = weights
    T, B, *width = x.shape
    GH, H = W_h.shape
    I = W_x.shape[-1]
    fits = (
        cell.gates * H == GH
        and W_x.shape == (GH, I)
        and all(b is None or b.shape == (GH,) for b in (b_x, b_h))
        and len(state) == cell.slots
        and all(slot.shape == (B, H) for slot in state)
        and width == ([I] if x.is_floating_point() else [])
    )
    if reset is not None:
        fits = fits and reset.dtype == torch.bool and reset.shape == (T, B) and plain(reset)
    if lengths is not None:
        fits = fits and lengths.dtype == torch.int64 and lengths.shape == (B,) and plain(lengths)
        fits = fits and (B == 0 or (int(lengths.min()) >= 0 and int(lengths.max()) <= T))
    if not fits:
        parts = (x, *weights, *state, reset, lengths)
        shapes = [None if part is None else tuple(part.shape) for part in parts]
        raise ValueError(f"x, weights, state, reset and lengths must fit together as kernels.run says; got {shapes}.")


def _forward(cell: Cell, keep: int, batch_first: bool, operands: Operands) -> tuple[Tensor, list[Tensor], Any]:
    """y as it lies in memory, (B, T, H) where batch_first; the last state; what backward needs."""
    x, state = operands[0], operands[7:]
    T, B = x.shape[:2]
    H = state[0].shape[1]
    y = state[0].new_empty((B, T, H) if batch_first else (T, B, H))
    last = [slot.new_empty(B, H) for slot in state]
    task, _held = _task(cell, y.transpose(0, 1) if batch_first else y, operands)
    return y, last, _native.forward(task, [slot.data_ptr() for slot in last], keep)


def _task(cell: Cell, y: Tensor, operands: Operands) -> tuple[Any, Any]:
    """The description of a call, and the tensors that must live until it is over."""
    x, *rest = operands
    held = [None if part is None else part.contiguous() for part in rest]
    W_x, W_h, b_x, b_h, reset, lengths, *state = map(_address, held)
    ids = not x.is_floating_point()
    I = rest[0].shape[1]
    task = _native.task(
        CELLS[type(cell)],
        PHIS[getattr(cell, "phi", "tanh")],
        getattr(cell, "alpha", 1.0),
        y.dtype is torch.float64,
        (*y.shape[:2], I, y.shape[2]),
        x.data_ptr(),
        x.stride(),
        ids,
        (W_x, W_h, b_x, b_h),
        state,
        reset,
        lengths,
        y.data_ptr(),
        y.stride()[:2],
        torch.get_num_threads(),
    )
    return task, held


def _backward(
    cell: Cell,
    kept: Any,
    y: Tensor,
    operands: Operands,
    needs: Sequence[bool],
    errors: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of those operands that need one."""
    grads = [part.new_empty(part.shape) if need else None for part, need in zip(operands, needs, strict=True)]
    dy, *dlast = errors
    if dy is not None and dy.stride(2) not in (0, 1):
        dy = dy.contiguous()
    dlast = [None if error is None else error.contiguous() for error in dlast]
    task, _held = _task(cell, y, operands)
    dx, dW_x, dW_h, db_x, db_h, _, _, *ds0 = map(_address, grads)
    strides = (0, 0, 0) if dy is None else dy.stride()
    _native.backward(task, kept, _address(dy), strides, [*map(_address, dlast)], dx, (dW_x, dW_h, db_x, db_h), ds0)
    return grads


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


class _Sweep(torch.autograd.Function):
    """forward and backward as one operation; x, weights, state and y are saved as autograd's own."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, keep: int, batch_first: bool, *operands: Tensor | None) -> tuple[Tensor, ...]:
        y, last, ctx.kept = _forward(cell, keep, batch_first, operands)
        ctx.cell, ctx.batch_first = cell, batch_first
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(y, *operands)
        return y, *last

    @staticmethod
    def backward(ctx: Any, *errors: Tensor | None) -> tuple[Tensor | None, ...]:
        y, *operands = ctx.saved_tensors
        kept, needs = ctx.kept, ctx.needs_input_grad[3:]
        if not torch._C._autograd._get_current_graph_task_keep_graph():
            ctx.kept = None  # as autograd frees what it saved: a loss that is still held must not hold the gates
        if all(error is None for error in errors):
            return (None,) * (3 + len(operands))
        if ctx.batch_first:
            y, errors = y.transpose(0, 1), (None if errors[0] is None else errors[0].transpose(0, 1), *errors[1:])
        if torch.is_grad_enabled() or not _as_saved(y, operands, errors):
            return None, None, None, *_through_reference(ctx.cell, operands, needs, errors)
        return None, None, None, *_backward(ctx.cell, kept, y, operands, needs, errors)


def _as_saved(y: Tensor, operands: Operands, errors: Sequence[Tensor | None]) -> bool:
    """Whether the compiled part may read them: a hook on saved tensors may give back others than it took."""
    if y.stride(2) != 1 and y.shape[2] > 1:
        return False
    return all(part is None or plain(part) for part in (y, *operands, *errors)) and all(
        part is None or part.dtype == y.dtype for part in (*operands[1:5], *operands[7:], *errors)
    )


def _through_reference(
    cell: Cell, operands: Operands, needs: Sequence[bool], errors: Sequence[Tensor | None]
) -> list[Tensor | None]:
    """The gradients by operations that autograd can follow in its turn."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # Views, for a weight may stand in two places, and each place has a gradient of its own.
        own = [part.view_as(part) if need else part for part, need in zip(operands, needs, strict=True)]
        x, W_x, W_h, b_x, b_h, reset, lengths, *state = own
        y, last = reference.run(cell, x, (W_x, W_h, b_x, b_h), tuple(state), reset, lengths)
        graph = [pair for pair in zip((y, *last), errors, strict=True) if pair[1] is not None and pair[0].requires_grad]
        wanted = [part for part, need in zip(own, needs, strict=True) if need]
        if not graph:
            return [None] * len(own)
        outputs, dout = zip(*graph, strict=True)
        found = iter(torch.autograd.grad(outputs, wanted, dout, create_graph=create_graph, allow_unused=True))
    return [next(found) if need else None for need in needs]
