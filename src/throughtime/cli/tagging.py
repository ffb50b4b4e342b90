"""What `tag` does: learn a tag for every word of CoNLL columns, judge it on other sentences, keep it as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np

from throughtime.baselines.tags import UsualTag, WindowedTag
from throughtime.cli.estimating import changed, check_folder, command_line, described, keep, thinned, working
from throughtime.cli.examples import SHARE
from throughtime.cli.folders import free_folder
from throughtime.cli.task_options import TaskOptions, parameters
from throughtime.data.conll import Tagged, read_conll
from throughtime.estimators import SequenceTagger
from throughtime.estimators.spans import is_bio, span_score
from throughtime.nets import parameters_of
from throughtime.pictures import ClassScores, ConfusionMatrix
from throughtime.task_report import Table, TaskSummary, how_well, verdict, what_memory_adds, write_task_report

WINDOW = 5
"""Words that the network without memory sees."""
SIMPLE = {"usual tag of the word": UsualTag, "logistic regression over 5 words": WindowedTag}
"""The baselines, by name."""


@dataclass(frozen=True)
class Sentences:
    """N sentences of words with their tags."""

    words: Sequence[Sequence[str]]
    tags: Sequence[Sequence[str]]

    @property
    def count(self) -> int:
        """Words in all."""
        return sum(map(len, self.words))

    def part(self, places: Sequence[int]) -> Sentences:
        return Sentences([self.words[place] for place in places], [self.tags[place] for place in places])

    def flat(self, tags: Sequence[Any] | None = None) -> np.ndarray:
        """All tags in one row; others of the same sentences where they are given."""
        return np.concatenate([np.asarray(row, object) for row in (self.tags if tags is None else tags)])


def tag(
    train: str,
    test: str | None,
    columns: tuple[int | None, int | None],
    options: TaskOptions,
    folder: str | None,
    *,
    forwards: bool,
    report: bool,
) -> int:
    """The exit code. columns: those of the word and of the tag."""
    found = read_conll(train, word=columns[0], tag=columns[1])
    learned, notes = _tagged(found, train), list(found.notes)
    if test is not None:
        other = read_conll(test, word=columns[0], tag=columns[1])
        judged: Sentences | None = _tagged(other, "--test")
        notes += [
            *other.notes,
            f"Learned from {len(learned.words):,} sentences, judged by the {len(other.sentences):,} of --test.",
        ]
    else:
        learned, judged, said = _held_out(learned)
        notes.append(said)
    path = Path(folder) if folder else free_folder((train,), None)
    check_folder(path)
    print("\n".join(notes))
    net = SequenceTagger(**parameters(options), bidirectional=False if forwards else None)
    without = SequenceTagger(**{"window": WINDOW, **parameters(options, memory=False)})
    simple: dict[str, Any] = {name: kind() for name, kind in SIMPLE.items()}
    with working(f"Training the network on {learned.count:,} words"):
        net.fit(learned.words, learned.tags)
    with working("Training the network without memory"):
        without.fit(learned.words, learned.tags)
    with working("Fitting the baselines"):
        for one in simple.values():
            one.fit(learned.words, learned.tags)
    notes += net.notes_
    told = {"test": test, "word_column": columns[0], "tag_column": columns[1]}
    again = command_line(["throughtime", "tag", train], {**told, "forwards": forwards, **changed(options)})
    seconds = net.records_[-1]["seconds"] if net.records_ else 0.0
    summary = TaskSummary(
        title=f"{path.resolve().name}: {len(net.classes_)} tags",
        sentence=f"A network, {described(net.net_)}, learned from {learned.count:,} words in {len(learned.words):,} "
        f"sentences: {net.n_iter_:,} updates in {seconds:,.0f} seconds.",
        notes=notes,
        records={"the network": thinned(net.records_), "without memory": thinned(without.records_)},
        unit="word",
        reproduce=again,
        config=net.net_.config(),
        **({} if judged is None else _judged(judged, learned, net, without, simple)),
    )
    data = {"kind": "tags", "word": columns[0], "tag": columns[1]}
    run = keep(net, path, {"command": {"name": "tag", "again": again}, "data": data})
    print(f"{run.path}: {described(net.net_)}")
    for card in summary.cards:
        print(f"{card.heading}: {card.text}")
    if report:
        print(f"Report: {write_task_report(run.path, summary)}")
    print(f"Go on: throughtime predict {quote(str(run.path))} FILE", flush=True)
    return 0


def _tagged(found: Tagged, name: str) -> Sentences:
    if found.tags is None:
        raise ValueError(f"{name} must have a column of tags beside that of words; it has one column.")
    return Sentences(found.sentences, found.tags)


def _held_out(every: Sentences) -> tuple[Sentences, Sentences | None, str]:
    """The last sentences are held out, as those of one text stand together and would be known by their neighbours."""
    count = round(SHARE * len(every.words))
    if not count:
        return every, None, f"{len(every.words)} sentences are too few to hold any out: nothing is known on new ones."
    border = len(every.words) - count
    said = f"The last {count:,} of {len(every.words):,} sentences are held out to judge by."
    return every.part(range(border)), every.part(range(border, len(every.words))), said


def _judged(judged: Sentences, learned: Sentences, net: Any, without: Any, simple: Mapping[str, Any]) -> dict[str, Any]:
    """Cards, tables, pictures and advice on sentences that the network did not learn from."""
    truth, count = judged.flat(), judged.count
    answers = {
        "network": net.predict(judged.words),
        **{name: one.predict(judged.words) for name, one in simple.items()},
        "network without memory": without.predict(judged.words),
    }
    right = {name: float(np.mean(judged.flat(found) == truth)) for name, found in answers.items()}
    known = {word for sentence in learned.words for word in sentence}
    new = np.array([word not in known for sentence in judged.words for word in sentence])
    spans = is_bio([net.classes_])
    rows = []
    for name, found in answers.items():
        row: list[object] = [name, f"{100 * right[name]:.1f} %"]
        row.append(f"{100 * np.mean((judged.flat(found) == truth)[new]):.1f} %" if new.any() else None)
        rows.append([*row, *([span_score(judged.tags, found).f1] if spans else [])])
    columns = ("", "accuracy", f"on the {int(new.sum()):,} words never seen", *(("F1 of spans",) if spans else ()))
    bare, predicted = right["network without memory"], list(judged.flat(answers["network"]))
    others = {name: right[name] for name in simple}
    best = max(others, key=others.__getitem__)
    return {
        "cards": [
            how_well(
                "accuracy",
                right["network"],
                others=others,
                lower_is_better=False,
                count=count,
            ),
            what_memory_adds(
                "accuracy",
                right["network"],
                without=bare,
                lower_is_better=False,
                count=count,
                window=without.recipe_.window or None,
                weights=(parameters_of(net.net_), parameters_of(without.net_)),
            ),
        ],
        "tables": [Table(heading=f"Right, of {count:,} words", columns=columns, rows=rows)],
        "pictures": [
            ConfusionMatrix(list(truth), predicted, net.classes_),
            ClassScores(list(truth), predicted, net.classes_),
        ],
        "advice": [f"Use the {best}, which does better here, or give more sentences."]
        * (others[best] > right["network"]),
    }


def predict(net: Any, words: Sequence[Sequence[str]], tags: Sequence[Sequence[str]] | None) -> tuple[str, list[str]]:
    """CoNLL columns of word and predicted tag, and how well that is where the tags are known."""
    found = net.predict(words)
    text = "\n".join(
        "".join(f"{word}\t{name}\n" for word, name in zip(sentence, row, strict=True))
        for sentence, row in zip(words, found, strict=True)
    )
    if tags is None or not sum(map(len, words)):
        return text, []
    flat = Sentences(words, tags)
    right = float(np.mean(flat.flat(found) == flat.flat()))
    return text, [verdict("accuracy", right, others={}, lower_is_better=False, count=flat.count)]
