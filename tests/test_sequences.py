"""Sequences of unequal length: every shape people have them in, batches that hold each once and cost their steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from throughtime.data.sequences import Batches, sequences_of

RAGGED = [np.arange(6.0).reshape(3, 2), np.zeros((0, 2)), np.arange(8.0).reshape(4, 2)]


def objects(sequences: list[np.ndarray]) -> np.ndarray:
    found = np.empty(len(sequences), object)
    for place, sequence in enumerate(sequences):
        found[place] = sequence
    return found


def same(found: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    assert [part.shape for part in found] == [part.shape for part in wanted]
    assert all(np.array_equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert all(part.dtype == np.float64 for part in found)


def padded(sequences: list[np.ndarray]) -> np.ndarray:
    """(N, T, I) with NaN behind the end."""
    found = np.full((len(sequences), max(map(len, sequences)), 2), np.nan)
    for row, sequence in zip(found, sequences, strict=True):
        row[: len(sequence)] = sequence
    return found


@pytest.mark.parametrize(
    "X",
    [
        RAGGED,
        tuple(RAGGED),
        objects(RAGGED),
        [s.tolist() if len(s) else np.zeros((0, 2)) for s in RAGGED],
        [torch.from_numpy(s) for s in RAGGED],
        [s.astype(np.int16) for s in RAGGED],
    ],
    ids=["list", "tuple", "objects", "lists", "tensors", "integers"],
)
def test_unequal_lengths(X: Any) -> None:
    same(sequences_of(X), RAGGED)


@pytest.mark.parametrize(("layout", "axes"), [("ntc", (0, 1, 2)), ("nct", (0, 2, 1)), ("tnc", (1, 0, 2))])
def test_layouts(layout: str, axes: tuple[int, int, int]) -> None:
    cube, lengths = padded(RAGGED), [3, 0, 4]
    same(sequences_of(cube.transpose(axes), layout=layout, lengths=lengths), RAGGED)
    if layout != "tnc":
        turned = [s.T if layout == "nct" else s for s in RAGGED]
        same(sequences_of(turned, layout=layout), RAGGED)


def test_one_feature() -> None:
    wanted = [np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]])]
    same(sequences_of(np.array([[1, 2], [3, 4]])), wanted)
    same(sequences_of([[1, 2], [3, 4]]), wanted)
    same(sequences_of([np.array([1.0, 2.0]), np.array([[3.0], [4.0]])]), wanted)
    same(sequences_of(np.array([[1, 2, 9], [3, 4, 9]]), lengths=[2, 2]), wanted)
    same(sequences_of([np.zeros(0), [1.0]]), [np.zeros((0, 1)), np.ones((1, 1))])


def test_what_holds_no_number_is_a_sequence_without_a_step() -> None:
    step = np.ones((1, 3))
    for empty in ([], np.zeros((0, 3)), np.zeros(0), np.zeros((2, 0))):
        same(sequences_of([empty, step]), [np.zeros((0, 3)), step])
        same(sequences_of([step.T, empty], layout="nct"), [step, np.zeros((0, 3))])


@pytest.mark.parametrize(
    ("X", "options", "message"),
    [
        (RAGGED, {"layout": "nct"}, r"sequence 2 is \(2, 4\)"),
        ([np.zeros((3, 2)), np.zeros((2, 5))], {}, r"X must be sequences \(T, 2\); sequence 1 is \(2, 5\). .*'nct'"),
        (np.zeros((4, 2, 3)), {"features": 2}, r"X must be sequences \(T, 2\); sequence 0 is \(2, 3\). .*layout='nct'"),
        (np.zeros((4, 3, 3)), {"features": 2}, r"sequence 0 is \(3, 3\). Give every step the same features"),
        (RAGGED, {"layout": "tcn"}, "layout must be ntc, nct, tnc; got 'tcn'"),
        (RAGGED, {"layout": "tnc"}, "layout must be ntc or nct for a list"),
        (np.zeros((2, 3)), {"layout": "nct"}, r"layout must be left out for an array \(N, T\)"),
        (RAGGED, {"lengths": [3, 0, 4]}, "lengths must go with an array of 2 or 3 axes"),
        (np.zeros((2, 3)), {"lengths": [1]}, "lengths must be a whole number for each of the 2 sequences"),
        (np.zeros((2, 3)), {"lengths": [1, 4]}, "lengths must be from 0 to the 3 steps of X; got up to 4"),
        (np.zeros((2, 3)), {"lengths": [1.0, 2.0]}, "lengths must be a whole number"),
        ([[1.0, np.nan]], {}, "got NaN in sequence 0, step 1, feature 0"),
        ([[1.0], [np.inf]], {"missing": True}, "got infinity in sequence 1, step 0, feature 0"),
        ([1.0, 2.0], {}, r"X\[0\] is one number. Reshape your data"),
        ([np.zeros((1, 2, 3))], {}, r"X\[0\] must be \(T,\) or \(T, I\); got shape \(1, 2, 3\)"),
        ([["a", "b"]], {}, r"X\[0\] must be numbers; got .* such as 'a'"),
        (np.zeros((1, 2, 3, 4)), {}, r"must be \(N, T\) or \(N, T, I\)"),
        ([[1 + 2j]], {}, "Complex data not supported"),
    ],
)
def test_refusals(X: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sequences_of(X, **options)


@pytest.mark.parametrize("X", ["words", 3, {1, 2}, None])
def test_no_sequences_at_all(X: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="X"):
        sequences_of(X)


def test_missing_numbers_where_they_are_allowed() -> None:
    assert np.isnan(sequences_of([[1.0, np.nan]], missing=True)[0][1, 0])


# Batches


def some(count: int, seed: int = 0, longest: int = 40) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """Sequences of which every number tells which it is of, their targets and weights; some without a step."""
    chance = np.random.default_rng(seed)
    lengths = chance.integers(0, longest, count)
    x = [np.stack([np.full(length, place), np.arange(length)], 1).astype(float) for place, length in enumerate(lengths)]
    return x, np.arange(count), chance.random(count) + 0.1


@pytest.mark.parametrize("count", [2, 7, 100])
@pytest.mark.parametrize("size", [1, 8, 64])
@pytest.mark.parametrize("each", [False, True])
@pytest.mark.parametrize("seed", [None, 3])
def test_every_sequence_is_read_once_an_epoch(count: int, size: int, each: bool, seed: int | None) -> None:
    """Whole, after a reset, with its own target and weight; everything else is padding that does not count."""
    x, y, weight = some(count)
    targets = [place + 1000 * np.arange(len(s)) for place, s in enumerate(x)] if each else y
    weights = [np.full(len(s), w) for s, w in zip(x, weight, strict=True)] if each else weight
    batches = Batches(x=x, y=targets, weight=weights, each=each, size=size, epochs=2, seed=seed, dtype=torch.float64)
    assert len(batches) == 2 * batches.per_epoch
    for epoch in range(2):
        read: list[int] = []
        for index in range(batches.per_epoch):
            chunk = batches[epoch * batches.per_epoch + index]
            assert chunk.end
            assert chunk.streams == batches.streams
            assert chunk.reset is not None
            assert chunk.mask is not None
            assert chunk.y is not None
            used = torch.zeros(chunk.x.shape[:2], dtype=torch.bool)
            for start, row in chunk.reset.nonzero().tolist():
                place = int(chunk.x[start, row, 0])
                stop = start + len(x[place])
                if chunk.mask[start:stop, row].any():
                    read.append(place)
                    assert np.array_equal(chunk.x[start:stop, row].numpy(), x[place])
                    counted = slice(start, stop) if each else slice(stop - 1, stop)
                    wanted = 1000 * np.arange(len(x[place])) + place if each else [place]
                    assert chunk.y[counted, row].tolist() == list(wanted)
                    assert np.allclose(chunk.mask[counted, row].numpy(), weight[place])
                    used[counted, row] = True
                    assert stop == chunk.steps or chunk.reset[stop, row]
            assert not chunk.mask[~used].any()
        assert sorted(read) == [place for place, s in enumerate(x) if len(s)]


def test_asked_for_in_any_order() -> None:
    """Batch i is the same whenever it is asked for; another epoch and another seed make others."""
    x, y, _ = some(50)
    batches = Batches(x=x, y=y, size=8, epochs=3, seed=1)
    wanted = [chunk.x for chunk in batches]
    for index in (5, 0, len(batches) - 1, 3, 5):
        assert torch.equal(batches[index].x, wanted[index])
    assert torch.equal(batches[-1].x, wanted[-1])
    first, second = wanted[: batches.per_epoch], wanted[batches.per_epoch : 2 * batches.per_epoch]
    assert any(a.shape != b.shape or not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for index in (len(batches), -len(batches) - 1):
        with pytest.raises(IndexError, match="batch must lie in"):
            batches[index]


@pytest.mark.parametrize("lengths", ["uniform", "geometric", "long"])
@pytest.mark.parametrize("count", [60, 500])
def test_batches_cost_what_their_steps_cost(lengths: str, count: int) -> None:
    """Little of a batch is padding, however much the lengths differ."""
    chance = np.random.default_rng(0)
    steps = {
        "uniform": chance.integers(1, 40, count),
        "geometric": chance.geometric(0.02, count),
        "long": chance.integers(100, 1000, count),
    }[lengths]
    batches = Batches(x=[np.zeros((length, 1)) for length in steps], y=np.zeros(count, int), size=32, seed=0)
    total = sum(chunk.steps * chunk.streams for chunk in batches)
    assert total / steps.sum() <= 1.15


def test_ids_and_numbers() -> None:
    ids = Batches(x=[np.array([1, 2]), np.array([3])], y=[0.5, 1.5], size=2)[0]
    assert ids.x.dtype == torch.int64
    assert ids.y is not None
    assert ids.y.dtype == torch.float32
    features = Batches(x=[np.array([[1, 2]]), np.array([[3, 4]])], y=[0, 1], size=2)[0]
    assert features.x.shape[-1] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size and epochs must be at least 1"),
        ({"x": [np.zeros((0, 1))], "y": [0]}, "x must have a sequence with at least one step"),
        ({"x": [], "y": []}, "x must have a sequence with at least one step"),
    ],
)
def test_batches_refuse(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Batches(**{"x": [np.zeros((1, 1))], "y": [0], **options})
