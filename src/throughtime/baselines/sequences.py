"""What a network has to beat on whole sequences of numbers: linear models that see no order of their own.

Where all sequences have as many steps, a linear model of all their values; else of seven numbers of each feature:
mean, standard deviation, least, greatest, first, last, and the slope of the straight line through it by least squares.
Both are standardised. Classes by multinomial logistic regression, numbers by ridge regression, with the strength of
the penalty chosen by cross-validation where there are enough sequences for that. And the prior: the most frequent
class, or the mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

Numbers = NDArray[np.float64]
STRENGTHS = tuple(10.0**power for power in range(-3, 3))
FOLDS = 5
SUMMARY = ("mean", "deviation", "least", "greatest", "first", "last", "slope")


@dataclass(frozen=True, eq=False)
class Reference:
    """A fitted model: its name, for a table, and what it says of sequences."""

    name: str
    model: Any
    steps: int | None
    features: int

    def predict(self, sequences: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """A class or a number of each. Raises ValueError for other lengths where the model is of all values."""
        return self.model.predict(table(sequences, self.steps, self.features))


def table(sequences: Sequence[NDArray[Any]], steps: int | None, features: int) -> Numbers:
    """A row a sequence (T_i, I): all values where every one has `steps` steps, or with None the summary (N, 7 I)."""
    if steps is None:
        found = [summary(sequence, features) for sequence in sequences]
        return np.array(found).reshape(len(sequences), len(SUMMARY) * features)
    odd = next((len(sequence) for sequence in sequences if len(sequence) != steps), None)
    if odd is not None:
        raise ValueError(f"sequences must have {steps} steps, as those that were fitted; got one of {odd}.")
    return np.array([np.ravel(sequence) for sequence in sequences], np.float64).reshape(
        len(sequences), steps * features
    )


def summary(sequence: NDArray[Any], features: int) -> Numbers:
    """SUMMARY of every feature of (T, I), one after the other; zeros where there is no step."""
    T = len(sequence)
    if not T:
        return np.zeros(len(SUMMARY) * features)
    time = np.arange(T) - (T - 1) / 2
    slope = time @ sequence / max(1.0, time @ time)
    parts = (sequence.mean(0), sequence.std(0), sequence.min(0), sequence.max(0), sequence[0], sequence[-1], slope)
    return np.concatenate(parts)


def reference_classes(x: Sequence[NDArray[Any]], y: ArrayLike, *, equal: bool | None = None) -> list[Reference]:
    """The most frequent class, and a logistic regression. equal: whether all values are seen; None: where they can."""
    labels = np.asarray(y)
    steps, features = _shape(x, equal)
    rows = table(x, steps, features)
    fewest = int(np.unique(labels, return_counts=True)[1].min())
    model: Any = LogisticRegression(max_iter=2000)
    if fewest >= 2:
        folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
        model = GridSearchCV(make_pipeline(StandardScaler(), model), {"logisticregression__C": STRENGTHS}, cv=folds)
    else:
        model = make_pipeline(StandardScaler(), model)
    prior = DummyClassifier(strategy="prior").fit(rows, labels)
    name = f"logistic regression on {_seen(steps)}"
    return [
        Reference("most frequent class", prior, steps, features),
        Reference(name, model.fit(rows, labels), steps, features),
    ]


def reference_numbers(x: Sequence[NDArray[Any]], y: ArrayLike, *, equal: bool | None = None) -> list[Reference]:
    """The mean, and a ridge regression; y (N,) or (N, outputs). equal as in reference_classes."""
    steps, features = _shape(x, equal)
    rows, targets = table(x, steps, features), np.asarray(y, np.float64)
    ridge = make_pipeline(StandardScaler(), RidgeCV(alphas=[10.0**power for power in range(-3, 6)]))
    return [
        Reference("mean", DummyRegressor().fit(rows, targets), steps, features),
        Reference(f"ridge regression on {_seen(steps)}", ridge.fit(rows, targets), steps, features),
    ]


def _shape(x: Sequence[NDArray[Any]], equal: bool | None) -> tuple[int | None, int]:
    lengths = {len(sequence) for sequence in x}
    if not lengths:
        raise ValueError("x must have a sequence; got none.")
    if equal and len(lengths) > 1:
        raise ValueError(f"equal must be False for sequences of {min(lengths)} to {max(lengths)} steps; got True.")
    same = len(lengths) == 1 and min(lengths) > 0 if equal is None else equal
    return (lengths.pop() if same else None), max(sequence.shape[1] for sequence in x)


def _seen(steps: int | None) -> str:
    return "summaries" if steps is None else "all values"
