"""SnAp keeps the entries that it says, RFLO is the gradient without W_h's share, UORO is unbiased."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from forward_case import CELLS, DOUBLE, A, H, assert_same, keep, network, stream, text
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import linear

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, RFLO, UORO, Estimate, SnAp
from throughtime.credit.sparse import reached
from throughtime.credit.uoro import signs
from throughtime.nets import Network, cross_entropy, squared_error, sum_errors
from throughtime.state import flatten, unflatten
from throughtime.verify.credit import brute_force, compare, total


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_snap_with_all_of_its_entries_is_rtrl(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream(13)
    wanted = total(BPTT(), net, squared_error, chunk)
    assert_same(total(SnAp(2), net, squared_error, chunk, (3, 7)), wanted)
    assert compare(total(SnAp(1), net, squared_error, chunk, (3, 7)), wanted, 13).error > 1e-6
    keep(net, torch.eye(H) + torch.diag(torch.ones(H - 1), 1))
    wanted = total(BPTT(), net, squared_error, chunk)
    errors = [compare(total(SnAp(n), net, squared_error, chunk, (5,)), wanted, 13).error for n in range(1, H + 2)]
    assert max(errors[H - 1 :]) <= 1e-10 < 1e-6 < errors[0]


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_nearest_entries_are_enough_for_a_diagonal_recurrence(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream(13)
    keep(net, torch.eye(H))
    assert_same(total(SnAp(1), net, squared_error, chunk, (3, 7)), total(BPTT(), net, squared_error, chunk))


def masked_influence(net: Network, chunk: Chunk, patterns: dict[str, Tensor]) -> dict[str, Tensor]:
    """M_t = (J_t M_{t-1} + dP/dtheta) * pattern by its definition, Jacobians by torch.func, for one stream."""
    weights = {name: weight.detach() for name, weight in net.named_parameters()}

    def step(own: dict[str, Tensor], s: Tensor, x: Tensor) -> Tensor:
        state = functional_call(net, own, (x, tuple(s)))[1]
        return torch.stack(state)

    def error(own: dict[str, Tensor], s: Tensor, part: Chunk) -> Tensor:
        return sum_errors(squared_error, linear(s[0, -1], own["readout.weight"], own["readout.bias"])[None], part)[0]

    s = torch.zeros(net.layers.cell.slots, net.layers.depth, 1, H, dtype=DOUBLE)
    n = s.numel()
    M = {name: torch.zeros(n, weight.numel(), dtype=DOUBLE) for name, weight in weights.items()}
    grads = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for t in range(chunk.steps):
        part = chunk[t : t + 1]
        direct, J = torch.func.jacrev(step, (0, 1))(weights, s, part.x)
        s = step(weights, s, part.x)
        own, ds = torch.func.grad(error, (0, 1))(weights, s, part)
        for name, before in M.items():
            M[name] = J.reshape(n, n) @ before + direct[name].reshape(n, -1)
            if name in patterns:
                M[name] *= patterns[name]
            grads[name] += (ds.flatten() @ M[name]).view_as(grads[name]) + own[name]
    return grads


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_snap_is_the_influence_under_its_pattern(cell: str) -> None:
    """A ring of one-way edges: over n - 1 of them unit k reaches the n units from k on; slots and gates alike."""
    net, chunk = network(cell), stream(7, rows=1, restarts=0)
    ring = torch.eye(H) + torch.roll(torch.eye(H), 1, 0)
    keep(net, ring)
    for n in (1, 2, 3):
        near = torch.matrix_power(ring, n - 1) > 0  # to, from
        assert near.sum() == n * H
        patterns = {
            name: near.repeat(net.layers.cell.slots, weight.shape[0] // H).repeat_interleave(weight[0].numel(), 1)
            for name, weight in net.layers.named_parameters(prefix="layers")
        }
        wanted = masked_influence(net, chunk, patterns)
        given = total(SnAp(n), net, squared_error, chunk, (2,))
        assert_same(given, Estimate(given.loss, given.count, wanted))


def test_who_reaches_whom() -> None:
    chain = torch.zeros(2, 3, 3)
    chain[0, 1, 0] = chain[1, 2, 1] = 1.0  # 0 -> 1 through the first gate, 1 -> 2 through the second
    W_h = chain.view(6, 3)
    assert reached(W_h, 1).tolist() == [[0], [1], [2]]
    assert [sorted(row) for row in reached(W_h, 2).tolist()] == [[0, 1], [1, 2], [-1, 2]]
    assert [sorted(row) for row in reached(W_h, 9).tolist()] == [[0, 1, 2], [-1, 1, 2], [-1, -1, 2]]
    assert reached(W_h, 9)[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("cell", ["elman", "elman:phi=relu", "ctrnn:alpha=1"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_rflo_without_a_leak_is_bptt_of_one_step(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream(13)
    assert_same(total(RFLO(), net, squared_error, chunk, (4,)), brute_force(net, squared_error, chunk, 1, 1))


class Cut(nn.Module):
    """A network whose products W_h h pass no error on: what RFLO differentiates, written out for autograd."""

    def __init__(self, net: Network, feedback: Tensor | None = None) -> None:
        super().__init__()
        self.net, self.feedback = net, feedback

    def forward(self, x: Tensor, state: Any = None, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        layers = self.net.layers
        state = layers.start(x) if state is None else state
        s = [tuple(slot[depth] for slot in state) for depth in range(layers.depth)]
        outputs = []
        for t in range(len(x)):
            h = x[t]
            for depth in range(layers.depth):
                W_x, W_h, b_x, b_h = (layers.get_parameter(f"{name}_l{depth}") for name in WEIGHTS)
                if reset is not None:
                    s[depth] = tuple(slot.masked_fill(reset[t, :, None], 0) for slot in s[depth])
                u, v = linear(h, W_x, b_x), linear(s[depth][0].detach(), W_h, b_h)
                s[depth] = layers.cell.forward(u.unflatten(1, (-1, H)), v.unflatten(1, (-1, H)), s[depth])[0]
                h = s[depth][0]
            outputs.append(h)
        h = torch.stack(outputs)
        y = self.net.readout(h if self.feedback is None else h.detach())
        if self.feedback is not None:
            y = y + (h - h.detach()) @ self.feedback.T
        return y, tuple(torch.stack(slots) for slots in zip(*s, strict=True))


WEIGHTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("seed", [None, 3])
def test_rflo_is_the_gradient_without_the_recurrent_weights_share(cell: str, layers: int, seed: int | None) -> None:
    net, chunk = network(cell, layers=layers), stream(13)
    feedback = None
    if seed is not None:
        drawn = torch.randn(A, H, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
        feedback = drawn / A**0.5
    wanted = total(BPTT(), Cut(net, feedback), squared_error, chunk)
    wanted = Estimate(
        wanted.loss, wanted.count, {name.removeprefix("net."): grad for name, grad in wanted.grads.items()}
    )
    assert_same(total(RFLO(seed), net, squared_error, chunk, (3, 7)), wanted)


def repeated(chunk: Chunk, times: int) -> Chunk:
    parts = (
        None if part is None else part.repeat(1, times, *[1] * (part.dim() - 2))
        for part in (chunk.x, chunk.y, chunk.mask, chunk.reset)
    )
    return Chunk(*parts, end=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "ctrnn:alpha=0.3"])
@pytest.mark.parametrize("layers", [1, 2])
def test_uoro_is_unbiased(cell: str, layers: int) -> None:
    """Rows that are copies of each other draw signs of their own: 60 runs of 40 copies are 2400 draws."""
    runs, copies = 60, 40
    if layers == 1:
        net, chunk, loss = network(cell, units=3), stream(6, rows=2), squared_error
    else:
        net = network(cell, inputs=A, units=3, layers=2, embedding=3, tie=True)
        chunk, loss = text(6, rows=2), cross_entropy
    wanted = total(BPTT(), net, loss, chunk).grads
    many = repeated(chunk, copies)
    drawn = [total(UORO(seed), net, loss, many, (4,)).grads for seed in range(runs)]
    for name, exact in wanted.items():
        each = torch.stack([grads[name] / copies for grads in drawn])
        error = each.std(0) / runs**0.5
        assert ((each.mean(0) - exact).abs() <= 4.5 * error + 1e-12).all(), name


def test_uoro_in_single_precision_has_the_same_signs() -> None:
    net, chunk = network("gru", layers=2), stream(9)
    wanted = total(UORO(5), net, squared_error, chunk)
    assert chunk.y is not None
    assert chunk.mask is not None
    single = Chunk(chunk.x.float(), chunk.y.float(), chunk.mask.float(), chunk.reset, end=True)
    given = total(UORO(5), net.float(), squared_error, single)
    assert given.grads["layers.weight_hh_l0"].dtype == torch.float32
    assert_same(given, wanted, 1e-3)


def test_signs_belong_to_a_seed_and_a_step() -> None:
    whole = signs(7, 0, (50, 300))
    assert torch.equal(whole[20:], signs(7, 20, (30, 300)))
    assert not torch.equal(whole, signs(8, 0, (50, 300)))
    assert set(whole.flatten().tolist()) == {-1.0, 1.0}
    assert abs(whole.mean()) < 4.5 / whole.numel() ** 0.5
    correlation = whole.T @ whole / 50 - torch.eye(300)
    assert correlation.abs().max() < 6 / 50**0.5


def test_signs_go_on_after_end_and_after_a_save() -> None:
    net, chunk = network("lstm", layers=2), stream(9)
    assert chunk.reset is not None
    chunk.reset[0] = True
    first, memory = UORO(2)(net, squared_error, chunk, UORO(2).start(net))
    assert memory.step == 9
    skeleton, tensors = flatten(memory)
    again = unflatten(json.loads(json.dumps(skeleton)), tensors, UORO.memories)
    second, third = (UORO(2)(net, squared_error, chunk, each)[0] for each in (memory, again))
    assert_same(third, second, 0)
    assert compare(second, first, 9).error > 1e-3
