"""Error by lag: equal to products of Jacobians written out, exact on linear networks, cut by restarts."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from throughtime import flow
from throughtime.chunk import Chunk
from throughtime.flow import error_by_lag
from throughtime.flow.kept import kept
from throughtime.flow.measuring import by_part
from throughtime.nets import Adapted, Network, Window, cross_entropy, squared_error

T, B, I, H, A = 13, 3, 4, 5, 6


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def network(cell: str, **options: int) -> Network:
    torch.manual_seed(0)
    return Network(cell, inputs=I, units=H, outputs=A, **options).double()


def chunk(**parts: torch.Tensor) -> Chunk:
    torch.manual_seed(1)
    return Chunk(numbers(T, B, I), torch.randint(A, (T, B)), **parts)


def elman_norms(net: Network, chunk: Chunk, t: int, lags: int) -> np.ndarray:
    """(lags + 1, B): |e_t W_q J_t ... J_{t-k+1}| with J = diag(1 - h^2) W_h, in NumPy."""
    weights = {name: weight.detach().numpy() for name, weight in net.named_parameters()}
    W_x, W_h = weights["layers.weight_ih_l0"], weights["layers.weight_hh_l0"]
    b = weights["layers.bias_ih_l0"] + weights["layers.bias_hh_l0"]
    norms = np.zeros((lags + 1, chunk.streams))
    for row in range(chunk.streams):
        h = [np.zeros(H)]
        for x in chunk.x[: t + 1, row].numpy():
            h.append(np.tanh(W_x @ x + W_h @ h[-1] + b))
        logits = weights["readout.weight"] @ h[-1] + weights["readout.bias"]
        e = np.exp(logits) / np.exp(logits).sum() - np.eye(A)[int(chunk.y[t, row])]
        gradient = e @ weights["readout.weight"]
        for k in range(lags + 1):
            norms[k, row] = np.linalg.norm(gradient)
            gradient = gradient @ (np.diag(1 - h[-1 - k] ** 2) @ W_h)
    return norms


def test_is_the_product_of_jacobians():
    net, data, lags = network("elman"), chunk(), 8
    found = error_by_lag(net, cross_entropy, data, lags, samples=3)
    wanted = np.stack([elman_norms(net, data, t, lags) for t in (8, 10, 12)])  # N K B
    logs = np.log10(wanted)
    np.testing.assert_array_equal(found.lags, range(lags + 1))
    np.testing.assert_allclose(found.mean, logs.mean((0, 2)), atol=1e-12)
    np.testing.assert_allclose(found.low, np.quantile(logs, 0.1, axis=(0, 2)), atol=1e-12)
    np.testing.assert_allclose(found.high, np.quantile(logs, 0.9, axis=(0, 2)), atol=1e-12)
    np.testing.assert_allclose(found.summed, wanted.sum((0, 2)), rtol=1e-12)
    np.testing.assert_array_equal(found.count, 3 * B)
    np.testing.assert_allclose(found.share(3), wanted[:, :3].sum() / wanted.sum(), rtol=1e-12)


def functional_norm(net: nn.Module, data: Chunk, t: int, k: int, row: int) -> float:
    """|d loss_t / d s_{t-k}| of one row for k >= 1, the steps after s_{t-k} being a function of it."""
    one = Chunk(data.x[:, row : row + 1], data.y[:, row : row + 1])
    _, state = net(one.x[: t - k + 1])
    state = (state,) if isinstance(state, torch.Tensor) else state

    def loss(*state: torch.Tensor) -> torch.Tensor:
        y, _ = net(one.x[t - k + 1 : t + 1], state if len(state) > 1 else packed(state[0]))
        return cross_entropy(y[-1:], one.y[t : t + 1]).sum()

    packed = (lambda s: (s,)) if isinstance(net, Network) else (lambda s: s)
    parts = torch.autograd.functional.jacobian(loss, tuple(part.detach() for part in state))
    return math.sqrt(sum(float(part.square().sum()) for part in parts))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "ctrnn:alpha=0.5"])
def test_every_cell_every_layer(cell: str, layers: int):
    net, data, lags = network(cell, layers=layers), chunk(), 6
    found = error_by_lag(net, cross_entropy, data, lags, samples=2)
    for k in range(1, lags + 1):
        logs = [math.log10(functional_norm(net, data, t, k, row)) for t in (6, 12) for row in range(B)]
        assert found.mean[k] == pytest.approx(np.mean(logs), abs=1e-10)


class Headed(nn.Module):
    """A user's network around torch's own recurrence."""

    def __init__(self, kind: type[nn.RNNBase], head: str):
        super().__init__()
        self.inner = kind(I, H, dtype=torch.float64)
        self.add_module(head, nn.Linear(H, A, dtype=torch.float64))
        self.head = head

    def forward(self, x, state):
        h, state = self.inner(x, state)
        return getattr(self, self.head)(h), state


@pytest.mark.parametrize("kind", [nn.GRU, nn.LSTM])
def test_any_module_that_follows_the_contract(kind: type[nn.RNNBase]):
    torch.manual_seed(2)
    net, data = Adapted(Headed(kind, "final")), chunk()
    found = error_by_lag(net, cross_entropy, data, 5, samples=1)
    np.testing.assert_array_equal(found.lags, range(1, 6))
    logs = [[math.log10(functional_norm(net, data, 12, k, row)) for row in range(B)] for k in range(1, 6)]
    found_last = error_by_lag(net, cross_entropy, data, 5, samples=2)
    assert found.count.tolist() == [B] * 5
    first = [[math.log10(functional_norm(net, data, 5, k, row)) for row in range(B)] for k in range(1, 6)]
    np.testing.assert_allclose(found.mean, np.mean(first, 1), atol=1e-10)
    np.testing.assert_allclose(found_last.mean, np.mean(np.hstack((first, logs)), 1), atol=1e-10)


@pytest.mark.parametrize("a", [0.5, 0.9, 1.0, 1.2])
def test_a_linear_network_has_slope_log10_a(a: float):
    net = network("elman:phi=identity")
    with torch.no_grad():
        net.get_parameter("layers.weight_hh_l0").copy_(a * torch.eye(H, dtype=torch.float64))
    found = error_by_lag(net, cross_entropy, chunk(), 12)
    np.testing.assert_allclose(np.diff(found.mean), math.log10(a), atol=1e-12)
    kept = a ** np.arange(13)
    assert found.share(4) == pytest.approx(kept[:4].sum() / kept.sum(), rel=1e-12)
    assert found.half_life == (pytest.approx(math.log(0.5) / math.log(a), rel=1e-9) if a < 1 else None)


def test_a_restart_takes_the_lags_beyond_it_out():
    net = network("gru")
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[12, 1] = reset[9, 2] = True
    data = chunk(reset=reset)
    found = error_by_lag(net, cross_entropy, data, 6, samples=1000)
    only_last = Chunk(data.x, data.y, torch.zeros(T, B), reset)
    only_last.mask[12] = 1
    last = error_by_lag(net, cross_entropy, only_last, 6)
    assert last.count.tolist() == [3, 2, 2, 2, 1, 1, 1]
    whole = error_by_lag(net, cross_entropy, Chunk(data.x[:, :1], data.y[:, :1], only_last.mask[:, :1]), 6)
    assert last.mean[6] == pytest.approx(whole.mean[6], abs=1e-12)
    assert (last.mean > -20).all()
    assert found.count[0] == 7 * B
    # Row 1 loses k >= 1 of step 12; row 2 loses k > t - 9 of the steps 9 to 12.
    assert found.count[1] == 7 * B - 1 - 1
    assert found.count[6] == 7 * B - 1 - 4


def test_a_restart_before_the_sampled_steps_counts_too():
    net, reset = network("gru"), torch.zeros(T, B, dtype=torch.bool)
    reset[6] = True
    data = chunk(reset=reset, mask=last_only())
    whole = error_by_lag(net, cross_entropy, data, 4)
    fresh = error_by_lag(net, cross_entropy, data[6:], 4)
    np.testing.assert_allclose(whole.mean, fresh.mean, atol=1e-12)


def test_when_every_row_restarts_nothing_remains():
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[12] = True
    found = error_by_lag(network("lstm"), cross_entropy, chunk(reset=reset, mask=last_only()), 4)
    assert found.count.tolist() == [B, 0, 0, 0, 0]
    assert np.isnan(found.mean[1:]).all()
    assert found.share(1) == 1
    assert found.half_life is None


def last_only() -> torch.Tensor:
    mask = torch.zeros(T, B)
    mask[-1] = 1
    return mask


def test_frozen_weights_and_a_state_given_change_nothing():
    net, data = network("lstm"), chunk()
    whole = error_by_lag(net, cross_entropy, Chunk(data.x, data.y, last_only()), 4)
    _, state = net(data.x[:6])
    for weight in net.parameters():
        weight.requires_grad_(False)
    part = error_by_lag(net, cross_entropy, Chunk(data.x, data.y, last_only())[6:], 4, state=state)
    np.testing.assert_allclose(part.mean, whole.mean, atol=1e-12)
    assert not any(slot.is_leaf and slot.requires_grad for slot in state)


def test_leaves_no_trace_on_the_network():
    net = network("gru")
    error_by_lag(net, cross_entropy, chunk(), 4)
    assert all(weight.grad is None for weight in net.parameters())
    assert not net.readout._forward_pre_hooks


class Leaky(nn.Module):
    """A state that no error ever reaches, because it is detached: h <- h.detach() + x."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(I, A, dtype=torch.float64)

    def forward(self, x, state=None, reset=None):
        h = x.sum(0) + (0 if state is None else state.detach())
        return self.out(h)[None].expand(len(x), -1, -1), h


