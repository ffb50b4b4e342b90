"""What forecast, classify and tag may be told of the network; None means that the estimator chooses by the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cyclopts import Group, Parameter

from throughtime.cli.options import Count, Positive, Share, Whole, given


@Parameter(name="*", group=Group("Network and training", sort_key=2))
@dataclass(frozen=True, kw_only=True)
class TaskOptions:
    """The network and its training; what is not given follows from the data."""

    cell: str | None = None
    """gru, lstm, elman or ctrnn, with options as in elman:phi=relu. [default: gru]"""
    units: Count | None = None
    """Width of every layer."""
    layers: Count | None = None
    """Layers, one on the other."""
    dropout: Share | None = None
    """Share of activations put to zero in training."""
    window: Count | None = None
    """Steps that the network without memory sees, which is trained beside the recurrent one."""
    credit: str | None = None
    """How far back the error goes, as in train. [default: exact]"""
    updates: Count | None = None
    """Changes of the weights."""
    rate: Positive | None = None
    """Learning rate."""
    seed: Whole = 0
    """Of the first weights and of chance in training."""


@Parameter(name="*", group=Group("Examples", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class ExampleOptions:
    """Where the columns of a table of sequences or texts are; unnamed ones are found, or what is needed is said."""

    text: str | None = None
    """Column of the texts."""
    label: str | None = None
    """Column of the classes."""
    id: str | None = None
    """Column that says which sequence a row belongs to."""
    time: str | None = None
    """Column of the times."""
    missing: Literal["refuse", "fill"] = "refuse"
    """A missing number is refused, or filled with the last one seen in its sequence."""


@Parameter(name="*", group=Group("Series", sort_key=1))
@dataclass(frozen=True, kw_only=True)
class SeriesOptions:
    """Where the columns of a table of series are, and how it is judged."""

    time: str | None = None
    """Column of the times. [default: ds, or the one column of dates]"""
    value: str | None = None
    """Column of the values. [default: y, or the one other column of numbers]"""
    id: str | None = None
    """Column that says which series a row belongs to. [default: unique_id, or the one column of words]"""
    known: tuple[str, ...] = ()
    """A column whose future is known, such as a price or a holiday: its rows go on --horizon steps after the values.
    May be given again."""
    sort: bool = False
    """Sort rows that are not in order of time; without it they are an error."""
    level: str = "50,90"
    """Percent of the intervals."""
    season: Count | None = None
    """Steps after which the series repeats itself; 1: it does not. [default: found]"""
    windows: Count | None = None
    """Stretches of the past that are forecast, each --horizon steps long. [default: 5, or what there is]"""


NAMES = {"rate": "learning_rate", "seed": "random_state"}


def parameters(options: TaskOptions, *, memory: bool = True) -> dict[str, Any]:
    """The options that were given, under the names that the estimators have for them.

    memory: whether it is for the recurrent network, which has no window, or for the one without memory.
    """
    found = {NAMES.get(name, name): value for name, value in given(options).items()}
    if memory:
        found.pop("window", None)
        return found
    return {name: value for name, value in found.items() if name != "credit"} | {"cell": "mlp"}
