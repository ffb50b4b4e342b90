"""Truncation at random places, whose mean is exact, and truncation where the measured decay allows it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from test_credit import DOUBLE, A, B, H, I, assert_same, network, stream
from torch import Tensor, nn

import throughtime as tt
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, AdaptiveBPTT, Credit, Estimate, RandomTruncation, random
from throughtime.credit.adaptive import Choice, bound, fade, measure, smallest
from throughtime.nets import Adapted, Network, Window, squared_error
from throughtime.state import flatten, unflatten
from throughtime.verify.credit import brute_force, compare, total
from throughtime.verify.result import distance, rounding

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


def test_the_decay_is_fitted_from_tau_on() -> None:
    phi = torch.tensor([9.0, 1.0, 5.0, *(0.8**k for k in range(20))], dtype=DOUBLE)
    assert fade(phi, 3) == pytest.approx(0.8, abs=1e-12)
    assert abs(fade(phi, 0) - 0.8) > 0.01
    assert fade(torch.tensor([1.0, 0.5, 0, 0, 0], dtype=DOUBLE), 1) == 0
    assert fade(torch.full((9,), 2.0, dtype=DOUBLE), 2) == 1


def test_the_bound_of_a_geometric_decay_by_hand() -> None:
    """phi_k = 0.5^k, |g_h| its sum: E(h) = 2 0.5^h, |g_h| = 2 - 2 0.5^h, delta(h) = E(h) / (2 - 4 0.5^R)."""
    R = 12
    phi = 0.5 ** torch.arange(R, dtype=DOUBLE)
    g = 2 - 2 * 0.5 ** torch.arange(R + 1, dtype=DOUBLE)
    delta = bound(phi, g, 0.5)
    for h in (1, 5, R, R + 3):
        assert delta(h) == pytest.approx(2 * 0.5**h / (2 - 4 * 0.5**R), rel=1e-12)
    assert smallest(delta, R, 0.5, 0.1) == 4
    assert smallest(delta, R, 0.5, 0.5**14) == 15
    assert delta(15) <= 0.5**14 < delta(14)
    assert smallest(bound(phi, g, 1.0), R, 1.0, 0.1) is None
    assert bound(phi, g, 1.0)(3) == math.inf
    assert smallest(bound(phi, g / 1e5, 0.5), R, 0.5, 0.1) is None


@pytest.mark.parametrize(("cell", "layers"), [("elman", 1), ("gru", 2), ("lstm", 2)])
def test_what_is_measured_is_what_truncation_loses(cell: str, layers: int) -> None:
    """|g_h| is that of BPTT(h) on the probe, R steps before its errors; sums of phi bound every difference."""
    net, seen = network(cell, layers=layers), stream(15, 2, restarts=0.05)
    R = 7
    measured = measure(net, squared_error, seen, None, R)
    assert measured is not None
    phi, g = measured
    assert seen.mask is not None
    seen.mask[: R - 1] = 0
    grads = []
    for h in range(1, R + 1):
        estimate = brute_force(net, squared_error, seen, h, 1)
        parts = [estimate.grads[name].flatten() for name, _ in net.named_parameters() if name.startswith("layers")]
        grads.append(torch.cat(parts) / estimate.count)
    assert distance(g[1:], torch.stack(grads).norm(dim=1)) <= rounding(DOUBLE, 15, H)
    assert g[0] == 0
    for a, b in product(range(R), repeat=2):
        if a < b:
            assert (grads[b] - grads[a]).norm() <= phi[a + 1 : b + 1].sum() * (1 + 1e-12)
    # Of one error of one row there is nothing to cancel.
    one = Chunk(seen.x[:R, :1], seen.y[:R, :1], None, None)  # type: ignore[index]
    alone = measure(net, squared_error, one, None, R)
    assert alone is not None
    first = brute_force(net, squared_error, replace(one, mask=torch.eye(R)[-1:].T), 1, 1)
    norm = torch.cat([w.flatten() for name, w in first.grads.items() if name.startswith("layers")]).norm()
    assert alone[0][0] == pytest.approx(float(norm), rel=1e-10)


ADAPTIVE = AdaptiveBPTT(0.1, probe=60, again=100)


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_the_bias_keeps_to_the_tolerance(cell: str) -> None:
    net, chunk = network(cell, layers=2), stream(130, restarts=0)
    _, memory = ADAPTIVE(net, squared_error, replace(chunk, end=False), ADAPTIVE.start(net))
    choice = memory.choice
    assert choice is not None
    assert 1 < choice.h < 30
    assert 0 < choice.beta < 1
    assert choice.bound <= 0.1
    wanted = total(BPTT(), net, squared_error, chunk).grads
    errors = []
    for h in (choice.h, 1):
        given = total(BPTT(h), net, squared_error, chunk).grads
        both = [torch.cat([part[name].flatten() for name in part]) for part in (given, {n: wanted[n] for n in given})]
        errors.append(float((both[0] - both[1]).norm() / both[1].norm()))
    assert errors[0] < 0.1 < errors[1]
    assert ADAPTIVE.note(memory) == choice.words
    assert choice.words.startswith(f"h={choice.h}: the error fades by a factor of {choice.beta:.3g} a step from lag 7")


def choosing(monkeypatch: pytest.MonkeyPatch, *hs: int) -> list[int]:
    """Choices of these h, one after the other; returns the lengths of the probes that they are made from."""
    asked: list[int] = []

    def choose(self: AdaptiveBPTT, net: nn.Module, loss: Any, seen: Chunk, state: Any) -> Choice:
        asked.append(seen.steps)
        return Choice(hs[len(asked) - 1], 0.5, 0.1, f"h={hs[len(asked) - 1]}")

    monkeypatch.setattr(AdaptiveBPTT, "_choose", choose)
    return asked


@pytest.mark.parametrize("cuts", [(), (5,), (7, 8, 15), tuple(range(1, 26))])
@pytest.mark.parametrize("hs", [(2, 5, 3), (5, 2, 2)])
def test_every_error_goes_back_as_far_as_was_chosen_when_it_came(
    monkeypatch: pytest.MonkeyPatch, hs: tuple[int, ...], cuts: tuple[int, ...]
) -> None:
    """Measured at 6, 14 and 22; the first choice is for the errors before it too, and windows look over the seam."""
    net, chunk = network("gru", layers=2), stream(26)
    asked = choosing(monkeypatch, *hs)
    given = total(AdaptiveBPTT(probe=6, again=8, every=1), net, squared_error, chunk, cuts)
    assert asked == [6, 6, 6]
    assert chunk.mask is not None
    wanted = Estimate.nothing(chunk.x)
    for h, start, stop in zip(hs, (0, 14, 22), (14, 22, 26), strict=True):
        mask = torch.zeros_like(chunk.mask)
        mask[start:stop] = chunk.mask[start:stop]
        wanted += brute_force(net, squared_error, replace(chunk, mask=mask), h, 1)
    assert_same(given, wanted, 26)


def test_chunks_change_nothing_and_the_memory_can_be_saved() -> None:
    net, chunk = network("lstm", layers=2), stream(190)
    credit = AdaptiveBPTT(0.1, probe=60, again=70)
    whole = total(credit, net, squared_error, chunk)
    assert_same(total(credit, net, squared_error, chunk, (13, 59, 61, 125)), whole, 190)
    memory: Any = credit.start(net)
    estimate = Estimate.nothing(chunk.x)
    for start in range(0, 190, 38):
        part, memory = credit(net, squared_error, chunk[start : start + 38], memory)
        estimate += part
        skeleton, tensors = flatten(memory)
        assert not any(tensor.requires_grad for tensor in tensors.values())
        memory = unflatten(json.loads(json.dumps(skeleton)), tensors, credit.memories)
    assert_same(estimate, whole, 190)
    assert memory.choice is not None
    assert memory.seen == ()


def test_a_stream_that_ends_before_the_first_measurement_is_settled_whole() -> None:
    net, chunk = network(), stream(20)
    wanted = total(BPTT(), net, squared_error, chunk)
    for cuts in ((), (7, 9), (20,)):
        assert_same(total(AdaptiveBPTT(), net, squared_error, chunk, cuts), wanted, 20)


def exploding() -> Network:
    """A state that stays at zero, and an error that grows by 2 % a step."""
    net = network("elman:phi=identity", units=3)
    with torch.no_grad():
        net.layers.weight_hh_l0.copy_(1.02 * torch.eye(3, dtype=DOUBLE))
        for weight in (net.layers.weight_ih_l0, net.layers.bias_ih_l0, net.layers.bias_hh_l0):
            weight.zero_()
    return net


def test_an_error_that_does_not_fade_is_refused_without_a_maximum() -> None:
    net, chunk = exploding(), stream(60, restarts=0)
    chunk = replace(chunk, mask=None)
    with pytest.raises(
        ValueError,
        match=r"maximum must be given unless the error fades; got a factor of 1\.0\d+ a step from lag 7 to 29\. Give",
    ):
        total(ADAPTIVE, net, squared_error, chunk)
    credit = replace(ADAPTIVE, maximum=12, every=1)
    estimate, memory = credit(net, squared_error, replace(chunk, end=False), credit.start(net))
    assert_same(estimate, brute_force(net, squared_error, chunk, 12, 1), 60)
    assert memory.choice is not None
    assert memory.choice.bound == math.inf
    assert credit.note(memory).startswith("h=12, the maximum: the error does not fade, its factor is 1.0")


def test_limits_are_kept_and_said() -> None:
    net, chunk = network(), stream(60, restarts=0)
    for limits, h, words in (
        ({"maximum": 2}, 2, r"h=2 \(the maximum; \d+ keeps to the tolerance\): the error fades"),
        ({"minimum": 40}, 40, r"h=40 \(the minimum; \d+ keeps to the tolerance\): the error fades"),
    ):
        credit = replace(ADAPTIVE, **limits)  # type: ignore[arg-type]
        _, memory = credit(net, squared_error, replace(chunk, end=False), credit.start(net))
        assert memory.choice is not None
        assert memory.choice.h == h
        assert re.match(words, memory.choice.words)


def test_a_probe_without_errors_is_measured_again_soon() -> None:
    net, chunk = network(), stream(130)
    assert chunk.mask is not None
    chunk.mask[:60] = 0
    _, memory = ADAPTIVE(net, squared_error, chunk[:60], ADAPTIVE.start(net))
    assert ADAPTIVE.note(memory) == "h=30, for now: the probe has no finite error that counts."
    _, memory = ADAPTIVE(net, squared_error, chunk[60:120], memory)
    assert "the error fades" in ADAPTIVE.note(memory)
    chunk.x[30] = float("inf")
    chunk.mask[:] = 1
    _, memory = ADAPTIVE(net, squared_error, chunk[:60], ADAPTIVE.start(net))
    assert "no finite error" in ADAPTIVE.note(memory)


def test_the_record_says_what_was_chosen() -> None:
    net, chunk = network(), stream(120)
    chunks = [chunk[start : start + 20] for start in range(0, 120, 20)]
    notes = [record.note for record in tt.train(net, chunks, credit=ADAPTIVE, loss="squared", updates=4)]
    assert notes[0] is not None
    assert notes[0].startswith("h=")
    assert notes[1:] == [None] * 3
    assert all(r.note is None for r in tt.train(net, chunks, credit="bptt:h=20,every=20", loss="squared", updates=3))


def test_a_window_of_inputs_has_nothing_to_choose() -> None:
    net, chunk = Window(inputs=I, units=H, outputs=A, window=3).double(), stream(80)
    wanted = total(BPTT(), net, squared_error, chunk)
    assert_same(total(ADAPTIVE, net, squared_error, chunk, (30,)), wanted, 80)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"tolerance": 0.0}, "tolerance must be a share of the gradient, above 0; got 0.0."),
        ({"probe": 5}, "probe must be at least 6 steps, for lags to fit a line to; got 5."),
        ({"probe": 0}, "probe must be a whole number of steps, at least 1; got 0."),
        ({"again": 100}, "again must be at least probe, 200 steps; got 100. Raise it."),
        ({"tau": 99}, "tau must be from 0 to 98, as half a probe of lags is looked at; got 99. Lower it"),
        ({"minimum": 9, "maximum": 8}, "maximum must be at least minimum; got 8, below 9."),
        ({"every": 0}, "every must be a whole number of steps, at least 1; got 0."),
    ],
)
def test_arguments_of_adaptive_bptt_that_cannot_be(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        AdaptiveBPTT(**arguments)


def test_the_decay_is_measured_on_the_librarys_own_networks() -> None:
    with pytest.raises(TypeError, match=r"for AdaptiveBPTT; got Adapted\. .* use BPTT\(h\) or RandomTruncation\."):
        AdaptiveBPTT().start(Adapted(nn.GRU(I, H)))
