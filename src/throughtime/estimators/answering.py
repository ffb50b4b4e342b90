"""What a network says of whole sequences, each alone in its row, so that no other one and no padding touches a bit.

The network is a Network, or has `summaries(x, state, reset)` and a linear `readout`, as SequenceNetwork.

The recurrence gives a row the same bits in every batch; the readout y = W s + b is summed here row by row in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime.shapes import Tensor
from throughtime.state import State, change

Numbers = NDArray[np.float64]
AT_ONCE = 2**22
"""Numbers that are held for a batch of summaries, about."""


def answers(net: Any, x: Sequence[NDArray[Any]]) -> Numbers:
    """The outputs after the last step of each sequence, (N, A); NaN where it has no step."""
    found = np.full((len(x), net.readout.out_features), np.nan)
    for rows, lengths, h, _ in _read(net, x, None, equal=False):
        found[rows] = _readout(net, h[lengths - 1, torch.arange(len(rows))])
    return found


def answers_by_step(net: Any, x: Sequence[NDArray[Any]], state: State = None) -> list[Numbers]:
    """The outputs after every step of each sequence, (T_i, A), from a state; of one direction alone."""
    found = [np.zeros((0, net.readout.out_features)) for _ in x]
    for rows, lengths, h, _ in _read(net, x, state, equal=False):
        for place, (row, length) in enumerate(zip(rows.tolist(), lengths.tolist(), strict=True)):
            found[row] = _readout(net, h[:length, place])
    return found


def advance(net: Any, x: Sequence[NDArray[Any]], state: State) -> State:
    """The state after the sequences, each from its row of the state; a row without steps stays as it is."""
    for rows, _, _, after in _read(net, x, state, equal=True):
        state = _put(state, after, torch.from_numpy(rows), len(x))
    return state


def _read(
    net: Any, x: Sequence[NDArray[Any]], state: State, *, equal: bool
) -> Iterator[tuple[NDArray[np.int64], Tensor, Tensor, State]]:
    """(rows, their lengths, summaries (T, B, F), state) of batches of similar length, or of equal length."""
    lengths = np.array([len(sequence) for sequence in x], np.int64)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    dtype = net.readout.weight.dtype
    with torch.no_grad():
        while len(order):
            longest = lengths[order[-1]]
            take = max(1, min(512, AT_ONCE // int(longest * (net.readout.in_features + 1))))
            near = order[-take:]
            near = near[lengths[near] == longest] if equal else near[lengths[near] >= longest // 2]
            order = order[: len(order) - len(near)]
            inputs, reset = _padded([x[row] for row in near], dtype)
            rows = torch.from_numpy(near)
            before = None if state is None else change(partial(torch.index_select, dim=-2, index=rows), state)
            if state is not None:
                reset[0] = False
            h, after = summaries(net, inputs, before, reset)
            yield near, torch.from_numpy(lengths[near]), h, after


def summaries(net: Any, x: Tensor, state: State, reset: Tensor) -> tuple[Tensor, State]:
    """What the readout of a network is of, at every step, and the state."""
    if hasattr(net, "summaries"):
        return net.summaries(x, state, reset)
    return net.layers(net.encode(x), state, reset)


def _padded(x: Sequence[NDArray[Any]], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """(T, B, ...), a sequence a row, and where one starts: what is padded is no part of it."""
    T, B = max(map(len, x)), len(x)
    ids = x[0].dtype.kind in "iu"
    padded = np.zeros((T, B, *x[0].shape[1:]), np.int64 if ids else np.float64)
    reset = torch.zeros(T, B, dtype=torch.bool)
    reset[0] = True
    for row, sequence in enumerate(x):
        padded[: len(sequence), row] = sequence
        if len(sequence) < T:
            reset[len(sequence), row] = True
    inputs = torch.from_numpy(padded)
    return (inputs if ids else inputs.to(dtype)), reset


def _readout(net: Any, h: Tensor) -> Numbers:
    """W s + b of summaries (N, F), each row summed alone."""
    W, b = (part.detach().double().numpy() for part in (net.readout.weight, net.readout.bias))
    s, found = h.double().numpy(), np.zeros((len(h), len(b)))
    step = max(1, AT_ONCE // W.size)
    for start in range(0, len(s), step):
        found[start : start + step] = (s[start : start + step, None] * W).sum(-1) + b
    return found


def _put(state: State, part: State, rows: Tensor, count: int) -> State:
    """The state of `count` rows with some of its rows replaced; None is zeros."""
    if isinstance(part, Tensor):
        whole = part.new_zeros(*part.shape[:-2], count, part.shape[-1]) if state is None else state.clone()
        whole[..., rows, :] = part
        return whole
    if part is None:
        return None
    return tuple(_put(None if state is None else state[k], inner, rows, count) for k, inner in enumerate(part))
