"""The probe inside a training: what it measures, that it changes nothing, what it costs; and the share of clipped."""

from __future__ import annotations

import math

import pytest
import torch
from terminal import SMALL, run_command, story
from torch.nn.utils import parameters_to_vector
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import throughtime as tt
from throughtime import flow, loop, runs, training
from throughtime.chunk import Chunk
from throughtime.data import Text
from throughtime.training import train

__all__ = ["run_command"]

CREDITS = (
    "bptt:h=6,every=6",  # the chunks
    "bptt:h=5,every=5",  # steps wait from chunk to chunk
    "bptt:h=11,every=4",
    "bptt:h=11,every=4,replay=false",
    "bptt",
    "bptt:memory=64MB",
    "parallel:h=5",
    "random:mean=7",
    "adaptive:probe=8,again=20",
    "adaptive:probe=8,again=20,every=3",
    "rtrl",
    "snap:n=1",
    "rflo",
    "uoro",
)


def corpus() -> Text:
    return Text.of("the cat saw the dog; the dog saw a man, and the man ran far away from the cat. " * 3, split=None)


def network(cell: str = "lstm", **options) -> tt.Network:
    torch.manual_seed(0)
    size = corpus().size
    return tt.Network(cell, inputs=size, outputs=size, **{"units": 6, "embedding": 5, **options})


def still(net: torch.nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.0)


def weights(net: torch.nn.Module) -> torch.Tensor:
    return parameters_to_vector(net.parameters()).detach().clone()


# What it measures


@pytest.mark.parametrize("rate", [0.5, 0.9, 0.97, 0.999, 1.0])
def test_the_memory_of_a_known_decay(rate):
    """d loss_t / d h_{t-k} falls by a factor of W_h a step: a hundredth is left after ln 0.01 / ln W_h.

    The chunk shows 100 lags; what is longer is extrapolated, and exact here, as the decay is one factor.
    """
    net = tt.Network("elman:phi=identity", inputs=1, units=1, outputs=1).double()
    with torch.no_grad():
        net.layers.weight_hh_l0.fill_(rate)
    x = torch.randn(200, 2, 1, dtype=torch.float64)
    (record,) = train(net, [Chunk(x, x + 9, end=True)], loss="squared", optimizer=still(net), probe_every=1)
    wanted = math.log(0.01) / math.log(rate) if rate < 1 else math.inf
    assert record.memory == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("name", CREDITS)
def test_it_starts_from_the_state_that_was_carried_in(name, monkeypatch):
    """While no weight changes, from the state that the stream has at the beginning of the chunk."""
    seen: list[tuple[Chunk, tuple[torch.Tensor, ...]]] = []

    def probe(net, loss, chunk, *, state):
        seen.append((chunk, state))
        assert not net.training
        return flow.probe(net, loss, chunk, state=state)

    monkeypatch.setattr(loop, "probe", probe)
    chunks = corpus().chunks(2, 6)
    net = network(dropout=0.3).double()
    records = list(train(net, chunks, credit=name, optimizer=still(net), epochs=3, probe_every=1))
    assert len(seen) == len(records) > 2
    places = {chunks[index].x.numpy().tobytes(): index for index in range(len(chunks))}
    assert len(places) == len(chunks)
    net.eval()
    entering = [None]
    for index in range(3 * len(chunks)):
        passed = chunks[index % len(chunks)]
        with torch.no_grad():
            entering.append(net(passed.x, entering[-1], passed.reset)[1])
    for (chunk, state), record in zip(seen, records, strict=True):
        wanted = entering[places[chunk.x.numpy().tobytes()] + len(chunks) * record.epoch]
        assert (state is None) == (wanted is None)
        for part, other in zip(state or (), wanted or (), strict=True):
            torch.testing.assert_close(part, other, rtol=0, atol=1e-12)
        found = flow.probe(net, tt.cross_entropy, chunk, state=state)
        assert found.memory is None or record.memory == found.memory


def test_of_a_long_chunk_the_last_steps_are_measured(monkeypatch):
    monkeypatch.setattr(loop, "LONGEST", 7)
    net, (chunk,) = network("gru").double(), corpus().chunks(2, 10**6)
    (record,) = train(net, [chunk], optimizer=still(net), probe_every=1)
    with torch.no_grad():
        _, state = net(chunk[:-7].x, None, chunk[:-7].reset)
    assert record.memory == loop._memory_of(flow.probe(net, tt.cross_entropy, chunk[-7:], state=state))


def test_when_it_measures():
    for every, times in ((0, []), (3, [3, 6, 9]), (None, [])):
        records = train(network(), corpus().chunks(2, 6), updates=11, probe_every=every)
        assert [record.update for record in records if record.memory is not None] == times
    assert training.PROBE_EVERY > 11


class Stateless(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, x, state=None, reset=None):
        return self.layer(x), state


