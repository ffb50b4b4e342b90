"""The loop of an audit and the streams that it is run on: what each target adds to the gradients, run by run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from throughtime.shapes import Tensor
from throughtime.verify.account import Evidence
from throughtime.verify.places import Places, known
from throughtime.verify.tape import Carrier, Tape, Use
from throughtime.verify.taps import counter, instrument, raised, recurrent
from throughtime.verify.watch import (
    WatchedPadding,
    graph_kept,
    seeded,
    unscaled,
    watched_clipping,
    watched_optimizers,
)

Loop = Callable[..., Any]
TURNS = 6
"""How many fixed outputs are tried where nothing comes back from a head."""
GRAPH = ("through the graph a second time", "modified by an inplace operation", "does not require grad")
"""What torch says of a loop whose graph is wrong."""


@dataclass(frozen=True, eq=False)
class Measured:
    """Of one carrier: C_s[t, place] (U, T, places), the same of what backward wrote (T, places), the uses, and
    whether the errors of all targets together are the sum of each one's."""

    updates: Tensor
    spread: Tensor
    uses: list[Use]
    adds_up: bool


class Stage:
    """The loop, and the streams that it is run on. Arguments and errors are those of `audit`."""

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
            if counter(name, part) is None:
                raise ValueError(f"module must have recurrent weights that learn; {name} has none with requires_grad.")
        if y is not None and y.shape[: min(2, x.dim(), y.dim())] != x.shape[: min(2, x.dim(), y.dim())]:
            raise ValueError(f"y must begin with the axes of x, {tuple(x.shape[:2])}; got {tuple(y.shape)}.")
        self.x, self.y, self.batch_first = raised(x), raised(y), batch_first and x.dim() > 1
        self.stream = self._time_first(self.x)
        self.rows = self.stream.shape[1]
        self.steps = len(self.stream) - (y is None)
        pads = torch.zeros(self.stream.shape[:2], dtype=torch.bool)
        if padding is not None:
            pads = self._time_first(padding)
            if pads.dtype != torch.bool or pads.shape != self.stream.shape[:2]:
                raise ValueError(f"padding must be bool with the first axes of x; got {tuple(padding.shape)}.")
        self.padded = {int(p) for p in pads.flatten().nonzero()}
        self.plain, self.other = _two_targets(self._wanted, self._as_given(pads))
        self.targets = [t for t in range(self.steps) if self._differs(t)]
        self.turn, self.given, self.swapped = 0, frozenset[str](), False

    @property
    def _wanted(self) -> Tensor:
        return self.x if self.y is None else self.y

    def _time_first(self, x: Tensor) -> Tensor:
        if x.dim() == 1:
            return x[:, None]
        return x.transpose(0, 1) if self.batch_first else x

    def _as_given(self, pads: Tensor) -> Tensor:
        """(T, B) in the order of the user's axes, with one axis for each of the targets'."""
        wanted = self._wanted
        pads = pads[:, 0] if wanted.dim() == 1 else pads.T if self.batch_first else pads
        return pads.reshape(*pads.shape, *(1,) * (wanted.dim() - pads.dim()))

    def evidence(self, expect: tuple[int, int] | None) -> Evidence:
        """What all runs of the loop show."""
        carriers, strict, base = self._explore()
        self.given = frozenset(base.held)
        found = self._measure_all(carriers, base)
        learn = [name for name, weight in self.module.named_parameters() if weight.requires_grad]
        parts = tuple(f"{name}." * bool(name) for name in self.parts)
        return Evidence(
            steps=self.steps,
            rows=self.rows,
            updates={name: part.updates for name, part in found.items()},
            spread={name: part.spread for name, part in found.items()},
            uses={name: part.uses for name, part in found.items()},
            padded=self.padded,
            behind={first // self.rows + step for first, step in base.padding},
            targets=self.targets,
            read=sorted({p // self.rows for p in known(base.calls) if p % self.rows == 0}),
            events=base.events,
            given=any(name.startswith(parts) for name in base.held),
            ungiven=[name for name in learn if name not in base.held],
            errors=base.errors,
            swapped=self.swapped,
            strict=strict,
            expect=expect,
        )

    def _measure_all(self, carriers: Sequence[Carrier], base: Tape) -> dict[str, Measured]:
        """What each target adds, by the labels of the carriers.

        Where a loss divides by what all targets decide (a weighted mean, a root), one target changes every error.
        Two rows that change their targets leave such a divisor as it is: then row 0 shows its own error alone.
        """
        for swapped in (False, True) if self.rows > 1 else (False,):
            self.swapped = swapped
            found = {self._label(carrier, carriers): self._measure(carrier, base) for carrier in carriers}
            if all(part.adds_up for part in found.values()):
                return found
        raise ValueError(
            "loop must have a loss that is a sum over the steps and rows; got one in which the target of a step "
            "changes the errors of others. Leave weights, roots and the like out for the audit, or give x two rows "
            "that are read together."
        )

    def _label(self, carrier: Carrier, carriers: Sequence[Carrier]) -> str:
        """What a carrier is called beside the others."""
        part = self.parts[carrier.module]
        depth = len({other.layer for other in carriers if other.module == carrier.module})
        where = f"{carrier.module or type(part).__name__}"
        where = f"layer {carrier.layer} of {where}" if depth > 1 else where
        return f"{'hc'[carrier.slot] if carrier.slot < 2 else f'slot {carrier.slot}'} of {where}"

    def _explore(self) -> tuple[list[Carrier], str, Tape]:
        """The carriers of the module, what torch says against the loop, and the tape of a plain run."""
        first, total = Carrier(next(iter(self.parts)), 0, 0), self.stream.shape[0] * self.rows
        for turn in range(TURNS):
            self.turn = turn
            tape = Tape(first, total, turn, places=Places(self.stream, self.batch_first))
            said = self._attempt(tape, self.y, self.x, lenient=True)
            if tape.errors is not False:
                break
        if not known(tape.calls):
            raise ValueError(f"loop must call the module's recurrent layers; got a loop that does not. {said}".strip())
        carriers = [Carrier(n, layer, s) for n, (L, S) in tape.slots.items() for layer in range(L) for s in range(S)]
        for carrier in carriers:
            strict = Tape(carrier, total, self.turn, calls=tape.calls)
            said = said or self._attempt(strict, self.y, self.x, lenient=False)
        return carriers, said, tape

    def _measure(self, carrier: Carrier, base: Tape) -> Measured:
        weights = counter(carrier.module, self.parts[carrier.module], self.given)
        assert weights is not None
        given, spread, adds_up = [], torch.zeros(self.steps, base.total, dtype=torch.float64), True
        for first in range(0, base.total, weights.numel()):
            run = partial(self._run, carrier, first, base)
            still, together = run([]), run(self.targets)
            size = min(weights.numel(), base.total - first)
            block = torch.zeros(len(still.updates), self.steps, size, dtype=torch.float64)
            for t in self.targets:
                moved = run([t])
                _check_alike(moved, still)
                for s, (a, b) in enumerate(zip(moved.updates, still.updates, strict=True)):
                    block[s, t] = (a - b)[:size]
                spread[t] = moved.spread - still.spread
            _check_alike(together, still)
            _check_size(still, float(spread.abs().max()), weights)
            adds_up &= _adds_up(block, still, together)
            given.append(block)
        return Measured(torch.cat(given, -1), spread, still.uses, adds_up)

    def _run(self, carrier: Carrier, first: int, base: Tape, targets: Sequence[int]) -> Tape:
        tape = Tape(carrier, base.total, self.turn, self.given, first, calls=base.calls)
        wanted = self._changed(targets)
        x, y = (wanted, None) if self.y is None else (self.x, wanted)
        self._attempt(tape, y, x, lenient=True)
        return tape

    def _differs(self, t: int) -> bool:
        a, b = (self._row(part, 0)[t + (self.y is None)].nan_to_num() for part in (self.plain, self.other))
        return not torch.equal(a, b)

    def _row(self, wanted: Tensor, row: int) -> Tensor:
        return wanted if wanted.dim() == 1 else wanted[row] if self.batch_first else wanted[:, row]

    def _changed(self, targets: Sequence[int]) -> Tensor:
        """The targets with another value at steps of row 0; swapped, with that of row 1, which gets row 0's."""
        changed = self.plain.clone()
        if self.swapped:
            self._row(changed, 1)[:] = self._row(self.other, 1)
        for t in targets:
            place = t + (self.y is None)
            self._row(changed, 0)[place] = self._row(self.other, 0)[place]
            if self.swapped:
                self._row(changed, 1)[place] = self._row(self.plain, 1)[place]
        return changed

    def _attempt(self, tape: Tape, y: Tensor | None, x: Tensor, *, lenient: bool) -> str:
        """Run the loop; what torch says against its graph, if it does."""
        with ExitStack() as stack:
            stack.enter_context(seeded(self.seed))
            model = instrument(self.module, self.cells, tape)
            stack.enter_context(watched_optimizers(model, dict(recurrent(model, self.cells)), tape))
            stack.enter_context(unscaled())
            if lenient:
                stack.enter_context(graph_kept())
            if tape.places is not None:
                stack.enter_context(watched_clipping(tape))
                stack.enter_context(WatchedPadding(tape))
            try:
                self.loop(model, x.clone(), *(() if y is None else (y.clone(),)))
            except RuntimeError as error:
                if not any(words in str(error) for words in GRAPH):
                    raise
                return str(error).split("(")[0].strip().split(". ")[0]
        return ""


def _check_alike(moved: Tape, still: Tape) -> None:
    if len(moved.updates) != len(still.updates):
        raise ValueError("loop must update as often each time. Take out what depends on the loss.")


def _check_size(still: Tape, largest: float, weights: Tensor) -> None:
    """Counts must not drown in what else the gradients hold."""
    size = max((float(update.abs().max()) for update in still.updates), default=0.0)
    if 0 < 1000 * largest < size and size * torch.finfo(weights.dtype).eps > 1e-4 * largest:
        raise ValueError(
            "loop must give the recurrent weights gradients of the size of its errors; got far larger ones, as an L2 "
            "term in the loss, noise or a division by their norm gives. Leave that out for the audit, or give module, "
            "x and y in float64."
        )


def _adds_up(block: Tensor, still: Tape, together: Tape) -> bool:
    """Whether what all targets change together is the sum of what each changes alone, to a thousandth of a count."""
    for each, a, b in zip(block, together.updates, still.updates, strict=True):
        difference = (each.sum(0) - (a - b)[: each.shape[1]]).abs().max()
        if difference > 1e-3 * each.abs().max():
            return False
    return True


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
