"""The laws of the measurements: each against the Jacobians of single steps, multiplied out, and known answers."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.autograd.functional import jacobian

from throughtime.chunk import Chunk
from throughtime.flow import lyapunov, singular_values
from throughtime.flow.kept import kept
from throughtime.flow.measuring import by_part
from throughtime.flow.parts import joined
from throughtime.nets import Network, squared_error, sum_errors
from throughtime.shapes import Tensor
from throughtime.verify.credit import brute_force
from throughtime.verify.result import Measured, Result, check, distance, random, rounding

DOUBLE = torch.float64
T, B, I, H, A, LAYERS, LAGS = 9, 2, 3, 3, 2, 2, 6
AT = np.array([6, 8])


class Foreign(Network):
    """A Network that counts as somebody's own module, which is measured by automatic differentiation."""


def flow_laws(cells: Iterable[str]) -> Iterator[Result]:
    """Of each cell, in two layers, with restarts and errors that do not count."""
    for cell in cells:
        for law, measure in LAWS.items():
            yield check(law, cell, partial(measure, cell))
    for a in (0.5, 1.0, 1.1):
        yield check("a linear network decays by its eigenvalue", f"a = {a}", partial(_linear, a))


def _case(cell: str, kind: type[Network] = Network) -> tuple[Network, Chunk]:
    net = kind(cell, inputs=I, units=H, outputs=A, layers=LAYERS).double()
    mask = torch.ones(T, B, dtype=DOUBLE)
    mask[6, 0] = 0
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[4, 1] = True
    return net, Chunk(random(T, B, I), random(T, B, A), mask, reset, end=True)


def jacobians(net: Network, chunk: Chunk, row: int) -> list[Tensor]:
    """(n, n) d s_t / d s_{t-1} of every step of a row, by automatic differentiation; zero where it restarts."""
    found, state = [], None
    for t in range(chunk.steps):
        x = chunk.x[t : t + 1, row : row + 1]
        reset = None if chunk.reset is None else chunk.reset[t : t + 1, row : row + 1]
        before = net.layers.start(x) if state is None else state

        def step(vector: Tensor, x: Tensor = x, reset: Tensor | None = reset) -> Tensor:
            slots = vector.view(net.layers.cell.slots, net.layers.depth, 1, net.layers.units)
            return joined(net(x, tuple(slots), reset)[1])[0]

        found.append(jacobian(step, joined(before)[0]))
        with torch.no_grad():
            _, state = net(x, before, reset)
    return found


def _products(cell: str) -> Measured:
    """Norms by part and lag: d loss_t / d h_t of the last layer, times one Jacobian after the other."""
    net, chunk = _case(cell)
    _, parts = by_part(net, squared_error, chunk, LAGS, AT, None)
    assert chunk.mask is not None
    h, _ = net.layers(chunk.x, None, chunk.reset)
    errors = jacobian(lambda h: sum_errors(squared_error, net.readout(h), chunk)[0], h.detach())
    wanted = np.full((LAGS + 1, len(AT), B, net.layers.cell.slots * LAYERS), np.nan)
    for row in range(B):
        J = jacobians(net, chunk, row)
        for n, t in enumerate(AT):
            g = torch.zeros(net.layers.cell.slots, LAYERS, H, dtype=DOUBLE)
            g[0, -1] = errors[t, row]
            g = g.flatten()
            for k in range(LAGS + 1):
                there = chunk.mask[t, row] and (chunk.reset is None or not chunk.reset[t - k + 1 : t + 1, row].any())
                if there:
                    norms = g.view(-1, H).norm(dim=1).numpy()
                    wanted[k, n, row] = norms if k else np.where(np.arange(len(norms)) == LAYERS - 1, norms, np.nan)
                g = g @ J[t - k]
    found = np.stack([part.norms for part in parts.values()], -1)
    faults = float((np.isnan(found) != np.isnan(wanted)).sum())
    if faults:
        return Measured(faults, detail="norms are there where none is, or the other way round.")
    relative = np.abs(found - wanted) / np.maximum(wanted, 1e-12)
    return Measured(float(np.nanmax(relative)), rounding(DOUBLE, LAGS, 2 * H))


