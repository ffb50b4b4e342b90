"""The sweep under the layers: derivatives, backpropagation through time itself, and any cell through Recurrent."""

from __future__ import annotations

import re
import weakref
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.nn.functional import linear
from twins import EXACT, MODES, backends, leaves, modes, outputs_and_gradients, pair, state_for

from throughtime import kernels, layers
from throughtime.cells import Cell, cells
from throughtime.layers import Recurrent

CELLS = ("elman", "elman:phi=relu", "elman:phi=sigmoid", "elman:phi=identity", "gru", "lstm", "ctrnn:alpha=0.3")


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
    assert kernels.why(layers.LSTM(2, 3, backend="torch")) == "torch: asked for by name"
    assert kernels.why(layers.RNN(2, 3, backend="reference")) == "reference: asked for by name"
    assert kernels.why(nn.Linear(2, 3)) == "torch: Linear has no recurrence"
    lstm, ctrnn = layers.LSTM(2, 3).to("meta"), Recurrent("ctrnn", inputs=2, units=3).to("meta")
    assert kernels.why(lstm).startswith("torch: torch ")
    assert "not native: " in kernels.why(lstm, reset=True)
    both = kernels.why(lstm, reset=True, lengths=True)
    assert both.startswith("reference: not native: ")
    assert both.endswith("not torch: torch has no restarts inside rows of unequal length")
    assert kernels.why(ctrnn).endswith("not torch: torch has no recurrent function for this cell")
