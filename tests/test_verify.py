"""The laws hold, and each of them can fail: cells and algorithms with one mistake are caught."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from throughtime import verify
from throughtime.cells import GRU, Cell, Elman, cells
from throughtime.cells.base import Gates, Kept
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Credit, Estimate, algorithms
from throughtime.nets import Loss
from throughtime.shapes import Slots
from throughtime.verify import Result
from throughtime.verify.credit import LAWS as CREDIT_LAWS
from throughtime.verify.credit import Case, brute_force
from throughtime.verify.result import distance, rounding
from throughtime.verify.shipped import variants


@pytest.mark.parametrize("name", verify.laws())
def test_the_laws_hold(name: str) -> None:
    results = list(verify.run([name]))
    assert results
    verify.require(results)


def test_every_name_has_its_laws() -> None:
    for name in cells | algorithms:
        assert any(spelling.partition(":")[0] == name for spelling in variants([name]))
    subjects = [result.subject for result in verify.run(["networks"])]
    for name in cells:
        assert any(subject.startswith(name) for subject in subjects)


def test_a_misspelt_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"names must be among textbook, cells, .*; got 'cell'"):
        list(verify.run(["cell"]))


def test_checks_leave_the_callers_random_numbers_alone() -> None:
    before = torch.get_rng_state()
    first = verify.check_cell("elman")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(1)
    second = verify.check_cell(Elman())
    assert [result.error for result in first] == [result.error for result in second]


@dataclass(frozen=True)
class Peephole(Cell):
    """Somebody's own cell, without a backward: an LSTM whose gates see c, its output gate the new one."""

    gates: ClassVar[int] = 4
    slots: ClassVar[int] = 2

    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        _, c_before = s
        a_i, a_f, a_g, a_o = (u + v).unbind(-2)
        i, f = torch.sigmoid(a_i + c_before), torch.sigmoid(a_f - c_before)
        c = f * c_before + i * torch.tanh(a_g)
        return (torch.sigmoid(a_o + c) * torch.tanh(c), c), (u, v, *s)


def test_a_cell_of_ones_own_needs_no_backward() -> None:
    results = verify.check_cell(Peephole())
    assert len(results) == 9
    assert {result.subject for result in results} == {"Peephole"}
    verify.require(results)


@dataclass(frozen=True)
class Wrong(GRU):
    """A GRU with one mistake."""

    mistake: str = ""

    def forward(self, u: Gates, v: Gates, s: Slots) -> tuple[Slots, Kept]:
        (h,), kept = super().forward(u, v, s)
        if self.mistake == "rows mixed":
            h = h + 1e-6 * h.mean(-2, keepdim=True)
        if self.mistake == "kept for the whole batch":
            kept = (*kept[:4], kept[4].sum(-2))
        if self.mistake == "too few slots":
            return (), kept
        if self.mistake == "in float32":
            return (h.float().to(h.dtype),), kept
        if self.mistake == "doubles in float32":
            return (h.double(),), kept
        if self.mistake == "worse than float32":
            return (h + (h.dtype == torch.float32) * 1e-3 * h.detach(),), kept
        return (h,), kept

    def backward(self, ds: Slots, kept: Kept) -> tuple[Gates, Gates, Slots]:
        du, dv, (dh,) = super().backward(ds, kept)
        match self.mistake:
            case "gates swapped":
                return du[..., [1, 0, 2], :], dv[..., [1, 0, 2], :], (dh,)
            case "r forgotten":
                return du, du, (dh,)
            case "the past forgotten":
                return du, dv, (torch.zeros_like(dh),)
            case "a constant off":
                return du, dv, (dh * (1 + 1e-9),)
            case "one gate short":
                return du[..., :2, :], dv, (dh,)
            case "a constant derivative":
                du, dv, (dh,) = super().backward(ds, tuple(part.detach() for part in kept))
        return du, dv, (dh,)


def broken(results: list[Result]) -> set[str]:
    return {result.law for result in results if not result.passed}


