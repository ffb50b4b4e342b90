"""Everything that can be drawn of one network while it reads one chunk: how far back, where, and what is inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from throughtime.chunk import Chunk
from throughtime.flow import ErrorByLag, Flow, probe, saliency, units_over_time
from throughtime.nets import Loss
from throughtime.pictures.base import Picture
from throughtime.pictures.curves import ErrorAgainstLag
from throughtime.pictures.maps import ErrorMap, HiddenUnits, Saliency
from throughtime.pictures.units import Eigenvalues, GateActivity

COLUMNS = 66
"""Steps that a map shows: as many characters as fit under a picture."""

MOST = 3
"""Layers whose units are shown, each in a map; of more than these the first and the last."""

GATES = {
    "i": "input gate",
    "f": "forget gate",
    "g": "candidate",
    "o": "output gate",
    "r": "reset gate",
    "z": "update gate",
    "n": "candidate",
}
"""What the blocks of a GRU and an LSTM are called."""


def gallery(
    net: nn.Module, loss: Loss, chunk: Chunk, flow: Flow, tokens: Sequence[str] | None = None
) -> Iterator[Picture]:
    """The pictures of a network that reads a chunk, one after the other, as they are measured.

    net, loss, chunk  as in flow.measure, which flow is the result of. The maps show the chunk's first stream.
    tokens            (T,) what that stream reads, to stand under the pictures; None: numbers of steps, no saliency.

    Cost: beside what flow took, `chunk.steps` steps of one stream, and the error by lag of up to COLUMNS of them.
    """
    if tokens is not None and len(tokens) != chunk.steps:
        raise ValueError(f"tokens must be one a step, {chunk.steps}; got {len(tokens)}.")
    yield ErrorAgainstLag(flow.whole, flow.h)
    if len(flow.parts) > 1:
        yield ErrorAgainstLag(flow.parts, flow.h, title="How far back, by part of the state")
    first = _first_stream(chunk)
    error = _each_step(net, loss, first, int(flow.whole.lags[-1]))
    yield ErrorMap(error, flow.h, None if tokens is None else [tokens[step] for step in error.at])
    seen = units_over_time(net, chunk)
    last = slice(max(0, chunk.steps - COLUMNS), None)
    layers = [name for name in seen.states if name.startswith("h of")]
    for name in layers if len(layers) <= MOST else (layers[0], layers[-1]):
        yield HiddenUnits(seen.states[name][last, 0], None if tokens is None else tokens[last], name)
    if tokens is not None:
        t = int(error.at[-2:][0])  # the last but one, after which is known what came
        yield Saliency(saliency(net, loss, first, t)[:, 0], tokens, t, tokens[t + 1] if t + 1 < len(tokens) else None)
    one = not any("layer 2" in name for name in (*flow.spectra, *seen.states))
    if seen.gates:
        yield GateActivity({_named(name, one): values for name, values in seen.gates.items()})
    elif seen.states:
        yield GateActivity({_named(name, one): values for name, values in seen.states.items()}, gates=False)
    if flow.spectra:
        yield Eigenvalues({_named(name, one): spectrum.eigenvalues for name, spectrum in flow.spectra.items()})


def _first_stream(chunk: Chunk) -> Chunk:
    y, mask, reset = (None if part is None else part[:, :1] for part in (chunk.y, chunk.mask, chunk.reset))
    return Chunk(chunk.x[:, :1], y, mask, reset, chunk.end)


def _each_step(net: nn.Module, loss: Loss, first: Chunk, lags: int) -> ErrorByLag:
    """The error by lag of the last COLUMNS steps of one stream that have an error, each by itself."""
    start = max(0, first.steps - lags - COLUMNS)
    error = probe(net, loss, first[start:], lags=lags, samples=COLUMNS, streams=1)
    return ErrorByLag(error.lags, error.at + start, error.norms)


def _named(name: str, one: bool) -> str:
    """A part of the network in whole words, without its layer where there is one: `f of layer 1` as `forget gate`."""
    name = name.replace(" of layer 1", "") if one else name
    head, comma, block = name.partition(", ")
    letter, space, rest = head.partition(" ")
    return f"{GATES.get(letter, letter)}{space}{rest}{comma}{GATES.get(block, block)}"
