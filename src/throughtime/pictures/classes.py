"""Pictures of classes: which are taken for which, the scores of each, and whether probabilities can be believed.

With n_ij the examples of class i that were called j (scikit-learn's definitions, undefined where nothing is counted):

    precision_i = n_ii / sum_j n_ji,  recall_i = n_ii / sum_j n_ij,  F1_i = 2 n_ii / sum_j (n_ij + n_ji).

Of k right among n, the interval of Wilson (1927), z = 1.96 for 95 %:

    (k + z²/2 ± z sqrt(k (n - k) / n + z²/4)) / (n + z²).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.pictures.base import Picture
from throughtime.pictures.style import (
    FAINT,
    INK,
    MARK,
    SEQUENTIAL,
    Size,
    extent,
    frame,
    legend_above,
    narrow,
    percent,
    series,
    shown,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY = 20
"""Of more classes than these the matrix would have cells too small for numbers: the pairs are drawn instead."""
ROWS = 15
"""So many pairs are drawn then; and of the scores so many classes at either end."""
BINS = 10
Z = 1.959963984540054

Counts = NDArray[np.int64]


def wilson(right: int, count: int) -> tuple[float, float]:
    """The 95 % interval of a share of which `right` among `count` were seen, after Wilson (1927)."""
    if not 0 <= right <= count or count < 1:
        raise ValueError(f"right must be between 0 and count, and count 1 or more; got {right} of {count}.")
    middle = right + Z * Z / 2
    spread = Z * math.sqrt(right * (count - right) / count + Z * Z / 4)
    return max(0.0, (middle - spread) / (count + Z * Z)), min(1.0, (middle + spread) / (count + Z * Z))


def confusion(truth: Sequence[Hashable], predicted: Sequence[Hashable], classes: Sequence[Hashable]) -> Counts:
    """(C, C) how many of each class, a row, were called which, a column. A label that is no class is a ValueError."""
    if len(truth) != len(predicted):
        raise ValueError(f"predicted must be one a truth, {len(truth)}; got {len(predicted)}.")
    place = {name: index for index, name in enumerate(classes)}
    if len(place) != len(classes) or not place:
        raise ValueError(f"classes must be one or more different names; got {len(classes)}, {len(place)} different.")
    counts = np.zeros((len(place), len(place)), np.int64)
    for (row, column), count in Counter(zip(truth, predicted, strict=True)).items():
        for name in (row, column):
            if name not in place:
                raise ValueError(f"classes must hold every label; got the label {shown(name)!r} besides.")
        counts[place[row], place[column]] = count
    return counts


@dataclass(frozen=True, eq=False)
class ConfusionMatrix(Picture):
    """Which classes are taken for which: counts, on the colour of their share of the true class.

    truth, predicted  (N,) labels; classes: all of them, in the order of the rows.

    Of more than 20 classes, and where the cells get too small, the pairs most often confused are drawn instead.
    """

    truth: Sequence[Hashable]
    predicted: Sequence[Hashable]
    classes: Sequence[Hashable]

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 4.6), "narrow": (3.9, 3.9)}

    def __post_init__(self) -> None:
        confusion(self.truth, self.predicted, self.classes)

    @property
    def heading(self) -> str:
        return "What is taken for what"

    def size(self, screen: str) -> Size:
        width, _ = self.sizes[screen]
        if self._size_of_text(width) is None:
            return width, 1.3 + 0.26 * min(ROWS, max(1, len(self.data["pairs"])))
        side = self._side(width)
        names = _letters(self.classes, narrow=width < 5)
        return width, side + 0.75 + (names if names > side / len(self.classes) else 0.1)

    def _size_of_text(self, width: float) -> tuple[float, bool] | None:
        """Points of the numbers in the cells, and whether they are in brief; None where they cannot be read."""
        most, cell = int(self.data["counts"].max()), self._side(width) / len(self.classes)
        for brief, least in ((False, 6.5), (True, 5.0)):
            signs = max(3, *(len(_counted(count, brief=brief)) for count in (most, min(most, 9949))))
            size = min(9.5, 1.35 * 72 * cell / signs)
            if size >= least and len(self.classes) <= MANY:
                return size, brief
        return None

    def _side(self, width: float) -> float:
        """Inches that the cells take together, under a picture of this width."""
        C = len(self.classes)
        beside = 1.3 + _letters(self.classes, narrow=width < 5)  # labels, names and the colour bar
        return max(1.2, min(width - beside, max(min(0.6 * C, 4.2), 0.42 * C, 1.8)))

    @property
    def data(self) -> dict[str, Any]:
        """`classes`; `counts` (C, C), true by predicted; `shares` of the row, NaN without an example; `pairs`:
        (true, predicted, count, share of the true class), the most frequent first."""
        counts = confusion(self.truth, self.predicted, self.classes)
        support = counts.sum(1, keepdims=True)
        shares = np.where(support > 0, counts / np.maximum(support, 1), np.nan)
        rows, columns = np.nonzero(counts * ~np.eye(len(counts), dtype=bool))
        order = np.lexsort((-shares[rows, columns], -counts[rows, columns]))
        pairs = [
            (self.classes[i], self.classes[j], int(counts[i, j]), float(shares[i, j]))
            for i, j in zip(rows[order], columns[order], strict=True)
        ]
        return {"classes": list(self.classes), "counts": counts, "shares": shares, "pairs": pairs}

    @property
    def reading(self) -> str:
        data = self.data
        counts, pairs = data["counts"], data["pairs"]
        right, count = int(counts.trace()), int(counts.sum())
        if not count:
            return "No example was classified."
        text = f"{right:,} of {count:,} examples are classified right ({percent(right / count)})"
        if not pairs:
            return f"{text}."
        most = 1 if len(counts) <= MANY else 3
        named = "; ".join(
            f"“{shown(true)}” taken for “{shown(other)}”, {times:,} of {round(times / share):,}"
            for true, other, times, share in pairs[:most]
        )
        return f"{text}; most often confused: {named}."

    def draw(self, ax: Axes) -> None:
        if self._size_of_text(extent(ax)[0]) is None:
            self._draw_pairs(ax)
        else:
            self._draw_matrix(ax)

    def _draw_matrix(self, ax: Axes) -> None:
        data = self.data
        counts, shares, C = data["counts"], data["shares"], len(self.classes)
        image = ax.imshow(shares, SEQUENTIAL, aspect="equal", interpolation="none", vmin=0, vmax=1)
        frame(ax, grid=False)
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        cell = self._side(extent(ax)[0]) / C
        size, brief = self._size_of_text(extent(ax)[0]) or (0.0, True)
        both = cell > 0.55
        for i, j in np.ndindex(C, C):
            if not counts[i, j]:
                continue
            red, green, blue, _ = image.to_rgba(shares[i, j])
            ink = "#ffffff" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else "#000000"
            text = _counted(int(counts[i, j]), brief=brief) + (f"\n{100 * shares[i, j]:.0f} %" if both else "")
            ax.text(j, i, text, ha="center", va="center", color=ink, fontsize=size, linespacing=1.15)
        names = [shown(name, _most(narrow=narrow(ax))) for name in self.classes]
        upright = _letters(self.classes, narrow=narrow(ax)) > cell
        small = 8 if cell > 0.2 else 6.5
        ax.set_yticks(range(C), names, fontsize=small)
        ax.set_xticks(range(C), names, fontsize=small, rotation=90 if upright else 0)
        ax.set_xlabel("predicted")
        ax.set_ylabel("true")
        bar = ax.figure.colorbar(image, ax=ax, pad=0.02, fraction=0.05)
        bar.set_label("share of the true class")
        bar.set_ticks([0, 0.5, 1], labels=["0 %", "50 %", "100 %"])
        bar.outline.set_visible(False)

    def _draw_pairs(self, ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        pairs = self.data["pairs"][:ROWS]
        most = 14 if narrow(ax) else 28
        names = [f"{shown(true, most)} → {shown(other, most)}" for true, other, *_ in pairs]
        counts = [count for *_, count, _ in pairs]
        ax.barh(range(len(pairs)), counts, color=series(0)[0], height=0.62)
        for row, (*_, count, share) in enumerate(pairs):
            ax.annotate(
                f"{count:,} ({100 * share:.0f} %)",
                (count, row),
                (4, 0),
                textcoords="offset points",
                va="center",
                color=INK,
                fontsize=8,
            )
        frame(ax, grid=False)
        ax.set_yticks(range(len(pairs)), names, fontsize=8)
        ax.tick_params(axis="y", length=0)
        ax.invert_yaxis()
        ax.set_xlim(0, 1.35 * max(counts, default=1))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5))
        ax.set_xlabel("examples (share of the true class)")
        ax.set_ylabel("true → predicted")


def _most(*, narrow: bool) -> int:
    """Letters of a class's name beside a matrix."""
    return 14 if narrow else 20


