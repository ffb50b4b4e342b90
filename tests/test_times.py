"""Times in a column: what is written is what is read, in one kind a column; the rows that break the order are found."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_case import sentence

from throughtime.data.tables import Table, frame_table
from throughtime.data.times import (
    BLOCK,
    find_disorder,
    find_duplicate,
    looks_like_time,
    refuse_disorder,
    refuse_duplicates,
    spell,
    times,
)

moments = st.datetimes(datetime.datetime(1600, 1, 1), datetime.datetime(2200, 1, 1))


def column(*cells: object) -> Table:
    return frame_table(pl.DataFrame({"ds": cells}, strict=False))


def refusal(*cells: object) -> str:
    table = column(*cells)
    return sentence(lambda: times(table, "ds")) or "it was read"


@given(st.lists(moments, min_size=1), st.sampled_from(["D", "M", "s", "us"]))
def test_what_is_spelled_is_read_again(values: list[datetime.datetime], unit: str) -> None:
    kind = {"D": "date", "M": "month"}.get(unit, "datetime")
    exact = np.array(values, f"datetime64[{unit}]")
    found = times(column(*spell(exact, kind)), "ds")
    assert found.kind == kind
    assert np.array_equal(found.values, exact)
    assert spell(found.values, kind) == spell(exact, kind)


@given(st.lists(st.tuples(st.integers(1000, 2999), st.integers(1, 4)), min_size=1))
def test_quarters_are_their_first_months(quarters: list[tuple[int, int]]) -> None:
    cells = [f"{year}Q{quarter}" for year, quarter in quarters]
    found = times(column(*cells), "ds")
    assert found.kind == "quarter"
    months = [f"{year:04d}-{3 * quarter - 2:02d}" for year, quarter in quarters]
    assert found.values.tolist() == np.array(months, "datetime64[M]").tolist()
    assert spell(found.values, "quarter") == cells


@given(st.lists(st.integers(-(2**62), 2**62), min_size=1))
def test_whole_numbers_stay_whole(values: list[int]) -> None:
    found = times(column(*map(str, values)), "ds")
    if found.kind == "number":  # eight digits may be a date
        assert found.values.tolist() == values
        assert spell(found.values, "number") == [str(value) for value in values]


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (["2020-1-5", "2020/01/06", "2020.1.7"], "date", ["2020-01-05", "2020-01-06", "2020-01-07"]),
        (["20200131", "20200201"], "date", ["2020-01-31", "2020-02-01"]),
        ([20200131, 20200201], "date", ["2020-01-31", "2020-02-01"]),
        (["20200131", "20200230"], "number", ["20200131", "20200230"]),
        (["01/02/2020", "13/02/2020"], "date", ["2020-02-01", "2020-02-13"]),
        (["01/02/2020", "01/13/2020"], "date", ["2020-01-02", "2020-01-13"]),
        (["31.12.2020 23:00", "01.01.2021 00:30"], "datetime", ["2020-12-31 23:00:00", "2021-01-01 00:30:00"]),
        (["2020-01-01T12:00Z", "2020-01-01 14:30+02:00"], "datetime", ["2020-01-01 12:00:00", "2020-01-01 12:30:00"]),
        (["2020-01-01 00:00:00-0530"], "datetime", ["2020-01-01 05:30:00"]),
        (["2020-01-01 00:00:00+05"], "datetime", ["2019-12-31 19:00:00"]),
        (["2020-01-01 1:02:03.5"], "datetime", ["2020-01-01 01:02:03.500000"]),
        (["2020M1", "2020M12"], "month", ["2020-01", "2020-12"]),
        (["2020-Q1", "2020 q4"], "quarter", ["2020Q1", "2020Q4"]),
        (["1700.5", "1701"], "number", ["1700.5", "1701.0"]),
    ],
)
def test_ways_to_write_a_time(cells: Sequence[object], kind: str, expected: list[str]) -> None:
    found = times(column(*cells), "ds")
    assert found.kind == kind
    assert spell(found.values, found.kind) == expected


def test_typed_columns() -> None:
    day = datetime.date(2020, 1, 31)
    noon = datetime.datetime(2020, 1, 31, 12, tzinfo=datetime.timezone(datetime.timedelta(hours=2)))
    assert times(column(day), "ds").kind == "date"
    assert spell(times(column(noon), "ds").values, "datetime") == ["2020-01-31 10:00:00"]
    assert times(column(1.5), "ds").values.dtype == np.float64
    assert times(column(3), "ds").values.dtype == np.int64


@pytest.mark.parametrize(
    ("cells", "start"),
    [
        (["2020-01-01", "Jan"], "the frame, row 1, column 'ds' must be a time; got 'Jan'. Write times as 2020-01-31"),
        (["Jan 2020"], "the frame, row 0, column 'ds' must be a time; got 'Jan 2020'"),
        (["01/02/20"], "the frame, row 0, column 'ds' must be a time; got '01/02/20'"),
        (["2020-01-01", None], "the frame, row 1, column 'ds' must be a time; got an empty cell"),
        (["2020-01-01", " "], "the frame, row 1, column 'ds' must be a time; got an empty cell"),
        ([datetime.date(2020, 1, 1), None], "the frame, row 1, column 'ds' must be a time; got None"),
        ([1.0, float("nan")], "the frame, row 1, column 'ds' must be a time; got nan"),
        (["1", "1e999"], "the frame, row 1, column 'ds' must be a time; got inf"),
        ([True], "the frame, column 'ds' must hold times; its type is Boolean"),
        (["2020-02-28", "2020-02-30"], "the frame, row 1, column 'ds' must be a date that exists; got '2020-02-30'"),
        (["2020-00"], "the frame, row 0, column 'ds' must be a month that exists; got '2020-00'"),
        (["2020-01-01 24:00"], "the frame, row 0, column 'ds' must be a time of day that exists; got"),
        (["2020-01-01 1:60"], "the frame, row 0, column 'ds' must be a time of day that exists; got"),
        (
            ["2020-01-01", "2020-01-02", "5"],
            "the frame, row 2, column 'ds' must be a date as in row 0 ('2020-01-01'); got '5', a number. Write all",
        ),
        (["2020-01-01", "2020-01-01 12:00"], "the frame, row 1, column 'ds' must be a date as in row 0"),
        (["2020-01", "2020Q1"], "the frame, row 1, column 'ds' must be a month as in row 0"),
        (
            ["2020-01-01 1:00Z", "2020-01-01 2:00"],
            "the frame, row 1, column 'ds' must be a time with an offset from UTC, as all are or none; got",
        ),
        (
            ["01/02/2020", "03/04/2020"],
            "the frame, row 0, column 'ds' must say which part is the month; got '01/02/2020'",
        ),
        (
            ["12/11/2020", "11/12/2020"],
            "the frame, row 0, column 'ds' must say which part is the month; got '12/11/2020'",
        ),
        (["13/02/2020", "02/13/2020"], "the frame, row 1, column 'ds' must be a date that exists; got '02/13/2020'"),
    ],
)
def test_a_cell_that_is_no_time_is_named(cells: Sequence[object], start: str) -> None:
    assert refusal(*cells).startswith(start)


@given(
    st.lists(
        st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{1,4}[-/][0-9Q]{1,2}([-/][0-9]{1,4})?.?", fullmatch=True)),
        min_size=1,
    )
)
def test_any_column_of_text_is_times_or_refused(cells: list[str]) -> None:
    table = column(*cells)
    looks_like_time(table.frame["ds"])
    if sentence(lambda: times(table, "ds")) is None:
        assert len(times(table, "ds").values) == len(cells)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), min_size=1, max_size=12))
def test_disorder_and_duplicates_by_brute_force(rows: list[tuple[int, int]]) -> None:
    ids, values = (np.array(part) for part in zip(*rows, strict=True))
    for who in (ids, None):
        same = [[who is None or who[i] == who[j] for j in range(i)] for i in range(len(rows))]
        before = [max((j for j in range(i) if same[i][j]), default=None) for i in range(len(rows))]
        wrong = [i for i, j in enumerate(before) if j is not None and values[i] < values[j]]
        assert find_disorder(values, who) == (wrong[0] if wrong else None)
        pairs = [(j, i) for i in range(len(rows)) for j in range(i) if same[i][j] and values[i] == values[j]]
        found = find_duplicate(values, who)
        assert (found is None) == (not pairs)
        if found is not None:
            assert found in pairs
            assert found[1] == min(i for _, i in pairs)


def test_what_holds_for_a_column_holds_across_blocks() -> None:
    cells = ["01/02/2020"] * BLOCK
    assert spell(times(column(*cells, "13/02/2020"), "ds").values[-2:], "date") == ["2020-02-01", "2020-02-13"]
    wrong = refusal(*cells, "13/02/2020", "31/02/2020")
    assert wrong.startswith(f"the frame, row {BLOCK + 1}, column 'ds' must be a date that exists")
    cells = ["2020-01-01 12:00"] * BLOCK
    assert refusal(*cells, "2020-01-01 12:00Z").startswith(f"the frame, row {BLOCK}, column 'ds' must be a time with")


def test_rows_out_of_order_and_twice_are_named() -> None:
    table = column("2020-01-02", "2020-01-03", "2020-01-01", "2020-01-03")
    found = times(table, "ds")
    with pytest.raises(ValueError, match=r"row 2, column 'ds' must not be before the row above it; got '2020-01-01'"):
        refuse_disorder(table, "ds", found)
    with pytest.raises(ValueError, match=r"row 3, column 'ds' must be a time of its own; got '2020-01-03' as in row 1"):
        refuse_duplicates(table, "ds", found)
    ids = np.array([0, 1, 1, 1])
    with pytest.raises(ValueError, match=r"row 2, .* before the row above it of its series"):
        refuse_disorder(table, "ds", found, ids)
    with pytest.raises(
        ValueError, match=r"row 3, .* a time of its own within its series; .* as in row 1\. Remove one\.$"
    ):
        refuse_duplicates(table, "ds", found, ids)
    refuse_duplicates(table, "ds", found, np.array([0, 1, 2, 3]))
