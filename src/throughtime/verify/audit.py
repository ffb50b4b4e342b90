"""Audit of a training loop: which errors it lets reach which uses of the weights, and what that is called.

The loop runs as it stands on a copy of the module whose recurrence counts (taps.py), once with a second value for
the target of every step; what the optimizer is then given differs by the error of that step alone:

    C_s[t, tau] = (grad at update s with target t changed - grad without) at the use of the weights at step tau
    matrix[t, tau] = sum_s C_s[t, tau] / unit        1: counted once, 2: twice, 0: cut off

BPTT(h; h') (Williams and Peng 1990) is the matrix of ones on e - h < tau <= t, e the end of t's h' steps.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from throughtime.shapes import Tensor
from throughtime.verify.account import Evidence
from throughtime.verify.findings import conclude
from throughtime.verify.letters import drawn, wrapped
from throughtime.verify.places import Places, known
from throughtime.verify.taps import TINY, Carrier, Tape, Use, counter, instrument, recurrent

Loop = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Audit:
    """What a training loop computes.

    name      what it is called, such as `BPTT(8; 8)`.
    findings  what is wrong with it, a sentence each; empty when nothing is.
    matrix    (T, T): how often the error at step t counts at the use of the weights at step tau.
    updates   (U, T, T): the same for each update that the optimizer made.
    carriers  the matrix of every state that carries errors, by name; `matrix` is that of the one that reaches most.
    """

    name: str
    findings: tuple[str, ...]
    matrix: Tensor
    updates: Tensor
    carriers: dict[str, Tensor] = field(repr=False)

    def __str__(self) -> str:
        lines = [f"This loop computes {self.name}.", *(f"  ! {finding}" for finding in self.findings)]
        if not self.findings:
            lines.append("Nothing is wrong with it.")
        return "\n".join([*wrapped(lines), "", *drawn(self.matrix)])

    def plot(self, ax: Any = None) -> Any:
        """Draw the matrix with matplotlib, on axes of one's own or new ones; returns the axes."""
        import matplotlib.pyplot as plt

        ax = plt.subplots()[1] if ax is None else ax
        image = ax.imshow(self.matrix.numpy(), cmap="Blues", vmin=0, vmax=max(1.0, float(self.matrix.max())))
        ax.figure.colorbar(image, ax=ax, label="times counted")
        ax.set(xlabel="use of the weights at step", ylabel="error at step", title=self.name)
        return ax


