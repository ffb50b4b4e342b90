"""The fully recurrent network against its formulas in NumPy, against autograd through plain steps, and at work."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from williams_zipser import EXACT, A, B, M, N, T, chunk_of, delta_rule, epochs, influence_rule, matrix, network

import throughtime as tt
from throughtime import kernels
from throughtime.cells import cell_named
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Credit, credit_named
from throughtime.nets import build, squared_error
from throughtime.recurrent import FullyRecurrent
from throughtime.sweep import sweep
from throughtime.verify.credit import brute_force, total

DOUBLE = torch.float64
EXACT_CREDITS = ["bptt", "rtrl"]


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "identity"])
@pytest.mark.parametrize(("h", "every"), [(None, T), (1, 1), (4, 1), (4, 2), (3, 3)])
def test_delta_and_update_entry_by_entry(forced: bool, phi: str, h: int | None, every: int) -> None:
    eta = 0.3
    net, rows = network(phi=phi, forced=forced), epochs()
    found = [delta_rule(net, row, eta, h, every) for row in rows]
    loss, dW, db = (sum(parts) for parts in zip(*found, strict=True))
    estimate = total(BPTT() if h is None else BPTT(h, every), net, squared_error, chunk_of(rows, forced), (2, 5))
    assert estimate.loss.item() == pytest.approx(loss, rel=EXACT)
    assert estimate.count == sum((~np.isnan(row.d[1:])).sum() for row in rows)
    before = matrix(net)
    for name, weight in net.named_parameters():
        weight.grad = estimate.grads[name]
    torch.optim.SGD(net.parameters(), lr=eta).step()
    for was, now, update in zip(before, matrix(net), (dW, db), strict=True):
        np.testing.assert_allclose(now - was, update, rtol=EXACT, atol=EXACT)


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("credit", EXACT_CREDITS)
def test_backward_in_time_equals_forward_in_time(forced: bool, credit: str) -> None:
    net, rows = network(forced=forced, bias=False), epochs()
    wanted = sum(influence_rule(net, row, 1.0) for row in rows)
    for cuts in ((), (3, 4), range(1, T)):
        found = total(credit_named(credit), net, squared_error, chunk_of(rows, forced), cuts)
        np.testing.assert_allclose(-found.grads["weight"].numpy(), wanted, rtol=EXACT, atol=EXACT)


def plain(net: FullyRecurrent, x: Tensor, state: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    """The network step by step and unit by unit, in operations of autograd, straight from the definition."""
    outputs, y = [], state
    for t in range(x.shape[0]):
        rows = []
        for b in range(x.shape[1]):
            z = [torch.zeros((), dtype=DOUBLE) if reset is not None and reset[t, b] else y[b, i] for i in range(N)]
            for i in range(A if net.forced else 0):
                if not torch.isnan(x[t, b, M + i]):
                    z[i] = x[t, b, M + i]
            v = net.weight @ torch.cat((torch.stack(z), x[t, b, :M]))
            rows.append(torch.sigmoid(v if net.bias is None else v + net.bias))
        y = torch.stack(rows)
        outputs.append(y[:, :A])
    return torch.stack(outputs), y


def inputs(forced: bool, steps: int, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(steps, rows, M + forced * A, dtype=DOUBLE)
    x[..., M:].masked_fill_(torch.rand(steps, rows, forced * A) < 0.5, float("nan"))
    state = torch.rand(rows, N, dtype=DOUBLE)
    return x.requires_grad_(), state.requires_grad_(), torch.rand(steps, rows) < 0.2


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("steps", "rows"), [(7, 3), (1, 1), (1, 3), (7, 1)])
def test_gradient_equals_autograd_through_plain_steps(forced: bool, bias: bool, steps: int, rows: int) -> None:
    """Outputs, last state, and the gradients of weights, state and x; what is forced has a gradient too."""
    net = network(forced=forced, bias=bias)
    x, state, reset = inputs(forced, steps, rows)
    errors = torch.randn(steps, rows, A, dtype=DOUBLE), torch.randn(rows, N, dtype=DOUBLE)
    found = []
    for run in (net, lambda *call: plain(net, *call)):
        for restarts in (reset, None):
            outputs = run(x, state, restarts)
            grads = torch.autograd.grad(outputs, (x, state, *net.parameters()), errors, materialize_grads=True)
            found.append((*outputs, *grads))
    for given, wanted in zip(found[:2], found[2:], strict=True):
        for mine, theirs in zip(given, wanted, strict=True):
            assert (mine - theirs).abs().max() < EXACT


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, in forward mode
def test_forced_gradients_are_derivatives() -> None:
    """Finite differences: reverse mode, reverse mode twice, and forward mode."""
    net = FullyRecurrent(3, 2, 1, forced=True).double()
    d = torch.tensor([[0.3, float("nan")], [float("nan"), 0.8], [0.1, 0.9]], dtype=DOUBLE)[..., None]
    u, state = (torch.randn(*shape, dtype=DOUBLE, requires_grad=True) for shape in ((3, 2, 2), (2, 3)))
    reset = torch.tensor([[False, True], [False, False], [True, False]])
    weights = dict(net.named_parameters())

    def run(u: Tensor, state: Tensor, *given: Tensor) -> Any:
        x = torch.cat((u, d), -1)
        return torch.func.functional_call(net, dict(zip(weights, given, strict=True)), (x, state, reset))

    inputs = (u, state, *weights.values())
    assert gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("name", ["elman", "gru", "lstm", "ctrnn:alpha=0.3"])
def test_the_sweep_cuts_single_units(name: str) -> None:
    """k per unit, in every cell: against autograd through the loop as it is defined."""
    cell = cell_named(name)
    G, H = cell.gates, 4
    u, W_h = torch.randn(T, B, G, H, dtype=DOUBLE), torch.randn(G * H, H, dtype=DOUBLE)
    leaves = [part.requires_grad_() for part in (u, W_h, *torch.randn(cell.slots, B, H, dtype=DOUBLE).unbind())]
    reset = torch.rand(T, B, H) < 0.3
    s, steps = tuple(leaves[2:]), []
    for t in range(T):
        s = tuple(slot * (~reset[t]).double() for slot in s)
        s, _ = cell.forward(u[t], (s[0] @ W_h.T).view(B, G, H), s)
        steps.append(s)
    wanted = tuple(torch.stack(slots) for slots in zip(*steps, strict=True))
    given = sweep(cell, u, W_h, None, tuple(leaves[2:]), reset)
    errors = [torch.randn(T, B, H, dtype=DOUBLE) for _ in given]
    grads = [torch.autograd.grad(states, leaves, errors) for states in (given, wanted)]
    for mine, theirs in zip((*given, *grads[0]), (*wanted, *grads[1]), strict=True):
        assert (mine - theirs).abs().max() < 1e-11 * (1 + theirs.abs().max())


@pytest.mark.parametrize("forced", [False, True])
@pytest.mark.parametrize(("h", "every"), [(None, 12), (1, 1), (5, 1), (5, 3), (4, 4)])
def test_truncation_by_its_definition(forced: bool, h: int | None, every: int) -> None:
    """Every step on weights of its own, restarts in mid-row, errors with weights; however time is cut into chunks."""
    steps = 12
    net = network(forced=forced)
    x, state, reset = (part.detach() for part in inputs(forced, steps, B))
    mask = torch.rand(steps, B, A, dtype=DOUBLE) * (torch.rand(steps, B, A) < 0.6)
    y = torch.rand(steps, B, A, dtype=DOUBLE).masked_fill(mask == 0, float("nan"))
    chunk = Chunk(x, y, mask, reset, end=True)
    wanted = brute_force(net, squared_error, chunk, h, every, state)
    credits: list[Credit] = [BPTT(h, every)] if h else [credit_named(name) for name in EXACT_CREDITS]
    for credit in credits:
        for cuts in ((), (5, 6), range(1, steps)):
            found = total(credit, net, squared_error, chunk, cuts, state)
            assert found.count == pytest.approx(wanted.count, rel=EXACT)
            assert (found.loss - wanted.loss).abs() < EXACT
            for name, grad in wanted.grads.items():
                assert (found.grads[name] - grad).abs().max() < EXACT * (1 + grad.abs().max())


def test_forcing_every_unit_leaves_the_immediate_gradient() -> None:
    """No unit is free, so nothing goes back: BPTT() is BPTT(1; 1). With the teacher silent it is not."""
    net = FullyRecurrent(A, M, A, forced=True).double()
    rows = epochs()
    chunk = chunk_of(rows, True)
    chunk.x[..., M:] = torch.rand(T, B, A)
    whole, one = (total(credit, net, squared_error, chunk).grads["weight"] for credit in (BPTT(), BPTT(1)))
    assert (whole - one).abs().max() < EXACT
    chunk.x[..., M:] = float("nan")
    whole, one = (total(credit, net, squared_error, chunk).grads["weight"] for credit in (BPTT(), BPTT(1)))
    assert (whole - one).abs().max() > 1e-3


def test_a_silent_teacher_changes_nothing() -> None:
    net = network()
    taught = network(forced=True)
    taught.load_state_dict(net.state_dict())
    x, state, reset = (part.detach() for part in inputs(False, T, B))
    silent = torch.full((T, B, A), float("nan"), dtype=DOUBLE)
    for given, wanted in zip(taught(torch.cat((x, silent), -1), state, reset), net(x, state, reset), strict=True):
        assert (given - wanted).abs().max() < EXACT


def test_a_forced_unit_forgets_what_it_was() -> None:
    """Whatever a forced unit came with, a number that is none too; and so for rows that restart."""
    net = network(forced=True)
    x, state, _ = (part.detach() for part in inputs(True, T, B))
    x[0, :, M] = 0.5
    other = state.clone()
    other[:, 0] = float("nan")
    assert torch.equal(net(x, state)[0], net(x, other)[0])
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[0] = True
    assert torch.equal(net(x, torch.full_like(state, float("nan")), reset)[0], net(x, None)[0])


@pytest.mark.parametrize("forced", [False, True])
def test_one_step_a_call_is_all_steps_in_one_call(forced: bool) -> None:
    net = network(forced=forced)
    x, state, reset = (part.detach() for part in inputs(forced, T, B))
    whole, last = net(x, state, reset)
    steps = []
    for t in range(T):
        y, state = net(x[t : t + 1], state, reset[t : t + 1])
        steps.append(y)
    assert (torch.cat(steps) - whole).abs().max() < EXACT
    assert (state - last).abs().max() < EXACT


def test_it_is_an_elman_network_whose_readout_shows_some_units() -> None:
    net, seen = network(phi="tanh"), tt.Network("elman", inputs=M, units=N, outputs=A).double()
    weights = {
        "layers.weight_hh_l0": net.weight[:, :N],
        "layers.weight_ih_l0": net.weight[:, N:],
        "layers.bias_ih_l0": net.bias,
        "layers.bias_hh_l0": torch.zeros(N),
        "readout.weight": torch.eye(N)[:A],
        "readout.bias": torch.zeros(A),
    }
    seen.load_state_dict(weights)  # type: ignore[arg-type]
    x = torch.randn(T, B, M, dtype=DOUBLE)
    assert (net(x)[0] - seen(x)[0]).abs().max() < EXACT


@pytest.mark.parametrize("phi", ["sigmoid", "tanh", "relu", "identity"])
@pytest.mark.parametrize("bias", [False, True])
def test_backends_agree(phi: str, bias: bool) -> None:
    nets = [network(phi=phi, bias=bias, backend=backend) for backend in ("auto", "reference")]
    nets += [network(phi=phi, bias=bias, backend="torch")] if phi in ("tanh", "relu") else []
    ids = torch.randint(0, M, (T, B))
    found = []
    for net in nets:
        net.load_state_dict(nets[0].state_dict())
        y = net(ids)[0]
        found.append((y, *torch.autograd.grad(y.square().sum(), list(net.parameters()))))
    one_hot = torch.nn.functional.one_hot(ids, M).double()
    found.append((nets[0](one_hot)[0], *found[0][1:]))
    for other in found[1:]:
        for mine, theirs in zip(found[0], other, strict=True):
            assert (mine - theirs).abs().max() < 1e-11 * (1 + theirs.abs().max())


def test_why() -> None:
    assert kernels.why(network(forced=True)) == "reference: asked for by name"
    assert kernels.why(network(phi="sigmoid", backend="reference")) == "reference: asked for by name"


class Xor:
    """d(n) = u_1(n - delay) XOR u_2(n - delay), random bits, in chunks of 8 steps."""

    def __init__(self, delay: int, chunks: int, streams: int = 16) -> None:
        self.delay, self.bits = delay, torch.randint(0, 2, (8 * chunks + delay, streams, 2))

    def __len__(self) -> int:
        return (len(self.bits) - self.delay) // 8

    def __getitem__(self, index: int) -> Chunk:
        now = slice(8 * index + self.delay, 8 * index + self.delay + 8)
        past = self.bits[8 * index + 1 : 8 * index + 9]  # those whose answer is d(n + 1)
        d = (past[..., :1] ^ past[..., 1:]).double()
        return Chunk(self.bits[now].double(), d, end=index == len(self) - 1)


def solved(credit: str, source: Xor) -> float:
    """The share of right answers on new bits after training, one half being that of guessing.

    XOR needs a hidden step, and d wants it a step later still, so hidden units must hold what they saw.
    """
    torch.manual_seed(0)
    net = FullyRecurrent(6, 2, 1).double()
    torch.nn.init.normal_(net.weight)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in tt.train(net, source, credit=credit, loss="squared", optimizer=optimizer):
        pass
    test, state, right = Xor(source.delay, 21), None, []
    for index in range(21):
        y, state = net(test[index].x, state)
        right.append((y > 0.5) == (test[index].y > 0.5))
    return float(torch.cat(right[1:]).double().mean())


def test_it_learns_delayed_xor_with_one_visible_unit() -> None:
    assert solved("bptt:h=8,every=4", Xor(3, 400)) > 0.99


def test_delayed_xor_is_not_learned_without_the_steps_between() -> None:
    """As many updates along the gradient of each step's own error."""
    assert solved("bptt:h=1", Xor(3, 100)) < 0.7


