"""The laws of a cell: its backward is the derivative of its forward, alone and inside the sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product

import torch
from torch.nn.functional import linear

from throughtime.cells import Cell, cell_named, spell_cell
from throughtime.cells.base import Kept
from throughtime.shapes import Slots, Tensor
from throughtime.sweep import backward, recall, sweep
from throughtime.verify.result import Measured, Result, check, distance, random, rounding

T, B, H = 7, 3, 5
DOUBLE, SINGLE = torch.float64, torch.float32


def check_cell(cell: str | Cell) -> list[Result]:
    """Hold a cell to the laws of `throughtime.cells.Cell`; its own backward, or the default one.

    Returns one Result a law; `throughtime.verify.require` turns a broken one into an AssertionError. What the
    cell raises comes through.
    """
    cell = cell_named(cell)
    name = spell_cell(cell)
    shapes = check("the shapes of states, gates and what is kept", name, partial(_shapes, cell))
    if not shapes.passed:
        return [shapes]
    return [shapes, *(check(law, name, partial(measure, cell)) for law, measure in LAWS.items())]


def _point(cell: Cell, *lead: int, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor, Slots]:
    """Random u, v and s with some leading axes."""
    u, v = (random(*lead, B, cell.gates, H, dtype=dtype) for _ in range(2))
    return u, v, tuple(random(*lead, B, H, dtype=dtype) for _ in range(cell.slots))


def _errors(cell: Cell, *lead: int, dtype: torch.dtype = DOUBLE) -> Slots:
    """Random dL/ds of every slot."""
    return tuple(random(*lead, B, H, dtype=dtype) for _ in range(cell.slots))


def _shapes(cell: Cell) -> Measured:
    """The first fault, if there is one: what follows it may not even run."""
    for dtype, lead in product((DOUBLE, SINGLE), ((), (1,), (T,), (2, T))):
        for name, given, wanted in _described(cell, lead, dtype):
            if given != wanted:
                return Measured(1, 0, f"{name} is {given}, must be {wanted}.")
    return Measured(0)


def _described(cell: Cell, lead: tuple[int, ...], dtype: torch.dtype) -> Iterator[tuple[str, object, object]]:
    """(name, what it is, what it must be) of all that a cell returns."""
    u, v, s = _point(cell, *lead, dtype=dtype)
    gates, slot = (tuple(u.shape), dtype), ((*lead, B, H), dtype)
    states, kept = cell.forward(u, v, s)
    yield "the number of slots that forward returns", len(states), cell.slots
    for k, state in enumerate(states):
        yield f"slot {k} after forward", (tuple(state.shape), state.dtype), slot
    for k, part in enumerate(kept):
        yield f"the leading axes of kept[{k}]", tuple(part.shape[: len(lead) + 1]), (*lead, B)
    du, dv, ds = cell.backward(_errors(cell, *lead, dtype=dtype), kept)
    yield "du", (tuple(du.shape), du.dtype), gates
    yield "dv", (tuple(dv.shape), dv.dtype), gates
    yield "the number of slots that backward returns", len(ds), cell.slots
    for k, part in enumerate(ds):
        yield f"slot {k} after backward", (tuple(part.shape), part.dtype), slot


def _by_hand(cell: Cell, u: Tensor, v: Tensor, s: Slots, ds: Slots) -> tuple[Tensor, Tensor, Slots]:
    with torch.no_grad():
        _, kept = cell.forward(u, v, s)
        return cell.backward(ds, kept)


def _derivative(cell: Cell) -> Measured:
    u, v, s = _point(cell, T)
    ds = _errors(cell, T)
    pull = torch.func.vjp(lambda u, v, s: tuple(cell.forward(u, v, s)[0]), u, v, s)[1]
    return Measured(distance(_by_hand(cell, u, v, s, ds), pull(ds)), rounding(DOUBLE))


def _differences(cell: Cell) -> Measured:
    """Central differences along random directions; their error is of the order eps^(2/3)."""
    step = torch.finfo(DOUBLE).eps ** (1 / 3)
    u, v, s = _point(cell)
    ds = _errors(cell)
    found, wanted = [], []
    for _ in range(8):
        d_u, d_v, d_s = _point(cell)
        after, before = (
            cell.forward(
                u + side * d_u, v + side * d_v, tuple(slot + side * d for slot, d in zip(s, d_s, strict=True))
            )[0]
            for side in (step, -step)
        )
        wanted.append((_inner(after, ds) - _inner(before, ds)) / (2 * step))
        du, dv, dp = _by_hand(cell, u, v, s, ds)
        found.append(_inner((du, dv, *dp), (d_u, d_v, *d_s)))
    return Measured(distance(torch.stack(found), torch.stack(wanted)), 100 * step**2)


def _inner(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> Tensor:
    return sum(((x * y).sum() for x, y in zip(a, b, strict=True)), torch.zeros((), dtype=DOUBLE))


def _leading(cell: Cell) -> Measured:
    """All steps and rows at once against each alone, forward, kept and backward."""
    u, v, s = _point(cell, T)
    ds = _errors(cell, T)
    states, kept = cell.forward(u, v, s)
    gradient = cell.backward(ds, kept)
    errors = []
    for t in range(T):
        for b in range(B):
            at = (t, slice(b, b + 1))
            alone, kept_alone = cell.forward(u[at], v[at], _at(s, at))
            errors.append(distance(alone, _at(states, at)))
            errors.append(distance(kept_alone, _at(kept, at)))
            du, dv, dp = cell.backward(_at(ds, at), _at(kept, at))
            errors.append(distance((du, dv, dp), (gradient[0][at], gradient[1][at], _at(gradient[2], at))))
    return Measured(_worst(errors), rounding(DOUBLE))


def _at(parts: Slots | Kept, index: tuple[int, slice]) -> Slots:
    return tuple(part[index] for part in parts)


def _worst(errors: list[float]) -> float:
    return float(torch.tensor(errors, dtype=DOUBLE).max())


def _loop(cell: Cell, u: Tensor, W_h: Tensor, b_h: Tensor | None, s: Slots, reset: Tensor | None) -> Slots:
    """The recurrence once more, as plainly as it can be said; autograd derives its gradient."""
    states = []
    for t in range(u.shape[0]):
        if reset is not None:
            s = tuple(torch.where(reset[t, :, None], torch.zeros_like(slot), slot) for slot in s)
        s, _ = cell.forward(u[t], linear(s[0], W_h, b_h).unflatten(-1, u.shape[-2:]), s)
        states.append(s)
    return tuple(torch.stack(slots) for slots in zip(*states, strict=True))


Inputs = tuple[Tensor, ...]
"""u, W_h, b_h and the slots of s0."""


def _inputs(cell: Cell, steps: int, rows: int, dtype: torch.dtype = DOUBLE) -> Inputs:
    u = random(steps, rows, cell.gates, H, dtype=dtype)
    W_h = (random(cell.gates * H, H) / H**0.5).to(dtype)
    slots = (random(rows, H, dtype=dtype) for _ in range(cell.slots))
    return tuple(part.requires_grad_() for part in (u, W_h, random(cell.gates * H, dtype=dtype), *slots))


def _run(loop: Callable[..., Slots], cell: Cell, inputs: Inputs, reset: Tensor | None) -> Slots:
    u, W_h, b_h, *s0 = inputs
    return loop(cell, u, W_h, b_h, tuple(s0), reset)


def _gradient(states: Slots, inputs: Inputs, ds: Slots, graph: bool = False) -> Inputs:
    return torch.autograd.grad(states, inputs, ds, create_graph=graph, materialize_grads=True)


def _sweep(cell: Cell) -> Measured:
    errors = []
    for steps, rows, restarts in ((T, B, True), (T, B, False), (T, 1, True), (1, B, True), (1, 1, False)):
        inputs = _inputs(cell, steps, rows)
        reset = torch.rand(steps, rows) < 0.3 if restarts else None
        ds = tuple(random(steps, rows, H) for _ in range(cell.slots))
        given, wanted = (_run(loop, cell, inputs, reset) for loop in (sweep, _loop))
        gradients = (_gradient(states, inputs, ds) for states in (given, wanted))
        errors += [distance(given, wanted), distance(*gradients)]
    return Measured(_worst(errors), rounding(DOUBLE, T, H))


def _twice(cell: Cell) -> Measured:
    """The gradient of a random function of the gradient; with respect to the errors that came in, too."""
    inputs = _inputs(cell, T, B)
    reset = torch.rand(T, B) < 0.3
    ds = tuple(random(T, B, H).requires_grad_() for _ in range(cell.slots))
    d_inputs = tuple(torch.randn_like(part) for part in inputs)
    both = [_run(loop, cell, inputs, reset) for loop in (sweep, _loop)]
    gradients = [_gradient(states, inputs, ds, graph=True) for states in both]
    given, wanted = (_gradient(gradient, (*inputs, *ds), d_inputs) for gradient in gradients)
    return Measured(distance(given, wanted), rounding(DOUBLE, 2 * T, H))


def _restart(cell: Cell) -> Measured:
    """From its restart on a row is the row alone from zeros, and nothing goes back across."""
    start, row = 3, 1
    inputs = _inputs(cell, T, B)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[start, row] = True
    u, W_h, b_h, *s0 = inputs
    zeros = tuple(torch.zeros(1, H, dtype=DOUBLE) for _ in s0)
    ds = tuple(random(T - start, 1, H) for _ in s0)
    states = sweep(cell, u, W_h, b_h, tuple(s0), reset)
    late = tuple(slot[start:, row : row + 1] for slot in states)
    alone = sweep(cell, u[start:, row : row + 1], W_h, b_h, zeros, None)
    given, wanted = (_gradient(part, inputs, ds) for part in (late, alone))
    return Measured(_worst([distance(late, alone), distance(given, wanted)]), rounding(DOUBLE, T, H))


def _not_a_number(cell: Cell) -> Measured:
    """Faults: numbers that are none after a row's restart, forward or backward, when all before it was."""
    start, row = 3, 1
    u, W_h, b_h, *s0 = (part.detach() for part in _inputs(cell, T, B))
    u[:start, row] = float("nan")
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[start, row] = True
    states = sweep(cell, u, W_h, b_h, tuple(s0), reset)
    _, kept = recall(cell, u, W_h, b_h, tuple(s0), states, reset)
    du, dv, _ = backward(cell, kept, W_h, reset, tuple(random(T, B, H) for _ in s0))
    faults = sum(int(part[start:, row].isnan().sum()) for part in (*states, du, dv))
    faults += sum(int(part[:, [0, 2]].isnan().sum()) for part in (*states, du, dv))
    inputs = _inputs(cell, T, B)
    poisoned = (*inputs[:3], *(torch.full_like(slot, float("nan")).requires_grad_() for slot in inputs[3:]))
    states = _run(sweep, cell, poisoned, torch.ones(T, B, dtype=torch.bool))
    gradient = _gradient(states, poisoned, tuple(random(T, B, H) for _ in s0))
    return Measured(faults + sum(int(part.isnan().sum()) for part in (*states, *gradient)))


def _single(cell: Cell) -> Measured:
    steps = 20
    inputs = _inputs(cell, steps, B, SINGLE)
    doubles = tuple(part.detach().double().requires_grad_() for part in inputs)
    ds = tuple(random(steps, B, H, dtype=SINGLE) for _ in range(cell.slots))
    given, wanted = (_run(sweep, cell, part, None) for part in (inputs, doubles))
    gradients = _gradient(given, inputs, ds), _gradient(wanted, doubles, tuple(part.double() for part in ds))
    return Measured(_worst([distance(given, wanted), distance(*gradients)]), rounding(SINGLE, steps, H))


LAWS: dict[str, Callable[[Cell], Measured]] = {
    "backward of the cell = derivative of its forward": _derivative,
    "backward of the cell = finite differences": _differences,
    "all steps at once = each step and row alone": _leading,
    "gradient of the sweep = autograd through the loop": _sweep,
    "second derivative of the sweep = autograd's": _twice,
    "a restart cuts state and gradient": _restart,
    "what is not a number stays before a restart": _not_a_number,
    "float32 = float64 up to rounding": _single,
}
