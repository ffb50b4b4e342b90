"""Backtests: every forecast is what a forecaster fitted and carried to its origin says, scored as by hand."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import polars as pl
import pytest

from throughtime import scores
from throughtime.baselines import autoregression, naive, seasonal_naive
from throughtime.estimators.forecaster import Forecaster

QUICK: dict[str, Any] = {"updates": 40, "units": 6, "networks": 1, "random_state": 0, "horizon": 4}
MODELS = ["throughtime", "anchor", "naive", "seasonal naive", "straight line", "linear autoregression"]


def values(steps: int = 160, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return 10 + 3 * np.sin(np.arange(steps) * 2 * np.pi / 7) + random.normal(size=steps)


def frame(y: np.ndarray) -> pl.DataFrame:
    days = [dt.date(2021, 1, 1) + dt.timedelta(days=k) for k in range(len(y))]
    return pl.DataFrame({"ds": days, "y": y})


def test_each_window_is_a_forecast_from_its_past_alone() -> None:
    y = values()
    found = Forecaster(**QUICK).backtest(frame(y), windows=3, step=5, level=[80]).forecasts
    model = Forecaster(**QUICK).fit(frame(y[:146]))
    for k, origin in enumerate((146, 151, 156)):
        if k:
            model.update(frame(y)[origin - 5 : origin])
        rows = found.filter(pl.col("cutoff") == dt.date(2021, 1, 1) + dt.timedelta(days=origin - 1))
        assert rows["y"].to_numpy() == pytest.approx(y[origin : origin + 4])
        wanted = model.predict(level=[80])
        assert rows["ds"].to_list() == wanted["ds"].to_list()
        for name in wanted.columns[1:]:
            assert rows[name].to_numpy() == pytest.approx(wanted[name].to_numpy(), rel=1e-6)
        past = y[:origin]
        assert rows["seasonal naive"].to_numpy() == pytest.approx(seasonal_naive(7).forecast(past, 4))
        assert rows["naive"].to_numpy() == pytest.approx(naive().forecast(past, 4))
        linear = autoregression(y[:146], season=7)
        assert rows["linear autoregression"].to_numpy() == pytest.approx(linear.forecast(past, 4))


def test_what_comes_after_an_origin_changes_nothing_before_it() -> None:
    y = values()
    spoiled = y.copy()
    spoiled[150:] = 1e6
    for refit in (False, True):
        one, two = (Forecaster(**QUICK).backtest(frame(v), windows=3, step=4, refit=refit) for v in (y, spoiled))
        first = one.forecasts["cutoff"][0]
        columns = pl.selectors.numeric() - pl.selectors.by_name("y")
        a, b = (t.forecasts.filter(pl.col("cutoff") == first).select(columns).to_numpy() for t in (one, two))
        assert (a == b).all()


def test_scores_are_those_of_the_forecasts() -> None:
    y = values()
    found = Forecaster(**QUICK).backtest(frame(y), windows=3, step=5, level=[50, 80])
    table, past = found.forecasts, y[:146]
    assert list(found.scores) == MODELS
    for name in MODELS:
        own = found.scores[name]
        came, said = table["y"].to_numpy(), table[name].to_numpy()
        assert own["MASE"] == pytest.approx(scores.mase(came, said, past, season=7))
        assert own["RMSSE"] == pytest.approx(scores.rmsse(came, said, past, season=7))
        assert own["sMAPE"] == pytest.approx(scores.smape(came, said))
        by = found.by_horizon[name]["MASE"]
        assert by.shape == (4,)
        assert by.mean() == pytest.approx(own["MASE"])
        if name != "anchor":
            low, high = table[f"{name}-lo-80"].to_numpy(), table[f"{name}-hi-80"].to_numpy()
            assert own["coverage-80"] == pytest.approx(scores.coverage(came, low, high))
            assert 0 < own["CRPS"] <= 2 * np.abs(came - said).mean()


def test_the_summary_says_who_wins() -> None:
    season = Forecaster(**QUICK).backtest(values(), windows=3).summary
    assert "beats the naive" in season
    assert "Its linear anchor alone has" in season
    line = Forecaster(**QUICK).backtest(np.arange(60.0) * 2, windows=2)
    assert line.scores["throughtime"]["MASE"] < 0.01
    # After a flat past comes a step up, which no baseline of the last value minds less than the others.
    jump = np.random.default_rng(1).normal(size=80)
    jump[72:] += 30
    lost = Forecaster(**QUICK).backtest(jump, windows=3, step=4)
    best = min(lost.scores[name]["MASE"] for name in ("naive", "linear autoregression"))
    if lost.scores["throughtime"]["MASE"] > 1.01 * best:
        assert "loses to the" in lost.summary
    constant = Forecaster(**QUICK).backtest(np.ones(40), windows=2)
    assert "no unit" in constant.summary


def test_several_series_missing_values_and_covariates() -> None:
    y = values()
    y[150] = np.nan
    price = np.random.default_rng(2).normal(size=160)
    both = pl.concat([frame(v).with_columns(unique_id=pl.lit(one), price=price) for one, v in (("a", y), ("b", y + 5))])
    model = Forecaster(known_future=("price",), **QUICK)
    found = model.backtest(both, windows=2)
    assert found.forecasts["unique_id"].to_list() == ["a"] * 4 + ["b"] * 4 + ["a"] * 4 + ["b"] * 4
    assert np.isfinite(found.scores["throughtime"]["MASE"])
    assert not hasattr(model, "net_")
    assert "fitted once, before the first origin" in found.notes[-1]


def test_heads_without_intervals_and_recursive_forecasts() -> None:
    point = Forecaster(head="point", **QUICK).backtest(values(), windows=2)
    assert "coverage-90" not in point.scores["throughtime"]
    paths = Forecaster(mode="recursive", samples=30, **QUICK).backtest(values(), windows=2, horizon=6)
    assert len(paths.by_horizon["throughtime"]["CRPS"]) == 6


def test_refusals() -> None:
    with pytest.raises(
        ValueError, match="data must have at least 18 steps a series for 4 windows of 4, 4 apart; got 12"
    ):
        Forecaster(**QUICK).backtest(values(12))
    with pytest.raises(ValueError, match="windows must be a whole number, at least 1; got 0"):
        Forecaster(**QUICK).backtest(values(), windows=0)
    with pytest.raises(ValueError, match=r"step must be a whole number, at least 1; got 1\.5"):
        Forecaster(**QUICK).backtest(values(), step=1.5)
