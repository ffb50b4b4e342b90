"""How every picture looks: colours for the colour-blind, dashes and markers for print, an SVG that a page recolours."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable
from hashlib import sha256
from html import escape
from io import StringIO
from itertools import pairwise
from textwrap import fill
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIGHT = {
    "ink": "#1b1f24",
    "faint": "#8a929c",
    "first": "#0072b2",
    "second": "#d55e00",
    "third": "#009e73",
    "fourth": "#cc79a7",
    "fifth": "#e69f00",
    "sixth": "#56b4e9",
}
"""The colours of the pictures by their names in a style sheet; those of the series are from Okabe and Ito (2008)."""

DARK = {
    "ink": "#e8eaed",
    "faint": "#7b8490",
    "first": "#56b4e9",
    "second": "#f0a04b",
    "third": "#3cc9a3",
    "fourth": "#e29fc4",
    "fifth": "#f5d76e",
    "sixth": "#a9b4ff",
}
"""The same on a dark screen."""

INK, FAINT = LIGHT["ink"], LIGHT["faint"]
SERIES = (
    (LIGHT["first"], "-", "o"),
    (LIGHT["second"], (0, (5, 1.5)), "s"),
    (LIGHT["third"], (0, (1, 1)), "D"),
    (LIGHT["fourth"], (0, (4, 1.5, 1, 1.5)), "^"),
    (LIGHT["fifth"], (0, (8, 2)), "v"),
    (LIGHT["sixth"], (0, (3, 1, 1, 1, 1, 1)), "P"),
)
"""Colour, dashes and marker of the first line, the second, ...; after the last they are combined anew."""

MARK = (0, (6, 4))
"""The dashes of a line that marks a value: a baseline, the cut at h."""

SEQUENTIAL = "cividis"
"""The colours of a heat map: perceptually uniform, and nearly the same to eyes that confuse red and green."""

Size = tuple[float, float]
"""Inches, width and height."""

_HALO = (("#ffffff", 3.0, "-"), ("#000000", 1.4, MARK))


def series(place: int) -> tuple[str, Any, str]:
    """The colour, dashes and marker of a line by its place."""
    turn, place = divmod(place, len(SERIES))
    colour, dashes, marker = (SERIES[(place + shift * turn) % len(SERIES)][shift] for shift in range(3))
    return str(colour), dashes, str(marker)


def rules() -> Any:
    """What matplotlib is told while a picture is drawn."""
    return {
        "svg.fonttype": "none",
        "font.size": 9.5,
        "text.parse_math": False,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": FAINT,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "legend.labelcolor": INK,
    }


def frame(ax: Axes, *, grid: bool = True) -> None:
    """A light frame, on axes that may be the caller's own."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(FAINT)
    ax.tick_params(which="both", color=FAINT, labelcolor=INK)
    ax.xaxis.label.set_color(INK)
    ax.yaxis.label.set_color(INK)
    ax.grid(False)
    if grid:
        ax.set_axisbelow(True)
        ax.grid(axis="y", color=FAINT, alpha=0.3, lw=0.7)


def mark_across(ax: Axes, y: float) -> None:
    """A horizontal line that is seen on light and on dark cells of a heat map."""
    for colour, width, dashes in _HALO:
        ax.axhline(y, color=colour, lw=width, ls=dashes)


def extent(ax: Axes) -> Size:
    """Inches, width and height, that axes and all that is around them have; before they are laid out."""
    box, dpi = ax.get_window_extent(), ax.figure.dpi
    return box.width / dpi / 0.775, box.height / dpi / 0.77  # what matplotlib leaves to axes alone


def narrow(ax: Axes) -> bool:
    """Whether these axes are for a narrow screen."""
    return extent(ax)[0] < 5


def legend_above(ax: Axes) -> None:
    """The names of the lines over the axes, in as many columns as fit, long ones cut."""
    lines, names = ax.get_legend_handles_labels()
    if not lines:
        return
    names = [fill(name, 40) if len(name) <= 80 else f"{name[:40]}…" for name in names]
    widths = [max(map(len, name.split("\n"))) * 5.6 + 38 for name in names]  # points, about
    left = 72 * extent(ax)[0] - 50
    columns = (n for n in (3, 2, 1) if sum(max(part, default=0) for part in _split(widths, n)) <= left)
    ax.legend(lines, names, loc="lower left", bbox_to_anchor=(0, 1), ncols=next(columns, 1))


def _split(widths: list[float], columns: int) -> list[list[float]]:
    """As a legend fills its columns: one after the other, the first ones longer."""
    rows, more = divmod(len(widths), columns)
    bounds = [place * rows + min(place, more) for place in range(columns + 1)]
    return [widths[a:b] for a, b in pairwise(bounds)]


def room(ax: Axes, inches: float) -> int:
    """How many things of this width fit side by side into axes with labels and a colour bar; at least 8."""
    return max(8, int((extent(ax)[0] - 1.3) / inches))


