"""Series of numbers: the law of the streams, scaling by the training part alone, and missing values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.chunk import join
from throughtime.data import Series, co2

wave = np.sin(np.arange(200) / 5)


def count(chunk) -> float:
    return float(chunk.x[..., 0].numel() if chunk.mask is None else chunk.mask.sum())


@given(st.integers(2, 60), st.integers(1, 6), st.integers(1, 9))
def test_every_next_value_counts_exactly_once(length: int, streams: int, steps: int) -> None:
    streams = min(streams, length - 1)
    series = Series(np.arange(length), split=None, scaling=False)
    seen: list[float] = []
    for chunk in series.chunks(streams, steps):
        counted = torch.ones(chunk.x.shape[:2]) if chunk.mask is None else chunk.mask
        seen += chunk.y[..., 0][counted.bool()].tolist()
        assert torch.equal(chunk.x[counted.bool()] + 1, chunk.y[counted.bool()])
    assert sorted(seen) == list(range(1, length))


def test_the_stream_is_the_same_whatever_the_chunk_length() -> None:
    series = Series(wave)
    one, other = (join(list(series.chunks(3, steps))) for steps in (7, 20))
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)
    assert torch.equal(one.mask, other.mask)
    assert one.reset[0].all()
    assert one.end


def test_shapes_of_one_two_and_three_axes() -> None:
    for shape, rows, width in (((50,), 1, 1), ((50, 3), 1, 3), ((50, 4, 3), 4, 3)):
        chunk = Series(np.random.default_rng(0).normal(size=shape), split=None).chunks(2, 10)[0]
        assert chunk.x.shape == chunk.y.shape == (10, 2 * rows, width)
    values = np.arange(40.0).reshape(10, 2, 2)
    chunk = Series(values, split=None, scaling=False, dtype=torch.float64).chunks(1, 9)[0]
    assert np.array_equal(chunk.x.numpy(), values[:9])
    assert np.array_equal(chunk.y.numpy(), values[1:])
    assert chunk.mask is None


def test_scaling_uses_the_training_part_alone() -> None:
    values = np.concatenate([np.random.default_rng(0).normal(3, 2, 70), np.full(30, 1e6)])
    series = Series(values, split=(0.7, 0.3, 0.0), dtype=torch.float64)
    assert series.mean == pytest.approx(values[:70].mean())
    assert series.deviation == pytest.approx(values[:70].std())
    train = series.chunks(1, 69)[0]
    assert np.allclose(series.unscale(train.y[:, 0].numpy())[:, 0], values[1:70])
    assert series.scale(series.unscale([0.3])) == pytest.approx(0.3)
    assert Series(np.ones(20)).deviation == 1.0, "a constant is not divided by zero"


def test_given_targets_are_taken_as_they_are() -> None:
    targets = np.arange(200.0)
    series = Series(wave, targets=targets, split=None)
    chunk = join(list(series.chunks(1, 64)))
    assert np.array_equal(chunk.y[:, 0, 0].numpy(), targets)
    with pytest.raises(ValueError, match="targets must begin with"):
        Series(wave, targets=targets[1:])


def test_a_missing_target_does_not_count() -> None:
    values = np.arange(1.0, 11.0)
    values[[0, 4, 5]] = np.nan
    chunk = Series(values, split=None, scaling=False).chunks(1, 9)[0]
    assert chunk.x[:, 0, 0].tolist() == [0, 2, 3, 4, 4, 4, 7, 8, 9]
    assert chunk.mask[:, 0].tolist() == [1, 1, 1, 0, 0, 1, 1, 1, 1]
    assert chunk.y.isfinite().all()
    pairs = np.stack([values, np.arange(10.0)], axis=1)
    chunk = Series(pairs, split=None).chunks(1, 9)[0]
    assert chunk.mask.shape == (9, 1, 2)
    assert chunk.mask[:, 0].sum(0).tolist() == [7, 9]


def test_the_weeks_of_co2_that_count_are_those_that_were_measured() -> None:
    _, ppm = co2()
    series = Series(ppm, split=None)
    assert sum(count(chunk) for chunk in series.chunks(4, 52)) == (~np.isnan(ppm[1:])).sum()


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="values must be finite or NaN"):
        Series([1.0, np.inf])
    with pytest.raises(ValueError, match=r"values must be \(T,\)"):
        Series(np.zeros((2, 2, 2, 2)))
    with pytest.raises(ValueError, match="a number in every column of the training part"):
        Series([np.nan] * 8 + [1.0] * 2)
    with pytest.raises(ValueError, match="streams must be at most the 0 targets of the test part; got 1"):
        Series(wave, split=(0.9, 0.1, 0.0)).chunks(1, 5, part="test")
    with pytest.raises(ValueError, match="part must be train, validation or test"):
        Series(wave).chunks(1, 5, part="dev")
