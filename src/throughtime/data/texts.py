"""Texts, each with a label: a table with two columns, one file a class with one text a line, or a folder a class."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import polars as pl

from throughtime.data.columns import looks_numeric, words
from throughtime.data.lines import lines
from throughtime.data.long import ID_NAMES, known_as
from throughtime.data.reading import Paths
from throughtime.data.tables import Table, read_table

TEXT_NAMES = ("text", "sentence", "message", "review", "document")
LABEL_NAMES = ("label", "class", "target", "category")
TABLES = (".csv", ".tsv", ".tab", ".parquet", ".pq")
"""Ends of file names by which a single file is read as a table."""


@dataclass(frozen=True)
class Texts:
    """N texts, and N labels or none; notes say what was done to the data."""

    texts: tuple[str, ...]
    labels: tuple[str, ...] | None
    notes: tuple[str, ...] = ()


def read_texts(source: Paths, *, text: str | None = None, label: str | None = None, training: bool = True) -> Texts:
    """The texts of a path or several.

    A table (.csv, .tsv, .parquet, or a file that begins with a line of column names between tabs) has a column of
    texts and one of labels. Several files are one class each, named after the file, one text a line. A folder has
    a folder a class, and every file in it, at any depth, is one text. Any other single file is one text a line,
    without labels.

    text, label  names of columns. None: text and label, or names like them; where one is known so, the other is the
                 one column that is left.
    training     labels of two classes are needed; False: of one class or none is enough.

    Empty texts and hidden files are left out, and a note says so. Raises FileNotFoundError for a missing path and
    ValueError that says what is needed, or where a file is not text.
    """
    several = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    paths = [Path(path) for path in several]
    if not paths:
        raise ValueError("source must be a path or several; got none. Name a table, a folder or a file a class.")
    folder = len(paths) == 1 and paths[0].is_dir()
    tabular = len(paths) == 1 and not folder and _is_table(paths[0])
    if not tabular and (text is not None or label is not None):
        raise ValueError(f"text and label must go with one table; got {_listed(paths)}. Leave them out.")
    if tabular:
        found = _from_table(read_table(paths[0]), text, label)
    elif folder:
        found = _from_folder(paths[0])
    else:
        found = _from_files(paths)
    if not found.texts:
        raise ValueError(f"{_listed(paths)} must have a text; all are empty. Check that it was written whole.")
    if training:
        _check_classes(_listed(paths), found)
    return found


def _is_table(path: Path) -> bool:
    if path.suffix.lower() in TABLES:
        return True
    first = next(islice(lines(path), 1), "").strip().split("\t")
    return len(first) > 1 and bool(known_as(first, TEXT_NAMES) or known_as(first, LABEL_NAMES))


def _from_table(table: Table, text: str | None, label: str | None) -> Texts:
    text, label = _columns(table, text, label)
    texts = words(table, text)
    empty = texts.is_null()
    notes = list(table.notes)
    if empty.any():
        row = table.rows[_first(empty)]
        notes.append(
            _left_out(table.name, int(empty.sum()), f"row without a {text!r}", f"rows without a {text!r}", row)
        )
    if label is None:
        return Texts(tuple(texts.drop_nulls().to_list()), None, tuple(notes))
    labels = words(table, label)
    missing = labels.is_null() & ~empty
    if missing.any():
        raise ValueError(f"{table.place(_first(missing), label)} must be a label; got an empty cell. Fill it.")
    return Texts(tuple(texts.filter(~empty).to_list()), tuple(labels.filter(~empty).to_list()), tuple(notes))


def _columns(table: Table, text: str | None, label: str | None) -> tuple[str, str | None]:
    """The columns of texts and labels: named, known by name, or the only ones left."""
    for name in (text, label):
        if name is not None:
            table.column(name)
    if text is not None and text == label:
        raise ValueError(f"text and label must be different columns; got {text!r} for both. Change one.")
    label = label or _named(table, [name for name in table.columns if name != text], LABEL_NAMES, "label")
    text = text or _named(table, [name for name in table.columns if name != label], TEXT_NAMES, "text")
    free = [name for name in table.columns if name not in (text, label)]
    if text is None:
        worded = [name for name in free if not looks_numeric(table.frame[name])]
        if len(worded) != 1 or (label is None and len(free) > 1):
            raise ValueError(
                f"{table.name} must have a column of texts and one of labels; got {table.listed()}. "
                "Name them with --text and --label."
            )
        text = worded[0]
    elif label is None and len(free) == 1 and free[0].lower() not in ID_NAMES:
        label = free[0]
    return text, label


def _named(table: Table, free: list[str], wanted: Sequence[str], what: str) -> str | None:
    """The column of that very name, else the one that is known as it."""
    known = known_as(free, (what,)) or known_as(free, wanted)
    if len(known) > 1:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"{table.name} must have one {what}; {listed} can all be it. Name one with --{what}.")
    return known[0] if known else None


def _from_files(paths: list[Path]) -> Texts:
    """A class a file; a single file has no labels."""
    stems = [path.stem for path in paths]
    twice = next((stem for stem, count in Counter(stems).items() if count > 1), None)
    if twice is not None:
        raise ValueError(
            f"the files must have different names, which name the classes; got {twice!r} twice. Rename one."
        )
    texts: list[str] = []
    labels: list[str] = []
    notes: list[str] = []
    for path, stem in zip(paths, stems, strict=True):
        every = [line.strip() for line in lines(path)]
        kept = [line for line in every if line]
        empty = len(every) - len(kept)
        if empty:
            notes.append(_left_out(repr(str(path)), empty, "empty line", "empty lines", every.index("") + 1))
        if not kept:
            raise ValueError(f"{str(path)!r} must have a line of text; all are empty. Leave the file out.")
        texts += kept
        labels += [stem] * len(kept)
    return Texts(tuple(texts), tuple(labels) if len(paths) > 1 else None, tuple(notes))


def _from_folder(folder: Path) -> Texts:
    """A class a sub-folder, a text a file."""
    name = repr(str(folder))
    inside = sorted(folder.iterdir())
    classes = [path for path in inside if path.is_dir() and not path.name.startswith(".")]
    if not classes:
        raise ValueError(
            f"{name} must have a folder for each class; got none among its {len(inside)} entries. "
            "Name the files themselves where each is a class."
        )
    notes: list[str] = []
    beside = [path for path in inside if path not in classes]
    if beside:
        notes.append(
            f"{name}: {len(beside)} beside the folders of the classes left out (the first is {beside[0].name!r})."
        )
    texts: list[str] = []
    labels: list[str] = []
    hidden: list[Path] = []
    empty: list[Path] = []
    for path in classes:
        for file in sorted(path.rglob("*")):
            if any(part.startswith(".") for part in file.relative_to(path).parts):
                hidden.append(file)
            elif not file.is_dir():
                content = _content(file)
                if content:
                    texts.append(content)
                    labels.append(path.name)
                else:
                    empty.append(file)
    for files, what in ((hidden, "hidden"), (empty, "empty")):
        if files:
            notes.append(
                _left_out(name, len(files), f"{what} file", f"{what} files", str(files[0].relative_to(folder)))
            )
    silent = [path.name for path in classes if path.name not in set(labels)]
    if silent:
        raise ValueError(f"{name} must have a text in every folder; {silent[0]!r} has none. Remove the folder.")
    return Texts(tuple(texts), tuple(labels), tuple(notes))


def _content(file: Path) -> str:
    if file.is_file() and not file.stat().st_size:
        return ""
    return "".join(lines(file)).strip()


def _check_classes(name: str, found: Texts) -> None:
    if found.labels is None:
        raise ValueError(
            f"{name} must have labels; got only texts. Name their column with --label, or give a file a class."
        )
    kinds = sorted(set(found.labels))
    if len(kinds) < 2:
        raise ValueError(f"{name} must have two classes or more; got only {kinds[0]!r}. Add texts of another class.")


def _left_out(name: str, count: int, one: str, many: str, first: object) -> str:
    said = f"1 {one} is" if count == 1 else f"{count} {many} are"
    where = f"row {first}" if not isinstance(first, str) else first
    return f"{name}: {said} left out (the first is {where})."


def _listed(paths: Iterable[Path]) -> str:
    names = [repr(str(path)) for path in paths]
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _first(where: pl.Series) -> int:
    index = where.arg_max()
    assert index is not None
    return int(index)
