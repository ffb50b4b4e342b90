"""Sentences of tagged words, one word a line: CoNLL columns between tabs or white space, and CoNLL-U.

EU       NNP  B-ORG
rejects  VBZ  O
                       (a blank line ends a sentence)
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from throughtime.data.lines import lines

CONLL_U = 10
"""The columns of CoNLL-U: ID FORM LEMMA UPOS XPOS FEATS HEAD DEPREL DEPS MISC."""

FORM, UPOS = 1, 3
SAMPLE = 1000
"""Lines from which the kind of file is found."""

_NUMBERED = re.compile(r"[0-9]+([-.][0-9]+)?")
_NAMED = re.compile(r"#\s*[\w:]+\s+=\s.*|#\s*(newdoc|newpar)\b.*")


@dataclass(frozen=True)
class Tagged:
    """N sentences of words, and a tag for each word; tags is None where the file has one column. Notes say what
    was done to the data."""

    sentences: tuple[tuple[str, ...], ...]
    tags: tuple[tuple[str, ...], ...] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are read."""

    tabs: bool
    conll_u: bool
    width: int
    row: int
    word: int
    tag: int

    def split(self, line: str) -> list[str]:
        return [cell.strip() for cell in line.split("\t")] if self.tabs else line.split()


def read_conll(path: str | os.PathLike[str], *, word: int | None = None, tag: int | None = None) -> Tagged:
    """The sentences of a file of columns.

    word  the column of the words, counted from 0 (negative: from the end). None: 0; in CoNLL-U FORM.
    tag   the column of the tags. None: the last; in CoNLL-U UPOS. A file of one column has no tags.

    A file of ten columns between tabs whose first one counts is CoNLL-U: ranges (1-2) and empty nodes (1.1) are
    skipped. -DOCSTART- lines end a sentence. A line that starts with "#" is a comment where it is written as
    "# name = value" or has not the columns of the file. Raises ValueError with the row of a line with more or
    fewer columns than the first, and of an empty word or tag.
    """
    name = repr(str(path))
    layout = _layout(name, list(islice(lines(path), SAMPLE)), word, tag)
    counts = {"comment": 0, "-DOCSTART-": 0, "range or empty node": 0}
    sentences: list[tuple[str, ...]] = []
    tags: list[tuple[str, ...]] = []
    for rows in _sentences(name, lines(path), layout, counts):
        sentences.append(tuple(cells[layout.word] for cells in rows))
        tags.append(tuple(cells[layout.tag] for cells in rows))
    if not sentences:
        raise ValueError(f"{name} must have a line with a word; got none. Check that it was written whole.")
    notes = [
        f"{name}: {count} {what} {'line is' if count == 1 else 'lines are'} left out."
        for what, count in counts.items()
        if count
    ]
    if layout.conll_u and (word is None or tag is None):
        notes.append(f"{name} is CoNLL-U: words are column {layout.word}, tags column {layout.tag}, counted from 0.")
    return Tagged(tuple(sentences), None if layout.width == 1 else tuple(tags), tuple(notes))


def _sentences(name: str, text: Iterator[str], layout: _Layout, counts: dict[str, int]) -> Iterator[list[list[str]]]:
    """The rows of each sentence; `counts` says what was left out."""
    rows: list[list[str]] = []
    for number, line in enumerate(text, start=1):
        line = line.rstrip("\n")
        cells = layout.split(line)
        document = line.startswith("-DOCSTART-")
        if document or not line.strip():
            counts["-DOCSTART-"] += document
            if rows:
                yield rows
                rows = []
        elif _is_comment(line, len(cells), layout.width):
            counts["comment"] += 1
        elif layout.conll_u and re.search("[-.]", cells[0]) and _NUMBERED.fullmatch(cells[0]):
            counts["range or empty node"] += 1
        else:
            _check_cells(name, number, cells, layout)
            rows.append(cells)
    if rows:
        yield rows


def _layout(name: str, sample: list[str], word: int | None, tag: int | None) -> _Layout:
    """Found from the first line that is no comment; of comments alone, from the first of all."""
    numbered = [(row, line.rstrip("\n")) for row, line in enumerate(sample, start=1)]
    filled = [(row, line) for row, line in numbered if line.strip() and not line.startswith("-DOCSTART-")]
    if not filled:
        raise ValueError(f"{name} must have a line with a word; got none. Check that it was written whole.")
    row, first = next(((row, line) for row, line in filled if not line.startswith("#")), filled[0])
    tabs = "\t" in first
    width = len(first.split("\t") if tabs else first.split())
    conll_u = tabs and width == CONLL_U and _NUMBERED.fullmatch(first.split("\t")[0].strip()) is not None
    word = (FORM if conll_u else 0) if word is None else word
    tag = (UPOS if conll_u else -1) if tag is None else tag
    tag = 0 if width == 1 else tag
    for flag, column in (("word", word), ("tag", tag)):
        if not -width <= column < width:
            raise ValueError(f"{flag} must be a column of {name}, 0 to {width - 1}; got {column}. Count from 0.")
    if width > 1 and word % width == tag % width:
        raise ValueError(f"word and tag must be different columns; got {word} and {tag} of {width}. Change one.")
    return _Layout(tabs, conll_u, width, row, word, tag)


def _is_comment(line: str, found: int, width: int) -> bool:
    return line.startswith("#") and (found != width or _NAMED.fullmatch(line) is not None)


def _check_cells(name: str, row: int, cells: list[str], layout: _Layout) -> None:
    if len(cells) != layout.width:
        columns = "column" if layout.width == 1 else "columns"
        between = "tabs" if layout.tabs else "white space"
        raise ValueError(
            f"{name}, row {row} must have {layout.width} {columns} between {between} as row {layout.row} has; "
            f"got {len(cells)}. Mend the row; a blank line ends a sentence."
        )
    for what, column in (("word", layout.word), ("tag", layout.tag)):
        if not cells[column]:
            raise ValueError(
                f"{name}, row {row} must have a {what} in column {column % layout.width}; got an empty cell. Fill it."
            )
