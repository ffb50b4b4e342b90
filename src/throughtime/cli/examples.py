"""From what the user names to examples: sequences of numbers or texts, with their classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from throughtime.cli.task_options import ExampleOptions
from throughtime.data import shakespeare, time_machine
from throughtime.data.columns import looks_numeric
from throughtime.data.labelled import Labelled, from_long
from throughtime.data.lines import plain_file
from throughtime.data.long import ID_NAMES, known_as
from throughtime.data.tables import Table, read_table
from throughtime.data.texts import TABLES, TEXT_NAMES, read_texts
from throughtime.data.ts import read_ts

Kind = Literal["sequences", "texts"]
SHARE = 0.2
"""Of the examples that are held out where no test file is given."""
FEW = 5
"""A class of fewer examples is not held out of."""
TIMED = ".ts"


@dataclass(frozen=True, eq=False)
class Examples:
    """N sequences (T_i, I) or N texts, their labels if there are any, their names, and what was done to the data;
    of sequences from a table the names of the I columns too; of texts whether each is a whole file."""

    kind: Kind
    x: Sequence[Any]
    labels: NDArray[Any] | None
    names: Sequence[str]
    notes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()
    files: bool = False

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
    paths: Sequence[str],
    options: ExampleOptions,
    *,
    training: bool,
    kind: Kind | None = None,
    features: Sequence[str] = (),
) -> Examples:
    """The examples of a .ts file, a table in long form, a table of texts, a file a class, or a folder a class.

    kind, features: what they must be, for a file that goes with others; None and (): found. Raises ValueError and
    OSError of readers.
    """
    numeric = options.id is not None or options.time is not None
    worded = options.text is not None
    if numeric and worded:
        raise ValueError("--text must be left out with --id and --time, which are of sequences of numbers.")
    single = len(paths) == 1
    suffix = Path(paths[0]).suffix.lower() if single else ""
    if not single:
        _check_lines(paths)
    if suffix == TIMED:
        if kind == "texts":
            raise ValueError(f"{paths[0]!r} must have texts, as the others have; it is a .ts file of numbers.")
        _refuse(options, ("text", "label", "id", "time"), "with a .ts file, which has no columns")
        return _of_sequences(read_ts(paths[0], missing=options.missing), paths[0], training)
    if single and not Path(paths[0]).is_dir() and suffix in TABLES:
        table = read_table(paths[0])
        if not training and options.label not in table.columns:  # a label is no must where nothing is learned
            options = replace(options, label=None)
        if numeric or (
            not worded and kind != "texts" and (kind == "sequences" or not _has_texts(table, options.label))
        ):
            return _of_table(table, paths[0], options, features, training)
    elif kind == "sequences":
        plain_file(paths[0])
        raise ValueError(f"{paths[0]!r} must be a table (.csv, .parquet) or a .ts file of sequences; it is neither.")
    elif numeric:
        raise ValueError("--id and --time must go with one CSV or Parquet file of sequences; got something else.")
    if options.missing != "refuse":
        raise ValueError("--missing must be left out with texts; it would have no effect.")
    texts = read_texts([os.fspath(path) for path in paths], text=options.text, label=options.label, training=training)
    labels = None if texts.labels is None else np.array(texts.labels)
    names = [str(place + 1) for place in range(len(texts.texts))]
    return Examples("texts", texts.texts, labels, names, texts.notes, files=single and Path(paths[0]).is_dir())


def check_width(examples: Examples, wanted: int, name: str) -> None:
    """Raise ValueError for sequences of other than so many numbers a step."""
    odd = next((part.shape[1] for part in examples.x if part.shape[1] != wanted), None)
    if odd is not None:
        raise ValueError(f"{name} must have {wanted} numbers a step, as what was learned from; got {odd}.")


def _has_texts(table: Table, label: str | None) -> bool:
    """Whether a table is one of texts: a column named so, or nothing but words and no id."""
    free = [name for name in table.columns if name != label]
    if known_as(free, TEXT_NAMES):
        return True
    return not known_as(free, ID_NAMES) and not any(looks_numeric(table.frame[name]) for name in free)


def _check_lines(paths: Sequence[str]) -> None:
    """Raise ValueError for one of several files, of a text a line each, that holds something else."""
    for path in paths:
        if Path(path).suffix.lower() in (TIMED, *TABLES):
            raise ValueError(
                f"{path!r} must be a text a line, as it is one of several files, a class each. Name one table or .ts "
                "file alone; others to judge by go with --test."
            )


def _of_table(table: Table, path: str, options: ExampleOptions, features: Sequence[str], training: bool) -> Examples:
    """Its sequences; of the features asked for, wherever they stand."""
    found = from_long(
        table,
        id=options.id,
        time=options.time,
        label=options.label,
        features=features or None,
        missing=options.missing,
    )
    return replace(_of_sequences(found, path, training), features=found.features)


def _of_sequences(found: Labelled, path: str, training: bool) -> Examples:
    if training and found.labels is None:
        raise ValueError(
            f"{path!r} must have a class for every sequence; it has no labels. Name their column with --label."
        )
    if training and found.labels and not isinstance(found.labels[0], str):
        raise ValueError(f"{path!r} must have classes; its labels are numbers to predict. Use tt.SequenceRegressor.")
    labels = None if found.labels is None else np.array(found.labels)
    if training and labels is not None and len(set(labels)) < 2:
        raise ValueError(f"{path!r} must have two classes or more; got only {labels.tolist()[0]!r}. Add another class.")
    return Examples("sequences", found.sequences, labels, found.ids, found.notes)


def _refuse(options: ExampleOptions, names: tuple[str, ...], why: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name} must be left out {why}; it would have no effect.")


def unlearned(truth: Iterable[Any], classes: Iterable[Any], noun: str) -> tuple[str, ...]:
    """A sentence on classes that were not learned, so that no answer can be right there; none where all were."""
    known = {str(name) for name in classes}
    told = list(map(str, truth))
    odd = Counter(name for name in told if name not in known)
    if not odd:
        return ()
    names = ", ".join(map(repr, sorted(odd)[:3])) + ", ..." * (len(odd) > 3)
    one = len(odd) == 1
    return (
        f"{names} {'was' if one else 'were'} not learned: {odd.total():,} of {len(told):,} {noun} count as wrong.",
    )


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
    small = len(set(examples.labels) - set(examples.labels[test]))
    unjudged = f"{small} classes of fewer than {FEW} are not judged." if small > 1 else ""
    unjudged = f"1 class of fewer than {FEW} is not judged." if small == 1 else unjudged
    said = (
        f"{chosen.sum():,} of {len(examples):,} examples, a fifth of every class by chance, are held out to judge by. "
        f"{unjudged}".strip()
    )
    return examples.part(np.flatnonzero(~chosen)), examples.part(np.flatnonzero(chosen)), said
