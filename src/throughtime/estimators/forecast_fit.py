"""Fitting a forecaster: anchors and season from the past alone, then the network, judged on the last part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from throughtime.baselines.series import Numbers, season_of
from throughtime.credit import BPTT, Credit
from throughtime.data.axis import Axis
from throughtime.data.panel import Line
from throughtime.estimators.anchor import (
    ALONE,
    Anchor,
    Choice,
    Past,
    Track,
    border_of,
    choose,
    fit_anchor,
    plain_anchor,
    track_of,
)
from throughtime.estimators.heads import Head
from throughtime.estimators.horizons import Horizons, Span, View
from throughtime.estimators.learning import learn
from throughtime.estimators.weighing import Weighed, readouts, weigh
from throughtime.nets import Committee, Network, Window, window_like

LEAST = 24
"""Steps that a network is trained on at least: with fewer it is judged by chance."""
TOO_FEW = "There are too few values to train and judge a network: the forecast is its anchor's."
STREAM = 100
"""Steps of a training stream, at least, and MOST streams: streams learn side by side, each from an empty state."""
MOST = 32
FEW, FEWER = 3, 20_000
"""Networks that learn each on their own where there are at most so many steps; what they say is averaged."""
STEPS = 64
"""Steps of a chunk."""
WARM = 200
"""Steps that are read before the held-out part, so that it does not begin from an empty state."""
LOOK = 20
"""Updates from one look at the held-out part to the next."""


@dataclass(frozen=True)
class Design:
    """What the caller asked of the network and its training."""

    cell: str
    units: int
    layers: int
    window: int | None
    dropout: float
    credit: Credit | str | None
    rate: float
    decay: float
    updates: int
    seconds: float | None
    patience: int
    networks: int | None


@dataclass(frozen=True)
class Fitted:
    """The network, its view and head, an anchor for each line, and what there is to say."""

    net: nn.Module
    view: View
    head: Head
    anchors: tuple[Anchor, ...]
    weighed: Weighed | None
    records: list[dict[str, Any]]
    notes: tuple[str, ...]


def season_for(lines: Sequence[Line], axis: Axis, asked: float | None) -> tuple[float, str]:
    """The season in steps, 1 for none, and the sentence that says where it is from."""
    if asked is not None:
        if not isinstance(asked, (int, float, np.number)) or not 1 <= asked < np.inf:
            raise ValueError(f"season must be at least 1 step (1: none), or None to find it; got {asked!r}.")
        return float(asked), f"Season: {asked:g} steps, as asked."
    longest = max(lines, key=lambda line: len(line.values)).values
    if axis.season is not None and len(longest) >= 2 * axis.season[0] + 2:
        return axis.season[0], f"Season: {axis.season[0]:.4g} steps, the {axis.season[1]}."
    found = season_of(longest)
    if found > 1:
        return float(found), f"Season: {found} steps, found in the data."
    return 1.0, "Season: none stands out."


def fit_forecaster(
    lines: Sequence[Line], *, horizon: int, season: float, direct: bool, head: Head, design: Design, seed: int
) -> Fitted:
    """Anchors for the lines, and one network for all, by the seed."""
    pasts = [_past(line, horizon, season) for line in lines]
    choices = _choices(pasts)
    ahead = horizon if direct else 1
    view = View(ahead, season, lines[0].covariates.shape[1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net: nn.Module = _network(design, view, head)
        spans = _spans(pasts, choices, view)
        if spans is None:
            anchors = tuple(
                _anchor(replace(past, horizon=ahead), one) for past, one in zip(pasts, choices, strict=True)
            )
            _say_nothing(net, head, _left(pasts, anchors, view))
            head = head.calibrated(np.zeros((0, ahead * head.each)), np.zeros((0, ahead)), ahead)
            return Fitted(net, view, head, anchors, None, [], (*_anchored(choices), TOO_FEW))
        training, held, anchors = spans
        left, records = _asked(training), []
        nets = [net, *(_network(design, view, head) for _ in range(_count(design, training) - 1))]
        for one in nets:
            bias = _say_nothing(one, head, left)
            records += _train(one, training, held, head, design)
        net = Committee(nets) if len(nets) > 1 else net
        weighed, head = weigh(net, head, held, ahead, bias)
    return Fitted(net, view, head, anchors, weighed, records, (*_anchored(choices), _worth(weighed)))


def _count(design: Design, training: Horizons) -> int:
    """How many networks learn: as many as asked, else a few where the data are few."""
    return design.networks or (FEW if training.ends[-1] <= FEWER else 1)


def _past(line: Line, horizon: int, season: float) -> Past:
    """A line up to its last value: a gap at its end is nothing to be judged by."""
    stop = int(np.nonzero(~np.isnan(line.values))[0][-1]) + 1
    return Past(line.values[:stop], line.start, horizon, season, line.covariates if line.covariates.shape[1] else None)


def _choices(pasts: Sequence[Past]) -> list[tuple[Choice, ...]]:
    """The kinds of anchor of each series; of many series those that are best on some of them."""
    if len(pasts) <= ALONE:
        return [choose([past]) for past in pasts]
    some = [pasts[int(k)] for k in np.linspace(0, len(pasts) - 1, ALONE)]
    return [choose(some)] * len(pasts)


def _anchor(past: Past, choices: Sequence[Choice]) -> Anchor:
    return fit_anchor(past, choices) or plain_anchor(past)


def _network(design: Design, view: View, head: Head) -> Network | Window:
    cell = "gru" if design.cell == "mlp" else design.cell
    net = Network(
        cell,
        inputs=view.width,
        units=design.units,
        outputs=view.horizon * head.each,
        layers=design.layers,
        dropout=design.dropout,
    )
    return net if design.window is None else window_like(net, design.window)


def _spans(
    pasts: Sequence[Past], choices: Sequence[tuple[Choice, ...]], view: View
) -> tuple[Horizons, Horizons, tuple[Anchor, ...]] | None:
    """What to train on, what to judge by, and anchors fitted before each border; None where there is too little."""
    anchors, training, held = [], [], []
    for past, kinds in zip(pasts, choices, strict=True):
        n = len(past.y)
        border = border_of(n, past.horizon)
        early = replace(past, horizon=view.horizon)
        if np.isnan(past.y[:border]).all():
            border = n
        anchor = _anchor(early.cut(border), kinds)
        anchors.append(anchor)
        track = _track(past, anchor, view.horizon)
        skipped = min(anchor.reach, border // 3)
        if border > 1:
            training.append(Span(track, 0, border - 1, skipped, border))
        if 1 < border < n:
            held.append(Span(track, max(0, border - 1 - WARM), n - 1, border - 1, n))
    steps = sum(_targets(span) for span in training)
    if steps < LEAST or sum(_targets(span) for span in held) < 2:
        return None
    rows = sum(span.stop - span.first for span in training)
    return (
        Horizons(view, training, int(np.clip(rows // STREAM, 1, MOST)), STEPS),
        Horizons(view, held, int(np.clip(len(held), 1, MOST)), 8 * STEPS),
        tuple(anchors),
    )


def _track(past: Past, anchor: Anchor, horizon: int) -> Track:
    """The whole past under an anchor, missing values as it expects them."""
    beside = anchor.parts[0].beside(past.start, len(past.y), past.covariates)
    z = anchor.fill(past.y, np.zeros(0), beside)
    return track_of(anchor, z, np.isnan(past.y), start=past.start, more=horizon, covariates=past.covariates)


def _targets(span: Span) -> int:
    """How many next values a span asks for."""
    return int((~span.track.missing[span.counted + 1 : span.known]).sum())


def _asked(source: Horizons) -> Numbers:
    """(N, H): what is left over in at most the first million numbers, NaN where it is unknown."""
    parts, size = [], 0
    for index in range(len(source)):
        chunk = source[index]
        assert chunk.y is not None
        assert chunk.mask is not None
        parts.append(chunk.y.masked_fill(chunk.mask == 0, torch.nan).flatten(0, 1).double().numpy())
        size += parts[-1].size
        if size > 1_000_000:
            break
    return np.concatenate(parts)


def _left(pasts: Sequence[Past], anchors: Sequence[Anchor], view: View) -> Numbers:
    spans = [
        Span(_track(past, anchor, view.horizon), 0, len(past.y) - 1, min(anchor.reach, len(past.y) // 3), len(past.y))
        for past, anchor in zip(pasts, anchors, strict=True)
        if len(past.y) > 1
    ]
    return _asked(Horizons(view, spans, 1, STEPS)) if spans else np.zeros((0, view.horizon))


@torch.no_grad()
def _say_nothing(net: nn.Module, head: Head, left: Numbers) -> torch.Tensor:
    """Set the readout to what its anchor leaves over, whatever the state; the biases."""
    (readout,) = readouts(net)
    readout.weight.zero_()
    readout.bias.copy_(torch.from_numpy(head.start(left)))
    return readout.bias.detach().clone()


def _train(net: nn.Module, training: Horizons, held: Horizons, head: Head, design: Design) -> list[dict[str, Any]]:
    return learn(
        net,
        training,
        loss=head.loss,
        credit=BPTT(h=STEPS, every=STEPS) if design.credit is None else design.credit,
        rate=design.rate,
        decay=design.decay,
        epochs=None,
        updates=design.updates,
        seconds=design.seconds,
        validation=held,
        validate_every=LOOK,
        patience=design.patience,
    )


def _anchored(choices: Sequence[tuple[Choice, ...]]) -> tuple[str, ...]:
    if len(set(choices)) > 1:
        return (f"Anchors: chosen for each of the {len(choices)} series.",)
    names = [f"{one.kind.name}{' on a bent scale' * one.bent} ({one.weight:.0%})" for one in choices[0]]
    return (f"Anchor: {', '.join(names)}.",)


def _worth(weighed: Weighed) -> str:
    losses = f"its held-out loss is {weighed.network:.4g} against {weighed.anchor:.4g} of its anchor"
    if weighed.share <= 0:
        return f"The network adds nothing that is sure: {losses}. The forecast is the anchor's."
    return f"The network has a share of {weighed.share:.0%} in what is added to the anchor: {losses}."
