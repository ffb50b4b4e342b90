"""Epochwise BPTT under a memory budget: the same gradient, counted runs, the predicted peak, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughtime.chunk import Chunk
from throughtime.cli import main
from throughtime.credit import BPTT, Estimate, credit_named, spell_credit
from throughtime.credit import bptt as module
from throughtime.credit.checkpoint import operations
from throughtime.credit.epochwise import Stream, settle
from throughtime.credit.segments import segment_steps, sizes_of
from throughtime.layers import GRU
from throughtime.nets import Adapted, Network, Window, cross_entropy, squared_error
from throughtime.verify.credit import brute_force, compare, total

DOUBLE = torch.float64
B, I, H, A, T = 3, 2, 7, 5, 23
CELLS = ["elman", "elman:phi=relu", "gru", "lstm", "ctrnn:alpha=0.3"]


def network(cell: str = "gru", dtype: torch.dtype = DOUBLE, **options: Any) -> Network:
    return Network(cell, **{"inputs": I, "units": H, "outputs": A} | options).to(dtype)


def stream(steps: int = T, dtype: torch.dtype = DOUBLE) -> Chunk:
    """Numbers in and out, weights on the errors, restarts in mid-row."""
    mask = torch.rand(steps, B, dtype=dtype) * (torch.rand(steps, B) < 0.7)
    x, y = torch.randn(steps, B, I, dtype=dtype), torch.randn(steps, B, A, dtype=dtype)
    return Chunk(x, y, mask, torch.rand(steps, B) < 0.1, end=True)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of three steps, so that small streams have many."""
    monkeypatch.setattr(module, "segment_steps", lambda net, streams: 3)


