"""The page that unrolls a network: its numbers are the sweep's, BPTT(h)'s and autograd's, and its JSON holds them."""

from __future__ import annotations

import pytest
import torch
from explained import CASES, CELLS, PROBLEMS, explained
from torch import Tensor

from throughtime import BPTT, Chunk, Network, sweep
from throughtime.cells import cell_named
from throughtime.cells.elman import PHI
from throughtime.explain import Explanation, Problem, network, of_values, passes, trained
from throughtime.explain.updates import MOMENTS
from throughtime.stack import direction_of
from throughtime.verify.credit import brute_force, total

EXACT = 1e-12


def same(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() < EXACT * (1 + wanted.abs().max())


# Forward


@pytest.mark.parametrize(("cell", "name"), CASES)
def test_forward_is_the_networks(cell: str, name: str) -> None:
    """States and outputs of the call net(x); gates and states put together again from the parts that are shown."""
    page = explained(cell, name)
    net, problem, there = page.net, page.problem, page.there
    y, last = net(problem.chunk.x)
    same(there.o, y[:, 0])
    for slot, end in zip(there.states, last, strict=True):
        same(slot[-1], end[0, 0])
        assert not slot[0].any()
    assert problem.chunk.y is not None
    same(there.losses, problem.loss(y, problem.chunk.y).flatten())
    if problem.tokens:
        same(there.p, y[:, 0].softmax(-1))
        same(there.x.argmax(-1), problem.chunk.x[:, 0])
    W_x, W_h, b_x, b_h = (weight.detach() for weight in direction_of(net.layers, "l0").weights)
    G, h = net.layers.cell.gates, there.states[0]
    same(there.inputs.flatten(1), there.x @ W_x.T)
    same(there.v.flatten(1), h[:-1] @ W_h.T + b_h)
    a = there.inputs + b_x.view(G, -1) + there.v
    if cell == "gru":
        r, z, n = there.gates.unbind(1)
        a = torch.stack((a[:, 0], a[:, 1], (there.inputs + b_x.view(G, -1))[:, 2] + r * there.v[:, 2]), 1)
        same(h[1:], (1 - z) * n + z * h[:-1])
    same(there.a, a)
    if cell == "lstm":
        i, f, g, o = there.gates.unbind(1)
        c = there.states[1]
        same(c[1:], f * c[:-1] + i * g)
        same(h[1:], o * c[1:].tanh())
    squashed = {"gru": "ssn", "lstm": "ssns", "elman": "n", "elman:phi=sigmoid": "s"}[cell]
    for gate, kind in enumerate(squashed):
        same(there.gates[:, gate], a[:, gate].sigmoid() if kind == "s" else a[:, gate].tanh())


# Backward


def rolled(page: Explanation) -> tuple[list[tuple[Tensor, ...]], list[Tensor], list[Tensor], Tensor]:
    """The states, u and v of every step as leaves of one graph, and the losses: autograd's own view of the page."""
    net, there = page.net, page.there
    W_x, W_h, b_x, b_h = direction_of(net.layers, "l0").weights
    G = net.layers.cell.gates
    s = tuple(slot[:1] for slot in there.states)
    states, us, vs, losses = [], [], [], []
    assert page.problem.chunk.y is not None
    for t in range(page.problem.chunk.steps):
        us.append((there.x[t : t + 1] @ W_x.T + b_x).view(1, G, -1))
        vs.append((s[0] @ W_h.T + b_h).view(1, G, -1))
        s, _ = net.layers.cell.forward(us[-1], vs[-1], s)
        states.append(s)
        losses.append(page.problem.loss(net.readout(s[0])[None], page.problem.chunk.y[t : t + 1]).sum())
    return states, us, vs, torch.stack(losses)


@pytest.mark.parametrize(("cell", "name"), CASES)
def test_errors_of_every_step_are_autograds(cell: str, name: str) -> None:
    """dH, dC, dA and dV of every error at every step, alone and together."""
    page = explained(cell, name)
    states, us, vs, losses = rolled(page)
    T = len(losses)
    both = [(losses.sum(), page.together[::-1])] + [(losses[t], page.alone[t]) for t in range(T)]
    for error, backs in both:
        assert [back.t for back in backs] == list(range(backs[0].t, -1, -1))
        for back in backs:
            wanted = torch.autograd.grad(
                error, [*states[back.t], us[back.t], vs[back.t]], retain_graph=True, materialize_grads=True
            )
            same(back.ds[0], wanted[0][0])
            if cell == "lstm":
                assert back.dc is not None
                same(back.dc, wanted[1][0])
            same(back.du, wanted[-2][0])
            same(back.dv, wanted[-1][0])


@pytest.mark.parametrize(("cell", "name"), CASES)
def test_backward_is_one_sweep(cell: str, name: str) -> None:
    """All steps at once in sweep.backward give what is shown a step at a time; and the parts that arrive add up."""
    page = explained(cell, name)
    net, there = page.net, page.there
    W_h = direction_of(net.layers, "l0").weights.W_h
    errors = (page.e[:, None], *(None,) * (net.layers.cell.slots - 1))
    with torch.no_grad():
        du, dv, _ = sweep.backward(net.layers.cell, there.kept, W_h, None, errors)
    for t, back in enumerate(page.together):
        same(back.du, du[t, 0])
        same(back.dv, dv[t, 0])
        same(back.ds[0], back.own + back.product + back.direct[0])
        same(back.own, page.e[t])
    for steps in page.alone:
        for back in steps[1:]:
            assert not back.own.any()
            same(back.ds[0], back.product + back.direct[0])


@pytest.mark.parametrize("cell", CELLS)
def test_the_readouts_errors(cell: str) -> None:
    """r = softmax - one-hot for letters, prediction - target for numbers; e = r W_hq^T."""
    for name in PROBLEMS:
        page = explained(cell, name)
        target = page.problem.chunk.y
        assert target is not None
        if page.problem.tokens:
            wanted = page.there.p - torch.nn.functional.one_hot(target[:, 0], page.problem.width)
        else:
            wanted = page.there.o - target[:, 0]
        same(page.r, wanted)
        same(page.e, wanted @ page.net.readout.weight.detach())


def test_the_slope_is_the_derivative_of_phi() -> None:
    for phi in PHI:
        a = torch.randn(9, dtype=torch.float64, requires_grad=True)
        h = PHI[phi][0](a)
        found = passes.slope(cell_named(f"elman:phi={phi}"), h.detach())
        assert found is not None
        same(found, torch.autograd.grad(h.sum(), a)[0])
    assert passes.slope(cell_named("gru"), torch.ones(2)) is None


# Gradients and updates


def shares(page: Explanation, h: int) -> dict[str, Tensor]:
    """The gradient as the sum of the shares that the page shows under BPTT(h)."""
    T, G = page.problem.chunk.steps, page.net.layers.cell.gates
    named = dict(page.net.named_parameters())
    found = {name: torch.zeros_like(weight) for name, weight in named.items() if weight.requires_grad}
    backs = page.together if h == T else [back for steps in page.alone for back in steps[:h]]
    for back in backs:
        row = page.problem.chunk.x[back.t, 0] if page.problem.tokens else 0
        found["layers.weight_ih_l0"][:, row] += back.to_x.flatten()
        found["layers.weight_hh_l0"] += back.to_h.reshape(-1, G * page.net.layers.units).T
        found["layers.bias_ih_l0"] += back.du.flatten()
    for t in range(T):
        found["readout.weight"] += torch.outer(page.r[t], page.there.states[0][t + 1])
        found["readout.bias"] += page.r[t]
    return found


@pytest.mark.parametrize(("cell", "name"), CASES)
def test_the_shares_add_up_to_the_gradient_of_every_h(cell: str, name: str) -> None:
    """Of BPTT(h) itself, of its definition step by step, and of what the page gives as the sum."""
    page = explained(cell, name)
    net, problem = page.net, page.problem
    for h, descent in enumerate(page.descents, 1):
        added = shares(page, h)
        credit = BPTT() if h == problem.chunk.steps else BPTT(h)
        for wanted in (
            total(credit, net, problem.loss, problem.chunk),
            brute_force(net, problem.loss, problem.chunk, h, 1),
        ):
            assert added.keys() == wanted.grads.keys() == descent.grads.keys()
            for key, grad in wanted.grads.items():
                same(added[key], grad)
                same(descent.grads[key], grad)


@pytest.mark.parametrize("cell", CELLS)
def test_updates_are_gradient_descent(cell: str) -> None:
    """torch.optim.SGD on the gradients of BPTT(h): the losses, and the weights and outputs at the moments kept."""
    page = explained(cell, "repeated")
    for h in (1, 2, page.problem.chunk.steps):
        net = network(page.problem, cell, 3, seed=5)
        optimizer = torch.optim.SGD([weight for weight in net.parameters() if weight.requires_grad], lr=0.1)
        descent = page.descents[h - 1]
        assert len(descent.losses) == MOMENTS[-1] + 1
        for update in range(6):
            estimate = total(BPTT(h), net, page.problem.loss, page.problem.chunk)
            assert estimate.loss.item() == pytest.approx(descent.losses[update], rel=EXACT)
            for name, weight in net.named_parameters():
                same(descent.weights[update][name], weight.detach())
                weight.grad = estimate.grads.get(name)
            same(descent.passes[update].o, net(page.problem.chunk.x)[0][:, 0])
            optimizer.step()
        assert descent.losses[-1] < descent.losses[0]


def test_a_rate_under_which_the_loss_explodes_is_refused() -> None:
    problem = of_values([1, 2, 3, 4])
    with pytest.raises(ValueError, match="--rate must be lower"):
        Explanation.of(network(problem, "elman:phi=identity"), problem, 50.0)
    with pytest.raises(ValueError, match="--rate must be above 0"):
        Explanation.of(network(problem), problem, 0.0)


# The network and the problem


@pytest.mark.parametrize("cell", CELLS)
def test_one_bias_is_the_same_function(cell: str) -> None:
    net = Network(cell, inputs=4, units=5, outputs=4)
    x = torch.randint(0, 4, (6, 2))
    ready = trained(net, "a run")
    assert (ready(x)[0] - net.double()(x)[0]).abs().max() < EXACT
    b_h = ready.layers.get_parameter("bias_hh_l0")
    assert not b_h.requires_grad
    assert bool(b_h.any()) == (cell == "gru")
    assert not b_h[: 10 if cell == "gru" else None].any()


def test_networks_that_are_too_large_are_refused() -> None:
    small = {"inputs": 4, "units": 4, "outputs": 4}
    for odd in ({"units": 9}, {"layers": 2}, {"embedding": 3}, {"inputs": 17}):
        with pytest.raises(ValueError, match=r"--run must be one layer .* x is not\."):
            trained(Network("elman", **{**small, **odd}), "x")
    with pytest.raises(ValueError, match="--run must be one layer"):
        trained(Network("ctrnn", **small), "x")


def test_the_seed_decides_and_draws_from_nothing_else() -> None:
    problem = PROBLEMS["word"]
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a, b, c = (network(problem, "gru", seed=seed).layers.weight_hh_l0 for seed in (3, 3, 4))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_problem_predicts_the_next_one() -> None:
    word = PROBLEMS["word"]
    assert "".join(word.tokens[id] for id in word.chunk.x[:, 0]) == "machin"
    assert "".join(word.tokens[id] for id in word.chunk.y[:, 0]) == "achine"
    values = PROBLEMS["values"]
    assert values.scale == 3
    same(values.chunk.x.flatten() * 3, torch.tensor([1, -2.5, 3], dtype=torch.float64))
    same(values.chunk.y.flatten() * 3, torch.tensor([-2.5, 3, 0], dtype=torch.float64))
    assert of_values([0, 0]).scale == 1


def test_chunks_are_of_one_stream() -> None:
    for problem in PROBLEMS.values():
        assert isinstance(problem, Problem)
        assert isinstance(problem.chunk, Chunk)
        assert problem.chunk.streams == 1
        assert problem.chunk.end
