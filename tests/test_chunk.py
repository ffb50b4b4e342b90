"""Chunks: what fits together, how time is cut, and how it is joined again."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.chunk import Chunk, join

T, B = 7, 3
PARTS = ("x", "y", "mask", "reset")


def whole(end: bool = True, axes: int = 2) -> Chunk:
    shape = (T, B, 4)[:axes]
    return Chunk(torch.rand(T, B, 2), torch.rand(shape), torch.rand(shape), torch.rand(T, B) < 0.3, end)


def same(a: Chunk, b: Chunk) -> bool:
    pairs = [(getattr(a, name), getattr(b, name)) for name in PARTS]
    return a.end == b.end and all(x is y or torch.equal(x, y) for x, y in pairs)


@given(st.lists(st.integers(0, T), max_size=4), st.sampled_from([2, 3]), st.booleans())
def test_slices_joined_are_the_whole(cuts: list[int], axes: int, end: bool) -> None:
    chunk = whole(end, axes)
    bounds = [0, *sorted(cuts), T]
    parts = [chunk[start:stop] for start, stop in pairwise(bounds)]
    # An empty slice at the very end reaches the last step too; a source gives `end` once.
    kept = [part for part in parts if part.steps]
    assert same(join(kept), chunk)
    assert sum(part.steps for part in parts) == T


def test_only_the_slice_with_the_last_step_keeps_end() -> None:
    chunk = whole()
    assert chunk[3:].end
    assert chunk[:].end
    assert chunk[-1:].end
    assert not chunk[:6].end
    assert not whole(end=False)[3:].end


def test_steps_streams_and_inputs() -> None:
    chunk = whole()
    assert (chunk.steps, chunk.streams) == (T, B)
    inputs = chunk.inputs()
    assert inputs.y is None
    assert inputs.mask is None
    assert inputs.x is chunk.x
    assert inputs.reset is chunk.reset
    assert same(chunk.to("cpu"), chunk)


def test_join_fills_a_missing_mask_with_ones_and_a_missing_reset_with_false() -> None:
    x, y = torch.rand(2, B, 1), torch.rand(2, B, 4)
    bare = Chunk(x, y)
    full = Chunk(x, y, torch.zeros(2, B, dtype=torch.float64), torch.ones(2, B, dtype=torch.bool))
    joined = join([bare, full, bare])
    ones, zeros = torch.ones(2, B, dtype=torch.float64), torch.zeros(2, B, dtype=torch.bool)
    assert joined.mask is not None
    assert joined.reset is not None
    assert torch.equal(joined.mask, torch.cat([ones, 0 * ones, ones]))
    assert torch.equal(joined.reset, torch.cat([zeros, ~zeros, zeros]))
    assert join([bare, bare]).mask is None
    assert join([bare, bare]).reset is None


def test_masks_that_count_otherwise_are_not_joined() -> None:
    x, y = torch.rand(2, B, 1), torch.rand(2, B, 4)
    by_output, by_step = Chunk(x, y, torch.ones(2, B, 4)), Chunk(x, y, torch.ones(2, B))
    for other in (by_step, Chunk(x, y)):
        with pytest.raises(ValueError, match=r"same axes .* give every one a mask"):
            join([by_output, other])


def test_what_follows_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must not follow one with end=True\. Start a new stream"):
        join([whole(), whole()])


def test_targets_in_some_chunks_only_are_refused() -> None:
    with pytest.raises(ValueError, match="must all have y, or none of them"):
        join([whole(end=False), whole().inputs()])


@pytest.mark.parametrize("name", ["y", "mask", "reset"])
def test_parts_that_do_not_fit_are_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=rf"{name} must begin with the \(T, B\) of x, \(7, 3\); got \(7, 2\)"
    ):
        Chunk(torch.zeros(T, B), **{name: torch.zeros(T, 2, dtype=torch.bool)})


def test_x_without_streams_is_refused() -> None:
    with pytest.raises(ValueError, match=r"x must have time and streams as its first axes.*got \(7,\)"):
        Chunk(torch.zeros(T))


@pytest.mark.parametrize("reset", [torch.zeros(T, B), torch.zeros(T, B, 1, dtype=torch.bool)])
def test_a_reset_that_is_not_bool_T_B_is_refused(reset: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"reset must be bool \(T, B\); got"):
        Chunk(torch.zeros(T, B), reset=reset)


def test_a_step_or_a_stride_is_no_slice_of_time() -> None:
    with pytest.raises(TypeError, match=r"time must be a slice, such as chunk\[3 : 3 \+ 1\]; got 3"):
        whole()[3]  # type: ignore[index]
    with pytest.raises(ValueError, match="stride 1; got 2"):
        whole()[::2]
