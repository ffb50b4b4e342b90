"""Rolling origins: what the forecaster and its baselines would have said before, against what came.

A window is an origin and the H steps after it; the last window ends with the series. Season, scaling, anchors, orders
and the network are learned from what comes before the first origin (refit: before each); at later origins the state
is only carried on, and the baselines read the values up to there. MASE and RMSSE divide by the errors of the (seasonal)
naive forecast before the first origin. The baselines are the naive forecast, the seasonal
naive one, the straight line through the first and the last value, and the linear autoregression. The quantiles of one
are its forecast plus those of its own errors before
the first origin, at each horizon. CRPS is that of 20 quantiles, at 0.025, 0.075, ... 0.975.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from throughtime import scores
from throughtime.baselines.series import Linear, Numbers, autoregression, drift, naive, seasonal_naive
from throughtime.data.panel import Line, Panel, write_panel
from throughtime.estimators.anchor import ahead_of, carried

NETWORK, ANCHOR = "throughtime", "anchor"
LEVELS = (np.arange(20) + 0.5) / 20
"""Of the quantiles that CRPS is taken from."""
LEAD = 0.01
"""MASEs that differ by less than this share are called level."""
ERRORS = 5000
"""Origins that a baseline's own errors are taken from at most."""


class Walker(Protocol):
    """What a backtest asks of a forecaster: see Forecaster."""

    notes_: tuple[str, ...]
    share_: float
    season_: float

    def fit_panel(self, panel: Panel) -> Any: ...
    def move_lines(self, lines: Sequence[Line]) -> Any: ...
    def quantiles_of(self, id: Any, steps: int, wanted: Numbers, covariates: Numbers) -> Numbers: ...
    def anchor_of(self, id: Any, steps: int, covariates: Numbers) -> Numbers: ...


@dataclass(frozen=True)
class Backtest:
    """forecasts  a frame as was given: id, time, cutoff (the origin's stamp), y, and a column for each model and bound.

    scores      by model and measure: MASE, RMSSE, sMAPE, CRPS, coverage-50, ...; by_horizon: the same, (H,) numbers.
    summary     one sentence: which baselines the network beats, and which it loses to. notes: what was done.
    """

    forecasts: Any
    scores: Mapping[str, Mapping[str, float]]
    by_horizon: Mapping[str, Mapping[str, Numbers]]
    summary: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Window:
    """One origin of one series: values (H,) that came, quantiles (H, Q) by model, and what to scale by."""

    id: Any
    start: int
    y: Numbers
    quantiles: Mapping[str, Numbers]
    past: Numbers


def walk(
    fresh: Any, panel: Panel, *, windows: int, step: int, horizon: int, level: Sequence[float], refit: bool
) -> Backtest:
    """Run the windows with forecasters from fresh() and score them. Raises ValueError when a series is too short."""
    origins = {line.id: _origins(line, windows, step, horizon) for line in panel.lines}
    wanted = np.concatenate([LEVELS, [0.5], *([0.5 - one / 200, 0.5 + one / 200] for one in level)])
    found: list[_Window] = []
    walker: Walker | None = None
    baselines: dict[Any, dict[str, tuple[Linear, Numbers]]] = {}
    for k in range(windows):
        if walker is None or refit:
            walker = fresh()
            cut = [_part(line, 0, origins[line.id][k]) for line in panel.lines]
            walker.fit_panel(replace(panel, lines=tuple(cut)))
            season = _whole(walker.season_)
            baselines = {line.id: _fitted(line.values, season, horizon, wanted) for line in cut}
        else:
            walker.move_lines([_part(line, origins[line.id][k - 1], origins[line.id][k]) for line in panel.lines])
        found += [
            _window(walker, line, origins[line.id], k, horizon, wanted, baselines[line.id]) for line in panel.lines
        ]
    assert walker is not None
    season = _whole(walker.season_)
    table, by_horizon = _scores(found, level, season), _by_horizon(found, level, season, horizon)
    policy = "fitted before each origin" if refit else "fitted once, before the first origin, then carried on"
    notes = (
        *walker.notes_,
        f"Backtest: {_many(windows, 'window')} of {_many(horizon, 'step')}, {step} apart, {policy}.",
    )
    summary = _summary(table, windows, horizon, walker.share_)
    return Backtest(_frame(panel, found, level), table, by_horizon, summary, notes)


def _whole(season: float) -> int:
    return max(1, round(season))


def _origins(line: Line, windows: int, step: int, horizon: int) -> list[int]:
    """How many values each origin has before it."""
    origins = [len(line.values) - horizon - (windows - 1 - k) * step for k in range(windows)]
    if origins[0] < 2 or np.isnan(line.values[: max(origins[0], 0)]).all():
        raise ValueError(
            f"data must have at least {horizon + (windows - 1) * step + 2} steps a series for {windows} windows of "
            f"{horizon}, {step} apart; got {len(line.values)}. Ask for fewer or shorter windows."
        )
    return origins


def _part(line: Line, start: int, stop: int) -> Line:
    return Line(line.id, line.start + start, line.values[start:stop], line.covariates[start:stop])


