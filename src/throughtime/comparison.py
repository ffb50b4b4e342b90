"""What a comparison of algorithms found: numbers by algorithm, a table, a picture, and what they mean in sentences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any

WIDTH = 80
INK = "#1b1f24"
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Apart for the colour-blind: Okabe and Ito (2008)."""
MARKERS = "osD^vP"
LOWEST = 1e-4
"""Errors below this are drawn here, as the axis is logarithmic."""


@dataclass(frozen=True)
class Part:
    """The gradient of all weights, or of a block of them, beside the exact one; all but cosine relative to its norm.

    cosine, error, kept   of the gradient of all windows; of a random algorithm the mean over draws (error: root mean
                          square), so that its error holds both bias and spread.
    bias    what stays in the mean over draws, or over windows.
    doubt   the standard error of that mean: a bias below it is not seen at all.
    spread  the standard deviation of one draw of all windows, or of one window.
    NaN where there is nothing to compare: a gradient of zero, or one sample alone.
    """

    cosine: float
    error: float
    kept: float
    bias: float
    doubt: float
    spread: float


@dataclass(frozen=True)
class Row:
    """One algorithm.

    draws    of a random algorithm; 0: it draws nothing.
    whole    all weights; blocks: the embedding, W_x, W_h and b of each layer, the readout.
    lags     for each range of lags of the curve, how much of what arrives there the algorithm has: the coefficients of
             its gradient on those of the ranges, by least squares over the windows; None where too little is there
             to tell, or the windows do not agree.
    reach    steps that an error goes back in the mean, where h says so.
    seconds  of one step of all streams, the fastest of the windows.
    held     bytes that its memory holds between two chunks, at most.
    peak     bytes of the tensors that are alive inside a call, at most, beside weights and data.
    note     what it chose, and why.
    """

    credit: str
    draws: int
    whole: Part
    blocks: dict[str, Part]
    lags: tuple[float | None, ...]
    reach: float | None
    seconds: float
    held: int
    peak: int
    note: str


@dataclass(frozen=True)
class Curve:
    """BPTT(h), every error going back h steps, for the measured h, ascending.

    error, kept  as in Part.
    ranges       of lags: (first, last); share of the gradient that arrives there, in all 1 over all steps.
    norm         |g_k| of what arrives there, relative to |g|.
    """

    h: tuple[int, ...]
    error: tuple[float, ...]
    kept: tuple[float, ...]
    ranges: tuple[tuple[int, int], ...]
    share: tuple[float, ...]
    norm: tuple[float, ...]

    def smallest(self, tolerance: float) -> int | None:
        """The smallest measured h from which on every one keeps to it: the error need not fall steadily."""
        found = None
        for h, error in zip(reversed(self.h), reversed(self.error), strict=True):
            if not error <= tolerance:
                break
            found = h
        return found


