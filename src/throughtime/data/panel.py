"""Many series on one time axis: in from a long frame (id, time, value) or plain numbers, out as the same kind.

Every series gets a value for each place of the axis between its first and its last stamp; where a row or a value is
missing it is NaN, and what was sorted or is missing is said in `notes`, one line each.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import narwhals as nw
import numpy as np
from numpy.typing import NDArray

from throughtime.data.axis import Axis, find_axis, plain

Numbers = NDArray[np.float64]

SAMPLE = "one"
"""The id of a series that has none."""
CUTOFF = "cutoff"
"""A column of places, written as stamps."""


@dataclass(frozen=True)
class Columns:
    """The names of a long frame's columns; known are those of the covariates."""

    id: str = "unique_id"
    time: str = "ds"
    value: str = "y"
    known: tuple[str, ...] = ()


@dataclass(frozen=True)
class Line:
    """One series: its id, its first place on the axis, values (T,) and covariates (T, C), NaN where missing."""

    id: Any
    start: int
    values: Numbers
    covariates: Numbers

    @property
    def stop(self) -> int:
        """The place after its last one."""
        return self.start + len(self.values)


@dataclass(frozen=True)
class Form:
    """The kind of what was given, so that a forecast comes back as the same.

    kind: frame, values (one row of numbers) or series (numbers by id). several: there is a column of ids.
    backend, time and ids are the library of a frame and the types of its columns; unit that of stamps in text.
    """

    kind: Literal["frame", "values", "series"]
    several: bool
    backend: Any = None
    time: Any = None
    ids: Any = None
    unit: str | None = None


@dataclass(frozen=True)
class Panel:
    """The series in order of their ids as they first come, their axis, and what was done to the data."""

    lines: tuple[Line, ...]
    axis: Axis
    form: Form
    columns: Columns
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        return sum(len(line.values) for line in self.lines)


def read_panel(data: Any, columns: Columns | None = None, *, axis: Axis | None = None, values: bool = True) -> Panel:
    """A panel from a pandas, polars or pyarrow frame, numbers (T,), or a mapping from ids to numbers (T,).

    axis    that of earlier data, which these stamps have to lie on; default: found from the stamps.
    values  False reads covariates alone: a frame of what is known of the future.

    Without a column of ids all rows are one series, unless another name than the usual is asked for. Raises ValueError
    for missing columns, stamps or ids that are missing, repeated, or beside the axis, and infinities; TypeError for
    data that is none of these.
    """
    columns = Columns() if columns is None else columns
    if isinstance(data, Mapping) and not columns.known:
        return _from_numbers(dict(data), columns, axis, "series")
    if isinstance(data, (list, tuple, np.ndarray)) and not columns.known:
        return _from_numbers({SAMPLE: data}, columns, axis, "values")
    try:
        frame = nw.from_native(data, eager_only=True, allow_series=True)
    except TypeError as error:
        raise TypeError(
            "data must be a pandas, polars or pyarrow frame, one row of numbers, or a dict of such rows; "
            f"got {type(data).__name__}. Known-future columns need a frame."
        ) from error
    if isinstance(frame, nw.Series):
        return _from_numbers({SAMPLE: frame.to_numpy()}, columns, axis, "values")
    return _from_frame(frame, columns, axis, values)


def _from_numbers(data: dict[Any, Any], columns: Columns, axis: Axis | None, kind: Any) -> Panel:
    if not data:
        raise ValueError("data must have at least one series; got none.")
    lines = []
    for name, row in data.items():
        values = np.asarray(row)
        if values.ndim != 1 or values.dtype.kind not in "iufbO" or not len(values):
            raise ValueError(
                f"{_of(name, 'values')} must be one row of numbers, not empty; got {values.dtype} {values.shape}."
            )
        try:
            numbers = values.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{_of(name, 'values')} must be numbers, with None or NaN where missing.") from error
        bad = np.nonzero(np.isinf(numbers))[0]
        if len(bad):
            raise ValueError(f"{_of(name, 'values')} must be finite; got {numbers[bad[0]]} at step {bad[0]}.")
        lines.append(Line(name, 0, numbers, np.zeros((len(numbers), 0))))
    panel = Panel(tuple(lines), axis or Axis("number", 1, 0), Form(kind, kind == "series"), columns)
    return replace(panel, notes=_missing(panel))


