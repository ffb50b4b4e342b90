"""What the tests of the native backend share: random operands of a cell, and all that a call of them gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from throughtime.cells import Cell, cell_named
from throughtime.kernels import Weights, native, run

FEW = ["elman", "ctrnn", "gru", "lstm"]
SETS = [] if native.MISSING else native._native.instruction_sets()

needed = pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)
few_cells = pytest.mark.parametrize("name", FEW)
memories = pytest.mark.parametrize("memory", ["gates", "states"])


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every instruction set of this processor in turn."""
    before = native._native.instruction_set()
    native._native.use(request.param)
    yield request.param
    native._native.use(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads is put back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Case:
    """A cell with random operands, and random errors for its outputs and its last state."""

    def __init__(self, name: str, sizes: tuple[int, int, int, int], dtype: torch.dtype = torch.double) -> None:
        T, B, I, H = self.sizes = sizes
        self.cell: Cell = cell_named(name)
        width = self.cell.gates * H
        draw = lambda *shape: torch.randn(*shape, dtype=dtype)  # noqa: E731
        self.x = draw(T, B, I)
        self.weights = Weights(draw(width, I) / I**0.5, draw(width, H) / H**0.5, draw(width), draw(width))
        self.state = tuple(draw(B, H) for _ in range(self.cell.slots))
        self.errors: list[Tensor | None] = [draw(T, B, H), *(draw(B, H) for _ in self.state)]
        self.options: dict[str, Any] = {}

    def inputs(self) -> list[Tensor]:
        return [part for part in (self.x, *self.weights, *self.state) if part is not None]

    def outputs(self, backend: str = "native", **options: Any) -> list[Tensor]:
        y, last = run(self.cell, self.x, self.weights, self.state, backend=backend, **self.options, **options)
        return [y, *last]

    def all(self, backend: str = "native", **options: Any) -> list[Tensor]:
        """Outputs, last state and the gradients of all that has one."""
        inputs = [part.requires_grad_() for part in self.inputs() if part.is_floating_point()]
        outputs = self.outputs(backend, **options)
        graph = [pair for pair in zip(outputs, self.errors, strict=True) if pair[1] is not None]
        made, errors = zip(*graph, strict=True)
        grads = torch.autograd.grad(made, inputs, errors, allow_unused=True)
        zeros = [torch.zeros_like(part) if grad is None else grad for part, grad in zip(inputs, grads, strict=True)]
        return [part.detach() for part in outputs] + zeros

    def check(self, **options: Any) -> None:
        close(self.all(**options), self.all("reference"))


def close(found: list[Tensor], wanted: list[Tensor]) -> None:
    """Relative to the largest number of each tensor. float64: thousands of roundings of 1e-16; float32: sums of up to
    some hundred products rounded at 6e-8, carried through up to 63 steps."""
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        scale = max(1.0, float(b.detach().abs().max())) if b.numel() else 1.0
        torch.testing.assert_close(a, b, rtol=0, atol=scale * (1e-12 if b.dtype == torch.double else 5e-5))


def same(found: Any, wanted: Any) -> None:
    """Bit for bit."""
    torch.testing.assert_close(found, wanted, rtol=0, atol=0, equal_nan=True)


def some_reset(T: int, B: int) -> Tensor:
    reset = torch.rand(T, B) < 0.3
    reset[:, 0] = False
    reset[T // 2 :, -1] = True
    return reset


def some_lengths(T: int, B: int) -> Tensor:
    """Of all kinds, the empty and the full row among them."""
    return torch.tensor([0, T, T // 2, 1]).repeat(B)[:B]
