"""What a tagger must beat: the usual tag of each token, and a logistic regression over a window of tokens."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction import FeatureHasher
from sklearn.linear_model import SGDClassifier

SUFFIX = 3
"""The longest end of an unknown token that is looked up."""
Tokens = Sequence[Sequence[str]]
Tags = Sequence[Sequence[Any]]


class UsualTag:
    """The tag that a token had most often; of an unknown token that of its longest known ending, up to SUFFIX
    characters; equals go to the tag that sorts first."""

    def fit(self, sentences: Tokens, tags: Tags) -> UsualTag:
        """Count the tags of tokens and of their endings; returns self."""
        counts: dict[str, Counter[Any]] = defaultdict(Counter)
        for sentence, row in zip(sentences, tags, strict=True):
            for token, tag in zip(sentence, row, strict=True):
                counts["=" + token][tag] += 1
                for end in range(SUFFIX + 1):
                    if end <= len(token):
                        counts["-" + token[len(token) - end :]][tag] += 1
        if not counts:
            raise ValueError("sentences must have a token; got none to learn from.")
        self.usual_ = {key: _usual(found) for key, found in counts.items()}
        return self

    def predict(self, sentences: Tokens) -> list[NDArray[Any]]:
        """Of each sentence its tags."""
        return [np.array([self._tag(token) for token in sentence]) for sentence in sentences]

    def _tag(self, token: str) -> Any:
        keys = ["=" + token, *("-" + token[len(token) - end :] for end in range(min(SUFFIX, len(token)), -1, -1))]
        return next(self.usual_[key] for key in keys if key in self.usual_)


def _usual(counts: Counter[Any]) -> Any:
    return min(counts, key=lambda tag: (-counts[tag], str(tag)))


class WindowedTag:
    """Logistic regression, by stochastic gradient descent, over the tokens at -2 .. 2, their ends and their shapes."""

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, sentences: Tokens, tags: Tags) -> WindowedTag:
        """Learn from sentences and their tags; returns self."""
        y = np.array([tag for row in tags for tag in row])
        self.classes_ = np.unique(y)
        self.hash_ = FeatureHasher(2**18, input_type="string")
        self.model_ = None
        if len(self.classes_) > 1:
            rows = self.hash_.transform(_windows(sentences))
            self.model_ = SGDClassifier(loss="log_loss", alpha=1e-6, random_state=self.seed).fit(rows, y)
        return self

    def predict(self, sentences: Tokens) -> list[NDArray[Any]]:
        """Of each sentence its tags."""
        lengths = [len(sentence) for sentence in sentences]
        if not sum(lengths):
            return [self.classes_[:0] for _ in lengths]
        if self.model_ is None:
            return [np.repeat(self.classes_, length) for length in lengths]
        found = self.model_.predict(self.hash_.transform(_windows(sentences)))
        return np.split(found, np.cumsum(lengths)[:-1])


def _windows(sentences: Tokens) -> Iterator[list[str]]:
    for sentence in sentences:
        for place in range(len(sentence)):
            yield [
                f"{lag}{kind}{part}"
                for lag in range(-2, 3)
                for kind, part in _looks(sentence[place + lag] if 0 <= place + lag < len(sentence) else None)
            ]


def _looks(token: str | None) -> Iterator[tuple[str, str]]:
    if token is None:
        yield "outside", ""
        return
    yield "is", token
    yield "ends", token[-3:]
    yield "begins", token[:2]
    yield "shape", "".join("X" if c.isupper() else "x" if c.isalpha() else "0" if c.isdigit() else c for c in token[:6])
