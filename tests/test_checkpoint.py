"""The plan of checkpointing: operation counts against their definition and published tables, and what it refuses."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.credit.checkpoint import Sizes, bounds, bytes_from, operations, plan, schedule, spell_bytes, split

# C(t, m) for m = 1 .. 10: Gruslys et al. (2016), hidden-state memorisation, which is revolve.
TABLE = {
    4: (10, 8, 7, 7, 7, 7, 7, 7, 7, 7),
    5: (15, 11, 10, 9, 9, 9, 9, 9, 9, 9),
    10: (55, 30, 25, 24, 23, 22, 21, 20, 19, 19),
    20: (210, 85, 65, 59, 53, 52, 51, 50, 49, 48),
    50: (1275, 335, 230, 194, 172, 164, 155, 145, 139, 138),
    100: (5050, 945, 590, 474, 416, 380, 355, 345, 334, 322),
}
LONG = {
    (1000, 10): 4636,
    (1000, 20): 3747,
    (1000, 50): 2948,
    (1000, 100): 2898,
    (10000, 50): 38622,
    (10000, 140): 29858,
}


@cache
def fewest(segments: int, slots: int) -> int:
    """C by its definition: every place for the next start state is tried."""
    if segments == 1:
        return 1
    if slots == 1:
        return segments * (segments + 1) // 2
    return min(y + fewest(segments - y, slots - 1) + fewest(y, slots) for y in range(1, segments))


def test_the_published_tables() -> None:
    for segments, row in TABLE.items():
        assert tuple(operations(segments, slots) for slots in range(1, 11)) == row
    assert {key: operations(*key) for key in LONG} == LONG


def test_the_closed_form_is_the_minimum_and_the_split_reaches_it() -> None:
    for segments in range(1, 61):
        for slots in range(1, 13):
            wanted = fewest(segments, slots)
            assert operations(segments, slots) == wanted
            if segments > 1 and slots > 1:
                y = split(segments, slots)
                assert y + fewest(segments - y, slots - 1) + fewest(y, slots) == wanted


@given(st.integers(1, 150), st.integers(1, 30))
def test_a_schedule_runs_what_was_counted_and_holds_no_more_than_its_slots(segments: int, slots: int) -> None:
    """Followed as a machine would: nothing runs from a state that is not there."""
    stored, at, forwards, backwards = {0}, 0, 0, []
    for what, segment in schedule(segments, slots):
        if what == "restore":
            assert segment in stored
            at = segment
            continue
        assert segment == at
        if what == "store":
            stored.add(segment)
            assert len(stored) <= slots
            continue
        forwards, at = forwards + 1, segment + 1
        if what == "backward":
            backwards.append(segment)
            stored.discard(segment)
    assert forwards == operations(segments, slots)
    assert backwards == list(range(segments))[::-1]


@given(st.integers(1, 10**6), st.data())
def test_segments_are_equal_to_a_step_and_cover_all(steps: int, data: st.DataObject) -> None:
    segments = data.draw(st.integers(1, min(steps, 300)))
    parts = bounds(steps, segments)
    assert [start for start, _ in parts] == [0, *(stop for _, stop in parts[:-1])]
    assert parts[-1][1] == steps
    lengths = [stop - start for start, stop in parts]
    assert lengths == sorted(lengths)
    assert lengths[-1] - lengths[0] <= 1


SIZES = Sizes(steps=100, streams=2, training=True, kept=1000, working=500, state=10)


def test_a_plan_uses_the_budget_and_no_more() -> None:
    plain = plan(2000, 20, SIZES, None)
    assert (plain.slots, plain.forwards, plain.recompute, plain.peak) == (None, 20, 1.0, 500 + 20 * 1010)
    assert plan(2000, 20, SIZES, plain.peak).slots is None
    for budget in range(1510, plain.peak):
        made = plan(2000, 20, SIZES, budget)
        assert made.slots == min(19, (budget - 1500) // 10)
        assert made.peak == 1500 + 10 * made.slots <= budget
        assert made.forwards == fewest(20, made.slots)
    assert str(plan(2000, 20, SIZES, 1530)) == (
        "exact gradient through 2,000 steps of 2 streams, 20 segments of at most 100 steps: stored is 3 start states "
        "(0.0 MB) and what one needs; predicted peak 0.0 MB beyond inputs and weights, allowed 0.0 MB; "
        "65 segments run forward, 3.25 times each."
    )


def test_a_budget_that_is_too_small_says_the_smallest() -> None:
    with pytest.raises(ValueError, match=r"memory must be at least 2KB for this network and 2 streams, .* got 1509B"):
        plan(2000, 20, SIZES, 1509)
    assert plan(2000, 20, SIZES, bytes_from("2KB")).slots


@pytest.mark.parametrize(
    ("text", "size", "spelled"),
    [
        ("256 MB", 256_000_000, "256MB"),
        ("64MB", 64_000_000, "64MB"),
        (" 1 gb ", 10**9, "1GB"),
        ("1.5 GB", 1_500_000_000, "1500MB"),
        ("1000 MB", 10**9, "1GB"),
        (64_000_000, 64_000_000, "64MB"),
        ("12345", 12345, "12345B"),
        (1, 1, "1B"),
    ],
)
def test_sizes_have_one_spelling(text: str | int, size: int, spelled: str) -> None:
    assert bytes_from(text) == size
    assert spell_bytes(size) == spelled
    assert bytes_from(spelled) == size


@pytest.mark.parametrize("wrong", ["", "MB", "a lot", "-3 MB", "0 MB", "3 XB", 0, -1])
def test_what_is_no_size_is_refused(wrong: str | int) -> None:
    with pytest.raises(ValueError, match="memory must be a size such as '256 MB' or a number of bytes; got"):
        bytes_from(wrong)


@pytest.mark.parametrize("wrong", [True, 2.5, None])
def test_what_is_neither_text_nor_a_number_is_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="memory must be a size"):
        bytes_from(wrong)  # type: ignore[arg-type]
