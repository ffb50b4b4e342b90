"""What a measurement means, in one sentence, and what to try.

exploding   the error grows: tenfold (GROWN) or more over the lags measured, with a decay above 1 for sure
chaotic     a Lyapunov exponent says so, and the decay does not say otherwise, while the states stay bounded
vanishing   less than a hundredth (LEFT) of the error is left at lag h, or at the last lag when h is further
healthy     else, to the last lag with at least a hundredth left
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from throughtime.cells import CTRNN, GRU, LSTM, Cell, Elman
from throughtime.flow.error import FLOOR, LEFT, ErrorByLag
from throughtime.flow.result import Flow

UNBOUNDED = ("relu", "identity")
"""The phi with which states can grow without end."""
GROWN = 10.0
"""An error that grows by this factor over the lags explodes."""
NEAREST = 10
"""Lags that must be reached before an error is called healthy, however small h is."""
FORGETS = 0.9
"""A gate that holds the past by less than this share in the mean is worth a bias."""
CROWDED = 0.2
"""A share of units that are saturated or dead, from which on it is said."""
OFTEN = 0.5
"""A share of clipped updates, from which on it is said."""
TOLERANCE = 0.01
"""An h that is off by this share of the gradient is as good as any."""


def judge(flow: Flow, cell: Cell | None, growth: float) -> tuple[str, tuple[str, ...]]:
    """The sentence, and what to try, most promising first.

    cell    that of the network, if it is known; growth: of its states, the slope of ln |s_t| a step.
    """
    whole = flow.whole
    first = next((place for place, count in enumerate(whole.count) if count), None)
    if first is None or not whole.count[whole.lags > whole.lags[first]].any():
        return "unmeasured: no error goes back a step; all of them are zero, or rows restart too often.", ()
    if whole.memory == 0 or (whole.mean[whole.lags > whole.lags[first]] <= math.log10(FLOOR)).all():
        return (
            "vanishing: no error goes back a single step; the state is detached, or its units are dead.",
            tuple(_revive(flow)),
        )
    seen = whole.lags[whole.count > 0]
    last = int(seen[-1])
    exponent = _exponent(flow)
    grown = _ratio(whole, last)
    sure = whole.decay.rate > 1 and not whole.decay.low <= 1
    chaos = exponent * (last - int(seen[0])) >= math.log(GROWN) and not whole.decay.high < 1
    if chaos or (sure and grown >= GROWN):
        if chaos and growth < exponent / 2 and getattr(cell, "phi", None) not in UNBOUNDED:
            return _chaotic(flow, exponent), tuple(_calm(flow, cell))
        return _exploding(flow, grown, last), tuple(_bound(flow, cell))
    horizon = last if flow.h is None else min(last, max(flow.h, NEAREST))
    if _ratio(whole, horizon) < LEFT:
        return _vanishing(flow), tuple(_open(flow, cell))
    return _healthy(flow, last), tuple(_further(flow))


# Sentences


def _vanishing(flow: Flow) -> str:
    half, memory = flow.whole.half_life, flow.whole.memory
    after = f", 99 % after {_steps(memory)}" if memory is not None else ""
    return f"vanishing: half of the error is gone after {_steps(half)}{after}{_keeps(flow)}."


def _healthy(flow: Flow, last: int) -> str:
    memory = flow.whole.memory
    if memory is not None:
        return f"healthy to {math.floor(memory)} steps: a hundredth of the error is left there{_keeps(flow)}."
    left = _percent(_ratio(flow.whole, last))
    return f"healthy to {last} steps, as far as was measured: {left} of the error is left there{_keeps(flow)}."


def _exploding(flow: Flow, grown: float, last: int) -> str:
    decay = flow.whole.decay
    bounds = f"{decay.low:.3g}", f"{decay.high:.3g}"
    sure = "" if math.isnan(decay.low) or bounds[0] == bounds[1] else f" ({bounds[0]} to {bounds[1]})"
    factor = f"{grown:.2g}" if grown < 1e300 else "more than the numbers hold"
    return (
        f"exploding: the error grows by a factor of {decay.rate:.3g}{sure} with every step back, over {last} steps by "
        f"{factor}{_keeps(flow)}."
    )


def _chaotic(flow: Flow, exponent: float) -> str:
    return (
        f"chaotic: neighbouring states part by a factor of {math.exp(exponent):.3g} a step (Lyapunov exponent "
        f"{exponent:.2g}) though they stay bounded, and the error grows with them; nothing beyond about "
        f"{max(1, round(math.log(GROWN) / exponent))} steps can be learned."
    )


def _keeps(flow: Flow) -> str:
    """What the truncation keeps, if it lies within what was measured."""
    if flow.h is None or flow.h > flow.whole.lags[-1]:
        return ""
    share = math.nan if flow.kept is None else flow.kept.share(flow.h)
    if not math.isnan(share):
        return f"; BPTT({flow.h}) keeps {_percent(share)} of the gradient"
    share = flow.whole.share(flow.h)
    return "" if math.isnan(share) else f"; BPTT({flow.h}) keeps {_percent(share)} of the norm of the error"


# Advice


def _open(flow: Flow, cell: Cell | None) -> Iterator[str]:
    """Against vanishing."""
    if isinstance(cell, (Elman, CTRNN)):
        yield "Cell: lstm or gru, whose gates let the error pass."
        if isinstance(cell, CTRNN) and cell.alpha > 0.1:
            yield f"Leak: an alpha below {cell.alpha:g}, as 1 - alpha of the state stays at every step."
        norm = max((spectrum.norm for spectrum in flow.spectra.values()), default=math.nan)
        slope = 0.25 if cell.phi == "sigmoid" else 1.0
        small = f"; its norm is {norm:.2g}, so that no error can last" if norm * slope < 1 else ""
        start = "the identity" if cell.phi == "relu" else "an orthogonal matrix"
        yield f"Initialisation: W_h as {start}{small}."
        if cell.phi == "sigmoid":
            yield "Cell: phi=tanh; the slope of a sigmoid is at most a quarter."
    yield from _gates(flow, cell)
    if cell is None:
        yield "Cell or initialisation: gates that stay open at first, or an orthogonal recurrent matrix."
    yield from _crowded(flow)
    h = None if flow.kept is None else flow.kept.smallest_h(TOLERANCE)
    if h is not None and flow.h is not None and 2 * h <= flow.h:
        yield f"h: {h} is enough as it is; BPTT({h}) is off by at most {_percent(TOLERANCE)} of the gradient."


def _gates(flow: Flow, cell: Cell | None) -> Iterator[str]:
    name = {GRU: "z", LSTM: "f"}.get(type(cell))  # type: ignore[arg-type]
    means = [part.gates[name].mean for part in flow.activity.values() if name in part.gates] if name else []
    if means and min(means) < FORGETS:
        what = "forget bias" if name == "f" else "bias of z"
        yield (
            f"Initialisation: a higher {what}, by 1 to 3, more for longer lags; the gate {name} holds only "
            f"{_percent(min(means))} of the past from step to step, in the mean."
        )


def _bound(flow: Flow, cell: Cell | None) -> Iterator[str]:
    """Against exploding."""
    yield from _clip(flow)
    radius = max((spectrum.radius for spectrum in flow.spectra.values()), default=math.nan)
    if radius > 1:
        yield f"Initialisation: W_h scaled down or orthogonal; its spectral radius is {radius:.3g}, at most 1 is safe."
    if getattr(cell, "phi", None) in UNBOUNDED:
        yield "Cell: phi=tanh, or lstm or gru, whose states stay bounded."
    yield "h: a smaller one cuts off where the error has grown most."


def _calm(flow: Flow, cell: Cell | None) -> Iterator[str]:
    """Against chaos."""
    radius = max((spectrum.radius for spectrum in flow.spectra.values()), default=math.nan)
    if radius > 1:
        yield f"Initialisation: W_h scaled down from its spectral radius of {radius:.3g} to about 1, or orthogonal."
    yield from _clip(flow)
    if isinstance(cell, (Elman, CTRNN)):
        yield "Cell: lstm or gru."
    yield "Learning rate: a lower one, if training made it so."


def _clip(flow: Flow) -> Iterator[str]:
    if flow.clipping is None or flow.clipping.bound is None:
        yield "Clipping: the norm of the gradient to 1 or so, that one bad step does not undo the others."
    else:
        yield (
            f"Clipping: to less than {flow.clipping.bound:g}, by which {_percent(flow.clipping.share)} of the updates "
            "were clipped; it treats the step, not the cause."
        )


def _further(flow: Flow) -> Iterator[str]:
    """What may be better though it is healthy."""
    if flow.h is not None and flow.kept is not None and flow.h <= flow.kept.h[-1]:
        lost = 1 - flow.kept.share(flow.h)
        better = flow.kept.smallest_h(0.1)
        if lost > 0.1:
            to = f" {better} keeps nine tenths of it." if better is not None else ""
            yield f"h: a larger one; BPTT({flow.h}) cuts off {_percent(lost)} of the gradient.{to}"
    if flow.clipping is not None and flow.clipping.share > OFTEN:
        yield (
            f"Clipping: {_percent(flow.clipping.share)} of the updates were clipped to {flow.clipping.bound:g}, which "
            "sets the step then; raise it, or lower the learning rate."
        )
    yield from _crowded(flow)


def _revive(flow: Flow) -> Iterator[str]:
    yield "Code: whether the state is detached between steps, and the loss reads it."
    yield from _crowded(flow)


def _crowded(flow: Flow) -> Iterator[str]:
    for name, part in flow.activity.items():
        if part.saturated > CROWDED:
            yield f"Scale: smaller inputs or weights; {_percent(part.saturated)} of what {name} computes is saturated."
        if part.dead > CROWDED * part.units:
            yield f"Units: {part.dead} of {part.units} in {name} never move; a lower rate, or another initialisation."


# Numbers


def _exponent(flow: Flow) -> float:
    return -math.inf if flow.exponents is None else float(flow.exponents[0])


def _ratio(whole: ErrorByLag, lag: int) -> float:
    """The typical norm at a lag, or the nearest one before it that was seen, as a multiple of the first."""
    seen = (whole.count > 0) & (whole.lags <= max(lag, int(whole.lags[0])))
    logs = whole.mean[seen]
    return float(10 ** min(308.0, logs[-1] - logs[0]))


def _steps(steps: float | None) -> str:
    if steps is None:
        return "more steps than were measured"
    return f"{steps:.2g} steps" if steps < 9.95 else f"{steps:.0f} steps"


def _percent(share: float) -> str:
    """A share in per cent, with as many digits as tell it from 100, up to a millionth."""
    if 0.99 < share < 1 - 1e-6:
        digits = max(0, math.ceil(-math.log10(1 - share) - 1e-9) - 2)
        return f"{math.floor(share * 100 * 10**digits + 1e-6) / 10**digits:.{digits}f} %"
    return f"{100 * share:.3g} %"
