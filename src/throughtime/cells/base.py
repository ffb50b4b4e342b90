"""A cell is one pointwise map and its derivative: s_t = P(u_t, v_t, s_{t-1}).

The two products are made outside: u_t = W_x x_t + b_x and v_t = W_h h_{t-1} + b_h. s[0] is the output h.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from throughtime.shapes import Float, Slots, Tensor

Gates = Float[Tensor, "*time B G H"]
Kept = tuple[Tensor, ...]
"""What the derivative needs of a step: tensors whose leading axes are those of the state."""


class Cell(ABC):
    """A recurrent cell; concrete cells are frozen dataclasses, so that their options are their identity.

    gates is G and slots is S. Any leading axes are allowed: one step is (B, G, H), a whole stream
    (T, B, G, H), so that `forward` on all steps at once rebuilds what was kept from the stored states.
    A map that needs a second product inside the step (the GRU that resets before the product) is not
    of this form.
    """

    gates: ClassVar[int]
    slots: ClassVar[int]

    @abstractmethod
    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        """The next state, S tensors (..., B, H), and what `backward` needs."""

    def backward(self, ds: Slots, kept: Kept) -> tuple[Gates, Gates, Slots]:
        """du, dv and the pointwise part of ds_{t-1}, given ds = dL/ds_t.

        The default differentiates `forward` and expects `kept` to be (u, v, *s), the arguments of forward.
        """
        if len(kept) != 2 + self.slots:
            raise TypeError(
                f"kept of {type(self).__name__} must be (u, v, *s), {2 + self.slots} tensors; got {len(kept)}. "
                "Return the arguments of forward as kept, or write a backward."
            )
        pull = torch.func.vjp(lambda u, v, *s: self.forward(u, v, s)[0], *kept)[1]
        du, dv, *dp = pull(tuple(ds))
        return du, dv, tuple(dp)
