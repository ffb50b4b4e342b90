"""What every picture offers: its numbers, a drawing on matplotlib's axes, one sentence, and itself in a notebook."""

from __future__ import annotations

from abc import ABC, abstractmethod
from html import escape
from typing import TYPE_CHECKING, Any, ClassVar

from throughtime.pictures.style import DARK, LIGHT, Size, frame, rules, svg, variables

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOTEBOOK = (
    f".throughtime {{ {variables(LIGHT)} margin: 0; padding: 12px; max-width: 760px; background: #fcfcfa; }}"
    f" .throughtime figcaption {{ color: var(--ink); font: 14px/1.5 sans-serif; }}"
    " .throughtime svg { display: block; width: 100%; height: auto; }"
    f" @media (prefers-color-scheme: dark) {{ .throughtime {{ {variables(DARK)} background: #14171b; }} }}"
)


class Picture(ABC):
    """A picture: `data`, `reading`, `plot(ax)`; in a notebook it shows itself, on a ground of its own.

    sizes  inches (width, height) of the drawing on a wide screen and on a narrow one.
    """

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.7), "narrow": (3.9, 3.4)}

    @property
    @abstractmethod
    def heading(self) -> str:
        """A few words, as over a section."""

    @property
    @abstractmethod
    def data(self) -> dict[str, Any]:
        """What is drawn, as plain arrays and values."""

    @property
    @abstractmethod
    def reading(self) -> str:
        """What the picture says, in a line of words."""

    @abstractmethod
    def draw(self, ax: Axes) -> None:
        """Draw on these axes; plot sets the style around it."""

    def size(self, screen: str) -> Size:
        """The size on a screen of this name; a picture whose rows are counted makes it higher."""
        return self.sizes[screen]

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw on matplotlib's axes, new ones if none are given, and return them."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        with rc_context(rules()):
            if ax is None:
                ax = Figure(figsize=self.size("wide"), layout="constrained").subplots()
            frame(ax)
            self.draw(ax)
        return ax

    def svg(self, size: str = "wide") -> str:
        """The drawing as an SVG element that takes its colours from the page around it; see style.variables."""
        name = f"{type(self).__name__.lower()}-{size}"
        return svg(self.plot, self.size(size), name, self.reading)

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{escape(self.reading)}</figcaption>"
        return f'<figure class="throughtime"><style>{_NOTEBOOK}</style>{self.svg()}{caption}</figure>'
