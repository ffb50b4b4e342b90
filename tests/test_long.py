"""Which column of a long table is the id, the time and the value, and the frame that comes of it."""

from __future__ import annotations

import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reading_case import sentence

from throughtime.data.labelled import from_long
from throughtime.data.long import Columns, find_columns, long_frame
from throughtime.data.tables import Table, frame_table

DAYS = ["2020-01-01", "2020-01-02", "2020-01-01"]


def table(**columns: list) -> Table:
    return frame_table(pl.DataFrame(columns))


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (table(unique_id=[1, 1], ds=[1, 2], y=[5, 6], z=[7, 8]), Columns("unique_id", "ds", "y", ("z",))),
        (table(y=[5, 6], x=[7, 8], ds=[1, 2]), Columns(None, "ds", "y", ("x",))),
        (table(date=DAYS, sales=[1, 2, 3], store=["a", "a", "b"]), Columns("store", "date", "sales")),
        (table(date=DAYS, sales=["1", "x", "3"]), Columns(None, "date", "sales")),
        (table(date=[*DAYS[:2], "Jan"], sales=["1,5", "2,5", "3"]), Columns(None, "date", "sales")),
        (table(date=DAYS, sales=[1, 2, 3], remark=["p", "q", "r"]), Columns(None, "date", "sales", ("remark",))),
        (table(Year=[1700, 1701], spots=[5, 11]), Columns(None, "Year", "spots")),
        (table(id=[1, 1], t=[0, 1], load=[5, 11]), Columns("id", "t", "load")),
        (table(load=[5.0, 11.0]), Columns(None, None, "load")),
        (table(date=[1, 2, 3], sales=[1, 2, 3], day=["Mon", "Tue", "Mon"]), Columns(None, "date", "sales", ("day",))),
        (table(date=[1, 2], sales=[1, 2], on=["no", "no"], at=["a"] * 2), Columns(None, "date", "sales", ("on", "at"))),
        (table(id=[7, 8, 9], date=[1, 2, 3], sales=[1, 2, 3]), Columns(None, "date", "sales", ("id",))),
        (table(id=[7, 8, 9], date=[1, 1, 1], sales=[1, 2, 3]), Columns("id", "date", "sales")),
        (table(series=["a", "a", "b"], date=[1, 2, 3], sales=[1, 2, 3]), Columns("series", "date", "sales")),
        (table(date=["2020-01-01", "2020-01-02"], share=["12%", "$13"]), Columns(None, "date", "share")),
    ],
)
def test_columns_are_found(given: Table, found: Columns) -> None:
    assert find_columns(given) == found


def test_columns_that_are_named_win() -> None:
    given = table(a=DAYS, b=DAYS, c=[1, 2, 3], d=[4, 5, 6], e=["p", "p", "q"])
    assert find_columns(given, time="b", value="d") == Columns("e", "b", "d", ("a", "c"))
    assert find_columns(given, time="b", value="d", id="c") == Columns("c", "b", "d", ("a", "e"))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (table(a=[1], b=[2]), "must have one column of times; none of 'a', 'b' is one. Name it with --time."),
        (
            table(a=DAYS, b=DAYS, c=[1, 2, 3]),
            "must have one column of times; 'a', 'b' can all be it. Name it with --time.",
        ),
        (
            table(d=DAYS, b=[1] * 3, c=[2] * 3),
            "must have one column of values; 'b', 'c' can all be it. Name it with --value.",
        ),
        (table(d=DAYS, b=["p", "q", "r"]), "must have one column of values; none of 'd', 'b' is left for it."),
        (
            table(d=DAYS, a=["p"] * 3, b=["q"] * 3, c=[1] * 3),
            "must have at most one column of ids; 'a', 'b' can all be it.",
        ),
    ],
)
def test_what_can_be_two_columns_is_asked_for(given: Table, said: str) -> None:
    assert said in (sentence(lambda: find_columns(given)) or "")


def test_covariates_are_none_of_the_columns_looked_for() -> None:
    given = table(date=[1, 2, 3], sales=[1, 2, 3], price=[4, 5, 6], day=["p", "q", "p"])
    assert find_columns(given, known=["price"]) == Columns(None, "date", "sales", ("day",))
    with pytest.raises(ValueError, match="must have the column 'cost'"):
        find_columns(given, known=["cost"])


def test_a_row_of_data_is_not_taken_as_the_header() -> None:
    """Else the first value of a file without a header is lost."""
    given = frame_table(pl.DataFrame({"a": ["a"], "2020-01-01": ["2020-01-02"], "3": ["4"]}))
    said = sentence(lambda: find_columns(given)) or ""
    assert "must name its columns in the first row; got 'a', '2020-01-01', '3'." in said