def _from_frame(frame: nw.DataFrame[Any], columns: Columns, axis: Axis | None, values: bool) -> Panel:
    several = columns.id in frame.columns
    needed = [columns.time, *([columns.value] if values else []), *columns.known]
    if columns.id != Columns.id:
        needed.append(columns.id)
    for name in needed:
        if name not in frame.columns:
            raise ValueError(f"data must have a column {name!r}; got {', '.join(map(repr, frame.columns))}. Name it.")
    if not len(frame):
        raise ValueError("data must have at least one row; got a frame without rows.")
    stamps, unit = _stamps(frame[columns.time], columns.time)
    ids, owner = _ids(frame[columns.id], columns.id) if several else ([SAMPLE], np.zeros(len(frame), np.int64))
    numbers = [_numbers(frame[name], name) for name in ([columns.value] if values else []) + list(columns.known)]
    table = np.stack(numbers, axis=1) if numbers else np.zeros((len(frame), 0))
    order, notes = _sorted(stamps, owner)
    stamps, owner, table = stamps[order], owner[order], table[order]
    parts = np.split(np.arange(len(owner)), np.nonzero(np.diff(owner))[0] + 1)
    for part in parts:
        same = np.nonzero(np.diff(stamps[part]).astype(np.int64) == 0)[0]
        if len(same):
            raise ValueError(
                f"{_of(ids[owner[part[0]]], columns.time)} must not come twice in a series; "
                f"got {plain(stamps[part[same[0]]])} again. Keep one row of each, or name the column of ids."
            )
    found = find_axis([stamps[part] for part in parts]) if axis is None else axis
    lines = tuple(_line(ids[owner[part[0]]], stamps[part], table[part], found, columns, values) for part in parts)
    form = Form("frame", several, frame.implementation, frame.schema[columns.time], None, unit)
    if several:
        form = replace(form, ids=frame.schema[columns.id])
    unused = [name for name in frame.columns if name not in (columns.id, *needed)] if values else []
    if unused:
        notes.append(f"Not used: {', '.join(map(repr, unused))}. Columns known ahead are named in known_future.")
    panel = Panel(lines, found, form, columns, tuple(notes))
    gaps = sum(len(line.values) for line in lines) - len(frame)
    if gaps and values:
        said = "1 step between the stamps has no row and is a missing value."
        if gaps > 1:
            said = f"{gaps} steps between the stamps have no row and are missing values."
        panel = replace(panel, notes=(*panel.notes, said))
    return replace(panel, notes=(*panel.notes, *_missing(panel, gaps))) if values else panel


def _line(name: Any, stamps: Any, table: Numbers, axis: Axis, columns: Columns, values: bool) -> Line:
    if (axis.kind == "number") != (stamps.dtype.kind != "M"):
        what = "whole numbers" if axis.kind == "number" else "dates"
        raise ValueError(f"{_of(name, columns.time)} must be {what}, as those before; got {plain(stamps[0])}.")
    places = axis.places(stamps)
    if places is None:
        raise ValueError(
            f"{_of(name, columns.time)} must lie on the axis of the other stamps, a {axis.step} apart from "
            f"{plain(axis.stamps(np.array([0]))[0])}; got {plain(stamps[0])} to {plain(stamps[-1])}."
        )
    grid = np.full((int(places[-1] - places[0]) + 1, table.shape[1]), np.nan)
    grid[places - places[0]] = table
    covariates = grid[:, 1:] if values else grid
    return Line(name, int(places[0]), grid[:, 0] if values else np.zeros(len(grid)), covariates)


def _missing(panel: Panel, gaps: int = 0) -> tuple[str, ...]:
    missing = sum(int(np.isnan(line.values).sum()) for line in panel.lines) - gaps
    if not missing:
        return ()
    return (f"{missing} of {panel.steps} values {'is' if missing == 1 else 'are'} missing.",)


def _stamps(column: nw.Series[Any], name: str) -> tuple[NDArray[Any], str | None]:
    """Stamps as int64 or as datetime64 in microseconds, and the unit of those that were text."""
    dtype = column.dtype
    if column.null_count():
        raise ValueError(f"{name} must have a stamp in every row; got {column.null_count()} missing.")
    if isinstance(dtype, nw.Datetime) and dtype.time_zone is not None:
        raise ValueError(
            f"{name} must be stamps without a time zone; got {dtype.time_zone}. Convert them to UTC first."
        )
    if dtype.is_numeric():
        numbers = column.to_numpy()
        if (numbers % 1 != 0).any():
            raise ValueError(
                f"{name} must be dates or whole numbers; got {numbers[numbers % 1 != 0][0]}. Number the steps."
            )
        return numbers.astype(np.int64), None
    if dtype in (nw.Date, nw.Datetime, nw.Object):
        try:
            return column.cast(nw.Datetime("us")).to_numpy().astype("datetime64[us]"), None
        except (TypeError, ValueError, nw.exceptions.NarwhalsError) as error:
            raise ValueError(f"{name} must be dates or whole numbers; got {dtype}.") from error
    cells = column.to_list()
    if any(re.search("[0-9](Z|[+-][0-9]{2}:?[0-9]{2})$", str(cell)) and ":" in str(cell) for cell in cells):
        raise ValueError(
            f"{name} must be stamps without an offset from UTC; got {cells[0]!r}. Convert them to UTC first."
        )
    try:
        text = np.array(cells, dtype="datetime64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} must be dates (2020-01-31, 2020-01-31T12:00), date-times or whole numbers; got {column[0]!r}."
        ) from error
    return text.astype("datetime64[us]"), np.datetime_data(text.dtype)[0]


