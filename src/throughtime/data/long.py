"""A long table, one row a moment: which column names the series, which the time and which the value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from throughtime.data.columns import looks_numeric, missing_note, numbers, words
from throughtime.data.tables import Table
from throughtime.data.times import Kind, find_disorder, looks_like_time, refuse_disorder, refuse_duplicates, times

ID, TIME, VALUE = "unique_id", "ds", "y"
"""The names of Nixtla's frames; where a table has one, it is taken."""

ID_NAMES = ("id", "series", "series_id", "item_id", "case", "case_id", "sequence", "sequence_id")
TIME_NAMES = ("time", "date", "datetime", "timestamp", "year", "month", "quarter", "week", "day", "hour", "t", "step")
"""Names of whole or lower-case words by which a column of numbers is known as an id or as a time."""


@dataclass(frozen=True)
class Columns:
    """Names of columns; `unused` are the others, for the caller to say."""

    id: str | None
    time: str | None
    value: str
    unused: tuple[str, ...] = ()


def find_columns(
    table: Table,
    *,
    id: str | None = None,
    time: str | None = None,
    value: str | None = None,
    known: Sequence[str] = (),
) -> Columns:
    """The columns of a series table: those that are named, else Nixtla's, else the only one that can be meant.

    A time is a column of dates, or numbers under a name such as `year`; a value is the one other column of
    numbers; an id is the one other column of words that repeat, or `id` and the like. Where every row has a time of its
    own, words such as weekdays are no ids, and an `id` that never repeats numbers the rows. A table of one column has
    no time: its rows are the steps. `known` are covariates, none of these. Raises ValueError that names the columns and
    the flag where none or several fit.
    """
    given = {"id": id, "time": time, "value": value}
    for name in (*given.values(), *known):
        if name is not None:
            table.column(name)
    named = [name for name in given.values() if name is not None]
    if len(set(named)) < len(named):
        raise ValueError(f"--id, --time and --value must be different columns; got {', '.join(map(repr, named))}.")
    free = [name for name in table.columns if name not in named and name not in known]
    time = time or _time(table, free)
    free = [name for name in free if name != time]
    apart = time is not None and table.frame[time].n_unique() == len(table)
    id = id or _id(table, free, apart)
    free = [name for name in free if name != id]
    value = value or _value(table, free)
    return Columns(id, time, value, tuple(name for name in free if name != value))


@dataclass(frozen=True, eq=False)
class Long:
    """A frame with unique_id (text), ds and y (float64, NaN missing), and what there is to say of it.

    kind   of the times; months and quarters are dates, their first days. None: there was no time, ds counts.
    notes  what was done to the data, one line each.
    """

    frame: pl.DataFrame
    kind: Kind | None
    notes: tuple[str, ...]


def long_frame(table: Table, columns: Columns, *, known: Sequence[str] = (), sort: bool = False) -> Long:
    """The table as a frame with Nixtla's names and types, followed by the columns `known`, as numbers.

    Without an id there is one series, named after the value. Without a time ds counts from 0. Raises ValueError
    for what words, times and numbers refuse, for a missing id, for a time twice in a series, and, unless `sort`,
    for a series that goes back in time.
    """
    features = {name: numbers(table, name) for name in (columns.value, *known)}
    notes = [*table.notes, *(line for name, values in features.items() for line in missing_note(table, name, values))]
    ids = ids_of(table, columns.id) if columns.id else pl.Series([columns.value] * len(table))
    found, order = None, None
    if columns.time is None:
        ds = pl.DataFrame(ids.alias(ID)).select(pl.int_range(pl.len()).over(ID)).to_series()
        notes.append(f"{table.name}: no column is a time; the steps are the rows, counted from 0.")
    else:
        codes = ids.rank("dense").to_numpy() if columns.id else None
        found = times(table, columns.time)
        refuse_duplicates(table, columns.time, found, codes)
        if not sort:
            refuse_disorder(table, columns.time, found, codes)
        index = find_disorder(found.values, codes)
        if index is not None:
            notes.append(
                f"{table.name}: row {table.rows[index]} goes back in time; rows are sorted by {columns.time!r}."
            )
            order = np.lexsort((found.values,) if codes is None else (found.values, codes))
        ds = pl.Series(found.values.astype("datetime64[D]") if found.kind in ("month", "quarter") else found.values)
    frame = pl.DataFrame(
        {ID: ids, TIME: ds, VALUE: features[columns.value], **{name: features[name] for name in known}}
    )
    return Long(frame if order is None else frame[order], found.kind if found else None, tuple(notes))


def ids_of(table: Table, column: str) -> pl.Series:
    """The id of every row as text. Raises ValueError where it is missing."""
    ids = words(table, column)
    index = ids.is_null().arg_max()
    if ids.has_nulls() and index is not None:
        raise ValueError(f"{table.place(index, column)} must name a series; got an empty cell. Fill it.")
    return ids


def known_as(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of the names that are wanted, in any case of letters."""
    return [name for name in names if name.lower() in wanted]


def _time(table: Table, free: list[str]) -> str | None:
    if TIME in free:
        return TIME
    dated = [name for name in free if looks_like_time(table.frame[name])]
    if any(looks_like_time(pl.Series([name])) for name in dated):
        raise ValueError(
            f"{table.name} must name its columns in the first row; got {table.listed()}. "
            "Put a line such as ds,y above it."
        )
    if len(dated) == 1:
        return dated[0]
    if not dated and len(table.columns) == 1:
        return None
    known = known_as(free, TIME_NAMES)
    named = dated or [name for name in known if looks_numeric(table.frame[name])] or known  # its odd cell is then named
    if len(named) == 1:
        return named[0]
    what = f"{', '.join(map(repr, named))} can all be it" if named else f"none of {table.listed()} is one"
    raise ValueError(f"{table.name} must have one column of times; {what}. Name it with --time.")


def _id(table: Table, free: list[str], apart: bool) -> str | None:
    """apart: whether every row has a time of its own, so that all can be one series."""
    if ID in free:
        return ID
    named = [name for name in known_as(free, ID_NAMES) if not (apart and table.frame[name].n_unique() == len(table))]
    if len(named) == 1:
        return named[0]
    if apart and not named:
        return None
    worded = named or [
        name
        for name in free
        if name != VALUE and not looks_numeric(table.frame[name]) and words(table, name).n_unique() < len(table)
    ]
    if len(worded) > 1:
        listed = ", ".join(map(repr, worded))
        raise ValueError(
            f"{table.name} must have at most one column of ids; {listed} can all be it. Name it with --id."
        )
    return worded[0] if worded else None


def _value(table: Table, free: list[str]) -> str:
    if VALUE in free:
        return VALUE
    fits = [name for name in free if looks_numeric(table.frame[name])]
    fits = [name for name in fits if name.lower() not in ID_NAMES] or fits
    if len(fits) == 1:
        return fits[0]
    what = f"{', '.join(map(repr, fits))} can all be it" if fits else f"none of {table.listed()} is left for it"
    raise ValueError(f"{table.name} must have one column of values; {what}. Name it with --value.")
