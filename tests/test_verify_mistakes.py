"""Each of the laws can fail: cells and algorithms with one mistake are caught."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from throughtime import verify
from throughtime.cells import GRU, Cell, Elman
from throughtime.cells.base import Gates, Kept
from throughtime.chunk import Chunk
from throughtime.credit import BPTT, Credit, Estimate
from throughtime.nets import Loss
from throughtime.shapes import Slots
from throughtime.verify import Result
from throughtime.verify.credit import LAWS as CREDIT_LAWS
from throughtime.verify.credit import Case


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

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Remembered) -> tuple[Estimate, Remembered]:
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
    return Estimate(estimate.loss / rows, estimate.count / rows, {n: g / rows for n, g in estimate.grads.items()})


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
    with pytest.raises(AssertionError, match=r"'every error counts once.* must hold for WrongCredit elman x1 to"):
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
    assert FLAT not in {result.law for result in verify.check_credit("bptt", "elman", layers=(1,), flat=False)}
