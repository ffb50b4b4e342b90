"""The verdict by behaviour: networks that forget, explode, are chaotic or keep; sentences, table, command."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from terminal import Run, numbers, run_command, story, trained_run
from torch import nn

from throughtime import flow
from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.flow.verdict import _percent
from throughtime.nets import Adapted, Network, cross_entropy

__all__ = ["run_command", "trained_run"]

A, B, UNITS = 5, 4, 24


def network(cell: str, gain: float | None = None, **options: int) -> Network:
    """W_h of each gate is gain times an orthogonal matrix."""
    net = Network(cell, **{"inputs": A, "units": UNITS, "outputs": A, **options})
    for name, weight in net.layers.named_parameters():
        if gain is not None and "weight_hh" in name:
            with torch.no_grad():
                for block in weight.chunk(net.layers.cell.gates):
                    block.copy_(gain * nn.init.orthogonal_(torch.empty_like(block)))
    return net


def tokens(steps: int = 240, rows: int = B) -> Chunk:
    ids = torch.randint(A, (steps, rows))
    return Chunk(ids, ids)


def measured(net: nn.Module, **options: int) -> flow.Flow:
    return flow.measure(net, cross_entropy, tokens(), **{"lags": 120, **options})


def learn(net: Network, updates: int) -> None:
    """To name the token it has just read, for which all that came before is noise."""
    optimizer, credit = torch.optim.AdamW(net.parameters(), 0.02, weight_decay=0.5), BPTT()
    for _ in range(updates):
        data = replace(tokens(30, 8), end=True)
        estimate, _ = credit(net, cross_entropy, data, credit.start(net))
        for name, weight in net.named_parameters():
            weight.grad = estimate.grads[name] / estimate.count
        optimizer.step()


def test_a_network_that_learns_to_forget_vanishes():
    net = network("elman", 1.0)
    with torch.no_grad():
        for name, weight in net.layers.named_parameters():
            weight.mul_(1 if "weight_hh" in name else 0.02)
    assert measured(net, h=35).word == "healthy"
    learn(net, 150)
    found = measured(net, h=35)
    half, gone, h, kept = numbers_in(found.verdict)
    assert found.verdict.startswith("vanishing: half of the error is gone after ")
    assert half == pytest.approx(found.whole.half_life, rel=0.06)
    assert gone == 99
    assert h == 35
    assert kept == pytest.approx(100 * found.kept.share(35), abs=1e-3)
    assert "BPTT(35) keeps" in found.verdict
    assert any(line.startswith("Cell: lstm or gru") for line in found.advice)
    assert any("orthogonal" in line for line in found.advice)


def numbers_in(sentence: str) -> list[float]:
    """half-life, the 99, h, and what is kept."""
    words = sentence.replace("BPTT(", " ").replace(")", " ").replace(",", " ").split()
    found = [float(word) for word in words if word[0].isdigit()]
    return [found[0], found[1], *found[-2:]]


def test_an_orthogonal_network_is_healthy_as_far_as_it_is_measured():
    found = measured(network("elman:phi=identity", 1.0))
    assert found.verdict == "healthy to 120 steps, as far as was measured: 100 % of the error is left there."
    assert found.advice == ()
    assert found.whole.decay.rate == pytest.approx(1, abs=1e-5)
    assert np.allclose(found.exponents, 0, atol=1e-5)
    assert found.whole.memory is None


def test_how_far_it_is_healthy_is_where_a_hundredth_is_left():
    found = measured(network("elman:phi=identity", 0.95), h=50)
    assert math.log(0.01) / math.log(0.95) == pytest.approx(89.8, abs=0.1)
    assert found.verdict.startswith("healthy to 89 steps: a hundredth of the error is left there; BPTT(50) keeps ")
    assert measured(network("elman:phi=identity", 0.95)).word == "vanishing"  # without an h, all lags asked for count
    assert measured(network("elman:phi=identity", 0.95), h=100).word == "vanishing"


def test_a_network_that_explodes():
    found = measured(network("elman:phi=identity", 1.1), h=35)
    assert found.verdict.startswith(
        "exploding: the error grows by a factor of 1.1 with every step back, over 120 steps"
    )
    assert f"by {1.1**120:.2g}; BPTT(35) keeps" in found.verdict
    assert any(line.startswith("Clipping: the norm of the gradient") for line in found.advice)
    assert any("its spectral radius is 1.1" in line for line in found.advice)
    assert any("phi=tanh" in line for line in found.advice)
    relu = measured(network("elman:phi=relu", 2.5))
    assert relu.word == "exploding"


def test_a_network_that_overflows_explodes_too():
    chunk = Chunk(torch.zeros(80, 2, dtype=torch.long), torch.zeros(80, 2, dtype=torch.long))
    net = network("elman:phi=identity", 9.0)
    with torch.no_grad():
        for weight in net.layers.parameters():
            weight.mul_(weight.dim() > 1)
        net.get_parameter("layers.weight_ih_l0").zero_()
    for module in (net, Adapted(net)):
        found = flow.measure(module, cross_entropy, chunk, lags=60)
        assert found.word == "exploding"
        json.loads(found.to_json())
        assert str(found)


@pytest.mark.parametrize("gain", [2.5, 4.0])
def test_a_chaotic_network(gain: float):
    """Sompolinsky, Crisanti and Sommers (1988): a random tanh net is chaotic when its gain is well above 1."""
    net = network("elman", units=100)
    nn.init.normal_(net.get_parameter("layers.weight_hh_l0"), std=gain / 10)
    found = measured(net, h=35)
    assert found.word == "chaotic"
    assert found.exponents[0] > 0.02
    assert f"Lyapunov exponent {found.exponents[0]:.2g})" in found.verdict
    assert any("spectral radius" in line for line in found.advice)


class Two(nn.Module):
    """Its error goes back through a, multiplied by `gain` a step; b is chaotic, and the error is blind to it."""

    def __init__(self, gain: float) -> None:
        super().__init__()
        self.gain, self.W, self.out = gain, nn.init.normal_(torch.empty(50, 50), std=3 / 50**0.5), nn.Linear(A, A)

    def forward(self, x, state=None, reset=None):
        a, b = state or (torch.zeros(x.shape[1], A), torch.ones(x.shape[1], 50))
        outputs = []
        for step in nn.functional.one_hot(x, A).float():
            a, b = self.gain * a + 0.01 * step, torch.tanh(b @ self.W)
            outputs.append(self.out(a))
        return torch.stack(outputs), (a, b)


def test_a_state_that_grows_explodes_in_any_module():
    found = measured(Two(1.15), lags=40)  # beside which the exponent of b, about ln 1.2, is nothing special
    assert found.verdict.startswith("exploding: the error grows by a factor of 1.15 with every step back")
    assert f"by {1.15**39:.2g}." in found.verdict


def test_chaos_that_the_error_does_not_see_is_not_called_so():
    found = measured(Two(0.9), lags=60)
    assert found.exponents[0] > 0.04
    assert found.word == "vanishing"


def test_gates_that_forget_are_named_and_a_bias_mends_them():
    for cell, gate, block in (("lstm", "f", 1), ("gru", "z", 1)):
        net = network(cell)
        found = measured(net)
        assert found.word == "vanishing"
        (line,) = [line for line in found.advice if f"the gate {gate} holds only" in line]
        assert numbers(line)[-1] == pytest.approx(100 * found.activity["layer 1"].gates[gate].mean, rel=0.01)
        with torch.no_grad():
            net.get_parameter("layers.bias_ih_l0")[block * UNITS : (block + 1) * UNITS] = 6
        found = measured(net)
        assert found.word == "healthy"
        assert not any("bias" in line for line in found.advice)


def test_a_state_that_is_cut_off_is_said():
    class Detached(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.out = nn.GRU(A, 6), nn.Linear(6, A)

        def forward(self, x, state=None, reset=None):
            h, state = self.cell(nn.functional.one_hot(x, A).float(), None if state is None else state.detach())
            return self.out(h), state

    found = measured(Detached())
    assert found.verdict.startswith("vanishing: no error goes back a single step; the state is detached")
    assert found.advice[0].startswith("Code: whether the state is detached")


def test_restarts_at_every_step_leave_nothing_to_say():
    data = tokens(20)
    found = flow.measure(network("gru"), cross_entropy, replace(data, reset=torch.ones(20, B, dtype=torch.bool)))
    assert found.verdict.startswith("unmeasured: no error goes back a step;")
    assert found.exponents is None
    assert str(found)


def test_an_h_that_cuts_too_much_or_goes_too_far_is_said():
    found = measured(network("elman:phi=identity", 1.0), h=4)
    assert any(line.startswith("h: a larger one; BPTT(4) cuts off") for line in found.advice)
    found = measured(network("elman"), h=100)
    (line,) = [line for line in found.advice if line.startswith("h: ")]
    h = found.kept.smallest_h(0.01)
    assert line.startswith(f"h: {h} is enough as it is; BPTT({h}) is off by at most 1 %")


def test_clipping_that_sets_the_step_is_said():
    clipped = flow.clipping([{"norm": norm} for norm in (0.5, 2.0, 3.0, 4.0)], 1.0)
    found = measured(network("elman:phi=identity", 1.0), clipping=clipped)
    (line,) = found.advice
    assert line.startswith("Clipping: 75 % of the updates were clipped to 1, which sets the step then; raise it")
    assert "gradient norm, 4 updates (10, 50, 90 %)" in str(found)
    assert "75 % clipped to 1" in str(found)
    found = measured(network("elman:phi=identity", 1.1), clipping=clipped)
    assert any("to less than 1, by which 75 % of the updates were clipped" in line for line in found.advice)


def test_units_that_are_saturated_or_dead_are_said():
    net = network("elman")
    with torch.no_grad():
        net.get_parameter("layers.weight_ih_l0").mul_(100)
    found = measured(net)
    assert any(line.startswith("Scale: smaller inputs or weights; ") for line in found.advice)
    net = network("elman:phi=relu")
    with torch.no_grad():
        net.get_parameter("layers.bias_ih_l0")[: UNITS // 2] = -9
    assert any(
        line.startswith("Units: ") and f"of {UNITS} in layer 1 never move" in line for line in measured(net).advice
    )


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.5, "50 %"),
        (0.98765, "98.8 %"),
        (0.995, "99.5 %"),
        (0.9999, "99.99 %"),
        (0.99993, "99.993 %"),
        (0.9999999, "100 %"),
        (1.0, "100 %"),
        (1.01, "101 %"),
        (0.0, "0 %"),
    ],
)
def test_shares_have_as_many_digits_as_tell_them_from_all(share: float, words: str):
    assert _percent(share) == words


@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "elman:phi=identity"])
@pytest.mark.parametrize("options", [{}, {"layers": 3}])
def test_the_table_fits_a_terminal_and_json_holds_the_numbers(cell: str, options: dict):
    clipped = flow.clipping([{"norm": 0.5}, {"norm": 3e-7}], 0.25)
    found = measured(network(cell, **options), h=35, clipping=clipped)
    lines = str(found).splitlines()
    assert not [line for line in lines if len(line) > 80]
    assert " ".join(" ".join(lines).split()).startswith(found.verdict)
    read = json.loads(found.to_json(), parse_constant=lambda name: pytest.fail(name))
    assert read["verdict"] == found.verdict
    assert read["whole"]["mean"] == pytest.approx(found.whole.mean.tolist())
    assert read["whole"]["decay"]["rate"] == found.whole.decay.rate
    assert set(read["parts"]) == set(found.parts)
    assert read["exponents"] == found.exponents.tolist()
    assert read["kept"]["h"] == found.kept.h.tolist()
    assert len(next(iter(read["spectra"].values()))["eigenvalues"]) == UNITS
    assert read["clipping"]["bound"] == 0.25


# The command


def test_the_command_says_what_measure_finds(run: Run, trained: Path):
    answer = run("flow", trained)
    assert answer.code == 0
    assert answer.err == ""
    head, *lines = answer.out.splitlines()
    assert head == f"{trained}, 256 steps of its validation part"
    assert lines[0].split()[0].strip(":") in ("vanishing", "healthy", "exploding", "chaotic")
    assert "BPTT(16)" in answer.out  # the truncation of the run
    assert "clipped to 1" in answer.out
    assert not [line for line in lines if len(line) > 80]


def test_the_command_takes_a_file_and_writes_json(run: Run, trained: Path):
    Path("other.txt").write_text(story(3000, seed=3))
    answer = run("flow", trained, "other.txt", "--lags", 20, "--samples", 3, "--steps", 50, "--json")
    assert answer.code == 0
    read = json.loads(answer.out)
    assert read["whole"]["lags"] == list(range(21))
    assert len(read["whole"]["at"]) == 3
    assert max(read["whole"]["at"]) == 49
    assert read["h"] == 16


def test_the_command_measures_a_short_text_as_far_as_it_goes(run: Run, trained: Path):
    Path("short.txt").write_text(story(3000)[:41])
    answer = run("flow", trained, "short.txt", "--json")
    assert answer.code == 0
    assert json.loads(answer.out)["whole"]["lags"][-1] == 20


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "run must be a folder that `train` made; nowhere does not exist."),
        (["RUN", "missing.txt"], "missing.txt"),
        (
            ["RUN", "--lags", "50", "--steps", "50"],
            "--steps must be above --lags, 50; got 50. Raise --steps or lower --lags.",
        ),
        (
            ["RUN", "short.txt", "--lags", "30"],
            "the text must have at least 61 tokens to read 60 steps; short.txt has 41. ",
        ),
        (["RUN", "short.txt", "--steps", "60"], "Lower --steps, or give a longer FILE."),
        (["RUN", "--lags", "0"], "--lags"),
        (["RUN", "--samples", "0"], "--samples"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_2(run: Run, trained: Path, words: list[str], sentence: str):
    Path("short.txt").write_text(story(3000)[:41])
    answer = run("flow", *(trained if word == "RUN" else word for word in words))
    assert answer.code == 2
    assert answer.out == ""
    assert sentence in answer.sentence
