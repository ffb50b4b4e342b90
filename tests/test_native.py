"""The native backend gives the numbers of the reference, forward and backward."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from native_case import Case, close, few_cells, instructions, memories, needed, same, some_lengths, some_reset
from torch.nn.functional import one_hot

from throughtime import layers
from throughtime.kernels import Weights, run
from throughtime.nets import Network

pytestmark = needed
__all__ = ["instructions"]

CELLS = [
    *(f"elman:phi={phi}" for phi in ("tanh", "relu", "sigmoid", "identity")),
    *(f"ctrnn:alpha=0.3,phi={phi}" for phi in ("tanh", "relu")),
    "gru",
    "lstm",
]
SIZES = [(1, 1, 1, 1), (1, 7, 3, 7), (7, 1, 3, 63), (63, 3, 7, 3), (3, 63, 1, 7), (7, 3, 63, 63), (33, 5, 8, 64)]
SIZES += [(40, 40, 9, 8), (9, 300, 2, 7)]
"""T, B, I, H; the last two take several chunks of the backward pass, which are of some 512 rows."""

all_cells = pytest.mark.parametrize("name", CELLS)


# The numbers of the reference.


@all_cells
@memories
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("dtype", [torch.double, torch.float])
def test_equals_the_reference(
    name: str, memory: str, sizes: tuple[int, int, int, int], dtype: torch.dtype, instructions: str
) -> None:
    Case(name, sizes, dtype).check(memory=memory)


@all_cells
@memories
@pytest.mark.parametrize("cut", ["reset", "lengths", "both"])
@pytest.mark.parametrize("sizes", [(7, 5, 3, 7), (33, 9, 7, 16), (1, 4, 1, 3), (5, 1, 3, 63), (40, 40, 9, 8)])
def test_cut_rows(name: str, memory: str, cut: str, sizes: tuple[int, int, int, int], instructions: str) -> None:
    case = Case(name, sizes)
    T, B, _, _ = sizes
    if cut != "lengths":
        case.options["reset"] = some_reset(T, B)
    if cut != "reset":
        case.options["lengths"] = some_lengths(T, B)
    case.check(memory=memory)


@few_cells
@memories
@pytest.mark.parametrize("cut", [False, True])
@pytest.mark.parametrize(("T", "B", "I"), [(9, 5, 13), (40, 40, 13), (530, 1, 13), (9, 5, 6000)])
def test_ids(name: str, memory: str, cut: bool, T: int, B: int, I: int) -> None:
    """They are one-hot rows, in every backend that takes them; in one chunk, in several, and of a large vocabulary."""
    case = Case(name, (T, B, I, 7))
    case.x = torch.randint(0, I, (T, B))
    if cut:
        case.options = {"reset": some_reset(T, B), "lengths": some_lengths(T, B)}
    found = case.all(memory=memory)
    close(found, case.all("reference"))
    if not cut and name != "ctrnn":
        close(found, case.all("torch"))
    case.x = one_hot(case.x, I).double()
    wanted = case.all("reference")
    del wanted[1 + case.cell.slots]  # the gradient of x
    close(found, wanted)
    case.x = case.x.argmax(-1).T.contiguous().T
    close(case.all(memory=memory), found)


@few_cells
@memories
def test_without_biases(name: str, memory: str) -> None:
    case = Case(name, (5, 3, 4, 7))
    W_x, W_h, b_x, b_h = case.weights
    for case.weights in (Weights(W_x, W_h), Weights(W_x, W_h, b_x), Weights(W_x, W_h, None, b_h)):
        case.check(memory=memory)


@few_cells
@memories
@pytest.mark.parametrize("wanted", ["x", "weight", "recurrent", "bias", "state"])
@pytest.mark.parametrize("sizes", [(5, 3, 4, 7), (40, 40, 9, 8), (530, 1, 9, 8)])
def test_only_what_is_wanted(name: str, memory: str, wanted: str, sizes: tuple[int, int, int, int]) -> None:
    case = Case(name, sizes)
    leaf = {
        "x": case.x,
        "weight": case.weights.W_x,
        "recurrent": case.weights.W_h,
        "bias": case.weights.b_h,
        "state": case.state[-1],
    }[wanted]
    assert leaf is not None
    leaf.requires_grad_()
    found, expected = (
        torch.autograd.grad(case.outputs(kind), leaf, case.errors)[0] for kind in ("native", "reference")
    )
    close([found], [expected])
    assert all(part.grad is None for part in case.inputs())


@few_cells
@memories
@pytest.mark.parametrize("cut", [False, True])
def test_errors_that_are_missing(name: str, memory: str, cut: bool) -> None:
    """Of the outputs, or of the last state, or of one slot of it."""
    case = Case(name, (5, 3, 4, 7))
    if cut:
        case.options = {"lengths": some_lengths(5, 3)}
    whole = case.errors
    for kept in range(len(whole)):
        case.errors = [error if place == kept else None for place, error in enumerate(whole)]
        case.check(memory=memory)


LAYOUTS = {
    "x expanded over time": lambda x, dy: (x[:1].expand_as(x), dy),
    "x expanded over rows": lambda x, dy: (x[:, :1].expand_as(x), dy),
    "x of one number": lambda x, dy: (x[:1, :1, :1].expand_as(x), dy),
    "x batch first": lambda x, dy: (x.transpose(0, 1).contiguous().transpose(0, 1), dy),
    "x inputs first": lambda x, dy: (x.transpose(0, 2).contiguous().transpose(0, 2), dy),
    "x every other": lambda x, dy: (x.repeat_interleave(2, 2)[:, :, ::2], dy),
    "dy expanded": lambda x, dy: (x, dy[:1, :1, :1].expand_as(dy)),
    "dy expanded over time": lambda x, dy: (x, dy[:1].expand_as(dy)),
    "dy batch first": lambda x, dy: (x, dy.transpose(0, 1).contiguous().transpose(0, 1)),
    "dy units first": lambda x, dy: (x, dy.transpose(0, 2).contiguous().transpose(0, 2)),
}


@few_cells
@memories
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("sizes", [(7, 5, 4, 9), (6, 1, 1, 3)])
def test_layouts(name: str, memory: str, layout: str, sizes: tuple[int, int, int, int]) -> None:
    case = Case(name, sizes)
    leaf = case.x.requires_grad_()
    case.x, case.errors[0] = LAYOUTS[layout](leaf, case.errors[0])
    case.errors[1:] = [error[:1].expand_as(error) for error in case.errors[1:]]  # type: ignore[index, union-attr]
    found, wanted = (
        torch.autograd.grad(case.outputs(kind, memory=own), [leaf], case.errors)
        for kind, own in (("native", memory), ("reference", "auto"))
    )
    close([*case.outputs(), *found], [*case.outputs("reference"), *wanted])
    case.state = tuple(slot[:1].expand_as(slot) for slot in case.state)
    W_x, W_h, *biases = case.weights
    case.weights = Weights(W_x.T.contiguous().T, W_h.T.contiguous().T, *biases)
    close(case.outputs(), case.outputs("reference"))


@few_cells
def test_batch_first_lies_as_asked(name: str) -> None:
    case = Case(name, (7, 5, 4, 9))
    y, *last = case.outputs(batch_first=True)
    assert y.transpose(0, 1).is_contiguous()
    same([y, *last], case.outputs())
    same(case.all(batch_first=True), case.all())


@few_cells
@pytest.mark.parametrize("sizes", [(0, 3, 4, 5), (4, 0, 4, 5)])
def test_nothing_to_run(name: str, sizes: tuple[int, int, int, int]) -> None:
    """No steps: the state goes through; no rows: nothing."""
    case = Case(name, sizes)
    case.check()
    if not sizes[0]:
        same(case.outputs()[1:], list(case.state))


# Layers on top of each other.


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize(
    "options",
    [
        {"num_layers": 2, "dropout": 0.4},
        {"bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "batch_first": True, "dropout": 0.4},
        {"batch_first": True, "bias": False},
    ],
    ids=lambda options: ",".join(options),
)
@pytest.mark.parametrize("cut", [False, True])
def test_layers(name: str, options: dict[str, Any], cut: bool) -> None:
    ours, reference = (
        getattr(layers, name)(3, 5, backend=backend, **options).double() for backend in ("native", "reference")
    )
    reference.load_state_dict(ours.state_dict())
    T, B = 7, 4
    shape = (B, T) if ours.batch_first else (T, B)
    x = torch.randn(*shape, 3, dtype=torch.double).requires_grad_()
    slots = 1 + (name == "LSTM")
    rows = ours.num_layers * (1 + ours.bidirectional)
    state = [torch.randn(rows, B, 5, dtype=torch.double).requires_grad_() for _ in range(slots)]
    hx = tuple(state) if slots > 1 else state[0]
    reset = torch.rand(*shape) < 0.3
    given = {"reset": reset, "lengths": [7, 0, 3, 1]} if cut else {}
    found = []
    for layer in (ours, reference):
        torch.manual_seed(3)
        y, last = layer(x, hx, **given)
        outputs = [y, *(last if slots > 1 else [last])]
        torch.manual_seed(4)
        errors = [torch.randn(part.shape, dtype=torch.double) for part in outputs]
        found.append([*outputs, *torch.autograd.grad(outputs, [x, *state, *layer.parameters()], errors)])
    close(*found)


@pytest.mark.parametrize("name", ["RNN", "GRU", "LSTM"])
def test_batch_first_without_copies(name: str) -> None:
    layer = getattr(layers, name)(3, 5, batch_first=True)
    y, _ = layer(torch.randn(4, 6, 3))
    assert y.is_contiguous()
    y, _ = getattr(layers, name)(3, 5)(torch.randn(4, 6, 3).transpose(0, 1))
    assert y.is_contiguous()  # as torch's: what follows may call view


@few_cells
def test_network_of_ids(name: str) -> None:
    """Ids that no table embeds are never made one-hot; numbers, gradients and errors are as ever."""
    net = Network(name, inputs=6, units=5, outputs=6, layers=2).double()
    other = Network(name, inputs=6, units=5, outputs=6, layers=2, backend="reference").double()
    other.load_state_dict(net.state_dict())
    x, reset = torch.randint(0, 6, (7, 3)), torch.rand(7, 3) < 0.3
    found = []
    for one, entering in ((net, x), (other, x), (other, one_hot(x, 6).double()), (net, x.int())):
        y, _ = one(entering, None, reset)
        found.append([y, *torch.autograd.grad(y.square().sum(), list(one.parameters()))])
    for wanted in found[1:]:
        close(found[0], wanted)
    with pytest.raises(ValueError, match="x must be ids from 0 to 5; got 0 to 6"):
        net.layers(torch.tensor([[0, 6]]))
    with pytest.raises(ValueError, match="x must be ids from 0 to 5; got -1 to 3"):
        run(net.layers.cell, torch.tensor([[3, -1]]), Weights(*[*net.layers.parameters()][:4]), net.layers.start(x))
