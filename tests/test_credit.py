"""BPTT(h; h') at fixed weights: against its definition, window by window, and what it keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from credit_case import CELLS, DOUBLE, A, B, H, Multiply, assert_same, cut, network, stream
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Estimate, algorithms
from throughtime.credit.bptt import Memory
from throughtime.nets import Adapted, bernoulli, cross_entropy, squared_error
from throughtime.verify.credit import brute_force, footprint, total


@pytest.mark.parametrize(
    ("credit", "figures"),
    [
        (BPTT(), (0.9, 0.36, 0.108)),
        (BPTT(3), (0.9, 0.36, 0.108)),
        (BPTT(4, 2), (0.9, 0.36, 0.108)),
        (BPTT(2), (0.9, 0.36, 0.072)),
        (BPTT(1), (0.9, 0.18, 0.036)),
    ],
)
def test_the_three_step_example(credit: BPTT, figures: tuple[float, ...]) -> None:
    """w = 0.2, x_0 = 0.9: dx_t/dw = t w^(t-1) x_0 with h >= t; 0.072 and 0.036 at t = 3 with h = 2 and 1.

    The idiom that keeps pairs of states and never clears their .grad gives 0.288 there.
    """
    net = Adapted(Multiply())
    start = torch.tensor([[0.9]], dtype=DOUBLE)
    for t, figure in enumerate(figures):
        mask = torch.zeros(3, 1, dtype=DOUBLE)
        mask[t] = 1
        nothing = torch.zeros(3, 1, 1)
        chunk = Chunk(nothing, nothing, mask, end=True)
        for cuts in ((), (1, 2)):
            estimate = total(credit, net, lambda x, y: x, chunk, cuts, start)
            assert estimate.grads["module.w"].item() == pytest.approx(figure, abs=1e-15)
            assert estimate.loss.item() == pytest.approx(0.9 * 0.2 ** (t + 1), abs=1e-15)
            assert estimate.count == 1


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("axes", [2, 3])
def test_window_by_window(cell: str, layers: int, axes: int) -> None:
    net, chunk = network(cell, layers=layers), stream(13, axes=axes)
    for (h, every), cuts in (
        ((1, 1), (5, 6)),
        ((3, 1), (2, 9)),
        ((5, 4), range(1, 13)),
        ((7, 3), (1, 8)),
        ((20, 6), (4, 7, 11)),
    ):
        wanted = brute_force(net, squared_error, chunk, h, every)
        for replay in (True, False):
            assert_same(total(BPTT(h, every, replay), net, squared_error, chunk, cuts), wanted, 13)


@given(st.data())
@settings(max_examples=60)
def test_window_by_window_for_any_h_and_any_chunks(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 12))
    h = data.draw(st.integers(1, 14))
    every = data.draw(st.integers(1, h))
    replay = data.draw(st.booleans())
    restarts = data.draw(st.sampled_from([0, 0.1, 0.6]))
    cell = data.draw(st.sampled_from(["elman", "lstm"]))
    torch.manual_seed(data.draw(st.integers(0, 100)))
    net, chunk = network(cell, layers=2), stream(steps, 2, restarts=restarts)
    given = total(BPTT(h, every, replay), net, squared_error, chunk, data.draw(cut(steps)))
    assert_same(given, brute_force(net, squared_error, chunk, h, every), steps)


@given(cut(13), st.sampled_from(["gru", "lstm"]))
@settings(max_examples=20)
def test_chunks_of_any_size_give_the_same_epochwise_gradient(cuts: list[int], cell: str) -> None:
    torch.manual_seed(1)
    net, chunk = network(cell, layers=2), stream(13)
    assert_same(total(BPTT(), net, squared_error, chunk, cuts), brute_force(net, squared_error, chunk, None, 13), 13)


def test_the_window_of_the_whole_stream_is_epochwise() -> None:
    net, chunk = network("lstm"), stream(13)
    wanted = total(BPTT(), net, squared_error, chunk)
    for credit in (BPTT(13, 13), BPTT(13), BPTT(99, 13), BPTT(13, 5), BPTT(13, 5, replay=False)):
        assert_same(total(credit, net, squared_error, chunk), wanted, 13)


@pytest.mark.parametrize("loss", [cross_entropy, bernoulli])
def test_other_losses_and_ids(loss: Any) -> None:
    net = network("gru", inputs=A, embedding=3)
    x, y = torch.randint(0, A, (2, 13, B))
    y = y if loss is cross_entropy else torch.randint(0, 2, (13, B, A))
    chunk = Chunk(x, y, reset=torch.rand(13, B) < 0.2, end=True)
    wanted = brute_force(net, loss, chunk, 5, 2)
    assert wanted.count == 13 * B
    for credit in (BPTT(5, 2), BPTT(5, 2, replay=False)):
        assert_same(total(credit, net, loss, chunk, (3, 7)), wanted, 13)


@pytest.mark.parametrize("credit", [BPTT(7), BPTT(7, 3), BPTT(7, 7), BPTT(7, 3, replay=False)])
@pytest.mark.parametrize("length", [1, 5])
def test_memory_stays_flat_however_long_the_stream(credit: BPTT, length: int) -> None:
    net = network("lstm")
    memory = credit.start(net)
    sizes = []
    for _ in range(90 // length):
        chunk = stream(length)
        _, memory = credit(net, squared_error, Chunk(chunk.x, chunk.y, chunk.mask, chunk.reset), memory)
        sizes.append(footprint(memory))
    early, late = sizes[len(sizes) // 3 : 2 * len(sizes) // 3], sizes[2 * len(sizes) // 3 :]
    for k in range(2):
        assert max(size[k] for size in late) <= max(size[k] for size in early)
    assert late[-1][1] < 20_000


@pytest.mark.parametrize("credit", [BPTT(), BPTT(7), BPTT(7, 3), BPTT(4, 4), BPTT(7, 3, replay=False)])
def test_no_graph_stays_in_the_memory(credit: BPTT) -> None:
    net = network("lstm")
    memory: Any = credit.start(net, tuple(torch.randn(1, B, H, dtype=DOUBLE, requires_grad=True) for _ in range(2)))

    def walk(part: Any) -> None:
        if isinstance(part, Tensor):
            assert not part.requires_grad
            assert part.grad_fn is None
        elif isinstance(part, tuple):
            for inner in part:
                walk(inner)
        elif hasattr(part, "__dataclass_fields__"):
            for inner in vars(part).values():
                walk(inner)
        else:
            assert part is None or isinstance(part, (int, bool))

    walk(memory)
    for _ in range(9):
        estimate, memory = credit(net, squared_error, stream(2)[:1], memory)
        walk(memory)
        assert not estimate.loss.requires_grad
        assert not any(grad.requires_grad for grad in estimate.grads.values())


def test_nothing_is_settled_before_its_time() -> None:
    net, chunk = network(), stream(10)
    counts = []
    for credit in (BPTT(), BPTT(4, 4), BPTT(3, 2)):
        memory = credit.start(net)
        settled = []
        for t in range(10):
            estimate, memory = credit(net, squared_error, chunk[t : t + 1], memory)
            assert bool(estimate.grads) == (estimate.count > 0)
            settled.append(estimate.count > 0)
        counts.append(settled)
    never, now = False, True
    assert counts[0] == [never] * 9 + [now]
    assert counts[1] == [never, never, never, now] * 2 + [never, now]
    assert counts[2] == [never, now] * 5


@pytest.mark.parametrize("credit", [BPTT(), BPTT(4, 2), BPTT(2, 2), BPTT(4, 2, replay=False)])
def test_windows_whose_errors_do_not_count_settle_nothing(credit: BPTT) -> None:
    net, chunk = network(), stream(6)
    assert chunk.mask is not None
    chunk.mask[:] = 0
    memory = credit.start(net)
    for t in range(6):
        estimate, memory = credit(net, squared_error, chunk[t : t + 1], memory)
        assert (estimate.loss.item(), estimate.count, estimate.grads) == (0, 0, {})


@pytest.mark.parametrize("credit", [BPTT(), BPTT(4, 2), BPTT(4, 2, replay=False)])
def test_nan_stands_for_no_target(credit: BPTT) -> None:
    net, chunk = network(layers=2), stream(12, axes=3)
    assert chunk.y is not None
    assert chunk.mask is not None
    wanted = total(credit, net, squared_error, chunk)
    chunk.y[chunk.mask == 0] = float("nan")
    given = total(credit, net, squared_error, chunk, (5,))
    assert_same(given, wanted, 12)


@pytest.mark.parametrize("credit", [BPTT(), BPTT(4, 2), BPTT(3, 3), BPTT(4, 2, replay=False)])
def test_the_stream_goes_on_after_end_unless_it_restarts(credit: BPTT) -> None:
    """The memory after `end` holds the state of the stream, and no past: a new epoch that resets is a fresh one."""
    net, chunk = network("lstm"), stream(9, restarts=0)
    assert chunk.reset is not None
    _, memory = credit(net, squared_error, chunk, credit.start(net))
    with torch.no_grad():
        _, state = net(chunk.x)
    torch.testing.assert_close(memory.state, state, rtol=0, atol=1e-14)
    assert memory.step == 0
    goes_on, _ = credit(net, squared_error, chunk, memory)
    assert_same(goes_on, total(credit, net, squared_error, chunk, (), state), 9)
    chunk.reset[0] = True
    fresh, _ = credit(net, squared_error, chunk, memory)
    assert_same(fresh, total(credit, net, squared_error, chunk), 9)
    assert abs(goes_on.loss - fresh.loss) > 1e-6


def test_the_initial_state_gets_no_credit_from_a_stream_but_is_read() -> None:
    """Credit takes a state as a value; whoever wants its gradient differentiates one call of the net."""
    net, chunk = network(), stream(6, restarts=0)
    state = (torch.randn(1, B, H, dtype=DOUBLE, requires_grad=True),)
    given = total(BPTT(), net, squared_error, chunk, (2,), state)
    assert_same(given, brute_force(net, squared_error, chunk, None, 6, (state[0].detach(),)), 6)
    assert state[0].grad is None
    assert abs(given.loss - total(BPTT(), net, squared_error, chunk).loss) > 1e-6


def test_estimates_add_up() -> None:
    a = Estimate(torch.tensor(1.0), 2.0, {"w": torch.ones(2), "v": torch.ones(3)})
    b = Estimate(torch.tensor(0.5), 3.0, {"w": torch.full((2,), 4.0), "u": torch.ones(1)})
    both = a + b
    assert (both.loss.item(), both.count) == (1.5, 5.0)
    assert {name: grad.tolist() for name, grad in both.grads.items()} == {
        "w": [5, 5],
        "v": [1, 1, 1],
        "u": [1],
    }
    assert a.grads["w"].tolist() == [1, 1]
    same = Estimate.nothing(torch.zeros(1)) + a
    assert (same.loss.item(), same.count, same.grads.keys()) == (1.0, 2.0, a.grads.keys())


def test_an_empty_chunk_may_end_the_stream() -> None:
    for credit in (BPTT(), BPTT(4, 4), BPTT(4, 2), BPTT(4, 2, replay=False)):
        net, chunk = network(), stream(7)
        wanted = total(credit, net, squared_error, chunk)
        assert_same(total(credit, net, squared_error, chunk, (3, 7)), wanted, 7)


def test_every_algorithm_has_a_name_and_a_memory_of_its_own() -> None:
    for name, kind in algorithms.items():
        memory = kind().start(network())
        assert type(memory) in kind.memories, name
    assert isinstance(BPTT().start(network()), Memory)


def windows(h: int, every: int, steps: int) -> Sequence[int]:
    return [min(h, end) for end in [*range(every, steps + 1, every), *([steps] if steps % every else [])]]


@pytest.mark.parametrize(
    ("h", "every", "backward"), [(4, 4, 12), (3, 1, 33), (5, 1, 50), (6, 3, 21), (7, 2, 33), (12, 1, 78)]
)
def test_the_cost_is_h_backward_steps_every_so_often(h: int, every: int, backward: int) -> None:
    """The backward steps over 12 steps, counted where each single step of the net is differentiated."""
    counted = []

    class Count(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, hx: Tensor) -> Tensor:
            return hx.clone()

        @staticmethod
        def backward(ctx: Any, d_hx: Tensor) -> Tensor:
            counted.append(1)
            return d_hx

    class Counting(Multiply):
        def forward(self, x: Tensor, hx: Tensor) -> tuple[Tensor, Tensor]:
            outputs = []
            for _ in x:
                hx = Count.apply(self.w * hx)
                outputs.append(hx)
            return torch.stack(outputs), hx

    nothing = torch.zeros(12, 1, 1)
    start = torch.ones(1, 1, dtype=DOUBLE)
    total(BPTT(h, every), Adapted(Counting()), lambda x, y: x, Chunk(nothing, nothing, end=True), (), start)
    assert len(counted) == backward == sum(windows(h, every, 12))
