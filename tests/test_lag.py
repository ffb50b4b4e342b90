"""All windows of BPTT(h; 1) at once, by lag: against its definition, window by window, and lag by lag."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from credit_case import CELLS, DOUBLE, A, B, H, I, assert_same, cut, network, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from native_case import threads
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import prune

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Estimate, ParallelBPTT, credit_named, lag, spell_credit
from throughtime.credit.trace import read
from throughtime.kernels import native
from throughtime.nets import Adapted, Network, Window, cross_entropy, squared_error, sum_errors
from throughtime.verify.credit import brute_force, check_credit, compare, total
from throughtime.verify.result import distance, require, rounding

__all__ = ["threads"]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_window_by_window(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream(11, axes=1 + layers)
    for h in (1, 4, 20):
        wanted = brute_force(net, squared_error, chunk, h, 1)
        for cuts in ((), (5, 6), range(1, 11)):
            given = total(ParallelBPTT(h), net, squared_error, chunk, cuts)
            assert compare(given, wanted, 11).error <= 1e-10
            assert_same(given, wanted, 11)


@given(st.data())
@settings(max_examples=25)
def test_window_by_window_for_any_h_and_any_chunks(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 12))
    h = data.draw(st.integers(1, 14))
    restarts = data.draw(st.sampled_from([0, 0.1, 0.6]))
    cell = data.draw(st.sampled_from(["elman", "gru", "lstm"]))
    layers = data.draw(st.integers(1, 3))
    torch.manual_seed(data.draw(st.integers(0, 100)))
    net, chunk = network(cell, layers=layers), stream(steps, 2, restarts=restarts)
    given = total(ParallelBPTT(h), net, squared_error, chunk, data.draw(cut(steps)))
    assert_same(given, brute_force(net, squared_error, chunk, h, 1), steps)


@pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize(("steps", "rows", "units"), [(1, 1, 5), (130, 1, 63), (61, 3, 7), (9, 40, 33), (200, 2, 64)])
@pytest.mark.parametrize("decay", [1.0, 0.7])
def test_the_kernel_is_lag_by_lag(cell: str, steps: int, rows: int, units: int, decay: float, threads: None) -> None:
    torch.manual_seed(steps)
    net = Network(cell, inputs=3, units=units, outputs=2).double()
    reset = torch.rand(steps, rows) < 0.05
    chunk = Chunk(torch.randn(steps, rows, 3).double(), torch.randn(steps, rows, 2).double(), reset=reset, end=True)
    estimates = []
    for backend, count in (("reference", 1), ("native", 1), ("native", 2), ("native", 3)):
        torch.set_num_threads(count)
        net.layers.backend = backend
        credit = ParallelBPTT(8, decay)
        estimates.append(total(credit, net, squared_error, chunk, (steps // 3,) if steps > 3 else ()))
    for estimate in estimates[1:]:
        assert_same(estimate, estimates[0], steps)


def test_the_laws() -> None:
    require(check_credit("parallel:h=4,decay=0.5", "gru", layers=(2,)))


def test_the_window_of_the_whole_stream_is_epochwise() -> None:
    net, chunk = network("lstm"), stream(13)
    assert_same(total(ParallelBPTT(13), net, squared_error, chunk, (4,)), total(BPTT(), net, squared_error, chunk), 13)


def test_long_chunks_go_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    net, chunk = network("gru", layers=2), stream(70)
    whole = total(ParallelBPTT(3), net, squared_error, chunk)
    monkeypatch.setattr(lag, "BLOCK", 1)
    assert lag._block(net, chunk, 3) == 24
    assert_same(total(ParallelBPTT(3), net, squared_error, chunk, (50,)), whole, 70)
    assert_same(whole, total(BPTT(3), net, squared_error, chunk), 70)


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_ids_through_a_tied_table(cell: str) -> None:
    net = network(cell, inputs=A, embedding=H, outputs=A, tie=True, layers=2, units=H)
    x, y = torch.randint(0, A, (2, 13, B))
    chunk = Chunk(x, y, reset=torch.rand(13, B) < 0.2, end=True)
    wanted = brute_force(net, cross_entropy, chunk, 4, 1)
    assert_same(total(ParallelBPTT(4), net, cross_entropy, chunk, (3, 7)), wanted, 13)


def test_frozen_weights_have_no_gradient() -> None:
    net, chunk = network("gru", layers=2), stream(9)
    wanted = total(ParallelBPTT(4), net, squared_error, chunk)
    frozen = ["layers.weight_hh_l0", "layers.bias_ih_l1", "readout.bias"]
    for name, weight in net.named_parameters():
        weight.requires_grad_(name not in frozen)
    given = total(ParallelBPTT(4), net, squared_error, chunk)
    kept = {name: grad for name, grad in wanted.grads.items() if name not in frozen}
    assert_same(given, Estimate(wanted.loss, wanted.count, kept), 9)
    assert given.grads.keys() == kept.keys()


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_the_same_dropout_gives_the_same_gradient(cell: str) -> None:
    net, chunk = network(cell, layers=3, dropout=0.4), stream(9)
    estimates = []
    for credit in (ParallelBPTT(9), BPTT(9, 9)):
        torch.manual_seed(5)
        estimates.append(total(credit, net, squared_error, chunk))
    assert_same(*estimates, 9)


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_after_an_update_the_past_is_as_it_was_and_the_weights_are_those_of_now(cell: str) -> None:
    """As BPTT(h, replay=False) does it: the first h - 1 errors of a chunk go back into the chunk before."""
    net, chunk = network(cell, layers=2), stream(14)
    ours, theirs = ParallelBPTT(5), BPTT(5, 1, replay=False)
    memories: list[Any] = [credit(net, squared_error, chunk[:6], credit.start(net))[1] for credit in (ours, theirs)]
    with torch.no_grad():
        for weight in net.parameters():
            weight += 0.1 * torch.randn_like(weight)
    pair = [credit(net, squared_error, chunk[6:], m)[0] for credit, m in zip((ours, theirs), memories, strict=True)]
    assert_same(*pair, 14)
    replayed = total(BPTT(5), net, squared_error, chunk)
    assert compare(pair[0], replayed, 14).error > 1e-3


def by_lag(net: Network, chunk: Chunk, t: int) -> list[dict[str, Tensor]]:
    """The gradient of the error of step t by the steps whose weights it reached, lag 0 first."""
    names = [name for name, _ in net.named_parameters()]
    copies = [{name: w.detach().clone().requires_grad_() for name, w in net.named_parameters()} for _ in range(t + 1)]
    state = None
    for s, copy in enumerate(copies):
        step = chunk[s : s + 1]
        prediction, state = functional_call(net, copy, (step.x, state, step.reset))
    error, _ = sum_errors(squared_error, prediction, step)
    leaves = [copy[name] for copy in copies for name in names]
    found = iter(torch.autograd.grad(error, leaves, materialize_grads=True))
    return [{name: next(found) for name in names} for _ in copies][::-1]


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_a_window_that_fades_weighs_lag_k_by_its_kth_power(cell: str) -> None:
    net, chunk = network(cell, layers=2), stream(8)
    wanted = {name: torch.zeros_like(weight) for name, weight in net.named_parameters()}
    for t in range(8):
        for k, grads in enumerate(by_lag(net, chunk, t)[:5]):
            for name, grad in grads.items():
                wanted[name] += 0.6**k * grad
    given = total(ParallelBPTT(5, decay=0.6), net, squared_error, chunk, (3,))
    assert distance(given.grads, wanted) <= rounding(DOUBLE, 8, H)


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_what_arrives_at_each_lag(cell: str) -> None:
    """ds of both layers at step t - k, for one error at a time, against automatic differentiation of one step."""
    net, chunk = network(cell, layers=2), stream(9)
    trace, _ = read(net, chunk, None)
    error = torch.randn(1, B, H, dtype=DOUBLE)
    full = torch.zeros_like(trace.h)
    full[-1:] = error
    reset = chunk.reset
    assert reset is not None
    for k, (first, found) in enumerate(lag.lags(lag.factors(net, trace), trace.reset, full, 1, 6, gamma=0)):
        assert first == 8 - k
        start = tuple(torch.zeros(2, B, H, dtype=DOUBLE) for _ in range(net.layers.cell.slots))
        if first:
            _, start = net.layers(chunk.x[: first + 1], None, reset[: first + 1])
        else:
            _, start = net.layers(chunk.x[:1], None, reset[:1])
        start = tuple(slot.detach().requires_grad_() for slot in start)
        if k:
            top, _ = net.layers(chunk.x[first + 1 :], start, reset[first + 1 :])
            wanted = torch.autograd.grad((top[-1] * error[0]).sum(), start, materialize_grads=True)
            below, upper = ([part[layer] for part in wanted] for layer in (0, 1))
            assert distance([slot[first, :, 0] for slot in found[1]], upper) <= rounding(DOUBLE, 9, H)
            # The lower layer's own output also feeds the upper one in the same step.
            du = lag.times(lag.factors(net, trace)[1].du, found[1], first)[0]
            through = du.flatten(1) @ net.layers.weight_ih_l1
            below[0] = below[0] + through
            assert distance([slot[first, :, 0] for slot in found[0]], below) <= rounding(DOUBLE, 9, H)


def test_a_window_of_inputs_needs_no_lags() -> None:
    net, chunk = Window(inputs=I, units=H, outputs=A, window=3).double(), stream(9)
    wanted = total(BPTT(), net, squared_error, chunk)
    assert_same(total(ParallelBPTT(1), net, squared_error, chunk, (4, 5)), wanted, 9)


def test_masked_chunks_settle_nothing_and_the_stream_goes_on() -> None:
    net, chunk = network(layers=2), stream(12)
    assert chunk.mask is not None
    chunk.mask[4:8] = 0
    credit = ParallelBPTT(6)
    memory = credit.start(net)
    counts = []
    for start in (0, 4, 8):
        estimate, memory = credit(net, squared_error, chunk[start : start + 4], memory)
        counts.append((estimate.count > 0, bool(estimate.grads)))
    assert counts == [(True, True), (False, False), (True, True)]
    assert memory.trace is None
    assert_same(total(credit, net, squared_error, chunk, (4, 8)), brute_force(net, squared_error, chunk, 6, 1), 12)


def test_an_empty_chunk_may_end_the_stream() -> None:
    net, chunk = network(), stream(7)
    wanted = total(ParallelBPTT(3), net, squared_error, chunk)
    assert_same(total(ParallelBPTT(3), net, squared_error, chunk, (3, 7)), wanted, 7)


def test_the_spelling() -> None:
    assert credit_named("parallel") == ParallelBPTT(h=32, decay=1.0)
    assert credit_named("parallel:h=8,decay=0.5") == ParallelBPTT(8, 0.5)
    assert spell_credit(ParallelBPTT(8)) == "parallel:h=8"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"h": 0}, "h must be a whole number of steps, at least 1; got 0."),
        ({"h": 2.5}, "h must be a whole number of steps, at least 1; got 2.5."),
        ({"h": True}, "h must be a whole number of steps, at least 1; got True."),
        ({"decay": 0.0}, "decay must be above 0 and at most 1; got 0.0."),
        ({"decay": 1.1}, "decay must be above 0 and at most 1; got 1.1."),
        ({"decay": float("nan")}, "decay must be above 0 and at most 1; got nan."),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        ParallelBPTT(**arguments)


def test_other_networks_are_refused() -> None:
    pruned = network("gru")
    prune.random_unstructured(pruned.layers, "weight_hh_l0", 0.5)
    for net in (Adapted(nn.GRU(I, H)), pruned):
        with pytest.raises(TypeError, match=r"plain weights for ParallelBPTT; got .* use BPTT\(h\)\."):
            ParallelBPTT(4).start(net)
    net, chunk = network(), stream(4)
    with pytest.raises(ValueError, match="y must be there to learn from"):
        total(ParallelBPTT(4), net, squared_error, replace(chunk, y=None, mask=None))