DERIVATIVE = "backward of the cell = derivative of its forward"
SWEEP = "gradient of the sweep = autograd through the loop"


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("gates swapped", DERIVATIVE),
        ("r forgotten", DERIVATIVE),
        ("the past forgotten", DERIVATIVE),
        ("a constant off", DERIVATIVE),
        ("gates swapped", SWEEP),
        ("the past forgotten", SWEEP),
        ("gates swapped", "backward of the cell = finite differences"),
        ("rows mixed", "all steps at once = each step and row alone"),
        ("kept for the whole batch", "the shapes of states, gates and what is kept"),
        ("too few slots", "the shapes of states, gates and what is kept"),
        ("one gate short", "the shapes of states, gates and what is kept"),
        ("doubles in float32", "the shapes of states, gates and what is kept"),
        ("in float32", "backward of the cell = finite differences"),
        ("worse than float32", "float32 = float64 up to rounding"),
        ("a constant derivative", "second derivative of the sweep = autograd's"),
    ],
)
def test_a_mistake_in_a_cell_is_caught(mistake: str, law: str) -> None:
    results = verify.check_cell(Wrong(mistake=mistake))
    assert law in broken(results)
    with pytest.raises(AssertionError, match=f"{law}.? must hold for Wrong"):
        verify.require(results)


def test_a_fault_of_shape_is_said_in_words() -> None:
    (result,) = verify.check_cell(Wrong(mistake="one gate short"))
    assert result.detail == "du is ((3, 2, 5), torch.float64), must be ((3, 3, 5), torch.float64)."


def test_a_cell_that_keeps_something_else_must_have_a_backward() -> None:
    @dataclass(frozen=True)
    class Careless(Elman):
        backward = Cell.backward

    with pytest.raises(TypeError, match=r"kept of Careless must be \(u, v, \*s\), 3 tensors; got 1"):
        verify.check_cell(Careless())


@dataclass(frozen=True)
class Remembered:
    """The memory of a wrong algorithm: the right one's, and something of its own."""

    inner: Any
    extra: Any = None


@dataclass(frozen=True)
class WrongCredit(Credit):
    """BPTT(4) with one mistake."""

    mistake: str = ""
    inner: BPTT = BPTT(4, 2)  # noqa: RUF009

    @property
    def memories(self) -> tuple[type, ...]:  # type: ignore[override]
        return (*self.inner.memories, Remembered)

    def start(self, net: nn.Module, state: Any = None) -> Remembered:
        return Remembered(self.inner.start(net, None if self.mistake == "state ignored" else state))

    def __call__(
        self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Remembered
    ) -> tuple[Estimate, Remembered]:
        read, write = CHANGES.get(self.mistake, (same_chunk, same_estimate))
        memory = self.read(net, read(chunk), memory)
        estimate, inner = self.inner(net, loss, read(chunk), memory.inner)
        if self.mistake == "twice after end" and memory.extra:
            estimate += estimate
        return write(net, estimate, chunk), self.written(net, chunk, Remembered(inner, memory.extra))

    def read(self, net: nn.Module, chunk: Chunk, memory: Remembered) -> Remembered:
        if self.mistake == "the present chunk only":
            state = getattr(memory.inner, "state", None)
            return Remembered(self.inner.start(net, state))
        return memory

    def written(self, net: nn.Module, chunk: Chunk, memory: Remembered) -> Remembered:
        match self.mistake:
            case "a graph kept":
                return replace(memory, extra=next(net.parameters()) * 2)
            case "growing":
                return replace(memory, extra=(memory.extra, torch.zeros(2)))
            case "growing in bytes":
                past = torch.zeros(0) if memory.extra is None else memory.extra
                return replace(memory, extra=torch.cat((past, torch.zeros(1))))
            case "twice after end" if chunk.end:
                return replace(memory, extra=True)
            case "weights touched":
                with torch.no_grad():
                    next(net.parameters()).add_(1e-9)
            case "grad written":
                for weight in net.parameters():
                    weight.grad = torch.zeros_like(weight)
            case "random numbers drawn":
                torch.rand(1)
        return memory


def same_chunk(chunk: Chunk) -> Chunk:
    return chunk


def same_estimate(net: nn.Module, estimate: Estimate, chunk: Chunk) -> Estimate:
    return estimate


def no_restarts(chunk: Chunk) -> Chunk:
    return replace(chunk, reset=None)


def no_mask(chunk: Chunk) -> Chunk:
    y = chunk.y if chunk.y is None else chunk.y.nan_to_num() if chunk.y.is_floating_point() else chunk.y
    return replace(chunk, y=y, mask=None)


