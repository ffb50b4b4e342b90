"""SequenceClassifier and SequenceRegressor: one answer about a whole sequence, by scikit-learn's conventions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_consistent_length
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_array, check_is_fitted, column_or_1d

from throughtime.credit import Credit
from throughtime.data.sequences import LAYOUTS
from throughtime.estimators.answering import Numbers, answers, answers_by_step
from throughtime.estimators.fitting import check_streams, fit_anew, go_on, prepare
from throughtime.estimators.intake import seed_of, take, take_weight
from throughtime.estimators.learning import distinct
from throughtime.estimators.numbers import FLAT

Array = NDArray[Any]


class SequenceClassifier(ClassifierMixin, BaseEstimator):
    """The class of a whole sequence of numbers, or of a text, by a recurrent network.

    cell           gru, lstm, elman, ctrnn, spelled as in Network; mlp: the network without memory, an MLP over the last
                   `window` steps (8) under the same readout, with as many weights as the gru, and a layer more.
    units, layers, dropout, reads, bidirectional, noise   as in SequenceNetwork; reads is last, mean, max, or last+max.
    frame, stride  the network reads the last `frame` steps side by side, every `stride` steps; 1 and 1 is step by step.
    credit         how the error goes back: a Credit or its spelling; default bptt, exact over each sequence. Any other
                   reads in one direction, so bidirectional=False, reads="last" and no noise are its defaults.
    updates, batch_size, learning_rate, weight_decay   of AdamW along a cosine.
    early_stopping   hold out the last validation_fraction (0.15) of the sequences of every class, in the order given,
                   so that what comes later in time is never learned from; stop after `patience` (10) evaluations
                   without a new lowest loss, and keep the weights that had it.
    class_weight   a dict, "balanced" or None.
    layout         the axes of a 3-D X: n sequences, t time, c features.
    unit, longest  of texts: auto, word or char, and how many steps are read of each, its first ones (see WordReader).
                   None: 2,000.

    None is a choice by the data, kept as recipe_. X is (N, T), univariate; (N, T, I), with `lengths` where sequences
    end early; a list or an object array of (T_i,) or (T_i, I); a long data frame; or a list of strings. A frame is
    long where a column is named unique_id, id, series, case and the like: a row is a step, the columns are found as by
    throughtime.data.labelled.from_long (a label, class or target is left out), and y is in the order in which the ids
    first appear. A sequence without a step is legal: it is answered by the shares of the classes in the training data.
    A prediction depends on the sequence alone, to the last bit on the native backend: not on its batch or padding.
    An update divides by the weights of its batch: where they differ by orders of magnitude, raise batch_size.

    After fit: classes_, net_, reader_, recipe_, records_ (one an update, as in a run), n_iter_ (updates), seen_ (the
    weight of every class so far), n_features_in_ of a 2-D X, notes_ (of fit: what was not read, a sentence).
    """

    def __init__(
        self,
        *,
        cell: str = "gru",
        units: int | None = None,
        layers: int | None = None,
        reads: str | None = None,
        bidirectional: bool | None = None,
        dropout: float | None = None,
        noise: float | None = None,
        frame: int | None = None,
        stride: int | None = None,
        window: int | None = None,
        credit: Credit | str | None = None,
        updates: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float | None = None,
        patience: int | None = None,
        class_weight: dict[Any, float] | str | None = None,
        layout: str = "ntc",
        unit: str = "auto",
        longest: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.units = units
        self.layers = layers
        self.reads = reads
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.noise = noise
        self.frame = frame
        self.stride = stride
        self.window = window
        self.credit = credit
        self.updates = updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.class_weight = class_weight
        self.layout = layout
        self.unit = unit
        self.longest = longest
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, lengths: ArrayLike | None = None
    ) -> SequenceClassifier:
        """Learn from sequences and their classes, at least two."""
        _needs_y(self, y)
        x = take(self, X, reset=True, layout=self.layout, lengths=lengths, features=None)
        labels = _labels(self, y, X, x)
        self.classes_, ids = np.unique(labels, return_inverse=True)
        if len(self.classes_) < 2:
            got = f"one class, {self.classes_.tolist()[0]!r}" if len(self.classes_) else "none"
            raise ValueError(f"y must have at least two classes; got {got}.")
        weight = take_weight(sample_weight, len(x)) * self._balance(labels, ids, sample_weight)
        self.seen_ = np.bincount(ids, weight, len(self.classes_)).astype(np.float64)
        fit_anew(self, x, ids, weight, outputs=len(self.classes_), loss="softmax", groups=ids)
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any,
        classes: ArrayLike | None = None,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        carry: bool = False,
    ) -> SequenceClassifier:
        """Go on learning: one pass over new sequences at a steady learning rate, after fit or from the start.

        classes   all there will be; needed in the first call unless fit came before. The first call also scales.
        carry     the rows of X are the next steps of the streams of the calls with carry before: each goes on from the
                  state in which it stood, its y is told at the last of these steps, and one update is made. Errors
                  go back as far as the steps of this call. For one direction; see predict_proba_steps.
        """
        _needs_y(self, y)
        first = not hasattr(self, "net_")
        if first and classes is None:
            raise ValueError("classes must be given in the first call of partial_fit: all labels there will be.")
        x = take(self, X, reset=first, layout=self.layout, lengths=lengths, features=_features(self))
        labels = _labels(self, y, X, x)
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight must be a dict for partial_fit, which has not seen all classes; got 'balanced'."
            )
        known = np.unique(np.asarray(classes)) if classes is not None else self.classes_
        if first:
            self.classes_, self.seen_ = known, np.zeros(len(known))
        elif not np.array_equal(known, self.classes_):
            raise ValueError(
                f"classes must be those of the first call, {self.classes_.tolist()}; got {known.tolist()}."
            )
        if not np.isin(labels, self.classes_).all():
            odd = labels[~np.isin(labels, self.classes_)].tolist()[0]
            raise ValueError(f"y must be one of the classes {self.classes_.tolist()}; got {odd!r}.")
        ids = np.searchsorted(self.classes_, labels)
        weight = take_weight(sample_weight, len(x)) * self._balance(labels, ids, sample_weight)
        if first:
            seen, _, weights = distinct(x, ids, weight)
            prepare(self, seen, weights, len(self.classes_), seed_of(self.random_state))
        go_on(self, x, ids, weight, loss="softmax", carry=carry)
        self.seen_ = self.seen_ + np.bincount(ids, weight, len(self.classes_))
        return self

    def predict_log_proba(self, X: Any, *, lengths: ArrayLike | None = None) -> Numbers:
        """(N, classes): ln p of every class, in the order of classes_."""
        check_is_fitted(self, "net_")
        x = take(self, X, reset=False, layout=self.layout, lengths=lengths, features=_features(self))
        found = answers(self.net_, self.reader_.read(x))
        with np.errstate(divide="ignore"):
            found[np.isnan(found[:, 0])] = np.log(self.seen_ / self.seen_.sum())
        return _log_softmax(found)

    def predict_proba(self, X: Any, *, lengths: ArrayLike | None = None) -> Numbers:
        """(N, classes): the probability of every class, in the order of classes_."""
        return np.exp(self.predict_log_proba(X, lengths=lengths))

    def predict(self, X: Any, *, lengths: ArrayLike | None = None) -> Array:
        """(N,): the most probable class."""
        places = self.predict_log_proba(X, lengths=lengths).argmax(1)
        return self.classes_[places]

    def score(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, lengths: ArrayLike | None = None
    ) -> float:
        """The share of the sequences whose class is predicted."""
        return float(accuracy_score(y, self.predict(X, lengths=lengths), sample_weight=sample_weight))

    def predict_proba_steps(self, X: Any, *, lengths: ArrayLike | None = None, carry: bool = False) -> list[Numbers]:
        """Of each sequence (T_i, classes): the probabilities after every step, or with a stride above 1 after every
        frame, the last one at the end. For one direction alone.

        carry: the rows go on from where partial_fit(carry=True) left them, which moves nothing.
        """
        check_is_fitted(self, "net_")
        check_streams(self, "predict_proba_steps")
        x = take(self, X, reset=False, layout=self.layout, lengths=lengths, features=_features(self))
        state = _state_of(self, x) if carry else None
        return [np.exp(_log_softmax(part)) for part in answers_by_step(self.net_, self.reader_.read(x), state)]

    def _balance(self, labels: Array, ids: Array, sample_weight: ArrayLike | None) -> Numbers:
        """The weight of each sequence by its class."""
        if self.class_weight is None:
            return np.ones(len(ids))
        if self.class_weight == "balanced":
            total = np.bincount(ids, take_weight(sample_weight, len(ids)), len(self.classes_))
            present = np.maximum(total, np.finfo(float).tiny)
            return (total.sum() / ((total > 0).sum() * present))[ids]
        return compute_class_weight(self.class_weight, classes=self.classes_, y=labels)[ids]


class SequenceRegressor(RegressorMixin, BaseEstimator):
    """A number, or several, about a whole sequence of numbers or a text, by a recurrent network.

    Targets are scaled to mean 0 and standard deviation 1 of the training data, and the loss is half their squared
    error. A sequence without a step is answered by the mean. Parameters and X as in SequenceClassifier; early stopping
    holds out the last sequences in the order given. y is (N,) or (N, outputs).

    After fit: net_, reader_, recipe_, records_, n_iter_, mean_ and scale_ of the targets, n_features_in_ of a 2-D X,
    notes_.
    """

    def __init__(
        self,
        *,
        cell: str = "gru",
        units: int | None = None,
        layers: int | None = None,
        reads: str | None = None,
        bidirectional: bool | None = None,
        dropout: float | None = None,
        noise: float | None = None,
        frame: int | None = None,
        stride: int | None = None,
        window: int | None = None,
        credit: Credit | str | None = None,
        updates: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float | None = None,
        patience: int | None = None,
        layout: str = "ntc",
        unit: str = "auto",
        longest: int | None = None,
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.units = units
        self.layers = layers
        self.reads = reads
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.noise = noise
        self.frame = frame
        self.stride = stride
        self.window = window
        self.credit = credit
        self.updates = updates
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.layout = layout
        self.unit = unit
        self.longest = longest
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.target_tags.multi_output = True
        tags.target_tags.single_output = True
        return tags

    def fit(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, lengths: ArrayLike | None = None
    ) -> SequenceRegressor:
        """Learn from sequences and their numbers."""
        _needs_y(self, y)
        x = take(self, X, reset=True, layout=self.layout, lengths=lengths, features=None)
        targets, weight = _targets(self, y, X, x), take_weight(sample_weight, len(x))
        self._scale(x, targets, weight)
        fit_anew(self, x, self._scaled(targets), weight, outputs=len(self.mean_), loss="squared", groups=None)
        return self

    def partial_fit(
        self,
        X: Any,
        y: Any,
        sample_weight: ArrayLike | None = None,
        *,
        lengths: ArrayLike | None = None,
        carry: bool = False,
    ) -> SequenceRegressor:
        """Go on learning, as SequenceClassifier.partial_fit; the first call scales the targets too."""
        _needs_y(self, y)
        first = not hasattr(self, "net_")
        x = take(self, X, reset=first, layout=self.layout, lengths=lengths, features=_features(self))
        targets, weight = _targets(self, y, X, x), take_weight(sample_weight, len(x))
        if first:
            self._scale(x, targets, weight)
            seen, _, weights = distinct(x, targets, weight)
            prepare(self, seen, weights, len(self.mean_), seed_of(self.random_state))
        elif targets.ndim != self.ndim_ or targets.reshape(len(x), -1).shape[1] != len(self.mean_):
            raise ValueError(f"y must be of {len(self.mean_)} outputs, as in the first call; got {targets.shape}.")
        go_on(self, x, self._scaled(targets), weight, loss="squared", carry=carry)
        return self

    def predict(self, X: Any, *, lengths: ArrayLike | None = None) -> Numbers:
        """(N,) or (N, outputs), as y was."""
        check_is_fitted(self, "net_")
        x = take(self, X, reset=False, layout=self.layout, lengths=lengths, features=_features(self))
        return self._unscaled(np.nan_to_num(answers(self.net_, self.reader_.read(x))))

    def score(
        self, X: Any, y: Any, sample_weight: ArrayLike | None = None, *, lengths: ArrayLike | None = None
    ) -> float:
        """R^2 of what is predicted."""
        return float(r2_score(y, self.predict(X, lengths=lengths), sample_weight=sample_weight))

    def predict_steps(self, X: Any, *, lengths: ArrayLike | None = None, carry: bool = False) -> list[Numbers]:
        """Of each sequence what is predicted after every step; as SequenceClassifier.predict_proba_steps."""
        check_is_fitted(self, "net_")
        check_streams(self, "predict_steps")
        x = take(self, X, reset=False, layout=self.layout, lengths=lengths, features=_features(self))
        state = _state_of(self, x) if carry else None
        return [self._unscaled(part) for part in answers_by_step(self.net_, self.reader_.read(x), state)]

    def _scale(self, x: list[Any], targets: Numbers, weight: Numbers) -> None:
        """Mean and standard deviation of every output, over different examples in an order of their own."""
        _, different, weights = distinct(x, targets, weight)
        share = weights / weights.sum()
        values = different.reshape(len(different), -1)
        self.ndim_, self.mean_ = targets.ndim, share @ values
        spread = np.sqrt(share @ (values - self.mean_) ** 2)
        self.scale_ = np.where(spread <= FLAT * np.abs(self.mean_), 0.0, spread)

    def _scaled(self, targets: Numbers) -> Numbers:
        return (targets.reshape(len(targets), -1) - self.mean_) / np.where(self.scale_ > 0, self.scale_, 1.0)

    def _unscaled(self, found: Numbers) -> Numbers:
        values = found * self.scale_ + self.mean_
        return values[:, 0] if self.ndim_ == 1 else values


def _needs_y(estimator: Any, y: Any) -> None:
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"This {name} estimator requires y to be passed, but the target y is None.")


def _labels(estimator: Any, y: Any, X: Any, x: list[Any]) -> Array:
    labels = column_or_1d(y, warn=True)
    _check_count(estimator, X, x, labels)
    check_classification_targets(labels)
    return labels


def _targets(estimator: Any, y: Any, X: Any, x: list[Any]) -> Numbers:
    targets = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    if targets.ndim > 2:
        raise ValueError(f"y must be (N,) or (N, outputs); got {targets.shape}.")
    _check_count(estimator, X, x, targets)
    return targets


def _check_count(estimator: Any, X: Any, x: list[Any], y: Array) -> None:
    """Raise ValueError unless there is a y of every sequence; with both shapes where another axis of X has as many."""
    shape = tuple(np.shape(X)) if hasattr(X, "shape") else ()
    layouts = [other for other in LAYOUTS if len(shape) == 3 and shape[other.index("n")] == len(y)]
    if len(x) != len(y) and layouts:
        n = estimator.layout.index("n")
        raise ValueError(
            f"y must be of the {len(x)} sequences that X {shape} has along axis {n}, by layout={estimator.layout!r}; "
            f"got {y.shape}. Axis {layouts[0].index('n')} has as many: is it layout={' or '.join(map(repr, layouts))}?"
        )
    if len(x) != len(y) and len(shape) == 2 and shape[0] == len(y):
        raise ValueError(
            f"y must be one for each of the {len(x)} sequences of the long frame, in the order in which their ids "
            f"first appear; got one for each of its {len(y)} rows. Keep the first of each id."
        )
    check_consistent_length(x, y)


def _features(estimator: Any) -> int | None:
    """The features of a step that the estimator was fitted to."""
    return estimator.reader_.features if hasattr(estimator, "reader_") and not estimator.reader_.ids else None


def _state_of(estimator: Any, x: list[Any]) -> Any:
    if not hasattr(estimator, "state_"):
        raise ValueError("carry must come after partial_fit with carry=True; no stream has begun.")
    if len(x) != estimator.rows_:
        raise ValueError(f"X must be the next steps of the same {estimator.rows_} streams; got {len(x)}.")
    return estimator.state_


def _log_softmax(logits: Numbers) -> Numbers:
    shifted = logits - logits.max(1, keepdims=True) if len(logits) else logits
    return shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
