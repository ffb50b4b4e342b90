"""Labelled sequences from a long table: rows find their sequence and their step, labels hold for all of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_case import sentence, written

from throughtime.data.labelled import fill, from_long
from throughtime.data.tables import read_table

ROWS = {"id": ["a", "a", "b"], "t": [0, 1, 0], "x": [1.0, 2.0, 3.0], "label": ["up", "up", "down"]}


def frame(**columns: list[Any]) -> pl.DataFrame:
    return pl.DataFrame({**ROWS, **columns}, strict=False)


def refusal(given: Any, **arguments: Any) -> str:
    return sentence(lambda: from_long(given, **arguments)) or "it was read"


@given(st.lists(st.integers(1, 5), min_size=1, max_size=5), st.randoms(use_true_random=False))
def test_rows_in_any_order_give_the_same_sequences(lengths: list[int], random) -> None:
    rows = [
        (f"s{i}", t, 10.0 * i + t, -float(t), f"c{i % 2}") for i, length in enumerate(lengths) for t in range(length)
    ]
    random.shuffle(rows)
    found = from_long(pl.DataFrame(rows, ["unique_id", "ds", "x", "z", "label"], orient="row"))
    assert found.ids == tuple(dict.fromkeys(row[0] for row in rows)), "in the order of their first rows"
    assert found.features == ("x", "z")
    for name, sequence, label in zip(found.ids, found.sequences, found.labels, strict=True):
        i = int(name[1:])
        steps = np.arange(lengths[i])
        assert np.array_equal(sequence, np.stack([10.0 * i + steps, -steps], axis=1))
        assert label == f"c{i % 2}"
    order = [[row[1] for row in rows if row[0] == name] for name in found.ids]
    assert bool(found.notes) == any(steps != sorted(steps) for steps in order)


def test_columns_are_those_that_are_named_or_known() -> None:
    found = from_long(frame())
    assert [sequence.tolist() for sequence in found.sequences] == [[[1], [2]], [[3]]]
    assert found.sequences[0].dtype == np.float64
    assert found.labels == ("up", "down")
    assert found.notes == ()
    other = from_long(frame().rename({"id": "who", "t": "when", "label": "what"}), id="who", time="when", label="what")
    assert other.labels == found.labels
    both = from_long(frame(z=[4, 5, 6]), features=["z", "x"])
    assert both.features == ("z", "x")
    assert both.sequences[1].tolist() == [[6, 3]]
    assert from_long(frame(z=[4, 5, 6]), features=["x"]).notes == ("the frame: not used: 'z'.",)


def test_without_labels_or_times() -> None:
    found = from_long(frame().drop("label", "t"))
    assert found.labels is None
    assert found.notes == ("the frame: no column is a time; the rows of a sequence are in order of time.",)


def test_labels_are_words_or_numbers() -> None:
    assert from_long(frame(label=[1.0, 1.0, 2.0])).labels == ("1", "2")
    assert from_long(frame(label=["1", "1", "2.5"]), regression=True).labels == (1.0, 2.5)
    assert "column 'label' must be a number; got 'up'" in refusal(frame(), regression=True)


def test_rows_that_go_back_in_time_are_sorted_and_said() -> None:
    found = from_long(frame(t=[1, 0, 0]))
    assert found.sequences[0].tolist() == [[2], [1]]
    assert found.notes == ("the frame: row 1 goes back in time; rows are sorted by 't'.",)


@pytest.mark.parametrize(
    ("columns", "arguments", "said"),
    [
        ({"t": [1, 1, 0]}, {}, "row 1, column 't' must be a time of its own within its series; got '1' as in row 0"),
        (
            {"label": ["up", "down", "down"]},
            {},
            "row 1, column 'label' must be 'up', the label of its sequence in row 0",
        ),
        (
            {"id": ["a", "b", "b"], "t": [0, 0, 1]},
            {},
            "row 2, column 'label' must be 'up', the label of its sequence in row 1; got 'down'",
        ),
        ({"label": ["up", None, "down"]}, {}, "row 1, column 'label' must be a label; got an empty cell"),
        ({"id": ["a", None, "b"]}, {}, "row 1, column 'id' must name a series; got an empty cell"),
        ({"x": ["1", "x", "3"]}, {}, "row 1, column 'x' must be a number; got 'x'"),
        (
            {"x": [1, None, 3]},
            {},
            "row 1, column 'x' must be a number; got a missing value. Fill it in, or use --missing fill",
        ),
        ({"x": [1, 2, float("inf")]}, {}, "row 2, column 'x' must be a finite number"),
        ({"x": [1, 2, None]}, {"missing": "fill"}, "row 2, column 'x' must have a value somewhere in its sequence"),
        (
            {"kind": ["p", "q", "r"]},
            {},
            "column 'kind' must hold numbers, as a feature does; got 'p' in row 0. Name it",
        ),
        ({"series": [1, 2, 3]}, {}, "must have one column for --id; 'id', 'series' can all be it"),
        ({"class": [1, 2, 3]}, {}, "must have one column for --label; 'label', 'class' can all be it"),
        ({"step": [1, 2, 3]}, {}, "must have one column for --time; 't', 'step' can all be it"),
        ({}, {"id": "z"}, "must have the column 'z'"),
        ({}, {"id": "x", "time": "x"}, "--id, --time and --label must be different columns; got 'x', 'x'"),
        ({}, {"features": ["t"]}, "features must not be the id, time or label; got 't'"),
        ({}, {"features": ["z"]}, "must have the column 'z'"),
    ],
)
def test_what_is_no_labelled_table_is_refused(columns: dict[str, Any], arguments: dict[str, Any], said: str) -> None:
    assert said in refusal(frame(**columns), **arguments)


def test_a_table_needs_ids_and_features() -> None:
    assert "must have a column of ids, which says to what sequence a row belongs" in refusal(frame().drop("id"))
    assert "must have a column of features" in refusal(frame().drop("x"))
    with pytest.raises(TypeError, match="frame must be a pandas"):
        from_long([1])


def test_the_row_of_a_file_is_its_line(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "id,t,x,label\nb,1,1,p\na,5,2,q\nb,0,,p\n"))
    assert sentence(lambda: from_long(table), tmp_path).startswith("'x.csv', row 4, column 'x' must be a number")


def test_missing_features_are_kept_or_filled_and_said() -> None:
    given = frame(id=["a", "b", "a", "a"], t=[0, 0, 1, 2], x=[None, 7, 5, None], label=["up", "down", "up", "up"])
    kept = from_long(given, missing="keep")
    assert np.array_equal(kept.sequences[0], [[np.nan], [5], [np.nan]], equal_nan=True)
    filled = from_long(given, missing="fill")
    assert filled.sequences[0].tolist() == [[5], [5], [5]]
    assert filled.notes == (
        "the frame, column 'x': 2 of 4 values are missing; each is the last value seen in its sequence, or the first "
        "one where none was seen.",
    )


@given(st.lists(st.lists(st.sampled_from([1.0, 2.0, np.nan]), min_size=1, max_size=6), min_size=1, max_size=4))
def test_filling_by_brute_force(sequences: list[list[float]]) -> None:
    expected = []
    for sequence in sequences:
        known = [value for value in sequence if value == value]
        for step, value in enumerate(sequence):
            seen = [one for one in sequence[: step + 1] if one == one]
            expected.append(seen[-1] if seen else known[0] if known else value)
    starts = np.cumsum([0, *map(len, sequences[:-1])])
    values = np.concatenate([np.array(sequence) for sequence in sequences])[:, None]
    assert np.array_equal(fill(values, starts)[:, 0], expected, equal_nan=True)


def test_pandas_frames() -> None:
    pandas = pytest.importorskip("pandas")
    found = from_long(pandas.DataFrame(ROWS))
    assert found.labels == ("up", "down")
    assert found.sequences[0].tolist() == [[1], [2]]
