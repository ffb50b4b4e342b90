"""From options to a training, and from a run's folder back to the same training: what `train` and `demo` share."""

from __future__ import annotations

import os
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, make_dataclass
from functools import cache
from inspect import signature
from typing import Any, cast

import torch

from throughtime.cells import cells
from throughtime.cli.interruption import Interruption
from throughtime.cli.options import (
    NetworkOptions,
    Options,
    TrainingOptions,
    flag,
    given,
    refuse,
    seconds_of,
)
from throughtime.cli.progress import Progress
from throughtime.credit import BPTT, Credit, ParallelBPTT, algorithms, credit_named
from throughtime.data import Chunks, Text, Vocabulary, parse_split, shakespeare
from throughtime.nets import Network, Window, build, window_like
from throughtime.recipe import Recipe, recipe
from throughtime.recurrent import FullyRecurrent
from throughtime.runs import Run
from throughtime.spelling import parse
from throughtime.training import Record, cosine, train

SHIPPED = "shakespeare"
Limits = dict[str, Any]
NO_LIMITS: Limits = {"epochs": None, "updates": None, "seconds": None}
LOOKS = 10
"""Looks at the validation part in one training, unless --validate-every says otherwise."""


@dataclass(frozen=True, eq=False)
class Job:
    """A training with every choice made. sections are for config.toml, beside those that `train` writes itself."""

    text: Text
    net: Network | Window | FullyRecurrent
    chunks: Chunks
    validation: Chunks | None
    credit: Credit
    optimizer: torch.optim.Optimizer
    schedule: str
    clip: float | None
    limits: Limits
    validate_every: int | None
    patience: int | None
    probe_every: int | None
    sections: dict[str, Any]


@dataclass(frozen=True)
class Mlp:
    """Stands among the cells for the network that has none."""


# The text