def budgets(net: nn.Module, steps: int) -> list[int]:
    """The smallest budget, and those that hold two, three and all start states."""
    sizes = sizes_of(net, 3, B, torch.zeros(1, B, I, dtype=DOUBLE))
    return [sizes.working + sizes.kept + slots * sizes.state for slots in (1, 2, 3, -(-steps // 3) - 1)]


def same_bits(a: Estimate, b: Estimate) -> bool:
    grads = a.grads.keys() == b.grads.keys() and all(torch.equal(a.grads[name], b.grads[name]) for name in a.grads)
    return grads and torch.equal(a.loss, b.loss) and a.count == b.count


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("backend", ["auto", "reference", "torch"])
@pytest.mark.parametrize("dtype", [torch.float32, DOUBLE])
def test_the_gradient_under_any_budget_is_the_same_to_the_last_bit(
    cell: str, layers: int, backend: str, dtype: torch.dtype
) -> None:
    if backend == "torch" and cell.startswith("ctrnn"):
        pytest.skip("torch has none")
    net, chunk = network(cell, dtype, layers=layers, dropout=0.3 * (layers > 1), backend=backend), stream(dtype=dtype)
    torch.manual_seed(3)
    wanted, drawn = total(BPTT(), net, squared_error, chunk, (5,)), torch.rand(1)
    for slots in (1, 2, 3, 7):
        torch.manual_seed(3)
        given, state = settle(net, squared_error, Stream([chunk[:5], chunk[5:]]), None, 8, slots)
        assert same_bits(given, wanted)
        assert torch.equal(torch.rand(1), drawn)  # random numbers go on from where one pass leaves them
    if layers == 1:
        with torch.no_grad():
            _, last = net(chunk.x, None, chunk.reset)
        torch.testing.assert_close(state, last, rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_gradient_is_that_of_all_steps_unrolled(cell: str, layers: int) -> None:
    net, chunk = network(cell, layers=layers), stream()
    wanted = brute_force(net, squared_error, chunk, None, T)
    for memory in [None, *budgets(net, T)]:
        error, tolerance, _ = compare(total(BPTT(memory=memory), net, squared_error, chunk, (4, 4, 11)), wanted, T)
        assert error <= tolerance


@pytest.mark.usefixtures("short")
def test_ids_a_table_and_a_loss_at_the_last_step_alone() -> None:
    net = network("lstm", inputs=A, embedding=4, layers=2)
    mask = torch.zeros(T, B)
    mask[-1] = 1
    chunk = Chunk(torch.randint(0, A, (T, B)), torch.randint(0, A, (T, B)), mask, end=True)
    wanted = brute_force(net, cross_entropy, chunk, None, T)
    for slots in (None, 1, 2, 7):
        given, _ = settle(net, cross_entropy, Stream([chunk]), None, 8, slots)
        error, tolerance, _ = compare(given, wanted, T)
        assert error <= tolerance
    nothing, _ = settle(net, cross_entropy, Stream([Chunk(chunk.x, chunk.y, 0 * mask, end=True)]), None, 8, 2)
    assert (nothing.count, nothing.grads) == (0.0, {})


class Learned(nn.Module):
    """A module of one's own: it starts from a learned state, and its state is two tensors that share none."""

    def __init__(self) -> None:
        super().__init__()
        self.h0 = nn.Parameter(torch.randn(1, 1, H))
        self.lstm, self.out = nn.LSTM(I, H), nn.Linear(H, A)

    def forward(self, x: Tensor, state: Any = None, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        if state is None:
            state = tuple(self.h0.expand(1, x.shape[1], H).contiguous() for _ in range(2))
        h, state = self.lstm(x, state)
        return self.out(h), state


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize(
    "make",
    [
        Learned,
        lambda: Adapted(nn.GRU(I, A)),
        lambda: Adapted(GRU(I, A)),
        lambda: Window(inputs=I, units=H, outputs=A, window=4),
    ],
)
def test_other_modules_have_the_gradient_that_they_have_without_a_budget(make: Callable[[], nn.Module]) -> None:
    net, chunk = make().double(), stream()
    if isinstance(net, Learned):
        chunk = Chunk(chunk.x, chunk.y, chunk.mask, end=True)
    wanted = total(BPTT(), net, squared_error, chunk)
    for memory in budgets(net, T):
        given = total(BPTT(memory=memory), net, squared_error, chunk, (4, 11))
        error, _, _ = compare(given, wanted, T)
        assert error <= 1e-12
        assert given.grads.keys() == wanted.grads.keys()


@pytest.mark.usefixtures("short")
def test_the_runs_are_those_of_the_plan() -> None:
    """Every forward run of the layers is counted; a segment goes back once."""
    net, chunk = network("gru"), stream(90)
    runs: list[int] = []
    net.layers.register_forward_hook(lambda layer, given, made: runs.append(given[0].shape[0]))
    for memory, slots in zip(budgets(net, 90), (1, 2, 3, 29), strict=True):
        credit = BPTT(memory=memory)
        made = credit.plan(net, 90, B)
        assert made.slots == slots
        runs.clear()
        total(credit, net, squared_error, chunk)
        assert runs == [3] * made.forwards
        assert made.forwards == operations(30, slots)
        assert made.peak <= memory


def test_segments_know_the_network_and_the_streams_alone() -> None:
    small, large = network(units=8), network(units=64)
    assert segment_steps(small, 1) > segment_steps(small, 4) > segment_steps(large, 4) > 0
    for memory in (None, "1GB"):
        sizes = BPTT(memory=memory).plan(large, 3 * segment_steps(large, 4), 4)
        assert (sizes.segments, sizes.sizes.steps) == (3, segment_steps(large, 4))


@pytest.mark.usefixtures("short")
def test_a_smallest_budget_works_and_one_byte_less_is_refused() -> None:
    net, chunk = network("lstm"), stream()
    smallest = budgets(net, T)[0]
    assert total(BPTT(memory=smallest), net, squared_error, chunk).count
    with pytest.raises(ValueError, match=r"memory must be at least [0-9]+KB for this network and 3 streams"):
        total(BPTT(memory=smallest - 1), net, squared_error, chunk)


def test_what_cannot_be_cut_in_time_is_refused() -> None:
    both = Adapted(nn.GRU(I, H, bidirectional=True)).double()
    for act in (lambda credit: credit.start(both), lambda credit: credit.plan(both, 10, B, torch.zeros(1, B, I))):
        with pytest.raises(
            TypeError, match=r"net must read time forwards alone for a memory budget; .* bidirectional GRU"
        ):
            act(BPTT(memory="1GB"))
    with pytest.raises(ValueError, match="memory must go with epochwise BPTT, without h; got h=3, memory='1GB'"):
        BPTT(3, memory="1GB")
    with pytest.raises(ValueError, match="plan must be asked of epochwise BPTT, without h; got h=3"):
        BPTT(3).plan(network(), 10, 1)
    with pytest.raises(ValueError, match="x must be given for Learned"):
        BPTT(memory="1GB").plan(Learned(), 10, B)
    with pytest.raises(ValueError, match="steps must be at least 1; got 0"):
        BPTT().plan(network(), 0, 1)


def test_a_module_that_reads_both_ways_runs_whole_without_a_budget() -> None:
    both = Adapted(nn.GRU(I, A, bidirectional=True, batch_first=False)).double()
    chunk = Chunk(torch.randn(T, B, I, dtype=DOUBLE), torch.randn(T, B, 2 * A, dtype=DOUBLE), end=True)
    prediction, _ = both(chunk.x)
    assert chunk.y is not None
    grads = torch.autograd.grad(squared_error(prediction, chunk.y).sum(), list(both.parameters()))
    given = total(BPTT(), both, squared_error, chunk, (5,)).grads
    for (name, _), grad in zip(both.named_parameters(), grads, strict=True):
        torch.testing.assert_close(given[name], grad, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("text", ["256 MB", "256MB", 256_000_000, "256000000"])
def test_a_budget_has_one_spelling_in_records(text: Any) -> None:
    assert BPTT(memory=text) == BPTT(memory="256MB") == credit_named(f"bptt:memory={text}")
    assert spell_credit(BPTT(memory=text)) == "bptt:memory=256MB"
    assert credit_named("bptt:memory=none") == BPTT()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read as Linux tells it")
@pytest.mark.parametrize(("cell", "layers", "memory"), [("gru", 1, "16MB"), ("lstm", 2, "32MB"), ("elman", 1, "none")])
def test_the_peak_is_within_a_tenth_or_a_page_of_the_prediction(cell: str, layers: int, memory: str) -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "budget.py"
    flags = [f"--cell={cell}", f"--layers={layers}", f"--memory={memory}", "--steps=20000", "--units=128", "--json"]
    run = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout)
    predicted = found["peak"] / found["measured / predicted"]
    huge = 2.2e6  # where memory begins decides whether one more huge page of 2 MiB is touched
    assert abs(found["peak"] - predicted) <= max(0.1 * predicted, huge)


def test_the_command_line_says_the_plan_and_leaves_nothing_of_a_budget_too_small(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["train", "--text", "to be or not to be, that is the question " * 9, "--split", "none", "--updates", "1"]
    assert main([*given, "--credit", "bptt:memory=1kB", "--run", str(tmp_path / "a")]) == 2
    assert "memory must be at least" in capsys.readouterr().err
    assert not (tmp_path / "a").exists()
    assert main([*given, "--credit", "bptt:memory=500MB", "--run", str(tmp_path / "b")]) == 0
    assert "exact gradient through" in capsys.readouterr().err
