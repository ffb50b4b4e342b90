"""The fully recurrent network in NumPy, entry by entry, from the formulas of Williams and Zipser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from throughtime.chunk import Chunk
from throughtime.recurrent import FullyRecurrent

N, M, A, T, B = 5, 3, 2, 9, 3
EXACT = 1e-12
"""Sums of some hundred products of numbers of about one, in float64."""

Array = np.ndarray
PHI = {"sigmoid": lambda v: 1 / (1 + np.exp(-v)), "tanh": np.tanh, "identity": lambda v: v}
SLOPE = {"sigmoid": lambda y: y * (1 - y), "tanh": lambda y: 1 - y * y, "identity": np.ones_like}


def network(**options: Any) -> FullyRecurrent:
    """Random weights of about unit size, so that no gradient is small."""
    net = FullyRecurrent(N, M, A, **options).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.7)
    return net


@dataclass(frozen=True)
class Epoch:
    """One sequence: u(0) .. u(T-1), and d(0) .. d(T) of all units, NaN where a unit has no target."""

    u: Array
    d: Array


def epochs(rows: int = B) -> list[Epoch]:
    """Targets on visible units alone, on others at every time, at some times on none."""
    found = []
    for _ in range(rows):
        d = np.random.rand(T + 1, N)
        d[np.random.rand(T + 1, N) < 0.6] = np.nan
        d[:, A:] = np.nan
        found.append(Epoch(np.random.randn(T, M), d))
    return found


def chunk_of(rows: list[Epoch], forced: bool) -> Chunk:
    """x = u(n) beside the values that are forced at n, y = d(n + 1)."""
    u = torch.tensor(np.stack([row.u for row in rows], 1))
    d = torch.tensor(np.stack([row.d[:, :A] for row in rows], 1))
    x = torch.cat((u, d[:-1]), -1) if forced else u
    return Chunk(x, d[1:], (~d[1:].isnan()).double(), end=True)


def matrix(net: FullyRecurrent) -> tuple[Array, Array]:
    return net.weight.detach().numpy().copy(), np.zeros(N) if net.bias is None else net.bias.detach().numpy().copy()


class Run:
    """v, y, xi and e of one epoch, and what is forced, by the formulas of Williams and Zipser."""

    def __init__(self, net: FullyRecurrent, epoch: Epoch) -> None:
        W, b = matrix(net)
        self.y, self.v, self.e = np.zeros((T + 1, N)), np.zeros((T + 1, N)), np.zeros((T + 1, N))
        self.xi = np.zeros((T, N + M))
        self.free = np.ones((T + 1, N), dtype=bool)
        if net.forced:
            self.free = np.isnan(epoch.d)
        for n in range(T):
            for i in range(N):
                self.xi[n, i] = self.y[n, i] if self.free[n, i] else epoch.d[n, i]
            self.xi[n, N:] = epoch.u[n]
            for j in range(N):
                self.v[n + 1, j] = sum(W[j, i] * self.xi[n, i] for i in range(N + M)) + b[j]
                self.y[n + 1, j] = PHI[net.cell.phi](self.v[n + 1, j])
                if not np.isnan(epoch.d[n + 1, j]):
                    self.e[n + 1, j] = epoch.d[n + 1, j] - self.y[n + 1, j]
        self.slope = SLOPE[net.cell.phi](self.y)
        self.loss = (self.e[1:] ** 2).sum() / 2


def delta_rule(
    net: FullyRecurrent, epoch: Epoch, eta: float, h: int | None = None, every: int = T
) -> tuple[float, Array, Array]:
    """The loss, and the updates of weights and biases, entry by entry.

    delta_j(n) = phi'(v_j(n)) [e_j(n) + sum over ALL k of w_kj delta_k(n + 1)], without the sum where j is forced at n;
    dw_ji = eta sum_n delta_j(n) xi_i(n - 1). BPTT(h; every) goes through it window by window.
    """
    run, (W, _) = Run(net, epoch), matrix(net)
    dW, db = np.zeros_like(W), np.zeros(N)
    for start in range(0, T, every):
        last = min(start + every, T)
        delta = np.zeros((T + 2, N))
        for n in range(last, max(0, last - (h or T)), -1):
            for j in range(N):
                error = run.e[n, j] if n > start else 0.0
                back = sum(W[k, j] * delta[n + 1, k] for k in range(N)) if run.free[n, j] else 0.0
                delta[n, j] = run.slope[n, j] * (error + back)
                for i in range(N + M):
                    dW[j, i] += eta * delta[n, j] * run.xi[n - 1, i]
                db[j] += eta * delta[n, j]
    return run.loss, dW, db


def influence_rule(net: FullyRecurrent, epoch: Epoch, eta: float) -> Array:
    """The update of the weights forward in time, as Williams and Zipser (1989) print it.

    p^k_ij(n + 1) = phi'(v_k(n)) [sum over free l of w_kl p^l_ij(n) + (i = k) xi_j(n)]; dw_ij = eta sum e_k p^k_ij.
    """
    run, (W, _) = Run(net, epoch), matrix(net)
    p, dW = np.zeros((N, N, N + M)), np.zeros_like(W)
    for n in range(T):
        before, p = p, np.zeros_like(p)
        for k in range(N):
            p[k] = sum(W[k, l] * before[l] for l in range(N) if run.free[n, l])
            p[k, k] += run.xi[n]
            p[k] *= run.slope[n + 1, k]
            dW += eta * run.e[n + 1, k] * p[k]
    return dW
