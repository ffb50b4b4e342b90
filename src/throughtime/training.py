"""Training adds nothing clever: `train` checks its arguments, fills in what was left open, and runs the loop."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from throughtime.cells import cells
from throughtime.chunk import Source
from throughtime.credit import BPTT, Credit, credit_named
from throughtime.finite import NonFiniteError
from throughtime.inference import evaluate
from throughtime.loop import Loop, Record, Schedule
from throughtime.nets import Loss, Network, Window, losses
from throughtime.recurrent import FullyRecurrent
from throughtime.runs import Run

__all__ = ["NonFiniteError", "Record", "cosine", "evaluate", "train"]

PROBE_EVERY = 250
"""Updates from one probe to the next, unless `train` is told otherwise: a probe takes as long as one to twelve."""


def cosine(progress: float, warmup: float = 0.02) -> float:
    """A schedule: the learning rate rises over the first `warmup` of training and falls to zero as a half cosine."""
    if progress < warmup:
        return (progress + 1e-3) / (warmup + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def train(
    net: nn.Module,
    chunks: Source,
    *,
    credit: Credit | str | None = None,
    loss: Loss | str = "softmax",
    optimizer: torch.optim.Optimizer | None = None,
    schedule: Schedule | None = None,
    clip: float | None = None,
    epochs: int | None = None,
    updates: int | None = None,
    seconds: float | None = None,
    validation: Source | None = None,
    validate_every: int | None = None,
    patience: int | None = None,
    probe_every: int | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    config: dict[str, Any] | None = None,
) -> Iterator[Record]:
    """Train a network on chunks in time order, its state carried on; yields a Record after every update.

    credit      how the error travels back; default BPTT(h=steps, every=steps) with the steps of a chunk.
    loss        a name in `losses`, or loss(prediction, y) -> errors not yet summed.
    optimizer   one of torch.optim, made by the caller over net.parameters(); default AdamW, learning rate 2e-3.
    schedule    of the learning rate: an LRScheduler over that optimiser, or a function such as `cosine`.
    clip        bound on the norm of the mean gradient (sum over the settled errors divided by their count).
    epochs, updates, seconds    training stops at the first of those given; one epoch when none is.
    validation  chunks evaluated every `validate_every` updates (default: after every epoch) and at the end.
    patience    stop after this many evaluations without a new lowest validation error.
    probe_every updates from one measurement of how far the error reaches back (Record.memory) to the next; 0: none.
                It costs less than a twentieth of the time at the default, PROBE_EVERY, and changes no weight.
    run         a new folder to keep config, log and weights in; with resume=True one to go on from, exactly.
    config      more sections for the config.toml of the run.

    Closing the iterator saves the run. Raises NonFiniteError when a loss or gradient is NaN or infinite, before it
    touches the weights; ValueError and FileExistsError for wrong arguments.
    """
    _check_limits(clip=clip, epochs=epochs, updates=updates, seconds=seconds)
    _check_limits(validate_every=validate_every, patience=patience)
    _check_sources(chunks, validation, patience)
    _check_optimizer(net, optimizer, schedule)
    if resume and run is None:
        raise ValueError("resume must go with run, the folder to go on from; got none.")
    if epochs is None and updates is None and seconds is None:
        epochs = 1
    loop = Loop(
        net=net,
        chunks=chunks,
        credit=_default_credit(chunks) if credit is None else credit_named(credit),
        loss=loss_named(loss) if isinstance(loss, str) else loss,
        optimizer=_default_optimizer(net) if optimizer is None else optimizer,
        schedule=schedule,
        clip=clip,
        limits={"epochs": epochs, "updates": updates, "seconds": seconds},
        validation=validation,
        validate_every=validate_every,
        patience=patience,
        probe_every=_updates_between_probes(probe_every),
    )
    if run is not None and resume:
        loop.resume(Run(run), config or {})
    elif run is not None:
        sections = {"network": _config_of(net), "text": _text_of(chunks), "training": loop.describe(loss)}
        vocabulary = getattr(getattr(chunks, "text", None), "vocabulary", None)
        loop.create(Run.create(run, {**sections, **(config or {})}, vocabulary))
    return loop.records()


# What was left open


def _default_credit(chunks: Source) -> BPTT:
    steps = chunks[0].steps
    return BPTT(h=steps, every=steps)


def _default_optimizer(net: nn.Module) -> torch.optim.AdamW:
    """AdamW, in one kernel for all weights where torch has that for them."""
    weights = list(net.parameters())
    fused = all(weight.is_floating_point() and weight.device.type in ("cpu", "cuda") for weight in weights)
    return torch.optim.AdamW(weights, lr=2e-3, fused=fused or None)


def _updates_between_probes(probe_every: int | None) -> int:
    if probe_every is None:
        return PROBE_EVERY
    if not isinstance(probe_every, int) or isinstance(probe_every, bool) or probe_every < 0:
        raise ValueError(f"probe_every must be a whole number of updates, or 0 for none; got {probe_every!r}.")
    return probe_every


def loss_named(name: str) -> Loss:
    """The loss of a name in `losses`."""
    if name not in losses:
        raise ValueError(f"loss must be {', '.join(losses)}, or a function; got {name!r}.")
    return losses[name]


# What a run says of it


def _config_of(net: nn.Module) -> dict[str, Any]:
    """What `build` makes the network of, or the name of a class that only its owner can make."""
    if type(net) is Window or type(net) is FullyRecurrent:
        return net.config()
    if type(net) is Network and type(net.layers.cell) in cells.values():
        return net.config()
    return {"class": type(net).__name__}


def _text_of(chunks: Source) -> dict[str, Any] | None:
    text = getattr(chunks, "text", None)
    return None if text is None else {**text.describe(), "sha256_of_ids": text.fingerprint}


# Arguments


def _check_limits(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0; got {value}.")


def _check_sources(chunks: Source, validation: Source | None, patience: int | None) -> None:
    """Raise ValueError for chunks that would not all be learned from, or for no chunks to validate on."""
    if not len(chunks):
        raise ValueError("chunks must not be empty. Use a longer text, or fewer streams.")
    if not chunks[len(chunks) - 1].end:
        raise ValueError("the last of chunks must have end=True; its last errors would never be settled.")
    if validation is not None and not len(validation):
        raise ValueError("validation must not be empty. Leave it out, or give it chunks.")
    if patience is not None and validation is None:
        raise ValueError("patience must go with validation; got none. Give validation chunks, or leave patience out.")


def _check_optimizer(net: nn.Module, optimizer: torch.optim.Optimizer | None, schedule: Schedule | None) -> None:
    """Raise ValueError for an optimiser that would change nothing, or a schedule that would."""
    if optimizer is not None:
        own = {id(weight) for weight in net.parameters()}
        if not any(id(weight) in own for group in optimizer.param_groups for weight in group["params"]):
            raise ValueError("optimizer must be made over net.parameters(); it holds no weight of net.")
    if isinstance(schedule, ReduceLROnPlateau):
        raise ValueError("schedule must go by updates; ReduceLROnPlateau waits for a loss. Use patience, or `cosine`.")
    if isinstance(schedule, LRScheduler) and schedule.optimizer is not optimizer:
        raise ValueError("schedule must be over the optimizer that is given; it is over another one.")
