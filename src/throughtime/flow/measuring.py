"""The measurements themselves: the error by lag alone, all of it with a verdict, or cheaply inside a training."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit.influence import is_plain
from throughtime.flow.dynamics import lyapunov, singular_values
from throughtime.flow.error import ErrorByLag
from throughtime.flow.kept import kept
from throughtime.flow.lagged import by_lags
from throughtime.flow.parts import recurrence
from throughtime.flow.result import Clipping, Flow
from throughtime.flow.sampling import default_lags, refuse, remaining, sampled, undisturbed
from throughtime.flow.spectra import spectra
from throughtime.flow.units import activity
from throughtime.flow.verdict import judge
from throughtime.flow.windows import by_windows
from throughtime.nets import Loss, Network
from throughtime.recurrent import FullyRecurrent
from throughtime.state import State, change


def measure(
    net: nn.Module,
    loss: Loss,
    chunk: Chunk,
    *,
    lags: int | None = None,
    state: State = None,
    samples: int = 16,
    h: int | None = None,
    clipping: Clipping | None = None,
) -> Flow:
    """How far back the error of a network reaches on a chunk, why, and what to try.

    lags      how far back to look; default: half of the chunk, or to its first error that counts if that is later.
    h         where training cuts the error off, for the verdict.
    clipping  of the run that trained it, if known: clipping(run.records(), bound).
    net, loss, chunk, state and samples as in error_by_lag, but in evaluation mode: dropout is left out. Mode and
    random numbers are put back.

    Cost, about, in steps of one stream forward and backward: T B for the states, lags * samples * B twice, for the
    error and for what BPTT(h) keeps, 16 T for the Lyapunov exponents, and 16 steps of as many streams as the state has
    numbers for the singular values (none above 512). Memory: the graph of 64 streams, or B, of `lags` steps.
    Raises ValueError when nothing can be sampled or an error is not finite, TypeError for a network without a state
    of real numbers, and for one that reads in both directions.
    """
    refuse(net)
    lags = default_lags(chunk) if lags is None else lags
    at = sampled(chunk, lags, samples)
    if h is not None and h < 1:
        raise ValueError(f"h must be a number of steps, at least 1, or None; got {h}.")
    with undisturbed(net):
        whole, parts = by_part(net, loss, chunk, lags, at, state)
        active, growth = activity(net, chunk, state)
        flow = Flow(
            whole=whole,
            parts=parts,
            kept=kept(net, loss, chunk, at, lags, state, h),
            spectra=spectra(net),
            exponents=lyapunov(net, chunk, state=state),
            singular=singular_values(net, chunk, [k for k in (1, 4, 16) if k <= lags], state=state),
            activity=active,
            clipping=clipping,
            h=h,
            verdict="",
            advice=(),
        )
    known = recurrence(net)
    cell = net.cell if isinstance(net, FullyRecurrent) else None if known is None else known.cell
    verdict, advice = judge(flow, cell, growth)
    return replace(flow, verdict=verdict, advice=advice)


def probe(
    net: nn.Module,
    loss: Loss,
    chunk: Chunk,
    *,
    state: State = None,
    lags: int | None = None,
    samples: int = 4,
    streams: int = 8,
) -> ErrorByLag:
    """The error by lag of the whole state, cheaply: what a training may ask for now and then.

    On the first `streams` streams, at `samples` steps, half of the chunk back unless lags says otherwise; in
    evaluation mode. Mode and random numbers are put back: a training that is probed learns the same numbers.
    Cost: for a Network T * streams steps forward, and lags * samples * streams backward, one to five updates as a
    rule. For other modules, which go step by step in Python, three to ten.
    Raises as measure does; nothing can be sampled in a chunk without an error that counts.
    """
    rows = slice(min(streams, chunk.streams))
    parts = (None if part is None else part[:, rows] for part in (chunk.x, chunk.y, chunk.mask, chunk.reset))
    chunk = Chunk(*parts)  # type: ignore[arg-type]
    state = change(lambda part: part[..., rows, :], state)
    lags = default_lags(chunk) if lags is None else lags
    with undisturbed(net):
        return by_part(net, loss, chunk, lags, sampled(chunk, lags, samples), state)[0]


def error_by_lag(
    net: nn.Module, loss: Loss, chunk: Chunk, lags: int, *, state: State = None, samples: int = 16
) -> ErrorByLag:
    """How strongly the error of step t depends on the state of k steps before, for k up to `lags`.

    net      `net(x, state, reset) -> (y, state)`, in the mode it is in: `net.eval()` leaves dropout out.
             What its module `readout` reads, if it has one, is s_t, lag 0. Else the lags begin at 1, because
             a state is seen only where the next step takes it.
    loss     errors not yet summed, (T, B). The mask of the chunk weighs them; 0: nothing is measured there.
    chunk    T steps of B streams with targets, T > lags.
    state    the state before the chunk; None: zeros.
    samples  the number of steps t, spread evenly over those from `lags` on that have an error that counts.

    Cost: T steps of B streams forward, then `lags` steps of samples * B streams: backward alone for a Network, forward
    and backward for other modules, whose graphs are held meanwhile.
    Raises ValueError when nothing can be sampled, TypeError for a network without a state of real numbers.
    """
    return by_part(net, loss, chunk, lags, sampled(chunk, lags, samples), state)[0]


def by_part(
    net: nn.Module, loss: Loss, chunk: Chunk, lags: int, at: NDArray[np.int64], state: State
) -> tuple[ErrorByLag, dict[str, ErrorByLag]]:
    """The error by lag of the whole state and of each of its parts, at the steps `at`, all from `lags` on."""
    refuse(net)
    outlet: NDArray[np.float64] | None
    if isinstance(net, Network) and is_plain(net):
        norms, outlet, felt = by_lags(net, loss, chunk, at, lags, state)
    else:
        norms, outlet, felt = by_windows(net, loss, chunk, at, lags, state)
    there = remaining(chunk, at, lags) & felt
    with np.errstate(over="ignore"):
        whole = np.sqrt(sum(np.nan_to_num(part, posinf=np.inf) ** 2 for part in norms.values()))
    if outlet is not None:
        whole[0] = outlet
    first = 0 if outlet is not None else 1
    numbers = np.arange(first, lags + 1)

    def cut(found: NDArray[np.float64]) -> ErrorByLag:
        return ErrorByLag(numbers, at, np.where(there, found, np.nan)[first:])

    return cut(whole), {name: cut(part) for name, part in norms.items()}
