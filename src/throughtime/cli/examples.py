"""From what the user names to examples: sequences of numbers or texts, with their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from throughtime.cli.task_options import ExampleOptions
from throughtime.data import shakespeare, time_machine
from throughtime.data.columns import looks_numeric
from throughtime.data.labelled import from_long
from throughtime.data.long import ID_NAMES, known_as
from throughtime.data.tables import Table, read_table
from throughtime.data.texts import TABLES, TEXT_NAMES, read_texts
from throughtime.data.ts import read_ts

Kind = Literal["sequences", "texts"]
SHARE = 0.2
"""Of the examples that are held out where no test file is given."""
FEW = 5
"""A class of fewer examples is not held out of."""


@dataclass(frozen=True, eq=False)
class Examples:
    """N sequences (T_i, I) or N texts, their labels if there are any, their names, and what was done to the data."""

    kind: Kind
    x: Sequence[Any]
    labels: NDArray[Any] | None
    names: Sequence[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.x)

    def part(self, places: NDArray[np.int64]) -> Examples:
        assert self.labels is not None
        return replace(
            self,
            x=[self.x[place] for place in places],
            labels=self.labels[places],
            names=[self.names[place] for place in places],
        )


def authors() -> Examples:
    """Lines of the shipped texts with more than three words, and who wrote them: as many of either author."""
    lines = {
        name: [line.strip() for line in text.splitlines() if len(line.split()) > 3]
        for name, text in (("Shakespeare", shakespeare()), ("Wells", time_machine()))
    }
    count = min(map(len, lines.values()))
    texts, labels = [], []
    for name, found in lines.items():
        every = np.linspace(0, len(found) - 1, count).astype(int)
        texts += [found[place] for place in every]
        labels += [name] * count
    note = f"{count:,} lines of each author, evenly from the shipped texts; lines of three words or fewer left out."
    return Examples("texts", texts, np.array(labels), [str(place + 1) for place in range(len(texts))], (note,))


def read_examples(
    paths: Sequence[str], options: ExampleOptions, *, training: bool, kind: Kind | None = None
) -> Examples:
    """The examples of a .ts file, a table in long form, a table of texts, a file a class, or a folder a class.

    kind: what they must be, for a file that goes with others; None: found. Raises ValueError and OSError of readers.
    """
    numeric = options.id is not None or options.time is not None
    worded = options.text is not None
    if numeric and worded:
        raise ValueError("--text must be left out with --id and --time, which are of sequences of numbers.")
    single = len(paths) == 1
    suffix = Path(paths[0]).suffix.lower() if single else ""
    if suffix == ".ts":
        _refuse(options, ("text", "label", "id", "time"), "with a .ts file, which has no columns")
        found = read_ts(paths[0], missing=options.missing)
        return _of_sequences(found, training)
    if single and not Path(paths[0]).is_dir() and suffix in TABLES:
        table = read_table(paths[0])
        if numeric or (
            not worded and kind != "texts" and (kind == "sequences" or not _has_texts(table, options.label))
        ):
            found = from_long(table, id=options.id, time=options.time, label=options.label, missing=options.missing)
            return _of_sequences(found, training)
    elif numeric:
        raise ValueError("--id and --time must go with one CSV or Parquet file of sequences; got something else.")
    if options.missing != "refuse":
        raise ValueError("--missing must be left out with texts; it would have no effect.")
    texts = read_texts([os.fspath(path) for path in paths], text=options.text, label=options.label, training=training)
    labels = None if texts.labels is None else np.array(texts.labels)
    return Examples("texts", texts.texts, labels, [str(place + 1) for place in range(len(texts.texts))], texts.notes)


def _has_texts(table: Table, label: str | None) -> bool:
    """Whether a table is one of texts: a column named so, or nothing but words and no id."""
    free = [name for name in table.columns if name != label]
    if known_as(free, TEXT_NAMES):
        return True
    return not known_as(free, ID_NAMES) and not any(looks_numeric(table.frame[name]) for name in free)


def _of_sequences(found: Any, training: bool) -> Examples:
    if training and found.labels is None:
        raise ValueError(
            "TRAIN must have a class for every sequence; it has no labels. Name their column with --label."
        )
    if training and not isinstance(found.labels[0], str):
        raise ValueError("TRAIN must have classes; its labels are numbers to predict. Use tt.SequenceRegressor.")
    labels = None if found.labels is None else np.array(found.labels)
    return Examples("sequences", found.sequences, labels, found.ids, found.notes)


def _refuse(options: ExampleOptions, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} must be left out {why}; it would have no effect.")


def held_out(examples: Examples, seed: int) -> tuple[Examples, Examples | None, str]:
    """The examples to learn from, those to judge by (SHARE of every class, by chance), and a sentence that says so."""
    assert examples.labels is not None
    chance = np.random.default_rng(seed)
    test: list[int] = []
    for label in np.unique(examples.labels):
        places = np.flatnonzero(examples.labels == label)
        if len(places) >= FEW:
            test += chance.permutation(places)[: max(1, round(SHARE * len(places)))].tolist()
    if not test:
        return examples, None, f"No class has {FEW} examples, so none is held out and nothing is known on new ones."
    chosen = np.zeros(len(examples), bool)
    chosen[test] = True
    said = (
        f"{chosen.sum():,} of {len(examples):,} examples, a fifth of every class by chance, are held out to judge by."
    )
    return examples.part(np.flatnonzero(~chosen)), examples.part(np.flatnonzero(chosen)), said
