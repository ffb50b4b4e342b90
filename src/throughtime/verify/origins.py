"""Where the states of an audited loop come from: steps that go on from elsewhere than the step before."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain

from throughtime.verify.account import Evidence
from throughtime.verify.letters import spans
from throughtime.verify.tape import FRESH, UNKNOWN


@dataclass(frozen=True)
class Origins:
    """The steps whose states are fresh, unknown, of another step, of another row, and of padding.

    strange  step and the step that it goes on from; across: (step, row) and those that it goes on from.
    """

    fresh: set[int] = field(default_factory=set)
    unknown: set[int] = field(default_factory=set)
    strange: set[tuple[int, int]] = field(default_factory=set)
    across: set[tuple[int, int, int, int]] = field(default_factory=set)
    padded: set[int] = field(default_factory=set)


def origins_of(evidence: Evidence) -> Origins:
    """Of all uses that an error reached, in all rows."""
    found, rows = Origins(), evidence.rows
    for use in chain.from_iterable(evidence.uses.values()):
        for place, before in zip(use.places, use.before, strict=True):
            if place not in use.reached or place in evidence.padded:
                continue
            t, row = divmod(place, rows)
            if before in evidence.padded:
                found.padded.add(t)
            elif before == FRESH:
                found.fresh.add(t)
            elif before == UNKNOWN:
                found.unknown.add(t)
            elif before % rows != row:
                found.across.add((t, row, *divmod(before, rows)))
            elif before != place - rows:
                found.strange.add((t, before // rows))
    return found


def order(evidence: Evidence) -> Iterator[str]:
    """A sentence for each kind of state that comes from elsewhere than the step before."""
    found = origins_of(evidence)
    starts = sorted(found.fresh - {0})
    if starts:
        yield (
            f"The state restarts at every batch: at {spans(starts)}. What came before is lost to the steps after. "
            "Carry the state on, detached, if the batches follow each other in time."
        )
    others = sorted(found.unknown - {0})
    if others:
        yield (
            f"The state at {spans(others)} comes from something that the audit cannot follow: it is neither zeros nor "
            "a state as the module returned it. Carry it on as it is, detached, for the audit."
        )
    jumps = sorted(found.strange)
    if jumps and all(t == 0 for t, _ in jumps):
        yield f"The state at the end of the stream, step {jumps[0][1]}, is carried into its start. Start anew there."
    elif jumps:
        t, before = jumps[0]
        yield (
            f"The state is carried, but the order is shuffled: step {t} goes on from the state after step {before}. "
            "Read the stream in order, or start every batch from zeros."
        )
    if found.across:
        yield _across(found)
    if found.padded:
        yield (
            f"The state goes on from padded steps, at {spans(sorted(found.padded))}. Take the state of the last real "
            "step."
        )


def _across(found: Origins) -> str:
    """Rows that change places within the batch, or batches of other rows that get the state of those before."""
    t, row, before, other = min(found.across)
    if {t for t, *_ in found.across} == {0}:
        return (
            f"A row goes on from the state of another row, at step 0: row {row} from that of row {other} after step "
            f"{before}. Start from zeros where other rows begin."
        )
    steps = spans(sorted({t for t, *_ in found.across}))
    return (
        f"A row goes on from the state of another row, at {steps}: row {row} at step {t} from that of row {other}. "
        "Keep every stream in its own row of the batch."
    )
