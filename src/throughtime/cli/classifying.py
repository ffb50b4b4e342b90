"""What `classify` does: learn the class of sequences or texts, judge it on others, keep it as a run with its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from sklearn.base import clone

from throughtime.baselines.sequences import reference_classes
from throughtime.baselines.texts import WordBaseline
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
from throughtime.cli.examples import Examples, authors, check_width, held_out, read_examples, unlearned
from throughtime.cli.folders import free_folder
from throughtime.cli.options import flag
from throughtime.cli.task_options import ExampleOptions, TaskOptions, parameters
from throughtime.estimators import SequenceClassifier
from throughtime.estimators.fitting import network, prepare
from throughtime.nets import parameters_of
from throughtime.pictures import Calibration, ClassScores, ConfusionMatrix, Picture
from throughtime.task_report import Table, TaskSummary, how_well, verdict, what_memory_adds

PREDICTIONS = "predictions.csv"
NOUNS = {"sequences": "sequence", "texts": "text"}


def classify(
    train: Sequence[str],
    test: str | None,
    shipped: str | None,
    columns: ExampleOptions,
    options: TaskOptions,
    folder: str | None,
    *,
    report: bool,
) -> int:
    """The exit code."""
    if bool(train) == (shipped is not None):
        raise ValueError("TRAIN must be given: a .ts file, a table, a file a class or a folder a class; or --shipped.")
    if shipped and test is None and (told := changed(columns)):
        raise ValueError(f"{flag(next(iter(told)))} must be left out with --shipped; it would have no effect.")
    check_options(options)
    learned = authors() if shipped else read_examples(train, columns, training=True)
    if test is not None:
        judged: Examples | None
        judged = other = read_examples([test], columns, training=False, kind=learned.kind, features=learned.features)
        said = _check_test(learned, other)
    else:
        learned, judged, said = held_out(learned, options.seed)
    path = Path(folder) if folder else free_folder(tuple(train), shipped)
    check_folder(path)
    notes = [*learned.notes, *(judged.notes if test and judged is not None else ()), said]
    print("\n".join(notes))
    net, without = _learn(learned, options)
    print("".join(f"{note}\n" for note in net.notes_), end="")
    notes += net.notes_
    words = ["throughtime", "classify", *train]
    given = {"shipped": shipped, "test": test, **changed(columns), **changed(options)}
    again = command_line(words, given)
    summary = TaskSummary(
        title=f"{path.resolve().name}: {learned.kind} of {len(net.classes_)} classes",
        sentence=_sentence(learned, net),
        notes=notes,
        records={"the network": thinned(net.records_), "without memory": thinned(without.records_)},
        unit=NOUNS[learned.kind],
        reproduce=again,
        config=_config(net),
    )
    if judged is not None:
        summary = _judge(summary, learned, judged, net, without)
    told = {"features": list(learned.features), "files": learned.files}
    data = {"kind": learned.kind, **{name: value for name, value in told.items() if value}, **changed(columns)}
    sections = {"command": {"name": "classify", "again": again}, "data": data}
    run = keep(net, path, sections)
    files = {} if judged is None else {PREDICTIONS: _predictions(net, judged).write_csv()}
    return conclude(run, net.net_, summary, files, report=report)


def _learn(learned: Examples, options: TaskOptions) -> tuple[Any, Any]:
    """The network and the one without memory, fitted."""
    net = SequenceClassifier(**parameters(options))
    with working(f"Training the network on {counted(len(learned), NOUNS[learned.kind])}"):
        net.fit(learned.x, learned.labels)
    without = SequenceClassifier(**parameters(options, memory=False))
    if options.cell is not None or options.credit is not None:
        without.set_params(units=_units_without(clone(without), learned, net))
    with working("Training the network without memory"):
        without.fit(learned.x, learned.labels)
    return net, without


def _units_without(trial: Any, learned: Examples, net: Any) -> int:
    """Those that make the network without memory as large as a network that is not of the usual kind."""
    outputs = len(net.classes_)
    prepare(trial, list(learned.x), np.ones(len(learned)), outputs, 0)

    def build(units: int) -> Any:
        return network(trial.reader_, replace(trial.recipe_, units=units), "mlp", outputs, whole=True)

    return units_for(parameters_of(net.net_), build)


def _simple(learned: Examples, judged: Examples) -> dict[str, NDArray[Any]]:
    """What simple methods say of the examples to judge by, by name."""
    assert learned.labels is not None
    classes, sizes = np.unique(learned.labels, return_counts=True)
    most = classes[sizes.argmax()]
    found = {f'always "{most}"': np.full(len(judged), most)}
    with working("Fitting the baseline"):
        if learned.kind == "texts":
            found = {
                "logistic regression on TF-IDF": WordBaseline().fit(learned.x, learned.labels).predict(judged.x),
                **found,
            }
        else:
            equal = len({len(part) for part in (*learned.x, *judged.x)}) == 1
            *_, model = reference_classes(learned.x, learned.labels, equal=equal)
            found = {model.name: model.predict(judged.x), **found}
    return found


def _check_test(learned: Examples, judged: Examples) -> str:
    if judged.labels is None:
        raise ValueError("--test must have classes to judge by; it has none. Use throughtime predict RUN FILE.")
    assert learned.labels is not None
    odd = sorted(set(judged.labels.tolist()) - set(learned.labels.tolist()))
    if odd:
        raise ValueError(f"--test must have classes that TRAIN has; {odd[0]!r} is not there. Add examples of it.")
    if learned.kind == "sequences":
        check_width(judged, learned.x[0].shape[1], "--test")
    return f"Learned from {len(learned):,} examples, judged by the {len(judged):,} of --test."


def _judge(summary: TaskSummary, learned: Examples, judged: Examples, net: Any, without: Any) -> TaskSummary:
    """The summary with what the network is worth on examples that it did not learn from."""
    assert judged.labels is not None
    truth, count = judged.labels, len(judged)
    chances = net.predict_proba(judged.x)
    predicted = net.classes_[chances.argmax(1)]
    simple = _simple(learned, judged)
    answers = {"network": predicted, **simple, "network without memory": without.predict(judged.x)}
    right = {name: float(np.mean(found == truth)) for name, found in answers.items()}
    others = {name: right[name] for name in simple}
    cards = [
        how_well("accuracy", right["network"], others=others, lower_is_better=False, count=count),
        what_memory_adds(
            "accuracy",
            right["network"],
            without=right["network without memory"],
            lower_is_better=False,
            count=count,
            window=without.recipe_.window or None,
            weights=(parameters_of(net.net_), parameters_of(without.net_)),
        ),
    ]
    rows = [[one, f"{100 * value:.1f} %"] for one, value in right.items()]
    pictures: list[Picture] = [
        ConfusionMatrix(list(truth), list(predicted), net.classes_),
        ClassScores(list(truth), list(predicted), net.classes_),
    ]
    pictures.append(Calibration(predicted == truth, chances.max(1)))
    table = Table(heading=f"Right, of {count:,}", columns=("", "accuracy"), rows=rows)
    return replace(
        summary, cards=cards, tables=[table], pictures=pictures, advice=_advice(right["network"], others, net)
    )


def _advice(own: float, others: Mapping[str, float], net: Any) -> list[str]:
    best = max(others, key=others.__getitem__)
    if own >= others[best]:
        return []
    return [f"Use the {best}, which does better here, give more examples, or try --updates {2 * net.n_iter_}."]


def _sentence(learned: Examples, net: Any) -> str:
    lengths = [len(part) for part in net.reader_.read(list(learned.x)[:1000])]
    steps = f"{min(lengths):,} to {max(lengths):,} steps" if min(lengths) < max(lengths) else f"{lengths[0]:,} steps"
    seconds = net.records_[-1]["seconds"] if net.records_ else 0.0
    return (
        f"A network, {described(net.net_)}, learned from {len(learned):,} {learned.kind} of {steps}: "
        f"{net.n_iter_:,} updates in {seconds:,.{int(seconds < 10)}f} seconds."
    )


def _predictions(net: Any, examples: Examples) -> pl.DataFrame:
    """A row an example: its name, its class where it is known, the predicted one, and the probability of each."""
    chances = net.predict_proba(examples.x)
    columns: dict[str, Any] = {"id": list(examples.names)}
    if examples.labels is not None:
        columns["class"] = examples.labels.tolist()
    columns["predicted"] = net.classes_[chances.argmax(1)].tolist()
    columns |= {f"p({name})": chances[:, place].round(6) for place, name in enumerate(net.classes_)}
    return pl.DataFrame(columns)


def predict(net: Any, examples: Examples) -> tuple[pl.DataFrame, list[str]]:
    """The predictions of a saved classifier, and how well it did where the classes are known."""
    frame = _predictions(net, examples)
    said = [*examples.notes, *(net.reader_.notes(examples.x) if examples.kind == "texts" else ())]
    if examples.labels is not None:
        right = float(np.mean(frame["predicted"].to_numpy() == examples.labels))
        said.append(verdict("accuracy", right, others={}, lower_is_better=False, count=len(examples)))
        said += unlearned(examples.labels, net.classes_, examples.kind)
    return frame, said


def _config(net: Any) -> dict[str, object]:
    return {**{f"recipe.{name}": value for name, value in asdict(net.recipe_).items()}, **net.net_.config()}
