"""Kernels run one layer in one direction; a backend is chosen in the open, and says why.

reference   the sweep: every cell, every option, the definition of the others
torch       torch's own recurrent functions: Elman with tanh or relu, GRU, LSTM
"""

from __future__ import annotations

from typing import NamedTuple

import torch

from throughtime.cells import Cell, spell_cell
from throughtime.kernels import reference, torch_functions
from throughtime.shapes import Bool, Float, Int, Slots, Tensor

__all__ = ["BACKENDS", "Choice", "Weights", "choose", "run", "why"]

BACKENDS = {"torch": torch_functions, "reference": reference}
"""In order of preference; each has `refusal(...)` and `run(...)`."""


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


def choose(cell: Cell, *, reset: bool = False, lengths: bool = False, backend: str = "auto") -> Choice:
    """The backend that runs a cell under these options.

    Raises ValueError when the backend asked for by name does not exist or cannot run this.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise ValueError(f"backend must be auto, {' or '.join(BACKENDS)}; got {backend!r}.")
        refusal = BACKENDS[backend].refusal(cell, reset, lengths)
        if refusal:
            raise ValueError(f"backend {backend!r} cannot run this: {refusal}. Choose 'reference' or 'auto'.")
        return Choice(backend, f"{backend}: asked for by name")
    refusal = torch_functions.refusal(cell, reset, lengths)
    if refusal:
        return Choice("reference", f"reference: {refusal}")
    return Choice("torch", f"torch: torch {torch.__version__} has its own {spell_cell(cell)}")


def run(
    cell: Cell,
    x: Float[Tensor, "T B I"],
    weights: Weights,
    state: Slots,
    *,
    reset: Bool[Tensor, "T B"] | None = None,
    lengths: Int[Tensor, " B"] | None = None,
    backend: str = "auto",
) -> tuple[Float[Tensor, "T B H"], Slots]:
    """The outputs of all steps and the last state, S tensors (B, H).

    With lengths, row b has lengths[b] steps: outputs after them are zeros, and its last state is that of its
    last step (the state that came in, when it has none).
    """
    choice = choose(cell, reset=reset is not None, lengths=lengths is not None, backend=backend)
    return BACKENDS[choice.backend].run(cell, x, weights, state, reset, lengths)


def why(layer: torch.nn.Module, *, reset: bool = False, lengths: bool = False) -> str:
    """One sentence: which backend runs a layer, or the layers of a network, under these options, and why."""
    layer = getattr(layer, "layers", layer)
    cell = torch_functions.MODES.get(getattr(layer, "mode", ""), getattr(layer, "cell", None))
    if cell is None:
        return f"torch: {type(layer).__name__} has no recurrence"
    return choose(cell, reset=reset, lengths=lengths, backend=getattr(layer, "backend", "auto")).why