def test_exact_zeros_count_as_the_floor():
    found = error_by_lag(Leaky(), cross_entropy, chunk(), 3)
    np.testing.assert_allclose(found.mean, math.log10(flow.FLOOR))
    assert (found.summed == 0).all()
    assert math.isnan(found.share(2))


@pytest.mark.parametrize("kind", ["library", "subclass", "module"])
def test_an_error_without_a_gradient_is_no_pair(kind: str):
    """As that of a softmax that is sure to the last digit: there is nothing to follow back."""
    torch.manual_seed(0)
    net = (Network if kind == "library" else Foreign)("gru", inputs=I, units=H, outputs=A).double()
    data = chunk()
    sure = Chunk(data.x, (torch.arange(T) % 2).double()[:, None, None].expand(T, B, A))
    measured = Adapted(net) if kind == "module" else net
    found = error_by_lag(measured, lambda y, weight: y * weight, sure, 4, samples=100)
    assert found.count.tolist() == [4 * B] * len(found.lags)  # at the odd steps from 4 to 12
    assert (found.mean > -10).all()


@pytest.mark.parametrize("foreign", [False, True])
def test_small_norms_do_not_underflow_in_float32(foreign: bool):
    net = (Foreign if foreign else Network)("elman:phi=identity", inputs=I, units=H, outputs=A)
    with torch.no_grad():
        net.get_parameter("layers.weight_hh_l0").copy_(1e-3 * torch.eye(H))
    data = chunk()
    found = error_by_lag(net, cross_entropy, Chunk(data.x.float(), data.y), 10)
    # ten products in float32, relative 6e-8 each
    np.testing.assert_allclose(np.diff(found.mean), -3, atol=1e-4)


