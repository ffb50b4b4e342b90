"""What a network on texts must beat: a logistic regression on words and pairs of words, weighted by TF-IDF."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

WORD = r"(?u)\b\w+\b"
"""Single letters are words here: scikit-learn's own pattern drops them."""


class WordBaseline:
    """TF-IDF of words and pairs of words (1 + ln counts), then logistic regression with C = 10.

    Texts without a single word are read by their characters, up to 4 in a row. One class alone is always answered.
    """

    def fit(self, texts: Sequence[str], labels: ArrayLike, weight: ArrayLike | None = None) -> WordBaseline:
        """Learn from texts, their labels and their weights; returns self."""
        y = np.asarray(labels)
        self.classes_ = np.unique(y)
        self.vectors_ = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=WORD)
        try:
            rows = self.vectors_.fit_transform(texts)
        except ValueError:  # no word in any text
            self.vectors_ = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 4), analyzer="char", lowercase=False)
            try:
                rows = self.vectors_.fit_transform(texts)
            except ValueError:
                raise ValueError("texts must have a text that is not empty; got none to learn from.") from None
        self.model_ = None
        if len(self.classes_) > 1:
            self.model_ = LogisticRegression(C=10.0, max_iter=2000).fit(rows, y, weight)
        return self

    def predict(self, texts: Sequence[str]) -> NDArray[Any]:
        """The most probable label of each text."""
        return self.classes_[self.predict_proba(texts).argmax(1)]

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(N, classes): the probability of each label, in the order of classes_."""
        if self.model_ is None:
            return np.ones((len(texts), 1))
        return self.model_.predict_proba(self.vectors_.transform(texts))
