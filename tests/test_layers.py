"""The laws of the layers: torch's numbers, rows that restart or end early, and backpropagation through time itself."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from throughtime import kernels, layers
from throughtime.cells import Cell, Elman, cell_named, cells
from throughtime.layers import Recurrent

MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 2}),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False},
    {"bidirectional": True, "bias": False},
]
SIZES = [(1, 1, 1, 3), (1, 7, 3, 7), (7, 1, 3, 63), (63, 3, 7, 3)]
"""T, B, I, H."""
BACKENDS = ("auto", "reference")
CELLS = ("elman", "elman:phi=relu", "elman:phi=sigmoid", "elman:phi=identity", "gru", "lstm", "ctrnn:alpha=0.3")
EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""float64: some thousand roundings of 1e-16 each, of numbers near one."""

modes = pytest.mark.parametrize("mode", MODES)
options = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()) or "-")
backends = pytest.mark.parametrize("backend", BACKENDS)


def pair(mode: str, backend: str, I: int = 3, H: int = 5, **options: Any) -> tuple[Any, Any]:
    """Our layer and torch's, with the same random weights, in float64."""
    name, more = MODES[mode]
    plain = getattr(nn, name)(I, H, **more, **options).double()
    ours = getattr(layers, name)(I, H, backend=backend, **more, **options).double()
    ours.load_state_dict(plain.state_dict())
    return ours, plain


def state_for(layer: Any, rows: Sequence[int]) -> Any:
    """A random state in torch's form, rows () or (B,)."""
    count = layer.num_layers * (1 + layer.bidirectional)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 1 + isinstance(layer, nn.LSTM)]
    slots = tuple(torch.randn(count, *rows, width, dtype=torch.double).requires_grad_() for width in widths)
    return slots if len(slots) > 1 else slots[0]


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of floating numbers in nested tuples."""
    if isinstance(tree, Tensor):
        return [tree] if tree.is_floating_point() else []
    return [leaf for part in tree if part is not None for leaf in leaves(part)]


def _grad(graph: list[tuple[Tensor, Tensor]], inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    outputs, errors = zip(*graph, strict=True)
    return torch.autograd.grad(outputs, inputs, errors, allow_unused=True)


def outputs_and_gradients(run: Callable[[], Any], inputs: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """What run returns, and the gradients of its inputs under random errors of every number returned."""
    outputs = leaves(run())
    generator = torch.Generator().manual_seed(seed)
    errors = [torch.randn(part.shape, generator=generator, dtype=torch.double).to(part) for part in outputs]
    graph = [(part, error) for part, error in zip(outputs, errors, strict=True) if part.requires_grad]
    grads = _grad(graph, inputs) if graph else [None] * len(inputs)
    return outputs + [torch.zeros_like(x) if grad is None else grad for x, grad in zip(inputs, grads, strict=True)]


def compare(ours: Any, plain: Any, x: Any, hx: Any = None) -> None:
    """The same call of both: outputs, last state and every gradient are equal, and lie in memory alike."""
    found, wanted = (
        outputs_and_gradients(partial(layer, x, hx), [*leaves((x, hx)), *layer.parameters()]) for layer in (ours, plain)
    )
    torch.testing.assert_close(found, wanted, **EXACT)
    assert [layout(part) for part in found] == [layout(part) for part in wanted]


def layout(tensor: Tensor) -> list[int]:
    """The strides of the axes that have more than one entry."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@modes
@options
@pytest.mark.parametrize("given", [False, True], ids=["no state", "state"])
@pytest.mark.parametrize("form", ["padded", "unbatched", "packed", "packed sorted"])
def test_equals_torch(mode: str, options: dict[str, Any], given: bool, form: str) -> None:
    ours, plain = pair(mode, "reference", **options)
    B = 4
    hx = state_for(plain, () if form == "unbatched" else (B,)) if given else None
    if form == "unbatched":
        return compare(ours, plain, torch.randn(6, 3, dtype=torch.double).requires_grad_(), hx)
    x = torch.randn((B, 6, 3) if plain.batch_first else (6, B, 3), dtype=torch.double).requires_grad_()
    if form == "padded":
        return compare(ours, plain, x, hx)
    lengths = [6, 3, 3, 1] if form == "packed sorted" else [3, 1, 6, 3]
    packed = pack_padded_sequence(x.detach(), lengths, plain.batch_first, enforce_sorted=form == "packed sorted")
    packed.data.requires_grad_()
    compare(ours, plain, packed, hx)
    assert isinstance(ours(packed, hx)[0], PackedSequence)


