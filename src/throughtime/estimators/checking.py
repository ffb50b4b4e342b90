"""The laws that an estimator of texts, tags or unequal sequences must meet, beyond scikit-learn's own checks.

scikit-learn's `check_estimator` hands over rows of numbers. These checks hand over what such an estimator is for, and
hold it to the same conventions and a few of its own: what is predicted of a sequence depends on that sequence alone,
what is learned depends neither on the order of the examples nor on whether one stands twice or has weight 2.
"""

from __future__ import annotations

import copy
import pickle
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from throughtime.estimators.saving import load_estimator, save


@dataclass(frozen=True)
class Problem:
    """A small problem: X and y, an X of another kind, and whether examples may be weighted and in any order."""

    X: list[Any]
    y: list[Any] | None
    wrong: list[Any]
    exchangeable: bool = True


def check_sequence_estimator(estimator: BaseEstimator, kind: str) -> list[str]:
    """Try an estimator, given few updates and any random_state, on the laws of a kind; returns their names.

    kind   texts: a classifier of strings; tokens, frames: a tagger of lists of strings or of (T, I) numbers; language:
           a LanguageModel; sequences: a classifier of (T, I) numbers.
    Raises AssertionError, with the law and what broke it, at the first that does not hold. It fits about fifteen times.
    """
    if kind not in PROBLEMS:
        raise ValueError(f"kind must be {', '.join(PROBLEMS)}; got {kind!r}.")
    problem = PROBLEMS[kind]()
    held = []
    for law in LAWS:
        if problem.exchangeable or law not in EXCHANGEABLE:
            law(clone(estimator).set_params(random_state=0), problem)
            held.append(law.__name__.removeprefix("_"))
    return held


# Problems


def _strings(seed: int = 0) -> list[list[str]]:
    chance = np.random.default_rng(seed)
    stems, ends = ["walk", "sing", "Blue", "tree", "x1"], ["s", "ed", "ing", ""]
    word = lambda: str(chance.choice(stems)) + str(chance.choice(ends))  # noqa: E731
    return [[word() for _ in range(length)] for length in (3, 1, 5, 2, 4, 7, 3, 2, 6, 1, 3, 4)]


def _frames() -> list[Any]:
    chance = np.random.default_rng(0)
    return [chance.normal(size=(len(row), 2)) for row in _strings()]


def _tokens_problem() -> Problem:
    X = _strings()
    return Problem(X, [["V" if token.endswith(("s", "ed")) else "O" for token in row] for row in X], _frames())


def _frames_problem() -> Problem:
    X = _frames()
    return Problem(X, [(frame[:, 0] > 0).astype(int) for frame in X], _strings())


def _texts_problem() -> Problem:
    X = [" ".join(row) for row in _strings()]
    return Problem(X, ["long" if len(text) > 16 else "short" for text in X], _frames())


def _language_problem() -> Problem:
    return Problem([" ".join(row) for row in _strings()], None, _frames(), exchangeable=False)


def _sequences_problem() -> Problem:
    X = _frames()
    return Problem(X, ["up" if frame[0, 0] > 0 else "down" for frame in X], [" ".join(row) for row in _strings()])


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "texts": _texts_problem,
    "tokens": _tokens_problem,
    "frames": _frames_problem,
    "language": _language_problem,
    "sequences": _sequences_problem,
}


# Laws


def _parameters(estimator: Any, problem: Problem) -> None:
    """The constructor stores its arguments, and get_params, set_params and clone give them back."""
    params = estimator.get_params()
    made = type(estimator)(**params)
    assert all(getattr(made, name) is value for name, value in params.items()), "the constructor changed a parameter."
    assert set(vars(made)) == set(params), "the constructor stores more than its arguments."
    assert clone(estimator).get_params() == params, "clone gave other parameters."
    assert estimator.set_params(random_state=7).get_params()["random_state"] == 7, "set_params did not set."
    assert type(estimator).__name__ in repr(estimator), "repr does not name the estimator."


def _unfitted(estimator: Any, problem: Problem) -> None:
    """Before fit there is nothing to predict."""
    for name in ("predict", "predict_proba"):
        if hasattr(estimator, name):
            _must_raise(NotFittedError, partial(getattr(estimator, name), problem.X), f"{name} before fit")