@dataclass(frozen=True)
class Comparison:
    """What `compare` measured; str() is the table, `plot` the picture, `to_json` all the numbers.

    against    the algorithm that the others are held against, the first of the rows.
    steps      of the longest window; streams; windows; tolerance.
    noise      the standard deviation of the exact gradient from window to window, relative to their mean.
    """

    against: str
    rows: tuple[Row, ...]
    curve: Curve
    steps: int
    streams: int
    windows: int
    tolerance: float
    noise: float

    @property
    def smallest_h(self) -> int | None:
        """The smallest h of BPTT(h) that keeps to the tolerance; None when no measured one does."""
        return self.curve.smallest(self.tolerance)

    def table(self) -> str:
        """Plain text, no line longer than 80 characters: gradient, blocks, lags, cost, and what it means."""
        names = [row.credit for row in self.rows]
        wholes = [row.whole for row in self.rows]
        blocks = list(self.rows[0].blocks)
        head = (
            f"{self.windows} windows of {self.steps} steps in {self.streams} streams, against {self.against}. From "
            f"window to window that gradient itself spreads by {_percent(self.noise)} of its mean. Shares are of its "
            "length; bias with its standard error, and spread, over windows or draws."
        )
        gradient = {
            "cosine": [f"{part.cosine:.4f}" for part in wholes],
            "error": [_percent(part.error) for part in wholes],
            "kept": [_percent(part.kept) for part in wholes],
            "bias": [f"{_percent(part.bias)} +- {_percent(part.doubt)}" for part in wholes],
            "spread": [_percent(part.spread) for part in wholes],
            "over": [f"{row.draws or self.windows} {'draws' if row.draws else 'windows'}" for row in self.rows],
        }
        errors = {block: [_percent(row.blocks[block].error) for row in self.rows] for block in blocks}
        shares = {
            f"{first}-{last}" if first < last else f"{first}": [
                _percent(share),
                *("." if (kept := row.lags[index]) is None else _percent(kept) for row in self.rows),
            ]
            for index, ((first, last), share) in enumerate(zip(self.curve.ranges, self.curve.share, strict=True))
        }
        costs = {
            "ms a step": [f"{1000 * row.seconds:.3g}" for row in self.rows],
            "relative": [f"{row.seconds / self.rows[0].seconds:.3g}" for row in self.rows],
            "held between chunks": [_bytes(row.held) for row in self.rows],
            "peak": [_bytes(row.peak) for row in self.rows],
        }
        return "\n".join(
            [
                fill(head, WIDTH),
                "",
                *_grid("gradient", names, gradient),
                *_grid("error by block", names, errors),
                *_grid("kept by lag", ["arrives there", *names], shares),
                *_grid("cost", names, costs),
                *(fill(sentence, WIDTH) for sentence in self.sentences()),
            ]
        )

    def __str__(self) -> str:
        return self.table()

    def sentences(self) -> list[str]:
        """What it means, a sentence an algorithm, and the smallest h that keeps to the tolerance."""
        if math.isnan(self.rows[0].whole.error):
            return ["The gradient is zero, so there is nothing to compare."]
        said = [_verdict(row, self.tolerance) for row in self.rows[1:]]
        said += [f"{row.credit} chose {row.note}" for row in self.rows if row.note]
        wanted, h = _percent(self.tolerance), self.smallest_h
        if h is None:
            best = min(self.curve.error)
            said.append(f"No h up to {self.curve.h[-1]} comes within {wanted}; the nearest is off by {_percent(best)}.")
        else:
            at = self.curve.h.index(h)
            steps = "step" if h == 1 else "steps"
            said.append(
                f"For an error of at most {wanted} every error must go back {h} {steps}: bptt:h={h} is off by "
                f"{_percent(self.curve.error[at])} and keeps {_percent(self.curve.kept[at])} of the length"
                + (f"; bptt:h={2 * h - 1},every={h} goes as far for less work." if h > 1 else ".")
            )
        return said

    def to_json(self) -> str:
        """All the numbers, with null for those that are none."""
        return json.dumps(_clean({**asdict(self), "smallest_h": self.smallest_h, "sentences": self.sentences()}))

    def plot(self, ax: Any = None) -> Any:
        """The error of BPTT(h) against h, with every algorithm beside it, on matplotlib's axes; returns the axes."""
        from matplotlib.figure import Figure

        ax = Figure(figsize=(7.4, 4.2), layout="constrained").subplots() if ax is None else ax
        height = lambda error: 100 * max(error, LOWEST)  # noqa: E731
        drawn = {h: height(e) for h, e in zip(self.curve.h, self.curve.error, strict=True) if math.isfinite(e)}
        ax.plot(list(drawn), list(drawn.values()), color=COLOURS[0], lw=2, label="bptt:h, for every h")
        for place, row in enumerate(self.rows[1:]):
            colour, marker = COLOURS[1 + place % (len(COLOURS) - 1)], MARKERS[place % len(MARKERS)]
            label = f"{row.credit}: {_percent(row.whole.error)}" + " a draw" * bool(row.draws)
            reach, error = row.reach, height(row.whole.error)
            if not math.isfinite(error):
                continue
            if reach is None or not self.curve.h[0] <= reach <= self.curve.h[-1]:
                ax.axhline(error, color=colour, ls="--", lw=1.5, label=label)
            else:
                ax.plot([reach], [error], color=colour, marker=marker, ls="", ms=8, label=label)
        ax.axhline(100 * self.tolerance, color=INK, lw=1, ls=":", label=f"tolerance: {_percent(self.tolerance)}")
        if self.smallest_h is not None:
            ax.axvline(self.smallest_h, color=INK, lw=1, ls=":")
            words = f"h = {self.smallest_h}"
            ax.annotate(
                words, (self.smallest_h, 0), (4, 6), xycoords=ax.get_xaxis_transform(), textcoords="offset points"
            )
        ax.set(
            xscale="log",
            yscale="log",
            xlabel="h (steps that every error goes back)",
            ylabel="error of the gradient (%)",
        )
        if not drawn:
            ax.set_xlim(self.curve.h[0], self.curve.h[-1] + 1)  # an axis of logarithms needs numbers above 0
        ax.xaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(alpha=0.3, lw=0.7)
        ax.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize="small")
        return ax


