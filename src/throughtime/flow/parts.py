"""The names of the parts of a state, and the recurrence inside a network that they are the state of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from throughtime.cells import GRU, LSTM, Cell
from throughtime.kernels.torch_functions import MODES
from throughtime.layers import Recurrent
from throughtime.shapes import Tensor
from throughtime.state import State, flatten

SLOTS: dict[type[Cell], tuple[str, ...]] = {LSTM: ("h", "c")}
"""The names of the slots of a cell that has more than h."""
GATES: dict[type[Cell], dict[str, int]] = {GRU: {"r": 0, "z": 1}, LSTM: {"i": 0, "f": 1, "o": 3}}
"""The gates of a cell: name and place in what its step keeps."""
BLOCKS: dict[type[Cell], tuple[str, ...]] = {GRU: ("r", "z", "n"), LSTM: ("i", "f", "g", "o")}
"""The names of the blocks of W_h, in their order."""


@dataclass(frozen=True, eq=False)
class Recurrence:
    """The one recurrent module of a network: a Recurrent, or a layer of torch.nn."""

    module: nn.Module
    cell: Cell
    depth: int

    @property
    def slots(self) -> tuple[str, ...]:
        others = tuple(f"slot {place + 1}" for place in range(1, self.cell.slots))
        return SLOTS.get(type(self.cell), ("h", *others))


def recurrence(net: nn.Module) -> Recurrence | None:
    """The recurrence of a network; None when it has none of these modules, or several."""
    found = [known for known in map(recurrence_of, net.modules()) if known is not None]
    return found[0] if len(found) == 1 else None


def recurrence_of(module: nn.Module) -> Recurrence | None:
    """The module itself, if it is a Recurrent or a layer of torch.nn."""
    if isinstance(module, Recurrent):
        return Recurrence(module, module.cell, module.depth)
    if isinstance(module, nn.RNNBase) and module.mode in MODES:
        return Recurrence(module, MODES[module.mode], module.num_layers)
    return None


def real(state: State) -> list[Tensor]:
    """The tensors of a state that a gradient can reach, in order."""
    return [part for part in flatten(state)[1].values() if part.is_floating_point()]


def names(net: nn.Module, state: State) -> list[str]:
    """A name for each part that `parted` cuts a state into. Raises TypeError when it holds no real numbers."""
    tensors = {name: part for name, part in flatten(state)[1].items() if part.is_floating_point()}
    if not tensors:
        raise TypeError("net must carry a state of real numbers; got none, so no error goes back through it.")
    known = recurrence(net)
    if known is not None and [part.shape[:-2] for part in tensors.values()] == [(known.depth,)] * known.cell.slots:
        return [f"{slot} of layer {depth + 1}" for slot in known.slots for depth in range(known.depth)]
    found = []
    for name, part in tensors.items():
        place = "".join(f"[{key}]" for key in name.split(".")[1:])
        several = part.dim() > 2 and part.shape[0] > 1
        found += [f"state{place}{f'[{row}]' if several else ''}" for row in range(len(part) if several else 1)]
    return found


def parted(tensors: Sequence[Tensor]) -> Iterator[Tensor]:
    """The tensors of a state, each cut along its first axis where the streams are not that: (..., B, H) each."""
    for tensor in tensors:
        yield from tensor.unbind(0) if tensor.dim() > 2 else (tensor,)


def squared(part: Tensor) -> Tensor:
    """(B,) the sum of squares of each stream of (..., B, H), in float64: small ones would underflow in float32."""
    return part.double().square().sum(-1).reshape(-1, part.shape[-2]).sum(0)


def leaf(part: Tensor) -> Tensor:
    """The tensor outside any graph, and the beginning of one if a gradient can reach it."""
    return part.detach().requires_grad_() if part.is_floating_point() else part


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """(B, n): all numbers of each stream, of tensors with the streams on axis -2."""
    return torch.cat([tensor.movedim(-2, 0).flatten(1) for tensor in tensors], 1)
