"""Audit of a training loop: which errors it lets reach which uses of the weights, and what that is called.

The loop runs as it stands on a copy of the module whose recurrence counts (taps.py), once with a second value for
the target of every step; what the optimizer is then given differs by the error of that step alone:

    C_s[t, tau] = (grad at update s with target t changed - grad without) at the use of the weights at step tau
    matrix[t, tau] = sum_s C_s[t, tau] / unit        1: counted once, 2: twice, 0: cut off

BPTT(h; h') (Williams and Peng 1990) is the matrix of ones on e - h < tau <= t, e the end of t's h' steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from throughtime.shapes import Tensor
from throughtime.verify.findings import conclude
from throughtime.verify.letters import drawn, wrapped
from throughtime.verify.stage import Loop, Stage


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
    Cost: T + 4 runs of the loop for each state that carries errors (two for an LSTM), twice where the loss is no sum
    over the steps. Errors are those of row 0. A module of half precision is audited in float32.
    Not for bidirectional layers, layers with proj_size, or second derivatives.
    Raises ValueError for a module without recurrence, for steps that cannot be told apart, and for a loop that
    calls the module with other steps than those of x, differs between runs, or has a loss in which the target of one
    step changes the errors of others, unless x has two rows that are read together.
    """
    stage = Stage(loop, module, x, y, batch_first, padding, tuple(cells), seed)
    name, findings, matrices, updates = conclude(stage.evidence(expect))
    widest = max(matrices, key=lambda label: float(matrices[label].sum()))
    return Audit(name, tuple(findings), matrices[widest], updates[widest], matrices)
