"""Kernels run one layer in one direction; a backend is chosen in the open, and says why.

native      the sweep compiled from C++: every cell of the library, on plain CPU tensors, float32 and float64
torch       torch's own recurrent functions: Elman with tanh or relu, GRU, LSTM
reference   the sweep: every cell, every option, the definition of the others
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from throughtime.cells import Cell, spell_cell
from throughtime.kernels import native, reference, torch_functions
from throughtime.shapes import Bool, Float, Int, Slots, Tensor

__all__ = ["BACKENDS", "MEMORY", "Choice", "Weights", "check_ids", "choose", "run", "why"]

BACKENDS = {"native": native, "torch": torch_functions, "reference": reference}
"""In order of preference; each has `refusal(...)` and `run(...)`."""

MEMORY = ("auto", *native.MEMORY)
"""What the native backend keeps for a gradient: the gates of every step, or the states alone, which cost one more
product in backward; auto keeps gates while they are small."""


class Weights(NamedTuple):
    """The weights of one layer in one direction: u = W_x x + b_x, v = W_h h + b_h; biases may be missing."""

    W_x: Float[Tensor, "GH I"]
    W_h: Float[Tensor, "GH H"]
    b_x: Float[Tensor, " GH"] | None = None
    b_h: Float[Tensor, " GH"] | None = None


class Choice(NamedTuple):
    """A backend, and the sentence that says why it runs."""

    backend: str
    why: str


def choose(
    cell: Cell,
    *tensors: Tensor,
    reset: bool = False,
    lengths: bool = False,
    backend: str = "auto",
    memory: str = "auto",
) -> Choice:
    """The backend that runs a cell under these options.

    tensors: what it would run on, x first, then weights and state, as far as they are known; without them the
    answer holds for plain numbers on the CPU.
    Raises ValueError when the backend asked for by name does not exist or cannot run this.
    """
    name, refused = _select(cell, tensors, reset, lengths, backend, memory)
    if name == "native":
        reason = native.plan()
    elif backend != "auto":
        reason = "asked for by name"
    else:
        own = [f"torch {torch.__version__} has its own {spell_cell(cell)}"] * (name == "torch")
        reason = "; ".join([*own, *(f"not {other}: {refusal}" for other, refusal in refused)])
    return Choice(name, f"{name}: {reason}")


def _select(
    cell: Cell, tensors: Sequence[Tensor], reset: bool, lengths: bool, backend: str, memory: str
) -> tuple[str, list[tuple[str, str]]]:
    """The name of the backend that runs, and those before it with what they say against it."""
    if memory not in MEMORY:
        raise ValueError(f"memory must be {_either(MEMORY)}; got {memory!r}.")
    if backend not in ("auto", *BACKENDS):
        raise ValueError(f"backend must be {_either(('auto', *BACKENDS))}; got {backend!r}.")
    if memory != "auto" and backend not in ("auto", "native"):
        raise ValueError(f"memory must be auto with backend {backend!r}; got {memory!r}. Only native has a choice.")
    refused: list[tuple[str, str]] = []
    for name in BACKENDS if backend == "auto" else (backend,):
        refusal = BACKENDS[name].refusal(cell, reset, lengths, tensors)
        if not refusal:
            return name, refused
        refused.append((name, refusal))
    raise ValueError(f"backend {backend!r} cannot run this: {refused[0][1]}. Choose 'reference' or 'auto'.")


def run(
    cell: Cell,
    x: Float[Tensor, "T B I"] | Int[Tensor, "T B"],
    weights: Weights,
    state: Slots,
    *,
    reset: Bool[Tensor, "T B"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    backend: str = "auto",
    memory: str = "auto",
    batch_first: bool = False,
) -> tuple[Float[Tensor, "T B H"], Slots]:
    """The outputs of all steps and the last state, S tensors (B, H).

    x may be ids (int64), which stand for one-hot rows of width I. Raises ValueError for an id outside.
    With lengths, row b has lengths[b] steps: outputs after them are zeros, and its last state is that of its
    last step (the state that came in, when it has none).
    memory: see MEMORY. batch_first: the outputs may lie in memory as (B, T, H).
    """
    tensors = [part for part in (x, *weights, *state) if part is not None]
    name, _ = _select(cell, tensors, reset is not None, lengths is not None, backend, memory)
    if not x.is_floating_point():
        check_ids("x", x, weights.W_x.shape[1])
    if name == "native":
        return native.run(cell, x, weights, state, reset, lengths, memory, batch_first)
    return BACKENDS[name].run(cell, x, weights, state, reset, lengths)


def why(layer: torch.nn.Module, x: Tensor | None = None, *, reset: bool = False, lengths: bool = False) -> str:
    """One sentence: which backend runs a layer, or the layers of a network, under these options, and why.

    x: what the layer or network would be called with; without it the sentence holds for its own dtype and device.
    """
    encode: Callable[[Tensor], Tensor] | None = getattr(layer, "encode", None)
    if x is not None and encode is not None:
        with torch.no_grad():
            x = encode(x)
    layer = getattr(layer, "layers", layer)
    cell = torch_functions.MODES.get(getattr(layer, "mode", ""), getattr(layer, "cell", None))
    if cell is None:
        return f"torch: {type(layer).__name__} has no recurrence"
    backend, memory = getattr(layer, "backend", "auto"), getattr(layer, "memory", "auto")
    if getattr(layer, "proj_size", 0) and backend == "auto" and not (reset or lengths):
        return f"torch: torch {torch.__version__} has its own {spell_cell(cell)} with projections"
    weights = list(layer.parameters())
    tensors = weights if x is None else [x, *weights]
    choice = choose(cell, *tensors, reset=reset, lengths=lengths, backend=backend, memory=memory)
    if choice.backend != "native":
        return choice.why
    if x is None and memory == "auto":
        return f"{choice.why}, keeps gates up to {native.GATES_AT_MOST // 2**20} MB, then states"
    H: Any = getattr(layer, "hidden_size", None) or layer.units
    if x is None:
        return f"{choice.why}, keeps {native.keeps(memory, cell, 0, H, weights[0].dtype)}"
    shape = x.shape[:-1] if x.is_floating_point() else x.shape
    T, B = (*shape, 1)[:2] if not getattr(layer, "batch_first", False) or len(shape) == 1 else shape[::-1]
    roles = native.roles(cell, (T, B, weights[0].shape[1], H), weights[0].dtype)
    keeps = native.keeps(memory, cell, shape.numel(), H, weights[0].dtype)
    return ", ".join(part for part in (choice.why, roles, f"keeps {keeps}") if part)


def check_ids(name: str, ids: Tensor, size: int) -> None:
    """Raise ValueError when an id is not in the vocabulary."""
    if ids.numel():
        low, high = map(int, torch.aminmax(ids))
        if not 0 <= low <= high < size:
            raise ValueError(f"{name} must be ids from 0 to {size - 1}; got {low} to {high}.")


def _either(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"