def test_it_learns_delayed_xor_forward_in_time() -> None:
    assert solved("rtrl", Xor(3, 400, streams=2)) > 0.95


def test_a_run_is_saved_and_loaded(tmp_path: Path) -> None:
    """Folder, weights and options; going on from it gives the weights of one training without a stop."""
    nets = [network(phi="tanh", bias=False), network(phi="tanh", bias=False)]
    nets[1].load_state_dict(nets[0].state_dict())
    source = XorOfThree(4)
    options = {"credit": "bptt:h=4,every=2", "loss": "squared"}

    def train(net: FullyRecurrent, **more: Any) -> None:
        for _ in tt.train(net, source, optimizer=torch.optim.SGD(net.parameters(), lr=0.1), **options, **more):
            pass

    train(nets[0], epochs=2)
    train(nets[1], epochs=1, run=tmp_path / "run")
    train(nets[1], epochs=2, run=tmp_path / "run", resume=True)
    loaded = tt.load(tmp_path / "run").net
    assert isinstance(loaded, FullyRecurrent)
    assert loaded.config() == nets[0].config()
    for one, two, three in zip(*(net.parameters() for net in (*nets, loaded)), strict=True):
        assert torch.equal(one, two)
        assert torch.equal(one.float(), three)


class XorOfThree(Xor):
    """The same with M inputs, and targets on the first of the A visible units."""

    def __init__(self, chunks: int) -> None:
        super().__init__(2, chunks)

    def __getitem__(self, index: int) -> Chunk:
        chunk = super().__getitem__(index)
        assert chunk.y is not None
        mask = torch.tensor([1.0, 0.0], dtype=DOUBLE).expand(8, 16, A)
        return Chunk(chunk.x[..., [0, 1, 1]], chunk.y.expand(8, 16, A), mask, end=chunk.end)


