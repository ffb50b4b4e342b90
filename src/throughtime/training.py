"""Training adds nothing clever: for each chunk ask for the estimate, update when its count is above 0, record."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from throughtime.cells import cells
from throughtime.chunk import Chunk, Source
from throughtime.credit import BPTT, Credit, Estimate, credit_named, spell_credit
from throughtime.finite import NonFiniteError, check_weights, first_bad
from throughtime.inference import device_of, evaluate
from throughtime.nets import Loss, Network, Window, losses
from throughtime.recurrent import FullyRecurrent
from throughtime.runs import Run, fill, weights_of
from throughtime.state import moved, random_state, set_random_state

__all__ = ["NonFiniteError", "Record", "cosine", "evaluate", "train"]

Schedule = LRScheduler | Callable[[float], float]
"""A scheduler of torch.optim, stepped once an update; or the factor on the learning rate by progress in [0, 1]."""


@dataclass(frozen=True)
class Record:
    """One update.

    update      updates so far; epoch counts from 0; targets learned from so far, epochs repeated.
    loss        mean error of the targets settled by this update (nats a target for softmax).
    norm        norm of the mean gradient, before clipping; clipped says whether it was above the bound.
    rate        learning rate of the first parameter group.
    seconds     training time so far, validation included.
    validation  mean error on the validation chunks, when they were just evaluated; best is the lowest so far.
    note        what the credit algorithm has just chosen, and why, if it chooses anything.
    """

    update: int
    epoch: int
    targets: float
    loss: float
    norm: float
    clipped: bool
    rate: float
    seconds: float
    validation: float | None = None
    best: float | None = None
    note: str | None = None


@dataclass(frozen=True)
class _Position:
    """Where training stands; with the weights, the memory and the optimiser, all that going on needs."""

    epoch: int = 0
    index: int = 0
    update: int = 0
    targets: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    waited: int = 0
    looked: int = 0  # the epoch in which it was last validated
    over: bool = False


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
    run         a new folder to keep config, log and weights in; with resume=True one to go on from, exactly.
    config      more sections for the config.toml of the run.

    Closing the iterator saves the run. Raises NonFiniteError when a loss or gradient is NaN or infinite, before it
    touches the weights; ValueError and FileExistsError for wrong arguments.
    """
    if not len(chunks):
        raise ValueError("chunks must not be empty. Use a longer text, or fewer streams.")
    credit = _default_credit(chunks) if credit is None else credit_named(credit)
    _check_limits(clip=clip, epochs=epochs, updates=updates, seconds=seconds)
    _check_limits(validate_every=validate_every, patience=patience)
    if not chunks[len(chunks) - 1].end:
        raise ValueError("the last of chunks must have end=True; its last errors would never be settled.")
    if validation is not None and not len(validation):
        raise ValueError("validation must not be empty. Leave it out, or give it chunks.")
    _check_optimizer(net, optimizer, schedule)
    if patience is not None and validation is None:
        raise ValueError("patience must go with validation; got none. Give validation chunks, or leave patience out.")
    if resume and run is None:
        raise ValueError("resume must go with run, the folder to go on from; got none.")
    if epochs is None and updates is None and seconds is None:
        epochs = 1
    limits = {"epochs": epochs, "updates": updates, "seconds": seconds}
    loop = _Loop(
        net=net,
        chunks=chunks,
        credit=credit,
        loss=loss_named(loss) if isinstance(loss, str) else loss,
        optimizer=torch.optim.AdamW(net.parameters(), lr=2e-3) if optimizer is None else optimizer,
        schedule=schedule,
        clip=clip,
        limits=limits,
        validation=validation,
        validate_every=validate_every,
        patience=patience,
    )
    if run is not None and resume:
        loop.resume(Run(run), config or {})
    elif run is not None:
        sections = {"network": _config_of(net), "text": _text_of(chunks), "training": loop.describe(loss)}
        vocabulary = getattr(getattr(chunks, "text", None), "vocabulary", None)
        loop.create(Run.create(run, {**sections, **(config or {})}, vocabulary))
    return loop.records()