def _letters(classes: Sequence[Hashable], *, narrow: bool) -> float:
    """Inches that the longest of the names takes."""
    return 0.075 * max(len(shown(name, _most(narrow=narrow))) for name in classes)


def _counted(count: int, *, brief: bool) -> str:
    """A count as its cell holds it: 12,345, or in brief 12k."""
    if not brief or count < 1000:
        return f"{count:,}"
    return f"{count / 1e6:.2g}M" if count >= 999_500 else f"{count / 1e3:.{'1f' if count < 9950 else '0f'}}k"


@dataclass(frozen=True, eq=False)
class ClassScores(Picture):
    """Precision, recall and F1 of each class, with how many examples it has.

    truth, predicted  (N,) labels; classes: all of them. Of more than 30 those with the highest and lowest F1 are drawn.
    """

    truth: Sequence[Hashable]
    predicted: Sequence[Hashable]
    classes: Sequence[Hashable]

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.4), "narrow": (3.9, 3.4)}

    def __post_init__(self) -> None:
        confusion(self.truth, self.predicted, self.classes)

    @property
    def heading(self) -> str:
        return "The scores of each class"

    def size(self, screen: str) -> Size:
        return self.sizes[screen][0], 1.2 + 0.25 * max(2, min(len(self.classes), 2 * ROWS))

    @property
    def data(self) -> dict[str, Any]:
        """`classes`, and (C,) `precision`, `recall`, `f1`, NaN where they are not defined, and `support`."""
        counts = confusion(self.truth, self.predicted, self.classes)
        right, called, support = counts.diagonal(), counts.sum(0), counts.sum(1)
        return {
            "classes": list(self.classes),
            "precision": _ratio(right, called),
            "recall": _ratio(right, support),
            "f1": _ratio(2 * right, called + support),
            "support": support,
        }

    @property
    def reading(self) -> str:
        data = self.data
        f1, support = data["f1"], data["support"]
        there = np.flatnonzero(support)
        if not len(there):
            return "No example was classified."
        macro = f"The mean F1 of the classes is {np.nanmean(f1):.3f}"
        if len(there) == 1 or f1[there].min() == f1[there].max():
            return f"{macro}."
        weak, strong = there[np.argmin(f1[there])], there[np.argmax(f1[there])]
        lowest, highest = (
            f"“{shown(self.classes[place])}” at {f1[place]:.3f} ({support[place]:,} example"
            f"{'' if support[place] == 1 else 's'})"
            for place in (weak, strong)
        )
        return f"{macro}: lowest for {lowest}, highest for {highest}."

    def draw(self, ax: Axes) -> None:
        data = self.data
        places = self._places(data["f1"])
        rows = np.arange(len(places))
        for place, name in enumerate(("precision", "recall", "f1")):
            colour, _, sign = series(place)
            label = "F1" if name == "f1" else name
            fill = colour if name == "f1" else "none"
            look: dict[str, Any] = {"marker": sign, "ms": 5.5, "mew": 1.4, "mfc": fill, "zorder": 3, "clip_on": False}
            ax.plot(data[name][places], rows, color=colour, ls="", label=label, **look)
        values = np.stack([data[name][places] for name in ("precision", "recall", "f1")])
        low, high = np.nanmin(values, 0, initial=1), np.nanmax(values, 0, initial=0)
        ax.hlines(rows, low, np.maximum(low, high), color=FAINT, lw=1, zorder=1)
        most = 14 if narrow(ax) else 24
        # The mark in between keeps the number behind a name that is written from right to left.
        names = [f"{shown(self.classes[place], most)}\u200e ({data['support'][place]:,})" for place in places]
        frame(ax, grid=False)
        ax.grid(axis="x", color=FAINT, alpha=0.3, lw=0.7)
        ax.set_yticks(rows, names, fontsize=8)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(len(rows) - 0.4, -0.6)
        ax.set_xlim(min(0.5, math.floor(10 * low.min(initial=1)) / 10) if len(rows) else 0, 1)
        left = len(self.classes) - len(places)
        more = f"; {left:,} classes between are left out" if left else ""
        ax.set_xlabel("score" if narrow(ax) else f"score, 1 is best{more}")
        ax.set_ylabel("class (examples)")
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, columnspacing=1.2, handletextpad=0.2)

    def _places(self, f1: NDArray[np.float64]) -> NDArray[np.int64]:
        """All classes in their order; of many the best and the worst, by their F1."""
        if len(f1) <= 2 * ROWS:
            return np.arange(len(f1))
        order = np.argsort(-np.where(np.isnan(f1), -1, f1), kind="stable")
        return np.concatenate([order[:ROWS], order[-ROWS:]])


