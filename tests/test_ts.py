"""The .ts format: what a writer wrote is read back, every tag counts, and a line that contradicts is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_case import sentence, written

from throughtime.data.labelled import Labelled
from throughtime.data.ts import read_ts

HEAD = "# a comment\n% another\n\n@problemName p\n@univariate false\n@classLabel true a b\n@data\n"
STAMPED = "@timeStamps true\n@classLabel true a b\n@data\n"
numbers = st.floats(-1e9, 1e9)


def read(folder: Path, content: str, **arguments: str) -> Labelled:
    return read_ts(written(folder, content, "x.ts"), **arguments)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(st.data(), st.integers(1, 3), st.booleans())
def test_what_was_written_is_read(tmp_path: Path, data, width: int, stamped: bool) -> None:
    lengths = data.draw(st.lists(st.integers(0, 4), min_size=1, max_size=4))
    cases = [
        np.array(data.draw(st.lists(numbers, min_size=n * width, max_size=n * width))).reshape(n, width)
        for n in lengths
    ]
    labels = data.draw(st.lists(st.sampled_from(["a", "B c"[:1]]), min_size=len(cases), max_size=len(cases)))

    def dimension(column: np.ndarray) -> str:
        return ",".join(f"(2020-01-01 00:0{t},{x!r})" if stamped else repr(x) for t, x in enumerate(column.tolist()))

    lines = [":".join([*map(dimension, case.T), label]) for case, label in zip(cases, labels, strict=True)]
    head = f"@timestamps {str(stamped).lower()}\n@DIMENSIONS {width}\n@classlabel TRUE a B\n@data\n"
    found = read(tmp_path, head + "\n".join(lines))
    assert found.labels == tuple(labels)
    assert all(np.array_equal(one, other) for one, other in zip(found.sequences, cases, strict=True))
    assert {sequence.shape[1] for sequence in found.sequences} == {width}
    assert found.features == tuple(f"dimension {index + 1}" for index in range(width))
    assert bool(found.notes) == stamped


def test_targets_and_no_labels(tmp_path: Path) -> None:
    assert read(tmp_path, "@targetLabel true\n@data\n1,2:3.5\n# between\n3,4:-1\n").labels == (3.5, -1.0)
    found = read(tmp_path, "@classLabel false\n@data\n1,2:3,4\n")
    assert found.labels is None
    assert found.sequences[0].tolist() == [[1, 3], [2, 4]]
    assert found.ids == ("row 3",)


def test_missing_values_are_refused_kept_or_filled(tmp_path: Path) -> None:
    content = HEAD + "1,?,3:NaN,2,3:a\n"
    with pytest.raises(ValueError, match="row 8, dimension 2, step 1 must be a number; got a missing value"):
        read(tmp_path, content)
    kept = read(tmp_path, content, missing="keep").sequences[0]
    assert np.array_equal(kept, [[1, np.nan], [np.nan, 2], [3, 3]], equal_nan=True)
    filled = read(tmp_path, content, missing="fill")
    assert filled.sequences[0].tolist() == [[1, 2], [1, 2], [3, 3]]
    assert filled.notes[0].endswith(
        ": 2 of 6 values are missing; each is the last value seen in its sequence, or the "
        "first one where none was seen."
    )
    with pytest.raises(ValueError, match="row 8, dimension 1 must have a value at some step; got none"):
        read(tmp_path, HEAD + "?,?:1,2:a\n", missing="fill")


def test_an_unknown_tag_is_said(tmp_path: Path) -> None:
    notes = read(tmp_path, "@colour red\n" + HEAD + "1:a\n").notes
    assert notes[0].endswith("x.ts', row 1: the tag @colour is unknown and has no effect.")


@pytest.mark.parametrize(
    ("content", "start"),
    [
        (HEAD, "'x.ts' must have a case below @data; got none"),
        ("@classLabel true a\n", "'x.ts' must have a line @data above its cases"),
        ("@data\n1:a\n", "'x.ts' must say whether its cases have labels; got neither tag"),
        ("1,2:a\n", "'x.ts', row 1 must be a tag such as @classLabel; got '1,2:a'"),
        ("@classLabel true\n@data\n1:a\n", "'x.ts', row 1: @classLabel true must be followed by the classes"),
        ("@classLabel true a a\n@data\n1:a\n", "'x.ts', row 1: @classLabel must name each class once; got 'a' twice"),
        ("@classLabel true a\n@targetLabel true\n", "'x.ts', row 2 must not have both @classLabel and @targetLabel"),
        ("@classLabel a b\n", "'x.ts', row 1: @classLabel must be true or false; got 'a'"),
        ("@univariate maybe\n", "'x.ts', row 1: @univariate must be true or false; got 'maybe'"),
        ("@dimensions two\n", "'x.ts', row 1: @dimensions must be a whole number; got 'two'"),
        ("@missing false\n@missing true\n", "'x.ts', row 2 must not repeat @missing; it is in row 1"),
        (HEAD + "1,2:3,4:c\n", "'x.ts', row 8 must end in one of the classes of @classLabel (a, b); got 'c'"),
        (HEAD + "1,2\n", "'x.ts', row 8 must be dimensions and a label between colons; got '1,2'"),
        (
            HEAD + "1,2:3:a\n",
            "'x.ts', row 8 must have dimensions of one length; the first has 2 steps, dimension 2 has 1",
        ),
        (HEAD + "1:2:a\n1:a\n", "'x.ts', row 9 must have 2 dimensions as row 8 has; got 1"),
        ("@dimensions 3\n" + HEAD + "1:2:a\n", "'x.ts', row 9 must have 3 dimensions as @dimensions says; got 2"),
        (HEAD + "1,x:a\n", "'x.ts', row 8, dimension 1, step 2 must be a finite number; got 'x'"),
        (HEAD + "1,inf:a\n", "'x.ts', row 8, dimension 1, step 2 must be a finite number; got 'inf'"),
        (HEAD + "1_0:a\n", "'x.ts', row 8, dimension 1, step 1 must be a finite number; got '1_0'"),
        ("@univariate true\n@classLabel false\n@data\n1:2\n", "'x.ts', row 4 must have 1 dimension, as @univariate"),
        (
            "@equalLength true\n@classLabel false\n@data\n1\n1,2\n",
            "'x.ts', row 5 must have the length 1, as @equalLength",
        ),
        (
            "@equalLength true\n@seriesLength 5\n@classLabel false\n@data\n1\n",
            "'x.ts', row 5 must have the length 5, as @equalLength",
        ),
        ("@targetLabel true\n@data\n1,2:x\n", "'x.ts', row 3 must end in a number, as @targetLabel true says; got 'x'"),
        ("@targetLabel true\n@data\n1,2:?\n", "'x.ts', row 3 must end in a number"),
        (STAMPED + "1,2:a\n", "'x.ts', row 4 must be steps such as (0,1.5),(1,2.5); got '1,2:a'"),
        (STAMPED + "(0,1)(1,2):a\n", "'x.ts', row 4 must be steps such as (0,1.5),(1,2.5); got '(1,2):a'"),
        (STAMPED + "(0,1),(7):a\n", "'x.ts', row 4 must have steps such as (0,1.5); got '(0,1),(7)'"),
        (STAMPED + "(0,1),(1,2):(0,1),(2,2):a\n", "'x.ts', row 4 must have the same times in all dimensions"),
        (
            STAMPED + "(2,1),(10,2),(9,2):a\n",
            "'x.ts', row 4 must have its steps in order of time; step 3 is at '9', step 2",
        ),
        (STAMPED + "(2020-02-01,1),(2020-01-01,2):a\n", "'x.ts', row 4 must have its steps in order of time"),
    ],
)
def test_a_file_that_contradicts_itself_is_refused(tmp_path: Path, content: str, start: str) -> None:
    assert (sentence(lambda: read(tmp_path, content), tmp_path) or "it was read").startswith(start)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["", HEAD, STAMPED, "@targetLabel true\n@data\n"]),
    st.one_of(st.binary(max_size=60), st.text("(),:?@a1.\n #-e", max_size=40).map(str.encode)),
)
def test_any_file_gives_sequences_or_a_sentence(tmp_path: Path, head: str, content: bytes) -> None:
    path = written(tmp_path, head.encode() + content, "x.ts")
    for missing in ("refuse", "fill", "keep"):
        if sentence(lambda missing=missing: read_ts(path, missing=missing)) is None:
            found = read_ts(path, missing=missing)
            assert all(np.isfinite(sequence).all() or missing == "keep" for sequence in found.sequences)
