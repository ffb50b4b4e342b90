"""The picture of a comparison of algorithms, as `compare` measures it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from throughtime.comparison import Comparison
from throughtime.pictures.base import Picture
from throughtime.pictures.style import Size, frame, legend_above, narrow, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, eq=False)
class Algorithms(Picture):
    """How far each algorithm's gradient is from the exact one, against how far back it goes; see Comparison."""

    comparison: Comparison

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 4.2), "narrow": (3.9, 4.6)}

    @property
    def heading(self) -> str:
        return "Algorithms beside each other"

    @property
    def data(self) -> dict[str, Any]:
        """All the numbers of the comparison, by name."""
        return json.loads(self.comparison.to_json())

    @property
    def reading(self) -> str:
        return self.comparison.sentences()[-1]

    def draw(self, ax: Axes) -> None:
        self.comparison.plot(ax)
        frame(ax)
        for place, line in enumerate(line for line in ax.lines if line.get_linestyle() == "--"):
            line.set_linestyle(series(place + 1)[1])  # apart in print too
        if narrow(ax):
            legend_above(ax)
        else:
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1))
