"""Pictures of forecasts: the fan against what happened, and the error by how many steps ahead."""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.pictures.base import Picture
from throughtime.pictures.style import FAINT, INK, LIGHT, Size, legend_above, narrow, number, percent, series, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HISTORY = 3
"""So many times the horizon is drawn of what came before, if nothing else is said."""
LEAST, MOST = 24, 2000
"""And at least and at most so many values."""

FEW = 150
"""Fewer values than these have a dot each, without which one between two missing ones is not seen."""
DRAWN = 1000
"""A band of more steps is drawn through the lowest and the highest of so many neighbourhoods."""

Values = NDArray[np.float64]


@dataclass(frozen=True, eq=False, kw_only=True)
class ForecastFan(Picture):
    """The forecast of one series: its median in its bands after the last of the history, against what happened.

    time       (T,) of the history, dates or numbers; history: (T,) values, NaN where one is missing.
    ahead      (H,) times of the forecast; median: (H,).
    bands      by level in percent, as 50 and 90: (low, high), each (H,).
    happened   (H,) what came, NaN where it is not known; None: nothing is known of it.
    baselines  by name: (H,) what simpler methods forecast.
    name       of the series; value: what is measured, with its unit.
    last       how much of the history is drawn; None: three times the horizon, 24 at least.
    """

    time: ArrayLike
    history: ArrayLike
    ahead: ArrayLike
    median: ArrayLike
    bands: Mapping[float, tuple[ArrayLike, ArrayLike]] = field(default_factory=dict)
    happened: ArrayLike | None = None
    baselines: Mapping[str, ArrayLike] = field(default_factory=dict)
    name: str = ""
    value: str = "value"
    last: int | None = None

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.6), "narrow": (3.9, 4.2)}

    def __post_init__(self) -> None:
        time, ahead = times(self.time, "time"), times(self.ahead, "ahead")
        before, after = len(time), len(ahead)
        if before and after and time.dtype.kind != ahead.dtype.kind:
            raise ValueError(
                f"time and ahead must both be dates or both be numbers; got {time.dtype} and {ahead.dtype}."
            )
        if not after:
            raise ValueError("ahead must have at least one time; got none. Forecast a step or more.")
        _check(self.history, before, "history")
        _check(self.median, after, "median")
        if self.happened is not None:
            _check(self.happened, after, "happened")
        for name, values in self.baselines.items():
            _check(values, after, f"the baseline {name}")
        for level, band in self.bands.items():
            if not 0 < level < 100:
                raise ValueError(f"bands must be by levels between 0 and 100 percent; got {level}.")
            for values in band:
                _check(values, after, f"the band of {level:g} %")
        if self.last is not None and self.last < 1:
            raise ValueError(f"last must be 1 or more; got {self.last}.")

    @property
    def heading(self) -> str:
        return f"Forecast of {shown(self.name, 48)}" if self.name else "The forecast"

    @property
    def data(self) -> dict[str, Any]:
        """Everything as arrays, the history as far as it is drawn; `bands` (low, high) by level, `inside` of each the
        share of what is known of `happened` that lies in it."""
        time, history = times(self.time, "time"), _values(self.history)
        ahead = times(self.ahead, "ahead")
        last = min(MOST, max(LEAST, HISTORY * len(ahead))) if self.last is None else self.last
        bands = {float(level): (_values(low), _values(high)) for level, (low, high) in sorted(self.bands.items())}
        happened = np.full(len(ahead), np.nan) if self.happened is None else _values(self.happened)
        known = np.isfinite(happened)
        return {
            "time": time[-last:],
            "history": history[-last:],
            "ahead": ahead,
            "median": _values(self.median),
            "bands": bands,
            "happened": happened,
            "baselines": {name: _values(values) for name, values in self.baselines.items()},
            "inside": {
                level: float(((low <= happened) & (happened <= high))[known].mean()) if known.any() else math.nan
                for level, (low, high) in bands.items()
            },
        }

    @property
    def reading(self) -> str:
        data = self.data
        if not np.isfinite(data["median"]).all():
            return "The forecast is not finite: the network diverged."
        known = int(np.isfinite(data["happened"]).sum())
        return _against(data, known) if known else _alone(data)

    def draw(self, ax: Axes) -> None:
        data = self.data
        self._draw_truth(ax, data)
        for place, (level, (low, high)) in enumerate(reversed(data["bands"].items())):
            _band(ax, data["ahead"], low, high, alpha=0.18 + 0.14 * place, label=f"{level:g} % band")
        sign = "o" if len(data["ahead"]) == 1 else ""  # a line of one point cannot be seen
        ax.plot(data["ahead"], data["median"], color=series(0)[0], lw=2, marker=sign, label="network")
        for place, (name, values) in enumerate(data["baselines"].items()):
            colour, dashes, other = series(place + 1)
            ax.plot(data["ahead"], values, color=colour, ls=dashes, lw=1.2, marker=sign and other, label=shown(name))
        _time_axis(ax, data["ahead"])
        _value_axis(ax)
        ax.set_ylabel(shown(self.value, 40))
        legend_above(ax)

    def _draw_truth(self, ax: Axes, data: dict[str, Any]) -> None:
        """The history, and what happened in one line with it, over the bands; a mark where the forecast begins."""
        time, values = data["time"], data["history"]
        known = np.isfinite(data["happened"]).any()
        if len(time):
            ax.axvline(time[-1], color=FAINT, lw=0.9, ls=(0, (2, 2)))
        if known:
            time = np.concatenate([time, data["ahead"]]) if len(time) else data["ahead"]
            values = np.concatenate([values, data["happened"]])
        look: dict[str, Any] = {"marker": "." if len(time) < FEW else "", "ms": 4, "zorder": 2.5}
        ax.plot(time, values, color=INK, lw=1.1, label="what happened" if known else "history", **look)


