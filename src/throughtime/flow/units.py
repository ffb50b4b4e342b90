"""What the units do on a chunk: states and gates over time, saturation, dead units; and which inputs an error saw."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import linear, one_hot

from throughtime.cells import CTRNN, GRU, LSTM, Cell, Elman
from throughtime.chunk import Chunk
from throughtime.flow.parts import GATES, Recurrence, names, parted, real, recurrence
from throughtime.flow.result import Activity, Gate, UnitsOverTime
from throughtime.flow.sampling import refuse, undisturbed
from throughtime.layers import Recurrent
from throughtime.shapes import Tensor
from throughtime.state import State, detach

ACTIVATIONS: dict[type[Cell], int] = {Elman: 0, CTRNN: 0, GRU: 2, LSTM: 5}
"""The place of phi's value in what a step of the cell keeps."""
BOUNDS = {"tanh": (-0.99, 0.99), "sigmoid": (0.01, 0.99)}
"""Beyond these phi is called saturated."""
STILL = 1e-3
"""A unit whose range is below this share of the layer's largest |h| says nothing."""


def units_over_time(net: nn.Module, chunk: Chunk, state: State = None) -> UnitsOverTime:
    """States and gates of each layer after each step, in evaluation mode.

    Gates (r and z of a GRU, i, f and o of an LSTM) where the network has one recurrent module, of this library or of
    torch.nn, that it calls once a step; else the states alone, by the names of `Flow.parts`.
    Cost: T single steps. Raises TypeError for a network without a state of real numbers.
    """
    record = _record(net, chunk, state)
    gates = {
        f"{gate} of layer {depth + 1}": _numbers(kept[place])
        for depth, kept in enumerate(record.kept)
        for gate, place in _gates(record.cell).items()
    }
    return UnitsOverTime({name: _numbers(part) for name, part in record.states.items()}, gates)


def activity(net: nn.Module, chunk: Chunk, state: State = None) -> tuple[dict[str, Activity], float]:
    """Saturation, dead units and gates of each layer on a chunk, and how fast the state grows; cost as units_over_time.

    The growth is the slope a step of ln |s_t| over the last half of the chunk, 0 for a state that stays bounded.
    """
    record = _record(net, chunk, state)
    squares = torch.stack([part.double().square().flatten(2).sum(2) for part in record.states.values()]).sum(0)
    half = squares[len(squares) // 2 :].mean(1).clamp_min(1e-300).log().div(2).cpu().numpy()
    growth = float(np.polyfit(np.arange(len(half)), half, 1)[0]) if len(half) > 2 else 0.0
    if not record.kept:
        found = {name: Activity(part.shape[-1], np.nan, _dead(part), {}) for name, part in record.states.items()}
        return found, growth
    found = {}
    for depth, kept in enumerate(record.kept):
        h = record.states[f"h of layer {depth + 1}"]
        gates = {gate: _gate(kept[place]) for gate, place in _gates(record.cell).items()}
        found[f"layer {depth + 1}"] = Activity(h.shape[-1], _saturated(record.cell, kept), _dead(h), gates)
    return found, growth


@dataclass(frozen=True, eq=False)
class _Record:
    """The states (T, B, H) by name; of each layer what its steps kept, where that is known, and the cell."""

    states: dict[str, Tensor]
    kept: list[tuple[Tensor, ...]]
    cell: Cell | None


@torch.no_grad()
def _record(net: nn.Module, chunk: Chunk, state: State) -> _Record:
    """Read a chunk step by step."""
    refuse(net)
    known, inputs, parts = recurrence(net), [], []
    hook = None
    if known is not None:
        hook = known.module.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    try:
        with undisturbed(net):
            state = first = detach(state)
            for t in range(chunk.steps):
                step = chunk[t : t + 1]
                _, state = net(step.x, state, step.reset)
                parts.append([part.clone() for part in parted(real(state))])
            found = dict(zip(names(net, state), map(torch.stack, zip(*parts, strict=True)), strict=True))
    finally:
        if hook is not None:
            hook.remove()
    if known is None or len(inputs) != chunk.steps or "h of layer 1" not in found:
        return _Record(found, [], None)
    start = [torch.zeros_like(part[0]) for part in found.values()] if first is None else list(parted(real(first)))
    before = {name: _entering(part, zero, chunk.reset) for (name, part), zero in zip(found.items(), start, strict=True)}
    return _Record(found, _kept(known, torch.cat([_read(known, x) for x in inputs]), found, before), known.cell)


def _entering(part: Tensor, first: Tensor, reset: Tensor | None) -> Tensor:
    """(T, B, H) what enters each step: the state before it, zeros where a row restarts."""
    before = torch.cat((first[None], part[:-1]))
    return before if reset is None else before.masked_fill(reset[..., None], 0)


def _read(known: Recurrence, x: Tensor) -> Tensor:
    """(1, B, I) what the recurrence read in one step; ids as one-hot rows."""
    if isinstance(known.module, Recurrent) and not x.is_floating_point():
        return one_hot(x.long(), known.module.inputs).to(known.module.get_parameter("weight_ih_l0").dtype)
    return x.reshape(1, -1, x.shape[-1])


def _kept(
    known: Recurrence, x: Tensor, states: dict[str, Tensor], before: dict[str, Tensor]
) -> list[tuple[Tensor, ...]]:
    """What each layer's steps keep (T, B, H), all steps at once, by the cell's own forward."""
    found = []
    for depth in range(known.depth):
        weights = {name: getattr(known.module, f"{name}_l{depth}", None) for name in ("bias_ih", "bias_hh")}
        u, v = (
            linear(given, getattr(known.module, f"{name}_l{depth}"), weights[bias]).unflatten(
                -1, (known.cell.gates, -1)
            )
            for name, bias, given in (
                ("weight_ih", "bias_ih", x),
                ("weight_hh", "bias_hh", before[f"h of layer {depth + 1}"]),
            )
        )
        s = tuple(before[f"{slot} of layer {depth + 1}"] for slot in known.slots)
        found.append(known.cell.forward(u, v, s)[1])
        x = states[f"h of layer {depth + 1}"]
    return found


def _gates(cell: Cell | None) -> dict[str, int]:
    """The gates of a cell by name, and their place in what a step keeps."""
    return {} if cell is None else GATES.get(type(cell), {})


def _saturated(cell: Cell | None, kept: tuple[Tensor, ...]) -> float:
    place = None if cell is None else ACTIVATIONS.get(type(cell))
    phi = getattr(cell, "phi", "tanh")
    if place is None or phi not in BOUNDS:
        return float("nan")
    low, high = BOUNDS[phi]
    return float(((kept[place] < low) | (kept[place] > high)).double().mean())


def _dead(h: Tensor) -> int:
    """The units whose h does not move."""
    values = h.reshape(-1, h.shape[-1])
    spread = values.amax(0) - values.amin(0)
    return int((spread <= STILL * values.abs().max()).sum())


def _gate(values: Tensor) -> Gate:
    return Gate(*(float(part.double().mean()) for part in (values, values < 0.01, values > 0.99)))


def _numbers(part: Tensor) -> NDArray[np.float64]:
    return part.double().cpu().numpy()
