"""What the native backend keeps for backward, for whom, and for how long; second derivatives."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from native_case import Case, close, few_cells, instructions, memories, needed, same, some_lengths, some_reset
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from throughtime import layers
from throughtime.kernels import Weights, native, run
from throughtime.layers import Recurrent

pytestmark = needed
__all__ = ["instructions"]


def spy(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, Any]]:
    """What each forward of the compiled part was told to keep, and what it returned."""
    seen: list[Any] = []
    forward = native._native.forward

    def spied(task: Any, last: Any, keep: int) -> Any:
        seen.append((keep, forward(task, last, keep)))
        return seen[-1][1]

    monkeypatch.setattr(native._native, "forward", spied)
    return seen


@few_cells
def test_nothing_is_kept_for_nobody(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = spy(monkeypatch)
    case = Case(name, (5, 3, 4, 7))
    plain = case.outputs()
    assert all(part.grad_fn is None for part in plain)
    case.x.requires_grad_()
    with torch.no_grad():
        same(case.outputs(), plain)
    with torch.inference_mode():
        same([part.clone() for part in case.outputs()], plain)
    assert seen == [(native.NOTHING, None)] * 3
    case.outputs()
    assert seen[-1][0] == (native.STATES if name == "elman" else native.GATES)
    assert seen[-1][1] is not None


@few_cells
@pytest.mark.parametrize("sizes", [(40, 5, 3, 7), (65, 2, 7, 64), (40, 40, 9, 8), (530, 1, 9, 8)])
def test_memory_changes_no_number(name: str, sizes: tuple[int, int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """states rebuilds the gates by the same sums in the same order, so even the bits are those of gates."""
    seen = spy(monkeypatch)
    case = Case(name, sizes, torch.float)
    case.options = {"reset": some_reset(*sizes[:2]), "lengths": some_lengths(*sizes[:2])}
    same(case.all(memory="states"), case.all(memory="gates"))
    case.all()
    monkeypatch.setattr(native, "GATES_AT_MOST", 0)
    case.all()
    chosen = native.STATES if name == "elman" else native.GATES
    assert [keep for keep, _ in seen] == [native.STATES, native.GATES, chosen, native.STATES]


@few_cells
def test_eval_mode_is_differentiable(name: str) -> None:
    net = Recurrent(name, inputs=3, units=5, backend="native").eval()
    y, _ = net(torch.randn(4, 2, 3))
    y.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in net.parameters())


@few_cells
@memories
def test_two_backwards(name: str, memory: str) -> None:
    """retain_graph: the same again; then autograd's own word that nothing is left."""
    case = Case(name, (5, 3, 4, 7))
    leaves = [part.requires_grad_() for part in case.inputs()]
    loss = case.outputs(memory=memory)[0].square().sum()
    first, second = (torch.autograd.grad(loss, leaves, retain_graph=retain) for retain in (True, False))
    same(first, second)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, leaves)


def test_backward_lets_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that is still held does not hold what its backward needed."""
    case = Case("lstm", (5, 3, 4, 7))
    case.x.requires_grad_()
    y = case.outputs()[0]
    y.sum().backward(retain_graph=True)
    assert y.grad_fn.kept is not None  # type: ignore[union-attr]
    y.sum().backward()
    assert y.grad_fn.kept is None  # type: ignore[union-attr]


@few_cells
@memories
def test_two_forwards_before_backward(name: str, memory: str) -> None:
    """Of the same weights and of others, of the same sizes and of others; backwards in either order."""
    cases = [Case(name, (5, 3, 4, 7)), Case(name, (5, 3, 4, 7)), Case(name, (9, 2, 4, 7))]
    wanted = [case.all(memory=memory) for case in cases]
    for order in ((0, 1, 2), (2, 0, 1)):
        outputs = [case.outputs(memory=memory) for case in cases]
        for place in order:
            case = cases[place]
            same(
                list(torch.autograd.grad(outputs[place], case.inputs(), case.errors)),
                wanted[place][-len(case.inputs()) :],
            )


def test_changed_in_place() -> None:
    """Outputs and weights that backward needs: autograd's own error."""
    case = Case("gru", (5, 3, 4, 7))
    case.x.requires_grad_()
    y = case.outputs()[0]
    y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y = case.outputs()[0]
    case.weights.W_h.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()
    y, last = case.outputs()
    last.mul_(2)
    (y.sum() + last.sum()).backward()


@few_cells
@pytest.mark.parametrize("cut", [False, True])
def test_second_derivative(name: str, cut: bool) -> None:
    case = Case(name, (4, 3, 2, 3))
    if cut:
        case.options = {"reset": some_reset(4, 3), "lengths": some_lengths(4, 3)}
    leaves = [part.requires_grad_() for part in case.inputs()]

    def call(x: Tensor, *parts: Tensor) -> tuple[Tensor, ...]:
        y, last = run(case.cell, x, Weights(*parts[:4]), parts[4:], backend="native", **case.options)
        return y, *last

    assert gradcheck(call, leaves, fast_mode=True)
    assert gradgradcheck(call, leaves, fast_mode=True)


def test_second_derivative_of_a_shared_weight() -> None:
    """A tensor in two places has the sum of two gradients, once."""
    case = Case("gru", (4, 3, 2, 3))
    b = case.weights.b_x
    assert b is not None
    b.requires_grad_()
    case.weights = case.weights._replace(b_h=b)
    found = []
    for kind in ("native", "reference"):
        (first,) = torch.autograd.grad(case.outputs(kind)[0].square().sum(), b, create_graph=True)
        found.append([first, *torch.autograd.grad(first.square().sum(), b)])
    close(*found)


def test_vectorized_jacobian() -> None:
    """Batched errors, of which the compiled part knows nothing."""
    case = Case("lstm", (3, 2, 2, 3))
    x = case.x

    def call(x: Tensor) -> Tensor:
        case.x = x
        return case.outputs()[0]

    found, wanted = (torch.autograd.functional.jacobian(call, x, vectorize=vectorize) for vectorize in (True, False))
    close([found], [wanted])


def test_hooks_on_saved_tensors_see_all_that_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a checkpoint no gates are kept out of its sight; a hook may also give back another layout."""
    seen = spy(monkeypatch)
    layer, x = layers.LSTM(6, 10), torch.randn(5, 3, 6)
    wanted = torch.autograd.grad(layer(x)[0].sum(), layer.weight_hh_l0)
    turn = lambda part: part.transpose(0, 2).contiguous().transpose(0, 2) if part.dim() == 3 else part  # noqa: E731
    with torch.autograd.graph.saved_tensors_hooks(lambda part: part, turn):
        y, _ = layer(x)
        torch.testing.assert_close(torch.autograd.grad(y.sum(), layer.weight_hh_l0), wanted)
    assert [keep for keep, _ in seen] == [native.GATES, native.STATES]
