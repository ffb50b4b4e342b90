"""The page of a forecast, a classification or a tagging: how well, what memory adds, what to do next, and the rest.

Judging holds the network against others by one number each:

    verdict(metric, network, others)        beats, loses to, is level with: a sentence
    how_well(metric, network, others)       the same as a card for the first screen
    what_memory_adds(metric, network, without)   the network beside one that sees a window and remembers nothing

Of a share of examples that are right (`count` says of how many) a difference within the 95 % interval of Wilson (1927)
is called chance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np

from throughtime.pictures import ForecastFan, LearningCurves, Picture
from throughtime.pictures.classes import wilson
from throughtime.pictures.curves import Records
from throughtime.pictures.forecasts import first_fans
from throughtime.pictures.page import Card, drawn, sentence_case, write_page
from throughtime.pictures.style import number, shown

LEVEL = 0.005
"""Numbers that differ by less than this share of the larger one are called level."""

SHORT, LONG = 12, 40
"""A table of at most so many rows stands before the pictures; one of more than so many is folded."""

NAME = 200
"""Letters that a cell holds."""

FANS = 3
"""So many series are drawn of a forecast of many."""

NOTHING = "Nothing that was measured calls for a change."


@dataclass(frozen=True, kw_only=True)
class Table:
    """A heading, the names of the columns, and rows as long as these; the first cell of a row is its name.

    A cell is a text, of which 200 letters are shown, or a number, to three or four digits; None and NaN are a dash.
    """

    heading: str
    columns: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"rows must have a cell a column, {len(self.columns)}; got {len(row)} in {row!r}.")


@dataclass(frozen=True, kw_only=True)
class TaskSummary:
    """What the page of a forecast, a classification or a tagging tells.

    title      a line; sentence: what was done, on what, for how long.
    cards      the answers of the first screen, as how_well and what_memory_adds make them.
    advice     what to do next, the last of the answers.
    tables     the network beside the baselines, the scores, ...; one of more than 12 rows comes after the pictures.
    pictures   in their order; ForecastFans of the first three series are drawn, and if there are more it is said.
    notes      what was done to the data, a line each.
    records    of the training, one mapping an update, or by the name of the network; see LearningCurves.
    unit       what a loss is counted by: sequence, tag, value; measure: what it is: nats, or the name of an error.
    missing    sentences: what cannot be shown, and why.
    reproduce  the command that does it again; config: all the choices, by name.
    """

    title: str
    sentence: str
    cards: Sequence[Card] = ()
    advice: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    notes: Sequence[str] = ()
    records: Records | Mapping[str, Records] = ()
    unit: str = "sequence"
    measure: str = "nats"
    missing: Sequence[str] = ()
    reproduce: str = ""
    config: Mapping[str, object] = field(default_factory=dict)


def write_task_report(folder: str | Path, summary: TaskSummary) -> Path:
    """Write `report.html` into an existing folder: one file that opens offline and requests nothing."""
    page = {
        "title": summary.title,
        "sentence": summary.sentence,
        "cards": [*map(_unbroken, summary.cards), Card(heading="What to do next", steps=summary.advice or [NOTHING])],
        "pictures": _pictures(summary),
        "tables": [_laid_out(table) for table in summary.tables],
        "missing": summary.missing,
        "summary": summary,
    }
    return write_page(Path(folder) / "report.html", "report-task.html", page)


def _pictures(summary: TaskSummary) -> Iterator[dict[str, Any]]:
    """The pictures, the fans of the first series only, and the learning curves."""
    fans, more = first_fans([one for one in summary.pictures if isinstance(one, ForecastFan)], FANS)
    chosen = [one for one in summary.pictures if not isinstance(one, ForecastFan) or one in fans]
    curves = LearningCurves(summary.records, unit=summary.unit, measure=summary.measure) if summary.records else None
    for picture, found in zip(chosen, drawn(chosen), strict=True):
        yield {**found, "reading": f"{found['reading']} {more}"} if fans and picture is fans[-1] and more else found
    yield from drawn([curves] if curves else [])


def _unbroken(card: Card) -> Card:
    """The card with numbers and their percent signs in one line."""
    return replace(card, text=card.text.replace(" %", "\u00a0%"))


def _laid_out(table: Table) -> dict[str, Any]:
    """A table as its template takes it: every cell as text, and whether it stands on the right as numbers do."""
    columns = [_column([row[place] for row in table.rows]) for place in range(len(table.columns))]
    right = [place > 0 and any(map(_is_number, (row[place] for row in table.rows))) for place in range(len(columns))]
    return {
        "heading": table.heading,
        "head": [{"text": name, "number": n} for name, n in zip(table.columns, right, strict=True)],
        "rows": [
            [{"text": cell, "number": n} for cell, n in zip(row, right, strict=True)]
            for row in zip(*columns, strict=True)
        ],
        "short": len(table.rows) <= SHORT,
        "folded": len(table.rows) > LONG,
    }


def _column(cells: Sequence[Any]) -> list[str]:
    """The cells as texts; numbers that are not whole with the same decimals, so that the points stand in a row."""
    sizes = [abs(float(cell)) for cell in cells if _is_number(cell) and not isinstance(cell, Integral)]
    sizes = [size for size in sizes if size and math.isfinite(size)]
    decimals = 2 + (max(sizes) >= 1) - math.floor(math.log10(max(sizes))) if sizes else 0
    even = bool(sizes) and max(sizes) < 1e9 and 10**-decimals < min(sizes)
    return [_cell(cell, max(0, decimals) if even else None) for cell in cells]


def _is_number(cell: object) -> bool:
    return isinstance(cell, SupportsFloat) and not isinstance(cell, (bool, np.bool_))


def _cell(cell: Any, decimals: int | None) -> str:
    if cell is None:
        return "–"
    if not _is_number(cell):
        return shown(cell, NAME) if str(cell) else ""
    if isinstance(cell, Integral):
        return f"{int(cell):,}".replace("-", "−")
    value = float(cell)
    if decimals is None or not math.isfinite(value):
        return number(value, 4)
    return f"{value:,.{decimals}f}".replace("-", "−")


# Judging


def verdict(
    metric: str,
    network: float,
    *,
    others: Mapping[str, float],
    lower_is_better: bool,
    count: int | None = None,
    name: str = "the network",
) -> str:
    """How the network does beside others, in a sentence: whom it loses to, is level with, beats.

    metric   as MASE or accuracy; others: the number of each, by name, NaN where there is none.
    count    of how many examples the numbers are shares; then a second sentence gives the 95 % interval.

    Level are numbers within LEVEL of each other, and shares of `count` where the other's lies in the interval.
    """
    interval = _interval(network, count)
    measured = {shown(other, 60): value for other, value in others.items() if not math.isnan(value)}
    gone = [shown(other, 60) for other, value in others.items() if math.isnan(value)]
    missing = f" No {metric} was measured of {_listed(gone)}." if gone else ""
    if not math.isfinite(network):
        beside = f", beside {_listed([f'{k} ({_told(v, count)})' for k, v in measured.items()])}" if measured else ""
        return f"{sentence_case(f'{name} has no finite {metric}{beside}')}{missing}"
    if not measured:
        text = f"{name} reaches {metric} {_told(network, count)}; no baseline was measured beside it"
        return f"{sentence_case(text)}{missing}{_said(interval, count)}"
    standings = {other: _standing(network, value, lower_is_better, interval) for other, value in measured.items()}
    text = _clauses(metric, network, measured, standings, lower_is_better, count)
    chance = any(standings[other] == LEVEL_WITH and value != network for other, value in measured.items())
    return f"{sentence_case(f'{name} {text}')}{missing}{_said(interval, count, chance=chance)}"


LOSES, LEVEL_WITH, BEATS = "loses to", "is level with", "beats"


def _clauses(
    metric: str,
    network: float,
    others: Mapping[str, float],
    standings: Mapping[str, str],
    lower_is_better: bool,
    count: int | None,
) -> str:
    """`loses to a (MASE 0.83 against 0.71) and beats b (0.9)`, the strongest of each first."""
    ranked = sorted(others, key=lambda other: others[other], reverse=not lower_is_better)
    digits = _digits(network, others.values())
    spoken: list[str] = []
    for standing in (LOSES, LEVEL_WITH, BEATS):
        names = [other for other in ranked if standings[other] == standing]
        told = [f"{other} ({_told(others[other], count, digits)})" for other in names]
        if told and not spoken:
            first = names[0]
            told[0] = (
                f"{first} ({metric} {_told(network, count, digits)} against {_told(others[first], count, digits)})"
            )
        spoken += [f"{standing} {_listed(told)}"] if told else []
    return spoken[0] if len(spoken) == 1 else f"{', '.join(spoken[:-1])}, and {spoken[-1]}"


def how_well(
    metric: str,
    network: float,
    *,
    others: Mapping[str, float],
    lower_is_better: bool,
    count: int | None = None,
) -> Card:
    """The first answer: the number, and its verdict beside the baselines."""
    text = verdict(metric, network, others=others, lower_is_better=lower_is_better, count=count)
    return Card(heading="How well", figure=_told(network, count), unit=metric, text=text)


def what_memory_adds(
    metric: str,
    network: float,
    *,
    without: float | None,
    lower_is_better: bool,
    count: int | None = None,
    window: int | None = None,
    weights: tuple[int, int] | None = None,
) -> Card:
    """The second answer: the network beside one without memory, which learned from the same data.

    without  its number; None: it was not trained. window: how many steps it sees. weights: how many the network has,
             and how many the one without memory.
    """
    heading = "What memory adds"
    if without is None or math.isnan(without):
        return Card(heading=heading, text="The network without memory was not measured.")
    sees = "" if window is None else f", which sees {window:,} step{'' if window == 1 else 's'},"
    size = "" if weights is None else f" {_sizes(*weights)}"
    digits = _digits(network, [without])
    with_it, bare = _told(network, count, digits), _told(without, count, digits)
    text = f"With memory it reaches {metric} {with_it}; the network without{sees} has {bare} on the same data.{size}"
    if not math.isfinite(network):
        return Card(heading=heading, text=text)
    interval = _interval(network, count)
    standing = _standing(network, without, lower_is_better, interval)
    if standing == LEVEL_WITH:
        why = "" if interval is None else f" Within the 95 % interval of {count:,} examples this may be chance."
        return Card(heading=heading, figure="nothing", unit="that can be told", text=f"{text}{why}")
    if standing == LOSES:
        text = f"{text} Memory does harm here."
    return Card(
        heading=heading, figure=_change(network, without, count), unit=_more(network, without, metric), text=text
    )


def _standing(network: float, other: float, lower_is_better: bool, interval: tuple[float, float] | None) -> str:
    """Whether the network loses to another number, is level with it or beats it."""
    if interval is not None and interval[0] <= other <= interval[1]:
        return LEVEL_WITH
    if math.isfinite(other) and abs(network - other) <= LEVEL * max(abs(network), abs(other)) and interval is None:
        return LEVEL_WITH
    return BEATS if (network < other) == lower_is_better else LOSES


def _interval(network: float, count: int | None) -> tuple[float, float] | None:
    if count is None or not math.isfinite(network):
        return None
    if not 0 <= network <= 1:
        raise ValueError(f"network must be a share of the {count} examples, between 0 and 1; got {network}.")
    return wilson(round(network * count), count)


def _said(interval: tuple[float, float] | None, count: int | None, *, chance: bool = False) -> str:
    if interval is None:
        return ""
    low, high = (f"{100 * end:.1f}" for end in interval)
    examples = "1 example" if count == 1 else f"{count:,} examples"
    text = f" On {examples} its 95 % interval is {low} to {high} %"
    return f"{text}; a difference within it may be chance." if chance else f"{text}."


def _told(value: float, count: int | None, digits: int = 3) -> str:
    return number(value, digits) if count is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _digits(network: float, others: Iterable[float]) -> int:
    """Three, or four where three would show different numbers as the same."""
    same = any(number(network) == number(other) and network != other for other in others)
    return 4 if same else 3


def _change(network: float, without: float, count: int | None) -> str:
    """How much memory changes: of a share in points, of an error in percent of it."""
    if count is not None:
        return f"{100 * abs(network - without):.1f} points"
    return f"{100 * abs(network - without) / abs(without):.0f} %" if without else number(abs(network - without))


def _more(network: float, without: float, metric: str) -> str:
    return f"{'more' if network > without else 'less'} {metric}"


def _sizes(network: int, without: int) -> str:
    """How many weights each has, and that these are not as many where they are apart by more than a tenth."""
    text = f"They have {network:,} and {without:,} weights"
    return f"{text}." if abs(network - without) <= 0.1 * network else f"{text}, so they are not of one size."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
