"""A measurement as plain text, no line longer than 80 characters."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from throughtime.flow.error import ErrorByLag
    from throughtime.flow.result import Flow

WIDTH = 80
TOLERANCES = (0.1, 0.01, 0.001)
"""Errors of the gradient that the smallest h is told for."""


def lines(flow: Flow) -> Iterator[str]:
    """The verdict, what to try, and the numbers."""
    yield fill(flow.verdict, WIDTH)
    for advice in flow.advice:
        yield fill(advice, WIDTH, initial_indent="  try ", subsequent_indent="      ")
    yield ""
    yield from _errors(flow)
    yield from _cuts(flow)
    yield from _dynamics(flow)
    yield from _activity(flow)
    if flow.clipping is not None and len(flow.clipping.before):
        before, bound = flow.clipping.before, flow.clipping.bound
        norms = ", ".join(f"{np.quantile(before, q):.3g}" for q in (0.1, 0.5, 0.9))
        cut = "not clipped" if bound is None else f"{100 * flow.clipping.share:.3g} % clipped to {bound:g}"
        yield fill(f"gradient norm, {len(before)} updates (10, 50, 90 %): {norms}; {cut}", WIDTH)


def _errors(flow: Flow) -> Iterator[str]:
    """The error by lag, of the whole state and its parts."""
    whole = flow.whole
    lags = [k for k in sorted({0, *(4**n for n in range(10)), int(whole.lags[-1])}) if k in whole.lags]
    yield f"error by lag, {len(whole.at)} steps of {whole.norms.shape[2]} streams: typical norm, steps until half"
    yield "and a hundredth is left, factor a step (95 %)"
    parts = {"whole state": whole, **(flow.parts if len(flow.parts) > 1 else {})}
    rows = [
        [name, *(_norm(part, k) for k in lags), _steps(part.half_life), _steps(part.memory), _decay(part)]
        for name, part in parts.items()
    ]
    yield from _grid(["lag", *map(str, lags), "half", "1/100", "factor"], rows)


def _cuts(flow: Flow) -> Iterator[str]:
    """What truncation keeps."""
    wanted = {2**n for n in range(20)} | {flow.h or 1}
    places = [(h, place) for place, h in enumerate(flow.kept.h.tolist()[:-1]) if h in wanted] if flow.kept else []
    if flow.kept is None or not places:
        return
    smallest = ", ".join(f"{_share(wanted)}: {flow.kept.smallest_h(wanted) or '-'}" for wanted in TOLERANCES)
    yield fill(f"smallest h for an error of the gradient of {smallest}", WIDTH)
    yield f"BPTT(h) beside BPTT({flow.kept.h[-1]}): of the gradient, and of the norm of the error"
    rows = [
        ["kept", *(_share(flow.kept.kept[place]) for _, place in places)],
        ["off by", *(_share(flow.kept.error[place]) for _, place in places)],
        ["of the norm", *(_share(flow.whole.share(h)) for h, _ in places)],
    ]
    yield from _grid(["h", *(str(h) for h, _ in places)], rows)


def _dynamics(flow: Flow) -> Iterator[str]:
    """Exponents, Jacobians, recurrent weights."""
    if flow.exponents is not None:
        yield "Lyapunov exponents a step: " + " ".join(f"{value:+.3g}" for value in flow.exponents)
    for k, values in flow.singular.items():
        largest, middle, least = (f"{values[place]:.3g}" for place in (0, len(values) // 2, -1))
        steps = "a step" if k == 1 else f"{k} steps"
        yield f"singular values over {steps}: {largest} to {least}, median {middle}"
    if flow.exponents is not None or flow.singular:
        yield ""
    if flow.spectra:
        rows = [[name, f"{found.radius:.3g}", f"{found.norm:.3g}"] for name, found in flow.spectra.items()]
        yield from _grid(["recurrent weights", "spectral radius", "norm"], rows)


def _activity(flow: Flow) -> Iterator[str]:
    """Saturation, dead units, gates."""
    rows = [
        [name, str(part.units), _share(part.saturated), str(part.dead)]
        + [f"{gate.mean:.2f} ({_share(gate.shut)}, {_share(gate.open)})" for gate in part.gates.values()]
        for name, part in flow.activity.items()
    ]
    gates = [gate for part in flow.activity.values() for gate in part.gates]
    yield from _grid(["units", "all", "saturated", "dead", *(f"{g} (shut, open)" for g in dict.fromkeys(gates))], rows)


def _grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Columns of equal width, the first to the left; those that do not fit go below, and a blank line ends it."""
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    groups: list[list[int]] = [[0]]
    for place in range(1, len(head)):
        if len(groups[-1]) > 1 and sum(widths[p] + 2 for p in (*groups[-1], place)) - 2 > WIDTH:
            groups.append([0])
        groups[-1].append(place)
    for group in groups:
        for row in (head, *rows):
            cells = [row[0].ljust(widths[0]), *(row[place].rjust(widths[place]) for place in group[1:])]
            yield "  ".join(cells).rstrip()
        yield ""


def _norm(part: ErrorByLag, lag: int) -> str:
    value = part.mean[list(part.lags).index(lag)]
    return "." if math.isnan(value) else f"{10 ** min(300.0, value):.1e}"


def _steps(steps: float | None) -> str:
    return "-" if steps is None else f"{steps:.3g}"


def _decay(part: ErrorByLag) -> str:
    found = part.decay
    if math.isnan(found.rate):
        return "-"
    return f"{found.rate:.3f}" if math.isnan(found.low) else f"{found.rate:.3f} ({found.low:.3f}-{found.high:.3f})"


def _share(share: float) -> str:
    if math.isnan(share):
        return "-"
    return f"{100 * share:.3g} %" if abs(share) >= 5e-6 else "0 %"