class _Loop:
    """The state of one training: everything that changes is in position, memory, the network and the optimiser."""

    def __init__(
        self,
        *,
        net: nn.Module,
        chunks: Source,
        credit: Credit,
        loss: Loss,
        optimizer: torch.optim.Optimizer,
        schedule: Schedule | None,
        clip: float | None,
        limits: dict[str, Any],
        validation: Source | None,
        validate_every: int | None,
        patience: int | None,
    ) -> None:
        self.net, self.chunks, self.credit, self.loss = net, chunks, credit, loss
        self.optimizer, self.schedule, self.clip, self.limits = optimizer, schedule, clip, limits
        self.validation, self.validate_every, self.patience = validation, validate_every, patience
        self.device = device_of(net)
        self.rates = [group["lr"] for group in optimizer.param_groups]
        self.position = _Position()
        self.memory = credit.start(net)
        self.run: Run | None = None
        self.clock = time.perf_counter()
        self.saved = self.clock
        self.cost = 0.0  # seconds that the last save took
        self.failed = False
        self.busy = False  # inside an update, when weights and position do not belong together

    def records(self) -> Iterator[Record]:
        self.clock = time.perf_counter() - self.position.seconds
        try:
            while not self._finished():
                record = self._step()
                if record is not None:
                    yield record
        except NonFiniteError:
            self.failed = True
            raise
        finally:
            self._put_rates_back()
            if self.run is not None and not self.busy and not self.failed:
                self.save()

    def _step(self) -> Record | None:
        """Read one chunk; a record when it led to an update."""
        place = self.position
        chunk = self.chunks[place.index].to(self.device)
        self.net.train()
        before, random = self.memory, random_state(self.device)
        try:
            estimate, memory = self.credit(self.net, self.loss, chunk, before)
        except BaseException:
            set_random_state(random, self.device)  # so that what is saved now goes on exactly
            raise
        epoch, index = divmod(place.epoch * len(self.chunks) + place.index + 1, len(self.chunks))
        if not estimate.count:
            self.memory = memory
            self.position = replace(place, epoch=epoch, index=index, seconds=self._seconds())
            return None
        norm = self._gradient(estimate, chunk, before)
        self.busy = True
        self._update()
        self.memory = memory
        self.position = replace(
            place,
            epoch=epoch,
            index=index,
            update=place.update + 1,
            targets=place.targets + estimate.count,
            seconds=self._seconds(),
        )
        self.busy = False
        validation = self._validate() if self._validation_due() else None
        record = Record(
            update=self.position.update,
            epoch=place.epoch,
            targets=self.position.targets,
            loss=float(estimate.loss) / estimate.count,
            norm=norm,
            clipped=self.clip is not None and norm > self.clip,
            rate=float(self.optimizer.param_groups[0]["lr"]),
            seconds=self._seconds(),
            validation=validation,
            best=self.position.best,
            note=self._note(before, memory),
        )
        if self.run is not None:
            self.run.log(asdict(record))
            # Often enough that little is lost, and at most a fiftieth of the time.
            if validation is not None or time.perf_counter() - self.saved > max(5.0, 50 * self.cost):
                self.save()
        return record

    def _note(self, before: Any, memory: Any) -> str | None:
        note = self.credit.note(memory)
        return note if note != self.credit.note(before) else None

    def _gradient(self, estimate: Estimate, chunk: Chunk, before: Any) -> float:
        """Set and clip the mean gradient of every weight; its norm before clipping."""
        weights = dict(self.net.named_parameters())
        for name, weight in weights.items():
            grad = estimate.grads.get(name)
            weight.grad = None if grad is None else grad / estimate.count
        norm = float(clip_grad_norm_(weights.values(), math.inf if self.clip is None else self.clip))
        if not (math.isfinite(norm) and math.isfinite(float(estimate.loss))):
            self.optimizer.zero_grad()
            update = self.position.update + 1
            raise NonFiniteError(
                f"the loss or its gradient is not finite at update {update}: "
                f"{first_bad(self.net, chunk, before, estimate)} is the first tensor that is not. "
                "Lower the learning rate, or set clip."
            )
        return norm

    def _update(self) -> None:
        """One step of the optimiser along the gradient that is set."""
        if self.schedule is not None and not isinstance(self.schedule, LRScheduler):
            factor = self.schedule(self._progress())
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate * factor
        self.optimizer.step()
        self.optimizer.zero_grad()
        if isinstance(self.schedule, LRScheduler):
            self.schedule.step()

    def _progress(self) -> float:
        """How much of the training is done: the largest share of a limit that is used up."""
        place = self.position
        done = {
            "epochs": place.epoch + place.index / len(self.chunks),
            "updates": place.update,
            "seconds": self._seconds(),
        }
        return min(1.0, max(done[name] / limit for name, limit in self.limits.items() if limit is not None))

    def _finished(self) -> bool:
        return self.position.over or self._progress() >= 1

    def _validation_due(self) -> bool:
        if self.validation is None:
            return False
        if self._progress() >= 1:
            return True
        if self.validate_every is None:
            return self.position.epoch > self.position.looked
        return self.position.update % self.validate_every == 0

    def _validate(self) -> float:
        assert self.validation is not None
        score = evaluate(self.net, self.validation, self.loss)
        if not score.count:
            raise ValueError("validation must have targets that count; every one is masked.")
        mean = score.mean
        if not math.isfinite(mean):
            raise NonFiniteError(
                f"the validation loss is not finite after update {self.position.update}. "
                "Lower the learning rate, or set clip."
            )
        place = self.position
        better = place.best is None or mean < place.best
        waited = 0 if better else place.waited + 1
        over = self.patience is not None and waited >= self.patience
        best = mean if better else place.best
        self.position = replace(place, best=best, waited=waited, over=over, looked=place.epoch)
        if better and self.run is not None:
            self.run.save_weights(self.net)
        return mean

    def _seconds(self) -> float:
        return time.perf_counter() - self.clock

    def _put_rates_back(self) -> None:
        """The optimiser is the caller's: a schedule by progress leaves no mark on it."""
        if self.schedule is not None and not isinstance(self.schedule, LRScheduler):
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate

    def create(self, run: Run) -> None:
        """Keep this training in a new run, or leave no folder."""
        self.run = run
        try:
            self.save()
        except BaseException:
            run.discard()
            raise

    def save(self) -> None:
        """Write the last weights and all that going on needs; without validation they are the best weights too.

        Weights that are not finite are not written: raises NonFiniteError.
        """
        assert self.run is not None
        start = time.perf_counter()
        check_weights(self.net, self.position.update)
        if self.position.best is None:
            self.run.save_weights(self.net)
        schedule = self.schedule.state_dict() if isinstance(self.schedule, LRScheduler) else None
        self.run.save_resume(
            {
                "weights": weights_of(self.net),
                "position": self.position,
                "memory": self.memory,
                "optimizer": self.optimizer.state_dict(),
                "rates": self.rates,
                "schedule": schedule,
                "random": random_state(self.device),
            }
        )
        self.saved = time.perf_counter()
        self.cost = self.saved - start

    def resume(self, run: Run, sections: dict[str, Any]) -> None:
        """Go on from a run exactly where it was saved. Raises ValueError for another text, credit or optimiser."""
        self._check_same(run)
        tree = run.load_resume((_Position, *self.credit.memories))
        fill(self.net, tree["weights"], run.path)
        self.optimizer.load_state_dict(tree["optimizer"])
        if isinstance(self.schedule, LRScheduler) and tree["schedule"] is not None:
            self.schedule.load_state_dict(tree["schedule"])
        self.rates, self.position = tree["rates"], replace(tree["position"], over=False)
        self.memory = moved(tree["memory"], self.device, (_Position, *self.credit.memories))
        set_random_state(tree["random"], self.device)
        self.clock = time.perf_counter() - self.position.seconds
        if not self._finished():
            run.rewind(self.position.update)
            others = {name: value for name, value in run.config.get("training", {}).items() if name not in self.limits}
            run.amend({"training": {**others, **self.limits}, **sections})
        self.run = run

    def _check_same(self, run: Run) -> None:
        """What was saved goes on only under what it was saved with."""
        saved, own = run.config.get("training", {}), self.describe("")
        pairs = [(name, saved.get(name, own[name]), own[name]) for name in ("credit", "streams", "steps", "chunks")]
        optimizer = own["optimizer"]["name"]
        pairs.append(("optimizer", saved.get("optimizer", {}).get("name", optimizer), optimizer))
        text = getattr(self.chunks, "text", None)
        if text is not None and "sha256_of_ids" in run.config.get("text", {}):
            pairs.append(("text", run.config["text"]["sha256_of_ids"], text.fingerprint))
        for name, then, now in pairs:
            if then != now:
                raise ValueError(f"{name} must be as {run.path} was trained with, {then}; got {now}. Make a new run.")

    def describe(self, loss: Loss | str) -> dict[str, Any]:
        """The training section of config.toml: everything resolved."""
        options = {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self.optimizer.defaults.items()
            if isinstance(value, (bool, int, float, tuple))
        }
        return {
            "credit": spell_credit(self.credit),
            "loss": loss if isinstance(loss, str) else getattr(loss, "__name__", type(loss).__name__),
            "optimizer": {"name": type(self.optimizer).__name__, **options},
            "schedule": getattr(self.schedule, "__name__", type(self.schedule).__name__) if self.schedule else None,
            "clip": self.clip,
            **self.limits,
            "streams": getattr(self.chunks, "streams", None),
            "steps": getattr(self.chunks, "steps", None),
            "chunks": len(self.chunks),
            "validate_every": self.validate_every,
            "patience": self.patience,
            "seed": torch.initial_seed(),
        }


def _default_credit(chunks: Source) -> BPTT:
    steps = chunks[0].steps
    return BPTT(h=steps, every=steps)


def loss_named(name: str) -> Loss:
    """The loss of a name in `losses`."""
    if name not in losses:
        raise ValueError(f"loss must be {', '.join(losses)}, or a function; got {name!r}.")
    return losses[name]


def _check_limits(**limits: float | None) -> None:
    for name, value in limits.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be above 0; got {value}.")


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
