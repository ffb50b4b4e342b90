"""Tables from files and frames: what is read is what stands there; what is refused is named by file, row, column."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from reading_case import sentence, written

from throughtime.data.columns import missing_note, numbers, words
from throughtime.data.tables import BATCH, frame_table, read_table

cells = st.text(st.characters(codec="utf-8", exclude_characters="\0\r\ufeff"), max_size=6)
SLOW_PATH = [HealthCheck.function_scoped_fixture]


def refusal(folder: Path, content: str | bytes, column: str | None = None) -> str:
    path = written(folder, content)
    read = (lambda: read_table(path)) if column is None else (lambda: numbers(read_table(path), column))
    return sentence(read, folder) or "it was read"


@settings(suppress_health_check=SLOW_PATH, max_examples=60)
@given(st.data(), st.integers(2, 4), st.sampled_from(["\n", "\r\n"]))
def test_cells_and_rows_are_those_that_a_writer_of_csv_wrote(tmp_path: Path, data, width: int, end: str) -> None:
    rows = data.draw(st.lists(st.lists(cells, min_size=width, max_size=width), min_size=1, max_size=8))
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator=end)
    writer.writerow([f"column {index}" for index in range(width)])
    starts = []
    for row in rows:
        starts.append(buffer.getvalue().count("\n") + 1)
        writer.writerow(row)
    table = read_table(written(tmp_path, buffer.getvalue()))
    assert table.frame.rows() == [tuple(row) for row in rows]
    assert table.rows.tolist() == starts, "a line break inside quotes counts as an editor counts it"


@settings(suppress_health_check=SLOW_PATH)
@given(st.one_of(st.binary(max_size=200), st.text(max_size=60).map(str.encode)))
@example(b"PAR1" + bytes(40) + b"PAR1")
@example(b"\xff\xfea")
@example(b'a,b\n"1')
def test_any_file_gives_a_table_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content)
    if sentence(lambda: read_table(path)) is None:
        table = read_table(path)
        assert len(table) == len(table.rows) > 0
        for column in table.columns:
            said = sentence(lambda column=column: numbers(table, column))
            assert said is None or f"column {column!r}" in said


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_the_separator_is_found(tmp_path: Path, separator: str) -> None:
    path = written(tmp_path, separator.join("abc") + "\n" + separator.join("123") + "\n")
    assert read_table(path).frame.rows() == [("1", "2", "3")]


def test_a_comma_in_a_name_does_not_hide_the_separator(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "day;value, in EUR\n1;2\n3;4\n"))
    assert table.columns == ["day", "value, in EUR"]


def test_byte_order_marks_and_old_line_ends_are_read(tmp_path: Path) -> None:
    for content in ("\ufeffa,b\r\n1,2\r\n", "a,b\r1,2\r"):
        table = read_table(written(tmp_path, content))
        assert (table.columns, table.frame.rows()) == (["a", "b"], [("1", "2")])
    for encoding in ("utf-16-le", "utf-16-be"):
        assert read_table(written(tmp_path, "\ufeffä,b\n1,2\n".encode(encoding))).columns == ["ä", "b"]


def test_blank_lines_are_said_or_missing(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "a,b\n\n1,2\n \n3,4\n\n\n"))
    assert table.rows.tolist() == [3, 5]
    assert table.notes[0].endswith("x.csv': 2 blank lines skipped (the first is row 2).")
    single = read_table(written(tmp_path, "a\n1\n\n3\n\n"))
    assert np.array_equal(numbers(single, "a"), [1, np.nan, 3], equal_nan=True)
    assert single.rows.tolist() == [2, 3, 4]
    assert len(read_table(written(tmp_path, 'a\n1\n""\n'))) == 2, "an empty cell in quotes is a cell"


@pytest.mark.parametrize(
    ("content", "start"),
    [
        ("", "'x.csv' must have content; it is empty"),
        ("a,b\n", "'x.csv' must have rows; got only the names of the columns"),
        ("\n\n", "'x.csv' must have rows"),
        ("a,b\n1,2\n3\n", "'x.csv', row 3 must have 2 cells as the header has; got 1"),
        ("a,b\n1,2\n3,4,5\n", "'x.csv', row 3 must have 2 cells as the header has; got 3. Write decimals with a point"),
        ("a;b\n1;2\n3;4;5\n", "'x.csv', row 3 must have 2 cells as the header has; got 3. Put a cell that holds"),
        ('a,b\n1,"x\ny"\n2\n', "'x.csv', row 4 must have 2 cells"),
        (
            'a,b\n1,"x\n2,3\n4,5\n',
            "'x.csv', row 2 must have every quote closed at the end of its cell; got a quote that",
        ),
        ('a,b\n1,2\n1,"x"y\n', "'x.csv', row 3 must have every quote closed at the end of its cell; got text behind"),
        ("a,a\n1,2\n", "'x.csv', row 1 must name each column differently; columns 1 and 2 are both 'a'"),
        (",b\n1,2\n", "'x.csv', row 1 must name every column; column 1 of 2 has no name"),
        ("1700,5\n1701,11\n", "'x.csv', row 1 must name the columns; got 1700, 5. Put a line"),
        ("2020-01-01,5\n2020-01-02,11\n", "'x.csv', row 1 must name the columns; got 2020-01-01, 5"),
        (b"a,b\n1,\xff\n", "'x.csv' must be UTF-8 text; the byte 0xff at offset 6 (row 2) is not"),
        (b"\xff\xfea", "'x.csv' must be text; it begins as UTF-16 and does not go on so"),
        (b"a,b\n1,\0\n", "'x.csv' must be text; it is binary (a NUL byte at offset 6)"),
        (b"a,b\n" + b"1,2\n" * 20_000 + b"1,\0\n", "'x.csv' must be text; row 20002 has a NUL"),
        (b"PK\x03\x04abc", "'x.csv' must be plain text; it is an Excel workbook or a ZIP archive"),
        (b"PAR1abc", "'x.csv' must be a Parquet file; it cannot be read"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, content: str | bytes, start: str) -> None:
    assert refusal(tmp_path, content).startswith(start)


def test_a_ragged_row_far_below_is_named(tmp_path: Path) -> None:
    content = "a,b\n" + "1,2\n" * 5_000 + "1\n" + "1,2\n" * 5_000
    assert refusal(tmp_path, content).startswith("'x.csv', row 5002 must have 2 cells")


def test_rows_are_counted_on_from_batch_to_batch(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, 'a,b\n1,"2\n3"\n' + "1,2\n" * (2 * BATCH)))
    assert table.rows.tolist() == [2, *range(4, 4 + 2 * BATCH)]


def test_columns_may_be_numbered_from_0(tmp_path: Path) -> None:
    assert read_table(written(tmp_path, "0,1\n3,4\n")).columns == ["0", "1"]


def test_what_is_no_plain_file_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none.csv' must be an existing file; there is none"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="must be a file; it is a directory"):
        read_table(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null")):
        with pytest.raises(ValueError, match="must be a plain file; it is a pipe or a device"):
            read_table(path)


@given(st.lists(st.floats(allow_infinity=False), min_size=1))
def test_numbers_are_those_that_python_reads(values: list[float]) -> None:
    table = frame_table(pl.DataFrame({"y": [f" {value!r}" for value in values]}))
    assert np.array_equal(numbers(table, "y"), values, equal_nan=True)


def test_missing_numbers_are_nan_and_counted(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "t,y\n1,\n2,NA\n3,?\n4,null\n5,NaN\n6,+5.\n7,-.5e1\n"))
    values = numbers(table, "y")
    assert np.array_equal(values, [np.nan] * 5 + [5, -5], equal_nan=True)
    note = missing_note(table, "y", values)
    assert note[0].endswith("x.csv', column 'y': 5 of 7 values are missing (the first in row 2).")
    assert missing_note(table, "t", numbers(table, "t")) == ()


@pytest.mark.parametrize(
    ("cell", "part"),
    [
        ("x", "must be a number; got 'x'. Write a number such as 12.5, or NA where it is missing."),
        ("1_000", "must be a number; got '1_000'. Write a number"),
        ("5%", "must be a number; got '5%'. Write the number alone, such as 12.5, without %."),
        ("R$ 12,50", "Write the number alone, such as 12.5, without R$."),
        ("12 €", "Write the number alone, such as 12.5, without €."),
        ("0x10", "must be a number; got '0x10'. Write a number"),
        ("٣", "must be a number; got '٣'. Write a number"),
        ("inf", "must be a finite number; got 'inf'. Write NA where the value is missing."),
        ("-Infinity", "must be a finite number; got '-Infinity'."),
        ("1e999", "must be a finite number; got '1e999'."),
        ("1,5", "must be a number; got '1,5'. Write 1.5: decimals have a point."),
        ("-0,123", "must be a number; got '-0,123'. Write -0.123"),
        ("1,234", "Write 1234 if the comma separates thousands, 1.234 if it is a decimal comma."),
        ("1,234.5", "must be a number; got '1,234.5'. Write 1234.5: thousands are not separated."),
        ("1,234,567", "Write 1234567: thousands"),
        (
            "1.234,5",
            "must be a number; got '1.234,5'. Write 1234.5: thousands are not separated, decimals have a point.",
        ),
        ("1.234.567", "Write 1234567: thousands"),
        ("1 234", "Write 1234: thousands"),
    ],
)
def test_a_cell_that_is_no_number_is_named(tmp_path: Path, cell: str, part: str) -> None:
    said = refusal(tmp_path, f'a,y\n1,2\n1,\n1,"{cell}"\n1,x\n', "y")
    assert said.startswith("'x.csv', row 4, column 'y' must be")
    assert part in said


def test_a_space_may_stand_before_a_quoted_cell(tmp_path: Path) -> None:
    path = written(tmp_path, '"Month", "Sales, net"\n"2020-01", 1\n"2020-02",   "2"\n')
    table = read_table(path)
    assert table.columns == ["Month", "Sales, net"]
    assert numbers(table, "Sales, net").tolist() == [1, 2]
    assert table.rows.tolist() == [2, 3]


def test_a_point_that_may_separate_thousands_is_refused(tmp_path: Path) -> None:
    """German: 1.234 is 1234. All cells decide it: 1.5, 1200 or a zero before the point make it a decimal point."""
    assert refusal(tmp_path, "a;y\n1;950\n1;\n1;1.234\n1;-2.500\n", "y") == (
        "'x.csv', row 4, column 'y' can be read in two ways: '1.234', beside '950' in row 2. Write 1234 if the point "
        "separates thousands, 950.0 in row 2 if it is a decimal point."
    )
    for cell in ("1.5", "1200", "0.234", "950.0", "1.2345"):
        (tmp_path / "x.csv").write_text(f"a;y\n1;950\n1;1.234\n1;{cell}\n")
        assert numbers(read_table(tmp_path / "x.csv"), "y")[1:].tolist() == [1.234, float(cell)]
    (tmp_path / "x.csv").write_text("a;y\n1;1.234\n1;2.500\n")
    assert numbers(read_table(tmp_path / "x.csv"), "y").tolist() == [1.234, 2.5]


def test_a_long_cell_is_cut_in_the_sentence(tmp_path: Path) -> None:
    assert len(refusal(tmp_path, "a,y\n1," + "z" * 200_000 + "\n", "y")) < 250


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"i": [1, None], "f": [1.5, float("nan")], "b": [True, False], "c": ["a", "b"], "l": [[1], [2]]},
        schema_overrides={"c": pl.Categorical},
    )
    frame.write_parquet(tmp_path / "x.parquet")
    table = read_table(tmp_path / "x.parquet")
    assert np.array_equal(numbers(table, "i"), [1, np.nan], equal_nan=True)
    assert numbers(table, "b").tolist() == [1, 0]
    assert words(table, "c").to_list() == ["a", "b"]
    assert table.place(0, "i").endswith("x.parquet', row 1, column 'i'")
    for judge in (numbers, words):
        with pytest.raises(ValueError, match=r"column 'l' must hold .*; its type is List\(Int64\)"):
            judge(table, "l")
    pl.DataFrame({"a": []}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(ValueError, match="must have rows"):
        read_table(tmp_path / "x.parquet")
    written(tmp_path, "a,b\n1,2\n", "y.parquet")
    with pytest.raises(ValueError, match="must be a Parquet file; it cannot be read"):
        read_table(tmp_path / "y.parquet")


def test_whole_floats_are_words_without_a_point() -> None:
    table = frame_table(pl.DataFrame({"a": [1.0, 2.0, None], "b": [1.5, 2.0, float("nan")], "c": [1e300, 1.0, 2.0]}))
    assert words(table, "a").to_list() == ["1", "2", None]
    assert words(table, "b").to_list() == ["1.5", "2.0", None]
    assert words(table, "c")[1] == "1.0"


def test_a_column_that_is_not_there_is_said_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"the frame must have the column 'z'; got 'a'\. Name one"):
        numbers(frame_table(pl.DataFrame({"a": [1]})), "z")
    many = frame_table(pl.DataFrame({f"c{index}": [1] for index in range(40)}))
    assert many.listed().endswith("'c11', ... (40 columns)")


def test_frames_are_judged_as_files_are() -> None:
    for wrong in ([1], pl.LazyFrame({"a": [1]}), np.zeros(3)):
        with pytest.raises(TypeError, match="frame must be a pandas, polars or pyarrow data frame; got"):
            frame_table(wrong)
    with pytest.raises(ValueError, match="the frame must have rows"):
        frame_table(pl.DataFrame({"a": []}))
    with pytest.raises(ValueError, match="the frame, row 1, column 'a' must be a finite number; got inf"):
        numbers(frame_table(pl.DataFrame({"a": [1.0, float("inf")]})), "a")
    with pytest.raises(ValueError, match="column 1 of 1 has no name"):
        frame_table(pl.DataFrame({"": [1]}))


def test_pandas_frames_of_every_kind_of_column() -> None:
    pandas = pytest.importorskip("pandas")
    days = pandas.date_range("2020-01-01", periods=3)
    frame = pandas.DataFrame(
        {
            "mixed": pandas.Series([1, "x", None], dtype=object),
            "whole": pandas.array([1, None, 3], dtype="Int64"),
            "kind": pandas.Categorical(["a", "b", "a"]),
            "day": days,
            "zone": days.tz_localize("Europe/Berlin"),
            "period": days.to_period("D"),
            "word": ["s", None, "t"],
        }
    )
    table = frame_table(frame)
    assert np.array_equal(numbers(table, "whole"), [1, np.nan, 3], equal_nan=True)
    assert words(table, "kind").to_list() == ["a", "b", "a"]
    assert words(table, "word").to_list() == ["s", None, "t"]
    assert words(table, "period")[0] == "2020-01-01"
    assert table.frame["day"].dtype == table.frame["zone"].dtype == pl.Datetime("us")
    with pytest.raises(ValueError, match="the frame, row 1, column 'mixed' must be a number; got 'x'"):
        numbers(table, "mixed")
    with pytest.raises(ValueError, match="got one name twice"):
        frame_table(pandas.DataFrame([[1, 2]], columns=["a", "a"]))
    assert frame_table(pandas.DataFrame([[1, 2]])).columns == ["0", "1"]