def _windows(cell: str) -> Measured:
    """The library's own pass over all lags, and that for any module."""
    net, chunk = _case(cell)
    other = Foreign(cell, inputs=I, units=H, outputs=A, layers=LAYERS).double()
    other.load_state_dict(net.state_dict())
    found = [by_part(n, squared_error, chunk, LAGS, AT, None)[1] for n in (net, other)]
    a, b = ({name: np.nan_to_num(part.norms) for name, part in parts.items()} for parts in found)
    return Measured(distance(a, b), rounding(DOUBLE, LAGS, 2 * H))


def _kept(cell: str) -> Measured:
    """error and kept of every h, from the gradients of BPTT(h) by their definition."""
    net, chunk = _case(cell)
    assert chunk.mask is not None
    sampled = torch.zeros_like(chunk.mask)
    sampled[AT] = chunk.mask[AT]
    only = Chunk(chunk.x, chunk.y, sampled, chunk.reset, end=True)
    found = kept(net, squared_error, chunk, AT, LAGS, None, None)
    assert found is not None
    grads = [brute_force(net, squared_error, only, h, 1).grads for h in range(1, LAGS + 1)]
    rows = [torch.cat([grad[name].flatten() for name, _ in net.named_parameters()]) for grad in grads]
    g = rows[-1]
    wanted = ([float((row - g).norm() / g.norm()) for row in rows], [float(row @ g / (g @ g)) for row in rows])
    return Measured(distance((found.error, found.kept), wanted), rounding(DOUBLE, LAGS, 2 * H))


def _exponents(cell: str) -> Measured:
    """All exponents together are the mean of ln |det J|, over the steps that the iteration counts."""
    net, chunk = _case(cell)
    chunk = Chunk(chunk.x, reset=chunk.reset)
    n = LAYERS * H * net.layers.cell.slots
    found = lyapunov(net, chunk, exponents=n)
    assert found is not None
    assert chunk.reset is not None
    logs = []
    for row in range(B):
        for t in range(1, T - (T - 1) // 4):
            if not chunk.reset[t, row]:
                logs.append(float(torch.linalg.slogdet(jacobians(net, chunk, row)[t])[1]))
    total = np.mean(logs)
    if math.isinf(total):
        return Measured(float(np.isfinite(found.sum())))
    return Measured(abs(found.sum() - total) / max(1, abs(total)), 1e-10)  # det of nearly singular matrices


def _singular(cell: str) -> Measured:
    """Of the product of the last k Jacobians of the first row."""
    net, chunk = _case(cell)
    found = singular_values(net, Chunk(chunk.x, reset=chunk.reset), range(1, LAGS + 1))
    J = jacobians(net, chunk, 0)
    product, wanted = torch.eye(len(J[0]), dtype=DOUBLE), {}
    for k in range(1, LAGS + 1):
        product = product @ J[T - k]
        wanted[k] = torch.linalg.svdvals(product)
    largest = {k: float(values[0]) for k, values in wanted.items()}
    error = max(distance(found[k] / largest[k], wanted[k] / largest[k]) for k in wanted)
    return Measured(error, rounding(DOUBLE, LAGS, 2 * H))


def _linear(a: float) -> Measured:
    """W_h = a times an orthogonal matrix: factor a with every step, exponents and singular values alike."""
    net = Network("elman:phi=identity", inputs=I, units=H, outputs=A).double()
    chunk = Chunk(random(4 * T, B, I), random(4 * T, B, A))
    W_h = net.layers.get_parameter("weight_hh_l0")
    with torch.no_grad():
        W_h.copy_(a * nn.init.orthogonal_(torch.empty_like(W_h)))
    whole, _ = by_part(net, squared_error, chunk, 2 * T, np.arange(2 * T, 4 * T), None)
    exponents = lyapunov(net, chunk, exponents=H)
    assert exponents is not None
    found = [whole.decay.rate, whole.decay.low, whole.decay.high, *np.exp(exponents)]
    found += [value ** (1 / k) for k, values in singular_values(net, chunk, (1, 5)).items() for value in values]
    return Measured(distance(found, [a] * len(found)), rounding(DOUBLE, 4 * T, H))


LAWS = {
    "error by lag = products of the Jacobians": _products,
    "error by lag of any module = that of the library's": _windows,
    "what BPTT(h) keeps = from its gradient by definition": _kept,
    "Lyapunov exponents add up to the mean of ln |det J|": _exponents,
    "singular values over k steps = of the product of Jacobians": _singular,
}
