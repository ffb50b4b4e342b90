"""SequenceNetwork: each readout against its definition, whatever stands beside a sequence or how a call is cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from throughtime.nets import build, parameters_of
from throughtime.sequence_network import SequenceNetwork, Windowed, _RunningMax, windowed_like

READS = ["last", "mean", "max", "last+mean+max", "max+last"]
LENGTHS = [1, 2, 3, 7]


def make(reads: str = "last", **options: Any) -> SequenceNetwork:
    options = {"inputs": 3, "units": 4, "outputs": 2, **options}
    return SequenceNetwork(options.pop("cell", "gru"), reads=reads, **options).double().eval()


def defined(net: SequenceNetwork, h: torch.Tensor) -> torch.Tensor:
    """The summary of one sequence's outputs (T, H) by the words of the module."""
    H = net.layers.units
    last = torch.cat((h[-1, :H], h[0, H:]))
    found = {"last": last, "mean": h.mean(0), "max": h.max(0).values}
    return torch.cat([found[part] for part in net.parts])


@pytest.mark.parametrize("reads", READS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_readouts_by_definition(reads: str, bidirectional: bool, layers: int) -> None:
    """Sequences one after the other in a row, with padding behind: each has the answer it has alone."""
    net = make(reads, bidirectional=bidirectional, layers=layers)
    sequences = [torch.randn(steps, 3).double() for steps in LENGTHS]
    row = torch.cat([*sequences, torch.randn(2, 3).double()])[:, None]
    other = torch.randn(len(row), 1, 3).double()
    ends = torch.tensor(LENGTHS).cumsum(0)
    reset = torch.zeros(len(row), 2, dtype=torch.bool)
    reset[0] = True
    reset[ends, 0] = True
    y, _ = net(torch.cat((row, other), 1), None, reset)
    for sequence, end in zip(sequences, ends.tolist(), strict=True):
        h, _ = net.layers(sequence[:, None], None, None)
        wanted = net.readout(defined(net, h[:, 0]))
        torch.testing.assert_close(y[end - 1, 0], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reads", ["each", *READS])
@pytest.mark.parametrize("cell", ["gru", "lstm", "mlp"])
@pytest.mark.parametrize("cuts", [[1, 8], [4, 5], [1] * 9])
def test_a_call_may_stop_anywhere(reads: str, cell: str, cuts: list[int]) -> None:
    """Outputs and gradients of a stream are the same in one call and in several, restarts among them."""
    net = make(reads, cell=cell, window=3 * (cell == "mlp"))
    x, reset = torch.randn(9, 5, 3).double(), torch.rand(9, 5) < 0.3
    whole, _ = net(x, None, reset)
    parts, state = [], None
    for piece, cut in zip(x.split(cuts), reset.split(cuts), strict=True):
        y, state = net(piece, state, cut)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole, rtol=1e-12, atol=1e-12)
    errors = torch.randn_like(whole)
    weights = list(net.parameters())
    for found, wanted in zip(
        torch.autograd.grad((torch.cat(parts) * errors).sum(), weights),
        torch.autograd.grad((whole * errors).sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("window", [1, 2, 5, 20])
@pytest.mark.parametrize("layers", [1, 2])
def test_windowed_by_definition(window: int, layers: int) -> None:
    """What an MLP says of the last inputs of the sequence, zeros before its start."""
    net = Windowed(inputs=2, units=3, window=window, layers=layers).double()
    x, reset = torch.randn(11, 3, 2).double(), torch.rand(11, 3) < 0.2
    h, _ = net(x, None, reset)
    for t in range(11):
        for b in range(3):
            start = max([s for s in range(t + 1) if reset[s, b]], default=0)
            near = [x[t - back, b] if t - back >= start else torch.zeros(2).double() for back in range(window)]
            wanted = torch.cat(near)
            for layer in net.hidden:
                wanted = layer(wanted).relu()
            torch.testing.assert_close(h[t, b], wanted)


@pytest.mark.parametrize("embedding", [0, 5])
def test_ids(embedding: int) -> None:
    """Ids are one-hot rows, or rows of a table; the network without memory reads them too."""
    ids = torch.randint(0, 3, (6, 2))
    for options in ({}, {"cell": "mlp", "window": 2}, {"bidirectional": True}):
        net = make("last+mean", embedding=embedding, **options)
        y, _ = net(ids)
        table = torch.eye(3).double() if net.embed is None else net.embed.weight
        wanted = SequenceNetwork(
            **{k: v for k, v in net.config().items() if k != "network"} | {"inputs": embedding or 3, "embedding": 0}
        ).double()
        wanted.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("embed")})
        torch.testing.assert_close(y, wanted(table[ids])[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("reads", ["last", "last+mean+max"])
@pytest.mark.parametrize("window", [1, 4, 16])
@pytest.mark.parametrize("layers", [None, 1, 3])
def test_as_many_weights_without_memory(reads: str, window: int, layers: int | None) -> None:
    """No number of units is nearer."""
    net = make(reads, units=20, bidirectional=True, layers=2)
    config = windowed_like(net, window, layers=layers)
    sizes = [parameters_of(build(config | {"units": config["units"] + more})) for more in (-1, 0, 1)]
    gaps = [abs(size - parameters_of(net)) for size in sizes]
    assert gaps[1] == min(gaps)


def test_noise_and_dropout_are_for_training() -> None:
    net = make(noise=0.5, dropout=0.5)
    x = torch.randn(4, 2, 3).double()
    assert torch.equal(net(x)[0], net(x)[0])
    net.train()
    assert not torch.equal(net(x)[0], net(x)[0])


def test_config_builds_the_same() -> None:
    for options in (
        {},
        {"bidirectional": True, "noise": 0.1},
        {"cell": "mlp", "window": 3},
        {"cell": "elman:phi=relu"},
    ):
        net = make("mean+max", **options)
        again = build(net.config()).double().eval()
        again.load_state_dict(net.state_dict())
        x = torch.randn(5, 2, 3).double()
        assert torch.equal(net(x)[0], again(x)[0])
        assert again.config() == net.config()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reads": "first"}, "reads must be each, last, mean, max, or several of these as last.mean; got 'first'"),
        ({"reads": "last+last"}, "reads must be"),
        ({"reads": "each+mean"}, "reads must be"),
        ({"noise": -1.0}, "noise must be a standard deviation of at least 0; got -1.0"),
        ({"window": 3}, "window must be at least 1 with the cell mlp, else 0; got 3 with 'gru'"),
        ({"cell": "mlp"}, "window must be at least 1 with the cell mlp"),
        ({"cell": "mlp", "window": 2, "bidirectional": True}, "bidirectional must be False with the cell mlp"),
        ({"units": 0}, "units must be at least 1"),
        ({"cell": "mlp", "window": 2, "dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_both_directions_need_whole_sequences() -> None:
    net = make("mean", bidirectional=True)
    x = torch.randn(3, 2, 3).double()
    with pytest.raises(ValueError, match="state must be None for a bidirectional network, which needs the future"):
        net(x, (None, None))
    whole = torch.zeros(3, 2, dtype=torch.bool)
    whole[0] = True
    assert net(x, (None, None), whole)[1] is None


def test_running_maximum_and_its_gradients() -> None:
    """By definition step by step; the gradient also reaches the maximum that is carried in."""
    torch.manual_seed(0)
    begins = torch.rand(7, 3) < 0.3
    begins[0] = torch.tensor([True, False, False])
    h, known = torch.randn(7, 3, 2, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    known[2] = 9.0  # no later step reaches it before a restart

    def plain(h: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        found, before = [], known
        for step, new in zip(h, begins, strict=True):
            before = torch.where(new[:, None], step, torch.maximum(step, before))
            found.append(before)
        return torch.stack(found)

    inputs = [h.requires_grad_(), known.requires_grad_()]
    found, wanted = _RunningMax.apply(h, known, begins), plain(h, known)
    assert torch.equal(found, wanted)
    weight = torch.randn_like(h)
    gradients = [torch.autograd.grad((m * weight).sum(), inputs) for m in (found, wanted)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
