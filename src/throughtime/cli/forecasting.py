"""What `forecast` does: judge a forecaster on the last stretches of a series, forecast its future, keep it as a run."""

from __future__ import annotations

import json as jsonlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
import polars as pl

from throughtime.cli.estimating import (
    changed,
    check_folder,
    check_options,
    command_line,
    keep,
    units_for,
    working,
)
from throughtime.cli.folders import free_folder
from throughtime.cli.forecast_page import Data, Judged, scores_of, summary_of
from throughtime.cli.task_options import SeriesOptions, TaskOptions, parameters
from throughtime.data.long import ID, TIME, VALUE, Columns, find_columns, long_frame
from throughtime.data.tables import read_table
from throughtime.data.times import Kind, spell
from throughtime.estimators import Forecaster
from throughtime.estimators.saving import load_estimator
from throughtime.nets import Network, build, parameters_of
from throughtime.runs import Run
from throughtime.task_report import TaskSummary, write_task_report

FORECAST = "forecast.csv"
WINDOWS = 5
"""Stretches of the past that are forecast, where there is room; no more than half of the series is spent on them."""
SHOWN = 40
"""Rows of a forecast that are printed."""


def forecast(
    file: str | None,
    values: str | None,
    horizon: int,
    columns: SeriesOptions,
    options: TaskOptions,
    folder: str | None,
    *,
    json: bool,
    report: bool,
) -> int:
    """The exit code."""
    if (file is None) == (values is None):
        raise ValueError("FILE or --values must be given, not both: a CSV or Parquet file, or numbers such as 2,4,6.")
    check_options(options)
    levels = _levels(columns.level)
    data = _values(values, columns) if values is not None else _file(str(file), columns, horizon)
    path = Path(folder) if folder else free_folder(() if file is None else (file,), "values")
    check_folder(path)
    model = _forecaster(horizon, columns, options)
    with working(f"Training the network on {data.frame.height:,} values"):
        model.fit(data.frame)
    judged = _judge(model, data, horizon, columns, options, levels)
    found = model.predict(horizon, level=levels, future=data.future)
    again = _again(file, values, horizon, columns, options)
    run = keep(model, path, {"command": {"name": "forecast", "again": again}, "data": _section(data, levels)})
    try:
        _spelled(found, data.times).write_csv(run.path / FORECAST)
        summary = summary_of(path, data, model, found, judged, again)
        if report:
            page = write_task_report(run.path, summary)
    except BaseException:  # Ctrl-C too: a run without its forecast or page is none
        run.discard()
        raise
    if json:
        scores = {name: {key: _finite(one) for key, one in row.items()} for name, row in scores_of(judged).items()}
        print(jsonlib.dumps({"forecast": _rows(found), "scores": scores, "notes": summary.notes}, allow_nan=False))
        return 0
    _say(run, summary, found)
    if report:
        print(f"Report: {page}")
    print(f"Go on, with new rows: throughtime predict {quote(str(run.path))} FILE", flush=True)
    return 0


def predict(run: Run, file: str | None, text: str | None) -> tuple[str, list[str]]:
    """The forecast of a saved forecaster as CSV, after the rows of a file if there is one; and what was done to it."""
    if text is not None:
        raise ValueError(f"--text must be left out with {run.path}, which forecasts series. Give a FILE of new rows.")
    model, section = load_estimator(run.path), run.config["data"]
    notes: list[str] = []
    future = None
    if file is not None:
        places = {"id": section.get("id"), "time": section.get("time"), "value": section.get("value")}
        table = read_table(file)
        columns = find_columns(table, **places) if section.get("value") else find_columns(table)
        long = long_frame(table, columns, known=model.known_future)
        frame, future = _parted(_going_on(long.frame, columns, model), model.known_future, model.horizon)
        model.update(frame)
        notes += (note.replace("counted from 0", "which follow the last one seen") for note in long.notes)
    elif model.known_future:
        raise ValueError(f"FILE must be given: {', '.join(model.known_future)} of the steps to forecast are needed.")
    found = model.predict(level=section["level"], future=future)
    return _spelled(found, section.get("times")).write_csv(), notes


def _going_on(frame: pl.DataFrame, columns: Columns, model: Forecaster) -> pl.DataFrame:
    """New rows without a column of ids are of the one series that there is; without times they follow its last step."""
    ids = list(model.standings_)
    if columns.id is None and len(ids) == 1:
        frame = frame.with_columns(pl.lit(ids[0]).alias(ID))
    if columns.time is None and frame[ID][0] in ids and model.panel_.axis.kind == "number":
        stop = model.panel_.axis.stamps(np.array([model.standings_[frame[ID][0]].stop]))[0]
        frame = frame.with_columns(pl.col(TIME) * model.panel_.axis.every + stop)
    return frame


# The data


def _levels(spelled: str) -> list[float]:
    try:
        levels = [float(part) for part in spelled.split(",") if part.strip()]
    except ValueError:
        levels = [0.0]
    if not all(0 < level < 100 for level in levels):
        raise ValueError(f"--level must be percentages between 0 and 100, such as 50,90; got {spelled!r}.")
    return sorted(set(levels))


def _values(spelled: str, columns: SeriesOptions) -> Data:
    """A series in hand, its steps counted from 1."""
    for name in ("time", "value", "id", "known", "sort"):
        if getattr(columns, name):
            raise ValueError(f"--{name} must be left out with --values, which have no columns.")
    numbers = []
    for place, part in enumerate(spelled.split(",")):
        try:
            numbers.append(float(part))
        except ValueError:
            numbers.append(np.inf)
        if not np.isfinite(numbers[-1]):
            raise ValueError(
                f"--values must be finite numbers with commas between, such as 2,4,6; number {place + 1} is {part!r}."
            )
    steps = np.arange(1, len(numbers) + 1)
    return Data(pl.DataFrame({ID: ["values"] * len(numbers), TIME: steps, VALUE: numbers}), None, (), None)


