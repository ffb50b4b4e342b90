"""What truncation keeps, all measurements together, and the probe: definitions, other modules, no trace left."""

import json
import math

import numpy as np
import pytest
import torch
from flow_case import CELLS, A, B, H, I, T, Wrapped, chunk, network, numbers
from torch import nn

import throughtime as tt
from throughtime import flow
from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.flow.kept import kept
from throughtime.nets import Adapted, Network, Window, cross_entropy, squared_error
from throughtime.recurrent import FullyRecurrent


def test_kept_by_a_linear_net_in_one_number():
    """x_t = w x_{t-1} + u_t with |u| = 1 everywhere: dx_t/dw has h terms, and BPTT(h) keeps what they add up to."""
    net = network("elman:phi=identity", inputs=1, units=1, outputs=1)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            weight.fill_({"layers.weight_ih_l0": 1.0, "layers.weight_hh_l0": 0.5, "readout.weight": 1.0}.get(name, 0.0))
    for name, weight in net.named_parameters():
        weight.requires_grad_(name == "layers.weight_hh_l0")
    ones = torch.ones(60, 1, 1, dtype=torch.float64)
    found = kept(net, lambda prediction, y: prediction, Chunk(ones, ones), np.array([59]), 20, None, None)
    # h_t = 2 throughout by then, and dx_t/dw = sum_k 0.5^k h_{t-k-1} = 4 (1 - 0.5^h)
    np.testing.assert_allclose(found.kept, (1 - 0.5**found.h) / (1 - 0.5**20), rtol=1e-9)
    np.testing.assert_allclose(found.error, (0.5**found.h - 0.5**20) / (1 - 0.5**20), atol=1e-12)
    assert found.smallest_h(0.01) == 7
    assert found.smallest_h(1e-9) is None
    assert found.share(3) == pytest.approx(0.875, rel=1e-5)
    assert math.isnan(found.share(21))


def test_kept_by_other_modules_is_that_of_the_librarys():
    module, data, at = Wrapped(nn.LSTM), chunk(), np.array([20, 30, 39])
    net = network("lstm")
    net.layers.load_state_dict(module.rnn.state_dict())
    net.readout.load_state_dict(module.head.state_dict())
    a, b = (kept(n, cross_entropy, data, at, 20, None, 11) for n in (module, net))
    np.testing.assert_allclose(a.error, b.error, atol=1e-12)
    np.testing.assert_allclose(a.kept, b.kept, atol=1e-12)
    assert 11 in a.h


def test_the_smallest_h_is_where_the_error_stays_low():
    found = flow.Kept(np.array([1, 2, 3, 4, 5]), np.array([0.5, 0.05, 0.2, 0.08, 0.0]), np.ones(5))
    assert found.smallest_h(0.1) == 4
    assert found.smallest_h(0.3) == 2
    assert found.smallest_h(0.01) is None


def test_a_gradient_of_zero_keeps_nothing():
    net, data = network("gru"), chunk()
    assert kept(net, lambda p, y: 0 * p.sum(-1), data, np.array([20]), 10, None, None) is None
    for weight in net.parameters():
        weight.requires_grad_(False)
    assert kept(net, cross_entropy, data, np.array([20]), 10, None, None) is None


@pytest.mark.parametrize("cell", CELLS)
def test_measure_puts_all_parts_together(cell: str):
    net, data = network(cell, layers=2), chunk()
    found = flow.measure(net, cross_entropy, data, lags=9, samples=5, h=4)
    np.testing.assert_array_equal(
        found.whole.norms, flow.error_by_lag(net.eval(), cross_entropy, data, 9, samples=5).norms
    )
    np.testing.assert_array_equal(found.exponents, flow.lyapunov(net, data))
    assert list(found.singular) == [1, 4]
    assert list(found.activity) == ["layer 1", "layer 2"]
    assert found.kept.h[-1] == 9
    assert found.h == 4
    assert found.word in ("vanishing", "healthy", "exploding", "chaotic")


@pytest.mark.parametrize(
    "net",
    [
        Wrapped(nn.LSTM, 2),
        Adapted(nn.GRU(I, A, dtype=torch.float64)),
        FullyRecurrent(7, I, A, phi="tanh").double(),
        Adapted(tt.LSTM(I, A, dtype=torch.float64)),
    ],
)
def test_measure_takes_any_module(net: nn.Module):
    found = flow.measure(net, cross_entropy, chunk(), h=10)
    assert found.whole.lags[0] == 1
    assert found.kept is not None
    assert found.spectra
    told = json.loads(found.to_json())["smallest_h"]
    assert found.kept is not None
    assert told == {str(error): found.kept.smallest_h(error) for error in (0.1, 0.01, 0.001)}
    said = f"10 %: {told['0.1'] or '-'}, 1 %: {told['0.01'] or '-'}, 0.1 %: {told['0.001'] or '-'}"
    assert said in " ".join(str(found).split())