def _ratio(part: Counts, whole: Counts) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


@dataclass(frozen=True, eq=False)
class Calibration(Picture):
    """Whether probabilities can be believed: how often the class named is right, against the probability given to it.

    right        (N,) whether the class that was named is the true one; probability: (N,) what it was given.
    """

    right: ArrayLike
    probability: ArrayLike

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.8), "narrow": (3.9, 3.8)}

    def __post_init__(self) -> None:
        right, probability = np.asarray(self.right), np.asarray(self.probability, np.float64)
        if right.ndim != 1 or right.shape != probability.shape or not right.size:
            raise ValueError(f"probability must be one an example, {right.shape}; got shape {probability.shape}.")
        if not ((probability >= 0) & (probability <= 1 + 1e-6)).all():
            raise ValueError(f"probability must lie in [0, 1]; got {probability.min()} to {probability.max()}.")

    @property
    def heading(self) -> str:
        return "Whether its probabilities can be believed"

    @property
    def data(self) -> dict[str, Any]:
        """Of the bins that hold examples (K,): the mean `probability`, the `share` that is right, its `interval` (K, 2)
        after Wilson, and the `count`; `gap`: the mean distance of the first two (expected calibration error)."""
        right, probability = np.asarray(self.right, bool), np.asarray(self.probability, np.float64)
        place = np.minimum((probability * BINS).astype(int), BINS - 1)
        count = np.bincount(place, minlength=BINS)
        there = count > 0
        count = count[there]
        hits = np.bincount(place, right, BINS)[there]
        mean = np.bincount(place, probability, BINS)[there] / count
        interval = np.array([wilson(int(k), int(n)) for k, n in zip(hits, count, strict=True)])
        gap = float((np.abs(hits / count - mean) * count).sum() / count.sum())
        return {"probability": mean, "share": hits / count, "interval": interval, "count": count, "gap": gap}

    @property
    def reading(self) -> str:
        right, probability = np.asarray(self.right, bool), np.asarray(self.probability, np.float64)
        given, share = float(probability.mean()), float(right.mean())
        low, high = wilson(int(right.sum()), right.size)
        sure = (
            "as sure as it is right, in the mean"
            if low <= given <= high
            else ("too sure of itself" if given > share else "less sure than it could be")
        )
        return (
            f"The network gives the class that it names {percent(given)} in the mean, and is right in "
            f"{percent(share)}: it is {sure}. The mean gap is {percent(self.data['gap'])}."
        )

    def draw(self, ax: Axes) -> None:
        data = self.data
        ax.plot([0, 1], [0, 1], color=INK, lw=1.2, ls=MARK, label="as it should be")
        colour, _, sign = series(0)
        off = np.abs(data["interval"].T - data["share"])
        ax.errorbar(
            data["probability"], data["share"], off, color=colour, marker=sign, ms=5, lw=1.4, capsize=2, label="network"
        )
        for place, (x, count) in enumerate(zip(data["probability"], data["count"], strict=True)):
            low = data["interval"][place, 0]
            ax.annotate(f"{count:,}", (x, low), (0, -4), textcoords="offset points", ha="center", va="top", fontsize=8)
        start = min(0.5, float(data["probability"].min()) - 0.05, float(data["interval"].min()) - 0.08)
        ax.set_xlim(max(0, start), 1.02)
        ax.set_ylim(start, 1.02)
        ax.set_xlabel("probability given to the class named")
        ax.set_ylabel("share that is right (95 % interval)")
        legend_above(ax)
