"""Truncation where the measured decay of the error allows it."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import product
from typing import Any

import pytest
import torch
from credit_case import DOUBLE, A, H, I, assert_same, network, stream
from torch import nn

import throughtime as tt
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, AdaptiveBPTT, Estimate
from throughtime.credit.adaptive import Choice, bound, fade, measure, smallest
from throughtime.nets import Adapted, Network, Window, squared_error
from throughtime.state import flatten, unflatten
from throughtime.verify.credit import brute_force, total
from throughtime.verify.result import distance, rounding


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
