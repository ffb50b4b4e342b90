"""The .ts files of the time series classification archive (aeon, sktime): a header of @tags, then one case a line.

    # a comment (or %)
    @problemName Gestures
    @univariate false
    @classLabel true wave punch        (or @targetLabel true: the label is a number; or @classLabel false)
    @data
    1.2,3.4,?:5.6,7.8,9.0:wave         (dimensions, each from the first step to the last, and the label)

With @timeStamps true a step is (time,value). Only the order of the steps counts here, so the dimensions of a case
must share their times.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from throughtime.data.columns import MISSING
from throughtime.data.labelled import FILL_ADVICE, FILLED, Labelled, Missing, Numbers, fill
from throughtime.data.lines import lines

_FLAGS = ("timestamps", "missing", "univariate", "equallength", "targetlabel")
_COUNTS = ("dimensions", "serieslength")
_TAGS = (*_FLAGS, *_COUNTS, "classlabel", "problemname")
_STEP = re.compile(r"\(([^()]*),([^(),]*)\)")
_STAMPED = re.compile(r"\s*(?:\([^()]*\)\s*(?:,\s*\([^()]*\)\s*)*)?")


@dataclass(frozen=True)
class Header:
    """What the tags say; None: they do not say it. `classes` in the order of the file."""

    flags: dict[str, bool] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        return self.classes is not None or self.flags.get("targetlabel", False)


@dataclass(frozen=True)
class Case:
    """A line: its number in the file, the values of each dimension (NaN where missing), the label."""

    row: int
    dimensions: list[Numbers]
    label: str | None


def read_ts(path: str | os.PathLike[str], *, missing: Missing = "refuse") -> Labelled:
    """The cases of a .ts file as (T, I) sequences, I dimensions each, with their labels.

    missing  "?" and NaN are refused; "fill": the last value seen in the dimension (before the first one, the
             first); "keep": NaN.

    Labels keep their case of letters; those of @targetLabel are numbers. Raises ValueError with file and row for
    a header that contradicts itself or the data, an undeclared class, dimensions of unequal number, length or
    times, and cells that are no finite numbers.
    """
    name = repr(str(path))
    text = enumerate((line.strip() for line in lines(path)), start=1)
    header = _header(name, text)
    cases = [_case(name, row, line, header) for row, line in text if not _is_comment(line)]
    if not cases:
        raise ValueError(f"{name} must have a case below @data; got none. Check that it was written whole.")
    _check_shapes(name, cases, header)
    sequences = [np.stack(case.dimensions, axis=1) for case in cases]
    labels = _labels(name, cases, header)
    notes = list(header.notes)
    if header.flags.get("timestamps"):
        notes.append(f"{name}: time stamps are left out; only the order of the steps counts.")
    width = len(cases[0].dimensions)
    if missing == "refuse":
        _refuse_missing(name, cases, sequences)
    if missing == "fill" and any(np.isnan(sequence).any() for sequence in sequences):
        sequences, said = _filled(name, cases, sequences)
        notes.append(said)
    ids = tuple(f"row {case.row}" for case in cases)
    features = tuple(f"dimension {index + 1}" for index in range(width))
    return Labelled(tuple(sequences), labels, ids, features, tuple(notes))


def _header(name: str, text: Iterator[tuple[int, str]]) -> Header:
    """The tags up to @data."""
    flags: dict[str, bool] = {}
    counts: dict[str, int] = {}
    classes: tuple[str, ...] | None = None
    notes: list[str] = []
    seen: dict[str, int] = {}
    for row, line in text:
        if _is_comment(line):
            continue
        tag, *values = line.split()
        key = tag[1:].lower()
        if not tag.startswith("@"):
            raise ValueError(
                f"{name}, row {row} must be a tag such as @classLabel; got {line[:40]!r}. Put @data above."
            )
        if key == "data":
            _check_labels(name, seen)
            return Header(flags, counts, classes, tuple(notes))
        if key in seen and key != "problemname":
            raise ValueError(f"{name}, row {row} must not repeat {tag}; it is in row {seen[key]}. Remove one.")
        seen[key] = row
        if key in _FLAGS:
            flags[key] = _flag(name, row, tag, values)
        elif key in _COUNTS:
            counts[key] = _whole(name, row, tag, values)
        elif key == "classlabel" and _flag(name, row, tag, values[:1]):
            classes = _classes(name, row, values[1:])
        elif key not in _TAGS:
            notes.append(f"{name}, row {row}: the tag {tag} is unknown and has no effect.")
        if classes is not None and flags.get("targetlabel"):
            raise ValueError(f"{name}, row {row} must not have both @classLabel and @targetLabel true. Remove one.")
    raise ValueError(f"{name} must have a line @data above its cases; got none. Add it.")


def _is_comment(line: str) -> bool:
    return not line or line[0] in "#%"


def _check_labels(name: str, seen: dict[str, int]) -> None:
    if "classlabel" not in seen and "targetlabel" not in seen:
        raise ValueError(
            f"{name} must say whether its cases have labels; got neither tag. "
            "Write @classLabel true with the classes, @classLabel false, or @targetLabel true."
        )


def _flag(name: str, row: int, tag: str, values: list[str]) -> bool:
    said = " ".join(values).lower()
    if said not in ("true", "false"):
        raise ValueError(f"{name}, row {row}: {tag} must be true or false; got {said[:40]!r}. Write one of them.")
    return said == "true"


def _whole(name: str, row: int, tag: str, values: list[str]) -> int:
    said = " ".join(values)
    if not re.fullmatch(r"[0-9]{1,9}", said):
        raise ValueError(f"{name}, row {row}: {tag} must be a whole number; got {said[:40]!r}. Write one.")
    return int(said)


def _classes(name: str, row: int, values: list[str]) -> tuple[str, ...]:
    if not values:
        raise ValueError(f"{name}, row {row}: @classLabel true must be followed by the classes; got none. Name them.")
    if len(set(values)) < len(values):
        twice = next(value for value in values if values.count(value) > 1)
        raise ValueError(f"{name}, row {row}: @classLabel must name each class once; got {twice!r} twice. Remove one.")
    return tuple(values)


def _case(name: str, row: int, line: str, header: Header) -> Case:
    stamped = header.flags.get("timestamps", False)
    parts = _stamped_parts(name, row, line, header.labelled) if stamped else [part.strip() for part in line.split(":")]
    label = parts.pop().strip() if header.labelled else None
    if not parts:
        raise ValueError(
            f"{name}, row {row} must be dimensions and a label between colons; got {line[:40]!r}. Add one."
        )
    cells = _without_times(name, row, parts) if stamped else [part.split(",") if part else [] for part in parts]
    return Case(row, [_column(name, row, index, column) for index, column in enumerate(cells)], label)


def _stamped_parts(name: str, row: int, line: str, labelled: bool) -> list[str]:
    """The dimensions and the label of a case with time stamps, which may hold colons themselves."""
    parts: list[str] = []
    place = 0
    while True:
        found = _STAMPED.match(line, place)
        assert found is not None
        stop = found.end()
        if stop == len(line) or line[stop] == ":":
            parts.append(found.group())
            place = stop + 1
            if stop == len(line):
                break
        elif labelled and parts:
            return [*parts, line[place:]]
        else:
            got = line[stop : stop + 40]
            raise ValueError(f"{name}, row {row} must be steps such as (0,1.5),(1,2.5); got {got!r}. Mend it.")
    return parts


def _without_times(name: str, row: int, parts: list[str]) -> list[list[str]]:
    """The cells of each dimension, whose time stamps must be the same and in order."""
    steps = [_STEP.findall(part) for part in parts]
    for part, found in zip(parts, steps, strict=True):
        if part.count("(") != len(found):
            raise ValueError(f"{name}, row {row} must have steps such as (0,1.5); got {part[:40]!r}. Mend it.")
    stamps = [[time.strip() for time, _ in found] for found in steps]
    for number, other in enumerate(stamps[1:], start=2):
        if other != stamps[0]:
            raise ValueError(
                f"{name}, row {row} must have the same times in all dimensions; those of dimension {number} differ "
                "from those of the first. Resample them."
            )
    for index, (before, after) in enumerate(pairwise(stamps[0]), start=1):
        if not _is_before(before, after):
            raise ValueError(
                f"{name}, row {row} must have its steps in order of time; step {index + 1} is at {after!r}, "
                f"step {index} at {before!r}. Sort them."
            )
    return [[value for _, value in found] for found in steps]


def _is_before(one: str, other: str) -> bool:
    """Of numbers by value; stamps such as 2008-09-09 20:56:00 are in order as text."""
    try:
        return float(one) < float(other)
    except ValueError:
        return one < other


def _check_shapes(name: str, cases: list[Case], header: Header) -> None:
    """Every case has as many dimensions as the first and as the header says; the dimensions of one are equally long."""
    width = header.counts.get("dimensions", len(cases[0].dimensions))
    univariate = header.flags.get("univariate", False)
    length = header.counts.get("serieslength", len(cases[0].dimensions[0]))
    equal = header.flags.get("equallength", False)
    for case in cases:
        lengths = [len(dimension) for dimension in case.dimensions]
        if len(lengths) != width:
            said = "@dimensions says" if "dimensions" in header.counts else f"row {cases[0].row} has"
            raise ValueError(
                f"{name}, row {case.row} must have {width} dimensions as {said}; got {len(lengths)}. "
                "Check the colons, and whether the label is there."
            )
        if univariate and width != 1:
            raise ValueError(
                f"{name}, row {case.row} must have 1 dimension, as @univariate true says; got {width}. Change the tag."
            )
        if len(set(lengths)) > 1:
            index = next(index for index, steps in enumerate(lengths) if steps != lengths[0])
            raise ValueError(
                f"{name}, row {case.row} must have dimensions of one length; the first has {lengths[0]} steps, "
                f"dimension {index + 1} has {lengths[index]}. Resample or pad it."
            )
        if equal and lengths[0] != length:
            raise ValueError(
                f"{name}, row {case.row} must have the length {length}, as @equalLength true says; got {lengths[0]}. "
                "Change the tag to false, or mend the row."
            )


def _column(name: str, row: int, index: int, cells: list[str]) -> Numbers:
    try:
        if any("_" in cell for cell in cells):  # float("1_0") is 10
            raise ValueError
        values = np.array(list(map(float, cells)), np.float64)
        sound = not np.isinf(values).any()
    except ValueError:
        sound = False
    if sound:
        return values
    read = [_number(cell) for cell in cells]
    if None in read:
        step = read.index(None)
        raise ValueError(
            f"{name}, row {row}, dimension {index + 1}, step {step + 1} must be a finite number; "
            f"got {cells[step].strip()[:40]!r}. Write a number, or ? where it is missing."
        )
    return np.array(read, np.float64)


def _number(cell: str) -> float | None:
    """NaN for a missing cell; None for what is no finite number."""
    cell = cell.strip()
    if cell.lower() in MISSING:
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if np.isfinite(value) and "_" not in cell else None


def _labels(name: str, cases: list[Case], header: Header) -> tuple[str, ...] | tuple[float, ...] | None:
    if not header.labelled:
        return None
    if header.classes is None:
        return tuple(_target(name, case) for case in cases)
    known = set(header.classes)
    for case in cases:
        if case.label not in known:
            listed = ", ".join(header.classes[:12]) + (", ..." if len(header.classes) > 12 else "")
            raise ValueError(
                f"{name}, row {case.row} must end in one of the classes of @classLabel ({listed}); "
                f"got {(case.label or '')[:40]!r}. Add it to the tag, or mend the row."
            )
    return tuple(str(case.label) for case in cases)


def _target(name: str, case: Case) -> float:
    value = _number(case.label or "")
    if value is None or np.isnan(value):
        raise ValueError(
            f"{name}, row {case.row} must end in a number, as @targetLabel true says; got {(case.label or '')[:40]!r}. "
            "Mend the row."
        )
    return value


def _refuse_missing(name: str, cases: list[Case], sequences: list[Numbers]) -> None:
    for case, sequence in zip(cases, sequences, strict=True):
        holes = np.argwhere(np.isnan(sequence))
        if len(holes):
            step, index = holes[0]
            raise ValueError(
                f"{name}, row {case.row}, dimension {index + 1}, step {step + 1} must be a number; "
                f"got a missing value. {FILL_ADVICE}"
            )


def _filled(name: str, cases: list[Case], sequences: list[Numbers]) -> tuple[list[Numbers], str]:
    start: NDArray[np.int64] = np.zeros(1, np.int64)
    filled = [fill(sequence, start) if len(sequence) else sequence for sequence in sequences]
    for case, sequence in zip(cases, filled, strict=True):
        left = np.argwhere(np.isnan(sequence))
        if len(left):
            raise ValueError(
                f"{name}, row {case.row}, dimension {left[0, 1] + 1} must have a value at some step; got none. "
                "Leave the case or the dimension out."
            )
    count = sum(int(np.isnan(sequence).sum()) for sequence in sequences)
    total = sum(sequence.size for sequence in sequences)
    return filled, f"{name}: {count} of {total} values are missing; {FILLED}"
