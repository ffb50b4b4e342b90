"""NaN and infinity: the update and the first bad tensor are named, weights stay as they were, also on disk."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.utils import parameters_to_vector

import throughtime as tt
from throughtime import finite, inference, loop, runs
from throughtime.chunk import Chunk
from throughtime.data import Text
from throughtime.finite import first_bad
from throughtime.training import NonFiniteError, train

GATES = {"gru": "rzn", "lstm": "ifgo"}
NOTHING = tt.Estimate.nothing(torch.zeros(1))


def text() -> Text:
    return Text.of("the cat saw the dog; the dog saw a man. " * 4, split=(0.7, 0.3, 0.0))


def network(cell: str = "lstm", **options) -> tt.Network:
    torch.manual_seed(0)
    return tt.Network(cell, inputs=text().size, units=6, outputs=text().size, embedding=5, **options)


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


@pytest.mark.parametrize(
    ("cell", "name", "row", "said"),
    [
        ("lstm", "layers.weight_hh_l0", 7, "the weight layers.weight_hh_l0, gate f of layer 1"),
        ("lstm", "layers.bias_ih_l1", 23, "the weight layers.bias_ih_l1, gate o of layer 2"),
        ("gru", "layers.weight_ih_l1", 17, "the weight layers.weight_ih_l1, gate n of layer 2"),
        ("elman", "layers.weight_hh_l0", 2, "the weight layers.weight_hh_l0"),
        ("lstm", "readout.weight", 0, "the weight readout.weight"),
    ],
)
def test_a_weight_that_is_bad(cell, name, row, said, tmp_path):
    net = network(cell, layers=2)
    records = train(net, text().chunks(3, 5), run=tmp_path / "run")
    next(records)
    with torch.no_grad():
        net.get_parameter(name)[row].fill_(math.inf)
        net.readout.bias[0] = math.nan
    with pytest.raises(NonFiniteError) as caught:
        next(records)
    assert f"not finite at update 2, first in {said}. Lower the" in str(caught.value)
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
        assert f"at update 2, first in {name} at step 2 of the chunk, stream 1. Mend the data." in said


def test_what_a_mask_or_a_teacher_leaves_out_is_not_blamed(tmp_path):
    x = torch.zeros(4, 2, 2)
    x[..., 1] = math.nan  # the unit is free
    y = torch.zeros(4, 2, 1)
    y[1, 0] = math.nan
    mask = torch.ones(4, 2, 1)
    mask[1, 0] = 0
    x[3, 1, 1] = math.inf
    net = tt.FullyRecurrent(units=3, inputs=1, visible=1, forced=True)
    said = fails(net, [Chunk(x, y, mask, end=True)], tmp_path / "run", loss="squared")
    assert "first in x at step 3 of the chunk, stream 1" in said


def test_data_that_waited_is_placed_before_the_chunk(tmp_path):
    net = tt.Network("gru", inputs=1, units=3, outputs=1)
    first, second = numbers(end=False), numbers()
    first.x[1, 1] = math.nan
    said = fails(net, [first, second], tmp_path / "run", loss="squared", credit=tt.BPTT())
    assert "first in x 3 steps before the chunk, stream 1." in said


# Forward


@pytest.mark.parametrize(("cell", "slot"), [("lstm", "c"), ("lstm", "h"), ("gru", "h")])
def test_a_state_that_was_carried_in(cell, slot):
    net, credit = network(cell, layers=2), tt.BPTT(h=5, every=5)
    state = tuple(torch.zeros(2, 3, 6) for _ in range(net.layers.cell.slots))
    state["hc".index(slot)][1, 2, 4] = math.inf
    memory = credit.start(net, state)
    said = first_bad(net, tt.cross_entropy, text().chunks(3, 5)[0], credit, memory, NOTHING)
    assert said.startswith(f"{slot} of layer 2 in the carried state, stream 2.")


def test_what_the_credit_carries():
    net, credit, chunk = network("gru"), tt.RTRL(), text().chunks(3, 5)[0]
    _, memory = credit(net, tt.cross_entropy, chunk, credit.start(net))
    next(iter(memory.influence.values())).view(-1)[3] = math.nan
    said = first_bad(net, tt.cross_entropy, chunk, credit, memory, NOTHING)
    assert re.match(r"memory\.influence\.\w+, which the credit carries\.", said)


def test_a_state_that_explodes(tmp_path):
    net = Fragile()
    chunk = numbers(3, end=False)
    small = replace(chunk, mask=torch.tensor([[1.0] * 2, [0.0] * 2, [0.0] * 2]))
    net.weight.data.fill_(1e-3)
    options = {"loss": lambda p, y: 1e-30 * p.abs(), "optimizer": sgd(net, 1e-9)}
    said = fails(net, [small, numbers(3)], tmp_path / "run", **options)
    assert "first in state in the carried state, stream 0." in said


def test_it_is_followed_from_the_state_that_was_carried_in(tmp_path):
    """10^10 squares itself: 10^20 after the first chunk, and too large one step later; from the start, two later."""
    net = Fragile()
    options = {"loss": lambda p, y: 1e-30 * p.abs(), "optimizer": sgd(net, 0.0), "credit": "bptt:h=1,every=1"}
    said = fails(net, [numbers(1, end=False), numbers(3)], tmp_path / "run", **options)
    assert "at update 2, first in the output of the network at step 0 of the chunk." in said


@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize(("cell", "gate"), [(cell, gate) for cell, gates in GATES.items() for gate in gates])
def test_a_gate(cell, gate, layer, tmp_path):
    """All weights are finite. At one step of one stream u is infinite, by a large x or a large h of layer 1; v is minus
    infinity since the second step, as the first unit of the layer holds h near 1. The gate of the second is NaN."""
    net = tt.Network(cell, inputs=1, units=2, outputs=1, layers=2, backend="reference")
    row = 2 * GATES[cell].index(gate) + 1
    with torch.no_grad():
        for name, weight in net.layers.named_parameters():
            weight.fill_(0.0 if "bias" in name or "hh" in name else 1.0)
        if cell == "gru":  # z must be shut for n to become h
            net.layers.weight_ih_l0[2:4] = -1.0
        shut = -10.0 if cell == "gru" else 10.0
        net.get_parameter(f"layers.bias_ih_l{layer}")[::2] = torch.tensor([10.0, shut, 10.0, 10.0])[: len(GATES[cell])]
        net.get_parameter(f"layers.weight_ih_l{layer}")[row] = 3e38
        net.get_parameter(f"layers.weight_hh_l{layer}")[row, 0] = -3e38
        net.get_parameter(f"layers.bias_hh_l{layer}")[row] = -3e38
    x = torch.zeros(9, 3, 1)
    x[6, 2] = 40.0
    y = torch.zeros(9, 3, 1)
    chunks = [Chunk(x[:4], y[:4], torch.zeros(4, 3)), Chunk(x[4:], y[4:], end=True)]
    said = fails(net, chunks, tmp_path / "run", loss="squared", credit="bptt:h=4,every=4", optimizer=sgd(net, 0.0))
    assert f"at update 1, first in gate {gate} of layer {layer + 1} at step 2 of the chunk, stream 2." in said


def test_a_slot_that_grows_too_large(tmp_path):
    """h_t = 2^40 h_{t-1}: 1, 2^40, 2^80, 2^120, and then no number of 32 bits."""
    net = tt.Network("elman:phi=relu", inputs=1, units=1, outputs=1)
    plain(net, W_h=2.0**40, readout=0.0)
    said = fails(net, [impulse(7)], tmp_path / "run", loss="squared")
    assert "at update 1, first in h of layer 1 at step 4 of the chunk, stream 0." in said


def test_a_restart_puts_an_end_to_it(tmp_path):
    net = tt.Network("elman:phi=relu", inputs=1, units=1, outputs=1)
    plain(net, W_h=2.0**40, readout=0.0)
    reset = torch.zeros(7, 2, dtype=torch.bool)
    reset[4, 0] = True  # where the other stream becomes too large
    said = fails(net, [replace(impulse(7), reset=reset)], tmp_path / "run", loss="squared")
    assert "first in h of layer 1 at step 4 of the chunk, stream 1." in said


def test_an_output_that_is_bad(tmp_path):
    net = network()
    with torch.no_grad():
        net.readout.weight.fill_(3e38)
        net.layers.weight_ih_l0.fill_(9.0)
    said = fails(net, text().chunks(3, 5), tmp_path / "run")
    assert re.search(r"at update 1, first in the output of readout at step \d of the chunk, stream \d\.", said)


def test_a_module_inside_another(tmp_path):
    net = tt.Adapted(torch.nn.RNN(1, 1, nonlinearity="relu"))
    with torch.no_grad():
        for name, weight in net.module.named_parameters():
            weight.fill_(0.0 if "bias" in name else 1.0 if "ih" in name else 2.0**40)
    said = fails(net, [impulse(7)], tmp_path / "run", loss=lambda p, y: 1e-38 * p)
    assert "first in the output of module at step 4 of the chunk." in said


def test_a_loss_that_is_bad(tmp_path):
    net = tt.Network("gru", inputs=1, units=3, outputs=1)
    chunk = numbers()
    chunk.y.fill_(1.0)
    chunk.y[3, 1] = 0.0
    said = fails(net, [chunk], tmp_path / "run", loss=lambda p, y: (p - p + y).log())
    assert "first in the loss at step 3 of the chunk." in said


# Backward


def plain(net: tt.Network, *, W_h: float, readout: float = 1.0) -> None:
    """h_t = phi(W_h h_{t-1} + x_t), y_t = readout h_t."""
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        for depth in range(net.layers.depth):
            net.get_parameter(f"layers.weight_ih_l{depth}").fill_(1.0)
        net.layers.weight_hh_l0.fill_(W_h)
        net.readout.weight.fill_(readout)


def impulse(steps: int, size: float = 1.0, errors: Sequence[int] | None = None, end: bool = True) -> Chunk:
    """x is `size` at the first step of both streams, and zero after it; errors count at some steps or at all."""
    x = torch.zeros(steps, 2, 1)
    x[0] = size
    mask = None
    if errors is not None:
        mask = torch.zeros(steps, 2)
        mask[list(errors)] = 1.0
    return Chunk(x, torch.zeros(steps, 2, 1), mask, end=end)


def steep(p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Its derivative is 2^64."""
    return 2.0**64 * (p - y)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize(("errors", "first"), [(None, 16), ([20], 20), ([3, 15, 18, 23], 18), ([23], 23)])