def _verdict(row: Row, tolerance: float) -> str:
    """What an algorithm does to the gradient, in a sentence."""
    part = row.whole
    if not math.isfinite(part.error):
        return f"{row.credit} gives a gradient that is not finite."
    if row.draws:
        seen = f"a bias of {_percent(part.bias)}" if part.bias > part.doubt else "no bias that is seen"
        average = part.spread / tolerance * (part.spread / tolerance)
        single = f"{row.credit} has {seen} over {row.draws} draws; a single one is off by {_percent(part.error)}"
        if average <= 1:
            return f"{single}."
        needed = f"{math.ceil(average)}" if average < 1e9 else f"{average:.3g}"
        return f"{single}, and the mean of about {needed} would come within {_percent(tolerance)}."
    if part.error < 1e-5:
        return f"{row.credit} is exact here."
    lost = 1 - part.kept
    length = (
        f"loses {_percent(lost)} of the gradient's length" if lost >= 0 else f"adds {_percent(-lost)} to its length"
    )
    angle = math.degrees(math.acos(max(-1.0, min(1.0, part.cosine))))
    return f"{row.credit} {length}, and turns it by {angle:.2g} degrees: an error of {_percent(part.error)}."


def _grid(title: str, names: Sequence[str], columns: Mapping[str, Sequence[str]]) -> list[str]:
    """A table with a row for each name; columns that are too many for a line go below, under the names once more."""
    names = [name if len(name) <= 36 else f"{name[:33]}..." for name in names]
    first = max(map(len, (title, *names)))
    widths = {head: max(map(len, (head, *cells))) for head, cells in columns.items()}
    groups: list[list[str]] = [[]]
    for head, width in widths.items():
        if groups[-1] and first + sum(widths[h] + 2 for h in groups[-1]) + 2 + width > WIDTH:
            groups.append([])
        groups[-1].append(head)
    lines = []
    for group in groups:
        rows = [(title, *group), *zip(names, *(columns[head] for head in group), strict=True)]
        for name, *cells in rows:
            right = (cell.rjust(widths[head]) for head, cell in zip(group, cells, strict=True))
            lines.append("  ".join((name.ljust(first), *right)).rstrip())
        lines.append("")
    return lines


def _percent(share: float) -> str:
    if math.isnan(share):
        return "-"
    if abs(share) < 5e-6:
        return "0 %"
    return f"{100 * share:.0f} %" if 9.995 <= abs(share) < 1e7 else f"{100 * share:.3g} %"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 999.5:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _clean(value: Any) -> Any:
    """The value with None for numbers that JSON has no word for."""
    if isinstance(value, Mapping):
        return {name: _clean(part) for name, part in value.items()}
    if isinstance(value, (tuple, list)):
        return [_clean(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
