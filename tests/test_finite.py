"""NaN and infinity: the update and the first bad tensor are named, weights stay as they were, also on disk."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

import throughtime as tt
from throughtime import inference, runs, training
from throughtime.chunk import Chunk
from throughtime.data import Text
from throughtime.training import NonFiniteError, train


def text() -> Text:
    return Text.of("the cat saw the dog; the dog saw a man. " * 4, split=(0.7, 0.3, 0.0))


def network() -> tt.Network:
    torch.manual_seed(0)
    return tt.Network("lstm", inputs=text().size, units=6, outputs=text().size, embedding=5)


def weights(net: torch.nn.Module) -> torch.Tensor:
    return parameters_to_vector(net.parameters()).detach().clone()


def sgd(net: torch.nn.Module, rate: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=rate)


class Fragile(torch.nn.Module):
    """A state that squares itself: it explodes within a few steps while the weights stay finite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([1.0]))

    def forward(self, x, state=None, reset=None):
        state = torch.full_like(x[0], 1e10) if state is None else state
        outputs = []
        for step in x:
            state = self.weight * state * state + step
            outputs.append(state)
        return torch.stack(outputs), state


def numbers(steps: int = 4, end: bool = True) -> Chunk:
    return Chunk(torch.ones(steps, 2, 1), torch.zeros(steps, 2, 1), end=end)


def fails(net: torch.nn.Module, chunks, folder: Path, **options) -> str:
    """The sentence of the error; the weights are as they were before that update, and finite on disk."""
    after_each = [weights(net)]
    records = train(net, chunks, run=folder, **options)
    with pytest.raises(NonFiniteError) as caught:
        after_each.extend(weights(net) for _ in records)
    if torch.isfinite(weights(net)).all():
        assert torch.equal(weights(net), after_each[-1])
    saved = runs._tensors(folder / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in saved.values())
    assert all(parameter.grad is None for parameter in net.parameters())
    return str(caught.value)


def test_a_weight_that_is_bad(tmp_path):
    net = network()
    records = train(net, text().chunks(3, 5), run=tmp_path / "run")
    next(records)
    with torch.no_grad():
        net.layers.weight_hh_l0[0, 0] = math.inf
        net.readout.bias[0] = math.nan
    with pytest.raises(NonFiniteError, match=r"at update 2: the weight layers\.weight_hh_l0 is the first tensor"):
        next(records)
    saved = runs.load(tmp_path / "run").net
    assert weights(saved).isfinite().all()


def test_a_weight_that_the_last_update_made_bad(tmp_path):
    class Breaking(torch.optim.SGD):
        def step(self, closure=None):
            self.param_groups[0]["params"][1].data[0] = math.inf

    net = network()
    said = fails(net, text().chunks(3, 5), tmp_path / "run", updates=1, optimizer=Breaking(net.parameters(), lr=1))
    assert "the weight layers.weight_ih_l0 is not finite after update 1" in said


def test_an_input_or_a_target_that_is_bad(tmp_path):
    for name in ("x", "y"):
        net = tt.Network("gru", inputs=1, units=3, outputs=1)
        first, second = numbers(end=False), numbers()
        getattr(second, name)[2, 1] = math.nan
        said = fails(net, [first, second], tmp_path / name, loss="squared")
        assert f"at update 2: {name} is the first tensor" in said


def test_a_state_that_explodes(tmp_path):
    net = Fragile()
    chunk = numbers(3, end=False)
    small = replace(chunk, mask=torch.tensor([[1.0] * 2, [0.0] * 2, [0.0] * 2]))
    net.weight.data.fill_(1e-3)
    said = fails(
        net, [small, numbers(3)], tmp_path / "run", loss=lambda p, y: 1e-30 * p.abs(), optimizer=sgd(net, 1e-9)
    )
    assert "(the carried state) is the first tensor" in said


def test_an_output_that_is_bad(tmp_path):
    net = network()
    net.readout.weight.data.fill_(3e38)
    net.layers.weight_ih_l0.data.fill_(9.0)
    said = fails(net, text().chunks(3, 5), tmp_path / "run")
    assert "at update 1: the output of readout is the first tensor" in said


def test_a_loss_that_is_bad(tmp_path):
    net = tt.Network("gru", inputs=1, units=3, outputs=1)
    said = fails(net, [numbers()], tmp_path / "run", loss=lambda p, y: (p - p + y).log())
    assert "the loss is the first tensor" in said


def test_a_gradient_that_is_bad(tmp_path):
    net = tt.Network("gru", inputs=1, units=3, outputs=1)
    said = fails(net, [numbers()], tmp_path / "run", loss=lambda p, y: (p - p.detach()).abs().sqrt())
    assert "at update 1: the gradient of " in said


def test_a_validation_loss_that_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "evaluate", lambda *_: inference.Score(math.nan, 1))
    net = network()
    first = weights(net)
    with pytest.raises(NonFiniteError, match="the validation loss is not finite after update"):
        list(train(net, text().chunks(3, 5), run=tmp_path / "run", validation=text().chunks(1, 9, "validation")))
    assert torch.equal(weights(runs.load(tmp_path / "run").net), first)
