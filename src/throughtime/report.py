"""Pictures of a training and of its error by lag, and the one-page report that opens offline."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import StringIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from throughtime.flow import ErrorByLag

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {
    "ink": "#1b1f24",
    "faint": "#8a929c",
    "first": "#0072b2",
    "second": "#d55e00",
    "third": "#009e73",
    "fourth": "#cc79a7",
}
"""The colours of the pictures, by their names in the page's style sheet, which has others for a dark screen.
Those of the series are from Okabe and Ito (2008), apart for the colour-blind; their dashes are for print."""

_SERIES = (
    ("first", "-"),
    ("second", (0, (5, 1.5))),
    ("third", (0, (1, 1))),
    ("fourth", (0, (4, 1.5, 1, 1.5))),
)
_SIZES = {"wide": (7.4, 3.7), "narrow": (3.9, 3.4)}
_POINTS = 400


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a report tells of a network: of the weights with the lowest validation loss, which a run keeps.

    title      a line; sentence: what was trained, on what, for how long.
    facts      the configuration: (name, value).
    records    one mapping an update, as in metrics.jsonl: `update`, `loss` and, where there are, `targets`
               (learned from so far) and `validation` (None when it was not evaluated); nats a unit.
    baseline   what to beat: (name, nats a unit on the validation text).
    samples    texts that the network wrote: (caption, text).
    lag        the error by lag of the trained network; h: where its training cut the error off.
    reproduce  the command that does it again.
    unit       what a loss is counted by: character, byte, word.
    """

    title: str
    sentence: str
    facts: Sequence[tuple[str, object]] = ()
    records: Sequence[Mapping[str, Any]] = ()
    baseline: tuple[str, float] | None = None
    samples: Sequence[tuple[str, str]] = ()
    lag: ErrorByLag | None = None
    h: int | None = None
    reproduce: str = ""
    unit: str = "character"


def write_report(folder: str | Path, summary: Summary) -> Path:
    """Write `report.html` into an existing folder: one file that opens offline and requests nothing."""
    source = files("throughtime").joinpath("templates/report.html").read_text(encoding="utf-8")
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(source)
    page = template.render(summary=summary, verdict=verdict(summary), pictures=_pictures(summary))
    path = Path(folder) / "report.html"
    unfinished = path.with_suffix(".part")
    unfinished.write_text(page, encoding="utf-8")
    os.replace(unfinished, path)
    return path


def _pictures(summary: Summary) -> list[dict[str, Any]]:
    """The pictures of a report: heading, drawings by size of screen, reading."""
    found = []
    if summary.records:

        def learning(ax: Axes) -> Axes:
            return plot_learning(summary.records, summary.baseline, ax, unit=summary.unit)

        found.append(_picture("What it learned", learning, read_learning(summary)))
    lag, h = summary.lag, summary.h
    if lag is not None:

        def back(ax: Axes) -> Axes:
            return plot_error_by_lag(lag, h, ax)

        found.append(_picture("How far back it learned", back, read_error_by_lag(lag, h)))
    return found


def verdict(summary: Summary) -> str:
    """How well the network does against the baseline, in one sentence."""
    unit, baseline = summary.unit, summary.baseline
    validation = _series(summary.records, "validation")
    if not summary.records:
        return "No loss was recorded, so nothing can be said about how well it does."
    if not validation:
        loss = float(summary.records[-1]["loss"])
        return (
            f"On the training text it reaches {_nats(loss, unit)}; nothing was held out, so how well it "
            "does on new text is unknown."
        )
    loss = min((value for _, value in validation if math.isfinite(value)), default=math.nan)
    if math.isnan(loss):
        return "The training failed: no validation loss is finite."
    reached = f"{_nats(loss, unit)} on text held out from training"
    if baseline is None:
        return f"It reaches {reached}; no baseline was measured beside it."
    name, bar = baseline
    if abs(loss - bar) < 0.0005:
        return f"The network and the baseline ({name}) are level: {reached}."
    if loss < bar:
        return (
            f"The network beats the baseline: {reached}, {bar - loss:.3f} nats below the {bar:.3f} of {name}."
        )
    return (
        f"The network loses to the baseline: {reached}, {loss - bar:.3f} nats above the {bar:.3f} of {name}. "
        "Train it longer or make it larger."
    )


