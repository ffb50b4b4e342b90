"""The legend of the axes, and the type names that the shapes in this library are written with.

T  time, always the first axis inside the library
B  streams: the rows of a minibatch, each a sequence of its own
I  inputs per step
H  units, the width of a state
G  gates: the pre-activations of one unit (Elman 1, GRU 3, LSTM 4)
S  slots: the tensors that make up a state (Elman and GRU 1: h; LSTM 2: h and c)
A  outputs per step
L  layers times directions
"""

from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

__all__ = ["Bool", "Float", "Int", "Shaped", "Slots", "Tensor"]

Slots = tuple[Tensor, ...]
"""The state of one layer, S tensors (B, H), or of all its steps, S tensors (T, B, H)."""
