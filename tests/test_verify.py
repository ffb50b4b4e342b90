"""The laws hold; what they are held with, and how they are reported."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from throughtime import verify
from throughtime.cells import Cell, Elman, cells
from throughtime.cells.base import Gates, Kept
from throughtime.chunk import Chunk
from throughtime.credit import algorithms
from throughtime.shapes import Slots
from throughtime.verify import Result
from throughtime.verify.credit import brute_force
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
