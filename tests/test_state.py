"""States: nested tuples of tensors, restarts, cuts of time, and the way to a file and back."""

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.nets import Network, cross_entropy
from throughtime.state import State, change, detach, flatten, restart, run_segments, segments, unflatten


def test_change_keeps_the_nesting() -> None:
    a, b = torch.ones(2, 3), torch.ones(1, 2, 3)
    doubled = change(lambda part: 2 * part, (a, (None, [b, (a,)])))
    assert doubled[1][0] is None
    assert isinstance(doubled[1][1], tuple)
    assert torch.equal(doubled[1][1][0], 2 * b)
    assert torch.equal(doubled[1][1][1][0], 2 * a)
    assert change(lambda part: part, None) is None


def test_what_is_no_state_is_refused() -> None:
    with pytest.raises(TypeError, match="state must be tensors in nested tuples, or None; got dict"):
        change(lambda part: part, ({},))


def test_detach_cuts_every_tensor() -> None:
    w = torch.ones(2, 3, requires_grad=True)
    state = detach((w * 2, (w * 3,)))
    assert not state[0].requires_grad
    assert not state[1][0].requires_grad


def test_a_restart_puts_rows_to_zero_whatever_they_held() -> None:
    state = (torch.full((2, 3, 4), float("nan")), (torch.ones(3, 4), torch.full((3, 1), 7)))
    rows = torch.tensor([True, False, True])
    h, (c, ids) = restart(state, rows)
    assert torch.equal(h[:, 0], torch.zeros(2, 4))
    assert h[:, 1].isnan().all()
    assert c.sum(1).tolist() == [0, 4, 0]
    assert ids.tolist() == [[0], [7], [0]]
    assert restart(None, rows) is None


def cut(reset: Tensor | None, steps: int) -> list[tuple[int, int, list[bool] | None]]:
    return [
        (start, stop, None if rows is None else rows.tolist()) for start, stop, rows in segments(reset, steps)
    ]


def test_time_is_cut_where_any_row_restarts() -> None:
    reset = torch.zeros(6, 2, dtype=torch.bool)
    assert cut(None, 6) == [(0, 6, None)]
    assert cut(reset, 6) == [(0, 6, None)]
    reset[2, 1] = True
    reset[3, 0] = True
    assert cut(reset, 6) == [(0, 2, None), (2, 3, [False, True]), (3, 6, [True, False])]
    reset[0] = True
    assert cut(reset, 6)[0] == (0, 2, [True, True])
    reset[5] = True
    assert cut(reset, 6)[-1] == (5, 6, [True, True])


def test_segments_give_what_single_steps_give() -> None:
    module = nn.LSTM(2, 4, num_layers=2).double()
    x = torch.randn(9, 3, 2, dtype=torch.float64)
    reset = torch.rand(9, 3) < 0.3
    state: State = None
    outputs = []
    for t in range(9):
        if state is not None:
            state = tuple(part * ~reset[t, :, None] for part in state)
        y, state = module(x[t : t + 1], state)
        outputs.append(y)
    y, last = run_segments(module, x, None, reset)
    torch.testing.assert_close(y, torch.cat(outputs), rtol=0, atol=1e-14)
    torch.testing.assert_close(last, state, rtol=0, atol=1e-14)


@dataclass(frozen=True)
class Inner:
    state: State
    note: str


@dataclass(frozen=True)
class Outer:
    step: int
    rate: float
    inner: tuple[Inner, ...]
    table: dict[str, Tensor]
    none: None = None


def test_flatten_and_unflatten_are_inverse() -> None:
    x, ids = torch.randn(2, 3), torch.arange(3)
    tree = Outer(3, 0.5, (Inner((x, None), "a"), Inner([ids], "b")), {"w": x})
    skeleton, tensors = flatten(tree)
    assert len(tensors) == 3
    back = unflatten(json.loads(json.dumps(skeleton)), tensors, (Inner, Outer))
    assert (back.step, back.rate, back.none) == (3, 0.5, None)
    assert [inner.note for inner in back.inner] == ["a", "b"]
    assert isinstance(back.inner, tuple)
    assert isinstance(back.inner[0].state, tuple)
    assert isinstance(back.inner[1].state, list)
    assert torch.equal(back.inner[0].state[0], x)
    assert torch.equal(back.table["w"], x)
    assert torch.equal(back.inner[1].state[0], ids)


def test_a_memory_in_mid_stream_is_read_back_as_it_was() -> None:
    net = Network("lstm", inputs=5, units=4, outputs=5, layers=2)
    for credit in (BPTT(), BPTT(5, 2), BPTT(5, 2, replay=False)):
        _, memory = credit(net, cross_entropy, Chunk(*torch.randint(0, 5, (2, 7, 3))), credit.start(net))
        skeleton, tensors = flatten(memory)
        again, others = flatten(unflatten(json.loads(json.dumps(skeleton)), tensors, credit.memories))
        assert again == skeleton
        assert others.keys() == tensors.keys()
        assert all(torch.equal(tensors[name], others[name]) for name in tensors)


def test_what_cannot_be_saved_is_refused() -> None:
    with pytest.raises(
        TypeError, match="must be tensors, numbers, tuples, dicts and dataclasses; got function"
    ):
        flatten((torch.zeros(1), lambda: None))
