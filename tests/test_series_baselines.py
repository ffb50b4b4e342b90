"""Linear forecasts of series: the recurrence by hand, least squares by another library, seasons there or not."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from throughtime.baselines import Linear, autoregression, drift, mean, naive, season_of, seasonal_naive
from throughtime.baselines.series import Kind, fit, harmonics
from throughtime.data import co2


def noisy(steps: int, seed: int = 0) -> np.ndarray:
    """A stable autoregression of order 2 about 5."""
    random, z = np.random.default_rng(seed), [5.0, 5.0]
    for _ in range(steps + 50):
        z.append(5 + 0.6 * (z[-1] - 5) + 0.3 * (z[-2] - 5) + random.normal())
    return np.array(z[-steps:])


def test_simple_forecasts() -> None:
    z = np.array([2.0, 4, 6, 8, 10])
    assert naive().forecast(z, 2).tolist() == [10, 10]
    assert drift(z).forecast(z, 3).tolist() == [12, 14, 16]
    assert mean(z).forecast(z, 2).tolist() == [6, 6]
    assert seasonal_naive(2).forecast(z, 5).tolist() == [8, 10, 8, 10, 8]
    assert seasonal_naive(1) == naive()


def test_paths_are_the_recurrence_from_every_origin() -> None:
    random = np.random.default_rng(1)
    z, g = random.normal(size=30), random.normal(size=(40, 2))
    model = Linear("any", (1, 3, 7), (0.5, -0.3, 0.2), 0.1, (0.4, -1.0))
    for origin in (0, 5, 29):
        known = [z[0]] * 10 + z[: origin + 1].tolist()  # constant before the first value
        for h in range(1, 6):
            step = 0.1 + sum(w * known[-lag] for lag, w in zip(model.lags, model.weights, strict=True))
            known.append(step + g[origin + h] @ np.array(model.beside))
        found = model.paths(z, np.array([origin]), 5, beside=g)[0]
        assert found == pytest.approx(known[-5:])
    assert model.forecast(z, 5, beside=g[30:35]) == pytest.approx(found)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_the_weights_are_those_of_least_squares(order: int) -> None:
    random, z = np.random.default_rng(7), [0.0] * 5
    for _ in range(4000):  # every lag up to 5 is worth its place
        z.append(3 + np.dot([0.4, 0.2, 0.15, -0.3, 0.3], z[-1:-6:-1]) + random.normal())
    values = np.array(z)
    rows = np.stack([values[order - i - 1 : -i - 1] for i in range(order)], 1)
    wanted = LinearRegression().fit(rows, values[order:])
    found = fit(values, Kind("fixed", most=order))
    assert found.lags == tuple(range(1, order + 1))
    assert found.weights == pytest.approx(wanted.coef_, abs=1e-6)
    assert found.intercept == pytest.approx(wanted.intercept_, abs=1e-5)


def test_what_is_linear_without_noise_is_forecast_exactly() -> None:
    time = np.arange(160)
    z = 4 + np.sin(time / 2) + 0.2 * np.cos(time / 5)
    assert autoregression(z[:120]).forecast(z[:120], 40) == pytest.approx(z[120:], abs=1e-3)


def test_the_order_is_found() -> None:
    assert autoregression(noisy(3000)).lags[:2] == (1, 2)
    assert len(autoregression(noisy(3000)).lags) <= 4
    assert len(autoregression(np.random.default_rng(0).normal(size=2000)).lags) <= 2


def test_the_level_and_the_scale_change_nothing() -> None:
    z = noisy(300)
    origins = np.arange(100, 290)
    one = autoregression(z).paths(z, origins, 4)
    far = 1e4 + 50 * z
    assert autoregression(far).paths(far, origins, 4) == pytest.approx(1e4 + 50 * one, rel=1e-6)


def test_differences_expand_to_the_recurrence_of_the_values() -> None:
    z = np.cumsum(noisy(300) - 5)
    model = fit(z, Kind("steps", difference=1, seasonal=1, season=4, intercept=False, most=3))
    w = np.full_like(z, np.nan)
    w[5:] = np.diff(z)[4:] - np.diff(z)[:-4]
    inner = fit(w[5:], Kind("inner", intercept=False, most=3))
    forecast = inner.forecast(w[5:], 1)[0]
    assert model.forecast(z, 1)[0] == pytest.approx(forecast + z[-1] + z[-4] - z[-5], abs=1e-6)


def test_missing_values_are_not_learned_from() -> None:
    z = noisy(2000)
    holes = z.copy()
    holes[np.random.default_rng(2).random(2000) < 0.1] = np.nan
    assert autoregression(holes, most=2).weights == pytest.approx(autoregression(z, most=2).weights, abs=0.08)
    spoiled = np.where(np.isnan(holes), 1e6, holes)
    assert autoregression(holes, most=2) != autoregression(spoiled, most=2)


def test_harmonics_carry_a_season_on_exactly() -> None:
    time = np.arange(240)
    z = 3 + np.cos(2 * np.pi * time / 12.5) - 0.5 * np.sin(4 * np.pi * time / 12.5)
    g = harmonics(time, 12.5, 2)
    model = fit(z[:200], Kind("waves", harmonics=True), beside=g[:200])
    assert model.paths(z[:200], np.array([199]), 40, beside=g)[0] == pytest.approx(z[200:], abs=1e-6)


def test_seasons() -> None:
    time, random = np.arange(300), np.random.default_rng(3)
    for season in (4, 7, 12, 24):
        z = np.sin(2 * np.pi * time / season) + 0.3 * random.normal(size=300) + 0.05 * time
        assert season_of(z) == season
    assert season_of(co2()[1]) == 52
    assert season_of(random.normal(size=500)) == 1
    assert season_of(np.cumsum(random.normal(size=500))) in range(1, 167)
    assert season_of(np.ones(50)) == season_of([1.0, 2.0]) == season_of(np.arange(50.0)) == 1
    assert season_of(np.arange(50) / 49) == 1, "what rounding leaves over repeats itself"


def test_few_values_and_none() -> None:
    assert autoregression([3.0, 3.0, 3.0]).forecast([3.0, 3.0, 3.0], 2) == pytest.approx([3, 3])
    assert np.isfinite(autoregression([1.0]).forecast([1.0], 2)).all()
    with pytest.raises(ValueError, match="values must have steps to fit the linear autoregression on; got none"):
        autoregression([np.nan, np.nan])


def test_a_season_does_not_depend_on_the_scale_and_survives_holes() -> None:
    z = np.sin(np.arange(120) * 2 * np.pi / 10)
    assert [season_of(z * size) for size in (1e-200, 1.0, 1e200)] == [10, 10, 10]
    assert season_of(np.where(np.arange(120) % 2, np.nan, z)) == 10
