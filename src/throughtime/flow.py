"""Measurements of how far back the error reaches: |d loss_t / d s_{t-k}| of any network that carries a state.

    d loss_t / d s_{t-k} = (d loss_t / d s_t) J_t J_{t-1} ... J_{t-k+1},    J_t = d s_t / d s_{t-1}

s_t is the whole state after step t: of an LSTM h and c, of several layers all of them. Its norm vanishes
or explodes: Hochreiter (1991), Bengio, Simard and Frasconi (1994) and Pascanu, Mikolov and Bengio (2013).
Measured by automatic differentiation, one step at a time; nothing here draws.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit import Loss, sum_errors
from throughtime.nets import Window
from throughtime.shapes import Bool, Float, Tensor
from throughtime.state import State, change, detach, flatten

FLOOR = 1e-38
"""Norms below this, exact zeros among them, count as this: about the smallest number that float32 holds."""


@dataclass(frozen=True, eq=False)
class ErrorByLag:
    """log10 |d loss_t / d s_{t-k}| for each lag k, over the sampled steps t and the streams.

    lags    (K,) the lags k, in steps, ascending.
    mean    (K,) mean of log10 of the norm, what is below FLOOR counted as FLOOR; NaN where no pair remains.
    low     (K,) its 10 % quantile.
    high    (K,) its 90 % quantile.
    count   (K,) the pairs of a step and a stream that remain: a restart between t-k and t takes a pair out.
    summed  (K,) the sum of the norms themselves; what a restart cuts adds nothing.
    """

    lags: NDArray[np.int64]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    count: NDArray[np.int64]
    summed: NDArray[np.float64]

    def share(self, h: int) -> float:
        """The share of the summed norm at lags below h, the most that BPTT(h) keeps; NaN when all is zero."""
        if h < 1:
            raise ValueError(f"h must be a number of steps, at least 1; got {h}.")
        total = float(self.summed.sum())
        return float(self.summed[self.lags < h].sum()) / total if total else float("nan")

    @property
    def half_life(self) -> int | None:
        """The first lag whose typical norm is at most half of the first one's; None when there is none."""
        halved = self.lags[self.mean <= self.mean[0] - np.log10(2)]
        return int(halved[0]) if len(halved) else None


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

    Cost: T steps of B streams forward, then `lags` steps of samples * B streams forward and backward, and the
    memory of these; the samples run side by side, which rows that do not know of each other allow.
    Raises ValueError when nothing can be sampled, TypeError for a network without a state of real numbers.
    """
    if isinstance(net, Window):
        raise TypeError("net must carry a state; got a Window, which has no memory to measure.")
    at = _sampled(chunk, lags, samples)
    state = _states_before(net, chunk, [t - lags + 1 for t in at], state)
    windows = _side_by_side([chunk[t - lags + 1 : t + 1] for t in at])
    norms = _norms(net, loss, windows, state)  # K NB
    return _summary(np.arange(lags + 1)[-len(norms) :], norms, _remain(windows))


def _sampled(chunk: Chunk, lags: int, samples: int) -> list[int]:
    """The sampled steps, ascending."""
    for name, value in (("lags", lags), ("samples", samples)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    if chunk.steps <= lags:
        raise ValueError(
            f"chunk must have at least lags + 1 = {lags + 1} steps; got {chunk.steps}. "
            "Join chunks that follow each other, or ask for fewer lags."
        )
    possible = lags + _counted(chunk[lags:]).any(1).nonzero().flatten().cpu().numpy()
    if not len(possible):
        raise ValueError(
            f"mask must count an error at step {lags} or later, to look {lags} lags back; got none there. "
            "Ask for fewer lags."
        )
    places = np.linspace(0, len(possible) - 1, min(samples, len(possible)))
    return [int(t) for t in possible[places.round().astype(int)]]


def _counted(chunk: Chunk) -> Bool[Tensor, "T B"]:
    """Where there is an error that counts."""
    if chunk.mask is None:
        return torch.ones(chunk.x.shape[:2], dtype=torch.bool, device=chunk.x.device)
    return (chunk.mask != 0).flatten(2).any(-1) if chunk.mask.dim() > 2 else chunk.mask != 0


@torch.no_grad()
def _states_before(net: nn.Module, chunk: Chunk, starts: list[int], state: State) -> State:
    """The states that enter the steps `starts`, ascending and above 0, side by side as streams."""
    state = detach(state)
    entering = []
    done = 0
    for start in starts:
        passed = chunk[done:start]
        _, state = net(passed.x, state, passed.reset)
        entering.append(list(flatten(state)[1].values()))
        done = start
    joined = iter([torch.cat(parts, -2) for parts in zip(*entering, strict=True)])
    return change(lambda _: next(joined), state)


def _side_by_side(windows: list[Chunk]) -> Chunk:
    """Chunks of as many steps each, as one with the streams of all."""
    columns = zip(*((w.x, w.y, w.mask, w.reset) for w in windows), strict=True)
    return Chunk(*(None if parts[0] is None else torch.cat(parts, 1) for parts in columns))  # type: ignore[arg-type]


def _norms(net: nn.Module, loss: Loss, chunk: Chunk, state: State) -> Float[np.ndarray, "K B"]:
    """The norm of the gradient of each stream's last error, by lag: the entering state's at the end."""
    lags = chunk.steps
    # cuDNN's recurrent functions have no backward in evaluation mode; torch's own have.
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), _read_by_readout(net) as outlets:
        state = change(_watched, state)
        past = [_real(state)]
        for t in range(lags):
            step = chunk[t : t + 1]
            y, state = net(step.x, state, step.reset)
            past.append(_real(change(_watched, state)))
        error, _ = sum_errors(loss, y, chunk[lags - 1 :])
    by_lag = past[-2::-1]
    if outlets:
        by_lag.insert(0, outlets[-1:])
    squares = torch.zeros(len(by_lag), chunk.streams, dtype=torch.float64, device=error.device)
    if error.requires_grad:
        parts = [part for tensors in by_lag for part in tensors]
        grads = iter(torch.autograd.grad(error, parts, allow_unused=True))
        for k, grad in ((k, next(grads)) for k, tensors in enumerate(by_lag) for _ in tensors):
            if grad is not None:  # in float64, as the squares of small norms underflow in float32
                squares[k] += grad.double().square().transpose(-2, -1).reshape(-1, chunk.streams).sum(0)
    return squares.sqrt().cpu().numpy()


@contextmanager
def _read_by_readout(net: nn.Module) -> Iterator[list[Tensor]]:
    """Collects what the net's `readout` reads at each step; stays empty where there is none."""
    outlets: list[Tensor] = []
    readout = getattr(net, "readout", None)
    if not isinstance(readout, nn.Module):
        yield outlets
        return
    hook = readout.register_forward_pre_hook(lambda _, read: outlets.append(_watched(read[0])))
    try:
        yield outlets
    finally:
        hook.remove()