def test_a_gradient_that_explodes_at_a_known_lag(errors, first, backend, tmp_path):
    """d loss_t / d h_{t-k} = 2^64 16^k: 2^124 at lag 15, and no number of 32 bits at lag 16."""
    net = tt.Network("elman:phi=relu", inputs=1, units=1, outputs=1, backend=backend)
    plain(net, W_h=16.0)
    said = fails(net, [impulse(24, 2.0**-100, errors)], tmp_path / "run", loss=steep)
    wanted = (
        f"the gradient of the error at step {first} of the chunk: finite up to lag 15, not at lag 16, by h of layer 1."
    )
    assert f"at update 1, first in {wanted}" in said


def test_an_explosion_in_the_steps_before_the_chunk(tmp_path):
    """Errors go back eight steps every four: 2^64 4096^k passes 2^128 at lag 6, four steps before the chunk begins."""
    net = tt.Network("elman:phi=relu", inputs=1, units=1, outputs=1)
    plain(net, W_h=2.0**12)
    chunks = [impulse(4, 2.0**-100, [], end=False), impulse(4, 2.0**-100)]
    said = fails(net, chunks, tmp_path / "run", loss=steep, credit="bptt:h=8,every=4")
    assert "error at step 2 of the chunk: finite up to lag 5, not at lag 6, by h of layer 1." in said


