"""The laws of the library itself: every cell, backend, layer and algorithm that it has by name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.functional import linear
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from throughtime import layers
from throughtime.cells import cell_named, cells
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, algorithms, credit_named, spell_credit
from throughtime.kernels import BACKENDS, Weights
from throughtime.kernels import run as run_kernel
from throughtime.nets import Network, Window, cross_entropy, squared_error
from throughtime.recurrent import FullyRecurrent
from throughtime.shapes import Tensor
from throughtime.verify.cell import check_cell
from throughtime.verify.credit import Case, brute_force, check_credit, compare, text, total, worst
from throughtime.verify.flow import flow_laws
from throughtime.verify.result import Measured, Result, check, distance, random, rounding

DOUBLE = torch.float64

VARIANTS = {
    "elman": ("elman", "elman:phi=relu", "elman:phi=sigmoid", "elman:phi=identity"),
    "ctrnn": ("ctrnn", "ctrnn:alpha=0.3,phi=relu", "ctrnn:alpha=1.0,phi=sigmoid"),
    "bptt": ("bptt", "bptt:h=4", "bptt:h=5,every=2", "bptt:h=4,every=4", "bptt:h=5,every=2,replay=false"),
    "parallel": ("parallel:h=1", "parallel:h=4"),
    "random": ("random:mean=1",),  # the laws hold draw by draw where every step is cut; elsewhere in the mean
    "snap": ("snap", "snap:n=2"),
    "rflo": ("rflo", "rflo:feedback=3"),
    "adaptive": ("adaptive:probe=6,again=6,every=1,minimum=3,maximum=3",),
}
"""Spellings that stand for a name; a name that is not here is checked as it is."""

EPOCHWISE = ("bptt",)
"""Algorithms that keep the whole sequence until `end`."""

PLACED = ("uoro",)
"""Algorithms whose random numbers depend on the place of a row and a step."""


def variants(names: Iterable[str]) -> list[str]:
    """The spellings that stand for names."""
    return [spelling for name in names for spelling in VARIANTS.get(name, (name,))]


def laws() -> tuple[str, ...]:
    """The names of the groups of laws, in the order in which they run."""
    return tuple(GROUPS)


def run(names: Iterable[str] | None = None) -> Iterator[Result]:
    """Check groups of laws, all of them without names, and yield each Result as it comes.

    Raises ValueError when a group is unknown.
    """
    chosen = laws() if names is None else tuple(names)
    for name in chosen:
        if name not in GROUPS:
            raise ValueError(f"names must be among {', '.join(GROUPS)}; got {name!r}.")
    for name in chosen:
        yield from GROUPS[name]()


def _cells() -> Iterator[Result]:
    for name in variants(cells):
        yield from check_cell(name)


def _backends() -> Iterator[Result]:
    for backend in BACKENDS:
        for name in variants(cells):
            for reset, lengths in ((False, False), (True, False), (False, True), (True, True)):
                if backend == "reference" or BACKENDS[backend].refusal(cell_named(name), reset, lengths):
                    continue
                options = " with restarts" * reset + " with unequal rows" * lengths
                law = f"backend {backend} = reference{options}"
                yield check(law, name, partial(_backend, backend, name, reset, lengths))


def _backend(backend: str, name: str, restarts: bool, unequal: bool) -> Measured:
    T, B, I, H = 7, 4, 3, 5
    cell = cell_named(name)
    width = cell.gates * H
    x, *s0 = (random(*shape).requires_grad_() for shape in ((T, B, I), *[(B, H)] * cell.slots))
    shapes = ((width, I), (width, H), (width,), (width,))
    weights = [random(*shape).div(2).requires_grad_() for shape in shapes]
    reset = torch.rand(T, B) < 0.3 if restarts else None
    lengths = torch.tensor([T, 0, 3, 1]) if unequal else None
    found = []
    errors: list[Tensor] = []
    for kind in (backend, "reference"):
        options = {"reset": reset, "lengths": lengths, "backend": kind}
        y, last = run_kernel(cell, x, Weights(*weights), tuple(s0), **options)  # type: ignore[arg-type]
        errors = errors or [torch.randn_like(part) for part in (y, *last)]
        grads = torch.autograd.grad((y, *last), (x, *s0, *weights), errors)
        found.append((y, *last, *grads))
    return Measured(distance(*found), rounding(DOUBLE, T, I + H))


def _layers() -> Iterator[Result]:
    for name, options in (
        ("RNN", {}),
        ("RNN", {"nonlinearity": "relu", "bias": False}),
        ("GRU", {}),
        ("LSTM", {}),
        ("LSTM", {"proj_size": 3}),
    ):
        subject = " ".join((name, *(f"{option}={value}" for option, value in options.items())))
        yield check("layers in both directions = torch.nn's", subject, partial(_twin, name, options))


def _twin(name: str, options: dict[str, Any]) -> Measured:
    T, B, I, H = 7, 3, 4, 5
    options = {"num_layers": 2, "bidirectional": True, **options}
    plain = getattr(nn, name)(I, H, **options).double()
    ours = getattr(layers, name)(I, H, backend="reference", **options).double()
    ours.load_state_dict(plain.state_dict())
    x = random(T, B, I).requires_grad_()
    found = []
    errors: list[Tensor] = []
    for layer in (ours, plain):
        y, last = layer(x)
        outputs = (y, *last) if isinstance(last, tuple) else (y, last)
        errors = errors or [torch.randn_like(part) for part in outputs]
        found.append((*outputs, *torch.autograd.grad(outputs, (x, *layer.parameters()), errors)))
    return Measured(distance(*found), rounding(DOUBLE, 2 * T, I + 2 * H))


def _networks() -> Iterator[Result]:
    for name in variants(cells):
        recurrent = partial(Network, name, inputs=3, units=5, outputs=2, layers=2)
        yield check("one step a call = all steps in one call", name, partial(_steps, recurrent))
    window = partial(Window, inputs=3, units=5, outputs=2, window=3)
    yield check("one step a call = all steps in one call", "window", partial(_steps, window))
    full = partial(FullyRecurrent, 5, 3, 2)
    yield check("one step a call = all steps in one call", "fully recurrent", partial(_steps, full))


def _steps(make: Callable[[], nn.Module]) -> Measured:
    """Outputs and the gradient of all weights, with restarts, the state handed from call to call."""
    T, B = 9, 3
    net = make().double()
    x, reset, dy = random(T, B, 3), torch.rand(T, B) < 0.2, random(T, B, 2)
    whole, _ = net(x, None, reset)
    state = None
    steps = []
    for t in range(T):
        y, state = net(x[t : t + 1], state, reset[t : t + 1])
        steps.append(y)
    found = [(y, torch.autograd.grad(y, list(net.parameters()), dy)) for y in (torch.cat(steps), whole)]
    return Measured(distance(*found), rounding(DOUBLE, T, 8))


def _credit() -> Iterator[Result]:
    """Every algorithm, each spelling of it on another cell, and the first at two depths."""
    for index, name in enumerate(variants(algorithms)):
        cell = list(cells)[index % len(cells)]
        period = getattr(credit_named(name), "every", None) or 1
        depths = (2,) if index else (1, 2)
        flat, placed = name not in EPOCHWISE, name in PLACED
        yield from check_credit(name, cell, layers=depths, period=period, flat=flat, placed=placed)
    yield from check_credit("rtrl", "lstm", layers=(1, 2), against="bptt")
    yield from check_credit("snap:n=2", "gru", layers=(2,), against="bptt")
    yield from check_credit("rflo", "elman", layers=(2,), against="bptt:h=1")
    yield from check_credit("bptt:h=13,every=13", "lstm", layers=(1,), period=13, against="bptt")
    for name in variants(cells):
        yield check("bptt = finite differences", name, partial(_differences, name))


def _differences(name: str) -> Measured:
    """The loss of a short stream along random directions of all weights; central, off by order eps^(2/3)."""
    step = torch.finfo(DOUBLE).eps ** (1 / 3)
    net, chunk = text(Case(BPTT(), name, 2, 1, None), 6)
    grads = total(BPTT(), net, cross_entropy, chunk).grads
    gradient = torch.cat([grads[key].flatten() for key, _ in net.named_parameters()])
    weights = parameters_to_vector(net.parameters()).detach()
    found, wanted = [], []
    for _ in range(4):
        direction = torch.randn_like(weights)
        losses = []
        for side in (step, -step):
            vector_to_parameters(weights + side * direction, net.parameters())
            losses.append(float(total(BPTT(), net, cross_entropy, chunk).loss))
        found.append(float(gradient @ direction))
        wanted.append((losses[0] - losses[1]) / (2 * step))
    return Measured(distance(found, wanted), 1000 * step**2)


WINDOWS = ((1, 1), (3, 1), (4, 4), (5, 2), (20, 6))
"""h and every of the windows that are checked one by one."""


def _windows() -> Iterator[Result]:
    for name in variants(cells):
        law = "bptt(h; every) = window by window, by definition"
        yield check(law, name, partial(_by_definition, name))


def _by_definition(name: str) -> Measured:
    net, chunk = text(Case(BPTT(), name, 2, 1, None), 13)
    measures = []
    for index, (h, every) in enumerate(WINDOWS):
        wanted = brute_force(net, cross_entropy, chunk, h, every)
        for replay in (True, False):
            cuts = ((3, 7), range(1, 13))[index % 2]
            given = total(BPTT(h, every, replay), net, cross_entropy, chunk, cuts)
            measures.append(compare(given, wanted, 13))
    return worst(measures)


def _textbook() -> Iterator[Result]:
    yield check("[X H] [W_x; W_h] = X W_x + H W_h", "elman", _concatenated)
    yield check("bptt = backpropagation through T layers with tied weights", "elman", _unfolded)
    for credit, figures in (
        (BPTT(), (0.9, 0.36, 0.108)),
        (BPTT(3), (0.9, 0.36, 0.108)),
        (BPTT(2), (0.9, 0.36, 0.072)),
        (BPTT(1), (0.9, 0.18, 0.036)),
    ):
        law = "x_t = w x_{t-1}, w = 0.2, x_0 = 0.9: dx_t/dw by hand"
        yield check(law, spell_credit(credit), partial(_three_steps, credit, figures))


def _concatenated() -> Measured:
    """The recurrence with one product a step, inputs beside state, weights on top of each other."""
    T, B, I, H = 7, 3, 4, 5
    layer = layers.Recurrent("elman", inputs=I, units=H).double()
    W_x, W_h, b_x, b_h = (weight.detach() for weight in layer.parameters())
    W = torch.cat((W_x.T, W_h.T))  # IH H
    x, h = random(T, B, I), torch.zeros(B, H, dtype=DOUBLE)
    outputs = []
    for t in range(T):
        h = torch.tanh(torch.cat((x[t], h), 1) @ W + b_x + b_h)
        outputs.append(h)
    return Measured(distance(layer(x)[0], torch.stack(outputs)), rounding(DOUBLE, T, I + H))


def _unfolded() -> Measured:
    """A feed-forward network of T layers, equal weights in each, against the sum of their gradients."""
    T, B, I, H, A = 6, 3, 4, 5, 2
    net = Network("elman", inputs=I, units=H, outputs=A).double()
    x, y = random(T, B, I), random(T, B, A)
    weights = dict(net.named_parameters())
    copies = [{name: w.detach().clone().requires_grad_() for name, w in weights.items()} for _ in range(T)]
    h = torch.zeros(B, H, dtype=DOUBLE)
    error = torch.zeros((), dtype=DOUBLE)
    for t, own in enumerate(copies):
        a = linear(x[t], own["layers.weight_ih_l0"], own["layers.bias_ih_l0"])
        h = torch.tanh(a + linear(h, own["layers.weight_hh_l0"], own["layers.bias_hh_l0"]))
        error = error + (linear(h, own["readout.weight"], own["readout.bias"]) - y[t]).square().sum() / 2
    error.backward()
    wanted = {name: sum(own[name].grad for own in copies) for name in copies[0]}  # type: ignore[misc]
    given = total(BPTT(), net, squared_error, Chunk(x, y, end=True), (2, 3))
    return Measured(distance((given.grads, given.loss), (wanted, error)), rounding(DOUBLE, T, I + H))


class Multiply(nn.Module):
    """x_t = w x_{t-1}: one weight, no input; the state is x."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.2, dtype=DOUBLE))

    def forward(self, x: Tensor, state: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
        outputs = []
        for _ in range(x.shape[0]):
            state = self.w * state
            outputs.append(state)
        return torch.stack(outputs), state


def _three_steps(credit: BPTT, figures: tuple[float, ...]) -> Measured:
    """By hand: dx_t/dw = t w^(t-1) x_0, and with h < t steps back h w^(t-1) x_0; the error is x_t itself."""
    net = Multiply()
    found = []
    for t in range(3):
        mask = torch.zeros(3, 1, dtype=DOUBLE)
        mask[t] = 1
        chunk = Chunk(torch.zeros(3, 1, 1), torch.zeros(3, 1, 1), mask, end=True)
        start = torch.tensor([[0.9]], dtype=DOUBLE)
        estimate = total(credit, net, lambda prediction, y: prediction, chunk, (1, 2), start)
        found.append(float(estimate.grads["w"]))
    return Measured(distance(found, figures), rounding(DOUBLE, 3))


GROUPS: dict[str, Callable[[], Iterator[Result]]] = {
    "textbook": _textbook,
    "cells": _cells,
    "backends": _backends,
    "layers": _layers,
    "networks": _networks,
    "windows": _windows,
    "credit": _credit,
    "flow": lambda: flow_laws(variants(cells)),
}
