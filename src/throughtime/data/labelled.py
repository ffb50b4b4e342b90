"""Sequences of numbers, each with a label, from a long table: one row a moment, an id that says which sequence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from throughtime.data.columns import looks_numeric, numbers, words
from throughtime.data.long import ID, ID_NAMES, TIME, TIME_NAMES, ids_of, known_as
from throughtime.data.tables import Table, frame_table
from throughtime.data.times import find_disorder, looks_like_time, refuse_duplicates, times

Numbers = NDArray[np.float64]
Missing = Literal["refuse", "fill", "keep"]
FILL_ADVICE = "Fill it in, or use --missing fill: the last value seen in its sequence."
FILLED = "each is the last value seen in its sequence, or the first one where none was seen."
LABEL_NAMES = ("label", "class", "target")


@dataclass(frozen=True, eq=False)
class Labelled:
    """N sequences.

    sequences  (T_i, I) float64 each; T_i may be 0.
    labels     N words or N numbers (targets of a regression); None: there are none.
    ids        N names.
    features   I names.
    notes      what was done to the data, one line each.
    """

    sequences: tuple[Numbers, ...]
    labels: tuple[str, ...] | tuple[float, ...] | None
    ids: tuple[str, ...]
    features: tuple[str, ...]
    notes: tuple[str, ...] = ()


def from_long(
    table: Table | Any,
    *,
    id: str | None = None,
    time: str | None = None,
    label: str | None = None,
    features: Sequence[str] | None = None,
    regression: bool = False,
    missing: Missing = "refuse",
) -> Labelled:
    """The sequences of a table or data frame, in the order in which their ids first appear.

    id          None: unique_id, id, series, case and the like.
    time        None: ds, the one column of dates, or time, t, step and the like; where there is none, rows
                stand in order of time.
    label       None: label, class or target; where there is none, the sequences have no labels.
    features    None: all other columns.
    regression  labels are numbers.
    missing     a missing feature is refused; "fill": the last value seen in its sequence (before the first one,
                the first); "keep": NaN.

    Rows of several ids may be interleaved. Rows that are not in order of time are sorted, and a note says so.
    Raises ValueError with row and column for a time twice in a sequence, a label that changes within one or is
    missing, and cells that are no numbers.
    """
    table = table if isinstance(table, Table) else frame_table(table)
    id, time, label = _places(table, id, time, label)
    used = _features(table, [id, time, label], features)
    notes = list(table.notes)
    unused = [name for name in table.columns if name not in (id, time, label, *used)]
    if unused:
        notes.append(f"{table.name}: not used: {', '.join(map(repr, unused))}.")
    ids = ids_of(table, id)
    names = ids.unique(maintain_order=True)
    codes = ids.replace_strict(names, np.arange(len(names)), return_dtype=pl.Int64).to_numpy()
    order = np.argsort(codes, kind="stable")
    if time is None:
        notes.append(f"{table.name}: no column is a time; the rows of a sequence are in order of time.")
    else:
        found = times(table, time)
        refuse_duplicates(table, time, found, codes)
        index = find_disorder(found.values, codes)
        if index is not None:
            notes.append(f"{table.name}: row {table.rows[index]} goes back in time; rows are sorted by {time!r}.")
            order = np.lexsort((found.values, codes))
    starts = np.searchsorted(codes[order], np.arange(len(names)))
    labels = None if label is None else _labels(table, label, codes, order[starts], regression)
    values = np.stack([numbers(table, name) for name in used], axis=1)
    if missing == "refuse":
        _refuse_missing(table, values, used)
    values = values[order]
    if missing == "fill":
        values, said = _filled(table, values, order, starts, used)
        notes += said
    parts = np.split(values, starts[1:])
    return Labelled(tuple(parts), labels, tuple(names.to_list()), tuple(used), tuple(notes))


def fill(values: Numbers, starts: NDArray[np.int64]) -> Numbers:
    """NaN replaced by the last value of its column seen since the start of its sequence, else by the next one.

    values  (R, I), the rows of all sequences; starts: the first row of each, none of them empty. NaN is left in
            a column of which a sequence has no value.
    """
    rows = np.arange(len(values))
    first = np.repeat(starts, np.diff([*starts, len(values)]))
    last = np.repeat([*(starts[1:] - 1), len(values) - 1], np.diff([*starts, len(values)]))
    filled = values.copy()
    for column in filled.T:
        known = ~np.isnan(column)
        before = np.maximum.accumulate(np.where(known, rows, -1))
        after = np.minimum.accumulate(np.where(known, rows, len(rows))[::-1])[::-1]
        source = np.where(before >= first, before, np.where(after <= last, after, rows))
        column[:] = column[source]
    return filled


def _places(table: Table, id: str | None, time: str | None, label: str | None) -> tuple[str, str | None, str | None]:
    """The columns of id, time and label: those that are named, else those known by name or type."""
    given = [name for name in (id, time, label) if name is not None]
    for name in given:
        table.column(name)
    if len(set(given)) < len(given):
        raise ValueError(f"--id, --time and --label must be different columns; got {', '.join(map(repr, given))}.")
    free = [name for name in table.columns if name not in given]
    if id is None:
        id = _one(table, [ID] if ID in free else known_as(free, ID_NAMES), "--id")
        if id is None:
            raise ValueError(
                f"{table.name} must have a column of ids, which says to what sequence a row belongs; "
                f"got {table.listed()}. Name it with --id."
            )
    free = [name for name in free if name != id]
    if label is None:
        label = _one(table, known_as(free, LABEL_NAMES), "--label")
    free = [name for name in free if name != label]
    if time is None:
        dated = [name for name in free if looks_like_time(table.frame[name])]
        time = _one(table, [TIME] if TIME in free else dated or known_as(free, TIME_NAMES), "--time")
    return id, time, label


def _one(table: Table, fits: list[str], flag: str) -> str | None:
    if len(fits) > 1:
        listed = ", ".join(map(repr, fits))
        raise ValueError(f"{table.name} must have one column for {flag}; {listed} can all be it. Name one with {flag}.")
    return fits[0] if fits else None


def _features(table: Table, taken: list[str | None], features: Sequence[str] | None) -> list[str]:
    if features is not None:
        wrong = next((name for name in features if name in taken), None)
        if wrong is not None:
            raise ValueError(f"features must not be the id, time or label; got {wrong!r}. Leave it out.")
        return [table.column(name).name for name in features]
    used = [name for name in table.columns if name not in taken]
    for name in used:
        if not looks_numeric(table.frame[name]):
            raise ValueError(
                f"{table.name}, column {name!r} must hold numbers, as a feature does; got {table.frame[name][0]!r} "
                f"in row {table.rows[0]}. Name it with --id, --time or --label, or choose the features."
            )
    if not used:
        raise ValueError(f"{table.name} must have a column of features; got only {table.listed()}. Add one.")
    return used


def _labels(
    table: Table, label: str, codes: NDArray[np.int64], firsts: NDArray[np.int64], regression: bool
) -> tuple[str, ...] | tuple[float, ...]:
    """The label of each sequence, from its first row; every other row must have the same."""
    cells = pl.Series(numbers(table, label)).fill_nan(None) if regression else words(table, label)
    absent = cells.is_null().arg_max()
    if cells.has_nulls() and absent is not None:
        raise ValueError(f"{table.place(absent, label)} must be a label; got an empty cell. Fill it.")
    same = cells[firsts][codes] == cells
    if not same.all():
        index = (~same).arg_max()
        assert index is not None
        first = firsts[codes[index]]
        raise ValueError(
            f"{table.place(index, label)} must be {cells[int(first)]!r}, the label of its sequence in row "
            f"{table.rows[first]}; got {cells[index]!r}. Give a sequence one label, or its parts ids of their own."
        )
    return tuple(cells[firsts].to_list())


def _refuse_missing(table: Table, values: Numbers, used: list[str]) -> None:
    holes = np.isnan(values)
    if holes.any():
        row, column = np.argwhere(holes)[0]
        raise ValueError(f"{table.place(row, used[column])} must be a number; got a missing value. {FILL_ADVICE}")


def _filled(
    table: Table, values: Numbers, order: NDArray[np.int64], starts: NDArray[np.int64], used: list[str]
) -> tuple[Numbers, list[str]]:
    """The values, ordered by sequence, without holes, and what is said of it."""
    filled = fill(values, starts)
    left = np.argwhere(np.isnan(filled))
    if len(left):
        row, column = left[0]
        raise ValueError(
            f"{table.place(int(order[row]), used[column])} must have a value somewhere in its sequence; got none. "
            "Leave the sequence or the feature out."
        )
    counts = np.isnan(values).sum(axis=0).tolist()
    return filled, [
        f"{table.name}, column {name!r}: {count} of {len(values)} values are missing; {FILLED}"
        for name, count in zip(used, counts, strict=True)
        if count
    ]