def test_the_gradient_of_any_module_that_explodes(tmp_path):
    net = tt.Adapted(torch.nn.RNN(1, 1, nonlinearity="relu"))
    with torch.no_grad():
        for name, weight in net.module.named_parameters():
            weight.fill_(0.0 if "bias" in name else 1.0 if "ih" in name else 16.0)
    said = fails(net, [impulse(24, 2.0**-100, [20])], tmp_path / "run", loss=steep)
    assert "error at step 20 of the chunk: finite up to lag 15, not at lag 16, by state." in said


def test_only_the_last_steps_of_a_long_stretch_are_searched(tmp_path, monkeypatch):
    monkeypatch.setattr(finite, "FAR", 20)
    monkeypatch.setattr(finite, "PIECE", 7)
    net = tt.Network("elman:phi=relu", inputs=1, units=1, outputs=1)
    plain(net, W_h=16.0)
    said = fails(net, [impulse(24, 2.0**-100)], tmp_path / "run", loss=steep)
    assert "error at step 20 of the chunk: finite up to lag 15, not at lag 16," in said  # back to step 4


def test_a_derivative_of_the_loss_that_is_bad(tmp_path):
    net = tt.Network("gru", inputs=1, units=3, outputs=1)
    said = fails(net, [numbers()], tmp_path / "run", loss=lambda p, y: (p - p.detach()).abs().sqrt())
    assert "the gradient of the error at step 0 of the chunk: not finite at lag 0, by the prediction." in said