def first_fans(fans: Sequence[ForecastFan], most: int = 3) -> tuple[list[ForecastFan], str]:
    """The fans of the first series of many, and the sentence that says how many there are; empty when these are all.

    Fans of one name are of one series: its past against what happened, and its future.
    """
    if most < 1:
        raise ValueError(f"most must be 1 or more; got {most}.")
    names = list(dict.fromkeys(fan.name for fan in fans))
    text = f"Drawn are the first {most} of {len(names):,} series." if len(names) > most else ""
    return [fan for fan in fans if fan.name in names[:most]], text


@dataclass(frozen=True, eq=False)
class ErrorByHorizon(Picture):
    """The error by how many steps ahead: of the network, of the baselines, of the network without memory.

    errors     by name: (H,) for 1, 2, ... H steps ahead, the network first; NaN where it was not measured.
    measure    what they are, as MASE; less is better.
    forecasts  how many forecasts each is the mean of.
    """

    errors: Mapping[str, ArrayLike]
    measure: str = "MASE"
    forecasts: int | None = field(default=None, kw_only=True)

    sizes: ClassVar[dict[str, Size]] = {"wide": (7.4, 3.4), "narrow": (3.9, 3.6)}

    def __post_init__(self) -> None:
        if not self.errors:
            raise ValueError("errors must hold at least the network's; got none.")
        (first, values), *others = self.errors.items()
        steps = len(_values(values))
        if not steps:
            raise ValueError(f"errors must have a value a step ahead; got none of {first}.")
        for name, values in others:
            _check(values, steps, f"the errors of {name}")

    @property
    def heading(self) -> str:
        return "The error by horizon"

    @property
    def data(self) -> dict[str, Any]:
        """`steps` (H,), and by name `errors` (H,) and their `mean` over the steps of which all have one."""
        errors = {name: _values(values) for name, values in self.errors.items()}
        common = self._common
        mean = {name: float(row[common].mean()) if common.any() else math.nan for name, row in errors.items()}
        return {"steps": np.arange(1, 1 + len(common)), "errors": errors, "mean": mean}

    @property
    def _common(self) -> NDArray[np.bool_]:
        """(H,) whether everything that was measured at all was measured so many steps ahead."""
        known = [there for values in self.errors.values() if (there := np.isfinite(_values(values))).any()]
        steps = len(_values(next(iter(self.errors.values()))))
        return np.all(known, axis=0) if known else np.zeros(steps, bool)

    @property
    def reading(self) -> str:
        data = self.data
        (network, errors), *others = data["errors"].items()
        measured = np.flatnonzero(np.isfinite(errors))
        if not len(measured):
            return f"No finite {self.measure} was measured of {shown(network)}."
        first, last = measured[0], measured[-1]
        ahead = "one step ahead" if first == 0 else f"at {first + 1:,} steps"
        text = f"The {self.measure} of {shown(network)} is {number(errors[first])} {ahead}"
        if last > first:
            text += f" and {number(errors[last])} at {last + 1:,} steps"
        if not others:
            return f"{text}."
        common = self._common
        if not common.any():
            return f"{text}; at no step all of them were measured."
        means = ", ".join(f"{shown(name)} {number(mean)}" for name, mean in data["mean"].items())
        best = np.all([~(errors[common] > row[common]) for _, row in others], axis=0)
        where = f"; {shown(network)} is lowest at {best.sum()} of {len(best)} steps" if len(best) > 1 else ""
        return f"{text}; in the mean {means}{where}."

    def draw(self, ax: Axes) -> None:
        from matplotlib.ticker import MaxNLocator

        data = self.data
        steps = data["steps"]
        every = max(1, len(steps) // 12)
        for place, (name, errors) in enumerate(data["errors"].items()):
            colour, dashes, sign = series(place)
            offset = place * every // len(data["errors"])
            line = {"color": colour, "ls": dashes, "lw": 2 if place == 0 else 1.5, "label": shown(name)}
            ax.plot(steps, errors, marker=sign, ms=4.5, markevery=(min(offset, len(steps) - 1), every), **line)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=5 if narrow(ax) else 9))
        if len(steps) == 1:
            ax.set_xlim(0.5, 1.5)
        _, top = ax.get_ylim()
        ax.set_ylim(0, top)
        many = "" if self.forecasts is None else f", mean of {self.forecasts:,} forecasts"
        ax.set_xlabel("steps ahead" if narrow(ax) else f"steps ahead{many}")
        ax.set_ylabel(shown(self.measure, 40))
        legend_above(ax)