def _fitting(estimator: Any, problem: Problem) -> None:
    """fit returns self, sets attributes that end in _, and changes neither its parameters nor what it was given."""
    params, data = estimator.get_params(), copy.deepcopy((problem.X, problem.y))
    assert _fit(estimator, problem.X, problem.y) is estimator, "fit did not return self."
    _predictions(estimator, problem)
    assert estimator.get_params() == params, "fit changed a parameter."
    assert _same(data, (problem.X, problem.y)), "fit or predict changed X or y."
    odd = [name for name in vars(estimator) if name not in params and not name.endswith("_")]
    assert not odd, f"what fit sets must end in _; got {odd}."


def _repeatable(estimator: Any, problem: Problem) -> None:
    """The same random_state gives the same predictions, to the last bit; fit forgets what was fitted before."""
    first = _predictions(_fit(estimator, problem.X, problem.y), problem)
    again = _predictions(_fit(clone(estimator), problem.X, problem.y), problem)
    assert _same(first, again), "two fits with one random_state predict differently."
    _fit(estimator, problem.X[:8], None if problem.y is None else problem.y[:8])
    assert _same(first, _predictions(_fit(estimator, problem.X, problem.y), problem)), (
        "a second fit knows of the first."
    )


def _probabilities(estimator: Any, problem: Problem) -> None:
    """Probabilities are of the classes, in [0, 1], add up to 1, and the most probable one is predicted."""
    _fit(estimator, problem.X, problem.y)
    chosen = estimator.predict(problem.X)
    for found, row in zip(chosen, estimator.predict_proba(problem.X), strict=True):
        assert row.shape[-1] == len(estimator.classes_), "predict_proba has another number of classes than classes_."
        assert ((row >= 0) & (row <= 1)).all(), "probabilities lie outside of 0 to 1."
        assert np.allclose(row.sum(-1), 1), "probabilities do not add up to 1."
        assert np.all(estimator.classes_[row.argmax(-1)] == found), "predict is not the most probable class."


def _alone(estimator: Any, problem: Problem) -> None:
    """What is predicted of a sequence depends neither on its batch nor on its place in it, to the last bit."""
    together = _predictions(_fit(estimator, problem.X, problem.y), problem)
    alone = [estimator.predict_proba([sequence])[0] for sequence in problem.X]
    assert _same(list(together), alone), "a prediction changes with the batch that it is in."
    turned = estimator.predict_proba(problem.X[::-1])
    assert _same(list(together), list(turned[::-1])), "predictions change with the order of X."


def _containers(estimator: Any, problem: Problem) -> None:
    """A list, a tuple and an object array are the same X."""
    whole = np.empty(len(problem.X), object)
    whole[:] = problem.X
    found = [_predictions(_fit(clone(estimator), X, problem.y), problem) for X in (problem.X, tuple(problem.X), whole)]
    for name, other in zip(("a tuple", "an object array"), found[1:], strict=True):
        assert _same(found[0], other), f"{name} is read as another X than a list."


def _empty(estimator: Any, problem: Problem) -> None:
    """A sequence without a step is legal, in learning and in predicting; one without any example says so."""
    nothing: Any = "" if isinstance(problem.X[0], str) else problem.X[0][:0]
    y = problem.y if problem.y is None else [*problem.y, problem.y[0] if _one_answer(problem) else problem.y[0][:0]]
    _fit(estimator, [*problem.X, nothing], y)
    assert len(estimator.predict([nothing, problem.X[0]])) == 2, "an empty sequence has no place in the predictions."
    _must_raise(ValueError, lambda: _fit(estimator, [], y and []), "fit without an example")


def _refusals(estimator: Any, problem: Problem) -> None:
    """What does not fit is refused by a ValueError or a TypeError that says something."""
    bad = (ValueError, TypeError)
    _must_raise(bad, lambda: _fit(clone(estimator), 7, problem.y), "X=7")
    if problem.y is not None:
        _must_raise(bad, lambda: _fit(clone(estimator), problem.X, problem.y[:-1]), "one y too few")  # type: ignore[index]
        _must_raise(bad, lambda: _fit(clone(estimator), problem.X, None), "y=None")
    _fit(estimator, problem.X, problem.y)
    _must_raise(bad, lambda: estimator.predict(problem.wrong), "X of another kind than in fit")