@modes
@backends
@pytest.mark.parametrize("sizes", SIZES)
def test_odd_sizes(mode: str, backend: str, sizes: tuple[int, int, int, int]) -> None:
    T, B, I, H = sizes
    ours, plain = pair(mode, backend, I, H, num_layers=2, bidirectional=True)
    compare(ours, plain, torch.randn(T, B, I, dtype=torch.double).requires_grad_(), state_for(plain, (B,)))


@modes
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_rounding_is_torchs(mode: str) -> None:
    """float32 against float64: the median over draws of the relative error, at most twice torch's own.

    One rounding is a draw from a heavy tail (a gradient may cancel), the norm over all numbers of a draw is not,
    and the median over draws forgets the odd bad one: it is steady within some percent.
    """
    ratios = []
    for seed in range(5):
        torch.manual_seed(seed)
        ours, plain = pair(mode, "reference", 7, 33, num_layers=2)
        x = torch.randn(30, 8, 7)
        wanted = outputs_and_gradients(partial(plain, x.double()), list(plain.parameters()))
        errors = []
        for layer in (ours.float(), plain.float()):
            found = outputs_and_gradients(partial(layer, x), list(layer.parameters()))
            errors.append(sum((a - b).norm().item() / b.norm().item() for a, b in zip(found, wanted, strict=True)))
        ratios.append(errors[0] / errors[1])
    assert sorted(ratios)[2] < 2


@modes
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_dropout(mode: str, p: float) -> None:
    """In training it acts between layers as torch's does, down to the random numbers; in evaluation not at all."""
    ours, plain = pair(mode, "reference", num_layers=3, bidirectional=True, dropout=p)
    x = torch.randn(5, 4, 3, dtype=torch.double)
    found, wanted = [], []
    for layer, results in ((ours, found), (plain, wanted)):
        torch.manual_seed(1)
        results += outputs_and_gradients(partial(layer, x), list(layer.parameters()))
        results += leaves(layer.eval()(x))
    torch.testing.assert_close(found, wanted, **EXACT)
    trained, evaluated = found[0], leaves(ours(x))[0]
    assert not torch.equal(trained, evaluated)


# Rows that restart, rows that end early: the definition is every piece of every row run alone by torch.nn.