def audit(
    loop: Loop,
    module: nn.Module,
    x: Tensor,
    y: Tensor | None = None,
    *,
    batch_first: bool = False,
    padding: Tensor | None = None,
    expect: tuple[int, int] | None = None,
    cells: Sequence[type] = (),
    seed: int = 0,
) -> Audit:
    """Run a training loop on a counting copy of a module, and say what it computes.

    loop         `loop(module, x, y)`, or `loop(module, x)` without y: trains the module that it is given, for one
                 pass over the stream, as ever: chunks, states, loss.backward(), a torch.optim optimizer. It is run
                 some T times, with weights that stay as they are.
    module       holds torch.nn's or throughtime's RNN, GRU, LSTM (one direction) or their cells. It is not changed.
    x            (T, B, ...) numbers or ids, as the module reads them; steps that differ, such as torch.randn gives.
                 Some 24 steps of 2 rows are enough: two or three windows, and a rest.
    y            (T, B, ...) targets of two or more values. None: x_{t+1} is the target of step t.
    batch_first  x and y are (B, T, ...).
    padding      bool, (T, B) or as x: True where x is padding, which no error should count. Negative ids and NaN in y
                 are targets that do not count either, and stay as they are.
    expect       (h, every) that the loop is meant to compute; another is a finding.
    cells        classes of one's own whose call `cell(x, state)` makes one step and returns the state or
                 (outputs, state).
    Cost: T + 3 runs of the loop for each state that carries errors (two for an LSTM). Errors are those of row 0.
    Not for bidirectional layers, layers with proj_size, second derivatives, or losses that are no sum over steps.
    Raises ValueError for a module without recurrence, for steps that cannot be told apart, and for a loop that
    calls the module with other steps than those of x, or differs between runs.
    """
    stage = _Stage(loop, module, x, y, batch_first, padding, tuple(cells), seed)
    carriers, strict, base = stage.explore()
    measured = {}
    for carrier in carriers:
        measured[stage.label(carrier, carriers)] = stage.measure(carrier, base)
    evidence = Evidence(
        steps=stage.steps,
        rows=stage.rows,
        updates={name: part[0] for name, part in measured.items()},
        spread={name: part[1] for name, part in measured.items()},
        uses={name: part[2] for name, part in measured.items()},
        padded=stage.padded,
        targets=stage.targets,
        read=sorted({p // stage.rows for p in known(base.calls) if p % stage.rows == 0}),
        events=base.events,
        given=base.given,
        strict=strict,
        expect=expect,
    )
    name, findings, matrices, updates = conclude(evidence)
    widest = max(matrices, key=lambda label: float(matrices[label].sum()))
    return Audit(name, tuple(findings), matrices[widest], updates[widest], matrices)


class _Stage:
    """The loop, and the streams that it is run on."""

    def __init__(
        self,
        loop: Loop,
        module: nn.Module,
        x: Tensor,
        y: Tensor | None,
        batch_first: bool,
        padding: Tensor | None,
        cells: tuple[type, ...],
        seed: int,
    ) -> None:
        self.loop, self.module, self.cells, self.seed = loop, module, cells, seed
        self.parts = dict(recurrent(module, cells))
        if not self.parts:
            raise ValueError(
                f"module must hold a recurrent layer or cell of torch.nn or throughtime; {type(module).__name__} has "
                "none. Name the class of your own cell with cells=(MyCell,)."
            )
        for name, part in self.parts.items():
            if counter(part) is None:
                raise ValueError(f"module must have recurrent weights that learn; {name} has none with requires_grad.")
        if y is not None and y.shape[: min(2, x.dim(), y.dim())] != x.shape[: min(2, x.dim(), y.dim())]:
            raise ValueError(f"y must begin with the axes of x, {tuple(x.shape[:2])}; got {tuple(y.shape)}.")
        self.x, self.y, self.batch_first = x, y, batch_first and x.dim() > 1
        self.stream = self._time_first(x)
        self.rows = self.stream.shape[1]
        self.steps = len(self.stream) - (y is None)
        wanted = x if y is None else y
        pads = torch.zeros(self.stream.shape[:2], dtype=torch.bool)
        if padding is not None:
            pads = self._time_first(padding)
            if pads.dtype != torch.bool or pads.shape != self.stream.shape[:2]:
                raise ValueError(f"padding must be bool with the first axes of x; got {tuple(padding.shape)}.")
        self.padded = {int(p) for p in pads.flatten().nonzero()}
        self.plain, self.other = _two_targets(wanted, self._as_given(pads))
        self.targets = [t for t in range(self.steps) if self._changes(t)]

    def _time_first(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return x[:, None]
        return x.transpose(0, 1) if self.batch_first else x

    def _as_given(self, pads: Tensor) -> Tensor:
        """(T, B) in the order of the user's axes, with one axis for each of the targets'."""
        wanted = self.x if self.y is None else self.y
        pads = pads[:, 0] if wanted.dim() == 1 else pads.T if self.batch_first else pads
        return pads.reshape(*pads.shape, *(1,) * (wanted.dim() - pads.dim()))

    def label(self, carrier: Carrier, carriers: Sequence[Carrier]) -> str:
        """What a carrier is called beside the others."""
        part = self.parts[carrier.module]
        depth = len({other.layer for other in carriers if other.module == carrier.module})
        where = f"{carrier.module or type(part).__name__}"
        where = f"layer {carrier.layer} of {where}" if depth > 1 else where
        return f"{'hc'[carrier.slot] if carrier.slot < 2 else f'slot {carrier.slot}'} of {where}"

    def explore(self) -> tuple[list[Carrier], str, Tape]:
        """The carriers of the module, what torch says against the loop, and the tape of a plain run."""
        first = Carrier(next(iter(self.parts)), 0, 0)
        tape = Tape(first, self.stream.shape[0] * self.rows, places=Places(self.stream, self.batch_first))
        said = self._attempt(tape, self.y, self.x, lenient=True)
        if not known(tape.calls):
            raise ValueError(f"loop must call the module's recurrent layers; got a loop that does not. {said}".strip())
        carriers = [Carrier(n, layer, s) for n, (L, S) in tape.slots.items() for layer in range(L) for s in range(S)]
        for carrier in carriers:
            said = said or self._attempt(Tape(carrier, tape.total, calls=tape.calls), self.y, self.x, lenient=False)
        return carriers, said, tape

    def measure(self, carrier: Carrier, base: Tape) -> tuple[Tensor, Tensor, list[Use]]:
        """C_s[t, place] (U, T, places), the same of what backward wrote (T, places), and the uses seen."""
        weights = counter(self.parts[carrier.module])
        assert weights is not None
        given, spread, uses = [], torch.zeros(self.steps, base.total, dtype=torch.float64), []
        for first in range(0, base.total, weights.numel()):
            run = partial(self._measured, carrier, first, base)
            still = run(None)
            uses = still.uses
            size = min(weights.numel(), base.total - first)
            block = torch.zeros(len(still.updates), self.steps, size, dtype=torch.float64)
            for t in self.targets:
                moved = run(t)
                if len(moved.updates) != len(still.updates):
                    raise ValueError("loop must update as often each time. Take out what depends on the loss.")
                for s, (a, b) in enumerate(zip(moved.updates, still.updates, strict=True)):
                    block[s, t] = (a - b)[:size]
                spread[t] = moved.spread - still.spread
            _check_size(still, float(spread.abs().max()), weights)
            given.append(block)
        return torch.cat(given, -1), spread, uses

    def _measured(self, carrier: Carrier, first: int, base: Tape, t: int | None) -> Tape:
        tape = Tape(carrier, base.total, first, calls=base.calls)
        wanted = self.plain if t is None else self._changed(t)
        x, y = (wanted, None) if self.y is None else (self.x, wanted)
        self._attempt(tape, y, x, lenient=True)
        return tape

    def _changes(self, t: int) -> bool:
        return not torch.equal(self._changed(t).nan_to_num(), self.plain.nan_to_num())

    def _changed(self, t: int) -> Tensor:
        """The targets with another value at step t of row 0."""
        place = t + (self.y is None)
        changed = self.plain.clone()
        row = changed if changed.dim() == 1 else changed[0] if self.batch_first else changed[:, 0]
        other = self.other if self.other.dim() == 1 else self.other[0] if self.batch_first else self.other[:, 0]
        row[place] = other[place]
        return changed

    def _attempt(self, tape: Tape, y: Tensor | None, x: Tensor, *, lenient: bool) -> str:
        """Run the loop; what torch says against its graph, if it does."""
        with ExitStack() as stack:
            stack.enter_context(_seeded(self.seed))
            model = instrument(self.module, self.cells, tape)
            stack.enter_context(_watched_optimizers(model, dict(recurrent(model, self.cells)), tape))
            if lenient:
                stack.enter_context(_graph_kept())
            if tape.places is not None:
                stack.enter_context(_watched_clipping(tape))
            try:
                self.loop(model, x.clone(), *(() if y is None else (y.clone(),)))
            except RuntimeError as error:
                if not any(words in str(error) for words in GRAPH):
                    raise
                return str(error).split("(")[0].strip().split(". ")[0]
        return ""


def _check_size(still: Tape, largest: float, weights: Tensor) -> None:
    """Counts must not drown in what else the gradients hold."""
    size = max((float(update.abs().max()) for update in still.updates), default=0.0)
    if 0 < 1000 * largest < size and size * torch.finfo(weights.dtype).eps > 1e-4 * largest:
        raise ValueError(
            "loop must give the recurrent weights gradients of the size of its errors; got far larger ones, as an L2 "
            "term in the loss, noise or a division by their norm gives. Leave that out for the audit, or give module, "
            "x and y in float64."
        )


GRAPH = ("through the graph a second time", "modified by an inplace operation", "does not require grad")
"""What torch says of a loop whose graph is wrong."""


def _two_targets(y: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
    """Two values for every target that counts, the same for all; any loss has another error for each."""
    floating = y.is_floating_point()
    kept = padding.expand_as(y) | (y.isnan() if floating else y < 0)
    values = y[~kept].unique()
    if floating and not set(values.tolist()) <= {0.0, 1.0}:
        middle, far = (values.min() + values.max()) / 2, 10 * (1 + values.max() - values.min())
        a, b = middle - far, middle + far
    elif len(values) < 2:
        raise ValueError(f"y must have two values at least, so that errors can differ; got {values.tolist()}.")
    else:
        a, b = values[-2], values[-1]
    return torch.where(kept, y, a), torch.where(kept, y, b)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """The same random numbers in every run; the caller's go on as if none were drawn."""
    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


@contextmanager
def _graph_kept() -> Iterator[None]:
    """No backward frees its graph, so that a loop that goes back twice shows where it goes."""
    plain = torch.autograd.backward, torch.autograd.grad

    def keep(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def kept(*args: Any, **options: Any) -> Any:
            if len(args) > place:
                return function(*args[:place], True, *args[place + 1 :], **options)
            return function(*args, **options | {"retain_graph": True})

        return kept

    torch.autograd.backward, torch.autograd.grad = keep(plain[0], 2), keep(plain[1], 3)
    try:
        yield
    finally:
        torch.autograd.backward, torch.autograd.grad = plain


@contextmanager
def _watched_optimizers(model: nn.Module, parts: dict[str, nn.Module], tape: Tape) -> Iterator[None]:
    """Every step of an optimizer of the model is read, and changes nothing: it finds no gradients."""
    own = {id(weight) for weight in model.parameters()}
    weights = counter(parts[tape.carrier.module])
    assert weights is not None
    hidden: list[tuple[Tensor, Tensor]] = []

    def take(optimizer: torch.optim.Optimizer) -> None:
        held = [weight for group in optimizer.param_groups for weight in group["params"] if id(weight) in own]
        if held:
            tape.log("step")
        if any(weight is weights for weight in held):
            tape.given = True
            grad = weights.grad
            found = torch.zeros(weights.numel()) if grad is None else grad.detach().flatten().cpu()
            tape.updates.append(found.double() / TINY)
        for weight in held:
            if weight.grad is not None:
                hidden.append((weight, weight.grad))
                weight.grad = None

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            take(optimizer)
            return None

        def closed() -> Any:
            loss = closure()
            take(optimizer)
            return loss

        if len(args) > 1:
            return (args[0], closed, *args[2:]), kwargs
        return args, kwargs | {"closure": closed}

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        while hidden:
            weight, grad = hidden.pop()
            weight.grad = grad

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _watched_clipping(tape: Tape) -> Iterator[None]:
    """Calls of torch's clipping are seen under whatever name the loop knows them; not while another profiler runs."""
    names = {"clip_grad_norm_", "clip_grad_value_"}

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_name in names and "clip_grad" in frame.f_code.co_filename:
            tape.log("clip")

    if sys.getprofile() is not None:
        yield
        return
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)
