"""What the command line may be told: frozen dataclasses whose field docstrings are the help; None means the recipe's.

No torch here, so that help and version answer at once.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number

Unit = Literal["char", "byte", "word"]
Count = Annotated[int, Parameter(validator=Number(gte=1))]
Whole = Annotated[int, Parameter(validator=Number(gte=0, lt=2**63))]
Share = Annotated[float, Parameter(validator=Number(gte=0, lt=1))]
Positive = Annotated[float, Parameter(validator=Number(gt=0, lte=1e30))]
Bound = Annotated[float, Parameter(validator=Number(gte=0))]


@Parameter(name="*", group=Group("Text", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How a corpus becomes tokens, and which of them are learned from."""

    shipped: Literal["shakespeare"] | None = None
    """A text that comes with the library, in place of files: eight plays."""
    unit: Unit | None = None
    """What a token is. [default: char]"""
    split: str | None = None
    """Shares of the tokens, by position, for training, validation and test; or none: learn from all.
    [default: 0.9,0.05,0.05]"""
    least: Count | None = None
    """Words seen fewer times than this in the training part are <unk>. [default: 2]"""
    most: Count | None = None
    """Greatest size of the vocabulary of words. [default: no bound]"""


@Parameter(name="*", group=Group("Network", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class NetworkOptions:
    """The network; sizes that are not given follow from the corpus and from how long is trained."""

    cell: str | None = None
    """lstm, gru, elman, ctrnn, with options as in elman:phi=relu or ctrnn:alpha=0.5; or mlp, the network
    without memory, over the last --window tokens. [default: lstm]"""
    window: Count | None = None
    """Tokens that an mlp sees, the present one included. [default: 8]"""
    like: str | None = None
    """For an mlp: as many weights as the network of this cell with the same --units would have."""
    units: Count | None = None
    """Width of every layer. [default: 32 to 512, by the text and how long is trained]"""
    layers: Count | None = None
    """Layers, one on the other. [default: 1]"""
    embedding: Whole | None = None
    """Width of the vector of a token; 0: one-hot rows. [default: half of --units, or --units with --tie]"""
    dropout: Share | None = None
    """Share of activations put to zero between layers and before the readout, in training. [default: 0.5 for words,
    0.4 for a text read more than ten times, else 0]"""
    tie: bool | None = None
    """The readout uses the embedding's weights. [default: for words, unless --embedding is given]"""
    backend: Literal["auto", "native", "torch", "reference"] | None = None
    """What runs the recurrence; `throughtime doctor` says why. [default: auto]"""


@Parameter(name="*", group=Group("Training", sort_key=3))
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How the network learns."""

    credit: str | None = None
    """How far back the error goes: bptt is epochwise, over the whole text; bptt:h=70,every=35 goes back
    70 steps every 35; bptt:memory=64MB is epochwise within so much memory. Also parallel, random, adaptive, rtrl,
    snap, rflo and uoro, with options of their own. [default: bptt:h=STEPS,every=STEPS]"""
    streams: Count | None = None
    """The text is cut into this many streams, read side by side."""
    steps: Count | None = None
    """Tokens of each stream read at a time."""
    optimizer: str | None = None
    """One of torch.optim, with options as in sgd:momentum=0.9. [default: adamw]"""
    rate: Positive | None = None
    """Learning rate."""
    decay: Bound | None = None
    """Weight decay. [default: 0.1 with adamw, else the optimizer's own]"""
    schedule: Literal["cosine", "none"] | None = None
    """Of the learning rate: a short rise, then a half cosine down to zero; or none. [default: cosine]"""
    clip: Bound | None = None
    """Bound on the norm of the mean gradient: of the sum over the errors, divided by their count.
    [default: 1; 0: none]"""
    epochs: Count | None = None
    """Passes over the training part. Training stops at the first of --epochs, --updates and --time."""
    updates: Count | None = None
    """Changes of the weights."""
    time: str | None = None
    """Time to train for, such as 90s, 3m or 1h30m."""
    validate_every: Count | None = None
    """Updates between two looks at the validation part. [default: ten looks a training]"""
    patience: Count | None = None
    """Stop after this many looks without a new lowest validation loss."""
    probe_every: Whole | None = None
    """Updates between two measurements of how far back the error reaches; 0: none. [default: 250]"""
    seed: Whole | None = None
    """Of the first weights and of dropout. [default: 0]"""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """auto takes a GPU where there is one. [default: auto]"""


@dataclass(frozen=True, kw_only=True)
class Options:
    """All that `train` is told, apart from the text itself and the run's folder."""

    text: TextOptions = TextOptions()
    network: NetworkOptions = NetworkOptions()
    training: TrainingOptions = TrainingOptions()


LIMITS = ("epochs", "updates", "time")


def given(options: Any) -> dict[str, Any]:
    """The fields of an options dataclass that the user gave."""
    return {name: value for name, value in vars(options).items() if value is not None}


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


def seconds_of(time: str) -> float:
    """The seconds that `90s`, `3m`, `1h30m` or a plain number of seconds name. Raises ValueError for others."""
    found = re.fullmatch(r"(?:([\d.]+)h)?(?:([\d.]+)m(?:in)?)?(?:([\d.]+)s?)?", time.strip().lower())
    try:
        hours, minutes, seconds = (float(part or 0) for part in found.groups()) if found else (0.0, 0.0, 0.0)
    except ValueError:
        hours, minutes, seconds = 0.0, 0.0, 0.0
    total = 3600 * hours + 60 * minutes + seconds
    if not 0 < total < float("inf"):
        raise ValueError(f"time must be above 0, such as 90s, 3m or 1h30m; got {time!r}.")
    return total


def refuse(options: Any, names: tuple[str, ...], why: str) -> None:
    """Raise ValueError when one of these fields was given: a setting that has no effect is an error."""
    odd = [flag(name) for name in names if getattr(options, name) is not None]
    if odd:
        raise ValueError(f"{odd[0]} must be left out {why}; it would have no effect.")


def check_picture(path: Path | None) -> None:
    """Raise ValueError for a file that no picture can be written to, before the work."""
    if path is not None and path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--picture must end in .png, .svg or .pdf; got {path}.")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--picture must be in a folder that exists; {path.parent} does not.")
    if path is not None and (path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK)):
        raise ValueError(f"--picture must be a file that can be written; {path} cannot. Give another path.")


def check_out(path: Path, name: str) -> None:
    """Raise ValueError for a page that cannot be written, before the work; name: such as it may have.

    A page is written beside its place and renamed, which would put a file where a device such as /dev/null was.
    """
    if path.exists() and not path.is_file():
        what = "a folder" if path.is_dir() else "a device or a pipe"
        raise ValueError(f"--out must be a file; {path} is {what}. Give a name such as {name}.")
    if not path.parent.is_dir():
        raise ValueError(f"--out must be in a folder that exists; {path.parent} does not.")
