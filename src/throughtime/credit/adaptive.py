"""BPTT(h) whose h follows from how fast the error fades, measured on the stream itself.

Over a probe, for every lag k < R, in the mean over the errors that have R steps of it before them,
    phi_k   the norm of what one error sends to the recurrent weights k steps back
    g_h     the gradient with the lags below h, the one of BPTT(h); this is a mean before it is a norm
and from lag tau on the norms fall by a factor beta a step, the least-squares slope of log phi_k over k >= tau.
Cutting at h loses at most
    E(h) = sum_{h <= k < R} phi_k + E(R)        E(R) = phi_{R-1} beta / (1 - beta)        E(h) = E(R) beta^{h-R}, h > R
and as a share of the gradient at most
    delta(h) = E(h) / max_{k <= R} (|g_k| - E(k))                                  where that is above zero.

Aicher, Foti and Fox, Adaptively truncating backpropagation through time to control gradient bias (2019). There phi_k
is the norm of d loss_t / d s_{t-k}, times a bound M on |d s / d weights| that nobody knows; here what reaches the
weights is measured itself, and no M is left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from throughtime.chunk import Chunk, join
from throughtime.credit.base import Credit, Estimate, check_steps
from throughtime.credit.bptt import BPTT
from throughtime.credit.bptt import Memory as Windows
from throughtime.credit.lag import factors, lags, times
from throughtime.credit.trace import Trace, carry, check, read
from throughtime.nets import Loss, Network, Window
from throughtime.shapes import Float, Tensor
from throughtime.state import State, detach


@dataclass(frozen=True)
class Choice:
    """How far back errors go, and what was measured.

    h      steps that every error goes back at least, its own included.
    beta   the factor by which the error fades a step; NaN where nothing was measured.
    bound  delta(h), infinite where nothing bounds it.
    words  the sentence for the record.
    """

    h: int
    beta: float
    bound: float
    words: str


@dataclass(frozen=True, eq=False)
class Watch:
    """What AdaptiveBPTT holds between two calls.

    step     steps read so far.
    due      the step at which the next measurement is made.
    choice   the last choice, None before the first.
    windows  the memory of BPTT under that choice.
    state    the state before the steps in `seen`.
    seen     the steps of the probe so far; before the first choice they are not settled yet.
    """

    step: int
    due: int
    choice: Choice | None = None
    windows: Windows | None = None
    state: State = None
    seen: tuple[Chunk, ...] = ()


@dataclass(frozen=True)
class AdaptiveBPTT(Credit):
    """BPTT(h) with the smallest h whose bias is, by what was measured, at most `tolerance` of the gradient.

    tolerance  the bound on |bias| / |gradient|, above 0.
    probe      steps of the stream that are measured at once; lags up to half of them are looked at.
    again      steps from one measurement to the next.
    tau        the lag from which on the error fades by one factor a step; None: a quarter of the lags looked at.
    minimum, maximum   h is never below, never above; no maximum: None.
    every      steps between two settlements; None: h of them. Errors go back h to h + every - 1 steps;
               the first ones after a change no further than into the steps that were measured.

    Between two measurements it is BPTT(h + every - 1, every). The errors before the first one wait for it; a stream
    that ends before it is settled whole, as by BPTT(). `note` says what was chosen and why, and training records it.
    Raises ValueError when the error does not fade (beta is not below 1), or the probe is too short to bound what lies
    beyond its lags, unless there is a maximum: then that is taken, and the note says so.

    Cost per step: that of BPTT(2 h - 1, every=h), about three forward and two backward steps; a measurement adds a
    pass and half a probe of steps back for every step of the probe. Memory: that of BPTT, or a probe.
    Bias: at most the tolerance on the probe and under the assumption that the error goes on fading as measured. The
    bound adds up norms where gradients of different errors cancel, so h is larger than it need be where the gradient
    is small beside its noise. Not where a rare dependency is longer than the probe: nothing is seen of it. For the
    library's own networks; TypeError for others.
    """

    tolerance: float = 0.1
    probe: int = 200
    again: int = 10_000
    tau: int | None = None
    minimum: int = 1
    maximum: int | None = None
    every: int | None = None
    memories = (Watch, Choice, *BPTT.memories)

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be a share of the gradient, above 0; got {self.tolerance}.")
        limits = {"maximum": self.maximum, "every": self.every}
        check_steps(minimum=self.minimum, **{name: value for name, value in limits.items() if value is not None})
        check_steps(probe=self.probe, again=self.again)
        if self.maximum is not None and self.maximum < self.minimum:
            raise ValueError(f"maximum must be at least minimum; got {self.maximum}, below {self.minimum}.")
        if self.probe < 6:
            raise ValueError(f"probe must be at least 6 steps, for lags to fit a line to; got {self.probe}.")
        if self.again < self.probe:
            raise ValueError(f"again must be at least probe, {self.probe} steps; got {self.again}. Raise it.")
        if self.tau is not None and not 0 <= self.tau <= self.lags - 2:
            raise ValueError(
                f"tau must be from 0 to {self.lags - 2}, as half a probe of lags is looked at; got {self.tau}. "
                "Lower it, or raise probe."
            )

    @property
    def lags(self) -> int:
        """R, the number of lags that are looked at."""
        return self.probe // 2

    def start(self, net: nn.Module, state: State = None) -> Watch:
        check(net, "AdaptiveBPTT", "BPTT(h) or RandomTruncation")
        return Watch(0, self.probe, state=detach(state))

    def held(self, memory: Watch) -> tuple[State, tuple[Chunk, ...]]:
        if memory.choice is None or memory.windows is None:
            return memory.state, memory.seen
        return self._bptt(memory.choice).held(memory.windows)

    def note(self, memory: Watch) -> str:
        return "" if memory.choice is None else memory.choice.words

    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Watch) -> tuple[Estimate, Watch]:
        total = Estimate.nothing(chunk.x)
        while chunk.steps:
            begins = memory.due - self.probe
            part = chunk[: (begins if memory.step < begins else memory.due) - memory.step]
            chunk = chunk[part.steps :]
            estimate, memory = self._read(net, loss, replace(part, end=False), memory)
            total += estimate
            if memory.step == memory.due:
                estimate, memory = self._measure(net, loss, memory)
                total += estimate
        if chunk.end:
            estimate, memory = self._end(net, loss, chunk, memory)
            total += estimate
        return total, memory

    def _read(self, net: nn.Module, loss: Loss, part: Chunk, memory: Watch) -> tuple[Estimate, Watch]:
        """Settle what the windows settle, and keep what belongs to the probe."""
        estimate, windows = Estimate.nothing(part.x), memory.windows
        if memory.step >= memory.due - self.probe:
            if not memory.seen and windows is not None:
                memory = replace(memory, state=_state_now(net, windows))
            memory = replace(memory, seen=(*memory.seen, part))
        if memory.choice is not None and windows is not None:
            estimate, windows = self._bptt(memory.choice)(net, loss, part, windows)
        return estimate, replace(memory, step=memory.step + part.steps, windows=windows)

    def _measure(self, net: nn.Module, loss: Loss, memory: Watch) -> tuple[Estimate, Watch]:
        """Choose anew at the end of a probe; what the old windows hold is settled, and the new ones know the past."""
        old, seen = memory.choice, join(memory.seen)
        choice = self._choose(net, loss, seen, memory.state)
        credit = self._bptt(choice)
        estimate, windows = Estimate.nothing(seen.x), memory.windows
        if old is None:
            estimate, windows = credit(net, loss, seen, credit.start(net, memory.state))
        elif old.h != choice.h and windows is not None:
            estimate, _ = self._bptt(old)(net, loss, replace(seen[:0], end=True), windows)
            windows = _knowing(net, loss, credit, seen, memory.state)
        wait = self.probe if math.isnan(choice.beta) else self.again
        return estimate, Watch(memory.step, memory.step + wait, choice, windows)

    def _end(self, net: nn.Module, loss: Loss, nothing: Chunk, memory: Watch) -> tuple[Estimate, Watch]:
        """Settle what is held; the choice stays, a probe that was begun is begun anew."""
        due = max(memory.due, memory.step + self.probe)
        if memory.choice is None or memory.windows is None:
            held = replace(join(memory.seen), end=True) if memory.seen else nothing
            estimate, after = BPTT()(net, loss, held, BPTT().start(net, memory.state))
            return estimate, Watch(memory.step, due, state=after.state)
        estimate, windows = self._bptt(memory.choice)(net, loss, nothing, memory.windows)
        return estimate, Watch(memory.step, due, memory.choice, windows)

    def _bptt(self, choice: Choice) -> BPTT:
        every = choice.h if self.every is None else self.every
        return BPTT(choice.h + every - 1, every)

    def _choose(self, net: nn.Module, loss: Loss, seen: Chunk, state: State) -> Choice:
        if isinstance(net, Window):
            return Choice(self.minimum, 0.0, 0.0, f"h={self.minimum}: a Window carries no error back.")
        assert isinstance(net, Network)
        measured = measure(net, loss, seen, state, self.lags)
        if measured is None:
            far = max(self.minimum, self.maximum or self.lags)
            return Choice(far, math.nan, math.inf, f"h={far}, for now: the probe has no finite error that counts.")
        tau = self.lags // 4 if self.tau is None else self.tau
        beta = fade(measured[0], tau)
        delta = bound(*measured, beta)
        h = smallest(delta, self.lags, beta, self.tolerance)
        fades = f"the error fades by a factor of {beta:.3g} a step from lag {tau} on"
        if h is None:
            return self._at_most(beta, fades, tau)
        chosen = max(self.minimum, h if self.maximum is None else min(h, self.maximum))
        why = "" if chosen == h else f" (the {'minimum' if chosen > h else 'maximum'}; {h} keeps to the tolerance)"
        lost = delta(chosen)
        words = f"h={chosen}{why}: {fades}; what is lost is at most {100 * lost:.3g} % of the gradient."
        return Choice(chosen, beta, lost, words)

    def _at_most(self, beta: float, fades: str, tau: int) -> Choice:
        """The maximum, where nothing bounds the bias. Raises ValueError without one."""
        if self.maximum is None:
            what = "the error fades" if beta >= 1 else "the lags of a probe show most of the gradient"
            raise ValueError(
                f"maximum must be given unless {what}; got a factor of {beta:.4g} a step from lag {tau} to "
                f"{self.lags - 1}. Give maximum, raise probe, or use RandomTruncation."
            )
        why = f"the error does not fade, its factor is {beta:.3g} a step from lag {tau} on" if beta >= 1 else fades
        return Choice(
            self.maximum, beta, math.inf, f"h={self.maximum}, the maximum: {why}; nothing bounds what is lost."
        )


def measure(
    net: Network, loss: Loss, seen: Chunk, state: State, R: int
) -> tuple[Float[Tensor, " R"], Float[Tensor, " R+1"]] | None:
    """phi_k for k < R and |g_h| for h <= R, an error, in float64; None where no error counts, or one is not finite."""
    trace, _ = read(net, seen, state)
    new = seen[R - 1 :]
    found: list[tuple[Tensor, Tensor]] = []

    def watch(net: Network, trace: Trace, dh: Tensor, grads: dict[int, Tensor]) -> Tensor:
        found.append(_by_lag(net, trace, dh, new.steps, R))
        return torch.zeros_like(trace.layers[0].x)

    count = carry(net, loss, trace, new, watch).count
    if not found or not all(part.isfinite().all() for part in found[0]):
        return None
    return found[0][0] / count, found[0][1] / count


def _by_lag(net: Network, trace: Trace, dh: Tensor, new: int, R: int) -> tuple[Tensor, Tensor]:
    layers = factors(net, trace)
    sums: dict[tuple[int, str], Tensor] = {}
    phi, g = torch.zeros(R, dtype=torch.float64), torch.zeros(R + 1, dtype=torch.float64)
    for k, (first, found) in enumerate(lags(layers, trace.reset, dh, new, R, gamma=0)):
        squares = torch.zeros(dh[first:].shape[:2], dtype=torch.float64, device=dh.device)
        for depth, (layer, ds) in enumerate(zip(layers, found, strict=True)):
            for name, parts, inputs in (
                ("u", layer.du, trace.layers[depth].x[first:]),
                ("v", layer.dv, trace.layers[depth].before[first:]),
            ):
                d = times(parts, ds, first).flatten(2)
                inputs = torch.cat((inputs, torch.ones_like(inputs[..., :1])), -1)  # the last one meets the bias
                squares += d.double().square().sum(-1) * inputs.double().square().sum(-1)
                grad = d.flatten(0, 1).T @ inputs.flatten(0, 1)
                sums[depth, name] = sums[depth, name] + grad if k else grad
        phi[k] = squares.sqrt().sum()
        g[k + 1] = torch.stack([grad.double().norm() for grad in sums.values()]).norm()
    return phi, g


def fade(phi: Float[Tensor, " R"], tau: int) -> float:
    """beta: the factor a step of the norms from lag tau on, by least squares on their logarithms.

    Norms that are lost to rounding beside the largest are left out; 0 where fewer than two remain.
    """
    k = torch.arange(len(phi))[tau:]
    kept = phi[tau:] > phi.max() * 1e-20
    if int(kept.sum()) < 2:
        return 0.0
    x, y = k[kept].double(), phi[tau:][kept].log()
    x = x - x.mean()
    return float(torch.exp((x * y).sum() / x.square().sum()))


def bound(phi: Float[Tensor, " R"], g: Float[Tensor, " R+1"], beta: float) -> Callable[[int], float]:
    """delta(h), the share of the gradient that is lost at most when lags from h on are; infinite where nothing says."""
    R = len(phi)
    beyond = float(phi[-1]) * beta / (1 - beta) if beta < 1 else math.inf
    E = torch.cat((phi.flip(0).cumsum(0).flip(0), phi.new_zeros(1))) + beyond  # of h = 0 ... R
    sure = float((g - E).max())

    def delta(h: int) -> float:
        lost = float(E[h]) if h <= R else beyond * beta ** (h - R)
        return lost / sure if sure > 0 else math.inf

    return delta


def smallest(delta: Callable[[int], float], R: int, beta: float, tolerance: float) -> int | None:
    """The smallest h with delta(h) <= tolerance; None when there is none."""
    seen = next((h for h in range(1, R + 1) if delta(h) <= tolerance), None)
    if seen is not None or delta(R) == math.inf:
        return seen
    return R + math.ceil(math.log(tolerance / delta(R)) / math.log(beta))


def _state_now(net: nn.Module, windows: Windows) -> State:
    """The state after all that the windows have read, what is pending too."""
    state = windows.state
    with torch.no_grad():
        for part in windows.pending:
            _, state = net(part.x, state, part.reset)
    return state


def _knowing(net: nn.Module, loss: Loss, credit: BPTT, seen: Chunk, state: State) -> Windows:
    """Windows that can go back into the steps seen, whose own errors are settled already and count no more."""
    assert credit.h is not None
    first = max(0, seen.steps - credit.h)
    if first:
        with torch.no_grad():
            _, state = net(seen.x[:first], state, None if seen.reset is None else seen.reset[:first])
    late = seen[first:]
    like = late.x[..., 0] if late.x.dim() > 2 else late.x
    mask = torch.zeros_like(like, dtype=torch.get_default_dtype()) if late.mask is None else torch.zeros_like(late.mask)
    _, windows = credit(net, loss, replace(late, mask=mask), credit.start(net, state))
    return windows