def times(values: ArrayLike, name: str) -> NDArray[Any]:
    """Times as dates without a zone (datetime64) or as float64. Raises TypeError for anything else."""
    array = np.asarray(values)
    if array.dtype.kind == "O" and all(isinstance(one, datetime.date) for one in array.flat):
        array = np.array([_local(one) for one in array.flat], "datetime64[us]").reshape(array.shape)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one row of times; got shape {array.shape}.")
    if array.dtype.kind in "iuf" or not array.size:
        return array.astype(np.float64)
    if array.dtype.kind != "M":
        raise TypeError(f"{name} must be dates or numbers; got {array.dtype}. Give datetime64 or float.")
    return array


def _local(time: datetime.date) -> datetime.date:
    """Without its zone, of which numpy warns: what the clock on the wall says is drawn."""
    return time.replace(tzinfo=None) if isinstance(time, datetime.datetime) else time


def _values(values: ArrayLike) -> Values:
    return np.asarray(values, np.float64)


def _check(values: ArrayLike, count: int, name: str) -> None:
    shape = _values(values).shape
    if shape != (count,):
        raise ValueError(f"{name} must have one value a time, {count}; got shape {shape}.")


def _against(data: dict[str, Any], known: int) -> str:
    """What lies in the bands and how far the median is off, with the baselines' errors."""
    happened = data["happened"]
    inside = [
        f"{round(share * known):,} ({percent(share)}) lie in the {level:g} % band"
        for level, share in data["inside"].items()
    ]
    came = f"{known:,} value{'' if known == 1 else 's'} that came"
    bands = f"Of the {came}, {' and '.join(inside)}. " if inside else ""
    errors = [f"{shown(name)} by {_off(values, happened)}" for name, values in data["baselines"].items()]
    beside = f"; {', '.join(errors)}" if errors else ""
    return f"{bands}The network is off by {_off(data['median'], happened)} in the mean{beside}."


def _off(values: Values, happened: Values) -> str:
    errors = np.abs(values - happened)
    known = np.isfinite(happened)
    return number(float(errors[known].mean()))


def _alone(data: dict[str, Any]) -> str:
    median, steps = data["median"], len(data["median"])
    text = f"The network forecasts {number(median[0], 4)} one step ahead"
    if steps > 1:
        text += f" and {number(median[-1], 4)} after {steps:,} steps"
    if data["bands"]:
        level, (low, high) = next(reversed(data["bands"].items()))
        text += f", there between {number(low[-1], 4)} and {number(high[-1], 4)} at {level:g} %"
    return f"{text}; what happened is not known."


def _band(ax: Axes, time: NDArray[Any], low: Values, high: Values, *, alpha: float, label: str) -> None:
    """A band; of one step a bar. A long one is made of the lowest and highest of neighbours."""
    colour = LIGHT["first"]
    if len(time) == 1:
        ax.vlines(time, low, high, color=colour, alpha=alpha, lw=9, label=label)
        return
    if len(time) > DRAWN:
        time, low, high = map(np.array, zip(*_neighbourhoods(time, low, high), strict=True))
    ax.fill_between(time, low, high, color=colour, alpha=alpha, lw=0, label=label)


def _neighbourhoods(time: NDArray[Any], low: Values, high: Values) -> Iterator[tuple[Any, float, float]]:
    for part in np.array_split(np.arange(len(time)), DRAWN):
        yield time[part[-1]], low[part].min(), high[part].max()


def _time_axis(ax: Axes, time: NDArray[Any]) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import MaxNLocator

    few = 5 if narrow(ax) else 9
    if time.dtype.kind == "M":
        locator = AutoDateLocator(minticks=3, maxticks=few)
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        ax.set_xlabel("date")
    else:
        ax.xaxis.set_major_locator(MaxNLocator(nbins=few - 1, integer=bool((time % 1 == 0).all())))
        ax.ticklabel_format(axis="x", useOffset=False, style="plain")
        ax.set_xlabel("time")


def _value_axis(ax: Axes) -> None:
    """Plain numbers where they are short: the corner over the axis belongs to the legend."""
    from matplotlib.ticker import EngFormatter

    size = max(map(abs, ax.get_ylim()))
    if 1e-3 < size < 1e7:
        ax.ticklabel_format(axis="y", useOffset=False, style="plain")
    else:
        ax.yaxis.set_major_formatter(EngFormatter(sep=""))
