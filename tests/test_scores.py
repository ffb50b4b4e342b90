"""Scores: their definitions by brute force, worked numbers, and what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime import scores

numbers = st.lists(st.floats(-50, 50), min_size=2, max_size=12)


def test_mase_of_the_seasonal_naive_on_its_own_past_is_one() -> None:
    past = np.random.default_rng(0).normal(size=60)
    for season in (1, 4, 7):
        assert scores.mase(past[season:], past[:-season], past, season=season) == pytest.approx(1)
        assert scores.rmsse(past[season:], past[:-season], past, season=season) == pytest.approx(1)


def test_worked_numbers() -> None:
    past, y, forecast = [1, 3, 2, 4, 6], [5, 7, 9], [6, 6, 6]
    # |past steps| 2 1 2 2, mean 1.75; squares 4 1 4 4, mean 3.25; errors -1, 1, 3
    assert scores.mase(y, forecast, past) == pytest.approx((5 / 3) / 1.75)
    assert scores.rmsse(y, forecast, past) == pytest.approx(math.sqrt((11 / 3) / 3.25))
    assert scores.smape(y, forecast) == pytest.approx(200 / 3 * (1 / 11 + 1 / 13 + 3 / 15))
    assert scores.pinball(y, forecast, 0.9) == pytest.approx((0.1 + 0.9 + 2.7) / 3)
    assert scores.nmse(y, forecast) == pytest.approx((11 / 3) / (8 / 3))
    assert scores.coverage(y, [5, 5, 5], [6, 7, 8]) == pytest.approx(2 / 3)
    # sMAPE is symmetric and at most 200: Makridakis's example of 150 and 100 gives 40 both ways.
    assert scores.smape([150.0], [100.0]) == scores.smape([100.0], [150.0]) == pytest.approx(40)
    assert scores.smape([0.0, 0.0], [0.0, 3.0]) == pytest.approx(100)


def test_the_crps_of_a_gaussian_is_its_closed_form() -> None:
    """Gneiting and Raftery (2007), equation 21: sigma (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi)), z of y."""
    from statistics import NormalDist

    unit, mu, sigma = NormalDist(), 1.5, 2.0
    levels = (np.arange(2000) + 0.5) / 2000
    quantiles = np.array([mu + sigma * unit.inv_cdf(q) for q in levels])
    for y in (-3.0, 1.5, 2.0, 6.0):
        z = (y - mu) / sigma
        wanted = sigma * (z * (2 * unit.cdf(z) - 1) + 2 * unit.pdf(z) - 1 / math.sqrt(math.pi))
        assert scores.crps_quantiles([y], quantiles[None], levels) == pytest.approx(wanted, abs=2e-3)
        assert scores.crps_samples([y], quantiles[None]) == pytest.approx(wanted, abs=2e-3)


@given(numbers, st.floats(-50, 50))
def test_the_crps_of_samples_is_the_integral_of_its_definition(samples: list[float], y: float) -> None:
    points = np.sort(np.array([*samples, y]))
    middles, widths = (points[1:] + points[:-1]) / 2, np.diff(points)
    F = (np.array(samples)[:, None] <= middles).mean(0)
    integral = float(((F - (middles >= y)) ** 2 * widths).sum())
    assert scores.crps_samples([y], [samples]) == pytest.approx(integral, abs=1e-9)


@given(numbers, numbers)
def test_a_point_has_its_absolute_error_as_crps(y: list[float], forecast: list[float]) -> None:
    size = min(len(y), len(forecast))
    a, f = np.array(y[:size]), np.array(forecast[:size])
    assert scores.crps_samples(a, f[:, None]) == pytest.approx(np.abs(a - f).mean())
    levels = (np.arange(10) + 0.5) / 10
    assert scores.crps_quantiles(a, np.repeat(f[:, None], 10, 1), levels) == pytest.approx(np.abs(a - f).mean())


def test_the_pinball_loss_is_lowest_at_the_quantile() -> None:
    y = np.random.default_rng(1).exponential(size=4001)
    for level in (0.1, 0.5, 0.8):
        best = np.quantile(y, level)
        losses = [scores.pinball(y, np.full_like(y, best + away), level) for away in (-0.05, 0, 0.05)]
        assert losses[1] == min(losses)


def test_missing_values_do_not_count() -> None:
    y, forecast = np.array([1.0, np.nan, 3.0]), np.array([2.0, 100.0, 3.0])
    whole = y[[0, 2]], forecast[[0, 2]]
    assert scores.smape(y, forecast) == scores.smape(*whole)
    assert scores.mase(y, forecast, [1, np.nan, 2, 4]) == scores.mase(*whole, [2, 4])
    assert scores.coverage(y, forecast - 0.5, forecast + 0.5) == 0.5
    assert scores.nmse(y, forecast) == scores.nmse(*whole)


def test_no_unit_is_no_number() -> None:
    assert math.isnan(scores.mase([1.0], [2.0], [3, 3, 3]))
    assert math.isnan(scores.mase([1.0], [2.0], [3], season=4))
    assert math.isnan(scores.nmse([1.0, 1.0], [2.0, 2.0]))


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"forecasts must have the shape of y, \(2,\); got \(3,\)"):
        scores.smape([1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="at least one value to score"):
        scores.mase([np.nan], [1.0], [1, 2])
    with pytest.raises(ValueError, match="level must lie between 0 and 1; got 1"):
        scores.pinball([1.0], [1.0], 1)
    with pytest.raises(ValueError, match="season must be at least 1"):
        scores.scale([1, 2], season=0)
    with pytest.raises(ValueError, match="levels must be rising"):
        scores.crps_quantiles([1.0], [[1.0, 2.0]], [0.5, 0.1])
    with pytest.raises(ValueError, match="quantiles must be one for each value and level"):
        scores.crps_quantiles([1.0], [[1.0]], [0.1, 0.5])
    with pytest.raises(ValueError, match="samples must be"):
        scores.crps_samples([1.0], [])


def test_a_forecast_that_is_missing_is_not_left_out() -> None:
    y, forecast, past = [1.0, 2.0], [1.0, np.nan], [1, 2, 4]
    for found in (
        scores.mase(y, forecast, past),
        scores.rmsse(y, forecast, past),
        scores.smape(y, forecast),
        scores.pinball(y, forecast, 0.3),
        scores.nmse(y, forecast),
        scores.coverage(y, forecast, [3.0, 3.0]),
        scores.crps_quantiles(y, np.array(forecast)[:, None], [0.5]),
        scores.crps_samples(y, np.array(forecast)[:, None]),
    ):
        assert math.isnan(found)
    for score in (scores.crps_quantiles, lambda y, x, _: scores.crps_samples(y, x)):
        with pytest.raises(ValueError, match="at least one value to score"):
            score([np.nan], np.array([[1.0]]), [0.5])
