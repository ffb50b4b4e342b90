"""The fully recurrent network: every unit sees every unit and the input, and any unit may have a target at any time.

    xi(n) = [z(n); u(n)]                    z_j(n) = d_j(n) where a teacher forces unit j at n, else y_j(n)
    v_j(n+1) = sum_i w_ji xi_i(n) + b_j     w_ji is the weight from i to j
    y_j(n+1) = phi(v_j(n+1))

Williams and Zipser (1989); Haykin teaches it under these names. The input of step n acts at n + 1. A forced unit hands
its target on in the place of its output, so no error goes back through it to the steps before, while its own error
d_j(n) - y_j(n) still counts.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad

from throughtime.cells import Elman
from throughtime.kernels import Weights, choose, run
from throughtime.shapes import Bool, Float, Int, Tensor


class FullyRecurrent(nn.Module):
    """N units in one layer without a readout: the first `visible` of them are the outputs, the others are hidden.

    units    N, all of them.
    inputs   M, numbers a step, or the size of the vocabulary when x are ids.
    visible  A, the units that can have targets, 1 <= A <= N.
    phi      sigmoid, tanh, relu or identity.
    forced   x has A more columns: d(n), the values that the visible units are forced to, and NaN where they are free.
    bias     whether there is b; Haykin counts it as the weights of an input that is always 1.
    backend  as in throughtime.RNN. With forced the reference runs, the only one that cuts single units.
    Call: `net(x, state, reset) -> (y, state)`; state is y(n) of all units, (B, N), zeros at the start; x is u(n), and
    the output y(n+1) of the visible units. So a chunk pairs x = u(n) with y = d(n+1), and the network adds no delay of
    its own; chunk.mask (T, B, A) says which units have a target at n + 1. Forcing a unit wherever it has a target is
    x = cat((u, d[:-1]), -1), y = d[1:], mask = (~d[1:].isnan()).double(), with d of T + 1 steps and NaN where free.

    weight is (N, N + M), w_ji in row j and column i, the columns of the units first; bias is (N,). Costs per step
    O(N (N + M)). A layered network with a readout, throughtime.Network, learns faster and is what to use unless outputs
    must feed back, or targets move from unit to unit.
    """

    def __init__(
        self,
        units: int,
        inputs: int,
        visible: int,
        *,
        phi: str = "sigmoid",
        forced: bool = False,
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        for name, value in (("units", units), ("inputs", inputs), ("visible", visible)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        if visible > units:
            raise ValueError(f"visible must be at most units, {units}; got {visible}. Raise units.")
        if forced and backend not in ("auto", "reference"):
            raise ValueError(f"backend must be auto or reference with forced=True; got {backend!r}.")
        self.units, self.inputs, self.visible, self.forced = units, inputs, visible, forced
        self.cell = Elman(phi)
        self.backend = "reference" if forced else backend
        choose(self.cell, backend=self.backend)
        self.weight = nn.Parameter(torch.empty(units, units + inputs))
        self.bias = nn.Parameter(torch.empty(units)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(N), as the recurrent layers of torch."""
        for weight in self.parameters():
            nn.init.uniform_(weight, -1 / math.sqrt(self.units), 1 / math.sqrt(self.units))

    def forward(
        self,
        x: Float[Tensor, "T B I"] | Int[Tensor, "T B"],
        state: Float[Tensor, "B N"] | None = None,
        reset: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B A"], Float[Tensor, "B N"]]:
        self._check(x, state, reset)
        W_y, W_u = self.weight.split((self.units, self.inputs), 1)
        if state is None:
            state = self.weight.new_zeros(x.shape[1], self.units)
        if not x.is_floating_point():
            x = x.long()
        if self.forced:
            # What is forced enters as an input through the weights of its unit, and the unit itself is cut.
            free = x[..., self.inputs :].isnan()
            x = torch.cat((x[..., : self.inputs], x[..., self.inputs :].masked_fill(free, 0)), -1)
            W_u = torch.cat((W_u, W_y[:, : self.visible]), 1)
            cut = pad(~free, (0, self.units - self.visible))  # T B N
            reset = cut if reset is None else cut | reset[..., None]
        b = (None, None) if self.bias is None else (self.bias, torch.zeros_like(self.bias))
        y, (state,) = run(self.cell, x, Weights(W_u, W_y, *b), (state,), reset=reset, backend=self.backend)
        return y[..., : self.visible], state

    def _check(self, x: Tensor, state: Any, reset: Tensor | None) -> None:
        """Raise ValueError unless everything has the shape that `forward` states."""
        wanted = self.inputs + self.forced * self.visible
        ids = x.dim() == 2 and not x.is_floating_point() and not self.forced
        if not ids and (x.dim() != 3 or x.shape[-1] != wanted or not x.is_floating_point()):
            also = f"{self.inputs} inputs and {self.visible} forced values" if self.forced else "or ids (T, B)"
            raise ValueError(f"x must be numbers (T, B, {wanted}), {also}; got {x.dtype} {tuple(x.shape)}.")
        start = (x.shape[1], self.units)
        if state is not None and (not isinstance(state, Tensor) or state.shape != start):
            raise ValueError(f"state must be a tensor {start}, as the call before returned it.")
        if reset is not None and (reset.dtype != torch.bool or reset.shape != x.shape[:2]):
            leading, got = tuple(x.shape[:2]), tuple(reset.shape)
            raise ValueError(f"reset must be bool with the leading axes of x, {leading}; got {reset.dtype} {got}.")

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; `build` makes the network anew from them."""
        return {
            "network": "fully recurrent",
            "units": self.units,
            "inputs": self.inputs,
            "visible": self.visible,
            "phi": self.cell.phi,
            "forced": self.forced,
            "bias": self.bias is not None,
            "backend": self.backend,
        }

    def extra_repr(self) -> str:
        return f"{self.units}, {self.inputs}, {self.visible}, phi={self.cell.phi!r}, forced={self.forced}"
