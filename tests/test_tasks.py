"""Toy problems: drawn from a seed alone, wanted as defined, guessing and Bayes errors against counts of the data."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from throughtime import BPTT, Chunk, Network, evaluate, join, train
from throughtime.data.tasks import Adding, Coin, Copy, Parity, Task, TemporalOrder, coin_entropy
from throughtime.flow import measure
from throughtime.nets import losses, sum_errors
from throughtime.training import cosine

TASKS = [Copy(9, symbols=3, alphabet=4), Adding(17), Parity(13), Parity(13, last=True), TemporalOrder(21), Coin(19)]
TASKS = [replace(task, streams=3, batches=4) for task in TASKS]
EVERY = pytest.mark.parametrize("task", TASKS, ids=lambda task: f"{type(task).__name__}-{getattr(task, 'last', '')}")


def same(a: Chunk, b: Chunk) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in ("x", "y", "mask", "reset")]
    return a.end == b.end and all((p is None and q is None) or torch.equal(p, q) for p, q in pairs)


@EVERY
def test_a_chunk_is_a_batch_of_sequences_that_start_anew(task: Task) -> None:
    assert len(task) == 4
    for chunk in task:
        assert chunk.x.shape[:2] == (task.length, 3)
        assert chunk.end
        assert chunk.reset is not None
        assert chunk.reset[0].all()
        assert not chunk.reset[1:].any()
        if chunk.mask is not None:
            assert torch.equal(chunk.mask.sum(0), torch.ones(3))
            assert chunk.mask[-1].all()
        if chunk.x.is_floating_point():
            assert chunk.x.shape[2] == task.inputs
        else:
            assert 0 <= chunk.x.min() <= chunk.x.max() < task.inputs
        net = Network("gru", inputs=task.inputs, units=2, outputs=task.outputs)
        error, count = sum_errors(losses[task.loss], net(chunk.x)[0], chunk)
        assert error.isfinite()
        assert count == 3 * (1 if chunk.mask is not None else task.length)


@EVERY
def test_the_seed_alone_says_what_is_drawn(task: Task) -> None:
    forward = list(task)
    assert all(same(task[index], forward[index]) for index in (3, 0, -2, 1, 2))
    assert all(same(a, b) for a, b in zip(forward, replace(task, batches=9), strict=False))
    assert not torch.equal(forward[0].x, forward[1].x)
    assert not torch.equal(forward[0].x, replace(task, seed=1)[0].x)
    with pytest.raises(IndexError, match=r"chunk must lie in \[0, 4\); got 4"):
        task[4]


@EVERY
@pytest.mark.parametrize("steps", [1, 7, 100])
def test_pieces_are_the_same_sequences(task: Task, steps: int) -> None:
    pieces = replace(task, steps=steps)
    many = -(-task.length // steps)
    assert len(pieces) == 4 * many
    for batch in (2, 0):
        found = [pieces[batch * many + index] for index in range(many)]
        assert [part.end for part in found] == [False] * (many - 1) + [True]
        assert same(join(found), task[batch])


@EVERY
def test_numbers_have_the_dtype_that_is_asked_for(task: Task) -> None:
    pair = replace(task, dtype=torch.float64)[1], task[1]
    for double, single in zip(*((c.x, c.y, c.mask) for c in pair), strict=True):
        if double is not None and double.is_floating_point():
            assert (double.dtype, single.dtype) == (torch.float64, torch.float32)
            assert torch.equal(double.float(), single)
        elif double is not None:
            assert double.dtype == torch.int64
            assert torch.equal(double, single)


def test_copy_wants_what_was_read_so_many_steps_before() -> None:
    task = Copy(9, symbols=3, alphabet=4, streams=50)
    chunk = task[0]
    assert chunk.y is not None
    assert chunk.mask is None
    assert set(chunk.x[:3].flatten().tolist()) == {0, 1, 2, 3}
    assert chunk.x[3:, 0].tolist() == [4] * 8 + [5] + [4] * 3
    assert (chunk.y[:12] == 4).all()
    for t in range(12, 15):
        assert torch.equal(chunk.y[t], chunk.x[t - 12])
    assert task.needed_h == 13  # a lag of 12 steps, and the step itself


def test_adding_wants_the_sum_of_the_marked_numbers() -> None:
    chunk = Adding(17, streams=400, dtype=torch.float64)[0]
    numbers, marks = chunk.x.unbind(-1)
    assert torch.equal(marks[:8].sum(0), torch.ones(400, dtype=torch.float64))
    assert torch.equal(marks[8:].sum(0), torch.ones(400, dtype=torch.float64))
    assert marks.sum(1).all()  # every place is drawn
    assert chunk.y is not None
    assert torch.allclose(chunk.y[-1, :, 0], (numbers * marks).sum(0), atol=1e-15, rtol=0)


def test_parity_counts_the_ones() -> None:
    for last in (False, True):
        chunk = Parity(13, streams=5, last=last)[0]
        assert chunk.y is not None
        assert (chunk.mask is None) == (not last)
        for t in range(13):
            assert torch.equal(chunk.y[t, :, 0], (chunk.x[: t + 1].sum(0) % 2).float())


def test_temporal_order_tells_the_signs_apart_by_order() -> None:
    task = TemporalOrder(20, streams=400)
    chunk = task[0]
    assert chunk.y is not None
    assert [list(places) for places in task.places] == [[2, 3], [8, 9]]
    seen = set()
    for row in range(400):
        signs = [(t, int(sign)) for t, sign in enumerate(chunk.x[:, row]) if sign >= 4]
        (first, one), (second, two) = signs
        seen.add((first, second, one, two))
        assert int(chunk.y[-1, row]) == 2 * (one - 4) + (two - 4)
    assert len(seen) == 16


def error_of(task: Task, answer: torch.Tensor, chunk: Chunk) -> float:
    """The mean error of an answer, by the loss that the task names."""
    error, count = sum_errors(losses[task.loss], answer, chunk)
    return float(error) / count


@pytest.mark.parametrize(("T", "wanted"), [(100, 0.1733), (500, 0.0400), (1000, 0.0204)])
def test_guessing_copy_costs_as_published(T: int, wanted: float) -> None:
    """Blanks while blanks are wanted, then any of the eight alike: 10 ln 8 / (T + 20)."""
    task = Copy(T, streams=4)
    logits = torch.full((task.length, 4, task.outputs), -1e4)
    logits[: T + 10, :, 8] = 0
    logits[T + 10 :, :, :8] = 0
    assert error_of(task, logits, task[0]) == pytest.approx(task.guess, rel=1e-6)
    assert task.guess == pytest.approx(10 * math.log(8) / (T + 20))
    assert round(task.guess, 4) == wanted


def test_guessing_the_others_costs_as_published() -> None:
    """Always 1: a mean squared error of 1/6, half of which is the loss; ln 2; ln 4; the entropy of 0.625."""
    many = {"streams": 40_000, "dtype": torch.float64}
    task: Task = Adding(20, **many)
    assert error_of(task, torch.ones(20, 40_000, 1), task[0]) == pytest.approx(1 / 12, abs=2e-3)
    assert 2 * task.guess == pytest.approx(1 / 6)
    answers = {Parity(10, last=True, **many): 0.0, Coin(1, **many): math.log(0.625 / 0.375)}
    for task, logit in answers.items():
        answer = torch.full((task.T, 40_000, 1), logit, dtype=torch.float64)
        assert error_of(task, answer, task[0]) == pytest.approx(task.guess, abs=3e-3)
    task = TemporalOrder(20, **many)
    assert error_of(task, torch.zeros(20, 40_000, 4), task[0]) == pytest.approx(task.guess, rel=1e-6)
    assert [Parity(7).guess, task.guess] == pytest.approx([math.log(2), math.log(4)])
    assert round(Coin(1).guess, 4) == 0.6616


def entropy_by_counting(y: np.ndarray, *seen: np.ndarray) -> float:
    """The entropy of y given what is seen, from frequencies; all of small whole numbers, (N,)."""
    keys = np.zeros(len(y), int)
    for part in seen:
        keys = keys * (part.max() + 1) + part
    total = 0.0
    for key in np.unique(keys):
        chances = np.bincount(y[keys == key]) / len(y)
        share = chances.sum()
        total -= sum(p * math.log(p / share) for p in chances if p)
    return total


@pytest.mark.parametrize(
    ("h", "wanted"), [(1, 0.6616), (3, 0.6616), (4, 0.5192), (8, 0.5192), (9, 0.4545), (12, 0.4545)]
)
def test_floors_of_the_coin(h: int, wanted: float) -> None:
    """The mean entropy of y given the flips that h steps show, counted in 200 000 sequences: good to 0.003."""
    task = Coin(h, last=True, streams=200_000)
    assert round(task.floor(), 4) == wanted
    chunk = task[0]
    assert chunk.y is not None
    y, x = chunk.y[-1, :, 0].numpy().astype(int), chunk.x.numpy()
    seen = [x[-1 - lag] for lag in range(h)]
    assert entropy_by_counting(y, *seen[:9]) == pytest.approx(wanted, abs=3e-3)


def test_what_one_flip_alone_leaves() -> None:
    chunk = Coin(9, last=True, streams=200_000)[0]
    assert chunk.y is not None
    y, x = chunk.y[-1, :, 0].numpy().astype(int), chunk.x.numpy()
    for known, wanted in {(True, False): 0.5192, (False, True): 0.6277, (True, True): 0.4545}.items():
        seen = [x[-1 - lag] for lag, one in zip((3, 8), known, strict=True) if one]
        assert round(coin_entropy(known), 4) == wanted
        assert entropy_by_counting(y, *seen) == pytest.approx(wanted, abs=3e-3)


def test_floors_of_a_long_coin_are_means_over_time() -> None:
    task = Coin(30)
    by_step = [Coin(step, last=True).floor(5) for step in range(1, 31)]
    assert task.floor(5) == pytest.approx(np.mean(by_step))
    assert by_step[:3] == pytest.approx([task.guess] * 3)
    assert task.needed_h == 9


@pytest.mark.parametrize("h", [0, 1, 7, 10, 11, 15, 20])
def test_floors_of_adding(h: int) -> None:
    """The best answer knows the marked numbers that it sees, and 0.5 for the others."""
    task = Adding(20, streams=100_000, dtype=torch.float64)
    chunk = task[0]
    shown = chunk.x[20 - h :]
    answer = (shown[..., 0] * shown[..., 1]).sum(0) + 0.5 * (2 - shown[..., 1].sum(0))
    wanted = error_of(task, answer.expand(20, -1)[..., None], chunk)
    assert task.floor(h) == pytest.approx(wanted, abs=1e-3)
    assert task.needed_h == 20


@pytest.mark.parametrize("h", [0, 9, 11, 12, 13, 17, 18])
def test_floors_of_temporal_order(h: int) -> None:
    chunk = TemporalOrder(20, streams=100_000)[0]
    assert chunk.y is not None
    shown = chunk.x[20 - h :].numpy()
    places = [range(max(0, start - 20 + h), max(0, stop - 20 + h)) for start, stop in ((0, 5), (5, 20))]
    signs = [np.where(shown[part] >= 4, shown[part] - 3, 0).sum(0, dtype=int) for part in places]
    wanted = entropy_by_counting(chunk.y[-1].numpy(), *signs)
    assert TemporalOrder(20).floor(h) == pytest.approx(wanted, abs=3e-3)
    assert TemporalOrder(20).needed_h == 18


def test_floors_of_parity_and_copy() -> None:
    """Parity: whoever misses one bit knows nothing; of the running one the first h steps miss none. Copy: one lag."""
    assert [Parity(6, last=True).floor(h) for h in (0, 5, 6, 9)] == pytest.approx([math.log(2)] * 2 + [0, 0])
    x = Parity(6, streams=60_000)[0]
    assert x.y is not None
    for t, h in ((3, 3), (3, 4), (5, 5)):
        seen = [x.x[t - lag].numpy() for lag in range(h)]
        counted = entropy_by_counting(x.y[t, :, 0].numpy().astype(int), *seen)
        assert counted == pytest.approx(0 if h > t else math.log(2), abs=3e-3)
    assert Parity(6).floor(4) == pytest.approx(math.log(2) * 2 / 6)
    task = Copy(20)
    assert [task.floor(h) for h in (0, 30, 31)] == [task.guess, task.guess, 0]
    assert task.floor() == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Adding(1), "T must be at least 2; got 1"),
        (lambda: TemporalOrder(9), "T must be at least 10; got 9"),
        (lambda: Copy(0), "T must be at least 1; got 0"),
        (lambda: Copy(5, symbols=0), "symbols must be at least 1 and alphabet at least 2; got 0 and 8"),
        (lambda: Coin(5, streams=0), "streams must be at least 1; got 0"),
        (lambda: Coin(5, batches=0), "batches must be at least 1; got 0"),
        (lambda: Coin(5, steps=0), "steps must be at least 1; got 0"),
        (lambda: Coin(5, seed=-1), "seed must be at least 0; got -1"),
        (lambda: Coin(5).floor(-1), "h must be a number of steps, at least 0; got -1"),
    ],
)
def test_what_cannot_be_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@EVERY
def test_train_reads_a_task_whole_or_in_pieces(task: Task) -> None:
    """Epochwise BPTT settles at the end of every sequence, however long the pieces are."""
    weights = []
    for steps in (None, 4):
        torch.manual_seed(0)
        data = replace(task, steps=steps, dtype=torch.float64)
        net = Network("gru", inputs=task.inputs, units=3, outputs=task.outputs).double()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        records = list(train(net, data, loss=task.loss, credit=BPTT(), optimizer=optimizer))
        assert len(records) == 4
        assert math.isfinite(evaluate(net, replace(data, seed=1), losses[task.loss]).mean)
        weights.append(torch.cat([weight.detach().flatten() for weight in net.parameters()]))
    assert torch.allclose(*weights, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("h", "floor"), [(3, 0.6616), (4, 0.5192), (8, 0.5192), (9, 0.4545)])
def test_training_reaches_the_floor_of_the_coin_and_no_more(h: int, floor: float) -> None:
    """BPTT(h) from a start that knows nothing, to 0.01: the next floor is never nearer than 0.06."""
    torch.manual_seed(0)
    task = Coin(h, last=True, streams=256, batches=300)
    net = Network("gru", inputs=2, units=16, outputs=1)
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-2)
    for _ in train(net, task, credit=BPTT(), loss=task.loss, optimizer=optimizer, clip=1, schedule=cosine):
        pass
    fresh = Coin(h, last=True, streams=50_000, batches=4, seed=1)
    assert evaluate(net, fresh, losses[task.loss]).mean == pytest.approx(floor, abs=0.01)


@pytest.mark.parametrize("make", [partial(Copy, symbols=1, alphabet=4), TemporalOrder], ids=["copy", "order"])
def test_an_elman_net_is_called_vanishing_before_its_training_fails(make) -> None:
    """At T = 100 nothing that is asked for is within its memory, and nothing is learned in the time in which a GRU
    learns whose gates are open at first, and which is called healthy."""
    task, learned, updates = make(100, batches=10**6), {}, 900
    for cell in ("gru", "elman"):
        torch.manual_seed(0)
        net = Network(cell, inputs=task.inputs, units=32, outputs=task.outputs)
        if cell == "gru":
            for name, bias in net.layers.named_parameters():
                if "bias" in name:
                    bias.data.zero_()
            net.layers.bias_ih_l0.data[32:64] = torch.empty(32).uniform_(1, task.length - 1).log()
        flow = measure(net, losses[task.loss], task[0], lags=task.length - 1)
        seen = task.length if flow.whole.memory is None else 1 + int(flow.whole.memory)
        assert (flow.word, task.floor(seen) < task.guess) == (("vanishing", False), ("healthy", True))[cell == "gru"]
        recent: list[float] = []
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        for record in train(net, task, credit=BPTT(), loss=task.loss, optimizer=optimizer, clip=1, updates=updates):
            recent = [*recent[-29:], record.loss]
            if np.mean(recent) < 0.3 * task.guess:
                break
        learned[cell], updates = np.mean(recent) / task.guess, record.update
    assert learned["elman"] > 0.95
    assert learned["gru"] < 0.3
