"""BPTT(h; h') while the weights change: both readings of the past against explicit simulations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.nets import Network, squared_error
from throughtime.verify.credit import brute_force, compare, total

DOUBLE = torch.float64
B, I, H, A = 3, 2, 4, 5


def network(cell: str, **options: Any) -> Network:
    return Network(cell, **{"inputs": I, "units": H, "outputs": A} | options).double()


def stream(steps: int) -> Chunk:
    """Numbers in and out, weights of 0 and between 0 and 1 on the errors, restarts in mid-row."""
    mask = torch.rand(steps, B, dtype=DOUBLE) * (torch.rand(steps, B) < 0.7)
    mask[:, 0] = 0.5
    x, y = torch.randn(steps, B, I, dtype=DOUBLE), torch.randn(steps, B, A, dtype=DOUBLE)
    return Chunk(x, y, mask, torch.rand(steps, B) < 0.2, end=True)


class Steps:
    """Single steps of a stream, their inputs, targets, weights and restarts."""

    def __init__(self, chunk: Chunk) -> None:
        assert chunk.y is not None
        assert chunk.mask is not None
        assert chunk.reset is not None
        self.x, self.y, self.mask, self.reset = chunk.x, chunk.y, chunk.mask, chunk.reset

    def __call__(self, net: nn.Module, state: Any, times: Iterable[int], counted: int) -> tuple[Any, Tensor]:
        """The state after some steps, and the sum of the errors from the step `counted` on."""
        error = torch.zeros((), dtype=DOUBLE)
        for t in times:
            y, state = net(self.x[t : t + 1], state, self.reset[t : t + 1])
            if t >= counted:
                error = error + (squared_error(y, self.y[t : t + 1]) * self.mask[t, :, None]).sum()
        return state, error


def train(net: nn.Module, credit: BPTT, chunk: Chunk, length: int, eta: float) -> list[float]:
    """Gradient descent on the summed error after every call that settles something; the losses."""
    memory = credit.start(net)
    losses = []
    for start in range(0, chunk.steps, length):
        estimate, memory = credit(net, squared_error, chunk[start : start + length], memory)
        if estimate.count:
            losses.append(estimate.loss.item())
            with torch.no_grad():
                for name, weight in net.named_parameters():
                    weight -= eta * estimate.grads[name]
    return losses


@pytest.mark.parametrize("cell", ["elman", "lstm"])
@pytest.mark.parametrize(
    ("h", "every", "length"),
    [(1, 1, 1), (4, 1, 1), (4, 2, 1), (4, 2, 2), (5, 3, 3), (5, 5, 5), (5, 2, 4), (4, 1, 3), (30, 4, 2)],
)
def test_replay_goes_through_the_window_under_the_weights_of_now(
    cell: str, h: int, every: int, length: int
) -> None:
    """A state is stored when the stream first passes its step, under the weights of then, and never rewritten."""
    eta, T = 0.05, 17
    net, chunk = network(cell, layers=2), stream(T)
    other = network(cell, layers=2)
    other.load_state_dict(net.state_dict())
    steps = Steps(chunk)
    stored: list[Any] = [None]
    losses = [0.0]
    settled: list[Tensor] = []
    for start in range(0, T, every):
        end = min(start + every, T)
        with torch.no_grad():
            for t in range(start, end):
                stored.append(steps(other, stored[t], [t], T)[0])
        first = max(0, end - h)
        kept = [t for t in range(first + 1) if t == 0 or (t + h) % every == 0 or t == start]
        with torch.no_grad():
            origin, _ = steps(other, stored[kept[-1]], range(kept[-1], first), T)
        _, error = steps(other, origin, range(first, end), start)
        found = torch.autograd.grad(error, list(other.parameters()))
        settled = [a + b for a, b in zip(settled, found, strict=True)] if settled else list(found)
        losses[-1] += error.item()
        if end == T or end % length < every:
            with torch.no_grad():
                for weight, grad in zip(other.parameters(), settled, strict=True):
                    weight -= eta * grad
            settled = []
            losses.append(0.0)
    assert train(net, BPTT(h, every), chunk, length, eta) == pytest.approx(losses[:-1], abs=1e-11)
    torch.testing.assert_close(net.state_dict(), other.state_dict(), rtol=0, atol=1e-12)


def numpy_weights(net: Network) -> dict[str, np.ndarray]:
    return {name: weight.detach().numpy().copy() for name, weight in net.named_parameters()}


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("h", "every"), [(1, 1), (4, 1), (4, 2), (5, 3), (5, 5), (30, 4)])
def test_kept_activations_are_those_of_then_and_delta_goes_through_the_weights_of_now(
    layers: int, h: int, every: int
) -> None:
    """Williams and Peng (1990), in NumPy: s_t = tanh(U x_t + W s_{t-1} + b) is computed once and kept for h steps.

    Every h' steps, from the newest step back: delta_t = (1 - s_t^2) [e_t + W' delta_{t+1} + U_above' delta_t above],
    with W and U as they are now; then w <- w - eta sum delta x.
    """
    eta, T = 0.05, 17
    net, chunk = network("elman", layers=layers), stream(T)
    w = numpy_weights(net)
    x, y, mask = (part.numpy() for part in (chunk.x, chunk.y, chunk.mask) if part is not None)
    assert chunk.reset is not None
    keep = 1 - chunk.reset.double().numpy()
    s = np.zeros((layers, T + 1, B, H))  # s[l, t] before step t
    losses = []
    for start in range(0, T, every):
        end = min(start + every, T)
        for t in range(start, end):
            below = x[t]
            for d in range(layers):
                a = (
                    below @ w[f"layers.weight_ih_l{d}"].T
                    + w[f"layers.bias_ih_l{d}"]
                    + w[f"layers.bias_hh_l{d}"]
                )
                before = s[d, t] * keep[t, :, None]
                s[d, t + 1] = np.tanh(a + before @ w[f"layers.weight_hh_l{d}"].T)
                below = s[d, t + 1]
        grads = {name: np.zeros_like(weight) for name, weight in w.items()}
        delta = np.zeros((layers, B, H))
        loss = 0.0
        for t in range(end - 1, max(0, end - h) - 1, -1):
            above = np.zeros((B, H))
            if t >= start:
                output = s[-1, t + 1] @ w["readout.weight"].T + w["readout.bias"]
                r = (output - y[t]) * mask[t, :, None]
                loss += ((output - y[t]) ** 2 / 2 * mask[t, :, None]).sum()
                grads["readout.weight"] += r.T @ s[-1, t + 1]
                grads["readout.bias"] += r.sum(0)
                above = r @ w["readout.weight"]
            for d in reversed(range(layers)):
                back = delta[d] @ w[f"layers.weight_hh_l{d}"]
                back *= keep[t + 1, :, None] if t + 1 < T else 1
                delta[d] = (1 - s[d, t + 1] ** 2) * (above + back)
                grads[f"layers.weight_ih_l{d}"] += delta[d].T @ (s[d - 1, t + 1] if d else x[t])
                grads[f"layers.weight_hh_l{d}"] += delta[d].T @ (s[d, t] * keep[t, :, None])
                grads[f"layers.bias_ih_l{d}"] += delta[d].sum(0)
                grads[f"layers.bias_hh_l{d}"] += delta[d].sum(0)
                above = delta[d] @ w[f"layers.weight_ih_l{d}"]
        losses.append(loss)
        for name in w:
            w[name] -= eta * grads[name]
    assert train(net, BPTT(h, every, replay=False), chunk, every, eta) == pytest.approx(losses, abs=1e-11)
    for name, weight in numpy_weights(net).items():
        np.testing.assert_allclose(weight, w[name], rtol=0, atol=1e-12, err_msg=name)


def test_the_two_readings_of_the_past_differ_by_the_order_of_the_learning_rate() -> None:
    differences = []
    for eta in (1e-2, 1e-3):
        ends = []
        for replay in (True, False):
            torch.manual_seed(0)
            net, chunk = network("gru"), stream(30)
            train(net, BPTT(6, 1, replay), chunk, 1, eta)
            ends.append(torch.cat([weight.detach().flatten() for weight in net.parameters()]))
        differences.append((ends[0] - ends[1]).abs().max().item() / eta)
    assert differences[0] > 1e-6
    assert differences[0] / differences[1] == pytest.approx(10, rel=0.5)


@pytest.mark.parametrize("replay", [True, False])
def test_dropout_trains(replay: bool) -> None:
    net = network("gru", layers=2, dropout=0.5)
    losses = train(net, BPTT(4, 2, replay), stream(40), 2, 0.01)
    assert len(losses) == 20
    assert all(np.isfinite(losses))
    net.eval()
    chunk = stream(8)
    wanted = brute_force(net, squared_error, chunk, 4, 2)
    error, tolerance, _ = compare(total(BPTT(4, 2, replay), net, squared_error, chunk, (3,)), wanted, 8)
    assert error <= tolerance