def read_learning(summary: Summary) -> str:
    """The learning curve in one sentence."""
    validation = _series(summary.records, "validation")
    what, points = (
        ("validation", validation) if validation else ("training", _series(summary.records, "loss"))
    )
    first, last, best = points[0][1], points[-1][1], min(value for _, value in points)
    text = f"The {what} loss goes from {first:.3f} to {last:.3f} nats per {summary.unit}"
    if validation and best < last - 0.0005:
        text += f", after {best:.3f} at its lowest, where the weights are kept"
    return text + ("; below the dashed line it is better than the baseline." if summary.baseline else ".")


def read_error_by_lag(lag: ErrorByLag, h: int | None) -> str:
    """The error by lag in one to three sentences."""
    measured = np.flatnonzero(np.isfinite(lag.mean))
    if len(measured) < 2:
        return "Restarts left nothing to measure."
    first, last = measured[0], measured[-1]
    steps, decades = int(lag.lags[last] - lag.lags[first]), float(lag.mean[last] - lag.mean[first])
    change = f"{'grows' if decades > 0 else 'shrinks'} by a factor of {_power(abs(decades))}"
    half = "" if lag.half_life is None else f"; half of it is gone at lag {lag.half_life}"
    text = f"Over {steps} steps back the typical gradient of the error {change}{half}."
    if h is None:
        return text
    if h > lag.lags[-1]:
        return f"{text} Training cut the error off after h = {h} steps, beyond this picture."
    share = f"{100 * lag.share(h):.3g} % of the norm, summed over these lags"
    return f"{text} Training cut the error off at h = {h}. Before it lies {share}."


def plot_learning(
    records: Sequence[Mapping[str, Any]],
    baseline: tuple[str, float] | None = None,
    ax: Axes | None = None,
    *,
    unit: str = "character",
) -> Axes:
    """Training and validation loss, nats a unit, against units learned from or updates; see Summary."""
    from matplotlib.ticker import EngFormatter

    ax = _axes(ax)
    for name, key, width, (colour, dashes) in (
        ("training", "loss", 1.1, _SERIES[0]),
        ("validation", "validation", 1.8, _SERIES[1]),
    ):
        points = _thinned(_series(records, key))
        if points:
            x, y = zip(*points, strict=True)
            marker = "o" if len(points) < 40 else ""
            ax.plot(x, y, color=COLOURS[colour], ls=dashes, lw=width, marker=marker, ms=4, label=name)
    if baseline is not None:
        name, bar = baseline
        label = fill(f"{name}: {bar:.3f}", 40)
        ax.axhline(bar, color=COLOURS["ink"], lw=1.2, ls=(0, (6, 4)), label=label)
        ax.autoscale_view()  # axhline alone leaves no margin below a line at the edge
    counts = bool(records) and all("targets" in record for record in records)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlim(left=0)
    ax.set_xlabel(f"{unit}s read in training" if counts else "updates")
    ax.set_ylabel(f"loss (nats per {unit})")
    if ax.lines:
        ax.legend(loc="upper right", frameon=False, labelcolor=COLOURS["ink"])
    return ax