def test_its_config_builds_it_again() -> None:
    for options in ({}, {"phi": "relu", "forced": True, "bias": False}):
        net = network(**options)
        again = build(net.config())
        assert again.config() == net.config()
        assert {name: part.shape for name, part in again.state_dict().items()} == {
            name: part.shape for name, part in net.state_dict().items()
        }


def refusals() -> Iterator[tuple[Any, str]]:
    x = torch.zeros(T, B, M, dtype=DOUBLE)
    yield lambda: FullyRecurrent(0, 1, 1), "units must be at least 1; got 0."
    yield lambda: FullyRecurrent(3, 0, 1), "inputs must be at least 1; got 0."
    yield lambda: FullyRecurrent(3, 2, 0), "visible must be at least 1; got 0."
    yield lambda: FullyRecurrent(3, 2, 4), "visible must be at most units, 3; got 4. Raise units."
    yield lambda: network(phi="step"), "phi must be one of tanh, relu, sigmoid, identity; got 'step'."
    yield lambda: network(backend="fast"), "backend must be auto, native, torch or reference; got 'fast'."
    sentence = "backend must be auto or reference with forced=True; got 'native'."
    yield lambda: network(forced=True, backend="native"), sentence
    sentence = "x must be numbers (T, B, 3), or ids (T, B); got torch.float64 (9, 3, 2)."
    yield lambda: network()(x[..., :2]), sentence
    sentence = "x must be numbers (T, B, 5), 3 inputs and 2 forced values; got torch.float64 (9, 3, 3)."
    yield lambda: network(forced=True)(x), sentence
    sentence = "x must be numbers (T, B, 5), 3 inputs and 2 forced values; got torch.int64 (9, 3)."
    yield lambda: network(forced=True)(x[..., 0].long()), sentence
    yield lambda: network()(torch.full((T, B), 3)), "x must be ids from 0 to 2; got 3 to 3."
    sentence = "state must be a tensor (3, 5), as the call before returned it."
    yield lambda: network()(x, torch.zeros(B, A)), sentence
    sentence = "reset must be bool with the leading axes of x, (9, 3); got torch.bool (3,)."
    yield lambda: network()(x, None, torch.zeros(B, dtype=torch.bool)), sentence


@pytest.mark.parametrize(("call", "sentence"), list(refusals()))
def test_what_is_refused(call: Any, sentence: str) -> None:
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == sentence


def test_kept_activations_are_for_other_networks() -> None:
    with pytest.raises(TypeError, match="net must be a Network with plain weights for replay=False; got FullyRec"):
        BPTT(3, 1, replay=False).start(network())
