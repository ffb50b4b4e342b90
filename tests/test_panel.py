"""Panels: every kind of frame in and out, the axis of every frequency, gaps and disorder said, the rest refused."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest

from throughtime.data.axis import find_axis
from throughtime.data.panel import Columns, read_panel, trimmed, write_panel

DAYS = [dt.date(2024, 2, day) for day in (26, 27, 28, 29)]


def ahead(panel, steps: int = 2):
    numbers = [{"throughtime": np.arange(float(steps))} for _ in panel.lines]
    return write_panel(panel, [line.stop for line in panel.lines], numbers, [line.id for line in panel.lines])


def test_a_frame_comes_back_as_the_same_kind() -> None:
    frame = pl.DataFrame({"unique_id": ["b", "b", "a", "a"], "ds": [*DAYS[:2], *DAYS[:2]], "y": [1, 2, 3, None]})
    panel = read_panel(frame)
    assert [line.id for line in panel.lines] == ["b", "a"]
    assert panel.lines[0].values.tolist() == [1, 2]
    assert np.isnan(panel.lines[1].values[1])
    found = ahead(panel)
    assert isinstance(found, pl.DataFrame)
    assert found.schema == {"unique_id": pl.String, "ds": pl.Date, "throughtime": pl.Float64}
    assert found["ds"].to_list() == [DAYS[2], DAYS[3]] * 2


def test_pandas_and_pyarrow_keep_their_kind_and_types() -> None:
    pandas, pyarrow = pytest.importorskip("pandas"), pytest.importorskip("pyarrow")
    columns = {"unique_id": [7, 7], "ds": np.array(DAYS[:2], "datetime64[ns]"), "y": [1.0, 2.0]}
    frame = pandas.DataFrame(columns)
    found = ahead(read_panel(frame))
    assert type(found) is type(frame)
    assert found.dtypes["ds"] == frame.dtypes["ds"]
    assert found.dtypes["unique_id"] == frame.dtypes["unique_id"]
    assert found["ds"].dt.day.tolist() == [28, 29]
    table = ahead(read_panel(pyarrow.table({"ds": DAYS[:2], "y": [1, 2]})))
    assert isinstance(table, pyarrow.Table)
    assert table.column("ds").to_pylist() == DAYS[2:]


def test_plain_numbers_come_back_as_columns() -> None:
    found = ahead(read_panel([1, 2, 3]))
    assert found["ds"].tolist() == [3, 4]
    assert read_panel(pl.Series([1, 2])).lines[0].values.tolist() == [1, 2]
    found = ahead(read_panel({"a": [1.0, None], "b": np.arange(5)}))
    assert found["unique_id"] == ["a", "a", "b", "b"]
    assert found["ds"].tolist() == [2, 3, 5, 6]


@pytest.mark.parametrize(
    ("stamps", "step", "following"),
    [
        (["2024-01-31", "2024-02-29", "2024-03-31"], "month", ["2024-04-30", "2024-05-31"]),
        (["2024-01-01", "2024-02-01", "2024-03-01"], "month", ["2024-04-01", "2024-05-01"]),
        (["2024-01-15", "2024-02-15"], "month", ["2024-03-15", "2024-04-15"]),
        (["2023-12-31", "2024-03-31", "2024-06-30"], "quarter", ["2024-09-30", "2024-12-31"]),
        (["2023-01-01", "2024-01-01", "2025-01-01"], "year", ["2026-01-01", "2027-01-01"]),
        (["2024-02-19", "2024-02-26"], "week", ["2024-03-04", "2024-03-11"]),
        (["2024-02-28", "2024-02-29", "2024-03-01"], "day", ["2024-03-02", "2024-03-03"]),
        (["2024-02-28T23", "2024-02-29T00"], "hour", ["2024-02-29T01", "2024-02-29T02"]),
        (["2024-02-28T23:45", "2024-02-29T00:00"], "15 minutes", ["2024-02-29T00:15", "2024-02-29T00:30"]),
        (
            [f"2024-03-{day:02d}" for day in (4, 5, 6, 7, 8, 11, 12)],
            "weekday",
            ["2024-03-13", "2024-03-14"],
        ),
        (
            [f"2024-03-{day:02d}" for day in (4, 5, 6, 8, 11, 12, 13, 14, 15)],
            "weekday",
            ["2024-03-18", "2024-03-19"],
        ),
    ],
)
def test_stamps_go_on_as_they_went(stamps: list[str], step: str, following: list[str]) -> None:
    times = np.array(stamps, "datetime64[us]")
    axis = find_axis([times])
    assert axis.step == step
    places = axis.places(times)
    assert places is not None
    assert (axis.stamps(places) == times).all()
    wanted = np.array(following, "datetime64[us]")
    assert axis.stamps(places[-1] + np.array([1, 2])).tolist() == wanted.tolist()


def test_whole_numbers_and_text_are_stamps() -> None:
    panel = read_panel(pl.DataFrame({"ds": [1990, 2000, 2020], "y": [1.0, 2.0, 4.0]}))
    assert panel.axis.step == "10"
    assert panel.notes == ("1 step between the stamps has no row and is a missing value.",)
    assert np.isnan(panel.lines[0].values).tolist() == [False, False, True, False]
    assert ahead(panel)["ds"].to_list() == [2030, 2040]
    assert ahead(read_panel(pl.DataFrame({"ds": ["2020-11", "2020-12"], "y": [1, 2]})))["ds"].to_list() == [
        "2021-01",
        "2021-02",
    ]


def test_rows_are_sorted_and_gaps_filled_with_nothing_and_both_are_said() -> None:
    frame = pl.DataFrame({"ds": [DAYS[3], DAYS[0], DAYS[1]], "y": [4.0, 1.0, None]})
    panel = read_panel(frame)
    assert panel.lines[0].values[[0, 3]].tolist() == [1, 4]
    assert np.isnan(panel.lines[0].values[1:3]).all()
    said = " ".join(panel.notes)
    assert "were not in order of time and were sorted" in said
    assert "1 step between the stamps has no row" in said
    assert "1 of 4 values is missing" in said


def test_columns_have_other_names_and_covariates_follow() -> None:
    frame = pl.DataFrame({"shop": ["x", "x"], "day": DAYS[:2], "sold": [1, 2], "price": [3.0, None]})
    panel = read_panel(frame, Columns("shop", "day", "sold", ("price",)))
    assert panel.lines[0].covariates[0] == 3
    assert np.isnan(panel.lines[0].covariates[1])
    assert ahead(panel).columns == ["shop", "day", "throughtime"]
    future = pl.DataFrame({"shop": ["x"], "day": [DAYS[2]], "price": [5.0]})
    later = read_panel(future, panel.columns, axis=panel.axis, values=False)
    assert later.lines[0].start == 2
    assert later.lines[0].covariates.tolist() == [[5.0]]


def test_what_comes_before_the_first_value_is_left_out_and_said() -> None:
    lines, notes = trimmed(read_panel([np.nan, np.nan, 1.0, np.nan]))
    assert lines[0].start == 2
    assert len(lines[0].values) == 2
    assert notes[0] == "2 steps before the first value of their series were left out."


def test_refusals() -> None:
    day = {"ds": DAYS, "y": [1.0, 2, 3, 4]}
    cases = [
        ({"ds": DAYS}, "data must have a column 'y'; got 'ds'"),
        ({**day, "y": list("abcd")}, "y must be numbers; got String"),
        ({**day, "y": [1, np.inf, 2, 3]}, "y must be finite or missing; got an infinity in row 1"),
        ({**day, "ds": [DAYS[0], DAYS[0], DAYS[1], DAYS[2]]}, "ds must not come twice in a series; got 2024-02-26"),
        ({**day, "ds": [None, *DAYS[:3]]}, "ds must have a stamp in every row; got 1 missing"),
        ({**day, "ds": ["x", "y", "z", "w"]}, "ds must be dates .* got 'x'"),
        ({**day, "ds": [0.5, 1, 2, 3]}, "ds must be dates or whole numbers; got 0.5"),
        ({**day, "unique_id": ["a", None, "a", "a"]}, "unique_id must have an id in every row; got 1 missing"),
        ({"ds": [], "y": []}, "data must have at least one row"),
        ({"ds": DAYS[:1], "y": [1]}, "time must have at least two stamps"),
        ({**day, "ds": [DAYS[0], DAYS[1], dt.date(2024, 3, 9), dt.date(2029, 3, 9)]}, "time must go in equal steps"),
    ]
    for columns, sentence in cases:
        with pytest.raises(ValueError, match=sentence):
            read_panel(pl.DataFrame(columns, strict=False))
    zoned = pl.DataFrame({"ds": [dt.datetime(2024, 1, 1, tzinfo=dt.UTC)], "y": [1]})
    with pytest.raises(ValueError, match="without a time zone; got UTC"):
        read_panel(zoned)
    with pytest.raises(TypeError, match="data must be a pandas, polars or pyarrow frame"):
        read_panel(3.0)
    with pytest.raises(ValueError, match="values must be finite; got inf at step 1"):
        read_panel([1, np.inf])
    with pytest.raises(ValueError, match="values of 'a' must be one row of numbers"):
        read_panel({"a": []})
    panel = read_panel(pl.DataFrame({**day, "unique_id": ["a"] * 4}))
    late = pl.DataFrame({"unique_id": ["a"], "ds": [dt.datetime(2024, 3, 1, 7)], "y": [1.0]})
    with pytest.raises(ValueError, match="ds of 'a' must lie on the axis of the other stamps"):
        read_panel(late, axis=panel.axis)


def test_stamps_of_another_kind_or_with_an_offset_are_refused() -> None:
    days = pl.DataFrame({"ds": [dt.date(2020, 1, 1), dt.date(2020, 1, 2)], "y": [1.0, 2.0]})
    steps = pl.DataFrame({"ds": [1, 2], "y": [1.0, 2.0]})
    with pytest.raises(ValueError, match="ds must be dates, as those before; got 1"):
        read_panel(steps, axis=read_panel(days).axis)
    with pytest.raises(ValueError, match="ds must be whole numbers, as those before; got 2020-01-01"):
        read_panel(days, axis=read_panel(steps).axis)
    text = pl.DataFrame({"ds": ["2020-01-01T00:00+01:00", "2020-01-02T00:00+01:00"], "y": [1.0, 2.0]})
    with pytest.raises(ValueError, match="without an offset from UTC; got '2020-01-01T00:00"):
        read_panel(text)


def test_series_whose_steps_lie_between_each_other_are_refused() -> None:
    days = [np.datetime64("2020-01-06") + first + 7 * np.arange(5) for first in (0, 1)]
    with pytest.raises(ValueError, match="each goes in steps of week, but one from 2020-01-06 and one from 2020-01-07"):
        find_axis([one.astype("datetime64[us]") for one in days])
    with pytest.raises(ValueError, match="each goes in steps of 5, but one from 0 and one from 3, between two"):
        find_axis([np.arange(0, 25, 5), np.arange(3, 28, 5)])


def test_one_missing_value_is_one() -> None:
    assert read_panel([1.0, None, 3.0]).notes == ("1 of 3 values is missing.",)


def test_columns_that_are_not_used_are_said() -> None:
    frame = pl.DataFrame({"ds": [1, 2], "y": [1.0, 2.0], "price": [3.0, 4.0]})
    assert read_panel(frame).notes == ("Not used: 'price'. Columns known ahead are named in known_future.",)
    assert read_panel(frame, Columns(known=("price",))).notes == ()