def _watched(part: Tensor) -> Tensor:
    """The tensor, as a part of the graph from here on if a gradient can reach it."""
    return part.requires_grad_() if part.is_floating_point() and not part.requires_grad else part


def _real(state: State) -> list[Tensor]:
    """The tensors of a state that a gradient can reach."""
    found = [part for part in flatten(state)[1].values() if part.is_floating_point()]
    if not found:
        raise TypeError("net must carry a state of real numbers; got none, so no error goes back through it.")
    return found


def _remain(chunk: Chunk) -> Bool[np.ndarray, "K B"]:
    """Where a stream's last step has an error that counts, and no restart since s_{t-k}; lag 0 first."""
    remain = _counted(chunk[chunk.steps - 1 :]).repeat(chunk.steps + 1, 1)
    if chunk.reset is not None:
        remain[1:] &= ~chunk.reset.flip(0).cummax(0).values
    return remain.cpu().numpy()


def _summary(lags: NDArray[np.int64], norms: NDArray[np.float64], remain: NDArray[np.bool_]) -> ErrorByLag:
    """Over the streams of all samples: norms (K, NB), and remain of the lags from 0 on."""
    remain = remain[lags]
    logs = np.log10(np.maximum(norms, FLOOR))
    mean, low, high = np.full((3, len(lags)), np.nan)
    for k in range(len(lags)):
        if remain[k].any():
            mean[k] = logs[k, remain[k]].mean()
            low[k], high[k] = np.quantile(logs[k, remain[k]], (0.1, 0.9))
    summed = np.where(remain, norms, 0).sum(1)
    return ErrorByLag(lags=lags, mean=mean, low=low, high=high, count=remain.sum(1), summed=summed)
