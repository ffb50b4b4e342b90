"""docs/derivation.md: its formulas, and for each slip that it corrects, what is printed beside what is right."""

from __future__ import annotations

import re
from itertools import product
from math import tanh
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from williams_zipser import EXACT, Array, M, N, Run, T, chunk_of, delta_rule, epochs, matrix, network

from throughtime import Chunk, Network, cross_entropy, squared_error
from throughtime.credit import BPTT
from throughtime.verify.credit import total

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "derivation.md").read_text(encoding="utf-8")
DOUBLE = torch.float64


def test_every_place_that_the_text_names_exists() -> None:
    places = re.findall(r"`((?:src|tests)/[\w/]+\.py)(?:::(\w+)(?:\.(\w+))?)?`", TEXT)
    assert len(places) > 25
    for path, *names in places:
        code = (ROOT / path).read_text(encoding="utf-8")
        for name in filter(None, names):
            assert re.search(rf"(def|class) {name}\b|^    {name}: ", code, re.MULTILINE), (path, name)


def sums(printed: str, W: Array, run: Run, seen: range) -> Array:
    """-dE/dW by delta in the four ways in which the sum over k can be printed; seen are the neurons of A."""
    over = seen if "A" in printed else range(N)
    dW, after = np.zeros_like(W), np.zeros(N)
    for n in range(T, 0, -1):
        delta = np.zeros(N)
        for j in over:
            weights = W[j, :N] if "w_jk" in printed else W[:N, j]
            delta[j] = run.slope[n, j] * (run.e[n, j] + sum(weights[k] * after[k] for k in over))
        dW += np.outer(delta, run.xi[n - 1])
        after = delta
    return dW


@pytest.mark.parametrize("printed", ["w_kj, all", "w_jk, all", "w_kj, A", "w_jk, A"])
def test_the_sum_over_k(printed: str) -> None:
    """w_kj over all neurons is the gradient; the transposed matrix is not, and with A alone no hidden neuron learns."""
    net, (row,) = network(bias=False), epochs(1)
    wanted = -total(BPTT(), net, squared_error, chunk_of([row], False)).grads["weight"].numpy()
    found = sums(printed, matrix(net)[0], Run(net, row), range(net.visible))
    error = np.linalg.norm(found - wanted) / np.linalg.norm(wanted)
    assert (error < EXACT) == (printed == "w_kj, all")
    assert error < EXACT or error > 0.01
    assert (not found[net.visible :].any()) == ("A" in printed)
    assert wanted[net.visible :].all()


def test_the_error_at_the_start_of_an_epoch() -> None:
    """y(n0) is given: an error there adds a number to E, and nothing to any gradient."""
    net, rows = network(), epochs()
    chunk = chunk_of(rows, False)
    state = torch.rand(len(rows), N, dtype=DOUBLE)
    y, _ = net(chunk.x, state)
    late = y.square().sum()
    early = late + (state[:, : net.visible] - 1).square().sum()
    both = [torch.autograd.grad(E, list(net.parameters()), retain_graph=True) for E in (early, late)]
    for given, wanted in zip(*both, strict=True):
        assert torch.equal(given, wanted)


def test_the_error_that_truncation_carries_back() -> None:
    """delta_j(l) = -d eps(n)/d v_j(l), the error of now at an earlier step. With eps(l) every step would carry its own
    error h times over, and none of them back."""
    h = 3
    net, (row,) = network(bias=False), epochs(1)
    run = Run(net, row)
    printed = np.zeros_like(matrix(net)[0])
    for n in range(1, T + 1):
        for step in range(max(1, n - h + 1), n + 1):
            printed += np.outer(run.slope[step] * run.e[step], run.xi[step - 1])
    found = -total(BPTT(h), net, squared_error, chunk_of([row], False)).grads["weight"].numpy()
    _, wanted, _ = delta_rule(net, row, 1.0, h, 1)
    np.testing.assert_allclose(found, wanted, atol=EXACT)
    assert np.linalg.norm(printed - wanted) > 0.01 * np.linalg.norm(wanted)
    times = np.array([min(h, T - step + 1) for step in range(1, T + 1)])
    alone = sum(t * np.outer(run.slope[n] * run.e[n], run.xi[n - 1]) for n, t in enumerate(times, 1))
    np.testing.assert_allclose(printed, alone, atol=EXACT)


