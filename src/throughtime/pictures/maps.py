"""Pictures in cells: the error by time and lag, hidden units over a text, what a prediction listens to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.flow import FLOOR, ErrorByLag
from throughtime.pictures.base import Picture
from throughtime.pictures.style import INK, SEQUENTIAL, Size, decades, extent, frame, glyph, mark_across, power, room

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable

DECADES = 8
"""A map of errors shows so many powers of ten below the largest; what is smaller has the colour of the lowest."""

LETTER, WORD = 0.092, 0.125
"""Inches that a column takes with a character under it, and with a word that stands upright."""


@dataclass(frozen=True, eq=False)
class ErrorMap(Picture):
    """|d loss_t / d state_{t-k}| by the step t and the lag k, one cell a pair; the logarithm's mean over the streams.

    error   as flow measures it, best at consecutive steps of one stream.
    h       where training cut the error off.
    tokens  what the network read at the sampled steps, to stand under the columns.
    """

    error: ErrorByLag
    h: int | None = None
    tokens: Sequence[str] | None = None

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.9), "narrow": (3.9, 3.7)}

    def __post_init__(self) -> None:
        _check_tokens(self.tokens, len(self.error.at), "a sampled step")

    @property
    def heading(self) -> str:
        return "The error by time and lag"

    @property
    def data(self) -> dict[str, Any]:
        """`lags` (K,), `at` (N,), `tokens`, and `log10` (K, N), NaN where no pair is left."""
        norms = np.clip(self.error.norms, FLOOR, np.finfo(np.float64).max)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Mean of empty slice")
            logs = np.nanmean(np.log10(norms), axis=-1)
        return {"lags": self.error.lags, "at": self.error.at, "tokens": self.tokens, "log10": logs, "h": self.h}

    @property
    def reading(self) -> str:
        data = self.data
        typical, tokens = data["log10"], self.tokens
        if not np.isfinite(typical).any():
            return "Restarts left nothing to measure."
        if np.nanmax(typical) <= np.log10(FLOOR):
            return "No error arrives at any state."
        deepest = [_reach(column, data["lags"]) for column in typical.T]
        far = int(np.argmax(deepest))
        at = f"step {data['at'][far]}" if tokens is None else f"“{glyph(tokens[far])}” (step {data['at'][far]})"
        return (
            f"The error of a step stays above a hundredth of its strength for {np.median(deepest):.0f} steps back in "
            f"the median, for {deepest[far]} at most, at {at}."
        )

    def draw(self, ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        data = self.data
        count = len(data["at"])
        first = 0 if self.tokens is None else max(0, count - _columns(ax, self.tokens))
        values, lags = data["log10"][:, first:], data["lags"]
        top = np.nanmax(values) if np.isfinite(values).any() else 0.0
        low = max(float(np.nanmin(values)) if np.isfinite(values).any() else -1.0, top - DECADES)
        corners = (-0.5, values.shape[1] - 0.5, lags[0] - 0.5, lags[-1] + 0.5)
        image = ax.imshow(
            values, SEQUENTIAL, aspect="auto", origin="lower", extent=corners, interpolation="none", vmin=low, vmax=top
        )
        frame(ax, grid=False)
        _bar(ax, image, "|∂loss(t) / ∂state(t − k)|  (nats)", decades(low, top), power)
        if self.h is not None and self.h <= lags[-1]:
            mark_across(ax, self.h - 0.5)
            ax.set_title(f"dashed: training cut the error off at h = {self.h}", fontsize="medium", loc="left")
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel("lag k (steps back)")
        if self.tokens is None:
            places = np.unique(np.linspace(0, count - 1, min(count, 7)).round().astype(int))
            ax.set_xticks(places, [str(data["at"][place]) for place in places])
            ax.set_xlabel("step t of the error")
        else:
            _letters(ax, self.tokens[first:])
            ax.set_xlabel(f"what is read at step t, from step {data['at'][first]} on")


def _reach(column: NDArray[np.float64], lags: NDArray[np.int64]) -> int:
    """The last lag up to which a column stays within a hundredth of its first finite value."""
    finite = np.flatnonzero(np.isfinite(column))
    if not len(finite):
        return 0
    below = np.flatnonzero(~(column >= column[finite[0]] - 2) & (np.arange(len(column)) >= finite[0]))
    return int(lags[below[0] - 1] if len(below) else lags[-1])


@dataclass(frozen=True, eq=False)
class HiddenUnits(Picture):
    """The values of hidden units over a text, a row a unit and a column a token: those that change most.

    values  (T, H) of one layer and one stream; tokens: the T that were read; None: the steps are numbered.
    layer   what the units are called, as `h of layer 1`.
    most    how many are drawn.
    """

    values: ArrayLike
    tokens: Sequence[str] | None = None
    layer: str = "h of layer 1"
    most: int = 16

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.7), "narrow": (3.9, 3.7)}

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2 or not values.size:
            raise ValueError(f"values must be (T, H), of one layer and one stream; got shape {values.shape}.")
        _check_tokens(self.tokens, len(values), "a step")

    @property
    def heading(self) -> str:
        return "Hidden units over the text"

    @property
    def data(self) -> dict[str, Any]:
        """`units`: the numbers of those drawn, from 0, the most varied ones; `values` (units, T); `tokens`."""
        values = np.asarray(self.values, np.float64)
        units = np.sort(np.argsort(-values.std(0), kind="stable")[: self.most])
        return {"units": units, "values": values[:, units].T, "tokens": self.tokens}

    @property
    def reading(self) -> str:
        values = np.asarray(self.values, np.float64)
        spread = values.std(0)
        if not spread.max() > 0:
            return f"No unit of {self.layer} changes over this text."
        busiest = int(spread.argmax())
        shown = min(self.most, values.shape[1])
        text = (
            f"The {shown} of {values.shape[1]} units of {self.layer} that change most; unit {busiest} goes from "
            f"{values[:, busiest].min():.2f} to {values[:, busiest].max():.2f}".replace("-", "−")
        )
        slow, held = _slowest(values)
        return f"{text}, and unit {slow} holds its value longest (r = {held:.2f} from one step to the next)."

    def draw(self, ax: Axes) -> None:
        data = self.data
        first = 0 if self.tokens is None else max(0, len(self.tokens) - _columns(ax, self.tokens))
        values = data["values"][:, first:]
        bound = 1.0 if np.abs(values).max() <= 1 else float(np.abs(values).max())
        image = ax.imshow(values, SEQUENTIAL, aspect="auto", interpolation="none", vmin=-bound, vmax=bound)
        frame(ax, grid=False)
        _bar(ax, image, "value of the unit", [-bound, -bound / 2, 0, bound / 2, bound])
        ax.set_yticks(range(len(values)), [str(unit) for unit in data["units"]], fontsize=8)
        ax.set_ylabel("unit")
        if self.tokens is None:
            ax.set_xlabel("step")
        else:
            _letters(ax, self.tokens[first:])
            ax.set_xlabel("what is read, step by step")


def _slowest(values: NDArray[np.float64]) -> tuple[int, float]:
    """The unit, among those that move at all, whose values one step apart are most alike, and their correlation."""
    centred = values - values.mean(0)
    square = (centred**2).mean(0)
    moving = square > 1e-3 * square.max()
    alike = np.where(moving, (centred[1:] * centred[:-1]).mean(0) / np.where(moving, square, 1), -1.0)
    unit = int(alike.argmax())
    return unit, float(min(alike[unit], 1.0))


@dataclass(frozen=True, eq=False)
class Saliency(Picture):
    """How strongly one prediction depends on each input before it: the text itself, a colour a token.

    weights  (T,) norms of the gradient of the prediction's error by each input; 0 after the prediction.
    tokens   the T inputs; t: the step of the prediction; target: the token that came.
    """

    weights: ArrayLike
    tokens: Sequence[str]
    t: int
    target: str | None = None

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 1.75), "narrow": (3.9, 2.2)}

    def __post_init__(self) -> None:
        weights = np.asarray(self.weights)
        if weights.ndim != 1:
            raise ValueError(f"weights must be (T,), of one stream; got shape {weights.shape}.")
        _check_tokens(self.tokens, len(weights), "a step")
        if not 0 <= self.t < len(weights):
            raise ValueError(f"t must be a step of these {len(weights)}; got {self.t}.")

    @property
    def heading(self) -> str:
        return "What one prediction listens to"

    @property
    def data(self) -> dict[str, Any]:
        """`tokens` up to t and `share` (t + 1,): the norm of each as a share of the largest."""
        weights = np.asarray(self.weights, np.float64)[: self.t + 1]
        largest = weights.max()
        return {
            "tokens": list(self.tokens[: self.t + 1]),
            "share": weights / largest if largest > 0 else np.zeros_like(weights),
            "target": self.target,
        }

    @property
    def reading(self) -> str:
        share = self.data["share"]
        if not share.any():
            return "No input reaches this prediction."
        what = "the next token" if self.target is None else f"“{glyph(self.target)}”"
        whole = share[::-1].cumsum() / share.sum()
        half, most = (int(np.searchsorted(whole, part - 1e-12)) + 1 for part in (0.5, 0.95))
        strongest = int(share.argmax())
        back = self.t - strongest
        which = "the present input" if back == 0 else f"“{glyph(self.tokens[strongest])}”, {back} before"
        within = "in the last input" if half == 1 else f"in the last {half} inputs"
        return (
            f"The prediction of {what} depends most on {which}; half of its dependence lies {within}, "
            f"95 % in the last {most}."
        )

    def draw(self, ax: Axes) -> None:
        from matplotlib.colors import LogNorm

        data = self.data
        columns, rows = room(ax, 0.135), max(2, int(extent(ax)[1] / 0.27) - 1)
        tokens = [glyph(token) for token in data["tokens"]]
        placed, lines = _typeset(tokens, columns, rows)
        percent = np.full((lines, columns), np.nan)
        for place, row, column, width in placed:
            percent[row, column : column + width] = max(100 * data["share"][place], 0.1)
        frame(ax, grid=False)
        columns = min(columns, max(16, placed[-1][2] + placed[-1][3] + 4)) if lines == 1 else columns
        percent = percent[:, :columns]
        norm, corners = LogNorm(0.1, 100), (0, columns, lines, 0)
        image = ax.imshow(percent, SEQUENTIAL, norm=norm, aspect="auto", extent=corners, interpolation="none")
        for place, row, column, width in placed:
            red, green, blue, _ = image.to_rgba(percent[row, column])
            ink = "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "#000000"
            ax.text(column + width / 2, row + 0.5, tokens[place], ha="center", va="center_baseline", color=ink)
        if self.target is not None:
            _, row, column, width = placed[-1]
            ax.text(column + width + 0.3, row + 0.5, f"→ {glyph(self.target)}", va="center_baseline", color=INK)
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set_visible(False)
        _bar(ax, image, "% of the strongest", [0.1, 1, 10, 100])


def _typeset(tokens: Sequence[str], columns: int, rows: int) -> tuple[list[tuple[int, int, int, int]], int]:
    """(token, row, column, width) of the last tokens that fit, set in lines of so many columns; and the lines."""
    gap = max(map(len, tokens)) > 1
    found: list[tuple[int, int, int, int]] = []
    first = len(tokens)
    while first > 0:
        tried = _lines(tokens, first - 1, columns - 4, gap)
        if found and tried[-1][1] >= rows:
            break
        found, first = tried, first - 1
    return found, found[-1][1] + 1


def _lines(tokens: Sequence[str], first: int, columns: int, gap: bool) -> list[tuple[int, int, int, int]]:
    row = column = 0
    placed = []
    for place in range(first, len(tokens)):
        width = len(tokens[place])
        if column and column + width > columns:
            row, column = row + 1, 0
        placed.append((place, row, column, width))
        column += width + gap
    return placed


def _check_tokens(tokens: Sequence[str] | None, count: int, what: str) -> None:
    if tokens is not None and len(tokens) != count:
        raise ValueError(f"tokens must be one {what}, {count}; got {len(tokens)}.")


def _columns(ax: Axes, tokens: Sequence[str]) -> int:
    """How many columns with these tokens under them fit into axes."""
    return room(ax, LETTER if max(map(len, tokens)) == 1 else WORD)


def _letters(ax: Axes, tokens: Sequence[str]) -> None:
    """The tokens under the columns; longer ones than a character stand upright."""
    shown = [glyph(token) for token in tokens]
    long = max(map(len, shown)) > 1
    ax.set_xticks(range(len(shown)), shown, fontsize=8, rotation=90 if long else 0)
    ax.tick_params(axis="x", length=0, pad=2)


def _bar(
    ax: Axes, image: ScalarMappable, label: str, places: Sequence[float], spell: Callable[[float], str] | None = None
) -> None:
    """The colour bar beside the axes, with its unit, and a number at each of these places."""
    bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.08)
    bar.set_label(label)
    spell = spell or (lambda place: f"{place:g}".replace("-", "−"))
    bar.set_ticks(places, labels=[spell(place) for place in places])
    bar.ax.minorticks_off()
    bar.outline.set_visible(False)