def pieces(reset: Tensor | None, steps: int, row: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each sequence in the first steps of a row."""
    starts = [t for t in range(1, steps) if reset is not None and reset[t, row]]
    yield from zip([0, *starts], [*starts, steps], strict=True)


def each(hx: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tuple(change(slot) for slot in hx) if isinstance(hx, tuple) else change(hx)


def every_piece_alone(layer: Any, x: Tensor, hx: Any, reset: Tensor | None, lengths: Any) -> list[Tensor]:
    """Outputs (T, B, ...) and last states of a torch layer that runs each piece of each row by itself; time first."""
    T, B, _ = x.shape
    backward = torch.arange(layer.num_layers * (1 + layer.bidirectional)) % 2 == 1
    backward = backward[:, None, None] & torch.tensor(layer.bidirectional)
    outputs, lasts = [], []
    for row in range(B):
        steps = T if lengths is None else int(lengths[row])
        first, last = ([slot[:, row : row + 1] for slot in leaves(hx)] for _ in range(2))
        cuts = list(pieces(reset, steps, row)) if steps else []
        found = []
        for start, stop in cuts:
            goes_on = start == 0 and not (reset is not None and reset[0, row])
            enters = torch.where(backward, torch.tensor(stop == steps), torch.tensor(goes_on))
            into = [torch.where(enters, slot, 0) for slot in first]
            y, after = layer(x[start:stop, row : row + 1], tuple(into) if len(into) > 1 else into[0])
            found.append(y)
            leaves_here = torch.where(backward, torch.tensor(start == 0), torch.tensor(stop == steps))
            last = [torch.where(leaves_here, new, old) for new, old in zip(leaves(after), last, strict=True)]
        width = (layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional)
        found.append(x.new_zeros(T - steps, 1, width))
        outputs.append(torch.cat(found))
        lasts.append(last)
    return [torch.cat(outputs, 1), *(torch.cat(rows, 1) for rows in zip(*lasts, strict=True))]


def some_reset(T: int, B: int) -> Tensor:
    """Row 0 never restarts, row 1 at its first step, row 2 always, the others here and there."""
    reset = torch.rand(T, B) < 0.3
    reset[:, 0], reset[0, 1], reset[:, 2] = False, True, True
    return reset


CUTS = {
    "reset": lambda T, B: (some_reset(T, B), None),
    "reset at the start": lambda T, B: (torch.arange(T)[:, None].expand(T, B) == 0, None),
    "reset of all rows": lambda T, B: (torch.arange(T)[:, None].expand(T, B) == 3, None),
    "reset nowhere": lambda T, B: (torch.zeros(T, B, dtype=torch.bool), None),
    "lengths": lambda T, B: (None, [3, T, 0, 1, T - 1]),
    "lengths, sorted": lambda T, B: (None, [T, T, 4, 1, 1]),
    "lengths, a tensor": lambda T, B: (None, torch.tensor([2, 0, 0, T, 1], dtype=torch.int32)),
    "lengths, all empty": lambda T, B: (None, [0] * B),
    "lengths, all full": lambda T, B: (None, [T] * B),
    "both": lambda T, B: (some_reset(T, B), [3, T, 5, 0, T - 1]),
}


@modes
@backends
@pytest.mark.parametrize(
    ("cut", "options"),
    [*((cut, {}) for cut in CUTS), *((cut, OPTIONS[3]) for cut in ("reset", "lengths", "both"))],
    ids=lambda part: part if isinstance(part, str) else "both ways" if part else "-",
)
def test_pieces_are_alone(mode: str, backend: str, cut: str, options: dict[str, Any]) -> None:
    ours, plain = pair(mode, backend, **options)
    T, B = 7, 5
    reset, lengths = CUTS[cut](T, B)
    x = torch.randn(T, B, 3, dtype=torch.double).requires_grad_()
    hx = state_for(plain, (B,))
    plain.batch_first = False

    def run(hx: Any) -> Any:
        if not ours.batch_first:
            return ours(x, hx, reset=reset, lengths=lengths)
        turned = None if reset is None else reset.T
        y, last = ours(x.transpose(0, 1), hx, reset=turned, lengths=lengths)
        return y.transpose(0, 1), last

    inputs = [x, *leaves(hx)]
    found = outputs_and_gradients(lambda: run(hx), [*inputs, *ours.parameters()])
    wanted = outputs_and_gradients(
        lambda: every_piece_alone(plain, x, hx, reset, lengths), [*inputs, *plain.parameters()]
    )
    torch.testing.assert_close(found, wanted, **EXACT)
    torch.testing.assert_close(leaves(run(None)), leaves(run(each(hx, torch.zeros_like))))


@modes
@backends
def test_one_row_without_an_axis(mode: str, backend: str) -> None:
    ours, _ = pair(mode, backend, bidirectional=True)
    x, reset = torch.randn(7, 3, dtype=torch.double), torch.rand(7) < 0.4
    y, last = ours(x, reset=reset, lengths=5)
    wanted, after = ours(x[:, None], reset=reset[:, None], lengths=[5])
    torch.testing.assert_close([y, *leaves(last)], [wanted[:, 0], *(part[:, 0] for part in leaves(after))])


@modes
@backends
def test_nothing_leaks_out_of_what_is_cut(mode: str, backend: str) -> None:
    """NaN in a state that a reset puts aside, and in padding, reaches no output and no gradient."""
    ours, _ = pair(mode, backend, num_layers=2)
    x = torch.randn(6, 3, 3, dtype=torch.double)
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[0, 1] = reset[2, 0] = True
    dirty = each(state_for(ours, (3,)), Tensor.detach)
    clean = each(dirty, lambda slot: slot.index_fill(1, torch.tensor([1]), 0).requires_grad_())
    dirty = each(dirty, lambda slot: slot.index_fill(1, torch.tensor([1]), torch.nan).requires_grad_())
    found, wanted = (
        outputs_and_gradients(lambda: ours(x, hx, reset=reset), [*ours.parameters(), *leaves(hx)])  # noqa: B023
        for hx in (dirty, clean)
    )
    torch.testing.assert_close(found, wanted, **EXACT)

    lengths = [2, 6, 0]
    padded = x.clone()
    for row, steps in enumerate(lengths):
        padded[steps:, row] = torch.nan
    both = reset if backend == "reference" else None
    found, wanted = (
        outputs_and_gradients(
            lambda: ours(data, reset=both, lengths=lengths),  # noqa: B023
            list(ours.parameters()),
        )
        for data in (padded, x)
    )
    torch.testing.assert_close(found, wanted, **EXACT)


def test_long_padding_cannot_overflow() -> None:
    """A state that would grow without end in the padding is never formed."""
    layer = layers.RNN(1, 1, nonlinearity="relu", bias=False, backend="reference")
    nn.init.constant_(layer.weight_hh_l0, 3.0)
    y, _ = layer(torch.ones(200, 2, 1), lengths=[2, 1])
    y.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in layer.parameters())


# The sweep itself.


@pytest.mark.parametrize(("name", "bidirectional"), [*((name, False) for name in CELLS), ("lstm", True)])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, in forward mode
def test_gradients_are_derivatives(name: str, bidirectional: bool) -> None:
    """Finite differences: reverse mode, reverse mode twice, and forward mode."""
    net = Recurrent(name, inputs=2, units=2, bidirectional=bidirectional, backend="reference").double()
    x = torch.randn(3, 2, 2, dtype=torch.double, requires_grad=True)
    state = tuple(torch.randn_like(slot).requires_grad_() for slot in net.start(x))
    reset = torch.tensor([[True, False], [False, False], [False, True]])
    weights = dict(net.named_parameters())

    def run(x: Tensor, *rest: Tensor) -> Any:
        given, slots = rest[: len(weights)], rest[len(weights) :]
        y, last = torch.func.functional_call(net, dict(zip(weights, given, strict=True)), (x, slots, reset))
        return y, *last

    inputs = (x, *weights.values(), *state)
    assert gradcheck(run, inputs, check_forward_ad=True, check_batched_grad=True, fast_mode=True)
    assert gradgradcheck(run, inputs, fast_mode=True)


@pytest.mark.parametrize("name", CELLS)
def test_the_graph_is_set_free(name: str) -> None:
    """What the sweep saves holds no circle: memory is given back when the last result goes, used or not."""
    net = Recurrent(name, inputs=2, units=3, backend="reference")
    for used in (False, True):
        y = net(torch.randn(4, 2, 2))[0]
        node = y.grad_fn
        while "_Sweep" not in node.name():
            node = node.next_functions[0][0]
        alive = weakref.ref(node)
        del node
        if used:
            y.sum().backward()
        del y
        assert alive() is None


@modes
@backends
def test_start_is_a_function(mode: str, backend: str) -> None:
    """One-to-many: the first state is made by another network, which learns through it."""
    ours, plain = pair(mode, backend)
    z = torch.randn(4, 3, dtype=torch.double)
    x = torch.zeros(5, 4, 3, dtype=torch.double)
    maps = [
        torch.randn(3, slot.shape[-1], dtype=torch.double).requires_grad_() for slot in leaves(state_for(plain, ()))
    ]

    def run(layer: Any, **options: Any) -> Any:
        hx = tuple((z @ weight).tanh()[None] for weight in maps)
        return layer(x, hx if len(hx) > 1 else hx[0], **options)

    reset = torch.zeros(5, 4, dtype=torch.bool)
    reset[3, 2] = True
    wanted = outputs_and_gradients(lambda: run(plain), maps)
    torch.testing.assert_close(outputs_and_gradients(lambda: run(ours), maps), wanted, **EXACT)
    cut = outputs_and_gradients(lambda: run(ours, reset=reset), maps)
    assert not torch.allclose(cut[-1], wanted[-1])


@pytest.mark.parametrize("name", CELLS)
def test_two_products_are_one(name: str) -> None:
    """[X H] [W_x; W_h] = X W_x + H W_h: the cell may be fed with the product of the joined rows."""
    net = Recurrent(name, inputs=3, units=5, backend="reference").double()
    W_x, W_h, b_x, b_h = net.parameters()
    X, H = torch.randn(4, 3, dtype=torch.double), torch.randn(4, 5, dtype=torch.double)
    joined = torch.cat((X, H), 1) @ torch.cat((W_x, W_h), 1).T
    torch.testing.assert_close(joined, X @ W_x.T + H @ W_h.T, **EXACT)
    if name == "gru":
        return  # its reset gate takes v apart from u
    state = tuple(torch.randn(1, 4, 5, dtype=torch.double) if k else H[None] for k in range(net.cell.slots))
    u = (joined + b_x + b_h).unflatten(-1, (net.cell.gates, 5))
    wanted, _ = net.cell.forward(u, torch.zeros_like(u), tuple(slot[0] for slot in state))
    y, last = net(X[None], state)
    torch.testing.assert_close([y[0], *(slot[0] for slot in last)], [wanted[0], *wanted], **EXACT)


@pytest.mark.parametrize("name", CELLS)
@backends
def test_bptt_is_backprop_with_tied_weights(name: str, backend: str) -> None:
    """The feedforward network of T layers, one copy of the weights a layer: their gradients add up to the layer's."""
    T, B = 5, 3
    net = Recurrent(name, inputs=2, units=4, backend=backend).double()
    x = torch.randn(T, B, 2, dtype=torch.double)
    copies = [[weight.detach().clone().requires_grad_() for weight in net.parameters()] for _ in range(T)]

    def feedforward() -> list[Tensor]:
        s = tuple(slot[0] for slot in net.start(x))
        outputs = []
        for x_t, (W_x, W_h, b_x, b_h) in zip(x, copies, strict=True):
            u, v = (
                product.unflatten(-1, (net.cell.gates, 4))
                for product in (linear(x_t, W_x, b_x), linear(s[0], W_h, b_h))
            )
            s, _ = net.cell.forward(u, v, s)
            outputs.append(s[0])
        return [torch.stack(outputs), *(slot[None] for slot in s)]

    count = 1 + net.cell.slots
    wanted = outputs_and_gradients(feedforward, [weight for copy in copies for weight in copy])
    found = outputs_and_gradients(lambda: net(x), list(net.parameters()))
    tied = [sum(wanted[count:][place::4]) for place in range(4)]
    torch.testing.assert_close(found, wanted[:count] + tied, **EXACT)


@dataclass(frozen=True)
class Fading(Cell):
    """A user's cell with two slots and no backward: a trace c of what is read, gated by what the first gate says."""

    rate: float = 0.7
    gates: ClassVar[int] = 2
    slots: ClassVar[int] = 2

    def forward(self, u: Tensor, v: Tensor, s: tuple[Tensor, ...]) -> Any:
        h, c = s
        gate, new = (u + v).unbind(-2)
        c = self.rate * c + torch.sigmoid(gate) * new
        return (torch.tanh(c) + 0.1 * h, c), (u, v, *s)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_cell_of_ones_own(bidirectional: bool) -> None:
    net = Recurrent(Fading(), inputs=2, units=3, layers=2, bidirectional=bidirectional).double()
    x = torch.randn(4, 2, 2, dtype=torch.double).requires_grad_()
    assert gradcheck(lambda x: net(x)[0], (x,), fast_mode=True)
    assert gradgradcheck(lambda x: net(x)[0], (x,), fast_mode=True)
    assert "for this cell" in kernels.why(net)
    assert "Fading" in repr(net)


def test_a_cell_that_keeps_what_the_default_cannot_use() -> None:
    class Forgetful(Fading):
        def forward(self, u: Tensor, v: Tensor, s: tuple[Tensor, ...]) -> Any:
            return super().forward(u, v, s)[0], (u,)

    y, _ = Recurrent(Forgetful(), inputs=2, units=3)(torch.randn(4, 2, 2))
    with pytest.raises(TypeError, match=re.escape("kept of Forgetful must be (u, v, *s), 4 tensors; got 1.")):
        y.sum().backward()


# Recurrent and the choice of a backend.


@pytest.mark.parametrize(
    ("name", "mode"), [("elman", "tanh"), ("elman:phi=relu", "relu"), ("gru", "gru"), ("lstm", "lstm")]
)
@pytest.mark.parametrize("bidirectional", [False, True])
@backends
def test_recurrent_is_the_layer(name: str, mode: str, bidirectional: bool, backend: str) -> None:
    """Under one seed the same weights under the same names, and so the same numbers."""
    kind, more = MODES[mode]
    torch.manual_seed(5)
    plain = getattr(nn, kind)(3, 4, 2, bidirectional=bidirectional, **more)
    torch.manual_seed(5)
    net = Recurrent(name, inputs=3, units=4, layers=2, bidirectional=bidirectional, backend=backend)
    assert list(net.state_dict()) == list(plain.state_dict())
    torch.testing.assert_close(net.state_dict(), plain.state_dict(), rtol=0, atol=0)
    x = torch.randn(6, 2, 3)
    y, last = net(x)
    torch.testing.assert_close([y, *last], leaves(plain(x)))


@pytest.mark.parametrize("name", [*CELLS, *cells])
def test_every_cell_takes_lengths(name: str) -> None:
    net = Recurrent(name, inputs=3, units=4, bidirectional=True)
    x, lengths = torch.randn(6, 3, 3), [0, 6, 2]
    y, last = net(x, lengths=lengths)
    for row, steps in enumerate(lengths):
        assert not y[steps:, row].any()
        if steps:
            wanted = leaves(net(x[:steps, row : row + 1]))
            found = [y[:steps, row : row + 1], *(slot[:, row : row + 1] for slot in last)]
            torch.testing.assert_close(found, wanted)


def test_why() -> None:
    lstm, ctrnn = layers.LSTM(2, 3), Recurrent("ctrnn", inputs=2, units=3)
    assert kernels.why(lstm).startswith("torch: ")
    assert kernels.why(lstm, reset=True).startswith("torch: ")
    assert kernels.why(lstm, reset=True, lengths=True).startswith("reference: torch has no restarts")
    assert kernels.why(ctrnn) == "reference: torch has no recurrent function for this cell"
    assert kernels.why(layers.RNN(2, 3, backend="reference")) == "reference: asked for by name"
    assert kernels.why(nn.Linear(2, 3)) == "torch: Linear has no recurrence"
    assert set(kernels.BACKENDS) == {kernels.choose(cell_named(name)).backend for name in cells}


X = torch.zeros(4, 2, 3)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown backend": (
        lambda: layers.GRU(3, 5, backend="cuda"),
        "backend must be auto, torch or reference; got 'cuda'.",
    ),
    "unknown backend of Recurrent": (
        lambda: Recurrent("gru", inputs=3, units=5, backend="Torch"),
        "backend must be auto, torch or reference; got 'Torch'.",
    ),
    "torch for a cell that it has not": (
        lambda: Recurrent("ctrnn", inputs=3, units=5, backend="torch"),
        "backend 'torch' cannot run this: torch has no recurrent function for this cell. Choose 'reference' or 'auto'.",
    ),
    "torch for both cuts": (
        lambda: layers.GRU(3, 5, backend="torch")(X, reset=torch.ones(4, 2, dtype=torch.bool), lengths=[4, 4]),
        "backend 'torch' cannot run this: torch has no restarts inside rows of unequal length. "
        "Choose 'reference' or 'auto'.",
    ),
    "reset of another shape": (
        lambda: layers.LSTM(3, 5)(X, reset=torch.zeros(2, 4, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (4, 2); got torch.bool, (2, 4).",
    ),
    "reset that is not bool": (
        lambda: layers.LSTM(3, 5)(X, reset=torch.zeros(4, 2)),
        "reset must be bool with the leading axes of x, (4, 2); got torch.float32, (4, 2).",
    ),
    "reset that is no tensor": (
        lambda: layers.LSTM(3, 5)(X, reset=[[True, False]] * 4),  # type: ignore[arg-type]
        "reset must be bool with the leading axes of x, (4, 2); got list.",
    ),
    "reset without an axis": (
        lambda: layers.LSTM(3, 5)(X[:, 0], reset=torch.zeros(4, 1, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (4,); got torch.bool, (4, 1).",
    ),
    "reset of a step": (
        lambda: layers.LSTMCell(3, 5)(X[0], reset=torch.zeros(3, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (2,); got torch.bool, (3,).",
    ),
    "reset of Recurrent": (
        lambda: Recurrent("gru", inputs=3, units=5)(X, None, torch.zeros(4, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (4, 2); got torch.bool, (4,).",
    ),
    "too few lengths": (
        lambda: layers.RNN(3, 5)(X, lengths=[4]),
        "lengths must be one whole number a row, 2 in all; got [4].",
    ),
    "lengths that are no numbers of steps": (
        lambda: layers.RNN(3, 5)(X, lengths=[1.5, 2.0]),
        "lengths must be one whole number a row, 2 in all; got [1.5, 2.0].",
    ),
    "lengths that are a mask": (
        lambda: layers.RNN(3, 5)(X, lengths=[True, False]),
        "lengths must be one whole number a row, 2 in all; got [True, False].",
    ),
    "lengths above T": (
        lambda: layers.RNN(3, 5)(X, lengths=[4, 5]),
        "lengths must be from 0 to the 4 steps of x; got [4, 5].",
    ),
    "lengths below 0": (
        lambda: layers.RNN(3, 5)(X, lengths=torch.tensor([4, -1])),
        "lengths must be from 0 to the 4 steps of x; got [4, -1].",
    ),
    "a packed sequence with lengths": (
        lambda: layers.GRU(3, 5)(pack_padded_sequence(X, [4, 2]), lengths=[4, 2]),  # type: ignore[arg-type]
        "reset and lengths must come with a padded tensor; got a PackedSequence. Pad it.",
    ),
    "x of another width": (
        lambda: Recurrent("gru", inputs=2, units=5)(X),
        "x must be (T, B, 2); got (4, 2, 3).",
    ),
    "x without rows": (lambda: Recurrent("gru", inputs=3, units=5)(X[0]), "x must be (T, B, 3); got (2, 3)."),
    "a state of another shape": (
        lambda: Recurrent("lstm", inputs=3, units=5)(X, (torch.zeros(1, 1, 5),)),
        "state must be tensors of [(1, 2, 5), (1, 2, 5)]; got [(1, 1, 5)].",
    ),
    "no units": (lambda: Recurrent("gru", inputs=3, units=0), "units must be at least 1; got 0."),
    "all dropped": (
        lambda: Recurrent("gru", inputs=3, units=5, dropout=1.0),
        "dropout must be at least 0 and below 1; got 1.0.",
    ),
    "a phi that no cell has": (
        lambda: Recurrent(Elman("gelu"), inputs=3, units=5),
        "phi must be one of tanh, relu, sigmoid, identity; got 'gelu'.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    call, sentence = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == sentence
