"""Units, gates and saliency: against the forward pass, finite differences and counts by hand."""

import math

import numpy as np
import pytest
import torch
from flow_case import CELLS, A, B, H, I, T, Wrapped, chunk, linear, network, numbers
from torch import nn

from throughtime import flow
from throughtime.chunk import Chunk
from throughtime.flow.units import activity
from throughtime.nets import Window, cross_entropy


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("options", [{}, {"layers": 2}, {"layers": 2, "embedding": 3}, {"inputs": 7, "layers": 2}])
def test_states_and_gates_are_those_of_the_forward_pass(cell: str, options: dict):
    net = network(cell, **options)
    reset = torch.rand(T, B) < 0.1
    data = chunk(reset=reset)
    if options.get("embedding") or options.get("inputs"):
        data = Chunk(torch.randint(I, (T, B)), reset=reset)
    depth = net.layers.depth
    state = tuple(numbers(depth, B, H) for _ in range(net.layers.cell.slots))
    found = flow.units_over_time(net, data, state)
    h, last = net.layers(net.encode(data.x), state, reset)
    np.testing.assert_allclose(found.states[f"h of layer {depth}"], h.detach().numpy(), atol=1e-14)
    for slot, name in zip(last, ("h", "c"), strict=False):
        for layer in range(depth):
            np.testing.assert_allclose(found.states[f"{name} of layer {layer + 1}"][-1], slot[layer].detach().numpy())
    for layer in range(1, depth + 1):
        check_gates(cell, found, layer, reset.numpy(), [slot[layer - 1].numpy() for slot in state])
    assert len(found.gates) == depth * {"gru": 2, "lstm": 3}.get(cell, 0)


def check_gates(cell: str, found: flow.UnitsOverTime, layer: int, reset: np.ndarray, first: list[np.ndarray]) -> None:
    """The gates explain the states: c_t - f c_{t-1} = i g with |g| < 1, h = o tanh c; h_t - z h_{t-1} = (1 - z) n."""

    def before(name: str, start: np.ndarray) -> np.ndarray:
        past = np.concatenate((start[None], found.states[f"{name} of layer {layer}"][:-1]))
        return np.where(reset[..., None], 0, past)

    if cell == "lstm":
        i, f, o = (found.gates[f"{gate} of layer {layer}"] for gate in "ifo")
        c, h = (found.states[f"{slot} of layer {layer}"] for slot in "ch")
        np.testing.assert_allclose(h, o * np.tanh(c), atol=1e-14)
        assert (np.abs((c - f * before("c", first[1])) / i) < 1).all()
    if cell == "gru":
        z, h = found.gates[f"z of layer {layer}"], found.states[f"h of layer {layer}"]
        assert (np.abs((h - z * before("h", first[0])) / (1 - z)) < 1).all()


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_modules_of_torch_have_the_gates_of_the_librarys(kind: type[nn.RNNBase]):
    module, data = Wrapped(kind, 2), chunk()
    net = network({"RNN": "elman"}.get(kind.__name__, kind.__name__.lower()), layers=2)
    net.layers.load_state_dict(module.rnn.state_dict())
    a, b = flow.units_over_time(module, data), flow.units_over_time(net, data)
    assert list(a.states) == list(b.states)
    assert list(a.gates) == list(b.gates)
    for name, values in (b.states | b.gates).items():
        np.testing.assert_allclose((a.states | a.gates)[name], values, atol=1e-14)
    (own, grows), (wanted, growth) = activity(module, data), activity(net, data)
    assert grows == pytest.approx(growth)
    assert {name: part.dead for name, part in own.items()} == {name: part.dead for name, part in wanted.items()}
    assert own["layer 2"].saturated == wanted["layer 2"].saturated
    assert list(own["layer 2"].gates) == list(wanted["layer 2"].gates)


def test_units_that_are_saturated_or_dead_are_counted():
    net = network("elman", units=4)
    with torch.no_grad():
        for name, weight in net.layers.named_parameters():
            weight.copy_(torch.eye(4) if "ih" in name and weight.dim() > 1 else torch.zeros_like(weight))
        net.get_parameter("layers.bias_ih_l0").copy_(torch.tensor([0.0, 0.0, 9.0, -9.0]))
    x = torch.zeros(10, 1, 4, dtype=torch.float64)
    x[:5, :, 0], x[:5, :, 1] = 3.0, 0.5
    found, growth = activity(net, Chunk(x))
    assert found["layer 1"] == flow.Activity(4, (5 + 10 + 10) / 40, 2, {})  # tanh(3) = 0.995
    assert growth == pytest.approx(0, abs=0.01)


