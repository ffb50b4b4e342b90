"""Which steps of a chunk are looked at, and their windows side by side, as streams that do not know of each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.inference import device_of
from throughtime.nets import Window
from throughtime.shapes import Bool, Tensor
from throughtime.state import State, change, detach, flatten, random_state, set_random_state


def refuse(net: nn.Module) -> None:
    """Raise TypeError for a network whose error does not go back through a state."""
    if isinstance(net, Window):
        raise TypeError("net must carry a state; got a Window, which has no memory to measure.")
    for name, module in net.named_modules():
        if getattr(module, "bidirectional", False):
            raise TypeError(
                f"net must read forwards alone; got {name or 'a network'} with bidirectional=True, which needs the "
                "whole sequence before its first output. Measure the network in one direction."
            )


@contextmanager
def undisturbed(net: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; mode and random numbers are put back, so that a training goes on as if nothing was."""
    device, modes = device_of(net), [(module, module.training) for module in net.modules()]
    random = random_state(device)
    net.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        set_random_state(random, device)


def sampled(chunk: Chunk, lags: int, samples: int) -> NDArray[np.int64]:
    """The sampled steps, ascending, spread evenly over those from `lags` on that have an error that counts."""
    for name, value in (("lags", lags), ("samples", samples)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")
    if chunk.steps <= lags:
        raise ValueError(
            f"chunk must have at least lags + 1 = {lags + 1} steps; got {chunk.steps}. "
            "Join chunks that follow each other, or ask for fewer lags."
        )
    possible = lags + counted(chunk[lags:]).any(1).nonzero().flatten().cpu().numpy()
    if not len(possible):
        raise ValueError(
            f"mask must count an error at step {lags} or later, to look {lags} lags back; got none there. "
            "Ask for fewer lags."
        )
    places = np.linspace(0, len(possible) - 1, min(samples, len(possible)))
    return possible[places.round().astype(int)]


def default_lags(chunk: Chunk) -> int:
    """Half of the chunk, so that there are steps to sample; more where its first error that counts is later."""
    first = counted(chunk).any(1).nonzero().flatten()
    if chunk.steps < 2 or not len(first):
        raise ValueError(
            f"chunk must have at least 2 steps and an error that counts; got {chunk.steps} steps"
            f"{'' if len(first) else ' without one'}."
        )
    return max(1, chunk.steps // 2, int(first[0]))


def counted(chunk: Chunk) -> Bool[Tensor, "T B"]:
    """Where there is an error that counts."""
    if chunk.mask is None:
        return torch.ones(chunk.x.shape[:2], dtype=torch.bool, device=chunk.x.device)
    return (chunk.mask != 0).flatten(2).any(-1) if chunk.mask.dim() > 2 else chunk.mask != 0


def remaining(chunk: Chunk, at: NDArray[np.int64], lags: int) -> NDArray[np.bool_]:
    """(lags + 1, N, B): where the error of step t counts, and there is no restart between s_{t-k} and s_t."""
    there = [counted(chunk)[at].cpu().numpy()]
    reset = np.zeros(chunk.x.shape[:2], bool) if chunk.reset is None else chunk.reset.cpu().numpy()
    for k in range(lags):
        there.append(there[-1] & ~reset[at - k])
    return np.stack(there)


@torch.no_grad()
def states_before(net: nn.Module, chunk: Chunk, starts: NDArray[np.int64], state: State) -> State:
    """The states that enter the steps `starts`, ascending and above 0, side by side as streams."""
    state = detach(state)
    entering = []
    done = 0
    for start in map(int, starts):
        if start > done:
            passed = chunk[done:start]
            _, state = net(passed.x, state, passed.reset)
        entering.append(list(flatten(state)[1].values()))
        done = start
    joined = iter([torch.cat(parts, -2) for parts in zip(*entering, strict=True)])
    return change(lambda _: next(joined), state)


def side_by_side(windows: list[Chunk]) -> Chunk:
    """Chunks of as many steps each, as one with the streams of all."""
    columns = zip(*((w.x, w.y, w.mask, w.reset) for w in windows), strict=True)
    return Chunk(*(None if parts[0] is None else torch.cat(parts, 1) for parts in columns))  # type: ignore[arg-type]
