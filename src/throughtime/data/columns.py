"""A column of a table as numbers or as words: strictly, and a cell that does not fit is named, never guessed."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
from numpy.typing import NDArray

from throughtime.data.tables import Table

MISSING = ("", "na", "n/a", "nan", "null", "none", "?")
"""What stands for a missing number, in any case of letters."""

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
WHOLE = 2.0**53
"""Below this every whole number is a float64."""

SIGNS = r"%|‰|[A-Z]{0,3}\$|€|£|¥|₹"
LIKE_NUMBER = (
    rf"^(?:{SIGNS})?[+-]?[0-9.,'  \x{{00a0}}\x{{202f}}]*[0-9][0-9.,'eE+-]*[ \x{{00a0}}\x{{202f}}]?(?:{SIGNS})?$"
    "|^[+-]?(?i:inf|infinity)$"
)
"""Numbers, and what was meant as one: a column of such cells is a column of numbers with faults."""

_INFINITE = re.compile(r"[+-]?(inf|infinity|∞)", re.IGNORECASE)
_TWO_WAYS = re.compile(r"[+-]?[1-9][0-9]{0,2},[0-9]{3}")
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]*,[0-9]+")
_COMMA_GROUPS = re.compile(r"[+-]?[0-9]{1,3}(,[0-9]{3})+(\.[0-9]*)?")
_POINT_GROUP = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
_NO_GROUP = r"^[+-]?[0-9]{1,3}$"
_OTHER_GROUPS = re.compile(r"[+-]?[0-9]{1,3}([.' \u00a0\u202f][0-9]{3})+(,[0-9]*)?")


def numbers(table: Table, column: str) -> NDArray[np.float64]:
    """The column as float64; missing cells (MISSING, null) are NaN, and missing_note says how many.

    Raises ValueError with file, row and column for what is no number, an infinity, a decimal comma and
    thousands separators (a point too, where it can be one), and for a column whose type holds no numbers.
    """
    series = table.column(column)
    if series.dtype == pl.String:
        values = _from_text(table, column, series)
    elif series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null):
        values = series.cast(pl.Float64).to_numpy()
    else:
        raise ValueError(
            f"{table.name}, column {column!r} must hold numbers; its type is {series.dtype}. Name another column."
        )
    infinite = np.flatnonzero(np.isinf(values))
    if len(infinite):
        index = int(infinite[0])
        raise ValueError(
            f"{table.place(index, column)} must be a finite number; got {_shown(series[index])}. "
            "Write NA where the value is missing."
        )
    return values.astype(np.float64)


def missing_note(table: Table, column: str, values: NDArray[np.float64]) -> tuple[str, ...]:
    """One line that counts the NaN of numbers(table, column), or none."""
    places = np.flatnonzero(np.isnan(values))
    if not len(places):
        return ()
    verb = "is" if len(places) == 1 else "are"
    where = f"the first in row {table.rows[places[0]]}"
    return (f"{table.name}, column {column!r}: {len(places)} of {len(values)} values {verb} missing ({where}).",)


def words(table: Table, column: str) -> pl.Series:
    """The column as strings without white space around them; empty cells are null. Whole floats lose their ".0".

    "NA" and the like are words here: they may be names.
    """
    series = table.column(column)
    if series.dtype.is_float():
        series = series.fill_nan(None)
        if ((series == series.round()) & (series.abs() < WHOLE)).all():
            series = series.cast(pl.Int64)
    if series.dtype.is_nested() or series.dtype in (pl.Binary, pl.Object):
        raise ValueError(
            f"{table.name}, column {column!r} must hold words or numbers; its type is {series.dtype}. "
            "Name another column."
        )
    text = series.cast(pl.String).str.strip_chars()
    return text.set(text == "", None)


def is_missing(series: pl.Series) -> pl.Series:
    """Where a column of text has a missing number."""
    return series.is_null() | series.str.strip_chars().str.to_lowercase().is_in(MISSING)


def looks_numeric(series: pl.Series) -> bool:
    """Whether most of the cells that are there are numbers, or were meant as such."""
    if series.dtype != pl.String:
        return series.dtype.is_numeric() or series.dtype in (pl.Boolean, pl.Null)
    known = series.filter(~is_missing(series)).str.strip_chars()
    return not len(known) or 2 * int(known.str.contains(LIKE_NUMBER).sum()) > len(known)


def _from_text(table: Table, column: str, series: pl.Series) -> NDArray[np.float64]:
    cells = series.str.strip_chars()
    sound = cells.str.contains(NUMBER).fill_null(False)
    values = cells.set(~sound, None).cast(pl.Float64)
    faults = values.is_infinite().fill_null(False)  # 1e999
    if not sound.all():
        faults |= ~(sound | is_missing(series))
    if faults.any():
        index = faults.arg_max()
        assert index is not None
        raise ValueError(_complaint(table.place(index, column), cells[index]))
    _refuse_point_groups(table, column, cells)
    return values.to_numpy()


def _refuse_point_groups(table: Table, column: str, cells: pl.Series) -> None:
    """1.234 beside 950 reads in two ways: decimals that end at the third place all but never leave a whole number."""
    grouped = cells.str.contains(_POINT_GROUP).fill_null(False)
    plain = cells.str.contains(_NO_GROUP).fill_null(False) if grouped.any() else grouped
    row, other = grouped.arg_max(), plain.arg_max()
    if row is None or other is None or not plain.any() or not (grouped | plain | is_missing(cells)).all():
        return
    cell, whole, where = cells[row], cells[other], f"row {table.rows[other]}"
    raise ValueError(
        f"{table.place(row, column)} can be read in two ways: {_shown(cell)}, beside {_shown(whole)} in {where}. Write "
        f"{cell.replace('.', '')} if the point separates thousands, {whole}.0 in {where} if it is a decimal point."
    )


def _complaint(place: str, cell: str) -> str:
    """What is wrong with a cell that is no number, and what to write."""
    if _INFINITE.fullmatch(cell) or re.fullmatch(NUMBER, cell):
        return f"{place} must be a finite number; got {_shown(cell)}. Write NA where the value is missing."
    if _TWO_WAYS.fullmatch(cell):
        whole, decimal = cell.replace(",", ""), cell.replace(",", ".")
        advice = f"Write {whole} if the comma separates thousands, {decimal} if it is a decimal comma."
    elif _DECIMAL_COMMA.fullmatch(cell):
        advice = f"Write {cell.replace(',', '.')}: decimals have a point."
    elif _COMMA_GROUPS.fullmatch(cell):
        advice = f"Write {cell.replace(',', '')}: thousands are not separated."
    elif _OTHER_GROUPS.fullmatch(cell):
        plain = re.sub(r"[.' \u00a0\u202f]", "", cell).replace(",", ".")
        advice = f"Write {plain}: thousands are not separated, decimals have a point."
    elif sign := re.search(SIGNS, cell):
        advice = f"Write the number alone, such as 12.5, without {sign.group()}."
    else:
        advice = "Write a number such as 12.5, or NA where it is missing."
    return f"{place} must be a number; got {_shown(cell)}. {advice}"


def _shown(cell: object) -> str:
    """A cell in quotes, cut where it is long."""
    said = repr(cell)
    return said if len(said) <= 60 else said[:56] + "..." + said[0]
