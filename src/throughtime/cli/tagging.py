"""What `tag` does: learn a tag for every word of CoNLL columns, judge it on other sentences, keep it as a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import clone

from throughtime.baselines.tags import UsualTag, WindowedTag
from throughtime.cli.estimating import (
    changed,
    check_folder,
    check_options,
    command_line,
    conclude,
    counted,
    described,
    keep,
    thinned,
    units_for,
    working,
)
from throughtime.cli.examples import SHARE, unlearned
from throughtime.cli.folders import free_folder
from throughtime.cli.task_options import TaskOptions, parameters
from throughtime.data.conll import Tagged, read_conll
from throughtime.estimators import SequenceTagger
from throughtime.estimators.spans import is_bio, span_score
from throughtime.estimators.steps import network, start
from throughtime.nets import parameters_of
from throughtime.pictures import ClassScores, ConfusionMatrix
from throughtime.task_report import Table, TaskSummary, how_well, verdict, what_memory_adds

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
    check_options(options)
    learned, judged, notes = _data(train, test, columns)
    path = Path(folder) if folder else free_folder((train,), None)
    check_folder(path)
    print("\n".join(notes))
    net = SequenceTagger(**parameters(options), bidirectional=False if forwards else None)
    simple: dict[str, Any] = {name: kind() for name, kind in SIMPLE.items()}
    with working(f"Training the network on {counted(learned.count, 'word')}"):
        net.fit(learned.words, learned.tags)
    without = SequenceTagger(**{"window": WINDOW, **parameters(options, memory=False)})
    if options.cell is not None or options.credit is not None or forwards:
        without.set_params(units=_units_without(clone(without), learned, net))
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
        sentence=f"A network, {described(net.net_)}, learned from {counted(learned.count, 'word')} in "
        f"{counted(len(learned.words), 'sentence')}: {net.n_iter_:,} updates in "
        f"{seconds:,.{int(seconds < 10)}f} seconds.",
        notes=notes,
        records={"the network": thinned(net.records_), "without memory": thinned(without.records_)},
        unit="word",
        reproduce=again,
        config=net.net_.config(),
        **({} if judged is None else _judged(judged, learned, net, without, simple)),
    )
    data = {"kind": "tags", "word": columns[0], "tag": columns[1]}
    run = keep(net, path, {"command": {"name": "tag", "again": again}, "data": data})
    return conclude(run, net.net_, summary, {}, report=report)


def _data(
    train: str, test: str | None, columns: tuple[int | None, int | None]
) -> tuple[Sentences, Sentences | None, list[str]]:
    """The sentences to learn from, those to be judged by, and what was done to them."""
    found = read_conll(train, word=columns[0], tag=columns[1])
    learned, notes = _tagged(found, repr(train)), list(found.notes)
    kinds = sorted(set(learned.flat()))
    if len(kinds) < 2:
        raise ValueError(f"{train!r} must have two tags or more; got only {kinds[0]!r}. Add words of another tag.")
    judged: Sentences | None
    if test is not None:
        other = read_conll(test, word=columns[0], tag=columns[1])
        judged = _tagged(other, "--test")
        sizes = counted(len(learned.words), "sentence"), f"{len(other.sentences):,}"
        notes += [*other.notes, f"Learned from {sizes[0]}, judged by the {sizes[1]} of --test."]
    else:
        learned, judged, said = _held_out(learned)
        notes.append(said)
    if judged is not None:
        notes += unlearned(judged.flat(), learned.flat(), "words to judge by")
    return learned, judged, notes


def _units_without(trial: Any, learned: Sentences, net: Any) -> int:
    """Those that make the network without memory as large as a network that is not of the usual kind."""
    trial.classes_ = net.classes_
    start(trial, list(learned.words), [np.ones(len(sentence)) for sentence in learned.words])

    def build(units: int) -> Any:
        return network(trial.reader_, replace(trial.recipe_, units=units), "mlp", len(net.classes_), parts=True)

    return units_for(parameters_of(net.net_), build)


def _tagged(found: Tagged, name: str) -> Sentences:
    if found.tags is None:
        raise ValueError(f"{name} must have a column of tags beside that of words; it has one column.")
    return Sentences(found.sentences, found.tags)


def _held_out(every: Sentences) -> tuple[Sentences, Sentences | None, str]:
    """The last sentences are held out, as those of one text stand together and would be known by their neighbours."""
    count = round(SHARE * len(every.words))
    if not count:
        few = "1 sentence is" if len(every.words) == 1 else f"{len(every.words)} sentences are"
        return every, None, f"{few} too few to hold any out: nothing is known on new ones."
    border = len(every.words) - count
    last, verb = ("last", "is") if count == 1 else (f"last {count:,}", "are")
    said = f"The {last} of {len(every.words):,} sentences {verb} held out to judge by."
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
    classes = sorted({*truth, *net.classes_.tolist()})
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
            ConfusionMatrix(list(truth), predicted, classes),
            ClassScores(list(truth), predicted, classes),
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
    said = verdict("accuracy", right, others={}, lower_is_better=False, count=flat.count)
    return text, [said, *unlearned(flat.flat(), net.classes_, "words")]