def test_measure_takes_a_loss_at_the_last_step_alone():
    mask = torch.zeros(T, B)
    mask[-1] = 1
    found = flow.measure(network("gru"), cross_entropy, chunk(mask=mask))
    assert found.whole.lags[-1] == T - 1
    assert found.whole.at.tolist() == [T - 1]
    with pytest.raises(ValueError, match="chunk must have at least 2 steps and an error that counts"):
        flow.measure(network("gru"), cross_entropy, chunk(mask=torch.zeros(T, B)))


def test_measuring_changes_nothing():
    """Mode, random numbers, gradients and hooks are as before; dropout takes no part."""
    net, data = Network("lstm", inputs=I, units=H, outputs=A, layers=2, dropout=0.5).double().train(), chunk()
    net.readout.eval()
    before = torch.get_rng_state()
    found = [flow.measure(net, cross_entropy, data), flow.measure(net, cross_entropy, data)]
    probed = flow.probe(net, cross_entropy, data)
    flow.saliency(net, cross_entropy, data, 3)
    flow.units_over_time(net, data)
    assert torch.equal(torch.get_rng_state(), before)
    assert net.training
    assert not net.readout.training
    assert all(weight.grad is None for weight in net.parameters())
    assert found[0].to_json() == found[1].to_json()
    assert not net.layers._forward_pre_hooks
    wanted = flow.error_by_lag(net.eval(), cross_entropy, data, T // 2, samples=4)
    np.testing.assert_array_equal(probed.norms, wanted.norms)


class Noisy(nn.Module):
    """It draws random numbers in evaluation mode too."""

    def __init__(self):
        super().__init__()
        self.inner = network("gru")

    def forward(self, x, state=None, reset=None):
        return self.inner(x + 0.01 * torch.randn_like(x), state, reset)


def test_random_numbers_go_on_as_if_none_were_drawn():
    net, data = Noisy(), chunk()
    before = torch.get_rng_state()
    flow.probe(net, cross_entropy, data)
    flow.measure(net, cross_entropy, data)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_probe_looks_at_a_few_streams():
    net, data = network("gru"), Chunk(numbers(T, 12, I), torch.randint(A, (T, 12)))
    state = (numbers(1, 12, H),)
    found = flow.probe(net, cross_entropy, data, state=state, lags=7, samples=2, streams=5)
    some = Chunk(data.x[:, :5], data.y[:, :5])
    wanted = flow.error_by_lag(net, cross_entropy, some, 7, state=(state[0][:, :5],), samples=2)
    np.testing.assert_array_equal(found.norms, wanted.norms)


def test_a_probe_costs_as_few_products_as_it_says():
    """Rows that pass through a step: those of the streams forward, and lags * samples * streams backward."""
    net, rows = network("elman"), []
    W = net.get_parameter("layers.weight_hh_l0")

    class Counted(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function in (torch.ops.aten.mm.default, torch.ops.aten.addmm.default) and any(a is W for a in args):
                rows.append(args[0].shape[0])
            return function(*args, **(kwargs or {}))

    data = Chunk(numbers(T, 12, I), torch.randint(A, (T, 12)))
    with Counted():
        flow.probe(net, cross_entropy, data)
    assert sum(rows) <= (T // 2) * 4 * 8
    assert len(rows) <= T // 2


def test_clipping_is_read_from_the_records_of_a_run():
    ids = torch.randint(A, (41, B))
    net = Network("gru", inputs=A, units=H, outputs=A)
    source = [Chunk(ids[a : a + 10], ids[a + 1 : a + 11], end=a == 30) for a in (0, 10, 20, 30)]
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    records = list(tt.train(net, source, credit=BPTT(10, 10), optimizer=optimizer, clip=0.3, epochs=2))
    found = flow.clipping([vars(record) for record in records], 0.3)
    np.testing.assert_array_equal(found.before, [record.norm for record in records])
    np.testing.assert_array_equal(found.after, [min(record.norm, 0.3) for record in records])
    assert found.share == np.mean([record.clipped for record in records])
    assert 0 < found.share <= 1
    none = flow.clipping([{"update": 1, "norm": None}, {"update": 2}], None)
    assert len(none.before) == 0
    assert math.isnan(none.share)


def test_bad_arguments_are_said():
    net, data = network("gru"), chunk()
    with pytest.raises(ValueError, match="h must be a number of steps, at least 1, or None; got 0"):
        flow.measure(net, cross_entropy, data, h=0)
    with pytest.raises(ValueError, match="exponents and streams must be at least 1; got 0 and 4"):
        flow.lyapunov(net, data, exponents=0)
    window = Window(inputs=I, units=H, outputs=A, window=3).double()
    for call in (
        lambda: flow.measure(window, cross_entropy, data),
        lambda: flow.probe(window, cross_entropy, data),
        lambda: flow.lyapunov(window, data),
        lambda: flow.units_over_time(window, data),
    ):
        with pytest.raises(TypeError, match="net must carry a state; got a Window"):
            call()
    both = Adapted(nn.GRU(I, A, bidirectional=True, dtype=torch.float64))
    with pytest.raises(TypeError, match="net must read forwards alone"):
        flow.measure(both, squared_error, data)