def test_the_weights_in_force() -> None:
    """Where the weights change at every step, delta goes back from v(l + 1) through the W that made it: w_kj(l)."""
    W = torch.randn(T, N, N + M, dtype=DOUBLE, requires_grad=True)
    u, d = torch.randn(T, M, dtype=DOUBLE), torch.rand(N, dtype=DOUBLE)
    y, xi, ys = torch.zeros(N, dtype=DOUBLE), [], []
    for n in range(T):
        xi.append(torch.cat((y, u[n])))
        y = torch.tanh(W[n] @ xi[n])
        ys.append(y)
    (wanted,) = torch.autograd.grad((d - y).square().sum() / 2, W)
    W, ys, xi = W.detach(), [part.detach() for part in ys], [part.detach() for part in xi]
    for shift in (0, 1):  # the weights in force, and those of a step later
        delta = (1 - ys[-1] ** 2) * (d - ys[-1])
        found = [torch.outer(delta, xi[-1])]
        for n in range(T - 2, -1, -1):
            delta = (1 - ys[n] ** 2) * (W[min(n + 1 + shift, T - 1), :, :N].T @ delta)
            found.append(torch.outer(delta, xi[n]))
        error = float((torch.stack(found[::-1]) + wanted).norm() / wanted.norm())
        assert error < EXACT if shift == 0 else error > 0.01


def test_the_matrix_form() -> None:
    """G_t = E_t + (G_{t+1} * Phi'_{t+1}) W_hh^T for rows of a batch, X W_xh + H W_hh; E_t = R_t W_hq^T."""
    net = Network("elman", inputs=M, units=N, outputs=2).double()
    x, y = torch.randn(T, 4, M, dtype=DOUBLE), torch.randn(T, 4, 2, dtype=DOUBLE)
    W_xh, W_hh, W_hq = (w.detach().T for w in (net.layers.weight_ih_l0, net.layers.weight_hh_l0, net.readout.weight))
    b_h = (net.layers.bias_ih_l0 + net.layers.bias_hh_l0).detach()
    H = [torch.zeros(4, N, dtype=DOUBLE)]
    for t in range(T):
        H.append(torch.tanh(x[t] @ W_xh + H[t] @ W_hh + b_h))
    grads = {name: torch.zeros_like(w) for name, w in net.named_parameters()}
    back = torch.zeros(4, N, dtype=DOUBLE)
    for t in range(T, 0, -1):
        R = H[t] @ W_hq + net.readout.bias.detach() - y[t - 1]
        D = (R @ W_hq.T + back) * (1 - H[t] ** 2)
        back = D @ W_hh.T
        grads["readout.weight"] += R.T @ H[t]
        grads["readout.bias"] += R.sum(0)
        grads["layers.weight_ih_l0"] += (x[t - 1].T @ D).T
        grads["layers.weight_hh_l0"] += (H[t - 1].T @ D).T
        grads["layers.bias_ih_l0"] += D.sum(0)
        grads["layers.bias_hh_l0"] += D.sum(0)
    found = total(BPTT(), net, squared_error, Chunk(x, y, end=True))
    for name, grad in grads.items():
        assert (found.grads[name] - grad).abs().max() < EXACT * (1 + grad.abs().max())


