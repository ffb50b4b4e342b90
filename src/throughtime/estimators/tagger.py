"""SequenceTagger: a tag for every step of a sequence, of tokens or of numbers, by scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from throughtime.credit import Credit
from throughtime.estimators.answering import advance, answers_by_step
from throughtime.estimators.fitting import check_streams
from throughtime.estimators.steps import (
    class_weights,
    learn_anew,
    learn_on,
    log_softmax,
    start,
    take_steps,
    take_tags,
    take_weights,
)
from throughtime.state import State, flatten

Array = NDArray[Any]
Objects = NDArray[np.object_]


class SequenceTagger(BaseEstimator):
    """A tag for every step, by a recurrent network that reads each sequence in both directions.

    X is a list (or an object array) of sentences, each a list of strings, or of frames (T_i, I) of numbers; a 3-D array
    of frames too. y is a list of as many sequences of tags, strings or whole numbers, of the same lengths. An empty
    sequence is legal. Tokens are read by themselves and by their parts (see WordReader), so a token never seen before
    is read by what it is made of.

    cell           gru, lstm, elman, ctrnn, spelled as in Network; mlp: the network without memory, an MLP over the last
                   `window` steps, with as many weights as the network of two directions of gru.
    units, layers, dropout   as in SequenceNetwork. None: 64, 1 and 0.3.
    bidirectional  whether the steps that follow are read too. None: yes, but not with the cell mlp, nor with a credit
                   that cuts time, where there is no future.
    least          sentences in which a token must stand to be told from others that are unknown.
    longest        a longer sequence is learned in pieces of so many steps, and always predicted whole. None: 512.
    credit         how the error goes back: a Credit or its spelling; default bptt, exact over each sequence or piece.
                   Where a credit needs a plain Network (rtrl, snap, rflo, uoro, parallel, adaptive), tokens are read
                   without their parts.
    updates, batch_size, learning_rate, weight_decay   of AdamW along a cosine. None: by the data, kept as recipe_.
    early_stopping hold out the last validation_fraction (0.15) of the sequences, in the order given; stop after
                   `patience` (10) evaluations without a new lowest loss, and keep the weights that had it.
    class_weight   a dict of weights by tag, "balanced" or None.
    layout         the axes of a 3-D X: n sequences, t time, c features.
    random_state   None, a whole number or a RandomState.

    It is no classifier in scikit-learn's sense, which is one answer a sequence: cross-validation does not stratify.
    After fit: classes_ (the tags, sorted), net_, reader_, recipe_, credit_, records_ (one an update), n_iter_, notes_
    (what was done to the data, a sentence each).
    """

    def __init__(
        self,
        *,
        cell: str = "gru",
        units: int | None = None,
        layers: int | None = None,
        bidirectional: bool | None = None,
        dropout: float | None = None,
        window: int | None = None,
        least: int = 2,
        longest: int | None = None,
        credit: Credit | str | None = None,
        updates: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        early_stopping: bool = False,
        validation_fraction: float | None = None,
        patience: int | None = None,
        class_weight: Any = None,
        layout: str = "ntc",
        random_state: Any = None,
    ) -> None:
        self.cell = cell
        self.units = units
        self.layers = layers
        self.bidirectional = bidirectional
        self.dropout = dropout
        self.window = window
        self.least = least
        self.longest = longest
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
        self.random_state = random_state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        tags.target_tags.one_d_labels = False
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequenceTagger:
        """Learn from sequences and their tags. sample_weight: a number a sequence, or a sequence of numbers each."""
        x = take_steps(X, layout=self.layout)
        tags = take_tags(y, x)
        weight = take_weights(sample_weight, x)
        counted = [row[w > 0] for row, w in zip(tags, weight, strict=True) if w.any()]
        if not counted:
            raise ValueError("X must have a sequence with a step and a weight above 0; got none to learn from.")
        self.classes_ = np.unique(np.concatenate(counted))
        self.notes_: tuple[str, ...] = ()
        ids, weight = self._coded(tags, weight, strict=False)
        learn_anew(self, x, ids, weight)
        return self

    def partial_fit(
        self, X: Any, y: Any, classes: ArrayLike | None = None, sample_weight: Any = None, *, carry: bool = False
    ) -> SequenceTagger:
        """Go on learning: one pass over new sequences at a steady rate, after fit or from the start.

        classes  all tags there will be; needed in the first call unless fit came before. The first call also decides
                 which tokens are known.
        carry    the rows of X are the next steps of the streams of the calls with carry before; one update is made, and
                 errors go back as far as the steps of this call. For one direction.
        """
        first = not hasattr(self, "net_")
        if first and classes is None:
            raise ValueError("classes must be given in the first call of partial_fit: all tags there will be.")
        x = self._taken(X)
        tags, weight = take_tags(y, x), take_weights(sample_weight, x)
        known = self.classes_ if classes is None else np.unique(np.asarray(classes))
        if first:
            self.classes_, self.notes_ = known, ()
        elif not np.array_equal(known, self.classes_):
            raise ValueError(f"classes must be those of before, {self.classes_.tolist()}; got {known.tolist()}.")
        if self.class_weight == "balanced":
            raise ValueError(
                "class_weight must be a dict for partial_fit, which has not seen all tags; got 'balanced'."
            )
        ids, weight = self._coded(tags, weight, strict=True)
        if first:
            start(self, x, weight)
        learn_on(self, x, ids, weight, carry=carry)
        return self

    def predict_log_proba(self, X: Any) -> Objects:
        """Of each sequence (T_i, tags): ln p of every tag at every step, in the order of classes_."""
        check_is_fitted(self, "net_")
        return objects([log_softmax(part) for part in answers_by_step(self.net_, self._read(self._taken(X)))])

    def predict_proba(self, X: Any) -> Objects:
        """Of each sequence (T_i, tags): the probability of every tag at every step, in the order of classes_."""
        return objects([np.exp(part) for part in self.predict_log_proba(X)])

    def predict(self, X: Any) -> Objects:
        """Of each sequence its most probable tags (T_i,)."""
        return self._tags(self.predict_log_proba(X))

    def predict_on(self, X: Any, state: State = None) -> tuple[Objects, State]:
        """The tags of the next steps of streams, and the state to hand to the next call; None starts them anew.

        For one direction alone. What is predicted in many calls is what `predict` says of the whole.
        """
        check_is_fitted(self, "net_")
        check_streams(self, "predict_on")
        x = self._read(self._taken(X))
        rows = {part.shape[-2] for part in flatten(state)[1].values()}
        if rows - {len(x)}:
            raise ValueError(f"X must be the next steps of the same {rows.pop()} streams; got {len(x)}.")
        return self._tags(answers_by_step(self.net_, x, state)), advance(self.net_, x, state)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of steps that are tagged right, weighted."""
        x = self._taken(X)
        tags, weight = take_tags(y, x), take_weights(sample_weight, x)
        total = sum(float(w.sum()) for w in weight)
        if not total:
            raise ValueError("X must have a step with a weight above 0; got none to score on.")
        right = zip(self.predict(X), tags, weight, strict=True)
        return sum(float(w[found == wanted].sum()) for found, wanted, w in right) / total

    def _taken(self, X: Any) -> list[Any]:
        x = take_steps(X, layout=self.layout)
        if hasattr(self, "reader_") and any(map(len, x)):
            is_text = isinstance(next(s for s in x if len(s))[0], str)
            if is_text != self.reader_.ids:
                wanted, got = ("tokens", "numbers") if self.reader_.ids else ("numbers", "tokens")
                raise TypeError(f"X must be sequences of {wanted}, as in fit; got {got}.")
            width = None if is_text else self.reader_.inputs
            odd = next((s.shape for s in x if width is not None and len(s) and s.shape[1] != width), None)
            if odd is not None:
                raise ValueError(f"X must be sequences (T, {width}), as in fit; got {odd}.")
        return x

    def _read(self, x: Sequence[Any]) -> list[Array]:
        """What the network reads of sequences; where it has no place for the parts of tokens, their own ids."""
        found = self.reader_.read(x)
        return [ids[:, 0] for ids in found] if self.reader_.ids and not self.parts_ else found

    def _tags(self, scores: Iterable[Array]) -> Objects:
        return objects([self.classes_[part.argmax(1)] for part in scores])

    def _coded(self, tags: list[Array], weight: list[Array], *, strict: bool) -> tuple[list[Array], list[Array]]:
        """Tags as places in classes_, and weights by tag; a tag of weight 0 may be unknown unless strict."""
        for row, w in zip(tags, weight, strict=True):
            odd = row[~np.isin(row, self.classes_) & ((w > 0) | strict)]
            if len(odd):
                raise ValueError(f"y must be of the tags {self.classes_.tolist()}; got {odd[0]!r}.")
        most = len(self.classes_) - 1
        ids = [
            np.where(w > 0, np.searchsorted(self.classes_, row).clip(0, most), 0) if len(row) else np.zeros(0, np.int64)
            for row, w in zip(tags, weight, strict=True)
        ]
        factor = class_weights(self.class_weight, self.classes_, ids, weight)
        return ids, [w * factor[row] for row, w in zip(ids, weight, strict=True)]


def objects(parts: Sequence[Any]) -> Objects:
    """An object array (N,) with an array in each place, whatever their lengths."""
    found = np.empty(len(parts), object)
    for place, part in enumerate(parts):
        found[place] = part
    return found
