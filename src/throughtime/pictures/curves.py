"""Pictures of lines: the loss while a network learns, and the error against the lag."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from throughtime.flow import ErrorByLag
from throughtime.pictures.base import Picture
from throughtime.pictures.style import INK, MARK, Size, decades, legend_above, percent, power, series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = Sequence[Mapping[str, Any]]
"""One mapping an update, as in metrics.jsonl: update, loss and, where there are, targets and validation."""

POINTS = 400
"""A line of more points is drawn through the means of so many neighbourhoods."""


@dataclass(frozen=True, eq=False)
class LearningCurves(Picture):
    """Training and validation loss against what was read; of several runs the validation loss, a line each.

    records   of a run; or by the name of the run.
    baseline  what to beat: (name, its loss a unit on the validation part).
    unit      what a loss is counted by: character, byte, word.
    measure   what a loss is: nats, or the name of another error.
    """

    records: Records | Mapping[str, Records]
    baseline: tuple[str, float] | None = None
    unit: str = "character"
    measure: str = field(default="nats", kw_only=True)

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.5), "narrow": (3.9, 3.4)}

    @property
    def heading(self) -> str:
        return "What it learned" if len(self._runs) == 1 else "What they learned"

    @property
    def _runs(self) -> dict[str, Records]:
        return dict(self.records) if isinstance(self.records, Mapping) else {"": self.records}

    @property
    def _counts(self) -> bool:
        """Whether every record knows what was read so far; else updates are counted."""
        runs = self._runs.values()
        return any(runs) and all("targets" in record for records in runs for record in records)

    @property
    def data(self) -> dict[str, Any]:
        """`axis`, and by run `training` and `validation`: (N, 2) arrays of what was read and the loss."""
        return {
            "axis": f"{self.unit}s read in training" if self._counts else "updates",
            "baseline": self.baseline,
            "runs": {
                name: {"training": self._points(records, "loss"), "validation": self._points(records, "validation")}
                for name, records in self._runs.items()
            },
        }

    def _points(self, records: Records, key: str) -> NDArray[np.float64]:
        place = "targets" if self._counts else "update"
        found = [(record[place], record[key]) for record in records if record.get(key) is not None]
        return np.array(found, np.float64).reshape(-1, 2)

    @property
    def reading(self) -> str:
        runs = self.data["runs"]
        if len(runs) > 1:
            return self._several(runs)
        (curves,) = runs.values()
        what = "validation" if len(curves["validation"]) else "training"
        losses = curves[what][:, 1]
        if not len(losses):
            return "No loss was recorded."
        text = f"The {what} loss goes from {losses[0]:.3f} to {losses[-1]:.3f} {self.measure} per {self.unit}"
        if what == "validation" and losses.min() < losses[-1] - 0.0005:
            text += f", after {losses.min():.3f} at its lowest, where the weights are kept"
        return text + ("; below the dashed line it is better than the baseline." if self.baseline else ".")

    def _several(self, runs: dict[str, Any]) -> str:
        best = {name: _lowest(curves) for name, curves in runs.items()}
        ranked = sorted((loss, name) for name, loss in best.items() if math.isfinite(loss))
        if not ranked:
            return "No loss was recorded."
        (loss, first), *others = ranked
        rest = "".join(f", {name} {other - loss:.3f} above it" for other, name in others)
        return f"{first} comes lowest, to {loss:.3f} {self.measure} per {self.unit}{rest}."

    def draw(self, ax: Axes) -> None:
        from matplotlib.ticker import EngFormatter

        data = self.data
        several = len(data["runs"]) > 1
        for place, (run, curves) in enumerate(data["runs"].items()):
            if several:
                key = "validation" if len(curves["validation"]) else "training"
                label = run if key == "validation" else f"{run} (training loss)"
                _line(ax, curves[key], place, label, 1.8, marker=key == "validation")
            else:
                _line(ax, curves["training"], 0, "training", 1.1)
                _line(ax, curves["validation"], 1, "validation", 1.8)
        if self.baseline is not None:
            name, bar = self.baseline
            ax.axhline(bar, color=INK, lw=1.2, ls=MARK, label=f"{name}: {bar:.3f}")
            ax.autoscale_view()  # axhline alone leaves no margin below a line at the edge
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_xlim(left=0)
        ax.set_xlabel(data["axis"])
        ax.set_ylabel(f"loss ({self.measure} per {self.unit})")
        legend_above(ax)


def _lowest(curves: dict[str, NDArray[np.float64]]) -> float:
    points = curves["validation"] if len(curves["validation"]) else curves["training"][-1:]
    return float(np.nanmin(points[:, 1])) if len(points) else math.nan


def _line(ax: Axes, points: NDArray[np.float64], place: int, label: str, width: float, *, marker: bool = False) -> None:
    if not len(points):
        return
    colour, dashes, sign = series(place)
    points = thinned(points)
    few = len(points) < 40
    ax.plot(*points.T, color=colour, ls=dashes, lw=width, marker=sign if few or marker else "", ms=4, label=label)


def thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """At most POINTS points, means of neighbours at the place of the last, so that a picture stays small."""
    if len(points) <= POINTS:
        return points
    parts = np.array_split(points, POINTS)
    return np.array([(part[-1, 0], part[:, 1].mean()) for part in parts])


@dataclass(frozen=True, eq=False)
class ErrorAgainstLag(Picture):
    """|d loss_t / d state_{t-k}| against the lag k: the mean of its logarithm, of one network or a line for each.

    errors  as flow measures them; one, or by the name of a cell, a run or a part of the state.
    h       where training cut the error off; one for all, or by name.
    """

    errors: ErrorByLag | Mapping[str, ErrorByLag]
    h: int | Mapping[str, int | None] | None = None
    title: str = field(default="How far back it learned", kw_only=True)

    @property
    def heading(self) -> str:
        return self.title

    @property
    def _curves(self) -> dict[str, ErrorByLag]:
        return {"mean": self.errors} if isinstance(self.errors, ErrorByLag) else dict(self.errors)

    @property
    def _cuts(self) -> dict[str, int | None]:
        return {name: self.h.get(name) if isinstance(self.h, Mapping) else self.h for name in self._curves}

    @property
    def data(self) -> dict[str, Any]:
        """By name `lags`, `mean`, `low` and `high` (log10 of the norm; 10 % and 90 % quantiles) and `h`."""
        cuts = self._cuts
        return {
            name: {"lags": curve.lags, "mean": curve.mean, "low": curve.low, "high": curve.high, "h": cuts[name]}
            for name, curve in self._curves.items()
        }

    @property
    def reading(self) -> str:
        if isinstance(self.errors, ErrorByLag):
            assert not isinstance(self.h, Mapping)
            return _read(self.errors, self.h)
        curves = {name: curve for name, curve in self._curves.items() if np.isfinite(curve.mean).sum() > 1}
        if not curves:
            return "Restarts left nothing to measure."
        halves = [f"{name} {_after(curve.half_life)}" for name, curve in curves.items()]
        changes = [f"{name} {_change(curve)}" for name, curve in curves.items()]
        last = max(int(curve.lags[-1]) for curve in curves.values())
        return f"Half of the error is gone: {', '.join(halves)}. Over {last} steps back: {', '.join(changes)}."

    def draw(self, ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        data = self.data
        single = isinstance(self.errors, ErrorByLag)
        for place, (label, curve) in enumerate(data.items()):
            colour, dashes, sign = series(place)
            lags, every = curve["lags"], max(1, len(curve["lags"]) // 8)
            band = "10–90 % of the steps" if single else None
            if len(data) <= 3:
                ax.fill_between(lags, curve["low"], curve["high"], color=colour, alpha=0.16, lw=0, label=band)
            (line,) = ax.plot(lags, curve["mean"], color=colour, ls=dashes, lw=2, ms=5, label=label)
            if not single:
                line.set(marker=sign, markevery=(place * every // len(data), every))
        last = max(int(curve["lags"][-1]) for curve in data.values())
        self._mark_cuts(ax, last)
        ax.set_yticks(places := decades(*ax.get_ylim()), [power(place) for place in places])
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlim(0, last)
        ax.set_xlabel("lag k (steps back)")
        ax.set_ylabel("|∂loss(t) / ∂state(t − k)|  (nats)")
        legend_above(ax)

    def _mark_cuts(self, ax: Axes, last: int) -> None:
        """A vertical line for each h that lies among the lags, with the names that it cuts where they differ."""
        cuts = self._cuts
        for row, h in enumerate(sorted({h for h in cuts.values() if h is not None and h <= last})):
            names = [name for name in cuts if cuts[name] == h]
            whose = "" if len(names) == len(cuts) else f" ({', '.join(names)})"
            side, ha = (-5, "right") if h > last / 2 else (5, "left")
            ax.axvline(h, color=INK, lw=1.4, ls=MARK)
            ax.annotate(
                f"cut at h = {h}{whose}",
                (h, 1),
                (side, -4 - 12 * row),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha=ha,
                va="top",
                color=INK,
            )


def _read(error: ErrorByLag, h: int | None) -> str:
    """The error by lag in one to three sentences."""
    measured = np.flatnonzero(np.isfinite(error.mean))
    if len(measured) < 2:
        return "Restarts left nothing to measure."
    steps = int(error.lags[measured[-1]] - error.lags[measured[0]])
    half = "" if error.half_life is None else f"; half of it is gone after {error.half_life:.2g} steps"
    text = f"Over {steps} steps back the typical gradient of the error {_change(error)}{half}."
    if h is None:
        return text
    if h > error.lags[-1]:
        return f"{text} Training cut the error off after h = {h} steps, beyond this picture."
    share = f"{percent(error.share(h))} of the norm, summed over these lags"
    return f"{text} Training cut the error off at h = {h}. Before it lies {share}."


def _after(half_life: float | None) -> str:
    return "at none of these lags" if half_life is None else f"after {half_life:.2g} steps"


def _change(error: ErrorByLag) -> str:
    measured = error.mean[np.isfinite(error.mean)]
    change = float(measured[-1] - measured[0])
    return f"{'grows' if change > 0 else 'shrinks'} by a factor of {_factor(abs(change))}"


def _factor(exponent: float) -> str:
    """10 to this power, to two digits, or as a power of ten from a million on."""
    return power(round(exponent)) if exponent >= 6 else f"{float(f'{10**exponent:.2g}'):,.12g}"