def decades(low: float, high: float) -> list[float]:
    """Places on an axis of logarithms between two others: of the powers of ten, or of their 1, 2 and 5 fold if few."""
    if high - low > 3:
        step = math.ceil((high - low) / 6)
        return [float(n) for n in range(math.ceil(low / step) * step, math.floor(high) + 1, step)]
    whole = range(math.floor(low), math.floor(high) + 1)
    return [place for n in whole for m in (1, 2, 5) if low <= (place := n + math.log10(m)) <= high]


def power(decades: float) -> str:
    """10 to this power as an axis has it: 10⁻³, 0.02, 5·10⁻⁶."""
    n = math.floor(decades + 1e-6)
    first = f"{10 ** (decades - n):.2g}"
    if first == "1":
        return "1" if n == 0 else "10" + superscript(n)
    return f"{10**decades:.2g}" if -4 < n < 3 else f"{first}·10{superscript(n)}"


def percent(share: float) -> str:
    """A share in percent to three digits; one that is not whole is not rounded up to it."""
    text = f"{100 * share:.3g}"
    return "over 99.9 %" if text == "100" and share < 1 else f"{text} %"


def superscript(number: int) -> str:
    """The number in raised digits."""
    return str(number).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def glyph(token: str) -> str:
    """A token as it can stand under a picture: one that prints nothing gets a sign."""
    signs = {" ": "␣", "\n": "↵", "\t": "⇥", "\r": "␍"}
    return "".join(signs.get(sign, sign if sign.isprintable() else "\ufffd") for sign in token)


def number(value: float, digits: int = 3) -> str:
    """A number to so many digits, as a sentence has it: 0.071, −12, 1,230,000, 1.2·10⁻⁷; NaN is a dash."""
    if not math.isfinite(value):
        return "–" if math.isnan(value) else f"{'−' if value < 0 else ''}∞"
    rounded = float(f"{value:.{digits}g}")
    if rounded == 0 or 1e-4 <= abs(rounded) < 1e9:
        return f"{rounded:,.15g}".replace("-", "−")
    mantissa, _, exponent = f"{rounded:.{digits - 1}e}".partition("e")
    return f"{float(mantissa):g}·10{superscript(int(exponent))}".replace("-", "−")


def shown(name: object, most: int = 24) -> str:
    """A name that a user chose, as it can stand in a line: signs that print nothing are replaced, a long one is cut.

    Letters that are twice as wide count as two of `most`; what would turn the direction of the text after it goes too.
    """
    text = " ".join(str(name).split())
    text = "".join(sign if sign.isprintable() or sign in _JOINERS else "\ufffd" for sign in text) or "“”"
    widths = [1 + (east_asian_width(sign) in "WF") for sign in text]
    if sum(widths) <= most:
        return text
    kept = next(place for place in range(len(text), -1, -1) if sum(widths[:place]) < most)
    return f"{text[:kept].rstrip()}…"


_JOINERS = "\u200c\u200d"
"""Between letters of Persian or Hindi and parts of an emoji: they print nothing and are no mistake."""


def svg(draw: Callable[[Axes], object], size: Size, name: str, label: str) -> str:
    """A drawing as SVG that stands inside a page: colours from the style sheet, ids its own, text as text.

    name   what its ids begin with, before a hash of the drawing; label: what a screen reader says.
    """
    from matplotlib.figure import Figure
    from matplotlib.style import context

    fonts = {"font.sans-serif": ["DejaVu Sans"]}
    with context(["default", {**rules(), **fonts, "svg.hashsalt": name}]), warnings.catch_warnings():
        # The browser has the letters that matplotlib's font lacks, as text stays text.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure = Figure(figsize=size, layout="constrained")
        draw(figure.subplots())
        text = StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(text, format="svg", transparent=True, metadata=nothing, dpi=110)
    drawn = text.getvalue()
    return _themed(drawn, f"{name}-{sha256(drawn.encode()).hexdigest()[:8]}-", label)


def _themed(text: str, prefix: str, label: str) -> str:
    text = _slim(text[text.index("<svg ") :])
    text = text.replace("<svg ", f'<svg role="img" aria-label="{escape(label)}" ', 1)
    for name, colour in LIGHT.items():
        text = text.replace(colour, f"var(--{name})")
    for reference in ('id="', 'href="#', "url(#"):
        text = text.replace(reference, reference + prefix)
    return text


def _slim(text: str) -> str:
    """The same drawing in half the bytes: no comments, no ids that nothing refers to, numbers to a thousandth."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r">\s+<", "><", text)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))

    def shorter(tag: re.Match[str]) -> str:
        found = re.sub(r' transform="rotate\(-?0(?:\.0+)? [^"]*"', "", tag[0])
        found = re.sub(r' id="([^"]*)"', lambda name: name[0] if name[1] in used else "", found)
        return re.sub(r"\d+\.\d{4,}", lambda number: f"{float(number[0]):.3f}", found)

    return re.sub(r"<[^>]*>", shorter, text)


def variables(colours: dict[str, str]) -> str:
    """The colours as custom properties of a style sheet."""
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())
