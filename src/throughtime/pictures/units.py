"""Pictures of a network's inside: how its gates and units are used, and the eigenvalues of its recurrent weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.pictures.base import Picture
from throughtime.pictures.style import FAINT, INK, MARK, Size, legend_above, narrow, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BINS = 20
MANY = 1200
"""Eigenvalues above which they are drawn as an image: each by itself would make a page of megabytes."""
SHUT, OPEN = 0.01, 0.99
"""A gate below the first is shut, above the second open, as flow counts them: its sigmoid lets little error pass."""

SATURATED = 0.99
"""A unit beyond this, on either side, is saturated: its tanh lets little error pass."""


@dataclass(frozen=True, eq=False)
class GateActivity(Picture):
    """How often each gate has each value, over all its units, steps and streams; of a cell without gates, its units.

    values  by name, as `forget gate of layer 1`: arrays of any shape.
    gates   whether these are gates, in [0, 1]; else units, in [-1, 1] as a tanh has them, or beyond.
    """

    values: Mapping[str, ArrayLike]
    gates: bool = True

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.2), "narrow": (3.9, 3.3)}

    def __post_init__(self) -> None:
        if not self.values or any(not np.asarray(part).size for part in self.values.values()):
            raise ValueError("values must hold at least one gate with a value each; got an empty one.")

    @property
    def heading(self) -> str:
        return "How the gates are used" if self.gates else "How the units are used"

    @property
    def data(self) -> dict[str, Any]:
        """`edges` (BINS + 1,) of the bins; `values`: by name `percent` (BINS,), `mean`, shares `low` and `high`."""
        flat = {name: np.asarray(part, np.float64).ravel() for name, part in self.values.items()}
        below, above = (SHUT, OPEN) if self.gates else (-SATURATED, SATURATED)
        bound = 1.0 if self.gates else max(1.0, *(float(np.abs(part).max()) for part in flat.values()))
        edges = np.linspace(0 if self.gates else -bound, bound, BINS + 1)
        found: dict[str, Any] = {}
        for name, part in flat.items():
            counts, _ = np.histogram(np.clip(part, edges[0], edges[-1]), edges)
            shares = {"low": float((part < below).mean()), "high": float((part > above).mean())}
            found[name] = {"percent": 100 * counts / len(part), "mean": float(part.mean()), **shares}
        return {"edges": edges, "values": found}

    @property
    def reading(self) -> str:
        rows, edges = self.data["values"], self.data["edges"]
        if edges[-1] > 1:
            means = (f"{name} {row['mean']:.2g}" for name, row in rows.items())
            return f"The largest value is {edges[-1]:.3g} in size; in the mean they are: {', '.join(means)}."
        if not self.gates:
            saturated = (f"{name} {100 * (row['low'] + row['high']):.2g} %" for name, row in rows.items())
            return f"Values beyond ±{SATURATED:g}, where little error passes: {', '.join(saturated)}."
        parts = (
            f"{name} {row['mean']:.2f} in the mean (shut {100 * row['low']:.2g} % of the time, open "
            f"{100 * row['high']:.2g} %)"
            for name, row in rows.items()
        )
        text = "; ".join(parts)
        return f"{text[0].upper()}{text[1:]}."

    def draw(self, ax: Axes) -> None:
        edges, rows = self.data["edges"], self.data["values"]
        middles = (edges[1:] + edges[:-1]) / 2
        for place, (name, row) in enumerate(rows.items()):
            colour, dashes, sign = series(place)
            label = f"{name}: mean {row['mean']:.2f}"
            ax.plot(middles, row["percent"], color=colour, ls=dashes, lw=1.8, marker=sign, ms=4, label=label)
        ax.set_xlim(edges[0], edges[-1])
        ax.set_ylim(bottom=0)
        ax.set_xlabel("value (0 shut, 1 open)" if self.gates else "value of a unit")
        ax.set_ylabel("share of units and steps (%)")
        legend_above(ax)


@dataclass(frozen=True, eq=False)
class Eigenvalues(Picture):
    """The eigenvalues of the recurrent weights in the complex plane, with the unit circle.

    values  by name, as `W_h of layer 1`: complex (H,).
    """

    values: Mapping[str, ArrayLike]

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 4.4), "narrow": (3.9, 4.3)}

    def __post_init__(self) -> None:
        if not self.values or any(not np.asarray(part).size for part in self.values.values()):
            raise ValueError("values must hold at least one matrix with an eigenvalue each; got an empty one.")

    @property
    def heading(self) -> str:
        return "Eigenvalues of the recurrent weights"

    @property
    def data(self) -> dict[str, NDArray[np.complex128]]:
        """By name, the eigenvalues, complex (H,)."""
        return {name: np.asarray(part, np.complex128).ravel() for name, part in self.values.items()}

    @property
    def reading(self) -> str:
        data = self.data
        sizes = {name: np.abs(part) for name, part in data.items()}
        parts = (f"{a.max():.2f} in {name} ({(a > 1).sum()} of {len(a)} outside)" for name, a in sizes.items())
        return (
            f"The largest modulus is {', '.join(parts)}. What lies outside the circle can make an error grow from step "
            "to step, what lies inside lets it fade; gates and saturation make both smaller."
        )

    def draw(self, ax: Axes) -> None:
        turn = np.linspace(0, 2 * np.pi, 181)
        ax.plot(np.cos(turn), np.sin(turn), color=INK, lw=1.2, ls=MARK, label="unit circle")
        for value in (ax.axhline, ax.axvline):
            value(0, color=FAINT, lw=0.7, alpha=0.6)
        data = self.data
        image = sum(map(len, data.values())) > MANY
        for place, (name, part) in enumerate(data.items()):
            colour, _, sign = series(place)
            (points,) = ax.plot(part.real, part.imag, color=colour, ls="", marker=sign, ms=3.2, mew=0, label=name)
            points.set(alpha=0.85, rasterized=image)
        ax.set_aspect("equal", "datalim")
        ax.grid(False)
        ax.set_xlabel("real part (factor a step)")
        ax.set_ylabel("imaginary part (factor a step)")
        if narrow(ax):
            legend_above(ax)
        else:
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