def text_section(files: tuple[str, ...], string: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """What `read_text` needs, as it will stand in config.toml; options are those of TextOptions that were given."""
    sources = {"FILE": bool(files), "--text": string is not None, "--shipped": "shipped" in options}
    chosen = [name for name, there in sources.items() if there]
    if len(chosen) > 1:
        raise ValueError(f"{' and '.join(chosen)} must not be given together; leave one out.")
    if not chosen:
        raise ValueError("FILE or --text must be given: a text file, several, or a folder of .txt files.")
    if options.get("unit") != "word" and (odd := [name for name in ("least", "most") if name in options]):
        raise ValueError(f"--{odd[0]} must be left out unless --unit is word; it would have no effect.")
    if string is None:
        return {"source": list(files), **options} if files else dict(options)
    if not string:
        raise ValueError("--text must not be empty; give at least two tokens.")
    try:
        string.encode()
    except UnicodeEncodeError:
        raise ValueError("--text must be UTF-8; got other bytes. Save it in a file, read with --unit byte.") from None
    return {"text": string, **options}


def read_text(section: Mapping[str, Any], vocabulary: Vocabulary | None = None) -> Text:
    """The corpus that a text section describes; a run gives its vocabulary along."""
    bounds = {name: section[name] for name in ("least", "most") if name in section}
    options: dict[str, Any] = {
        "unit": section.get("unit"),
        "split": parse_split(section.get("split", "0.9,0.05,0.05")),
        **(bounds if vocabulary is None else {"vocabulary": vocabulary}),
    }
    if "text" in section:
        return Text.of(section["text"], **options)
    if section.get("shipped") == SHIPPED:
        return Text.of(shakespeare(), **options)
    if "source" not in section:
        raise ValueError("the text of this run was a string in Python, which is not in its folder. Give a FILE.")
    return Text(section["source"], **options)


def text_of(run: Run) -> Text:
    """The corpus that a run was trained on. Raises FileNotFoundError or ValueError when it is gone or was changed."""
    section = run.config.get("text")
    if section is None:
        raise ValueError(f"{run.path} was not trained on a text, or not on one that its config.toml names.")
    text = read_text(section, run.vocabulary)
    if section.get("sha256_of_ids", text.fingerprint) != text.fingerprint:
        what = ", ".join(section.get("source", ["its text"]))
        raise ValueError(f"{what} must be as {run.path} was trained on it; it was changed. Restore it, or train anew.")
    return text


def reading(text: Text, part: str, *, least: int = 5000) -> Chunks:
    """A part as chunks to evaluate on, in streams of at least so many tokens.

    Each starts without a past, which costs about 5 nats a stream: a thousandth of a nat a token at 5000.
    """
    targets = max(1, len(text.part(part)) - 1)
    return text.chunks(min(32, max(1, targets // least)), 256, part)


def reach(credit: str | None) -> int | None:
    """The steps that a training lets errors go back; None where it does not cut them off, or it is not known.

    Of an algorithm of one's own a run keeps the name of the class alone.
    """
    if credit is None or credit.partition(":")[0] not in algorithms:
        return None
    algorithm = credit_named(credit)
    return algorithm.h if isinstance(algorithm, (BPTT, ParallelBPTT)) else None


# A new training


def prepare(text: Text, section: Mapping[str, Any], options: Options) -> Job:
    """Make every choice that was left open. Raises ValueError for settings that do not fit or have no effect."""
    training = options.training
    targets = len(text.part()) - 1
    own = limits_of(training)
    advice = recipe(targets, text.unit, **own, streams=training.streams, steps=training.steps)
    chunks = text.chunks(advice.streams, advice.steps)
    validation = None
    if len(text.part("validation")) > 1:
        validation = reading(text, "validation", least=1000)
    else:
        refuse(training, ("patience", "validate_every"), "when --split leaves no validation part")
    seed = 0 if training.seed is None else training.seed
    torch.manual_seed(seed)
    net = make_network(text.size, options.network, advice).to(device_named(training.device or "auto"))
    if isinstance(net, Window):
        refuse(training, ("probe_every",), "with --cell mlp, through which no error goes back")
    credit = BPTT(h=advice.steps, every=advice.steps) if training.credit is None else credit_named(training.credit)
    limits, looks = _limits(own, advice, chunks, credit)
    clip = 1.0 if training.clip is None else training.clip
    return Job(
        text=text,
        net=net,
        chunks=chunks,
        validation=validation,
        credit=credit,
        optimizer=make_optimizer(net, training, advice),
        schedule=training.schedule or "cosine",
        clip=clip or None,
        limits=limits,
        validate_every=None if validation is None else training.validate_every or looks,
        patience=training.patience,
        probe_every=training.probe_every,
        sections=_sections(text, section),
    )


def _sections(text: Text, section: Mapping[str, Any]) -> dict[str, Any]:
    whole = {**text.describe(), **section, "tokens": len(text.ids), "sha256_of_ids": text.fingerprint}
    if "source" in section:
        whole["source"] = [os.path.abspath(path) for path in section["source"]]
    return {"text": whole, "command": {"name": "train"}}


def _limits(limits: Limits, advice: Recipe, chunks: Chunks, credit: Credit) -> tuple[Limits, int]:
    """When training stops, and how many updates lie between two looks at the validation part."""
    length = -(-chunks.count // chunks.streams)
    period = credit.period if isinstance(credit, BPTT) and credit.h is not None else length
    updates_per_epoch = -(-length // period)
    if limits == NO_LIMITS:
        limits = {**NO_LIMITS, "epochs": -(-advice.updates // updates_per_epoch)}
    totals = [
        limits["updates"],
        limits["epochs"] and limits["epochs"] * updates_per_epoch,
        limits["seconds"] and advice.passes * updates_per_epoch,
    ]
    return limits, max(1, int(min(total for total in totals if total)) // LOOKS)


def limits_of(training: TrainingOptions) -> Limits:
    """The limits that the user gave, under the names that `train` has for them."""
    seconds = None if training.time is None else seconds_of(training.time)
    return {"epochs": training.epochs, "updates": training.updates, "seconds": seconds}


def device_named(name: str) -> torch.device:
    """The device of a flag. Raises ValueError for a GPU that is not there."""
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise ValueError("device must be cpu or auto here; got cuda, and torch finds no GPU.")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def make_network(size: int, options: NetworkOptions, advice: Recipe) -> Network | Window:
    """The network of the options over a vocabulary of `size` tokens."""
    cell = options.cell or "lstm"
    mlp = type(parse(cell, {**cells, "mlp": Mlp}, "cell")) is Mlp
    units = advice.units if options.units is None else options.units
    tie = advice.tie and options.embedding is None and not mlp if options.tie is None else options.tie
    shared: dict[str, Any] = {
        "inputs": size,
        "outputs": size,
        "units": units,
        "layers": 1 if options.layers is None else options.layers,
        "embedding": (units if tie else units // 2) if options.embedding is None else options.embedding,
        "dropout": advice.dropout if options.dropout is None else options.dropout,
    }
    if not mlp:
        refuse(options, ("window", "like"), f"with --cell {cell}")
        return Network(cell, **shared, tie=tie, backend=options.backend or "auto")
    refuse(options, ("tie", "backend"), "with --cell mlp")
    window = 8 if options.window is None else options.window
    if options.like is None:
        return Window(**shared, window=window)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        like = Network(options.like, **shared)
    return window_like(like, window)


@cache
def optimizers() -> dict[str, type]:
    """The optimisers of torch.optim that need nothing but a gradient, by lower-case name, as dataclasses of options."""
    odd = {"Optimizer", "LBFGS", "SparseAdam", "Muon", "Adafactor"}
    found = {}
    for name, kind in vars(torch.optim).items():
        if isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer) and name not in odd:
            fields = [
                (option, bool if isinstance(parameter.default, bool) else float, parameter.default)
                for option, parameter in signature(kind).parameters.items()
                if type(parameter.default) in (bool, int, float) and option not in ("lr", "weight_decay")
            ]
            found[name.lower()] = make_dataclass(name, fields, frozen=True)
    return found


FUSED = ("Adam", "AdamW")
"""Optimisers whose update in one kernel is asked for: a fifth of the time, 3 % of a training step on a CPU."""


def make_optimizer(net: torch.nn.Module, training: TrainingOptions, advice: Recipe) -> torch.optim.Optimizer:
    """The optimiser that the options name, or AdamW with the recipe's weight decay; at their rate or the recipe's."""
    choice = parse(training.optimizer or "adamw", optimizers(), "optimizer")
    options = {name: value for name, value in asdict(choice).items() if value != getattr(type(choice), name)}
    name = type(choice).__name__
    decay = advice.decay if training.decay is None and name == "AdamW" else training.decay
    if decay is not None:
        options["weight_decay"] = decay
    if name in FUSED and not options.get("differentiable"):
        options["fused"] = True
    rate = advice.rate if training.rate is None else training.rate
    return getattr(torch.optim, name)(net.parameters(), lr=rate, **options)


# A training that goes on


def restore(run: Run, training: TrainingOptions) -> Job:
    """The training of a run's folder, under the limits that training gives, or else its own."""
    odd = [name for name in given(training) if name not in ("epochs", "updates", "time", "device")]
    if odd:
        raise ValueError(f"--resume must go with --epochs, --updates, --time or --device alone; got {flag(odd[0])}.")
    config = run.config
    if "command" not in config:
        raise ValueError(f"{run.path} was made in Python. Go on there: train(..., run={str(run.path)!r}, resume=True).")
    try:
        saved, network = config["training"], config["network"]
        text = text_of(run)
        net = cast("Network | Window | FullyRecurrent", build(network)).to(device_named(training.device or "auto"))
        limits = limits_of(training)
        return Job(
            text=text,
            net=net,
            chunks=text.chunks(saved["streams"], saved["steps"]),
            validation=reading(text, "validation", least=1000) if len(text.part("validation")) > 1 else None,
            credit=credit_named(saved["credit"]),
            optimizer=getattr(torch.optim, saved["optimizer"]["name"])(net.parameters(), lr=saved["optimizer"]["lr"]),
            schedule=saved.get("schedule", "none"),
            clip=saved.get("clip"),
            limits={name: saved.get(name) for name in limits} if limits == NO_LIMITS else limits,
            validate_every=saved.get("validate_every"),
            patience=saved.get("patience"),
            probe_every=saved.get("probe_every"),
            sections={},
        )
    except KeyError as error:
        raise ValueError(
            f"{run.path}/config.toml is damaged: it has no {error}. Restore it, or train again."
        ) from error


# Both


def fit(job: Job, path: str | os.PathLike[str], progress: Progress, *, resume: bool = False) -> int:
    """Train to the end or to a signal; the number of the signal, or 0. The run is saved in either case."""
    records = cast(
        Generator[Record],
        train(
            job.net,
            job.chunks,
            credit=job.credit,
            optimizer=job.optimizer,
            schedule=cosine if job.schedule == "cosine" else None,
            clip=job.clip,
            **job.limits,
            validation=job.validation,
            validate_every=job.validate_every,
            patience=job.patience,
            probe_every=job.probe_every,
            run=os.fspath(path),
            resume=resume,
            config=job.sections,
        ),
    )
    with Interruption() as asked, progress, closing(records):
        for record in records:
            progress.show(record)
            if asked.signal:
                return asked.signal
    return 0