def test_gates_that_are_shut_or_open_are_counted():
    net = network("lstm")
    with torch.no_grad():
        net.get_parameter("layers.bias_ih_l0")[:H] = -20
        net.get_parameter("layers.bias_ih_l0")[H : 2 * H] = 20
    gates = activity(net, chunk())[0]["layer 1"].gates
    assert gates["i"].shut == gates["f"].open == 1
    assert gates["i"].open == gates["f"].shut == gates["o"].open == 0
    assert gates["f"].mean == pytest.approx(1, abs=1e-6)
    assert 0.3 < gates["o"].mean < 0.7


def test_how_fast_the_state_grows():
    start = (numbers(1, B, H),)
    data = Chunk(torch.zeros(T, B, I, dtype=torch.float64))
    net = linear(1.2 * nn.init.orthogonal_(torch.empty(H, H, dtype=torch.float64)))
    with torch.no_grad():
        for weight in (net.get_parameter("layers.bias_ih_l0"), net.get_parameter("layers.bias_hh_l0")):
            weight.zero_()
    assert activity(net, data, start)[1] == pytest.approx(math.log(1.2), rel=1e-12)


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_saliency_is_the_derivative_by_the_input(cell: str):
    net, data, t = network(cell), chunk(9), 6
    found = flow.saliency(net, cross_entropy, data, t)
    x = data.x.clone().requires_grad_()
    grad = torch.autograd.grad(cross_entropy(net(x)[0], data.y)[t].sum(), x)[0]
    np.testing.assert_allclose(found, grad.norm(dim=-1).numpy(), atol=1e-15)
    assert (found[t + 1 :] == 0).all()
    assert (found[: t + 1] > 0).all()
    step = 1e-6
    direction = grad[2, 0] / grad[2, 0].norm()
    errors = []
    for side in (step, -step):
        moved = data.x.clone()
        moved[2, 0] += side * direction
        errors.append(cross_entropy(net(moved)[0], data.y)[t, 0].item())
    assert found[2, 0] == pytest.approx((errors[0] - errors[1]) / (2 * step), rel=1e-6)


def test_saliency_of_ids():
    ids = torch.randint(7, (9, B))
    data = Chunk(ids, torch.randint(A, (9, B)))
    onehot = network("gru", inputs=7)
    numbers_ = Chunk(onehot.encode(ids), data.y)
    np.testing.assert_allclose(
        flow.saliency(onehot, cross_entropy, data, 5), flow.saliency(onehot, cross_entropy, numbers_, 5)
    )
    embedded = network("gru", inputs=7, embedding=I)
    inner = network("gru")
    inner.layers.load_state_dict(embedded.layers.state_dict())
    inner.readout.load_state_dict(embedded.readout.state_dict())
    wanted = flow.saliency(inner, cross_entropy, Chunk(embedded.encode(ids).detach(), data.y), 5)
    np.testing.assert_allclose(flow.saliency(embedded, cross_entropy, data, 5), wanted)
    module = Wrapped(nn.GRU)
    wanted = flow.saliency(module, cross_entropy, Chunk(module.embed(ids).detach(), data.y), 5)
    np.testing.assert_allclose(flow.saliency(module, cross_entropy, data, 5), wanted)
    assert not module.embed._forward_hooks
    assert module.embed.weight.grad is None


def test_saliency_of_a_prediction_needs_no_targets():
    net, data = network("lstm"), Chunk(numbers(9, B, I))
    x = data.x.clone().requires_grad_()
    grad = torch.autograd.grad(net(x)[0][4].amax(-1).sum(), x)[0]
    np.testing.assert_allclose(flow.saliency(net, None, data, 4), grad.norm(dim=-1).numpy(), atol=1e-15)


def test_saliency_stops_at_a_restart():
    reset = torch.zeros(9, B, dtype=torch.bool)
    reset[3] = True
    found = flow.saliency(network("gru"), cross_entropy, chunk(9, reset=reset), 6)
    assert (found[:3] == 0).all()
    assert (found[3:7] > 0).all()


def test_saliency_that_cannot_be():
    with pytest.raises(ValueError, match="t must be a step of the chunk, from 0 to 8; got 9"):
        flow.saliency(network("gru"), cross_entropy, chunk(9), 9)
    net = Window(inputs=7, units=3, outputs=A, window=2, embedding=3).double()
    with pytest.raises(TypeError, match=r"x must be numbers, or ids that all pass through an nn\.Embedding"):
        flow.saliency(net, cross_entropy, Chunk(torch.randint(7, (9, B)), torch.randint(A, (9, B))), 3)
