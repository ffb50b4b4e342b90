"""Forward in time: RTRL is exact for any module; what all of its kin keep, share and refuse."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from forward_case import CELLS, DOUBLE, EVERY, LIBRARYS_OWN, A, B, H, I, assert_same, network, stream, text
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

import throughtime as tt
from throughtime.cells import GRU
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, RFLO, RTRL, Credit, Estimate, SnAp, credit_named, spell_credit
from throughtime.nets import Adapted, Network, Window, cross_entropy, squared_error
from throughtime.state import flatten
from throughtime.verify.credit import brute_force, footprint, total


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_rtrl_is_the_epochwise_gradient(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream(23)
    wanted = brute_force(net, squared_error, chunk, None, 23)
    for cuts in ((), (3, 7), range(1, 23)):
        assert_same(total(RTRL(), net, squared_error, chunk, cuts), wanted)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32])
@pytest.mark.parametrize("spelling", ["parallel:h=9", "bptt:h=9,replay=false", "rtrl", "snap", "rflo", "uoro"])
def test_ids_of_any_dtype(spelling: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = Network("gru", inputs=6, units=5, outputs=6, embedding=4).double()
    x, y = torch.randint(0, 6, (4, 6)), torch.randint(0, 6, (4, 6))
    credit = credit_named(spelling)
    for cuts in ((), (1, 2, 3)):
        wanted = total(credit, net, cross_entropy, Chunk(x, y, end=True), cuts)
        given = total(credit, net, cross_entropy, Chunk(x.to(dtype), y, end=True), cuts)
        assert all(torch.equal(grad, wanted.grads[name]) for name, grad in given.grads.items())


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_rtrl_gives_the_gradient_of_every_steps_own_error(cell: str) -> None:
    net, chunk = network(cell, layers=2), stream(9)
    assert chunk.mask is not None
    memory = RTRL().start(net)
    for t in range(9):
        given, memory = RTRL()(net, squared_error, chunk[t : t + 1], memory)
        alone = Chunk(chunk.x, chunk.y, chunk.mask * (torch.arange(9) == t)[:, None, None], chunk.reset, end=True)
        assert_same(given, brute_force(net, squared_error, alone, None, 9))


@given(st.lists(st.integers(0, 13), max_size=5).map(sorted), st.sampled_from(EVERY), st.sampled_from(["gru", "lstm"]))
@settings(max_examples=60)
def test_chunks_of_any_size_give_the_same_sums(cuts: list[int], credit: Credit, cell: str) -> None:
    torch.manual_seed(1)
    net, chunk = network(cell, layers=2), stream(13)
    assert_same(total(credit, net, squared_error, chunk, cuts), total(credit, net, squared_error, chunk))


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "ctrnn:alpha=0.3"])
@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("credit", [RTRL(), SnAp(H)])
def test_embeddings_tied_or_not_have_an_influence_too(cell: str, tie: bool, layers: int, credit: Credit) -> None:
    options: dict[str, Any] = {"inputs": A, "embedding": H if tie else 3, "tie": tie}
    net, chunk = network(cell, outputs=A, layers=layers, **options), text(13)
    wanted = brute_force(net, cross_entropy, chunk, None, 13)
    for cuts in ((4, 5), range(1, 13)):
        assert_same(total(credit, net, cross_entropy, chunk, cuts), wanted)


@pytest.mark.parametrize("credit", [RTRL(), SnAp(H), BPTT(1), RFLO()])
def test_ids_without_a_table_are_one_hot_rows(credit: Credit) -> None:
    net, chunk = network("elman", inputs=A, layers=2), text(13)
    wanted = brute_force(net, cross_entropy, chunk, None if credit in (RTRL(), SnAp(H)) else 1, 1)
    assert_same(total(credit, net, cross_entropy, chunk, (4, 5)), wanted)


class Learned(nn.Module):
    """A user's net that starts from a learned state where it is given none, with whole numbers in its state."""

    def __init__(self) -> None:
        super().__init__()
        self.h0 = nn.Parameter(torch.randn(1, 1, H))
        self.gru, self.out = nn.GRU(I, H), nn.Linear(H, A)

    def forward(self, x: Tensor, state: Any = None, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        if state is None:
            state = self.h0.expand(1, x.shape[1], H).contiguous(), torch.zeros(1, x.shape[1], 1, dtype=torch.long)
        h, last = self.gru(x, state[0])
        return self.out(h), (last, state[1] + len(x))


class Alone(Network):
    """A subclass may do anything, so it is treated as any module."""


@pytest.mark.parametrize(
    "make",
    [
        lambda: Adapted(nn.GRU(I, A, 2)),
        lambda: Adapted(nn.LSTM(I, A)),
        lambda: Adapted(tt.LSTM(I, A)),
        lambda: Alone("lstm", inputs=I, units=H, outputs=A, layers=2),
        lambda: Network("gru", inputs=I, units=H, outputs=A),
    ],
)
def test_rtrl_takes_any_module(make: Any) -> None:
    net, chunk = make().double(), stream(9)
    wanted = brute_force(net, squared_error, chunk, None, 9)
    for cuts in ((), (3, 4), range(1, 9)):
        assert_same(total(RTRL(), net, squared_error, chunk, cuts), wanted)


def test_rtrl_reaches_a_learned_initial_state() -> None:
    net, chunk = Learned().double(), stream(9, restarts=0)
    given = total(RTRL(), net, squared_error, chunk, (1, 5))
    assert_same(given, brute_force(net, squared_error, chunk, None, 9))
    assert given.grads["h0"].abs().sum() > 0


def test_rtrl_differentiates_pruned_and_parametrised_weights() -> None:
    chunk = stream(9)
    pruned, normed = (network("gru", layers=2) for _ in range(2))
    prune.random_unstructured(pruned.layers, "weight_hh_l0", 0.5)
    parametrizations.weight_norm(normed.layers, "weight_ih_l1")
    for net in (pruned, normed):
        wanted = brute_force(net, squared_error, chunk, None, 9)
        assert_same(total(RTRL(), net, squared_error, chunk, (5,)), wanted)


@pytest.mark.parametrize("credit", EVERY)
def test_a_network_without_memory_gets_its_exact_gradient(credit: Credit) -> None:
    for options, chunk, loss in (({"inputs": I}, stream(9), squared_error), ({"inputs": A}, text(9), cross_entropy)):
        net = Window(units=H, outputs=A, window=3, **options).double()
        wanted = brute_force(net, loss, chunk, None, 9)
        assert_same(total(credit, net, loss, chunk, (2, 5)), wanted)


@pytest.mark.parametrize("credit", LIBRARYS_OWN)
def test_what_cannot_be_linearised_is_refused(credit: Credit) -> None:
    pruned = network()
    prune.random_unstructured(pruned.layers, "weight_hh_l0", 0.5)
    for net in (Adapted(nn.GRU(I, H)), Alone("gru", inputs=I, units=H, outputs=A), pruned):
        sentence = f"net must be a Network with plain weights for {spell_credit(credit).partition(':')[0]}; got "
        with pytest.raises(TypeError, match=f"{sentence}{type(net).__name__}. Use rtrl, which takes any module."):
            credit.start(net)


class Own(GRU):
    """A cell of one's own, its derivative by torch.func."""

    def forward(self, u: Any, v: Any, s: Any) -> Any:
        return super().forward(u, v, s)[0], (u, v, *s)

    backward = tt.cells.Cell.backward


@pytest.mark.parametrize("credit", EVERY)
def test_a_cell_of_ones_own_needs_nothing_more(credit: Credit) -> None:
    net, own = network("gru", layers=2), Network(Own(), inputs=I, units=H, outputs=A, layers=2).double()
    own.load_state_dict(net.state_dict())
    chunk = stream(9)
    assert_same(total(credit, own, squared_error, chunk), total(credit, net, squared_error, chunk))


@pytest.mark.parametrize("credit", EVERY)
def test_frozen_and_shared_weights(credit: Credit) -> None:
    net, chunk = network("gru", inputs=H, layers=2), stream(9)
    chunk = Chunk(torch.randn(9, B, H, dtype=DOUBLE), chunk.y, chunk.mask, chunk.reset, end=True)
    apart = total(credit, net, squared_error, chunk)
    net.readout.bias.requires_grad_(False)
    net.layers.get_parameter("weight_ih_l0").requires_grad_(False)
    given = total(credit, net, squared_error, chunk)
    kept = {name: grad for name, grad in apart.grads.items() if name in given.grads}
    assert apart.grads.keys() - given.grads.keys() == {"readout.bias", "layers.weight_ih_l0"}
    assert_same(given, Estimate(apart.loss, apart.count, kept))
    net.requires_grad_(True)
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        net.layers.get_parameter(f"{name}_l1").data = net.layers.get_parameter(f"{name}_l0").data
    wanted = total(credit, net, squared_error, chunk).grads
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        setattr(net.layers, f"{name}_l1", net.layers.get_parameter(f"{name}_l0"))
    shared = total(credit, net, squared_error, chunk).grads
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        both = wanted[f"layers.{name}_l0"] + wanted[f"layers.{name}_l1"]
        torch.testing.assert_close(shared[f"layers.{name}_l0"], both, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("cell", ["elman", "lstm"])
def test_dropout_between_layers_is_drawn_once_and_carried(cell: str) -> None:
    """All draw the noise of the layers and then of the readout, over the same chunk."""
    net, chunk = network(cell, layers=3, dropout=0.4), stream(9)
    estimates = []
    for credit in (BPTT(9, 9, replay=False), RTRL(), SnAp(2)):
        torch.manual_seed(5)
        estimates.append(total(credit, net, squared_error, chunk))
    for estimate in estimates[1:]:
        assert_same(estimate, estimates[0])


@pytest.mark.parametrize("credit", EVERY)
def test_nan_stands_for_no_target_and_errors_without_weight_settle_nothing(credit: Credit) -> None:
    net, chunk = network(layers=2), stream(12)
    assert chunk.y is not None
    assert chunk.mask is not None
    wanted = total(credit, net, squared_error, chunk)
    chunk.y[chunk.mask == 0] = float("nan")
    assert_same(total(credit, net, squared_error, chunk, (5,)), wanted)
    chunk.mask[:5] = 0
    memory = credit.start(net)
    estimate, memory = credit(net, squared_error, chunk[:5], memory)
    assert (estimate.loss.item(), estimate.count, estimate.grads) == (0, 0, {})
    estimate, _ = credit(net, squared_error, chunk[5:], memory)
    assert_same(estimate, total(credit, net, squared_error, chunk))


@pytest.mark.parametrize("credit", EVERY)
def test_memory_stays_flat_and_holds_no_graph(credit: Credit) -> None:
    net = network("lstm", layers=2)
    state = tuple(torch.randn(2, B, H, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    memory, sizes = credit.start(net, state), []
    for _ in range(6):
        part = stream(3)
        estimate, memory = credit(net, squared_error, Chunk(part.x, part.y, part.mask, part.reset), memory)
        sizes.append(footprint(memory))
        tensors = [estimate.loss, *estimate.grads.values(), *flatten(memory)[1].values()]
        assert not any(tensor.requires_grad for tensor in tensors)
    assert len(set(sizes[1:])) == 1


@pytest.mark.parametrize("credit", EVERY)
def test_an_empty_chunk_may_end_the_stream(credit: Credit) -> None:
    net, chunk = network(), stream(7)
    wanted = total(credit, net, squared_error, chunk)
    assert_same(total(credit, net, squared_error, chunk, (0, 3, 7)), wanted)


@pytest.mark.parametrize("credit", EVERY)
def test_streams_that_cannot_be_learned_from_are_refused(credit: Credit) -> None:
    net, chunk = network(), stream(6)
    with pytest.raises(ValueError, match="y must be there to learn from"):
        credit(net, squared_error, Chunk(chunk.x, end=True), credit.start(net))
    net.requires_grad_(False)
    with pytest.raises(ValueError, match="net must have parameters that learn; got none"):
        credit(net, squared_error, chunk, credit.start(net))


@pytest.mark.parametrize(
    ("spelling", "sentence"),
    [
        ("snap:n=0", "n must be a whole number of steps, at least 1; got 0."),
        ("uoro:seed=-1", r"seed must be a whole number from 0 to 2\*\*64 - 1; got -1."),
        ("rflo:feedback=-1", r"feedback must be a whole number from 0 to 2\*\*64 - 1; got -1."),
        ("rtrl:h=3", "credit 'rtrl' has no options; got 'h=3'."),
    ],
)
def test_arguments_that_cannot_be_are_refused(spelling: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        credit_named(spelling)


@pytest.mark.parametrize("credit", EVERY)
def test_they_train_by_their_names(credit: Credit) -> None:
    torch.manual_seed(0)
    net = network("elman")
    parts = [torch.randn(8, B, I, dtype=DOUBLE) for _ in range(60)]
    chunks = [Chunk(x, x.repeat(1, 1, 3)[..., :A].roll(1, 0), end=x is parts[-1]) for x in parts]
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    records = tt.train(net, chunks, loss="squared", credit=spell_credit(credit), optimizer=optimizer, epochs=1)
    losses = [record.loss for record in records]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])