def test_targets_may_be_numbers():
    data = Chunk(numbers(T, B, I), numbers(T, B, A), torch.ones(T, B, A))
    assert np.isfinite(error_by_lag(network("gru"), squared_error, data, 4).mean).all()


CELLS = ["elman", "elman:phi=relu", "gru", "lstm", "ctrnn:alpha=0.3"]


class Foreign(Network):
    """A Network that counts as a module of the user's, which is measured by automatic differentiation."""


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, {"layers": 3}, {"layers": 2, "embedding": 3}])
def test_all_lags_at_once_equal_windows_side_by_side(cell: str, options: dict):
    torch.manual_seed(0)
    net, other = (kind(cell, inputs=I, units=H, outputs=A, **options).double() for kind in (Network, Foreign))
    other.load_state_dict(net.state_dict())
    data = chunk(reset=torch.rand(T, B) < 0.1, mask=torch.rand(T, B) * (torch.rand(T, B) < 0.7))
    if "embedding" in options:
        data = Chunk(torch.randint(I, (T, B)), data.y, data.mask, data.reset)
    at = np.array([6, 9, 12])
    state = tuple(numbers(net.layers.depth, B, H) for _ in range(net.layers.cell.slots))
    found = [by_part(n, cross_entropy, data, 6, at, state) for n in (net, other)]
    np.testing.assert_allclose(found[0][0].norms, found[1][0].norms, rtol=1e-10)
    assert list(found[0][1]) == list(found[1][1])
    for name, part in found[0][1].items():
        np.testing.assert_allclose(part.norms, found[1][1][name].norms, rtol=1e-10, atol=1e-30)
    assert np.isnan(found[0][0].norms).any()


