"""The loop of a training: for each chunk ask for the estimate, update when its count is above 0, record, save."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler

from throughtime.chunk import Chunk, Source
from throughtime.credit import Credit, Estimate, spell_credit
from throughtime.finite import NonFiniteError, check_weights, first_bad
from throughtime.flow import LEFT, ErrorByLag, probe
from throughtime.flow.sampling import undisturbed
from throughtime.inference import device_of, evaluate
from throughtime.nets import Loss
from throughtime.runs import Run, fill, weights_of
from throughtime.state import State, moved, random_state, set_random_state

Schedule = LRScheduler | Callable[[float], float]
"""A scheduler of torch.optim, stepped once an update; or the factor on the learning rate by progress in [0, 1]."""

LAST = 100
"""Updates that the share of clipped ones is taken over."""
LONGEST = 256
"""Steps that a probe is made on at most, the last ones of a chunk."""


@dataclass(frozen=True)
class Record:
    """One update.

    update      updates so far; epoch counts from 0; targets learned from so far, epochs repeated.
    loss        mean error of the targets settled by this update (nats a target for softmax).
    norm        norm of the mean gradient, before clipping; clipped says whether it was above the bound.
    rate        learning rate of the first parameter group.
    seconds     training time so far, validation and probes included.
    validation  mean error on the validation chunks, when they were just evaluated; best is the lowest so far.
    note        what the credit algorithm has just chosen, and why, if it chooses anything.
    clip_share  share of the last LAST updates, this one included, that were clipped; None without a bound.
    memory      effective memory length in steps (see flow.ErrorByLag.memory), when it was just measured. Longer than
                half of a chunk it is extrapolated by the decay up to there; infinite where the error does not fade.
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
    clip_share: float | None = None
    memory: float | None = None


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
    clips: int = 0  # a bit for each of the last updates, the newest lowest: was it clipped?


@dataclass(eq=False, kw_only=True)
class Loop:
    """One training, from the arguments of `train`; what changes is position, memory, the network and the optimiser."""

    net: nn.Module
    chunks: Source
    credit: Credit
    loss: Loss
    optimizer: torch.optim.Optimizer
    schedule: Schedule | None
    clip: float | None
    limits: dict[str, Any]
    validation: Source | None
    validate_every: int | None
    patience: int | None
    probe_every: int

    def __post_init__(self) -> None:
        self.device = device_of(self.net)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.position = _Position()
        self.memory = self.credit.start(self.net)
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

    # One chunk

    def _step(self) -> Record | None:
        """Read one chunk; a record when it led to an update."""
        place, before = self.position, self.memory
        chunk = self.chunks[place.index].to(self.device)
        estimate, memory = self._estimate(chunk)
        epoch, index = divmod(place.epoch * len(self.chunks) + place.index + 1, len(self.chunks))
        if not estimate.count:
            self.memory = memory
            self.position = replace(place, epoch=epoch, index=index, seconds=self._seconds())
            return None
        norm = self._gradient(estimate, chunk, before)
        clipped = self.clip is not None and norm > self.clip
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
            clips=(place.clips << 1 | clipped) % 2**LAST,
        )
        self.busy = False
        record = self._record(place.epoch, estimate, norm, clipped, chunk, before)
        self._keep(record)
        return record

    def _record(self, epoch: int, estimate: Estimate, norm: float, clipped: bool, chunk: Chunk, before: Any) -> Record:
        """The record of the update just made; validation and probe, where they are due."""
        validation = self._validate() if self._validation_due() else None
        return Record(
            update=self.position.update,
            epoch=epoch,
            targets=self.position.targets,
            loss=float(estimate.loss) / estimate.count,
            norm=norm,
            clipped=clipped,
            rate=float(self.optimizer.param_groups[0]["lr"]),
            memory=self._probe(chunk, before) if self._probe_due() else None,
            seconds=self._seconds(),
            validation=validation,
            best=self.position.best,
            note=self._note(before),
            clip_share=self._clip_share(),
        )

    def _estimate(self, chunk: Chunk) -> tuple[Estimate, Any]:
        self.net.train()
        random = random_state(self.device)
        try:
            return self.credit(self.net, self.loss, chunk, self.memory)
        except BaseException:
            set_random_state(random, self.device)  # so that what is saved now goes on exactly
            raise

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
                f"the loss or its gradient is not finite at update {update}, first in "
                f"{first_bad(self.net, self.loss, chunk, self.credit, before, estimate)}"
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

    # What a record carries

    def _note(self, before: Any) -> str | None:
        note = self.credit.note(self.memory)
        return note if note != self.credit.note(before) else None

    def _clip_share(self) -> float | None:
        place = self.position
        return None if self.clip is None else place.clips.bit_count() / min(place.update, LAST)

    def _probe_due(self) -> bool:
        return self.probe_every > 0 and self.position.update % self.probe_every == 0

    def _probe(self, chunk: Chunk, before: Any) -> float | None:
        """How far the error reaches back in the chunk just read, under the weights of now, with no trace in training.

        None where that has no answer: no state, no error that counts, a network that does not run on fewer streams.
        """
        with undisturbed(self.net):
            state, read = self.credit.held(before)
            late = max(0, chunk.steps - LONGEST)
            try:
                state = self._pass((*read, chunk[:late]), state)
                found = probe(self.net, self.loss, chunk[late:], state=state)
            except (TypeError, ValueError, RuntimeError):  # no answer; the update itself has just gone well
                return None
        return _memory_of(found)

    @torch.no_grad()
    def _pass(self, chunks: Sequence[Chunk], state: State) -> State:
        """The state after chunks, in pieces, so that memory stays flat."""
        for chunk in chunks:
            for start in range(0, chunk.steps, LONGEST):
                piece = chunk[start : start + LONGEST]
                _, state = self.net(piece.x, state, piece.reset)
        return state

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

    # When it ends

    def _seconds(self) -> float:
        return time.perf_counter() - self.clock

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

    def _put_rates_back(self) -> None:
        """The optimiser is the caller's: a schedule by progress leaves no mark on it."""
        if self.schedule is not None and not isinstance(self.schedule, LRScheduler):
            for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
                group["lr"] = rate

    # The run's folder

    def create(self, run: Run) -> None:
        """Keep this training in a new run, or leave no folder."""
        self.run = run
        try:
            self.save()
        except BaseException:
            run.discard()
            raise

    def _keep(self, record: Record) -> None:
        """Log the record, and save often enough that little is lost, and for at most a fiftieth of the time."""
        if self.run is not None:
            self.run.log(asdict(record))
            if record.validation is not None or time.perf_counter() - self.saved > max(5.0, 50 * self.cost):
                self.save()

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
        run.must_match(self.describe(""), getattr(self.chunks, "text", None))
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
            "probe_every": self.probe_every,
            "seed": torch.initial_seed(),
        }


def _memory_of(found: ErrorByLag) -> float | None:
    """The memory length, beyond the last lag if the error goes on as it decays; None where nothing was seen."""
    seen, rate = found.count.nonzero()[0], found.decay.rate
    if found.memory is not None or not len(seen) or math.isnan(rate):
        return found.memory
    if rate >= 1:
        return math.inf
    first, last = seen[0], seen[-1]
    rest = found.mean[last] - found.mean[first] - math.log10(LEFT)
    return float(found.lags[last] - found.lags[first] - rest / math.log10(rate))