class Fixed(torch.nn.Module):
    """Runs on ten streams alone."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x, state=None, reset=None):
        state = torch.zeros(10, 1) if state is None else state
        y = self.weight * x + state.view(1, 10, 1)
        return y, y[-1]


def test_what_has_no_memory_gets_none():
    x = torch.randn(8, 10, 1)
    masked = Chunk(x, x, torch.zeros(8, 10))
    for net, chunks in (
        (tt.Window(inputs=1, units=3, outputs=1, window=3), [Chunk(x, x, end=True)]),
        (Stateless(), [Chunk(x, x, end=True)]),
        (Fixed(), [Chunk(x, x, end=True)]),
        (tt.Network("gru", inputs=1, units=3, outputs=1), [Chunk(x[:1], x[:1], end=True)]),
        (tt.Network("gru", inputs=1, units=3, outputs=1), [Chunk(x[:3], x[:3]), Chunk(x, x, masked.mask, end=True)]),
    ):
        credit = tt.BPTT() if len(chunks) > 1 else None
        (record,) = train(net, chunks, loss="squared", credit=credit, probe_every=1)
        assert record.memory is None


# It changes nothing


@pytest.mark.parametrize("name", CREDITS)
def test_the_training_is_the_same_bit_for_bit(name):
    found = []
    for every in (0, 1, 3):
        net = network(layers=2 if name.startswith("bptt") else 1, dropout=0.4)
        stream = corpus().chunks(2, 6)
        steps = train(net, stream, credit=name, clip=0.3, epochs=2, probe_every=every)
        losses = [(record.loss, record.norm, net.training) for record in steps]
        found.append((losses, weights(net), torch.get_rng_state()))
        assert all(parameter.grad is None for parameter in net.parameters())
        assert all(module.training and not module._forward_hooks for module in net.modules())
    for losses, vector, random in found[1:]:
        assert losses == found[0][0]
        assert torch.equal(vector, found[0][1])
        assert torch.equal(random, found[0][2])


def test_modes_of_modules_are_put_back():
    seen = []

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.drop = torch.nn.GRU(1, 2), torch.nn.Dropout(0.5)

        def train(self, mode: bool = True):
            super().train(mode)
            self.drop.train(False)
            return self

        def forward(self, x, state=None, reset=None):
            seen.append((self.training, self.drop.training))
            y, state = self.rnn(x, state)
            return self.drop(y), state

    net = Own()
    x = torch.randn(6, 2, 1)
    y = torch.randn(6, 2, 2)
    list(train(net, [Chunk(x, y, end=True)], loss="squared", epochs=3, probe_every=2))
    assert (net.training, net.drop.training) == (True, False)
    assert seen[0] == (True, False)
    assert (False, False) in seen


# What it costs


class Products(TorchDispatchMode):
    """Counts the multiplications of matrix products, those of backward too."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if func._overloadpacket in flop_registry:
            self.count += flop_registry[func._overloadpacket](*args, **(kwargs or {}), out_val=made) // 2
        return made


class Loop(torch.nn.Module):
    """A recurrence that is not the library's, in operations that can be counted."""

    def __init__(self, size: int, units: int) -> None:
        super().__init__()
        self.embed, self.cell = torch.nn.Embedding(size, units), torch.nn.GRUCell(units, units)
        self.readout = torch.nn.Linear(units, size)

    def forward(self, x, state=None, reset=None):
        outputs = []
        for step in self.embed(x):
            state = self.cell(step, state)
            outputs.append(state)
        return self.readout(torch.stack(outputs)), state


@pytest.mark.parametrize(("steps", "streams", "units"), [(64, 16, 64), (16, 4, 8), (35, 32, 48), (256, 8, 16)])
@pytest.mark.parametrize("kind", ["lstm", "gru", "elman", "a module"])
def test_it_costs_less_than_a_twentieth(kind, steps, streams, units):
    """Multiplications of one probe, spread over the updates to the next, and those of these updates. No clock."""
    net = Loop(40, units) if kind == "a module" else tt.Network(kind, inputs=40, outputs=40, units=units, embedding=8)
    if isinstance(net, tt.Network):
        net.layers.backend = "reference"  # the others do the same work, but not where it can be counted
    ids = torch.randint(40, (steps + 1, streams))
    chunk, credit = Chunk(ids[:-1], ids[1:]), tt.BPTT(h=steps, every=steps)
    with Products() as update:
        _, memory = credit(net, tt.cross_entropy, chunk, credit.start(net))
    with Products() as measurement:
        flow.probe(net, tt.cross_entropy, chunk, state=memory.state)
    assert update.count > 3 * steps * streams * units**2  # forward, back to h and back to W_h
    assert 0 < measurement.count < 0.05 * training.PROBE_EVERY * update.count


# The share of clipped updates


def test_the_share_is_that_of_the_last_updates(monkeypatch, tmp_path):
    monkeypatch.setattr(loop, "LAST", 5)
    options = {"clip": 0.36, "run": tmp_path / "run"}
    net = network()
    records = list(train(net, corpus().chunks(2, 6), updates=9, **options))
    records += train(net, corpus().chunks(2, 6), updates=18, resume=True, **options)
    clipped = [record.clipped for record in records]
    assert 0 < sum(clipped) < len(clipped) == 18
    for n, record in enumerate(records, 1):
        last = clipped[max(0, n - 5) : n]
        assert record.clip_share == sum(last) / len(last)
    assert all(record.clip_share is None for record in train(net, corpus().chunks(2, 6), updates=3))


# Arguments


@pytest.mark.parametrize("value", [-1, 2.5, True, "5"])
def test_what_probe_every_must_be(value):
    with pytest.raises(ValueError, match="probe_every must be a whole number of updates, or 0 for none"):
        train(network(), corpus().chunks(2, 6), probe_every=value)


def test_the_command_line_takes_it_and_keeps_it(run):
    text = ["train", "--text", story(2000), "--split", "none", *SMALL, "--run", "run"]
    assert run(*text, "--updates", "5", "--probe-every", "2").code == 0
    assert runs.load("run").config["training"]["probe_every"] == 2
    assert run("train", "--resume", "run", "--updates", "8").code == 0
    measured = [record["memory"] is not None for record in runs.load("run").records()]
    assert measured == [False, True] * 4
    assert "got --probe-every" in run("train", "--resume", "run", "--updates", "9", "--probe-every", "3").sentence
    answer = run("train", "--text", story(2000), "--cell", "mlp", "--probe-every", "3", "--run", "mlp")
    assert answer.code == 2
    assert "--probe-every must be left out with --cell mlp" in answer.sentence
