"""Lyapunov exponents, Jacobians, recurrent weights: against explicit products, and known answers."""

import math

import numpy as np
import pytest
import torch
from flow_case import B, H, T, Wrapped, chunk, linear, network, numbers
from torch import nn

from throughtime import flow
from throughtime.chunk import Chunk
from throughtime.nets import Network
from throughtime.recurrent import FullyRecurrent
from throughtime.verify.flow import jacobians


def turned(angle: float) -> torch.Tensor:
    return torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)


def test_a_rotation_and_two_other_directions():
    W = torch.block_diag(0.9 * turned(0.7), *numbers(2, 1, 1).new_tensor([[[1.1]], [[0.5]]]))
    Q = nn.init.orthogonal_(torch.empty(4, 4, dtype=torch.float64))
    found = flow.lyapunov(linear(Q @ W @ Q.T), chunk(400))
    np.testing.assert_allclose(found, np.log([1.1, 0.9, 0.9, 0.5]), atol=1e-9)


def test_jacobians_that_are_diagonal():
    """A tanh net with a diagonal W_h: the exponents are the means of ln (w phi'), unit by unit."""
    net, data = network("elman"), chunk(60)
    w = torch.tensor([2.0, 0.1, 0.9, 0.4, 0.2], dtype=torch.float64)
    with torch.no_grad():
        net.get_parameter("layers.weight_hh_l0").copy_(w.diag())
    h, _ = net.layers(data.x)
    J = (w * (1 - h**2)).detach().numpy()[:, :1]
    one = Chunk(data.x[:, :1], data.y[:, :1])
    first = len(J) - (len(J) - 1) // 4
    wanted = np.sort(np.log(J[1:first, 0]).mean(0))[::-1]
    found = flow.lyapunov(net, one, exponents=H)
    assert found.sum() == pytest.approx(wanted.sum(), rel=1e-10)
    np.testing.assert_allclose(found, wanted, atol=0.03)  # the vectors turn for some steps
    for k, values in flow.singular_values(net, one, [1, 3, 9]).items():
        np.testing.assert_allclose(values, np.sort(J[len(J) - k :, 0].prod(0))[::-1], rtol=1e-9)


def test_a_matrix_that_is_not_finite_has_no_spectrum():
    net = network("lstm", layers=2)
    with torch.no_grad():
        net.layers.get_parameter("weight_hh_l1")[0, 0] = math.nan  # of the gate i
    assert list(flow.spectra(net)) == [
        f"W_h of layer {layer}, {gate}" for layer in (1, 2) for gate in "ifgo" if (layer, gate) != (2, "i")
    ]


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_modules_of_torch_have_the_exponents_of_the_librarys(kind: type[nn.RNNBase]):
    module, data = Wrapped(kind, 2), chunk(20)
    net = network({"RNN": "elman"}.get(kind.__name__, kind.__name__.lower()), layers=2)
    net.layers.load_state_dict(module.rnn.state_dict())
    np.testing.assert_allclose(flow.lyapunov(module, data), flow.lyapunov(net, data), rtol=1e-9)
    a, b = (flow.singular_values(n, data, [4])[4] for n in (module, net))
    np.testing.assert_allclose(a, b, atol=1e-12 * a[0])
    np.testing.assert_allclose(a, np.linalg.svd(product(net, data, 4))[1], atol=1e-12 * a[0])


def product(net: Network, data: Chunk, k: int) -> np.ndarray:
    J = jacobians(net, data, 0)[-k:]
    return np.linalg.multi_dot([j.numpy() for j in reversed(J)])


def test_restarts_are_left_out_of_the_exponents_and_end_the_products():
    W = 0.8 * nn.init.orthogonal_(torch.empty(H, H, dtype=torch.float64))
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[::7] = reset[T - 3] = True
    data = chunk(reset=reset)
    np.testing.assert_allclose(flow.lyapunov(linear(W), data), math.log(0.8), rtol=1e-12)
    assert list(flow.singular_values(linear(W), data, [1, 2, 3, 4])) == [1, 2]
    everywhere = chunk(reset=torch.ones(T, B, dtype=torch.bool))
    assert flow.lyapunov(linear(W), everywhere) is None
    assert flow.lyapunov(linear(W), chunk(1)) is None


def test_a_direction_that_is_lost_has_no_finite_exponent():
    W = torch.diag(torch.tensor([0.5, 0.25, 0.0]))
    np.testing.assert_allclose(flow.lyapunov(linear(W), chunk(100)), [math.log(0.5), math.log(0.25), -math.inf])


def test_a_wide_state_has_no_singular_values():
    net = Network("lstm", inputs=2, units=300, outputs=2)
    assert flow.singular_values(net, Chunk(torch.randn(4, 1, 2)), [1]) == {}
    with pytest.raises(ValueError, match="steps must be numbers of steps, at least 1; got"):
        flow.singular_values(net, Chunk(torch.randn(4, 1, 2)), [0])


def test_spectra_of_each_gate():
    net = network("lstm", layers=2)
    found = flow.spectra(net)
    assert list(found) == [f"W_h of layer {layer}, {gate}" for layer in (1, 2) for gate in "ifgo"]
    W = net.get_parameter("layers.weight_hh_l1").detach().numpy()[2 * H : 3 * H]
    own = found["W_h of layer 2, g"]
    np.testing.assert_allclose(np.sort(np.abs(own.eigenvalues)), np.sort(np.abs(np.linalg.eigvals(W))))
    assert own.radius == pytest.approx(np.abs(np.linalg.eigvals(W)).max())
    assert own.norm == pytest.approx(np.linalg.norm(W, 2))
    assert list(flow.spectra(network("gru"))) == [f"W_h of layer 1, {gate}" for gate in "rzn"]


def test_spectra_of_other_networks():
    full = FullyRecurrent(4, 3, 2).double()
    (own,) = flow.spectra(full).values()
    assert own.norm == pytest.approx(np.linalg.norm(full.weight.detach().numpy()[:, :4], 2))
    projected = Wrapped(nn.LSTM, proj_size=2)
    own = flow.spectra(projected)["W_h of layer 1, f"]
    W = projected.rnn.weight_hh_l0[H : 2 * H] @ projected.rnn.weight_hr_l0
    assert own.norm == pytest.approx(np.linalg.norm(W.detach().numpy(), 2))
    two = nn.ModuleDict({"a": nn.RNN(2, 2), "b": nn.GRU(2, 2)})
    assert list(flow.spectra(two)) == [
        "W_h of a, layer 1",
        "W_h of b, layer 1, r",
        "W_h of b, layer 1, z",
        "W_h of b, layer 1, n",
    ]
    assert flow.spectra(nn.Linear(2, 2)) == {}