def _fitted(past: Numbers, season: int, horizon: int, wanted: Numbers) -> dict[str, tuple[Linear, Numbers]]:
    """The baselines of a past, and the wanted quantiles (H, Q) of their own errors there."""
    models = [naive(), replace(drift(past), name="straight line")]
    if season > 1:
        models.insert(1, seasonal_naive(season))
    filled = carried(past)
    found = {}
    for model in [*models, autoregression(past, season=season)]:
        origins = np.arange(min(model.reach, len(past) - 2), len(past) - 1)[-ERRORS:]
        errors = ahead_of(past, origins, horizon) - model.paths(filled, origins, horizon)
        spans = np.zeros((horizon, len(wanted)))
        for h in range(horizon):
            known = errors[:, h][~np.isnan(errors[:, h])]
            spans[h] = np.quantile(known, wanted) if len(known) >= 3 else spans[max(0, h - 1)]
        found[model.name] = model, spans
    return found


def _window(
    walker: Walker,
    line: Line,
    origins: list[int],
    k: int,
    horizon: int,
    wanted: Numbers,
    baselines: Mapping[str, tuple[Linear, Numbers]],
) -> _Window:
    at = origins[k]
    covariates = line.covariates[at : at + horizon]
    filled = carried(line.values[:at])
    quantiles = {
        NETWORK: walker.quantiles_of(line.id, horizon, wanted, covariates),
        ANCHOR: np.repeat(walker.anchor_of(line.id, horizon, covariates)[:, None], len(wanted), 1),
    }
    middle = len(LEVELS)
    for name, (model, spans) in baselines.items():
        point = model.paths(filled, np.array([at - 1]), horizon)[0]
        table = point[:, None] + spans
        table[:, middle] = point
        quantiles[name] = table
    return _Window(line.id, line.start + at, line.values[at : at + horizon], quantiles, line.values[: origins[0]])


def _scores(found: Sequence[_Window], level: Sequence[float], season: int) -> dict[str, dict[str, float]]:
    return {model: _measures(found, model, level, season) for model in found[0].quantiles}


def _by_horizon(
    found: Sequence[_Window], level: Sequence[float], season: int, horizon: int
) -> dict[str, dict[str, Numbers]]:
    steps = []
    for h in range(horizon):
        part = slice(h, h + 1)
        cut = [
            replace(one, y=one.y[part], quantiles={name: table[part] for name, table in one.quantiles.items()})
            for one in found
        ]
        steps.append(_scores(cut, level, season))
    return {
        model: {name: np.array([step[model][name] for step in steps]) for name in steps[0][model]} for model in steps[0]
    }


def _measures(found: Sequence[_Window], model: str, level: Sequence[float], season: int) -> dict[str, float]:
    """The scores of one model: each series' own, averaged over the series that have one."""
    names = ["MASE", "RMSSE", "sMAPE", *([] if model == ANCHOR else ["CRPS", *(f"coverage-{one:g}" for one in level)])]
    middle = len(LEVELS)
    rows = []
    windows: dict[Any, list[_Window]] = {}
    for window in found:
        windows.setdefault(window.id, []).append(window)
    for own in windows.values():
        y = np.concatenate([window.y for window in own])
        table = np.concatenate([window.quantiles[model] for window in own])
        if np.isnan(y).all():
            continue
        point, past = table[:, middle], own[0].past
        row = [scores.mase(y, point, past, season=season), scores.rmsse(y, point, past, season=season)]
        row.append(scores.smape(y, point))
        if model != ANCHOR:
            row.append(scores.crps_quantiles(y, np.sort(table[:, :middle], 1), LEVELS))
            for place in range(len(level)):
                low, high = table[:, middle + 1 + 2 * place], table[:, middle + 2 + 2 * place]
                row.append(scores.coverage(y, low, high))
        rows.append(row)
    if not rows:
        return dict.fromkeys(names, float("nan"))
    return dict(zip(names, (_mean(column) for column in np.array(rows).T), strict=True))


def _mean(column: Numbers) -> float:
    known = column[~np.isnan(column)]
    return float(known.mean()) if len(known) else float("nan")


def _summary(table: Mapping[str, Mapping[str, float]], windows: int, horizon: int, share: float) -> str:
    own = table[NETWORK]["MASE"]
    told = f"{_many(windows, 'window')} of {_many(horizon, 'step')}"
    if np.isnan(own):
        return f"Over {told} MASE has no unit: the naive forecast, seasonal where there is a season, was never wrong."
    verdicts: dict[str, list[str]] = {"beats": [], "is level with": [], "loses to": []}
    for name, row in table.items():
        if name in (NETWORK, ANCHOR):
            continue
        other = row["MASE"]
        near = abs(own - other) <= LEAD * max(own, other)
        verdict = "is level with" if near else "beats" if own < other else "loses to"
        verdicts[verdict].append(f"the {name} ({other:.3g})")
    said = "; it ".join(f"{verdict} {_listed(names)}" for verdict, names in verdicts.items() if names)
    alone = table[ANCHOR]["MASE"]
    part = f"Its linear anchor alone has {alone:.3g}" + ("; the network has no share in it." if share <= 0 else ".")
    return f"Over {told} the network's MASE is {own:.3g}: it {said}. {part}"


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _frame(panel: Panel, found: Sequence[_Window], level: Sequence[float]) -> Any:
    middle = len(LEVELS)
    tables = []
    for window in found:
        columns = {"cutoff": np.full(len(window.y), window.start - 1), "y": window.y}
        for model, table in window.quantiles.items():
            columns[model] = table[:, middle]
            for place, one in enumerate(level if model != ANCHOR else ()):
                columns[f"{model}-lo-{one:g}"] = table[:, middle + 1 + 2 * place]
                columns[f"{model}-hi-{one:g}"] = table[:, middle + 2 + 2 * place]
        tables.append(columns)
    return write_panel(panel, [window.start for window in found], tables, [window.id for window in found])


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