def test_flags_that_name_no_column_or_one_twice_are_refused() -> None:
    given = table(date=DAYS, sales=[1, 2, 3])
    with pytest.raises(ValueError, match="the frame must have the column 'day'; got 'date', 'sales'"):
        find_columns(given, time="day")
    with pytest.raises(ValueError, match="--id, --time and --value must be different columns; got 'sales', 'sales'"):
        find_columns(given, time="sales", value="sales")


def test_the_frame_has_nixtla_names_and_types() -> None:
    given = table(store=["a", "a", "b"], date=DAYS, sales=["1", "NA", "3"], price=[5, 6, 7])
    long = long_frame(given, find_columns(given, value="sales"), known=["price"])
    expected = {"unique_id": pl.String, "ds": pl.Date, "y": pl.Float64, "price": pl.Float64}
    assert dict(long.frame.schema) == expected
    assert long.kind == "date"
    assert long.frame["price"].to_list() == [5, 6, 7]
    assert np.array_equal(long.frame["y"].to_numpy(), [1, np.nan, 3], equal_nan=True)
    assert long.notes == ("the frame, column 'sales': 1 of 3 values is missing (the first in row 1).",)


def test_months_are_their_first_days_and_steps_count_within_an_id() -> None:
    long = long_frame(table(m=["2020-01", "2020-02"], v=[1, 2]), Columns(None, "m", "v"))
    assert long.kind == "month"
    assert long.frame.rows() == [("v", datetime.date(2020, 1, 1), 1.0), ("v", datetime.date(2020, 2, 1), 2.0)]
    long = long_frame(table(i=["a", "b", "a"], v=[1, 2, 3]), Columns("i", None, "v"))
    assert long.frame["ds"].to_list() == [0, 0, 1]
    assert long.kind is None
    assert long.notes == ("the frame: no column is a time; the steps are the rows, counted from 0.",)


def test_rows_are_sorted_only_when_asked_and_then_it_is_said() -> None:
    given = table(i=["b", "a", "b"], t=[2, 5, 1], v=[1, 2, 3])
    columns = Columns("i", "t", "v")
    with pytest.raises(
        ValueError, match="row 2, column 't' must not be before the row above it of its series; got '1'"
    ):
        long_frame(given, columns)
    long = long_frame(given, columns, sort=True)
    assert long.frame.rows() == [("a", 5, 2.0), ("b", 1, 3.0), ("b", 2, 1.0)]
    assert long.notes == ("the frame: row 2 goes back in time; rows are sorted by 't'.",)
    with pytest.raises(ValueError, match=r"row 1, column 't' must be a time of its own; .* with --id"):
        long_frame(table(t=[2, 2], v=[1, 2]), Columns(None, "t", "v"), sort=True)
    with pytest.raises(ValueError, match="row 1, column 'i' must name a series; got an empty cell"):
        long_frame(table(i=["a", None], t=[1, 1], v=[1, 2]), columns)


CELLS = [
    "",
    " ",
    "a",
    "NA",
    "1",
    "1.0",
    "2",
    "1e999",
    "1,5",
    "inf",
    "2020-01-01",
    "2020-01",
    "2020-01-01 12:00",
    "99/99/9999",
]
NAMES = ["unique_id", "ds", "y", "id", "date", "label", "x", "year"]
columns = st.integers(1, 5).flatmap(
    lambda rows: st.dictionaries(
        st.sampled_from(NAMES), st.lists(st.sampled_from(CELLS), min_size=rows, max_size=rows), min_size=1
    )
)


@given(columns)
def test_any_table_gives_a_frame_or_a_sentence(cells: dict[str, list[str]]) -> None:
    given = table(**cells)
    said = sentence(lambda: long_frame(given, find_columns(given), sort=True))
    if said is None:
        frame = long_frame(given, find_columns(given), sort=True).frame
        assert len(frame) == len(given)
        assert frame.unique(["unique_id", "ds"]).height == len(given)
        assert frame.equals(frame.sort("unique_id", "ds", maintain_order=True)) or frame["unique_id"].n_unique() > 1
    for missing in ("refuse", "fill", "keep"):
        if sentence(lambda missing=missing: from_long(given, missing=missing)) is None:
            found = from_long(given, missing=missing)
            assert sum(map(len, found.sequences)) == len(given)
            assert all(np.isfinite(one).all() or missing == "keep" for one in found.sequences)