def test_windows_a_few_at_a_time_are_the_same(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    net, data, at = Foreign("lstm", inputs=I, units=H, outputs=A).double(), chunk(), np.array([6, 8, 9, 11, 12])
    found = []
    for rows in (64, 2 * B, 1):
        monkeypatch.setattr(flow.windows, "ROWS", rows)
        found.append(
            (by_part(net, cross_entropy, data, 6, at, None), kept(net, cross_entropy, data, at, 6, None, None))
        )
    for (whole, parts), cut in found[1:]:
        np.testing.assert_allclose(whole.norms, found[0][0][0].norms, rtol=1e-12)
        for name, part in parts.items():
            np.testing.assert_allclose(part.norms, found[0][0][1][name].norms, rtol=1e-12)
        np.testing.assert_allclose(cut.error, found[0][1].error, atol=1e-14)


@pytest.mark.parametrize("cell", CELLS)
def test_the_squares_of_the_parts_add_up_to_the_whole(cell: str):
    net = network(cell, layers=2)
    whole, parts = by_part(net, cross_entropy, chunk(), 5, np.array([5, 9]), None)
    slots = ("h", "c") if cell == "lstm" else ("h",)
    assert list(parts) == [f"{slot} of layer {layer}" for slot in slots for layer in (1, 2)]
    total = sum(np.nan_to_num(part.norms) ** 2 for part in parts.values())
    np.testing.assert_allclose(np.sqrt(total), whole.norms, rtol=1e-12)
    assert np.isnan(parts["h of layer 1"].norms[0]).all()  # the error at t sees the last layer's h alone
    assert (parts["h of layer 1"].norms[1:] > 0).all()


def test_the_names_of_other_states():
    torch.manual_seed(0)
    one = by_part(Adapted(Headed(nn.LSTM, "final")), cross_entropy, chunk(), 3, np.array([5]), None)[1]
    assert list(one) == ["h of layer 1", "c of layer 1"]
    assert list(by_part(Pair(), cross_entropy, chunk(), 3, np.array([5]), None)[1]) == [
        "state[0]",
        "state[1][0]",
        "state[1][1]",
    ]


class Pair(nn.Module):
    """A state of two tensors, one of them with an axis before the streams."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(I, A, dtype=torch.float64)

    def forward(self, x, state=None, reset=None):
        a, b = state or (x.new_zeros(x.shape[1], I), x.new_zeros(2, x.shape[1], I))
        ys = []
        for step in x:
            a, b = a / 2 + step, torch.stack((b[0] / 3 + step, b[1] / 4 + step))
            ys.append(self.out(a + b[0] + b[1]))
        return torch.stack(ys), (a, b)


def test_the_parts_of_a_state_fade_each_at_its_own_rate():
    _, parts = by_part(Pair(), cross_entropy, chunk(), 5, np.array([5, 9]), None)
    for part, a in zip(parts.values(), (1 / 2, 1 / 3, 1 / 4), strict=True):
        assert part.decay.rate == pytest.approx(a, rel=1e-12)
        np.testing.assert_array_equal(part.lags, range(1, 6))


def test_what_explodes_beyond_float32_is_followed_and_elsewhere_infinite():
    data = Chunk(torch.zeros(60, B, I), torch.randint(A, (60, B)))
    found = []
    for kind in (Network, Foreign):
        torch.manual_seed(0)
        net = kind("elman:phi=identity", inputs=I, units=H, outputs=A)
        with torch.no_grad():
            net.get_parameter("layers.weight_hh_l0").copy_(10 * torch.eye(H))
            net.get_parameter("layers.bias_ih_l0").zero_()
            net.get_parameter("layers.bias_hh_l0").zero_()
        found.append(error_by_lag(net, cross_entropy, data, 50))
    ours, other = found
    np.testing.assert_allclose(np.diff(ours.mean), 1, atol=1e-5)
    assert np.isinf(other.norms[-1]).all()
    assert math.isnan(other.share(3))
    assert other.decay.rate == pytest.approx(10, rel=1e-3)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"lags": 13}, "chunk must have at least lags [+] 1 = 14 steps; got 13. Join chunks"),
        ({"lags": 0}, "lags must be at least 1; got 0"),
        ({"samples": 0}, "samples must be at least 1; got 0"),
        ({"chunk": chunk(mask=torch.zeros(T, B))}, "mask must count an error at step 4 or later"),
        ({"chunk": Chunk(numbers(T, B, I))}, "y must be there"),
    ],
)
def test_what_cannot_be_measured_is_said(change: dict, sentence: str):
    arguments = {"chunk": chunk(), "lags": 4} | change
    with pytest.raises(ValueError, match=sentence):
        error_by_lag(network("elman"), cross_entropy, **arguments)


def test_weights_that_are_not_finite_are_refused():
    for kind in (Network, Foreign):
        net = kind("gru", inputs=I, units=H, outputs=A).double()
        with torch.no_grad():
            net.readout.bias[0] = math.nan
        with pytest.raises(ValueError, match="net must give finite errors to measure; got nan"):
            error_by_lag(net, cross_entropy, chunk(), 4)


def test_both_directions_are_refused():
    net = Adapted(nn.GRU(I, A, bidirectional=True))
    with pytest.raises(TypeError, match="net must read forwards alone; got module with bidirectional=True"):
        error_by_lag(net, cross_entropy, chunk(), 2)


def test_networks_without_a_memory_are_refused():
    window = Window(inputs=I, units=H, outputs=A, window=3).double()
    with pytest.raises(TypeError, match="net must carry a state; got a Window"):
        error_by_lag(window, cross_entropy, chunk(), 2)
    with pytest.raises(TypeError, match="net must carry a state of real numbers; got none"):
        error_by_lag(Counter(), cross_entropy, chunk(), 2)


class Counter(nn.Module):
    """Its state is a whole number."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(I, A, dtype=torch.float64)

    def forward(self, x, state=None, reset=None):
        state = torch.zeros(x.shape[1], 1, dtype=torch.int64) if state is None else state
        return self.out(x), state + 1
