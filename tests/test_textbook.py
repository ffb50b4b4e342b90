"""The formulas of textbooks and tutorials, written out in NumPy by hand, against the library's gradients.

Column vectors, one sequence at a time: s_t = tanh(U x_t + W s_{t-1} + b), o_t = V s_t + c. The weights of torch's
layers are these matrices (weight_ih = U, weight_hh = W, readout = V) and its two biases add up to b.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Estimate
from throughtime.layers import RNN
from throughtime.nets import Network, cross_entropy, squared_error
from throughtime.verify.credit import total

DOUBLE = torch.float64
T, B, H, Q = 7, 3, 4, 5
EXACT = 1e-12

Array = np.ndarray
Grads = dict[str, Array]


def network(cell: str, inputs: int, outputs: int, units: int = H) -> Network:
    """Random weights of about unit size, so that no gradient is small."""
    net = Network(cell, inputs=inputs, units=units, outputs=outputs).double()
    for weight in net.parameters():
        torch.nn.init.normal_(weight, std=0.5)
    return net


def arrays(net: Network) -> tuple[Array, ...]:
    """U, W, b_x, b_h, V, c."""
    names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    inner = [net.layers.get_parameter(name) for name in names]
    return tuple(weight.detach().numpy().copy() for weight in (*inner, net.readout.weight, net.readout.bias))


def zeros_like(net: Network) -> Grads:
    return {name: np.zeros(tuple(weight.shape)) for name, weight in net.named_parameters()}


def assert_equal(estimate: Estimate, loss: float, grads: Grads) -> None:
    assert abs(estimate.loss.item() - loss) < EXACT * max(1, abs(loss))
    assert estimate.grads.keys() == grads.keys()
    for name, grad in grads.items():
        np.testing.assert_allclose(estimate.grads[name].numpy(), grad, rtol=EXACT, atol=EXACT, err_msg=name)


def softmax(z: Array) -> Array:
    e = np.exp(z - z.max())
    return e / e.sum()


def sentences() -> tuple[Array, Array, Chunk]:
    x, y = torch.randint(0, Q, (2, T, B))
    return x.numpy(), y.numpy(), Chunk(x, y, end=True)


def elman_forward(weights: tuple[Array, ...], x: Array) -> tuple[Array, Array]:
    """The states, s[-1] being the zero start state, and the softmax outputs."""
    U, W, b_x, b_h, V, c = weights
    s = np.zeros((len(x) + 1, len(W)))
    y_hat = np.zeros((len(x), len(c)))
    for t in range(len(x)):
        s[t] = np.tanh(U[:, x[t]] + W @ s[t - 1] + b_x + b_h)
        y_hat[t] = softmax(V @ s[t] + c)
    return s, y_hat


def elman_backward(weights: tuple[Array, ...], x: Array, y: Array, grads: Grads) -> float:
    """dE/dV = sum r_t s_t', g_t = V' r_t + W' delta_{t+1}, delta_t = g_t (1 - s_t^2), dE/dW = sum delta_t s_{t-1}'."""
    _, W, _, _, V, _ = weights
    s, y_hat = elman_forward(weights, x)
    delta = np.zeros(len(W))
    loss = 0.0
    for t in reversed(range(len(x))):
        loss -= np.log(y_hat[t, y[t]])
        r = y_hat[t].copy()
        r[y[t]] -= 1
        assert abs(r.sum()) < 1e-15
        grads["readout.weight"] += np.outer(r, s[t])
        grads["readout.bias"] += r
        g = V.T @ r + W.T @ delta
        delta = g * (1 - s[t] ** 2)
        grads["layers.weight_hh_l0"] += np.outer(delta, s[t - 1])
        grads["layers.weight_ih_l0"][:, x[t]] += delta
        grads["layers.bias_ih_l0"] += delta
        grads["layers.bias_hh_l0"] += delta
    return loss


def test_the_softmax_network_of_the_tutorial() -> None:
    net = network("elman", Q, Q)
    x, y, chunk = sentences()
    weights, grads = arrays(net), zeros_like(net)
    loss = sum(elman_backward(weights, x[:, b], y[:, b], grads) for b in range(B))
    prediction, _ = net(chunk.x)
    for b in range(B):
        _, y_hat = elman_forward(weights, x[:, b])
        np.testing.assert_allclose(prediction[:, b].softmax(-1).detach().numpy(), y_hat, atol=EXACT)
    for cuts in ((), (3,), range(1, T)):
        assert_equal(total(BPTT(), net, cross_entropy, chunk, cuts), loss, grads)
    assert_equal(total(BPTT(T, T), net, cross_entropy, chunk), loss, grads)
    assert_equal(total(BPTT(T, replay=False), net, cross_entropy, chunk), loss, grads)


def test_an_update_adds_eta_times_the_sum_of_delta_x() -> None:
    """w <- w + eta sum delta x with delta = -dE/dv: two steps of plain gradient descent."""
    eta = 0.1
    net = network("elman", Q, Q)
    weights = list(arrays(net))
    x, y, chunk = sentences()
    optimizer = torch.optim.SGD(net.parameters(), lr=eta)
    names = [name for name, _ in net.named_parameters()]
    for _ in range(2):
        grads = zeros_like(net)
        for b in range(B):
            elman_backward(tuple(weights), x[:, b], y[:, b], grads)
        weights = [weight + eta * -grads[name] for weight, name in zip(weights, names, strict=True)]
        estimate = total(BPTT(), net, cross_entropy, chunk)
        for name, weight in net.named_parameters():
            weight.grad = estimate.grads[name]
        optimizer.step()
    for mine, theirs in zip(weights, arrays(net), strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=EXACT, atol=EXACT)


def test_the_derivative_of_the_loss_is_prediction_minus_target() -> None:
    net = network("elman", Q, Q)
    _, _, chunk = sentences()
    assert chunk.y is not None
    prediction, _ = net(chunk.x)
    (r,) = torch.autograd.grad(cross_entropy(prediction, chunk.y).sum(), prediction)
    wanted = prediction.detach().softmax(-1) - torch.nn.functional.one_hot(chunk.y, Q)
    assert (r - wanted).abs().max() < 1e-15
    assert r.sum(-1).abs().max() < 1e-15


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "ctrnn"])
def test_finite_differences(cell: str) -> None:
    """Central with h = 1e-5: every entry of every weight, |a - b| / (|a| + |b|) < 1e-6."""
    step = 1e-5
    net = network(cell, 3, 3, units=2)
    chunk = Chunk(torch.tensor([[0], [2], [1], [1]]), torch.tensor([[2], [1], [0], [2]]), end=True)
    grads = total(BPTT(), net, cross_entropy, chunk).grads
    for name, weight in net.named_parameters():
        entries = weight.detach().view(-1)
        for index, was in enumerate(entries.tolist()):
            losses = []
            for side in (step, -step):
                entries[index] = was + side
                losses.append(total(BPTT(), net, cross_entropy, chunk).loss.item())
            entries[index] = was
            a, b = (losses[0] - losses[1]) / (2 * step), grads[name].view(-1)[index].item()
            # The loss is about 5 and known to eps; over 2 h that is 6e-11, so entries below 1e-4 cannot be judged.
            assert abs(a - b) / max(1e-4, abs(a) + abs(b)) < 1e-6, (name, index, a, b)


def test_a_zero_readout_knows_nothing() -> None:
    """ln q for q words: 8.987 for the 8000 of the tutorial."""
    for q, nats in ((Q, math.log(Q)), (8000, 8.987)):
        net = Network("elman", inputs=Q, units=2, outputs=q)
        torch.nn.init.zeros_(net.readout.weight)
        torch.nn.init.zeros_(net.readout.bias)
        estimate = total(BPTT(), net, cross_entropy, sentences()[2])
        assert estimate.loss.item() / estimate.count == pytest.approx(nats, abs=5e-4)


@pytest.mark.parametrize("bptt_truncate", [0, 1, 4, 1000])
def test_the_tutorials_truncation_is_bptt_of_one_step_more(bptt_truncate: int) -> None:
    """For each t, bptt_truncate steps back from t: bptt_truncate + 1 steps of weights get credit for its error."""
    net = network("elman", Q, Q)
    x, y, chunk = sentences()
    weights, grads = arrays(net), zeros_like(net)
    _, W, _, _, V, _ = weights
    loss = 0.0
    for b in range(B):
        s, y_hat = elman_forward(weights, x[:, b])
        for t in range(T):
            loss -= np.log(y_hat[t, y[t, b]])
            r = y_hat[t] - np.eye(Q)[y[t, b]]
            grads["readout.weight"] += np.outer(r, s[t])
            grads["readout.bias"] += r
            delta = V.T @ r * (1 - s[t] ** 2)
            for step in range(t, max(0, t - bptt_truncate) - 1, -1):
                grads["layers.weight_hh_l0"] += np.outer(delta, s[step - 1])
                grads["layers.weight_ih_l0"][:, x[step, b]] += delta
                for name in ("ih", "hh"):
                    grads[f"layers.bias_{name}_l0"] += delta
                delta = W.T @ delta * (1 - s[step - 1] ** 2)
    for replay in (True, False):
        assert_equal(total(BPTT(bptt_truncate + 1, 1, replay), net, cross_entropy, chunk), loss, grads)
    if bptt_truncate >= T - 1:
        assert_equal(total(BPTT(), net, cross_entropy, chunk), loss, grads)


@pytest.mark.parametrize(("h", "every"), [(None, T), (1, 1), (3, 1), (4, 2), (3, 3)])
def test_the_fully_recurrent_network_with_targets_on_some_neurons(h: int | None, every: int) -> None:
    """Williams and Zipser's notation: y(n+1) = phi(W xi(n)), xi = [y; u], targets on a set of neurons that changes.

    delta_j(n) = phi'(v_j(n)) [e_j(n) + sum over ALL k of w_kj delta_k(n+1)], dw_ji = eta sum delta_j(n) xi_i(n-1),
    e_j(n) = d_j(n) - y_j(n) where there is a target, else 0. BPTT(h; every) goes through it window by window.
    The library's x_t is u(t-1): what enters together with h_{t-1}.
    """
    N, M = H, 3
    net = network("elman", M, N)
    with torch.no_grad():
        net.readout.weight.copy_(torch.eye(N))
        net.readout.bias.zero_()
    net.readout.requires_grad_(False)
    U, R, b_x, b_h, _, _ = arrays(net)
    W = np.concatenate((R, U), 1)  # N (N+M), w_ji from i to j
    u, d = np.random.randn(T, B, M), np.random.randn(T, B, N)
    wanted_at = np.random.rand(T, B, N) < 0.3
    loss, dW, db = 0.0, np.zeros_like(W), np.zeros(N)
    for b in range(B):
        y, xi = np.zeros((T + 1, N)), np.zeros((T + 1, N + M))
        for n in range(1, T + 1):
            xi[n - 1] = np.concatenate((y[n - 1], u[n - 1, b]))
            y[n] = np.tanh(W @ xi[n - 1] + b_x + b_h)
        e = np.where(wanted_at[:, b], d[:, b] - y[1:], 0)  # e[n - 1] is the error at n
        loss += (e**2).sum() / 2
        for start in range(0, T, every):
            end = min(start + every, T)
            delta = np.zeros(N)
            for n in range(end, max(0, end - (h or T)), -1):
                injected = e[n - 1] if n > start else 0
                delta = (1 - y[n] ** 2) * (injected + W[:, :N].T @ delta)
                dW += np.outer(delta, xi[n - 1])
                db += delta
    mask = torch.tensor(wanted_at, dtype=DOUBLE)
    targets = torch.where(mask == 1, torch.tensor(d), torch.nan)
    chunk = Chunk(torch.tensor(u), targets, mask, end=True)
    grads = {
        "layers.weight_ih_l0": -dW[:, N:],
        "layers.weight_hh_l0": -dW[:, :N],
        "layers.bias_ih_l0": -db,
        "layers.bias_hh_l0": -db,
    }
    for credit in [BPTT()] if h is None else [BPTT(h, every), BPTT(h, every, replay=False)]:
        estimate = total(credit, net, squared_error, chunk, (2, 5))
        assert estimate.count == wanted_at.sum()
        assert_equal(estimate, loss, grads)


def series(inputs: int, outputs: int) -> tuple[Array, Array, Chunk]:
    x, y = np.random.randn(T, B, inputs), np.random.randn(T, B, outputs)
    return x, y, Chunk(torch.tensor(x), torch.tensor(y), end=True)


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


State = tuple[Array, ...]
Step = Callable[[Array, Array, State], tuple[State, Callable[[State], tuple[Array, Array, State]]]]
"""(U x + b_x, W h + b_h, state) -> the next state, and the way back: its gradient -> (du, dv, the rest)."""


def by_hand(net: Network, step: Step, slots: int, x: Array, y: Array) -> tuple[float, Grads]:
    """Forward, then the errors (V h + c - y) back to the first step, for a cell given step by step."""
    U, W, b_x, b_h, V, c = arrays(net)
    grads = zeros_like(net)
    loss = 0.0
    for b in range(B):
        s: State = tuple(np.zeros(H) for _ in range(slots))
        steps = []
        for t in range(T):
            before = s
            s, back = step(U @ x[t, b] + b_x, W @ s[0] + b_h, s)
            steps.append((before[0], s[0], back))
        ds: State = tuple(np.zeros(H) for _ in range(slots))
        for t in reversed(range(T)):
            h_before, h, back = steps[t]
            r = V @ h + c - y[t, b]
            loss += (r**2).sum() / 2
            grads["readout.weight"] += np.outer(r, h)
            grads["readout.bias"] += r
            du, dv, (dh, *rest) = back((ds[0] + V.T @ r, *ds[1:]))
            grads["layers.weight_ih_l0"] += np.outer(du, x[t, b])
            grads["layers.weight_hh_l0"] += np.outer(dv, h_before)
            grads["layers.bias_ih_l0"] += du
            grads["layers.bias_hh_l0"] += dv
            ds = (dh + W.T @ dv, *rest)
    return loss, grads


def lstm(u: Array, v: Array, s: State) -> tuple[State, Callable[[State], tuple[Array, Array, State]]]:
    a_i, a_f, a_g, a_o = np.split(u + v, 4)
    i, f, g, o = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
    c_before = s[1]
    c = f * c_before + i * g
    h = o * np.tanh(c)

    def back(ds: State) -> tuple[Array, Array, State]:
        dh, dc_after = ds
        dc = dh * o * (1 - np.tanh(c) ** 2) + dc_after
        da_i, da_f = dc * g * i * (1 - i), dc * c_before * f * (1 - f)
        da_g, da_o = dc * i * (1 - g**2), dh * np.tanh(c) * o * (1 - o)
        da = np.concatenate((da_i, da_f, da_g, da_o))
        return da, da, (np.zeros(H), dc * f)

    return (h, c), back


def gru(u: Array, v: Array, s: State) -> tuple[State, Callable[[State], tuple[Array, Array, State]]]:
    (u_r, u_z, u_n), (v_r, v_z, v_n) = np.split(u, 3), np.split(v, 3)
    (h_before,) = s
    r, z = sigmoid(u_r + v_r), sigmoid(u_z + v_z)
    n = np.tanh(u_n + r * v_n)

    def back(ds: State) -> tuple[Array, Array, State]:
        (dh,) = ds
        dz = dh * (h_before - n) * z * (1 - z)
        dn = dh * (1 - z) * (1 - n**2)
        dr = dn * v_n * r * (1 - r)
        return np.concatenate((dr, dz, dn)), np.concatenate((dr, dz, dn * r)), (dh * z,)

    return ((1 - z) * n + z * h_before,), back


def leaky(u: Array, v: Array, s: State) -> tuple[State, Callable[[State], tuple[Array, Array, State]]]:
    """Euler's step of size 0.3 of tau dh/dt = -h + tanh(...)."""
    alpha = 0.3
    f = np.tanh(u + v)

    def back(ds: State) -> tuple[Array, Array, State]:
        da = alpha * ds[0] * (1 - f**2)
        return da, da, ((1 - alpha) * ds[0],)

    return (s[0] + alpha * (f - s[0]),), back


