"""What every estimator does with a network: `train` on chunks, the weights with the lowest validation loss kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Source
from throughtime.credit import BPTT, Credit
from throughtime.nets import Loss
from throughtime.runs import weights_of
from throughtime.training import cosine, train

Array = NDArray[Any]


def learn(
    net: nn.Module,
    chunks: Source,
    *,
    loss: Loss | str,
    credit: Credit | str | None = None,
    rate: float = 3e-3,
    decay: float = 0.01,
    optimizer: torch.optim.Optimizer | None = None,
    clip: float | None = 1.0,
    epochs: int | None = 1,
    updates: int | None = None,
    seconds: float | None = None,
    validation: Source | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
) -> list[dict[str, Any]]:
    """Train with AdamW along a cosine and return the records, one an update, as in a run's metrics.

    credit    default BPTT(), exact over each sequence.
    rate, decay   of AdamW. optimizer: one that goes on from earlier calls, at its own steady rate.
    The others as in `train`.
    With validation the network ends with the weights that had its lowest loss, else with the last ones.
    """
    steady = optimizer is not None
    records, best = [], None
    for record in train(
        net,
        chunks,
        credit=BPTT() if credit is None else credit,
        loss=loss,
        optimizer=adam(net, rate, decay) if optimizer is None else optimizer,
        schedule=None if steady else cosine,
        clip=clip,
        epochs=epochs,
        updates=updates,
        seconds=seconds,
        validation=validation,
        validate_every=validate_every,
        patience=patience,
        probe_every=0,
    ):
        records.append(asdict(record))
        if record.validation is not None and record.validation == record.best:
            best = {name: weight.detach().clone() for name, weight in weights_of(net).items()}
    if best is not None:
        with torch.no_grad():
            for name, weight in weights_of(net).items():
                weight.copy_(best[name])
    net.eval()
    return records


def adam(net: nn.Module, rate: float, decay: float = 0.01) -> torch.optim.AdamW:
    """AdamW over the weights of a network, in one kernel."""
    return torch.optim.AdamW(net.parameters(), lr=rate, weight_decay=decay, fused=True)


def distinct(x: Sequence[Any], y: Array, weight: Array) -> tuple[list[Any], Array, Array]:
    """The same data with equal examples as one of their summed weight, in an order that is theirs, not the caller's.

    So a fit depends neither on the order of the examples nor on whether one stands there twice or has weight 2.
    Those of weight 0 are left out. x are arrays, or strings.
    """
    places: dict[tuple[int, bytes, bytes], int] = {}
    total: dict[int, float] = {}
    for place in np.flatnonzero(weight).tolist():
        target = np.asarray(y[place])
        key = (len(x[place]), np.ascontiguousarray(x[place]).tobytes(), target.tobytes())
        first = places.setdefault(key, place)
        total[first] = total.get(first, 0.0) + float(weight[place])
    order = [place for _, place in sorted(places.items())]
    return [x[place] for place in order], y[order], np.array([total[place] for place in order])