def test_sums_that_are_too_large(tmp_path):
    net = tt.Network("elman:phi=identity", inputs=1, units=1, outputs=1)
    plain(net, W_h=1.0)
    said = fails(net, [impulse(4, 0.1)], tmp_path / "sum", loss=lambda p, y: 1.5e38 * p)
    assert "first in the sum of gradients that are finite each." in said
    said = fails(net, [impulse(1, 1e30)], tmp_path / "weight", loss=lambda p, y: 1e8 * p / 2)
    assert "first in the norm of the gradient, of which every part is finite." in said
    said = fails(net, [impulse(1, 1e38)], tmp_path / "gradient", loss=lambda p, y: 10 * (p - p.detach()))
    assert "first in the gradient of layers.weight_ih_l0." in said


class Whole(torch.nn.Module):
    """Runs on four steps alone; its second output is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, state=None, reset=None):
        return self.weight * x / torch.tensor([1.0, 0.0, 1.0, 1.0]).view(4, 1, 1), None


def test_what_cannot_be_run_in_steps_still_has_its_sums(tmp_path):
    backwards = torch.nn.RNN(1, 1, nonlinearity="relu", bidirectional=True)
    with torch.no_grad():
        for weight in backwards.parameters():
            weight.fill_(2.0**60)
    for place, net in enumerate((Whole(), tt.Adapted(backwards))):
        said = fails(net, [numbers()], tmp_path / str(place), loss=lambda p, y: p)
        assert "at update 1, first in the loss. Lower" in said


def test_looking_for_it_changes_nothing():
    net = network(layers=2, dropout=0.5)
    chunk, credit, random = text().chunks(3, 5)[0], tt.BPTT(h=5, every=5), torch.get_rng_state()
    before = weights(net)
    first_bad(net, tt.cross_entropy, chunk, credit, credit.start(net), NOTHING)
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(weights(net), before)
    assert all(module.training and not module._forward_hooks for module in net.modules())
    assert all(weight.grad is None for weight in net.parameters())


# Validation


def test_a_validation_loss_that_is_bad(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "evaluate", lambda *_: inference.Score(math.nan, 1))
    net = network()
    first = weights(net)
    with pytest.raises(NonFiniteError, match="the validation loss is not finite after update"):
        list(train(net, text().chunks(3, 5), run=tmp_path / "run", validation=text().chunks(1, 9, "validation")))
    assert torch.equal(weights(runs.load(tmp_path / "run").net), first)
