"""CSV, TSV and Parquet files, and data frames, as a table that knows its places: file, row, column.

A text file keeps every cell as text, so that whoever needs numbers or times judges each cell and can name it
(columns.py, times.py). Rows are counted as an editor counts lines: the header of a text file is row 1.
"""

from __future__ import annotations

import csv
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import narwhals as nw
import numpy as np
import polars as pl
from numpy.typing import NDArray

from throughtime.data.lines import lines, plain_file

SEPARATORS = (",", ";", "\t", "|")
BATCH = 1_000
"""Rows parsed before they become columns: few enough that the garbage collector does not walk over them."""

SAMPLE = 100
"""Lines from which the separator is found."""

Origin = Literal["text", "parquet", "frame"]
_DATA = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[0-9]{1,4}[-/.][0-9]{1,2}[-/.][0-9]{1,4}.*")


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one length, and where each row stands in what the user gave.

    name     what a sentence calls it: the path in quotes, or "the frame".
    frame    a text file's cells are strings; Parquet and frames keep their types. Missing cells are null.
    rows     the number of each row: the line in a text file (header 1); the first is 1 in Parquet, 0 in a frame.
    notes    what was done to the data, one line each.
    """

    name: str
    frame: pl.DataFrame
    rows: NDArray[np.int64]
    origin: Origin
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return self.frame.height

    @property
    def columns(self) -> list[str]:
        return self.frame.columns

    def column(self, name: str) -> pl.Series:
        """Raises ValueError for a name that is no column."""
        if name not in self.columns:
            raise ValueError(f"{self.name} must have the column {name!r}; got {self.listed()}. Name one of these.")
        return self.frame[name]

    def place(self, index: int, column: str | None = None) -> str:
        """Where the row of this index stands: "'sales.csv', row 17, column 'y'"."""
        said = f"{self.name}, row {self.rows[index]}"
        return said if column is None else f"{said}, column {column!r}"

    def listed(self) -> str:
        """The columns, for a sentence; a long list is cut."""
        shown = ", ".join(repr(name) for name in self.columns[:12])
        return shown + (f", ... ({len(self.columns)} columns)" if len(self.columns) > 12 else "")


def read_table(path: str | os.PathLike[str]) -> Table:
    """A Parquet file (known by its first bytes), or text with a header and cells between , ; tab or |.

    Raises FileNotFoundError for a missing file, and ValueError with file, row and column for a directory, FIFO or
    device, an empty file, a header without rows, a wrong encoding, binary content, ragged rows, a quote that is
    not closed, and columns that have no name or the same name.
    """
    file = plain_file(path)
    with file.open("rb") as raw:
        parquet = raw.read(4) == b"PAR1"
    return _read_parquet(file) if parquet or file.suffix.lower() in (".parquet", ".pq") else _read_text(file)


def frame_table(frame: Any) -> Table:
    """The same for a pandas, polars or pyarrow data frame.

    Raises TypeError for what is none, ValueError for a frame without rows and for names as in read_table.
    """
    try:
        given = nw.from_native(frame, eager_only=True)
        names = [str(name) for name in given.columns]
    except TypeError:
        raise TypeError(
            f"frame must be a pandas, polars or pyarrow data frame; got {type(frame).__name__}. "
            "Collect a lazy frame first."
        ) from None
    except nw.exceptions.DuplicateError:
        raise ValueError("the frame must name each column differently; got one name twice. Rename one.") from None
    columns = [_typed(column).alias(name) for column, name in zip(given.iter_columns(), names, strict=True)]
    _check_names("the frame", names)
    _check_rows("the frame", len(given))
    return Table("the frame", pl.DataFrame(columns), np.arange(len(given)), "frame")


def _read_parquet(file: Path) -> Table:
    name = repr(str(file))
    try:
        frame = pl.read_parquet(file)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{name} must be a Parquet file; it cannot be read ({reason}). Write it again.") from None
    _check_names(name, frame.columns)
    _check_rows(name, frame.height)
    frame = frame.with_columns(pl.col(pl.Categorical, pl.Enum).cast(pl.String))
    return Table(name, frame, np.arange(1, frame.height + 1), "parquet")


def _read_text(file: Path) -> Table:
    name = repr(str(file))
    limit = csv.field_size_limit(sys.maxsize)  # an open quote is found at the end of the file and named by its row
    try:
        sample = list(islice(lines(file), SAMPLE))
        separator = _separator(sample)
        header = next((line for line in sample if line.strip()), "")
        spaced = re.search(rf'{re.escape(separator)} +"', header) is not None  # "Month", "Sales"
        return _parse(name, lines(file), separator, spaced=spaced)
    finally:
        csv.field_size_limit(limit)


def _parse(name: str, text: Iterator[str], separator: str, *, spaced: bool) -> Table:
    """spaced: a space may stand between a separator and a quote."""
    reader = csv.reader(text, delimiter=separator, strict=True, skipinitialspace=spaced)
    header: list[str] = []
    frames: list[pl.DataFrame] = []
    numbers: list[NDArray[np.int64]] = []
    blanks: list[int] = []
    before = 0
    for rows, ends in _batches(name, reader):
        starts = np.array([before, *ends[:-1]]) + 1
        before = ends[-1]
        if not header or set(map(len, rows)) != {len(header)}:
            keep = [index for index, row in enumerate(rows) if not _is_blank(row)]
            blanks += np.delete(starts, keep).tolist()
            rows, starts = [rows[index] for index in keep], starts[keep]
        if rows and not header:
            header = _header(name, rows[0], int(starts[0]))
            rows, starts = rows[1:], starts[1:]
        if rows:
            _refuse_ragged(name, rows, starts, header, separator)
            cells = zip(header, zip(*rows, strict=True), strict=True)
            frames.append(pl.DataFrame([pl.Series(column, values, pl.String) for column, values in cells]))
            numbers.append(starts)
    if not header:
        raise ValueError(f"{name} must have rows; all its lines are blank. Check that it was written.")
    _check_rows(name, sum(frame.height for frame in frames))
    table = Table(name, pl.concat(frames, rechunk=True), np.concatenate(numbers), "text")
    inside = [row for row in blanks if row < table.rows[-1]]
    return _with_blanks(table, inside) if inside else table


def _with_blanks(table: Table, blanks: list[int]) -> Table:
    """Blank lines between rows: a missing value where the line is one cell, skipped and said where it is several."""
    if len(table.columns) > 1:
        said = f"{table.name}: {_count(len(blanks), 'blank line')} skipped (the first is row {blanks[0]})."
        return Table(table.name, table.frame, table.rows, table.origin, (*table.notes, said))
    rows = np.concatenate([table.rows, blanks])
    order = np.argsort(rows, kind="stable")
    empty = pl.DataFrame({table.columns[0]: [""] * len(blanks)})
    return Table(table.name, pl.concat([table.frame, empty])[order], rows[order], table.origin, table.notes)


def _batches(name: str, reader: Any) -> Iterator[tuple[list[list[str]], list[int]]]:
    """Rows of cells, and the line on which each one ends."""
    rows: list[list[str]] = []
    ends: list[int] = []
    last = 0
    try:
        for row in reader:
            rows.append(row)
            ends.append(reader.line_num)
            if len(rows) == BATCH:
                yield rows, ends
                rows, ends, last = [], [], ends[-1]
    except csv.Error as error:
        start = (ends[-1] if ends else last) + 1
        reason = "a quote that is not closed" if "end of data" in str(error) else "text behind a closed quote"
        raise ValueError(
            f"{name}, row {start} must have every quote closed at the end of its cell; got {reason}. "
            'Write a quote inside a quoted cell twice, as "".'
        ) from None
    if rows:
        yield rows, ends


def _separator(sample: list[str]) -> str:
    """The separator that gives the most columns with every row as wide as the header; else the widest header."""
    best, score = ",", (False, 1)
    for separator in SEPARATORS:
        rows = [row for row in csv.reader(sample, delimiter=separator) if not _is_blank(row)]
        rows = rows[:-1] if len(sample) == SAMPLE and len(rows) > 2 else rows  # the last may be cut in two
        if not rows:
            continue
        found = (len(rows[0]) > 1 and len(set(map(len, rows))) == 1, len(rows[0]))
        if found > score:
            best, score = separator, found
    return best


def _header(name: str, cells: list[str], row: int) -> list[str]:
    names = [cell.strip() for cell in cells]
    counted = names == [str(index) for index in range(len(names))]
    if all(_DATA.fullmatch(cell) for cell in names) and not (counted and len(names) > 1):
        shown = ", ".join(names[:4])
        raise ValueError(f"{name}, row {row} must name the columns; got {shown}. Put a line such as ds,y above it.")
    _check_names(f"{name}, row {row}", names)
    return names


def _check_names(place: str, names: list[str]) -> None:
    seen: dict[str, int] = {}
    for position, column in enumerate(names, start=1):
        if not column:
            raise ValueError(
                f"{place} must name every column; column {position} of {len(names)} has no name. "
                "Name it, or leave it out (pandas: to_csv(index=False))."
            )
        if column in seen:
            raise ValueError(
                f"{place} must name each column differently; columns {seen[column]} and {position} are both "
                f"{column!r}. Rename one."
            )
        seen[column] = position


def _check_rows(name: str, rows: int) -> None:
    if not rows:
        raise ValueError(f"{name} must have rows; got only the names of the columns. Check that it was written whole.")


def _refuse_ragged(
    name: str, rows: list[list[str]], starts: NDArray[np.int64], header: list[str], separator: str
) -> None:
    width = len(header)
    if set(map(len, rows)) == {width}:
        return
    index = next(index for index, row in enumerate(rows) if len(row) != width)
    got = len(rows[index])
    advice = "Fill the missing cells or remove the row."
    if got > width:
        advice = 'Put a cell that holds the separator in quotes, as "a,b".'
        if width == 1:
            advice = "Let the first row name every column, without a title above it; write decimals with a point."
        elif separator == ",":
            advice = 'Write decimals with a point, as 1.5, and put a cell that holds a comma in quotes, as "a,b".'
    raise ValueError(
        f"{name}, row {starts[index]} must have {_count(width, 'cell')} as the header has; got {got}. {advice}"
    )


def _is_blank(row: list[str]) -> bool:
    return not row or (len(row) == 1 and row[0].isspace())


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _typed(column: nw.Series[Any]) -> pl.Series:
    """A column of the user's frame; what polars has no type for becomes text. Needs no pyarrow."""
    kind = column.dtype
    if column.implementation.is_polars():
        native = column.to_native()
        return native.cast(pl.String) if kind in (nw.Categorical, nw.Enum) else native
    if kind.is_numeric() or kind == nw.Boolean:
        array = column.to_numpy()
        return pl.Series(array.astype(np.float64)) if array.dtype == object else pl.Series(array)
    if kind == nw.Datetime or kind == nw.Date:
        array = column.to_numpy()
        if array.dtype.kind == "M":
            return pl.Series(array.astype("datetime64[D]" if kind == nw.Date else "datetime64[us]"))
    values = [None if _is_missing(value) else str(value) for value in column.to_list()]
    return pl.Series(values, dtype=pl.String)


def _is_missing(value: Any) -> bool:
    """None, NaN, and pandas' NaT and NA, without pandas."""
    kind = type(value).__name__
    return value is None or kind in ("NaTType", "NAType") or (isinstance(value, float) and value != value)