def mean(net: nn.Module, estimate: Estimate, chunk: Chunk) -> Estimate:
    count = max(estimate.count, 1)
    return replace(estimate, grads={name: grad / count for name, grad in estimate.grads.items()})


def mean_of_rows(net: nn.Module, estimate: Estimate, chunk: Chunk) -> Estimate:
    rows = chunk.streams
    return Estimate(
        estimate.loss / rows, estimate.count / rows, {n: g / rows for n, g in estimate.grads.items()}
    )


def counted_by_steps(net: nn.Module, estimate: Estimate, chunk: Chunk) -> Estimate:
    return replace(estimate, count=float(chunk.steps * chunk.streams))


def twice_named(net: nn.Module, estimate: Estimate, chunk: Chunk) -> Estimate:
    grads = dict(estimate.grads)
    if "embed.weight" in grads and "readout.weight" not in grads:
        grads["readout.weight"] = grads["embed.weight"]
    return replace(estimate, grads=grads)


Change = tuple[Callable[[Chunk], Chunk], Callable[[nn.Module, Estimate, Chunk], Estimate]]

CHANGES: dict[str, Change] = {
    "restarts unread": (no_restarts, same_estimate),
    "mask unread": (no_mask, same_estimate),
    "mean of the chunk": (same_chunk, mean),
    "mean of the rows": (same_chunk, mean_of_rows),
    "steps counted": (same_chunk, counted_by_steps),
    "shared weights named twice": (same_chunk, twice_named),
}

CUT, ONCE, RESTART, SEQUENCES, PADDING, ROWS, SHARED, MEMORY, FLAT, PURE, ANEW = CREDIT_LAWS


@pytest.mark.parametrize(
    ("mistake", "law"),
    [
        ("the present chunk only", CUT),
        ("mean of the chunk", CUT),
        ("steps counted", ONCE),
        ("state ignored", ONCE),
        ("mask unread", ONCE),
        ("restarts unread", RESTART),
        ("restarts unread", SEQUENCES),
        ("mask unread", PADDING),
        ("mean of the rows", ROWS),
        ("shared weights named twice", SHARED),
        ("a graph kept", MEMORY),
        ("growing", FLAT),
        ("growing in bytes", FLAT),
        ("weights touched", PURE),
        ("grad written", PURE),
        ("random numbers drawn", PURE),
        ("twice after end", ANEW),
    ],
)
def test_a_mistake_in_an_algorithm_is_caught(mistake: str, law: str) -> None:
    right, wrong = (CREDIT_LAWS[law](Case(WrongCredit(name), "elman", 1, 2, None)) for name in ("", mistake))
    assert right.error <= right.tolerance
    assert not wrong.error <= wrong.tolerance


def test_a_broken_algorithm_is_named() -> None:
    results = verify.check_credit(WrongCredit("steps counted"), "elman", layers=(1,), period=2)
    assert ONCE in broken(results)
    with pytest.raises(
        AssertionError, match=r"'every error counts once.* must hold for WrongCredit elman x1 to"
    ):
        verify.require(results)


def test_an_algorithm_of_ones_own_is_held_to_the_laws() -> None:
    verify.require(verify.check_credit(WrongCredit(), "lstm", layers=(2,), period=2))


def test_an_algorithm_may_be_held_against_another() -> None:
    kept = verify.check_credit("bptt:h=13", "elman", layers=(1,), against="bptt")
    verify.require(kept)
    assert kept[-1].law == "the gradient of bptt"
    short = verify.check_credit(BPTT(3), "elman", layers=(1,), against=BPTT())
    assert broken(short) == {"the gradient of bptt"}


def test_epochwise_memory_is_not_flat() -> None:
    assert broken(verify.check_credit("bptt", "elman", layers=(1,))) == {FLAT}
    assert FLAT not in {
        result.law for result in verify.check_credit("bptt", "elman", layers=(1,), flat=False)
    }


