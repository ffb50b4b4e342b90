"""The native backend gives the same bits however a call is cut, batched or split between threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from native_case import Case, few_cells, instructions, memories, needed, same, some_lengths, some_reset, threads

pytestmark = needed
__all__ = ["instructions", "threads"]


# Bit for bit.


@few_cells
@pytest.mark.parametrize("dtype", [torch.double, torch.float])
@pytest.mark.parametrize(("T", "I", "H"), [(9, 3, 7), (5, 1, 64), (7, 40, 33), (12, 16, 130)])
def test_a_row_is_alone(name: str, dtype: torch.dtype, T: int, I: int, H: int, instructions: str) -> None:
    """Its outputs are the same in any batch, in any place of it, in one piece or two, for a gradient or not."""
    case = Case(name, (T, 37, I, H), dtype)
    x, state = case.x, case.state
    y, *last = case.outputs()
    for rows in ([0], [36, 5], [*range(5)], [*range(36, 3, -1)]):
        case.x, case.state = x[:, rows], tuple(slot[rows] for slot in state)
        same(case.outputs(), [y[:, rows], *(slot[rows] for slot in last)])
    for stop in (1, T // 2):
        case.x, case.state = x[:stop], state
        first, *middle = case.outputs()
        case.x, case.state = x[stop:], tuple(middle)
        second, *end = case.outputs()
        same([torch.cat((first, second)), *end], [y, *last])
    case.x, case.state = x.requires_grad_(), state
    for memory in ("gates", "states"):
        same([part.detach() for part in case.outputs(memory=memory)], [y, *last])


@few_cells
@memories
@pytest.mark.parametrize("dtype", [torch.double, torch.float])
@pytest.mark.parametrize("sizes", [(9, 37, 3, 7), (20, 1, 16, 130), (7, 64, 40, 64), (5, 3, 1, 257), (1100, 1, 40, 64)])
def test_threads_change_nothing(
    name: str, memory: str, dtype: torch.dtype, sizes: tuple[int, int, int, int], threads: None
) -> None:
    """Outputs, and all gradients too."""
    case = Case(name, sizes, dtype)
    found = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        found.append(case.all(memory=memory))
    same(found[1], found[0])
    same(found[2], found[0])


@few_cells
@memories
@pytest.mark.parametrize(("ids", "count"), [(False, 2), (True, 3)])
@pytest.mark.parametrize("sizes", [(7, 4, 3, 326), (40, 1, 5, 163), (530, 1, 5, 101), (3, 14, 3, 326)])
def test_units_dealt_to_threads(
    name: str, memory: str, ids: bool, count: int, sizes: tuple[int, int, int, int], threads: None
) -> None:
    """Few rows, or very large weights: each thread makes its own units of every row."""
    torch.set_num_threads(count)
    case = Case(name, sizes)
    T, B, I, _ = sizes
    if ids:
        case.x = torch.randint(I, (T, B))
    case.options |= {"reset": some_reset(T, B), "lengths": some_lengths(T, B)}
    case.check(memory=memory)


@few_cells
@memories
@pytest.mark.parametrize("B", [1, 5, 40])
def test_nan_stays_in_its_row(name: str, memory: str, B: int) -> None:
    """It passes through to the outputs, and reaches no other row."""
    case = Case(name, (9, B, 3, 20), torch.float)
    clean = case.outputs()[0]
    case.x[4, B // 2, 1] = torch.nan
    y, *last = case.outputs()
    others = [row for row in range(B) if row != B // 2]
    assert y[4:, B // 2].isnan().all()
    assert all(slot[B // 2].isnan().all() for slot in last)
    same(y[:, others], clean[:, others])
    same(y[:4], clean[:4])
    reset = torch.zeros(9, B, dtype=torch.bool)
    reset[6] = True
    case.options = {"reset": reset}
    assert case.outputs()[0][6:].isfinite().all()
    dx = case.all(memory=memory)[1 + case.cell.slots]
    assert dx[:, others].isfinite().all()
    assert dx[6:].isfinite().all()


@few_cells
@memories
def test_infinity_makes_nan_only_where_the_reference_does(name: str, memory: str) -> None:
    """Whatever the width: what fills up the vectors is no part of the sums."""
    case = Case(name, (3, 2, 3, 7), torch.float)
    case.x[1, 0, 1] = torch.inf
    for found, wanted in zip(case.all(memory=memory), case.all("reference"), strict=True):
        assert not (found.isnan() & ~wanted.isnan()).any()


@pytest.mark.parametrize("name", ["elman:phi=relu", "elman:phi=identity", "lstm", "gru"])
def test_extremes(name: str) -> None:
    """Sums that overflow a careless exponential."""
    case = Case(name, (3, 2, 3, 9), torch.float)
    case.x *= 1e4
    for x in (case.x, case.x * 1e30):
        case.x = x
        for found, wanted in zip(case.outputs(), case.outputs("reference"), strict=True):
            scale = float(wanted.nan_to_num(0, 0, 0).abs().max())  # an identity sums huge numbers that cancel
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5 * scale, equal_nan=True)


@few_cells
@memories
def test_padding_is_never_read(name: str, memory: str) -> None:
    """NaN in x and in the errors after a row's last step changes not one bit."""
    case = Case(name, (9, 5, 3, 7))
    lengths = some_lengths(9, 5)
    case.options = {"lengths": lengths, "reset": some_reset(9, 5)}
    wanted = case.all(memory=memory)
    over = (torch.arange(9)[:, None] >= lengths)[..., None]
    case.x = case.x.detach().masked_fill(over, torch.nan)
    case.errors[0] = case.errors[0].masked_fill(over, torch.nan)  # type: ignore[union-attr]
    found = case.all(memory=memory)
    same(found, wanted)
    assert not found[0].masked_select(over).any()
    case.x = torch.randint(0, 3, (9, 5))
    wanted = case.outputs()
    case.x = case.x.masked_fill(over[..., 0], 2)
    same(case.outputs(), wanted)


# Many at once.


@few_cells
def test_many_python_threads(name: str, threads: None) -> None:
    torch.set_num_threads(2)
    cases = [Case(name, (20, 1 + place % 4, 5, 16)) for place in range(16)]
    wanted = [case.all() for case in cases]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            same(list(pool.map(Case.all, cases)), wanted)
