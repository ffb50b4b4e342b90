"""What one run of an audited loop writes down: which uses of the weights were made, from which states, by which errors.

States carry the place that they come from in their values.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from throughtime.shapes import Tensor
from throughtime.verify.places import Places

TINY = 2.0**-40
"""The scale of every gradient, so that none is ever large enough to be clipped; exact in any float."""
NOTCH = 2.0**-16
"""How much a state's values grow with the place that they name."""
FRESH, UNKNOWN = -1, -2
"""Places of states that come from no step: zeros, and anything else."""


@dataclass(frozen=True)
class Carrier:
    """What carries an error back in time: one slot (0: h, 1: c) of one layer of one recurrent module."""

    module: str
    layer: int
    slot: int


@dataclass
class Use:
    """One use of the weights: the places in the stream of its rows, those that their states came from, and those
    that an error reached."""

    places: list[int]
    before: list[int]
    reached: set[int] = field(default_factory=set)


@dataclass
class Tape:
    """What one run of the loop shows, with one carrier open.

    turn      which of the fixed vectors the outputs are.
    given     the weights, by name, that an earlier run saw an optimizer step on; one of these counts.
    first     the place whose uses the first entry of the weights' gradient counts.
    places    finds stream places in what modules are called with; None: `calls`, of an earlier run, tells them.
    calls     the places (n, rows) of every call of a recurrent module; UNKNOWN for other data under no_grad.
    events    backward, step, clip, in their order.
    held      the weights, by name, that an optimizer stepped on.
    updates   what the optimizer was given at each of its steps, by place.
    spread    what backward wrote, whether or not an optimizer took it, by place.
    errors    whether what came back to the outputs was other than zero; None: nothing came back.
    padding   what behind a row's end got an error: (the place of the call's first step, the step of the call).
    slots     layers and slots of every recurrent module, by name.
    modules   the recurrent modules by name, in their order.
    """

    carrier: Carrier
    total: int
    turn: int = 0
    given: frozenset[str] = frozenset()
    first: int = 0
    places: Places | None = None
    calls: list[Tensor] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    held: set[str] = field(default_factory=set)
    updates: list[Tensor] = field(default_factory=list)
    spread: Tensor = field(init=False)
    errors: bool | None = None
    padding: set[tuple[int, int]] = field(default_factory=set)
    slots: dict[str, tuple[int, int]] = field(default_factory=dict)
    modules: list[str] = field(default_factory=list)
    called: int = 0
    grid: Tensor | None = None
    cursor: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.spread = torch.zeros(self.total, dtype=torch.float64)

    def see(self, inputs: Iterable[Any]) -> None:
        """Look for steps of the stream in what a module is called with; the first tensor that has them counts."""
        if self.places is None:
            return
        for value in inputs:
            if isinstance(value, PackedSequence):
                grid = self.places.find_rows(*pad_packed_sequence(value))
            else:
                grid = self.places.find(value) if isinstance(value, Tensor) else None
            if grid is not None:
                self.grid, self.cursor = grid, {}
                return

    def locate(self, name: str, steps: int, rows: int) -> Tensor:
        """The places (steps, rows) of the call that a recurrent module gets now."""
        self.called += 1
        if self.places is None:
            if self.called > len(self.calls) or self.calls[self.called - 1].shape != (steps, rows):
                raise ValueError("loop must make the same calls each time. Take out what is drawn or remembered.")
            return self.calls[self.called - 1]
        start = self.cursor.get(name, 0)
        self.cursor[name] = start + steps
        part = None if self.grid is None else self.grid[start : start + steps]
        if part is not None and rows == 1 != part.shape[1]:
            part = part[:, :1]
        if part is None or part.shape != (steps, rows):
            if not torch.is_grad_enabled():
                self.calls.append(torch.full((steps, rows), UNKNOWN))
                return self.calls[-1]
            raise ValueError(
                f"module must be called with steps of x as they stand there; {name} got {steps} x {rows} others. "
                "Give x in the form in which the module reads it."
            )
        self.places.read(part)
        self.calls.append(part)
        return part

    def log(self, event: str) -> None:
        """Write down what happened; a backward that runs over many steps is one."""
        if not (event == "backward" and self.events and self.events[-1] == "backward"):
            self.events.append(event)

    def pattern(self, width: int, like: Tensor) -> Tensor:
        """The fixed vector of a width: of outputs, and of what an error is weighed with."""
        return _pattern(width, self.turn).to(like)

    def unit(self, width: int, like: Tensor) -> Tensor:
        """What the pattern weighs as 1, in float64."""
        vector = self.pattern(width, like).double()
        return vector / vector.square().sum()

    def named(self, module: str, places: Sequence[int], width: int, like: Tensor) -> Tensor:
        """State values (rows, width) that name the places that they come from, and the module that made them."""
        shift = self.modules.index(module) * self.total
        grown = 1 + NOTCH * (torch.tensor(places, dtype=torch.float64) + 1 + shift)
        return (grown[:, None].to(like.device) * self.pattern(width, like).double()).to(like)

    def places_named(self, module: str, state: Tensor) -> list[int]:
        """The places that state values (rows, width) name. Raises ValueError for states of another module."""
        first, found = float(_pattern(1, self.turn)), []
        for value in state.detach()[:, 0].double().tolist():
            maker, place = divmod(_place_named(value / first), self.total)
            if 0 <= maker != self.modules.index(module) and maker < len(self.modules):
                raise ValueError(
                    f"module must have recurrent layers with states of their own; got {module}, which goes on from the "
                    f"state of {self.modules[maker]}, as a decoder does from an encoder's. Audit each as a module of "
                    "its own."
                )
            found.append(place if maker >= 0 else place - self.total)
        return found


@cache
def _pattern(width: int, turn: int) -> Tensor:
    """Of size 0.5 to 1.5, its first entry 1 or -1; other signs at every turn, as a head's units may be off for some."""
    signs = torch.ones(width, dtype=torch.float64)
    if turn:
        signs = 2.0 * torch.randint(2, (width,), generator=torch.Generator().manual_seed(turn)).double() - 1
    signs[0] = (-1) ** turn
    return signs * (1 + 0.5 * torch.sin(2.4 * torch.arange(width, dtype=torch.float64)))


def _place_named(value: float) -> int:
    if value == 0:
        return FRESH
    place = (value - 1) / NOTCH - 1
    return round(place) if place > -0.5 and abs(place - round(place)) < 0.1 else UNKNOWN