def _file(file: str, columns: SeriesOptions, horizon: int) -> Data:
    table = read_table(file)
    found = find_columns(table, id=columns.id, time=columns.time, value=columns.value, known=columns.known)
    long = long_frame(table, found, known=columns.known, sort=columns.sort)
    frame, future = _parted(long.frame, columns.known, horizon)
    notes = [*long.notes]
    if found.unused:
        notes.append(
            f"{table.name}: not used: {', '.join(map(repr, found.unused))}. A column known ahead goes with --known."
        )
    return Data(frame, future, tuple(notes), found, long.kind)


def _parted(frame: pl.DataFrame, known: Sequence[str], horizon: int) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """The rows up to the last value of each series, and those beyond it, which the known columns are there for."""
    if not known:
        return frame, None
    row = pl.int_range(pl.len()).over(ID)
    last = pl.when(pl.col(VALUE).is_not_nan()).then(pl.int_range(pl.len())).max().over(ID)
    beyond = frame.select((row > last).alias("beyond"))["beyond"].fill_null(True)
    future = frame.filter(beyond).drop(VALUE)
    least = 0 if not future.height else int(future.group_by(ID).len()["len"].min())  # type: ignore[arg-type]
    if least < horizon or future[ID].n_unique() < frame[ID].n_unique():
        raise ValueError(
            f"--known must name columns that go on {horizon} rows after the last value of each series; "
            f"got {least}. Add rows with these columns and no value."
        )
    return frame.filter(~beyond), future


# The work


def _forecaster(horizon: int, columns: SeriesOptions, options: TaskOptions, *, memory: bool = True) -> Forecaster:
    return Forecaster(horizon, season=columns.season, known_future=columns.known, **parameters(options, memory=memory))


def _judge(
    model: Forecaster, data: Data, horizon: int, columns: SeriesOptions, options: TaskOptions, levels: list[float]
) -> Judged | None:
    """The last stretches forecast from what came before them; None where the shortest series has no room for one."""
    shortest = int(data.lengths()["len"].min())  # type: ignore[arg-type]
    ahead = horizon if shortest >= 4 * horizon else max(1, shortest // 4)
    room = (shortest - 2) // ahead // 2
    windows = min(WINDOWS, room) if columns.windows is None else columns.windows
    if windows < 1:
        return None
    said = f"{windows} stretch{'es' * (windows > 1)} of the past"
    with working(f"Judging the network on {said}"):
        found = model.backtest(data.frame, windows=windows, level=levels, horizon=ahead)
    bare = _without(model, horizon, columns, options)
    with working("Judging the network without memory"):
        without = bare.backtest(data.frame, windows=windows, level=levels, horizon=ahead)
    return Judged(found, without)


def _without(model: Forecaster, horizon: int, columns: SeriesOptions, options: TaskOptions) -> Forecaster:
    """The forecaster without memory, with as many weights as the fitted one; its own measure is a GRU's."""
    fitted: Any = model.net_
    config = fitted.config()
    net = config.get("nets", [config])[0]
    if net["cell"] != "gru":
        sizes = {name: net[name] for name in ("inputs", "outputs", "layers")}
        units = units_for(parameters_of(build(net)), lambda units: Network("gru", units=units, **sizes))
        options = replace(options, units=units)
    return _forecaster(horizon, columns, options, memory=False)


def _again(file: str | None, values: str | None, horizon: int, columns: SeriesOptions, options: TaskOptions) -> str:
    given: dict[str, Any] = {"values": values, "horizon": horizon, **changed(columns), **changed(options)}
    known = given.pop("known", ())
    words = ["throughtime", "forecast", *([] if file is None else [file])]
    return " ".join([command_line(words, given), *(f"--known {quote(name)}" for name in known)])


def _section(data: Data, levels: list[float]) -> dict[str, Any]:
    names = {} if data.columns is None else {n: getattr(data.columns, n) for n in ("id", "time", "value")}
    return {"kind": "series", "level": levels, "times": data.times, **names}


# What is told


def _finite(score: float) -> float | None:
    """JSON has no NaN: a score without a value is null."""
    return float(score) if np.isfinite(score) else None


def _spelled(found: pl.DataFrame, times: Kind | None) -> pl.DataFrame:
    """The forecast with its times as the file had them: 2024-03 for a month, 2024Q1 for a quarter."""
    if times not in ("month", "quarter"):
        return found
    return found.with_columns(pl.Series(TIME, spell(found[TIME].to_numpy(), times)))


def _rows(found: pl.DataFrame) -> list[dict[str, Any]]:
    times = found.with_columns(pl.col(TIME).cast(pl.String)) if found[TIME].dtype.is_temporal() else found
    return [
        {name: _finite(one) if isinstance(one, float) else one for name, one in row.items()} for row in times.to_dicts()
    ]


def _say(run: Run, summary: TaskSummary, found: pl.DataFrame) -> None:
    print("\n".join(summary.notes))
    for card in summary.cards:
        print(f"{card.heading}: {card.text}")
    for line in summary.missing:
        print(line)
    for step in summary.advice:
        print(step)
    if found.height <= SHOWN:
        sys.stdout.write(found.write_csv(float_precision=6))
    else:
        print(f"{found.height:,} rows: {run.path / FORECAST}")
