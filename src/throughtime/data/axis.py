"""The time axis of series: which step lies between their stamps, found from the stamps, and what comes after them.

A place is the number of steps from an origin; the stamps of all series lie on places 0, 1, 2, ... of one axis. A step
is a number of units: of whole numbers, of microseconds (weeks, days, hours, seconds), of months with the day kept
(years, quarters), of months at their ends, or of weekdays. Stamps that lie on no such axis are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Places = NDArray[np.int64]

DAY = 86_400_000_000
"""Microseconds."""
LENGTHS = (
    ("week", 7 * DAY),
    ("day", DAY),
    ("hour", DAY // 24),
    ("minute", DAY // 1440),
    ("second", DAY // 86_400),
    ("millisecond", 1000),
)
SEASONS = {
    "minute": (60.0, "minutes of an hour"),
    "hour": (24.0, "hours of a day"),
    "day": (7.0, "days of a week"),
    "weekday": (5.0, "weekdays of a week"),
    "week": (365.25 / 7, "weeks of a year"),
    "month": (12.0, "months of a year"),
    "quarter": (4.0, "quarters of a year"),
}
"""The season that a step suggests, in steps."""
SPREAD = 20
"""Places a stamp that an axis may have at most: where nearly all are empty, the step was not found."""


@dataclass(frozen=True)
class Axis:
    """kind: number, time, month, month end or weekday; `every` units a step; origin: the first stamp, in units.

    rest is what a stamp has beside its unit: microseconds of the day and, for months, the day less one.
    """

    kind: str
    every: int
    origin: int
    rest: int = 0

    @property
    def step(self) -> str:
        """The step in words, such as `month`, `2 hours` or `5`."""
        every = self.every
        if self.kind == "number":
            return str(every)
        if self.kind in ("month", "month end"):
            names = {12: "year", 3: "quarter"}
            return names.get(every) or _many(every, "month")
        if self.kind == "weekday":
            return _many(every, "weekday")
        for name, length in LENGTHS:
            if every % length == 0:
                return _many(every // length, name)
        return _many(every, "microsecond")

    @property
    def season(self) -> tuple[float, str] | None:
        """The season that the step suggests and its words; None where it suggests none."""
        return SEASONS.get(self.step)

    def places(self, stamps: NDArray[Any]) -> Places | None:
        """The place of each stamp; None when one lies beside the axis."""
        units, rest = _units(stamps, self.kind)
        away = units - self.origin
        if (rest != self.rest).any() or (away % self.every).any():
            return None
        return away // self.every

    def stamps(self, places: Places) -> NDArray[Any]:
        """The stamps of places: int64, or datetime64 in microseconds."""
        units = self.origin + np.asarray(places, np.int64) * self.every
        if self.kind == "number":
            return units
        if self.kind == "time":
            return units.astype("datetime64[us]")
        if self.kind == "weekday":
            days = np.busday_offset("1970-01-01", units, roll="forward").astype("datetime64[us]")
            return days + np.timedelta64(self.rest, "us")
        if self.kind == "month end":
            last = (units + 1).astype("datetime64[M]").astype("datetime64[D]") - 1
            return last.astype("datetime64[us]") + np.timedelta64(self.rest, "us")
        days = units.astype("datetime64[M]").astype("datetime64[D]").astype("datetime64[us]")
        return days + np.timedelta64(self.rest, "us")


def find_axis(series: Sequence[NDArray[Any]]) -> Axis:
    """The axis of sorted stamps without repetition, of each series: int64, or datetime64 in microseconds.

    Raises ValueError when no series has two stamps, or when no step fits all.
    """
    first = next(stamps for stamps in series if len(stamps))
    stamped = first.dtype.kind == "M"
    if all(len(stamps) < 2 for stamps in series):
        if stamped:
            raise ValueError(
                f"time must have at least two stamps in a series, to tell the step from; got {plain(first[0])} alone. "
                "Give more rows, or number the steps 0, 1, 2."
            )
        return Axis("number", 1, int(min(int(stamps[0]) for stamps in series if len(stamps))))
    for kind in ("month", "month end", "weekday", "time") if stamped else ("number",):
        axis = _fitting(series, kind)
        if axis is not None:
            return axis
    raise ValueError(_irregular(series))


def _fitting(series: Sequence[NDArray[Any]], kind: str) -> Axis | None:
    """The axis of a kind that all stamps lie on, with the most frequent step; None where there is none."""
    if kind != "number" and not _may_be(series, kind):
        return None
    parts = [_units(stamps, kind) for stamps in series if len(stamps)]
    rest = int(parts[0][1][0])
    if any((other != rest).any() for _, other in parts):
        return None
    steps = np.concatenate([np.diff(units) for units, _ in parts])
    if not len(steps) or (steps <= 0).any():
        return None
    sizes, counts = np.unique(steps, return_counts=True)
    every = int(sizes[np.argmax(counts)])
    origin = min(int(units[0]) for units, _ in parts)
    if (steps % every).any() or any(((units - origin) % every).any() for units, _ in parts):
        every = int(np.gcd.reduce(np.concatenate([sizes, [units[0] - origin for units, _ in parts]])))
        if every not in sizes and counts.max() > 1:
            return None
    places = sum(int(units[-1] - units[0]) // every + 1 for units, _ in parts)
    if places > SPREAD * sum(len(units) for units, _ in parts):
        return None
    return Axis(kind, every, origin, rest)


def _may_be(series: Sequence[NDArray[Any]], kind: str) -> bool:
    """Whether the stamps are of this kind and not of an easier one: months apart, at ends of months, on no weekend."""
    for stamps in series:
        days = stamps.astype("datetime64[D]")
        steps = np.diff(days).astype(np.int64)
        if kind in ("month", "month end") and len(steps) and steps.min() < 28:
            return False
        months = days.astype("datetime64[M]")
        if kind == "month" and ((days - months).astype(np.int64) > 27).any():
            return False  # the 29th to the 31st are not in every month
        if kind == "month end" and (days + 1 != (months + 1).astype("datetime64[D]")).any():
            return False
    if kind != "weekday":
        return True
    days = np.concatenate([stamps.astype("datetime64[D]") for stamps in series])
    steps = np.concatenate([np.diff(stamps.astype("datetime64[D]")).astype(np.int64) for stamps in series])
    return bool(np.is_busday(days).all() and len(days) > 5 and (steps == 1).mean() > 0.5 and (steps >= 3).any())


def _units(stamps: NDArray[Any], kind: str) -> tuple[Places, Places]:
    """Stamps in units of a kind, and what is left of each."""
    if kind == "number":
        return stamps.astype(np.int64), np.zeros(len(stamps), np.int64)
    if kind == "time":
        return stamps.astype("datetime64[us]").astype(np.int64), np.zeros(len(stamps), np.int64)
    days = stamps.astype("datetime64[D]")
    within = (stamps.astype("datetime64[us]") - days.astype("datetime64[us]")).astype(np.int64)
    months = days.astype("datetime64[M]")
    if kind == "month":
        return months.astype(np.int64), within + (days - months.astype("datetime64[D]")).astype(np.int64) * DAY
    if kind == "month end":
        return months.astype(np.int64), within + np.where(days + 1 == (months + 1).astype("datetime64[D]"), 0, DAY)
    weekend = ~np.is_busday(days)
    return np.busday_count("1970-01-01", days), within + weekend * DAY


def _irregular(series: Sequence[NDArray[Any]]) -> str:
    steps = np.concatenate([np.diff(stamps) for stamps in series if len(stamps) > 1])
    sizes, counts = np.unique(steps, return_counts=True)
    usual = sizes[np.argmax(counts)]
    stamps = next((s for s in series if len(s) > 1 and (np.diff(s) != usual).any()), None)
    if stamps is None:
        first = next(s for s in series if len(s))[0]
        other = next(s[0] for s in series if len(s) and (s[0] - first) % usual != usual - usual)
        return (
            f"time must lie on the same steps in all series; each goes in steps of {_span(usual)}, but one from "
            f"{plain(first)} and one from {plain(other)}, between two of its steps. Forecast them apart, or check "
            "which column names the series."
        )
    place = int(np.nonzero(np.diff(stamps) != usual)[0][0])
    return (
        f"time must go in equal steps, with gaps at most; got {_span(usual)} most often, but "
        f"{_span(stamps[place + 1] - stamps[place])} after {plain(stamps[place])}. "
        "Sum or average the values of equal steps first, or number the rows 0, 1, 2."
    )


def _span(step: Any) -> str:
    if not isinstance(step, np.timedelta64):
        return str(int(step))
    return Axis("time", max(1, int(step.astype("timedelta64[us]").astype(np.int64))), 0).step


def plain(stamp: Any) -> str:
    """A stamp without the parts of it that are nought."""
    return str(stamp).removesuffix(".000000").removesuffix("T00:00:00")


def _many(count: int, name: str) -> str:
    return name if count == 1 else f"{count} {name}s"