def test_brute_force_tells_windows_apart() -> None:
    """The definition itself, on x_t = w x_{t-1} with w = 0.2, x_0 = 0.9, the error x_t: sums of min(t, h) w^(t-1)."""

    class Multiply(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.tensor(0.2, dtype=torch.float64))

        def forward(self, x: Tensor, state: Tensor, reset: Any) -> tuple[Tensor, Tensor]:
            state = self.w * state
            return state[None], state

    start, nothing = torch.tensor([[0.9]], dtype=torch.float64), torch.zeros(3, 1, 1)
    for h, every, steps_back in (
        (None, 3, (1, 2, 3)),
        (2, 1, (1, 2, 2)),
        (1, 1, (1, 1, 1)),
        (2, 2, (1, 2, 2)),
    ):
        estimate = brute_force(Multiply(), lambda x, y: x, Chunk(nothing, nothing, end=True), h, every, start)
        figures = [0.9 * k * 0.2**t for t, k in enumerate(steps_back)]
        assert estimate.grads["w"].item() == pytest.approx(sum(figures), abs=1e-15)
    estimate = brute_force(Multiply(), lambda x, y: x, Chunk(nothing, nothing, end=True), 3, 3, start)
    assert estimate.grads["w"].item() == pytest.approx(0.9 + 0.36 + 0.108, abs=1e-15)


def test_distance_knows_what_is_not_a_number_and_what_does_not_fit() -> None:
    a = torch.tensor([1.0, 200.0])
    assert distance(a + torch.tensor([0.0, 2.0]), a) == pytest.approx(0.01)
    assert distance((a, {"x": 1.0}), (a, {"x": 1.0})) == 0
    assert distance({"x": a}, {"y": a}) == float("inf")
    assert distance((a, a), (a,)) == float("inf")
    assert distance(a[:1], a) == float("inf")
    assert distance(a[:0], a[:0]) == 0
    for bad in (float("nan"), float("inf")):
        wrong = torch.tensor([1.0, bad])
        for pair in ((wrong, a), (a, wrong), (wrong, wrong)):
            assert not Result("law", "subject", distance(*pair), 1.0, 0.0).passed
    assert distance(0.1, 0.1 + 1e-12) > 1e-13


def test_rounding_follows_from_dtype_steps_and_width() -> None:
    assert rounding(torch.float64) == 66 * 2.0**-52
    assert rounding(torch.float32, 10, 18) == 1000 * 2.0**-23


def test_require_says_every_law_that_broke() -> None:
    good = Result("one = one", "gru", 1e-16, 1e-12, 0.1)
    bad = Result("one = two", "gru", 1.0, 1e-12, 0.1)
    shapes = Result("shapes", "lstm", 2, 0, 0.1, "du is (3,), must be (4,).")
    verify.require([good])
    with pytest.raises(AssertionError) as caught:
        verify.require([good, bad, shapes])
    assert str(caught.value).splitlines() == [
        "'one = two' must hold for gru to 1.0e-12; got an error of 1.0e+00.",
        "'shapes' must hold for lstm; got 2 faults. du is (3,), must be (4,).",
    ]


def test_the_table_shows_the_worst_of_each_law() -> None:
    results = [
        Result("a = b", "gru", 1e-16, 1e-12, 0.1),
        Result("a = b", "lstm x2", 2e-13, 1e-12, 0.1),
        Result("shapes", "gru", 0, 0, 0.1),
        Result("c = d", "gru", 1e-16, 1e-12, 0.1),
        Result("c = d", "lstm", float("nan"), 1e-12, 0.1),
    ]
    head, first, second, third = (line.split("  ") for line in verify.table(results).splitlines())
    words = [[word.strip() for word in line if word.strip()] for line in (head, first, second, third)]
    assert words == [
        ["law", "subjects", "largest error", "tolerance"],
        ["a = b", "2: gru, lstm", "2.0e-13", "1.0e-12", "pass"],
        ["shapes", "gru", "0.0e+00", "0.0e+00", "pass"],
        ["c = d", "2: gru, lstm", "nan", "1.0e-12", "FAIL: lstm"],
    ]


CHECKED = """
from jaxtyping import install_import_hook

with install_import_hook("throughtime", "beartype.beartype"):
    import torch
    from throughtime import verify
    from throughtime.credit import BPTT
    from throughtime.nets import cross_entropy
    from throughtime.verify.credit import Case, text, total

verify.require(verify.run(["textbook", "backends", "layers", "networks"]))
verify.require(verify.check_cell("lstm"))
for credit in (BPTT(), BPTT(3, 2), BPTT(3, 2, False)):
    net, chunk = text(Case(credit, "gru", 2, 1, None), 5)
    total(credit, net, cross_entropy, chunk, (2,))
"""


def test_every_annotation_is_true() -> None:
    """All shapes and types that the library writes down, checked at every call of a part of the laws."""
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