@pytest.mark.parametrize(
    ("cell", "step", "slots"), [("lstm", lstm, 2), ("gru", gru, 1), ("ctrnn:alpha=0.3", leaky, 1)]
)
def test_gated_and_leaky_cells(cell: str, step: Step, slots: int) -> None:
    net = network(cell, 3, 2)
    x, y, chunk = series(3, 2)
    loss, grads = by_hand(net, step, slots, x, y)
    for credit in (BPTT(), BPTT(T, T), BPTT(T, 2), BPTT(T, replay=False)):
        assert_equal(total(credit, net, squared_error, chunk, (3,)), loss, grads)


def test_inputs_and_states_may_be_set_side_by_side() -> None:
    """d2l: X W_xh + H W_hh = [X H] [W_xh; W_hh], here with its numbers' shapes, (3, 1) (1, 4) and (3, 4) (4, 4)."""
    X, W_xh, H_, W_hh = (np.random.randn(*shape) for shape in ((3, 1), (1, 4), (3, 4), (4, 4)))
    side = np.concatenate((X, H_), 1) @ np.concatenate((W_xh, W_hh), 0)
    np.testing.assert_allclose(X @ W_xh + H_ @ W_hh, side, atol=EXACT)
    layer = RNN(1, 4, bias=False).double()
    with torch.no_grad():
        layer.weight_ih_l0.copy_(torch.tensor(W_xh.T))
        layer.weight_hh_l0.copy_(torch.tensor(W_hh.T))
    y, _ = layer(torch.tensor(X)[None], torch.tensor(H_)[None])
    np.testing.assert_allclose(y[0].detach().numpy(), np.tanh(side), atol=EXACT)