class Chain:
    """One unit, s_t = tanh(u x_t + w s_{t-1}), the error E = s_T^2 / 2."""

    def __init__(self) -> None:
        self.w, self.s, self.x = 0.9, [0.3], np.random.randn(T)
        for t in range(T):
            self.s.append(tanh(0.7 * self.x[t] + self.w * self.s[t]))
        self.slope = [1 - s * s for s in self.s]
        self.immediate = [0.0] + [self.slope[t] * self.s[t - 1] for t in range(1, T + 1)]  # d+ s_t / dw
        self.whole = [0.0]  # d s_t / dw
        for t in range(1, T + 1):
            self.whole.append(self.immediate[t] + self.slope[t] * self.w * self.whole[t - 1])

    def jacobian(self, first: int) -> float:
        """The product over t = first .. T of d s_t / d s_{t-1}."""
        return float(np.prod([self.slope[t] * self.w for t in range(first, T + 1)]))

    def by_autograd(self) -> float:
        w = torch.tensor(self.w, dtype=DOUBLE, requires_grad=True)
        s = torch.tensor(self.s[0], dtype=DOUBLE)
        for t in range(T):
            s = torch.tanh(0.7 * self.x[t] + w * s)
        return float(torch.autograd.grad(s, w)[0])


def test_the_immediate_derivative() -> None:
    """sum_k ds_T/ds_k d+s_k/dw with s_{k-1} held fixed; with the whole ds_k/dw what is early counts many times over."""
    chain = Chain()
    wanted = chain.by_autograd()
    for factor, right in ((chain.immediate, True), (chain.whole, False)):
        found = sum(chain.jacobian(k + 1) * factor[k] for k in range(T + 1))
        assert (abs(found - wanted) < EXACT) == right
    assert chain.immediate[0] == 0  # a constant start state has no derivative, so k = 0 adds nothing


def test_where_the_product_of_jacobians_starts() -> None:
    """dh_t/dw = sum_i (product over j = i + 1 .. t) d+h_i/dw: from j = i there is a factor too many."""
    chain = Chain()
    found = [sum(chain.jacobian(k + late) * chain.immediate[k] for k in range(1, T + 1)) for late in (1, 0)]
    assert abs(found[0] - chain.by_autograd()) < EXACT
    assert abs(found[1] - chain.by_autograd()) > 1e-3


def test_random_truncation_goes_through_z() -> None:
    """z_t = b_t + xi_t c_t z_{t-1}; with dh_{t-1}/dw there, xi_t alone decides between all of the past and none.

    All 2^T draws of xi in {0, 1/p}: both have the right mean, but as printed the value knows xi_T alone.
    """
    chain, p = Chain(), 0.6
    mean, values = [0.0, 0.0], [set(), set()]  # type: ignore[var-annotated]
    for kept in product((True, False), repeat=T):
        chance, z = 1.0, 0.0
        for t in range(1, T + 1):
            link = (kept[t - 1] / p) * chain.slope[t] * chain.w
            printed = chain.immediate[t] + link * chain.whole[t - 1]
            z = chain.immediate[t] + link * z
            chance *= p if kept[t - 1] else 1 - p
        for index, value in enumerate((z, printed)):
            mean[index] += chance * value
            values[index].add(round(value, 13))
    assert mean == pytest.approx([chain.whole[T]] * 2, rel=1e-10)
    assert len(values[1]) == 2
    assert len(values[0]) == T  # by the number of unbroken links before T; the first step has no past to lose


def test_the_mean_over_time() -> None:
    """L = (1/T) sum of errors has a gradient T times smaller: a rate for it is T times larger for the same step."""
    net = Network("elman", inputs=4, units=N, outputs=4).double()
    x, y = torch.randint(0, 4, (2, T, 1))
    estimate = total(BPTT(), net, cross_entropy, Chunk(x, y, end=True))
    mean: Tensor = cross_entropy(net(x)[0], y).mean()
    for (name, _), grad in zip(net.named_parameters(), torch.autograd.grad(mean, list(net.parameters())), strict=True):
        assert (estimate.grads[name] / estimate.count - grad).abs().max() < EXACT
    assert estimate.count == T
