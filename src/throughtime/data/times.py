"""A column of a table as times: dates, dates with a time of day, months, quarters or numbers, one kind a column.

A day and a month are never guessed: 01/02/2020 is read only where another cell of the column decides which is which.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from throughtime.data.columns import NUMBER
from throughtime.data.tables import Table

Kind = Literal["number", "date", "datetime", "month", "quarter"]

BLOCK = 100_000
"""Rows whose dates are parsed at a time."""

_OFFSET = "(Z|z|[+-][0-9]{2}:?[0-9]{2}|[+-][0-9]{2})"
_CLOCK = r"(?:[T ]+([0-9]{1,2}):([0-9]{2})(?::([0-9]{2})(\.[0-9]+)?)?) ?" + _OFFSET + "?"
_DATE = r"([0-9]{4})[-/.]([0-9]{1,2})[-/.]([0-9]{1,2})"
_SWAPPED = r"([0-9]{1,2})[-/.]([0-9]{1,2})[-/.]([0-9]{4})"
_PATTERNS = {
    "number": NUMBER,
    "date": f"^{_DATE}$",
    "datetime": f"^{_DATE}{_CLOCK}$",
    "month": r"^([0-9]{4})[-/Mm]([0-9]{1,2})$",
    "quarter": r"^([0-9]{4})[- ]?[Qq]([1-4])$",
    "date with the year last": f"^{_SWAPPED}$",
    "datetime with the year last": f"^{_SWAPPED}{_CLOCK}$",
}
_COMPACT = r"^(1[5-9]|20|21)[0-9]{2}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])$"
_ADVICE = "Write times as 2020-01-31, 2020-01-31 12:00, 2020-01, 2020Q1 or a number."


@dataclass(frozen=True, eq=False)
class Times:
    """Times of one kind, as they stand in the table.

    values  number: int64 or float64; date: datetime64[D]; datetime: datetime64[us], in UTC where an offset was
            written; month and quarter: datetime64[M], the first month of a quarter.
    """

    values: NDArray[Any]
    kind: Kind


def spell(values: NDArray[Any], kind: Kind) -> list[str]:
    """Times of a kind as they are written in a file."""
    if kind == "number":
        return [str(value) for value in values.tolist()]
    if kind == "quarter":
        months = values.astype("datetime64[M]").astype(np.int64)
        return [f"{1970 + month // 12:04d}Q{month % 12 // 3 + 1}" for month in months.tolist()]
    unit: Any = {"month": "M", "date": "D", "datetime": "us"}[kind]
    values = values.astype(f"datetime64[{unit}]")
    if kind == "datetime" and (values == values.astype("datetime64[s]")).all():
        unit = "s"
    return [str(value).replace("T", " ") for value in np.datetime_as_string(values, unit=unit)]


def times(table: Table, column: str) -> Times:
    """The column as times.

    Raises ValueError with file, row and column for a missing time, what is none, a date that does not exist,
    one whose day and month can be mistaken, and a column of mixed kinds.
    """
    series = table.column(column)
    if series.dtype.is_integer():
        text = series.cast(pl.String)
        return _of_text(table, column, text) if _compact(text) else _checked(table, column, series, "number")
    if series.dtype.is_numeric():
        return _checked(table, column, series.cast(pl.Float64), "number")
    if series.dtype == pl.Date:
        return _checked(table, column, series, "date")
    if isinstance(series.dtype, pl.Datetime):
        if series.dtype.time_zone is not None:
            series = series.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return _checked(table, column, series.dt.cast_time_unit("us"), "datetime")
    if series.dtype != pl.String:
        raise ValueError(f"{table.name}, column {column!r} must hold times; its type is {series.dtype}. {_ADVICE}")
    return _of_text(table, column, series.str.strip_chars())


def looks_like_time(series: pl.Series) -> bool:
    """Whether most of the cells that are there are dates, months or quarters: plain numbers do not count."""
    if series.dtype != pl.String:
        return series.dtype == pl.Date or isinstance(series.dtype, pl.Datetime)
    known = series.str.strip_chars().drop_nulls()
    known = known.filter(known != "")
    dated = "|".join(pattern for kind, pattern in _PATTERNS.items() if kind != "number")
    return len(known) > 0 and (2 * int(known.str.contains(dated).sum()) > len(known) or _compact(known))


def find_disorder(values: NDArray[Any], ids: NDArray[Any] | None = None) -> int | None:
    """The first row whose time is before the one above it (of the same id), or None."""
    order = _by_id(len(values), ids)
    later, earlier = order[1:], order[:-1]
    faults = later[(values[later] < values[earlier]) & _same(ids, later, earlier)]
    return int(faults.min()) if len(faults) else None


def find_duplicate(values: NDArray[Any], ids: NDArray[Any] | None = None) -> tuple[int, int] | None:
    """Two rows with the same time (and id): the first row that repeats one, behind the one that it repeats, or None."""
    order = np.lexsort((np.arange(len(values)), values, *(() if ids is None else (ids,))))
    later, earlier = order[1:], order[:-1]
    found = np.flatnonzero((values[later] == values[earlier]) & _same(ids, later, earlier))
    if not len(found):
        return None
    place = found[np.argmin(later[found])]
    return int(earlier[place]), int(later[place])


def refuse_duplicates(table: Table, column: str, found: Times, ids: NDArray[Any] | None = None) -> None:
    """Raises ValueError that names both rows. `ids` has one entry a row."""
    pair = find_duplicate(found.values, ids)
    if pair is not None:
        first, second = pair
        where = "" if ids is None else " within its series"
        raise ValueError(
            f"{table.place(second, column)} must be a time of its own{where}; got "
            f"{spell(found.values[[second]], found.kind)[0]!r} as in row {table.rows[first]}. "
            + ("Remove one, or name the column of the series with --id." if ids is None else "Remove one.")
        )


def refuse_disorder(table: Table, column: str, found: Times, ids: NDArray[Any] | None = None) -> None:
    """Raises ValueError that names the first row that goes back in time."""
    index = find_disorder(found.values, ids)
    if index is not None:
        where = "" if ids is None else " of its series"
        said = spell(found.values[[index]], found.kind)[0]
        raise ValueError(
            f"{table.place(index, column)} must not be before the row above it{where}; got {said!r}. Sort the rows."
        )


def _by_id(length: int, ids: NDArray[Any] | None) -> NDArray[np.int64]:
    return np.arange(length) if ids is None else np.argsort(ids, kind="stable")


def _same(ids: NDArray[Any] | None, later: NDArray[np.int64], earlier: NDArray[np.int64]) -> NDArray[np.bool_]:
    return np.ones(len(later), bool) if ids is None else ids[later] == ids[earlier]


def _compact(text: pl.Series) -> bool:
    """Whether every cell is a date as 20200131."""
    return (
        bool(text.str.contains(_COMPACT).fill_null(False).all())
        and not text.str.to_date("%Y%m%d", strict=False).has_nulls()
    )


def _checked(table: Table, column: str, series: pl.Series, kind: Kind) -> Times:
    """Typed values, none of them missing or infinite."""
    sound = series.is_not_null()
    if series.dtype.is_float():
        sound &= series.is_finite().fill_null(False)
    if not sound.all():
        index = _first(~sound)
        raise ValueError(f"{table.place(index, column)} must be a time; got {series[index]!r}. {_ADVICE}")
    values = series.to_numpy()
    return Times(values, kind)


def _of_text(table: Table, column: str, text: pl.Series) -> Times:
    if _compact(text):
        return Times(text.str.to_date("%Y%m%d").to_numpy(), "date")
    kind = _kind_of(text[0])
    if kind is None:
        raise ValueError(_complaint(table.place(0, column), text[0]))
    fits = text.str.contains(_PATTERNS[kind]).fill_null(False)
    if not fits.all():
        index = _first(~fits)
        other = _kind_of(text[index])
        if other is None:
            raise ValueError(_complaint(table.place(index, column), text[index]))
        raise ValueError(
            f"{table.place(index, column)} must be a {kind} as in row {table.rows[0]} ({text[0]!r}); "
            f"got {text[index]!r}, a {other}. Write all times of a column in one way."
        )
    if kind == "number":
        return _numbers(table, column, text)
    if kind in ("month", "quarter"):
        return _months(table, column, text, kind)
    return _days(table, column, text, kind)


def _kind_of(cell: str | None) -> str | None:
    return next((kind for kind, pattern in _PATTERNS.items() if re.fullmatch(pattern, cell or "")), None)


def _complaint(place: str, cell: str | None) -> str:
    return f"{place} must be a time; got {'an empty cell' if not cell else repr(cell[:40])}. {_ADVICE}"


def _numbers(table: Table, column: str, text: pl.Series) -> Times:
    whole = text.cast(pl.Int64, strict=False)
    return _checked(table, column, text.cast(pl.Float64) if whole.has_nulls() else whole, "number")


def _months(table: Table, column: str, text: pl.Series, kind: str) -> Times:
    parts = text.str.extract_groups(_PATTERNS[kind]).struct
    year, part = parts.field("1").cast(pl.Int64).to_numpy(), parts.field("2").cast(pl.Int64).to_numpy()
    if kind == "month":
        _refuse_where(table, column, text, pl.Series((part < 1) | (part > 12)), "a month that exists")
    month = part - 1 if kind == "month" else 3 * (part - 1)
    return Times((12 * (year - 1970) + month).astype("datetime64[M]"), "month" if kind == "month" else "quarter")


def _days(table: Table, column: str, text: pl.Series, kind: str) -> Times:
    """Dates, with or without a time of day, BLOCK rows at a time: the parts of all rows at once are large."""
    timed = kind.startswith("datetime")
    if timed:
        _refuse_some_offsets(table, column, text)
    order = _parts_of_year_last(table, column, text, kind) if kind.endswith("last") else (0, 1, 2)
    values = []
    for start in range(0, len(text), BLOCK):
        block = replace(table, rows=table.rows[start : start + BLOCK])
        cells = text[start : start + BLOCK]
        parts = cells.str.extract_groups(_PATTERNS[kind]).struct.unnest().get_columns()
        year, month, day = (parts[place] for place in order)
        dates = (year + "-" + month.str.zfill(2) + "-" + day.str.zfill(2)).str.to_date("%Y-%m-%d", strict=False)
        _refuse_where(block, column, cells, dates.is_null(), "a date that exists")
        days = dates.to_numpy().astype("datetime64[us]" if timed else "datetime64[D]")
        values.append(days + _clock(block, column, cells, parts[3:]) if timed else days)
    return Times(np.concatenate(values), "datetime" if timed else "date")


def _parts_of_year_last(table: Table, column: str, text: pl.Series, kind: str) -> tuple[int, int, int]:
    """Where year, month and day stand in 31/01/2020: some day above 12 shows which part is the month."""
    first, second = (text.str.extract(_PATTERNS[kind], place).cast(pl.Int64) for place in (1, 2))
    if (first > 12).any():
        return 2, 1, 0
    if (second > 12).any():
        return 2, 0, 1
    raise ValueError(
        f"{table.place(0, column)} must say which part is the month; got {text[0]!r}, which can be read in two "
        "ways. Write dates as 2020-01-31."
    )


def _refuse_some_offsets(table: Table, column: str, text: pl.Series) -> None:
    offset = text.str.contains(_OFFSET + "$")
    odd = ~offset if offset[0] else offset
    _refuse_where(table, column, text, odd, "a time with an offset from UTC, as all are or none")


def _clock(table: Table, column: str, text: pl.Series, parts: list[pl.Series]) -> NDArray[np.timedelta64]:
    """The time of day in microseconds, less the offset from UTC; parts: hour, minute, second, fraction, offset."""
    hour, minute, second = (part.cast(pl.Int64).fill_null(0) for part in parts[:3])
    wrong = (hour > 23) | (minute > 59) | (second > 59)
    _refuse_where(table, column, text, wrong, "a time of day that exists")
    fraction = (parts[3].cast(pl.Float64).fill_null(0.0) * 1e6).round().cast(pl.Int64)
    micro = (((hour * 60 + minute) * 60 + second) * 1_000_000 + fraction).to_numpy()
    zone = parts[4]
    sign = 1 - 2 * zone.str.starts_with("-").fill_null(False).cast(pl.Int64)
    digits = zone.str.replace_all("[^0-9]", "").str.pad_end(4, "0").fill_null("0000")
    shift = sign * (digits.str.head(2).cast(pl.Int64) * 60 + digits.str.tail(2).cast(pl.Int64))
    return (micro - shift.to_numpy() * 60_000_000).astype("timedelta64[us]")


def _refuse_where(table: Table, column: str, text: pl.Series, wrong: pl.Series, what: str) -> None:
    if wrong.any():
        index = _first(wrong)
        raise ValueError(f"{table.place(index, column)} must be {what}; got {text[index]!r}. {_ADVICE}")


def _first(where: pl.Series) -> int:
    index = where.arg_max()
    assert index is not None
    return int(index)
