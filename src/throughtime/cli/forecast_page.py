"""The page of a forecast: how good it was on the past, beside simple methods and without memory, and its fans."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from throughtime.cli.estimating import described, thinned
from throughtime.data.long import ID, TIME, VALUE, Columns
from throughtime.data.times import Kind
from throughtime.estimators import Forecaster
from throughtime.estimators.backtest import Backtest
from throughtime.pictures import ErrorByHorizon, ForecastFan
from throughtime.task_report import Table, TaskSummary, how_well, what_memory_adds

NETWORK, ANCHOR, WITHOUT = "throughtime", "anchor", "network without memory"
DRAWN = 3
"""Series whose forecasts are drawn."""


@dataclass(frozen=True)
class Data:
    """unique_id, ds, y and the known columns up to the last value; future: the known columns beyond it."""

    frame: pl.DataFrame
    future: pl.DataFrame | None
    notes: tuple[str, ...]
    columns: Columns | None
    times: Kind | None = None

    def lengths(self) -> pl.DataFrame:
        return self.frame.group_by(ID, maintain_order=True).len()


@dataclass(frozen=True)
class Judged:
    """The network and the one without memory on the past; None where there is too little of it."""

    with_memory: Backtest
    without: Backtest | None


def summary_of(
    path: Path, data: Data, model: Forecaster, found: pl.DataFrame, judged: Judged | None, again: str
) -> TaskSummary:
    """What the page tells of a fitted forecaster, its forecast, and how well it did on the past."""
    series = data.frame[ID].n_unique()
    many = f"{series:,} series" if series > 1 else "one series"
    seconds = model.records_[-1]["seconds"] if model.records_ else 0.0
    summary = TaskSummary(
        title=f"{path.resolve().name}: the next {model.horizon:,} steps of {many}",
        sentence=f"A network, {described(model.net_)}, learned from {data.frame.height:,} values: "
        f"{len(model.records_):,} updates in {seconds:,.0f} seconds.",
        notes=[*data.notes, *_new(model.notes_, data.notes), *_width(found)],
        records=_courses(model.records_),
        unit="value",
        measure="loss",
        pictures=list(_fans(data, found, judged)),
        reproduce=again,
        config={name: str(value) for name, value in model.get_params().items()},
    )
    if series > DRAWN:
        summary = replace(summary, missing=[f"Drawn are the first {DRAWN} of {series:,} series."])
    if judged is None:
        missing = "How well: the series is too short to forecast a stretch of its past; nothing is known of the error."
        return replace(summary, missing=[missing, *summary.missing])
    scores = scores_of(judged)
    measure = "MASE" if np.isfinite(scores[NETWORK]["MASE"]) else "sMAPE"  # MASE has no unit on a constant past
    simple = {name: row[measure] for name, row in scores.items() if name not in (NETWORK, ANCHOR, WITHOUT)}
    own = scores[NETWORK][measure]
    without = None if judged.without is None else scores[WITHOUT][measure]
    measures = list(scores[NETWORK])
    rows = [[name, *(row.get(measure) for measure in measures)] for name, row in scores.items()]
    errors = {name: table[measure] for name, table in judged.with_memory.by_horizon.items() if name != ANCHOR}
    if judged.without is not None:
        errors[WITHOUT] = judged.without.by_horizon[NETWORK][measure]
    return replace(
        summary,
        cards=[
            replace(
                how_well(measure, own, others=simple, lower_is_better=True),
                text=judged.with_memory.summary,
            ),
            what_memory_adds(measure, own, without=without, lower_is_better=True),
        ],
        tables=[Table(heading="On the last stretches of the past", columns=("", *measures), rows=rows)],
        pictures=[*summary.pictures, ErrorByHorizon(errors, measure=measure)],
        advice=_advice(own, simple),
        notes=[*summary.notes, judged.with_memory.notes[-1]],
    )


def _courses(records: Sequence[Any]) -> Any:
    """The records of a training, or by name those of several networks, one after the other."""
    starts = [
        place for place, record in enumerate(records) if not place or record["update"] <= records[place - 1]["update"]
    ]
    parts = [thinned(records[start:stop]) for start, stop in pairwise([*starts, len(records)])]
    return parts[0] if len(parts) == 1 else {f"network {k + 1}": part for k, part in enumerate(parts)}


def _new(notes: Sequence[str], told: Sequence[str]) -> list[str]:
    """The notes without the number of missing values where the table's notes, which name the first, have it."""
    return [note for note in notes if not any(f": {note.split(' of ')[0]} of " in said for said in told)]


def _width(found: pl.DataFrame) -> list[str]:
    """A sentence where an interval is nothing but the forecast."""
    lows = [name for name in found.columns if name.startswith(f"{NETWORK}-lo-")]
    if not lows or (found[lows[0]] < found[NETWORK]).any():
        return []
    return ["The intervals have no width: the past has no errors, or too few, to tell one from."]


def scores_of(judged: Judged | None) -> dict[str, dict[str, float]]:
    """Of the network, the baselines and the network without memory, by measure."""
    if judged is None:
        return {}
    scores = {name: dict(row) for name, row in judged.with_memory.scores.items()}
    if judged.without is not None:
        scores[WITHOUT] = dict(judged.without.scores[NETWORK])
    return scores


def _advice(own: float, simple: dict[str, float]) -> list[str]:
    best = min(simple, key=lambda name: simple[name] if simple[name] == simple[name] else np.inf, default=None)
    if best is None or not simple[best] < own:
        return []
    return [f"Use the {best} forecast, which does better here, or give the network a longer series."]


def _fans(data: Data, found: pl.DataFrame, judged: Judged | None) -> Iterator[ForecastFan]:
    """Of the first series: the last stretch of the past against what happened, and the future."""
    what = "value" if data.columns is None else data.columns.value
    for one in data.frame[ID].unique(maintain_order=True).to_list()[:DRAWN]:
        past = data.frame.filter(pl.col(ID) == one)
        if judged is not None:
            windows = judged.with_memory.forecasts.filter(pl.col(ID) == one)
            last = windows.filter(pl.col("cutoff") == windows["cutoff"].max())
            before = past.filter(pl.col(TIME) <= last["cutoff"][0])
            simple = {name: last[name].to_numpy() for name in _baselines(last)}
            yield _fan(before, last, one, what, happened=last[VALUE].to_numpy(), baselines=simple)
        yield _fan(past, found.filter(pl.col(ID) == one), one, what)


def _baselines(frame: pl.DataFrame) -> list[str]:
    """The columns of a backtest that are points of a baseline."""
    plain = (ID, TIME, "cutoff", VALUE, NETWORK, ANCHOR)
    return [name for name in frame.columns if name not in plain and "-lo-" not in name and "-hi-" not in name]


def _fan(past: pl.DataFrame, ahead: pl.DataFrame, name: Any, what: str, **known: Any) -> ForecastFan:
    levels = [part.split("-lo-")[1] for part in ahead.columns if part.startswith(f"{NETWORK}-lo-")]
    bound = lambda end, level: ahead[f"{NETWORK}-{end}-{level}"].to_numpy()  # noqa: E731
    bands = {float(level): (bound("lo", level), bound("hi", level)) for level in levels}
    return ForecastFan(
        time=past[TIME].to_numpy(),
        history=past[VALUE].to_numpy(),
        ahead=ahead[TIME].to_numpy(),
        median=ahead[NETWORK].to_numpy(),
        bands=bands,
        name=str(name),
        value=what,
        **known,
    )