def _ids(column: nw.Series[Any], name: str) -> tuple[list[Any], NDArray[np.int64]]:
    """The ids in the order in which they first come, and the number of each row's."""
    if column.null_count():
        raise ValueError(f"{name} must have an id in every row; got {column.null_count()} missing.")
    ids = column.unique(maintain_order=True).to_list()
    if len(ids) == 1:
        return ids, np.zeros(len(column), np.int64)
    number = {one: place for place, one in enumerate(ids)}
    return ids, np.fromiter((number[one] for one in column.to_list()), np.int64, len(column))


def _numbers(column: nw.Series[Any], name: str) -> Numbers:
    if not column.dtype.is_numeric():
        raise ValueError(f"{name} must be numbers; got {column.dtype}. Convert the column first.")
    numbers = np.array(column.cast(nw.Float64).to_numpy(), np.float64)
    if np.isinf(numbers).any():
        raise ValueError(f"{name} must be finite or missing; got an infinity in row {int(np.isinf(numbers).argmax())}.")
    return numbers


def _sorted(stamps: NDArray[Any], owner: NDArray[np.int64]) -> tuple[NDArray[np.int64], list[str]]:
    """The order by series and time, and what is to be said of it."""
    order = np.lexsort((stamps, owner))
    behind = sum(int((np.diff(stamps[owner == one]).astype(np.int64) < 0).any()) for one in _unsorted(stamps, owner))
    if not behind:
        return order, []
    return order, [f"The rows of {behind} series were not in order of time and were sorted."]


def _unsorted(stamps: NDArray[Any], owner: NDArray[np.int64]) -> Sequence[int]:
    """The series that may be out of order: those of rows whose stamp is below that of the row before of the same."""
    by_owner = np.argsort(owner, kind="stable")
    back = (np.diff(stamps[by_owner]).astype(np.int64) < 0) & (np.diff(owner[by_owner]) == 0)
    return [int(one) for one in np.unique(owner[by_owner][1:][back])]


def _of(name: Any, what: str) -> str:
    return what if name is SAMPLE else f"{what} of {name!r}"


def trimmed(panel: Panel) -> tuple[list[Line], tuple[str, ...]]:
    """The lines from their first value on, and in words what was left out or is missing.

    Raises ValueError for a line without a value.
    """
    lines, cut = [], 0
    for line in panel.lines:
        (known,) = np.nonzero(~np.isnan(line.values))
        if not len(known):
            name = "" if not panel.form.several and panel.form.kind != "series" else f" of {line.id!r}"
            raise ValueError(
                f"{panel.columns.value}{name} must have at least one value; all are missing. Leave it out."
            )
        first = int(known[0])
        cut += first
        lines.append(Line(line.id, line.start + first, line.values[first:], line.covariates[first:]))
    notes: tuple[str, ...] = (f"{cut} steps before the first value of their series were left out.",) if cut else ()
    missing = sum(int(np.isnan(line.values).sum()) for line in lines)
    if missing:
        notes += ("What is missing is read as the anchor expects it, with a mark, and is never a target.",)
    holes = sum(int(np.isnan(line.covariates).sum()) for line in lines)
    if holes:
        notes += (f"{holes} missing covariates are read as the last one before.",)
    return lines, notes


def write_panel(
    panel: Panel, starts: Sequence[int], numbers: Sequence[Mapping[str, Numbers]], ids: Sequence[Any]
) -> Any:
    """Columns of numbers for each series from a place on, as the kind of data that the panel was read from.

    A frame has the columns of ids, of time, and the numbers; data that were plain numbers come back as a dict of
    such columns.
    """
    lengths = [len(next(iter(columns.values()))) for columns in numbers]
    places = np.concatenate([start + np.arange(length) for start, length in zip(starts, lengths, strict=True)])
    table: dict[str, Any] = {}
    form, names = panel.form, panel.columns
    if form.several:
        table[names.id] = [one for one, length in zip(ids, lengths, strict=True) for _ in range(length)]
    table[names.time] = _dated(panel, places)
    for name in numbers[0]:
        column = np.concatenate([columns[name] for columns in numbers])
        table[name] = _dated(panel, column) if name == CUTOFF else column
    if form.kind != "frame":
        return table
    frame = nw.from_dict(table, backend=form.backend)
    dated = [name for name in (names.time, CUTOFF) if name in table]
    casts = [nw.col(name).cast(form.time) for name in dated if form.unit is None and form.time != nw.Object]
    if form.several and form.ids != nw.Object:
        casts.append(nw.col(names.id).cast(form.ids))
    return frame.with_columns(*casts).to_native()


def _dated(panel: Panel, places: NDArray[np.int64]) -> Any:
    """Places as stamps of the kind that was given."""
    stamps = panel.axis.stamps(places)
    if panel.form.unit is None:
        return stamps
    return np.datetime_as_string(stamps.astype(f"datetime64[{panel.form.unit}]")).tolist()
