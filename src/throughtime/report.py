"""The page of a run, and of several runs: one file that opens offline, with what matters on its first screen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from throughtime.pictures import ErrorAgainstLag, LearningCurves, Picture
from throughtime.pictures.page import Card, drawn, sentence_case, write_page
from throughtime.pictures.style import percent

if TYPE_CHECKING:
    from throughtime.flow import Flow

LEVEL = 0.0005
"""Nats: losses that differ by less are called level."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a report tells of a network: of the weights with the lowest validation loss, which a run keeps.

    title      a line; sentence: what was trained, on what, for how long.
    facts      the choices that matter: (name, value); config: all of them, by name.
    records    one mapping an update, as in metrics.jsonl: `update`, `loss` and, where there are, `targets`
               (learned from so far), `seconds` and `validation` (None when it was not evaluated); nats a unit.
    loss       of the weights that were kept, on text held out; None: the lowest validation loss of the records.
    baseline   what to beat: (name, nats a unit on the validation text).
    without    the network without memory on the same: (name, nats a unit).
    samples    texts that the network wrote: (caption, text).
    flow       how far the error reaches in the trained network; pictures: what to show after the learning curves.
    missing    sentences: what cannot be shown, and why.
    advice     what to do next, after what flow advises; longer: the command that trains it longer.
    weights    how many the network learns.
    reproduce  the command that does it again.
    unit       what a loss is counted by: character, byte, word.
    """

    title: str
    sentence: str
    facts: Sequence[tuple[str, object]] = ()
    config: Mapping[str, object] = field(default_factory=dict)
    records: Sequence[Mapping[str, Any]] = ()
    loss: float | None = None
    baseline: tuple[str, float] | None = None
    without: tuple[str, float] | None = None
    samples: Sequence[tuple[str, str]] = ()
    flow: Flow | None = None
    pictures: Sequence[Picture] = ()
    missing: Sequence[str] = ()
    advice: Sequence[str] = ()
    longer: str = ""
    weights: int | None = None
    reproduce: str = ""
    unit: str = "character"


def write_report(folder: str | Path, summary: Summary) -> Path:
    """Write `report.html` into an existing folder: one file that opens offline and requests nothing."""
    curves = [LearningCurves(summary.records, summary.baseline, summary.unit)] if summary.records else []
    page = {
        "title": summary.title,
        "sentence": summary.sentence,
        "cards": _cards(summary),
        "pictures": drawn([*curves, *summary.pictures]),
        "missing": summary.missing,
        "summary": summary,
    }
    return write_page(Path(folder) / "report.html", "report.html", page)


def write_comparison(path: str | Path, summaries: Mapping[str, Summary]) -> Path:
    """Write a page that holds two or more runs, by name, beside each other, into an existing folder."""
    if len(summaries) < 2:
        raise ValueError(f"a comparison must have at least two runs; got {len(summaries)}. Give another run.")
    every = list(summaries.values())
    page = {
        "title": f"{', '.join(summaries)} beside each other",
        "sentence": f"{len(every)} runs, each with the weights that it kept.",
        "cards": _comparison_cards(summaries),
        "pictures": drawn(_shared_pictures(summaries)),
        "missing": list(dict.fromkeys(f"{name}: {text}" for name, one in summaries.items() for text in one.missing)),
        "names": list(summaries),
        "results": _results(every),
        "verdicts": [
            (name, sentence_case(one.flow.verdict)) for name, one in summaries.items() if one.flow is not None
        ],
        "differences": differences([summary.config for summary in every]),
        "commands": [summary.reproduce for summary in every if summary.reproduce],
    }
    return write_page(Path(path), "report-runs.html", page)


# The first screen of a run


def _cards(summary: Summary) -> list[Card]:
    """How well, how far back, what next."""
    loss = reached(summary)
    figure, unit = (f"{loss:.3f}", f"nats per {summary.unit}") if math.isfinite(loss) else ("", "")
    well = Card(heading="How well", figure=figure, unit=unit, text=f"{verdict(summary)} {worth(summary)}".strip())
    return [well, _far(summary), Card(heading="What to do next", steps=next_steps(summary))]


def _far(summary: Summary) -> Card:
    heading = "How far back"
    if summary.flow is None:
        return Card(heading=heading, text=summary.missing[0] if summary.missing else "It was not measured.")
    memory, text = _memory(summary.flow), sentence_case(summary.flow.verdict)
    return Card(heading=heading, figure=memory, unit=f"{summary.unit}s of memory", text=text)


def reached(summary: Summary) -> float:
    """The loss on text held out, or where nothing was held out the last one in training; NaN where none is finite."""
    if summary.loss is not None:
        return summary.loss
    records = summary.records
    if _held_out(summary):
        losses = [record["validation"] for record in records if record.get("validation") is not None]
        return min((float(loss) for loss in losses if math.isfinite(loss)), default=math.nan)
    last = records[-1].get("loss") if records else None
    return math.nan if last is None or not math.isfinite(last) else float(last)


def _held_out(summary: Summary) -> bool:
    """Whether the loss is on text that the network did not learn from."""
    return summary.loss is not None or any(record.get("validation") is not None for record in summary.records)


def verdict(summary: Summary) -> str:
    """How well the network does against the baseline, in one sentence."""
    unit, baseline, loss = summary.unit, summary.baseline, reached(summary)
    if not summary.records and summary.loss is None:
        return "No loss was recorded, so nothing can be said about how well it does."
    if math.isnan(loss):
        return f"The training failed: no {'validation' if _held_out(summary) else 'last'} loss is finite."
    if not _held_out(summary):
        return (
            f"On the training text it reaches {_nats(loss, unit)}; nothing was held out, so how well it does on new "
            "text is unknown."
        )
    text = f"{_nats(loss, unit)} on text held out from training"
    if baseline is None:
        return f"It reaches {text}; no baseline was measured beside it."
    name, bar = baseline
    if abs(loss - bar) < LEVEL:
        return f"The network and the baseline ({name}) are level: {text}."
    if loss < bar:
        return f"The network beats the baseline: {text}, {bar - loss:.3f} nats below the {bar:.3f} of {name}."
    return f"The network loses to the baseline: {text}, {loss - bar:.3f} nats above the {bar:.3f} of {name}."


def worth(summary: Summary) -> str:
    """What memory adds, in a sentence; nothing where no network without memory was trained."""
    loss = reached(summary)
    if summary.without is None or not math.isfinite(loss):
        return ""
    name, bare = summary.without
    adds = f"memory is worth {bare - loss:.3f} nats" if bare > loss + LEVEL else "memory adds nothing here"
    return f"Without memory, {name} reaches {_nats(bare, summary.unit)}: {adds}."


def next_steps(summary: Summary) -> list[str]:
    """What to do next: what beats the baseline, what flow advises, what the caller adds."""
    steps = []
    if summary.baseline is not None and reached(summary) > summary.baseline[1] + LEVEL:
        command = f", as with {summary.longer}" if summary.longer else ""
        steps.append(f"Train it longer{command}, or make it larger: it does not do better than the baseline yet.")
    steps += [] if summary.flow is None else summary.flow.advice
    return [*steps, *summary.advice] or ["Nothing that was measured calls for a change."]


def _nats(loss: float, unit: str) -> str:
    return f"{loss:.3f} nats ({loss / math.log(2):.2f} bits) per {unit}"


# Several runs


def _comparison_cards(summaries: Mapping[str, Summary]) -> list[Card]:
    """Which does best, which reaches furthest back, what to do next."""
    losses = {name: reached(summary) for name, summary in summaries.items()}
    finite = {name: loss for name, loss in losses.items() if math.isfinite(loss)}
    unfair = _unfair(summaries)
    best = "" if unfair or not finite else min(finite, key=finite.__getitem__)
    curves = LearningCurves({name: summary.records for name, summary in summaries.items()}, unit=_unit(summaries))
    unit = f"{finite[best]:.3f} nats per {summaries[best].unit}" if best else ""
    steps = next_steps(summaries[best]) if best else ["See the page of each run, report.html in its folder."]
    return [
        Card(heading="How well", figure=best, unit=unit, text=unfair or curves.reading),
        _furthest(summaries),
        Card(heading=f"What to do next with {best}" if best else "What to do next", steps=steps),
    ]


def _furthest(summaries: Mapping[str, Summary]) -> Card:
    flows = {name: summary.flow for name, summary in summaries.items() if summary.flow is not None}
    if not flows:
        return Card(heading="How far back", text="It was not measured.")
    reach = {name: math.inf if flow.whole.memory is None else flow.whole.memory for name, flow in flows.items()}
    name = max(reach, key=reach.__getitem__)
    text = f"Steps of memory: {', '.join(f'{run} {_memory(flow)}' for run, flow in flows.items())}."
    unit = f"{_memory(flows[name])} {summaries[name].unit}s of memory"
    return Card(heading="How far back", figure=name, unit=unit, text=text)


def _unfair(summaries: Mapping[str, Summary]) -> str:
    """Why the losses cannot be held against each other, or nothing."""
    texts = [summary.config.get("text.sha256_of_ids") for summary in summaries.values()]
    splits = [summary.config.get("text.split") for summary in summaries.values()]
    held = [_held_out(summary) for summary in summaries.values()]
    if None in texts or len(set(texts)) > 1 or len(set(splits)) > 1:
        return "The runs have no text in common to be measured on, so their losses cannot be held against each other."
    if not all(held):
        return "Not every run held text out, so their losses cannot be held against each other."
    return ""


def _unit(summaries: Mapping[str, Summary]) -> str:
    units = {summary.unit for summary in summaries.values()}
    return units.pop() if len(units) == 1 else "token"


def _shared_pictures(summaries: Mapping[str, Summary]) -> Iterator[Picture]:
    records = {name: summary.records for name, summary in summaries.items() if summary.records}
    if records:
        baselines = {summary.baseline for summary in summaries.values()}
        shared = baselines.pop() if len(baselines) == 1 and not _unfair(summaries) else None
        yield LearningCurves(records, shared, _unit(summaries))
    flows = {name: summary.flow for name, summary in summaries.items() if summary.flow is not None}
    if flows:
        errors = {name: flow.whole for name, flow in flows.items()}
        yield ErrorAgainstLag(errors, {name: flow.h for name, flow in flows.items()}, title="How far back they learned")


def _results(summaries: Sequence[Summary]) -> list[tuple[str, list[str]]]:
    """Rows of the table of results, memory and cost; a row that no run has is left out."""
    flows = [summary.flow for summary in summaries]
    rows = [
        ("loss (nats)", [_number(reached(summary), ".4f") for summary in summaries]),
        ("baseline (nats)", [_number(summary.baseline and summary.baseline[1], ".4f") for summary in summaries]),
        ("memory (steps)", [_memory(flow) for flow in flows]),
        ("half of the error is gone after (steps)", [_number(flow and flow.whole.half_life) for flow in flows]),
        ("cut off at h", [_number(flow and flow.h) for flow in flows]),
        ("kept by that h, of the gradient", [_kept(flow) for flow in flows]),
        ("weights", [_number(summary.weights, ",d") for summary in summaries]),
        ("updates", [_number(_last(summary, "update"), ",.0f") for summary in summaries]),
        ("read in training", [_number(_last(summary, "targets"), ",.0f") for summary in summaries]),
        ("seconds of training", [_number(_last(summary, "seconds"), ",.1f") for summary in summaries]),
        ("read a second", [_number(_speed(summary), ",.0f") for summary in summaries]),
    ]
    return [(name, values) for name, values in rows if any(value != "–" for value in values)]


def _memory(flow: Flow | None) -> str:
    if flow is None:
        return "–"
    return f"over {flow.whole.lags[-1]}" if flow.whole.memory is None else _number(flow.whole.memory)


def _kept(flow: Flow | None) -> str:
    share = math.nan if flow is None or flow.h is None or flow.kept is None else flow.kept.share(flow.h)
    return "–" if math.isnan(share) else percent(share)


def _last(summary: Summary, name: str) -> float | None:
    return summary.records[-1].get(name) if summary.records else None


def _speed(summary: Summary) -> float | None:
    targets, seconds = _last(summary, "targets"), _last(summary, "seconds")
    return targets / seconds if targets and seconds else None


def _number(value: Any, how: str = ".3g") -> str:
    return "–" if value is None or math.isnan(value) else format(value, how)


def differences(configs: Sequence[Mapping[str, object]]) -> list[tuple[str, list[str]]]:
    """The names whose values are not the same in all of these, with the value of each."""
    names = dict.fromkeys(name for config in configs for name in config)
    rows = [(name, [str(config.get(name, "–")) for config in configs]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]
