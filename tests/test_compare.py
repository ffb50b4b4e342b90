"""Algorithms side by side: every number against its definition, by brute force in float64; and the command."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from shutil import copytree
from typing import Any

import pytest
import torch
from credit_case import CELLS, network, stream
from terminal import run_command, trained_run
from torch import Tensor, nn

import throughtime as tt
from throughtime.chunk import Chunk
from throughtime.comparing import _part
from throughtime.comparison import Comparison, Curve
from throughtime.credit import BPTT, RTRL, UORO, Credit, ParallelBPTT
from throughtime.nets import Adapted, Network, squared_error
from throughtime.state import State
from throughtime.verify.credit import brute_force

__all__ = ["run_command", "trained_run"]


def flat(net: nn.Module, grads: dict[str, Tensor]) -> Tensor:
    return torch.cat([grads.get(name, torch.zeros_like(w)).flatten() for name, w in net.named_parameters()])


def gradients(net: nn.Module, windows: list[Chunk], h: int | None, every: int = 1) -> Tensor:
    """The gradient of every window by its definition, the state carried on, (W, P)."""
    found, state = [], None
    for window in windows:
        found.append(flat(net, brute_force(net, squared_error, window, h, every, state).grads))
        with torch.no_grad():
            _, state = net(window.x, state, window.reset)
    return torch.stack(found)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_every_figure_by_its_definition(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream(14, axes=1 + layers)
    windows = [replace(chunk[:7], end=True), chunk[7:]]
    exact = gradients(net, windows, None)
    g = exact.mean(0)
    found = tt.compare(net, chunk, ["bptt:h=3,every=2"], loss=squared_error, windows=2)
    errors = gradients(net, windows, 3, 2) - exact
    part = found.rows[1].whole
    given = g + errors.mean(0)
    spread = errors.std(0).norm()
    assert part.error == pytest.approx(float(errors.mean(0).norm() / g.norm()), rel=1e-9)
    assert part.cosine == pytest.approx(float(torch.cosine_similarity(given, g, dim=0)), rel=1e-9)
    assert part.kept == pytest.approx(float(given @ g / (g @ g)), rel=1e-9)
    assert part.spread == pytest.approx(float(spread / g.norm()), rel=1e-9)
    assert part.doubt == pytest.approx(float(spread / g.norm() / 2**0.5), rel=1e-9)
    assert found.noise == pytest.approx(float(exact.std(0).norm() / g.norm()), rel=1e-9)
    assert found.rows[0].whole.error == 0
    for h, error, kept in zip(found.curve.h, found.curve.error, found.curve.kept, strict=True):
        cut = gradients(net, windows, h).mean(0)
        assert error == pytest.approx(float((cut - g).norm() / g.norm()), rel=1e-8, abs=1e-12)
        assert kept == pytest.approx(float(cut @ g / (g @ g)), rel=1e-9)
    assert found.curve.h == tuple(range(1, 8))
    assert sum(found.curve.share) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("kind", ["window", "fully recurrent", "frozen"])
def test_other_networks_by_their_definition(kind: str) -> None:
    """Three windows of 4, 5 and 4 steps: the curve and its shares too."""
    net: nn.Module = network("gru", layers=2)
    chunk = stream(13, axes=3)
    if kind == "window":
        net = tt.Window(inputs=2, units=4, outputs=5, window=3).double()
    if kind == "fully recurrent":
        net = tt.FullyRecurrent(units=6, inputs=2, visible=5).double()
    if kind == "frozen":
        net.get_parameter("layers.weight_ih_l0").requires_grad_(False)
    windows = [replace(chunk[a:b], end=True) for a, b in ((0, 4), (4, 9), (9, 13))]
    g = gradients(net, windows, None).mean(0)
    found = tt.compare(net, chunk, ["bptt:h=3,every=2"], loss=squared_error, windows=3)
    cut = gradients(net, windows, 3, 2).mean(0)
    assert found.steps == 5
    assert found.rows[1].whole.error == pytest.approx(float((cut - g).norm() / g.norm()), rel=1e-8, abs=1e-12)
    before = torch.zeros_like(g)
    for (_, last), share, norm in zip(found.curve.ranges, found.curve.share, found.curve.norm, strict=True):
        back = gradients(net, windows, last + 1).mean(0)
        assert share == pytest.approx(float((back - before) @ g / (g @ g)), abs=1e-10)
        assert norm == pytest.approx(float((back - before).norm() / g.norm()), abs=1e-10)
        before = back


def test_blocks_are_parts_of_the_gradient() -> None:
    torch.manual_seed(0)
    net = Network("lstm", inputs=5, units=4, outputs=5, layers=2, embedding=3).double()
    ids = torch.randint(0, 5, (13, 3))
    chunk = Chunk(ids[:-1], ids[1:], end=True)
    row = tt.compare(net, chunk, "bptt:h=2", windows=2).rows[1]
    assert list(row.blocks) == ["embed", "l0 W_x", "l0 W_h", "l0 b", "l1 W_x", "l1 W_h", "l1 b", "readout"]
    assert row.blocks["readout"].error < 1e-12
    states = net(chunk.x[:6])[1]
    exact, cut = (
        sum(
            brute_force(net, tt.cross_entropy, part, h, 1, state).grads["layers.weight_hh_l0"]
            for part, state in ((replace(chunk[:6], end=True), None), (chunk[6:], tuple(s.detach() for s in states)))
        )
        for h in (None, 2)
    )
    assert row.blocks["l0 W_h"].error == pytest.approx(float((cut - exact).norm() / exact.norm()), rel=1e-8)


def test_what_is_kept_by_lag_is_all_up_to_h_and_nothing_beyond() -> None:
    net, chunk = network("gru"), stream(32, axes=2)
    found = tt.compare(net, chunk, [ParallelBPTT(4), "rtrl"], loss=squared_error, windows=2)
    assert found.curve.ranges == ((0, 0), (1, 1), (2, 3), (4, 7), (8, 15))
    for row, wanted in zip(found.rows, ((1, 1, 1, 1, 1), (1, 1, 1, 0, 0), (1, 1, 1, 1, 1)), strict=True):
        for given, value in zip(row.lags, wanted, strict=True):
            assert given is None or given == pytest.approx(value, abs=1e-3)  # what is taken for rounding may move it
        assert row.lags[0] is not None
    assert found.rows[2].whole.error < 1e-10


def test_random_ones_have_no_bias_and_biased_ones_no_draws() -> None:
    net, chunk = network("elman"), stream(24)
    draws = 40
    found = tt.compare(net, chunk, ["uoro", "random:mean=4", "bptt:h=1"], loss=squared_error, windows=2, draws=draws)
    for row in found.rows[1:3]:
        assert row.draws == draws
        assert row.whole.bias < row.whole.doubt
        assert row.whole.kept == pytest.approx(1, abs=4.5 * row.whole.doubt)
        assert row.whole.error**2 == pytest.approx(row.whole.spread**2, rel=0.1)
    assert found.rows[3].draws == 0
    again = tt.compare(net, chunk, [UORO(seed=7)], loss=squared_error, windows=2, draws=3).rows[1]
    assert again.whole != found.rows[1].whole
    assert again.whole == tt.compare(net, chunk, "uoro:seed=7", loss=squared_error, windows=2, draws=3).rows[1].whole


def test_the_noise_of_few_draws_is_not_taken_for_bias() -> None:
    g = torch.randn(500, dtype=torch.float64)
    errors = 3 * torch.randn(10, 500, dtype=torch.float64)
    none, some = _part(errors, g, single=True), _part(errors + 2 * g, g, single=True)
    assert none.bias < none.doubt
    assert some.bias == pytest.approx(2, rel=0.1)
    alone = _part(errors[:1], g, single=True)
    assert math.isnan(alone.spread)
    assert math.isnan(_part(errors, 0 * g, single=True).error)


def test_the_smallest_h_is_one_from_which_on_all_keep_to_the_tolerance() -> None:
    curve = Curve((1, 2, 3, 4), (0.5, 0.05, 0.2, 0.01), (), (), (), ())
    assert curve.smallest(0.1) == 4
    assert curve.smallest(0.2) == 2
    assert curve.smallest(0.001) is None


def test_other_networks_are_searched_with_bptt() -> None:
    class Plain(nn.Module):
        def __init__(self, net: Network) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: Tensor, state: State = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
            return self.net(x, state, reset)

    net, chunk = network("gru"), stream(16)
    same = tt.compare(net, chunk, "bptt:h=4", loss=squared_error, windows=1)
    found = tt.compare(Plain(net), chunk, "bptt:h=4", loss=squared_error, windows=1)
    errors = dict(zip(same.curve.h, same.curve.error, strict=True))
    assert {1, 2, 4, 8, 16} <= set(found.curve.h)
    for h, error in zip(found.curve.h, found.curve.error, strict=True):
        assert error == pytest.approx(errors[h], rel=1e-8, abs=1e-12)
    assert found.smallest_h == same.smallest_h
    with pytest.raises(TypeError, match="ParallelBPTT"):
        tt.compare(Plain(net), chunk, "parallel", loss=squared_error)
    adapted = Adapted(nn.GRU(2, 2).double())
    chunk = Chunk(torch.randn(8, 2, 2).double(), torch.randn(8, 2, 2).double(), end=True)
    assert tt.compare(adapted, chunk, RTRL(), loss=squared_error, windows=2).rows[1].whole.error < 1e-10


def test_nothing_of_the_network_changes() -> None:
    net, chunk = Network("gru", inputs=3, units=4, outputs=2, layers=2, dropout=0.5).double(), None
    chunk = Chunk(torch.randn(12, 2, 3).double(), torch.randn(12, 2, 2).double(), end=True)
    drawn, before = torch.get_rng_state(), [w.clone() for w in net.parameters()]
    found = tt.compare(net, chunk, ["bptt:h=12,every=12", "uoro"], loss=squared_error, windows=2)
    assert found.rows[1].whole.error < 1e-12  # without dropout, which each would draw its own of
    assert net.training
    assert all(module.training for module in net.modules())
    assert torch.equal(drawn, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_memory_is_what_the_algorithm_holds() -> None:
    net, chunk = network("elman"), stream(24)
    chunks = [replace(chunk[t : t + 4], end=t == 20) for t in range(0, 24, 4)]
    whole, cut, rtrl = tt.compare(net, chunks, ["bptt:h=2", RTRL()], loss=squared_error, windows=1).rows
    assert whole.held > cut.held > 0
    assert whole.peak > 0
    numbers = sum(weight.numel() for weight in net.parameters())
    assert rtrl.held > 8 * net.layers.units * numbers / 2
    assert all(row.seconds > 0 for row in (whole, cut, rtrl))


def test_table_picture_and_json() -> None:
    net, chunk = network("lstm", layers=2), stream(40)
    credits: list[str | Credit] = ["bptt:h=2", "rflo", "uoro", "adaptive:tolerance=0.5,probe=12,again=12,maximum=7"]
    found = tt.compare(net, chunk, credits, loss=squared_error, windows=2, draws=2)
    table = str(found)
    assert table.isascii()
    assert max(map(len, table.splitlines())) <= 80
    assert "bptt:h=2 " in table
    assert "chose h=" in table
    numbers = json.loads(found.to_json())
    assert numbers["rows"][1]["whole"]["error"] == found.rows[1].whole.error
    assert numbers["smallest_h"] == found.smallest_h
    alone = tt.compare(net, chunk, "bptt:h=2", loss=squared_error, windows=1)
    assert json.loads(alone.to_json())["rows"][1]["whole"]["spread"] is None
    ax = found.plot()
    assert found.plot(ax) is ax
    assert next(line.get_label() for line in ax.lines).startswith("bptt:h")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"windows": 0}, "windows"),
        ({"windows": 99}, "windows must be at most 8"),
        ({"draws": 1}, "draws must be at least 2"),
        ({"tolerance": 0}, "tolerance"),
        ({"against": "uoro"}, "without random numbers"),
        ({"loss": "sofmax"}, "loss must be"),
    ],
)
def test_what_does_not_fit(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        tt.compare(network("elman"), stream(8), "rtrl", **{"loss": squared_error, **options})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"windows": 1.5}, "windows must be a whole number; got 1.5"),
        ({"draws": True}, "draws must be a whole number; got True"),
        ({"credits": [3]}, "credits must be algorithms or their spellings; got 3"),
    ],
)
def test_what_is_of_another_type(options: dict, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        tt.compare(network("elman"), stream(8), **{"credits": "rtrl", "loss": squared_error, **options})


def test_no_chunks_and_a_gradient_that_is_not_finite() -> None:
    net = network("elman")
    with pytest.raises(ValueError, match="chunks must hold one chunk at least; got none"):
        tt.compare(net, [], "rtrl", loss=squared_error)
    net.layers.weight_hh_l0.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match="net must have a finite gradient to compare with; bptt gives NaN or infinity"):
        tt.compare(net, stream(8), "rtrl", loss=squared_error, windows=2)


def drawn(found: Comparison) -> None:
    """All that is shown can be made."""
    json.loads(found.to_json())
    assert max(map(len, str(found).splitlines())) <= 80
    found.plot().figure.savefig(io.BytesIO(), format="svg")


def test_a_gradient_of_zero_is_said_once() -> None:
    chunk = stream(8)
    chunk = replace(chunk, mask=torch.zeros_like(chunk.mask))
    found = tt.compare(network("elman"), chunk, ["rtrl", "uoro"], loss=squared_error, windows=2)
    assert found.sentences() == ["The gradient is zero, so there is nothing to compare."]
    drawn(found)


def test_an_algorithm_whose_gradient_is_not_finite_is_named() -> None:
    class Broken(BPTT):
        def __call__(self, *args: Any) -> Any:
            estimate, memory = super().__call__(*args)
            return replace(estimate, grads={name: grad * math.inf for name, grad in estimate.grads.items()}), memory

    found = tt.compare(network("elman"), stream(8), [Broken(3)], loss=squared_error, windows=2)
    assert "gives a gradient that is not finite." in found.sentences()[0]
    drawn(found)


@pytest.mark.parametrize("tolerance", [1e-300, 1e-3, 1e30])
def test_any_tolerance_makes_sentences(tolerance: float) -> None:
    found = tt.compare(network("elman"), stream(8), "uoro", loss=squared_error, windows=2, draws=2, tolerance=tolerance)
    drawn(found)
    assert max(map(len, " ".join(found.sentences()).split())) < 35
    if tolerance == 1e30:
        assert "must go back 1 step: bptt:h=1 is" in found.sentences()[-1]


# The command


def test_the_command_on_a_run(trained, run, tmp_path):
    words = ("compare", trained, "--credit", "bptt:h=2", "--steps", "8", "--streams", "1", "--windows", "2")
    answer = run(*words, "--picture", str(tmp_path / "it.png"))
    assert answer.code == 0
    assert "with its trained weights" in answer.out
    assert "bptt:h=2 " in answer.out
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    numbers = json.loads(run(*words, "--json").out)
    assert [row["credit"] for row in numbers["rows"]][::2] == ["bptt", "bptt:h=2"]
    assert numbers["steps"] == 8


def test_the_command_on_a_file_says_that_it_is_untrained(run, tmp_path):
    (tmp_path / "a.txt").write_text("to be or not to be, that is the question " * 20)
    answer = run("compare", str(tmp_path / "a.txt"), "--units", "4", "--steps", "16", "--windows", "2")
    assert answer.code == 0
    assert "untrained" in answer.out


def test_the_command_refuses(trained, run, tmp_path):
    for words, said in (
        (["compare"], "RUN, FILE or --shipped must be given: the folder of a run"),
        (
            ["compare", str(tmp_path)],
            "must be the folder of a run, with config.toml, or of .txt files;",
        ),
        (["compare", trained, "--steps", "99999"], "--steps must be at most 1"),
        (["compare", trained, "--against", "bppt"], "Did you mean 'bptt'?"),
        (["compare", trained, "--tolerance", "0"], "for --tolerance. Must be > 0"),
        (["compare", trained, "--draws", "1"], "for --draws. Must be >= 2"),
        (["compare", trained, "--units", "4"], "--units must be left out"),
        (["compare", trained, "--windows", "9999"], "--windows must be at most"),
        (["compare", trained, "--picture", "it.gif"], "--picture must end in"),
        (["compare", trained, "--credit", "uro"], "Did you mean 'uoro'?"),
        (["compare", str(tmp_path / "none.txt")], "none.txt"),
    ):
        answer = run(*words)
        assert answer.code == 2, words
        assert said in answer.sentence


def test_the_command_refuses_runs_of_other_kinds(trained, run, tmp_path):
    damaged = copytree(trained, tmp_path / "damaged")
    config = (damaged / "config.toml").read_text().splitlines()
    (damaged / "config.toml").write_text("\n".join(line for line in config if not line.startswith("streams")))
    answer = run("compare", damaged)
    assert answer.code == 2
    assert answer.sentence.endswith("config.toml is damaged: it has no 'streams'. Restore it, or train again.")
    chunk = Chunk(torch.randn(8, 2, 3), torch.randn(8, 2, 1), end=True)
    net = Network("gru", inputs=3, units=4, outputs=1)
    list(tt.train(net, [chunk], loss="squared", updates=1, run=str(tmp_path / "numbers")))
    answer = run("compare", tmp_path / "numbers")
    assert answer.code == 2
    assert "was not trained on a text" in answer.sentence
