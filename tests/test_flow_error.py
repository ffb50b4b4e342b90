"""What follows from the error by lag: shares, half-life, memory, and a decay whose interval holds what it says."""

import math

import numpy as np
import pytest

from throughtime.flow import ErrorByLag


def by_hand(*norms: float, first: int = 0) -> ErrorByLag:
    """Two pairs of one stream, alike."""
    return ErrorByLag(
        np.arange(first, first + len(norms)), np.array([9, 10]), np.array(norms)[:, None, None] * np.ones((1, 2, 1))
    )


def test_share_and_half_life():
    lag = by_hand(8, 6, 3, 1)
    assert [lag.share(h) for h in (1, 2, 3, 4, 9)] == pytest.approx([8 / 18, 14 / 18, 17 / 18, 1, 1])
    assert lag.half_life == pytest.approx(1 + math.log(6 / 4) / math.log(2))
    assert lag.memory is None
    assert by_hand(8, 6, 3, 1, first=1).half_life == lag.half_life
    with pytest.raises(ValueError, match="h must be a number of steps, at least 1; got 0"):
        lag.share(0)


@pytest.mark.parametrize(("a", "steps"), [(0.5, 6.64), (0.9, 43.7), (0.99, 458.2)])
def test_the_memory_length_of_a_steady_decay(a: float, steps: float):
    lag = by_hand(*(3 * a ** np.arange(600)))
    assert lag.memory == pytest.approx(math.log(0.01) / math.log(a), rel=1e-9)
    assert lag.memory == pytest.approx(steps, rel=1e-3)
    assert lag.half_life == pytest.approx(math.log(0.5) / math.log(a), rel=1e-9)


def test_what_never_arrives_has_no_memory_and_what_stays_has_no_end():
    assert by_hand(0, 0, 0).memory == 0
    assert by_hand(1, 1, 1).memory is None
    assert by_hand(math.nan, math.nan).memory is None
    assert by_hand(1, 0, 0).memory < 1


def test_the_smallest_h_counts_what_lies_beyond_the_lags():
    a, lags = 0.9, 50
    lag = by_hand(*(a ** np.arange(lags + 1)))
    for tolerance in (0.5, 0.1, 0.02):
        h = lag.smallest_h(tolerance)
        assert h == math.ceil(math.log(tolerance) / math.log(a))  # a^h is what is lost of a geometric series
        assert a**h <= tolerance < a ** (h - 1)
    assert lag.smallest_h(0.001) is None  # 66 steps, beyond the lags
    assert by_hand(*np.ones(50)).smallest_h(0.1) is None
    assert by_hand(0, 0, 0).smallest_h(0.1) is None
    assert by_hand(1, 0, 0).smallest_h(0.1) == 1
    with pytest.raises(ValueError, match="tolerance must be a share between 0 and 1; got 1"):
        lag.smallest_h(1)


def test_decay_is_the_slope_and_says_from_which_lags():
    lag = by_hand(5, *(0.8 ** np.arange(20)))
    assert lag.decay.rate == pytest.approx(0.8, rel=1e-12)
    assert lag.decay.lags == (1, 20)  # lag 0 may be of another kind: what the readout sees
    assert by_hand(1, 0.5, 0.25, 0, 0, 0).decay.lags == (1, 2)
    assert math.isnan(by_hand(1, 0.5).decay.rate)
    assert math.isnan(by_hand(0, 0, 0, 0).decay.rate)
    assert by_hand(*(1e30 ** np.arange(10.0))).decay.rate == pytest.approx(1e30)


def test_a_pair_that_ends_early_keeps_its_own_level():
    norms = np.stack([100 * 0.9 ** np.arange(9.0), 0.9 ** np.arange(9.0)], 1)[:, :, None]
    norms[6:, 0] = np.nan
    lag = ErrorByLag(np.arange(9), np.array([20, 21]), norms)
    assert lag.decay.rate == pytest.approx(0.9, rel=1e-12)


def test_the_interval_holds_the_true_rate_as_often_as_it_says():
    """Factors drawn step by step, shared by all windows that pass the step: naive intervals are far too small."""
    draws, T, B, lags, rate = 300, 240, 4, 40, 0.9
    at, hits, naive = np.arange(lags, T, 10), 0, 0
    for _ in range(draws):
        logs = np.random.normal(math.log(rate), 0.3, (T, B)).cumsum(0)
        norms = np.exp(np.stack([logs[at] - logs[at - k] for k in range(lags + 1)]))
        found = ErrorByLag(np.arange(lags + 1), at, norms)
        hits += found.decay.low <= rate <= found.decay.high
        each = np.polyfit(np.arange(1, lags + 1), np.log(norms[1:]).reshape(lags, -1), 1)[0]
        naive += abs(each.mean() - math.log(rate)) <= 1.96 * each.std() / math.sqrt(each.size)
    assert found.decay.clusters == 5 * B
    assert 0.89 <= hits / draws <= 0.99
    assert naive / draws < 0.8