def plot_error_by_lag(
    lag: ErrorByLag | Sequence[tuple[str, ErrorByLag]], h: int | None = None, ax: Axes | None = None
) -> Axes:
    """Mean log10 |dloss_t / dh_{t-k}| against the lag k with its 10-90 % band; one curve, or labelled ones.

    A vertical line marks h, the lag at which truncation cuts the error off, where it lies among the lags.
    """
    curves = [("mean", lag)] if isinstance(lag, ErrorByLag) else list(lag)
    band = "10–90 % of the steps" if isinstance(lag, ErrorByLag) else None
    ax = _axes(ax)
    for (label, curve), (colour, dashes) in zip(curves, _SERIES * len(curves), strict=False):
        ax.fill_between(
            curve.lags, curve.low, curve.high, color=COLOURS[colour], alpha=0.18, lw=0, label=band
        )
        ax.plot(curve.lags, curve.mean, color=COLOURS[colour], ls=dashes, lw=2, label=label)
    last = max(int(curve.lags[-1]) for _, curve in curves)
    if h is not None and h <= last:
        side, ha = (-5, "right") if h > last / 2 else (5, "left")
        ax.axvline(h, color=COLOURS["ink"], lw=1.4, ls=(0, (6, 4)))
        ax.annotate(
            f"cut at h = {h}",
            (h, 1),
            (side, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha=ha,
            va="top",
            color=COLOURS["ink"],
        )
    ax.set_xlim(0, last)
    ax.set_xlabel("lag k (steps back)")
    ax.set_ylabel("log₁₀ |∂loss(t) / ∂h(t − k)|")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, frameon=False, labelcolor=COLOURS["ink"])
    return ax


def _axes(ax: Axes | None) -> Axes:
    """The axes to draw on, new ones if none are given, with a light frame."""
    from matplotlib.figure import Figure

    if ax is None:
        ax = Figure(figsize=_SIZES["wide"], layout="constrained").subplots()
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color(COLOURS["faint"])
    ax.tick_params(color=COLOURS["faint"], labelcolor=COLOURS["ink"])
    ax.grid(axis="y", color=COLOURS["faint"], alpha=0.3, lw=0.7)
    ax.xaxis.label.set_color(COLOURS["ink"])
    ax.yaxis.label.set_color(COLOURS["ink"])
    return ax


def _series(records: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    """(targets or updates so far, value) of the records that have the value."""
    counts = all("targets" in record for record in records)
    return [
        (float(record["targets" if counts else "update"]), float(record[key]))
        for record in records
        if record.get(key) is not None
    ]


def _thinned(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, means of neighbours, that a picture stays small."""
    if len(points) <= _POINTS:
        return points
    parts = np.array_split(np.array(points), _POINTS)
    return [(float(part[-1, 0]), float(part[:, 1].mean())) for part in parts]


def _power(decades: float) -> str:
    """10 to this power, to two digits, or as a power of ten from a million on."""
    if decades >= 6:
        return "10" + str(round(decades)).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"{float(f'{10**decades:.2g}'):,.12g}"


def _nats(loss: float, unit: str) -> str:
    return f"{loss:.3f} nats ({loss / math.log(2):.2f} bits) per {unit}"


def _picture(heading: str, draw: Callable[[Axes], Axes], reading: str) -> dict[str, Any]:
    """A picture as SVG for wide and narrow screens, with its reading, which is its alternative text too."""
    from matplotlib.figure import Figure
    from matplotlib.style import context

    drawings = {}
    for size, inches in _SIZES.items():
        name = f"{heading.replace(' ', '-')}-{size}-"
        style = {"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9.5, "text.parse_math": False}
        with context(["default", style]):
            figure = Figure(figsize=inches, layout="constrained")
            draw(figure.subplots())
            text = StringIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            figure.savefig(text, format="svg", transparent=True, metadata=nothing)
        drawings[size] = _themed(text.getvalue(), name, reading)
    return {"heading": heading, "drawings": drawings, "reading": reading}


def _themed(svg: str, prefix: str, reading: str) -> Markup:
    """An SVG to stand inside a page: its colours from the style sheet, its ids its own."""
    svg = svg[svg.index("<svg ") :].replace("<svg ", f'<svg role="img" aria-label="{escape(reading)}" ', 1)
    for name, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{name})")
    for reference in ('id="', 'href="#', "url(#"):
        svg = svg.replace(reference, reference + prefix)
    return Markup(svg)
