"""Truncation at random places, whose mean is exact; and influence balancing, which truncation gets wrong."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from credit_case import DOUBLE, A, B, H, I, assert_same, network, stream
from torch import Tensor, nn

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Credit, Estimate, RandomTruncation, random
from throughtime.nets import Window, squared_error
from throughtime.state import flatten, unflatten
from throughtime.verify.credit import compare, total

LAWS = [(3.0, None), (3.0, 4.0), (2.0, 2.5)]


@pytest.mark.parametrize(("mean", "alpha"), [(1.0, None), (5.0, None), (1.0, 4.0), (5.0, 4.0), (20.0, 6.0)])
def test_segments_have_the_mean_length_asked_for(mean: float, alpha: float | None) -> None:
    """The sum over n of the probability that a segment is longer than n; a power law leaves a tail of n^(2 - alpha)."""
    credit = RandomTruncation(mean, alpha)
    length, survives = 0.0, 1.0
    for n in range(1, 20_001):
        length += survives
        survives *= 1 - credit.cut(n)
    assert length == pytest.approx(mean, rel=1e-4)


def test_the_random_numbers_are_uniform_and_of_their_own_seed() -> None:
    drawn = torch.tensor([[random.uniform(seed, n) for n in range(4000)] for seed in range(3)])
    assert drawn.min() >= 0
    assert drawn.max() < 1
    spread = 4.5 / math.sqrt(4000)
    assert (drawn.mean(1) - 0.5).abs().max() < spread * math.sqrt(1 / 12)
    assert (drawn.square().mean(1) - 1 / 3).abs().max() < spread * math.sqrt(4 / 45)
    beside = torch.stack([drawn[:, :-1].flatten(), drawn[:, 1:].flatten()])
    assert torch.corrcoef(beside)[0, 1].abs() < spread
    assert torch.corrcoef(drawn).fill_diagonal_(0).abs().max() < spread


def every_pattern(monkeypatch: pytest.MonkeyPatch, credit: RandomTruncation, steps: int) -> Iterator[float]:
    """All ways to cut or not to cut between the steps, each with its probability, in force while it is yielded."""
    for cuts in product((False, True), repeat=steps - 1):
        probability, length = 1.0, 0
        for cut in cuts:
            length += 1
            c = credit.cut(length)
            probability *= c if cut else 1 - c
            length = 0 if cut else length
        monkeypatch.setattr(random, "uniform", lambda seed, n, cuts=cuts: 0.0 if (*cuts, True)[n] else 1.0)
        yield probability


@pytest.mark.parametrize(("mean", "alpha"), LAWS)
@pytest.mark.parametrize(("cell", "layers"), [("elman", 2), ("lstm", 2)])
def test_the_mean_over_all_cuts_is_the_gradient(
    monkeypatch: pytest.MonkeyPatch, mean: float, alpha: float | None, cell: str, layers: int
) -> None:
    """Every pattern of cuts weighed with its probability: no draw, and so no tolerance but rounding."""
    net, chunk = network(cell, layers=layers), stream(5, 2)
    credit = RandomTruncation(mean, alpha)
    mean_grads = {name: torch.zeros_like(weight) for name, weight in net.named_parameters()}
    certain = 0.0
    for probability in every_pattern(monkeypatch, credit, 5):
        estimate = total(credit, net, squared_error, chunk, (2,))
        certain += probability
        for name, grad in estimate.grads.items():
            mean_grads[name] += probability * grad
    wanted = total(BPTT(), net, squared_error, chunk)
    assert certain == pytest.approx(1, abs=1e-12)
    assert_same(Estimate(estimate.loss, estimate.count, mean_grads), wanted, 5)


def test_the_mean_over_many_draws_is_the_gradient() -> None:
    net, chunk = network("gru", units=3), stream(6, 2)
    wanted = total(BPTT(), net, squared_error, chunk).grads
    draws: dict[str, list[Tensor]] = {name: [] for name in wanted}
    for seed in range(200):
        for name, grad in total(RandomTruncation(2.5, seed=seed), net, squared_error, chunk).grads.items():
            draws[name].append(grad)
    for name, parts in draws.items():
        drawn = torch.stack(parts)
        error = (drawn.mean(0) - wanted[name]).abs()
        assert (error <= 4.5 * drawn.std(0) / math.sqrt(200) + 1e-12).all()
        assert name.startswith("readout") or (drawn.std(0) > 0).any()


@pytest.mark.parametrize("alpha", [None, 3.0])
def test_the_same_cuts_whatever_the_chunks(alpha: float | None) -> None:
    net, chunk = network("lstm", layers=2), stream(30)
    credit = RandomTruncation(4, alpha, seed=3)
    whole = total(credit, net, squared_error, chunk)
    for cuts in (range(1, 30), (7, 8, 19), (30,)):
        assert_same(total(credit, net, squared_error, chunk, cuts), whole, 30)
    other = total(replace(credit, seed=4), net, squared_error, chunk)
    assert compare(other, whole, 30).error > 1e-3


def test_a_step_of_a_segment_is_settled_once_it_ends() -> None:
    net, chunk = network(), stream(40, restarts=0)
    chunk = replace(chunk, mask=None)
    credit = RandomTruncation(5, seed=1)
    memory = credit.start(net)
    settled, ends = 0.0, []
    for t in range(40):
        estimate, memory = credit(net, squared_error, chunk[t : t + 1], memory)
        settled += estimate.count
        assert settled == (t + 1 - memory.length) * B
        if estimate.count:
            ends.append(t)
    assert ends[-1] == 39
    cut = [t for t in range(39) if random.uniform(1, t) < 1 / 5]
    assert ends[:-1] == cut
    assert len(cut) > 3


def test_cuts_go_on_from_epoch_to_epoch_and_after_a_resume() -> None:
    net, chunk = network(), stream(20)
    assert chunk.reset is not None
    chunk.reset[0] = True
    credit = RandomTruncation(4, seed=2)
    first, memory = credit(net, squared_error, chunk, credit.start(net))
    second, after = credit(net, squared_error, chunk, memory)
    assert compare(second, first, 20).error > 1e-3
    assert (memory.step, after.step, memory.length) == (20, 40, 0)
    _, part = credit(net, squared_error, chunk[:9], memory)
    skeleton, tensors = flatten(part)
    restored = unflatten(json.loads(json.dumps(skeleton)), tensors, credit.memories)
    rest = [credit(net, squared_error, chunk[9:], m)[0] for m in (part, restored)]
    assert compare(*rest, 20).error == 0


def test_segments_of_one_step_have_the_immediate_gradient() -> None:
    net, chunk = network("gru", layers=2), stream(9)
    for alpha in (None, 4.0):
        given = total(RandomTruncation(1, alpha), net, squared_error, chunk, (4,))
        assert_same(given, total(BPTT(1), net, squared_error, chunk), 9)


def test_a_window_of_inputs_and_an_output_that_is_the_state() -> None:
    """Only what crosses a step is magnified, not an output that is the same tensor as the state."""
    net, chunk = Window(inputs=I, units=H, outputs=A, window=3).double(), stream(9)
    wanted = total(BPTT(), net, squared_error, chunk)
    assert_same(total(RandomTruncation(2, seed=1), net, squared_error, chunk, (4,)), wanted, 9)
    balance, start = Balance(), Balance().stationary()
    nothing = torch.zeros(6, 1, 1, dtype=DOUBLE)
    mask = torch.zeros(6, 1)
    mask[0] = 1
    chunk = Chunk(nothing, nothing, mask, end=True)
    given = total(RandomTruncation(100, seed=5), balance, balance.loss, chunk, (), start)
    assert given.grads["theta"].item() == pytest.approx(2)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"mean": 0.5}, "mean must be a number of steps, at least 1; got 0.5."),
        ({"mean": math.inf}, "mean must be a number of steps, at least 1; got inf."),
        ({"alpha": 2.0}, "alpha must be above 2, or None for cuts of constant probability; got 2.0. At 2 and below"),
        ({"seed": -1}, r"seed must be a whole number from 0 to 2\*\*64 - 1; got -1."),
        ({"seed": 1.5}, "seed must be a whole number from 0"),
    ],
)
def test_arguments_of_random_truncation_that_cannot_be(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        RandomTruncation(**arguments)


class Balance(nn.Module):
    """Influence balancing (Tallec and Ollivier 2017): s' = A s + theta (1, ..., 1, -1, ..., -1), the output s_1.

    A_ii = A_{i,i+1} = 1/2, 23 units, of which 10 have a plus. Units near the first one push it up, those behind
    them, whose influence comes later, pull it down by more.
    """

    def __init__(self, theta: float = -0.5) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([theta], dtype=DOUBLE))
        eye = torch.eye(23, dtype=DOUBLE)
        self.register_buffer("A", (eye + eye.roll(1, 1).triu()) / 2)
        self.register_buffer("signs", torch.where(torch.arange(23) < 10, 1.0, -1.0).double())

    def forward(self, x: Tensor, state: Tensor | None = None, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        state = torch.zeros(x.shape[1], 23, dtype=DOUBLE) if state is None else state
        outputs = []
        for _ in range(x.shape[0]):
            state = torch.nn.functional.linear(state, self.A, self.theta * self.signs)
            outputs.append(state[:, :1])
        return torch.stack(outputs), state

    def stationary(self) -> Tensor:
        with torch.no_grad():
            return torch.linalg.solve(torch.eye(23, dtype=DOUBLE) - self.A, self.theta * self.signs)[None]

    @staticmethod
    def loss(prediction: Tensor, y: Tensor) -> Tensor:
        return (prediction - 1).square() / 2


BALANCE = {1: 2, 5: 10, 10: 20, 15: 29.35, 20: 32.95, 25: 28.40, 30: 19.74, 40: 1.13, 50: -9.51, 100: -12.00}
"""d loss / d theta at theta = -0.5, where the state is stationary and s_1 = 3, by h."""


@pytest.mark.parametrize(("h", "gradient"), BALANCE.items())
def test_influence_balancing_by_h(h: int, gradient: float) -> None:
    """Truncated at 40 or below the gradient has the wrong sign; the true one is -12."""
    net = Balance()
    nothing = torch.zeros(h, 1, 1, dtype=DOUBLE)
    mask = torch.zeros(h, 1)
    mask[-1] = 1
    chunk = Chunk(nothing, nothing, mask, end=True)
    estimate = total(BPTT(h, h), net, net.loss, chunk, (), net.stationary())
    assert estimate.grads["theta"].item() == pytest.approx(gradient, abs=0.005)
    assert estimate.loss.item() == pytest.approx(2, abs=1e-9)


def descend(credit: Credit, rate: float, updates: int, steps: int) -> float:
    """theta after so many updates along the mean gradient, in one stream whose state goes on."""
    net = Balance()
    memory = credit.start(net, net.stationary())
    nothing = torch.zeros(steps, 1, 1, dtype=DOUBLE)
    for update in range(updates):
        estimate, memory = credit(net, net.loss, Chunk(nothing, nothing), memory)
        if estimate.count:
            with torch.no_grad():
                net.theta -= rate / (1 + update / 50) * estimate.grads["theta"] / estimate.count
        if not abs(net.theta.item()) < 10:
            break
    return net.theta.item()


@pytest.mark.parametrize("h", [1, 20, 40])
def test_influence_balancing_diverges_under_truncation(h: int) -> None:
    """theta runs away from -1/6, where s_1 = 1."""
    assert descend(BPTT(h, h), 0.01, 60, max(h, 20)) < -0.51


def test_influence_balancing_converges_without_bias() -> None:
    found = descend(RandomTruncation(100, seed=0), 0.005, 100, 100)
    assert found == pytest.approx(-1 / 6, abs=0.05)


def test_influence_balancing_converges_forward_in_time() -> None:
    forward = pytest.importorskip("throughtime.credit.forward")
    if not hasattr(forward, "RTRL"):
        pytest.skip("there is no RTRL yet")
    assert descend(forward.RTRL(), 0.005, 80, 25) == pytest.approx(-1 / 6, abs=0.05)
