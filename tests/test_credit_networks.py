"""BPTT(h; h') on networks of all kinds, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from credit_case import DOUBLE, A, B, H, I, Learned, assert_same, network, stream
from torch import nn
from torch.nn.utils import parametrizations, prune

from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Estimate
from throughtime.nets import Adapted, Window, squared_error
from throughtime.verify.credit import brute_force, total


@pytest.mark.parametrize(("h", "every"), [(None, 9), (1, 1), (4, 2), (3, 3), (20, 4)])
def test_a_learned_initial_state_gets_credit_while_windows_reach_the_start(h: int | None, every: int) -> None:
    net, chunk = Learned().double(), stream(9, restarts=0)
    wanted = brute_force(net, squared_error, chunk, h, every)
    given = total(BPTT() if h is None else BPTT(h, every), net, squared_error, chunk, (1, 5))
    assert_same(given, wanted, 9)
    assert given.grads["h0"].abs().sum() > 0


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_the_same_dropout_gives_the_same_gradient_both_ways(cell: str) -> None:
    """Both ways draw the noise of all layers, then of the readout, over the same window."""
    net, chunk = network(cell, layers=3, dropout=0.4), stream(9)
    estimates = []
    for replay in (True, False):
        torch.manual_seed(5)
        estimates.append(total(BPTT(9, 9, replay), net, squared_error, chunk))
    assert_same(*estimates, 9)


def test_dropout_may_be_switched_off_in_mid_stream() -> None:
    net, chunk = network("gru", layers=2, dropout=0.5), stream(8)
    for modes in ((True, False), (False, True)):
        credit = BPTT(6, 2, replay=False)
        memory = credit.start(net)
        for mode, part in zip(modes, (chunk[:4], chunk[4:]), strict=True):
            estimate, memory = credit(net.train(mode), squared_error, part, memory)
            assert estimate.loss.isfinite()


@pytest.mark.parametrize("replay", [True, False])
def test_frozen_weights_have_no_gradient(replay: bool) -> None:
    net, chunk = network("gru", inputs=A, embedding=3, layers=2), stream(9)
    chunk = Chunk(torch.randint(0, A, (9, B)), chunk.y, chunk.mask, chunk.reset, end=True)
    wanted = total(BPTT(4, 2, replay), net, squared_error, chunk)
    for frozen in (
        ["embed.weight"],
        ["layers.weight_hh_l0", "readout.bias"],
        ["readout.weight", "readout.bias"],
    ):
        for name, weight in net.named_parameters():
            weight.requires_grad_(name not in frozen)
        given = total(BPTT(4, 2, replay), net, squared_error, chunk)
        assert given.grads.keys() == wanted.grads.keys() - set(frozen)
        kept = {name: grad for name, grad in wanted.grads.items() if name not in frozen}
        assert_same(given, Estimate(wanted.loss, wanted.count, kept), 9)


@pytest.mark.parametrize("replay", [True, False])
def test_layers_that_share_their_weights_share_their_gradient(replay: bool) -> None:
    net, chunk = network("gru", inputs=H, layers=2), stream(9)
    for name in ("weight_ih", "weight_hh", "bias_hh"):
        setattr(net.layers, f"{name}_l1", net.layers.get_parameter(f"{name}_l0"))
    chunk = Chunk(torch.randn(9, B, H, dtype=DOUBLE), chunk.y, chunk.mask, chunk.reset, end=True)
    given = total(BPTT(4, 2, replay), net, squared_error, chunk, (5,))
    assert given.grads.keys() == {name for name, _ in net.named_parameters()}
    assert_same(given, brute_force(net, squared_error, chunk, 4, 2), 9)


def test_pruned_and_parametrised_weights_train_by_replay_alone() -> None:
    chunk = stream(9)
    pruned, normed, deep = (network("gru", layers=2) for _ in range(3))
    prune.random_unstructured(pruned.layers, "weight_hh_l0", 0.5)
    parametrizations.weight_norm(normed.layers, "weight_ih_l1")
    parametrizations.orthogonal(deep.layers, "weight_hh_l1")
    for net in (pruned, normed, deep):
        wanted = brute_force(net, squared_error, chunk, 4, 2)
        assert_same(total(BPTT(4, 2), net, squared_error, chunk, (5,)), wanted, 9)
        with pytest.raises(TypeError, match="net must be a Network with plain weights for replay=False"):
            BPTT(4, 2, replay=False).start(net)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"h": 2, "every": 3},
            "h must be at least every; got h=2, every=3. Errors older than h steps would never be",
        ),
        ({"h": 0}, "h must be a whole number of steps, at least 1; got 0."),
        ({"h": -1}, "h must be a whole number of steps, at least 1; got -1."),
        ({"h": 2.5}, "h must be a whole number of steps, at least 1; got 2.5."),
        ({"h": True}, "h must be a whole number of steps, at least 1; got True."),
        ({"h": 3, "every": 0}, "every must be a whole number of steps, at least 1; got 0."),
        ({"every": 2}, "every and replay must go with h, the steps to go back. Give h"),
        ({"replay": False}, "every and replay must go with h, the steps to go back. Give h"),
    ],
)
def test_arguments_that_cannot_be_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        BPTT(**arguments)


def test_kept_activations_are_for_the_librarys_own_networks() -> None:
    for net in (Adapted(nn.GRU(I, H)), nn.Linear(1, 1), Learned()):
        with pytest.raises(TypeError, match=f"for replay=False; got {type(net).__name__}. .* use replay=True"):
            BPTT(4, replay=False).start(net)
    BPTT(4, replay=False).start(network())
    BPTT(4, replay=False).start(Window(inputs=I, units=H, outputs=A, window=2))


@pytest.mark.parametrize("credit", [BPTT(), BPTT(4, 2), BPTT(4, 2, replay=False)])
def test_streams_that_cannot_be_learned_from_are_refused(credit: BPTT) -> None:
    net, chunk = network(), stream(6)
    with pytest.raises(ValueError, match="y must be there to learn from"):
        credit(net, squared_error, Chunk(chunk.x, end=True), credit.start(net))
    with pytest.raises(ValueError, match="loss must return errors not yet summed"):
        credit(net, nn.functional.mse_loss, chunk, credit.start(net))
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="net must have parameters that learn; got none"):
        credit(net, squared_error, chunk, credit.start(net))