def _copies(estimator: Any, problem: Problem) -> None:
    """A pickled copy, a deep copy and what was saved and loaded predict the same, to the last bit."""
    first = _predictions(_fit(estimator, problem.X, problem.y), problem)
    with tempfile.TemporaryDirectory() as folder:
        loaded = load_estimator(save(estimator, Path(folder) / "saved"))
    for name, copied in (
        ("pickled", pickle.loads(pickle.dumps(estimator))),
        ("deep", copy.deepcopy(estimator)),
        ("loaded", loaded),
    ):
        assert _same(first, _predictions(copied, problem)), f"a {name} copy predicts differently."


def _order(estimator: Any, problem: Problem) -> None:
    """What is learned does not depend on the order of the examples."""
    first = _predictions(_fit(estimator, problem.X, problem.y), problem)
    assert problem.y is not None
    turned = _predictions(_fit(clone(estimator), problem.X[::-1], problem.y[::-1]), problem)
    assert _same(first, turned), "the order of the examples changes what is learned."


def _weights(estimator: Any, problem: Problem) -> None:
    """Weight 2 is standing there twice, and weight 0 is not standing there."""
    assert problem.y is not None
    weight = np.ones(len(problem.X))
    weight[1], weight[2] = 2.0, 0.0
    places = [0, 1, 1, *range(3, len(problem.X))]
    weighted = _predictions(clone(estimator).fit(problem.X, problem.y, sample_weight=weight), problem)
    repeated = _fit(clone(estimator), [problem.X[k] for k in places], [problem.y[k] for k in places])
    assert _same(weighted, _predictions(repeated, problem)), "a weight of 2 is not an example that stands there twice."


def _selection(estimator: Any, problem: Problem) -> None:
    """Cross-validation, a grid search and a pipeline run on sequences of unequal length."""
    scores = cross_val_score(clone(estimator), problem.X, problem.y, cv=2)
    assert np.isfinite(scores).all(), "cross_val_score gives scores that are not finite."
    pipeline = make_pipeline(FunctionTransformer(), clone(estimator))
    name = type(estimator).__name__.lower()
    search = GridSearchCV(pipeline, {f"{name}__random_state": [0, 1]}, cv=2).fit(problem.X, problem.y)
    assert np.isfinite(search.best_score_), "GridSearchCV gives scores that are not finite."
    assert len(search.predict(problem.X)) == len(problem.X), "GridSearchCV does not predict."


LAWS: tuple[Callable[[Any, Problem], None], ...] = (
    _parameters,
    _unfitted,
    _fitting,
    _repeatable,
    _probabilities,
    _alone,
    _containers,
    _empty,
    _refusals,
    _copies,
    _order,
    _weights,
    _selection,
)
EXCHANGEABLE = (_order, _weights)
"""Laws of estimators that learn from examples in no order."""


# What they share


def _fit(estimator: Any, X: Any, y: Any) -> Any:
    return estimator.fit(X) if y is None else estimator.fit(X, y)


def _one_answer(problem: Problem) -> bool:
    return problem.y is not None and isinstance(problem.y[0], (str, int))


def _predictions(estimator: Any, problem: Problem) -> Any:
    return estimator.predict_proba(problem.X)


def _must_raise(kinds: Any, call: Callable[[], Any], what: str) -> None:
    try:
        call()
    except kinds as error:
        said = str(error)
    else:
        raise AssertionError(f"{what} must be refused by {kinds}; nothing was raised.")
    assert said, f"{what} must be refused with a sentence; got none."


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.dtype == object):
        yield len(value)
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _same(a: Any, b: Any) -> bool:
    """Whether two nestings of arrays hold the same bits."""
    return all(np.array_equal(np.asarray(p), np.asarray(q)) for p, q in zip(_leaves(a), _leaves(b), strict=True))
