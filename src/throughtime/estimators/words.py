"""Words as ids, each with the ids of its parts, so that a word never seen before is still read by what it is made of.

The features of a token are the token itself, where it was seen in `least` examples, its shape (`Xx`, `x0`, `_x`), and
the n-grams of 2 to 4 characters of `^token$` in lower case, where they were seen in `least` different tokens
(Bojanowski et al. 2017, with a vocabulary in place of their hashing). Of a token of more than 2 ENDS characters (an
address, a string in a source) they are those of its first ENDS and its last ENDS. The input of a step is the mean of
their vectors.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from throughtime.data.vocabulary import words

Ids = NDArray[np.int32]
Text = str | Sequence[str]

UNITS = ("auto", "word", "char")
PAD, UNKNOWN = 0, 1
"""The id of no feature, and that of a token which was not seen often enough."""
GRAMS = (2, 3, 4)
ENDS = 8
"""Characters at either end of a token whose n-grams are read."""
FEW = 3
"""Words in the median text below which its characters are read."""
LONG = 12
"""Characters in the mean word above which characters are read: text without spaces between its words."""

_RUNS = re.compile(r"(.)\1+")


@dataclass(eq=False)
class WordReader:
    """What texts, or sentences of tokens, are as ids.

    unit      word, char; auto: characters where the median text has fewer than FEW words or words have more than LONG
              characters (names, codes, text without spaces), else words. Of lists of tokens it must be auto.
    least     examples in which a token must stand to have an id of its own, counting equal examples once.
    most      the greatest number of tokens, and of n-grams, that get one; the most frequent do.
    longest   steps of a text that are read, its first ones. None: all.

    After fit: `tokens` and `grams`, in the order of their ids; `chosen`, the unit: token, word or char.
    """

    unit: str = "auto"
    least: int = 2
    most: int = 30_000
    longest: int | None = None
    chosen: str = field(default="", init=False)
    tokens: tuple[str, ...] = field(default=(), init=False, repr=False)
    grams: tuple[str, ...] = field(default=(), init=False, repr=False)

    ids = True

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be {', '.join(UNITS)}; got {self.unit!r}.")
        if self.least < 1 or self.most < 1:
            raise ValueError(f"least and most must be at least 1; got {self.least} and {self.most}.")
        if self.longest is not None and self.longest < 1:
            raise ValueError(f"longest must be at least 1 step, or None for all; got {self.longest}.")

    def fit(self, texts: Sequence[Text], weight: ArrayLike | None = None) -> WordReader:
        """Learn the tokens and n-grams of the texts whose weight is above 0; returns self."""
        checked = check_texts(texts)
        if weight is not None:
            checked = [text for text, w in zip(checked, np.asarray(weight), strict=True) if w > 0]
        different = [text for text in dict.fromkeys(t if isinstance(t, str) else tuple(t) for t in checked) if text]
        self.__dict__.pop("_ids", None)
        self.chosen = self._choose(different)
        counts: Counter[str] = Counter()
        for text in different:
            counts.update(set(self.split(text)))
        self.tokens = _frequent(counts, self.least, self.most)
        parts: Counter[str] = Counter()
        if self.chosen != "char":
            for token in counts:
                parts.update(set(parts_of(token)))
        self.grams = _frequent(parts, self.least, self.most)
        return self

    def _choose(self, texts: Sequence[Text]) -> str:
        if texts and not isinstance(texts[0], str):
            if self.unit != "auto":
                raise ValueError(f"unit must be auto for lists of tokens, which are split already; got {self.unit!r}.")
            return "token"
        if self.unit != "auto":
            return self.unit
        found = [words(text) for text in texts if isinstance(text, str)]
        counts = [len(tokens) for tokens in found]
        characters = sum(len(token) for tokens in found for token in tokens)
        few = not counts or float(np.median(counts)) < FEW
        return "char" if few or characters > LONG * sum(counts) else "word"

    @property
    def inputs(self) -> int:
        """How many ids there are, that of no feature and that of unknown tokens included."""
        return 2 + len(self.tokens) + len(self.grams)

    @property
    def known(self) -> int:
        """Ids below this are tokens, the others parts of tokens."""
        return 2 + len(self.tokens)

    def split(self, text: Text) -> list[str]:
        """The tokens of a text, as far as they are read."""
        if (self.chosen == "token") == isinstance(text, str):
            wanted = "lists of tokens" if self.chosen == "token" else "strings"
            raise TypeError(f"X must be {wanted}, as in fit; got {type(text).__name__}.")
        found = words(text) if self.chosen == "word" and isinstance(text, str) else list(text)
        return found[: self.longest]

    def read(self, texts: Sequence[Text]) -> list[Ids]:
        """Of each text its ids: (T,) characters, or (T, F): the token's id, then those of its parts, then 0."""
        split = [self.split(text) for text in check_texts(texts)]
        if self.chosen == "char":
            ids = self._ids[0]
            return [np.array([ids.get(token, UNKNOWN) for token in tokens], np.int32) for tokens in split]
        rows = {token: self._features(token) for token in dict.fromkeys(t for tokens in split for t in tokens)}
        width = max(map(len, rows.values()), default=1)
        table = np.zeros((len(rows), width), np.int32)
        for place, row in enumerate(rows.values()):
            table[place, : len(row)] = row
        places = {token: place for place, token in enumerate(rows)}
        return [table[[places[token] for token in tokens]] if tokens else table[:0] for tokens in split]

    def cut(self, texts: Sequence[Text]) -> int:
        """How many of the texts are longer than is read."""
        if self.longest is None:
            return 0
        whole = WordReader.__new__(WordReader)
        whole.__dict__.update({**self.__dict__, "longest": None})
        return sum(len(text) > self.longest and len(whole.split(text)) > self.longest for text in texts)

    def notes(self, texts: Sequence[Text]) -> tuple[str, ...]:
        """A sentence on the texts of which only the beginning is read; none where all are read whole."""
        cut = self.cut(texts)
        what = {"char": "characters", "word": "words", "token": "tokens"}[self.chosen]
        verb = "is" if cut == 1 else "are"
        if not cut:
            return ()
        bound = f"{self.longest:,}"
        return (f"{cut:,} of {len(texts):,} texts {verb} longer than {bound} {what}; the first {bound} are read.",)

    def _features(self, token: str) -> list[int]:
        ids, grams = self._ids
        return [ids.get(token, UNKNOWN), *(grams[part] for part in parts_of(token) if part in grams)]

    @cached_property
    def _ids(self) -> tuple[dict[str, int], dict[str, int]]:
        tokens = {token: place for place, token in enumerate(self.tokens, start=2)}
        return tokens, {gram: place for place, gram in enumerate(self.grams, start=self.known)}


def shape_of(token: str) -> str:
    """What kinds of characters follow each other: X upper case, x other letters, 0 digits, all others themselves."""
    ends = token if len(token) <= 2 * ENDS else token[:ENDS] + token[-ENDS:]
    kinds = "".join("X" if c.isupper() else "x" if c.isalpha() else "0" if c.isdigit() else c for c in ends)
    return _RUNS.sub(r"\1", kinds)


def parts_of(token: str) -> Iterator[str]:
    """The shape of a token, after a space, and the n-grams of ^token$."""
    yield " " + shape_of(token)
    marked = f"^{token.lower()}$" if len(token) <= 2 * ENDS else ""
    for piece in (marked,) if marked else (f"^{token[:ENDS].lower()}", f"{token[-ENDS:].lower()}$"):
        for n in GRAMS:
            for start in range(len(piece) - n + 1):
                yield piece[start : start + n]


def check_texts(texts: Any, name: str = "X") -> list[Text]:
    """The texts, all of them strings or all of them lists of strings. Raises TypeError for others."""
    if isinstance(texts, (str, bytes)) or not hasattr(texts, "__len__") or not hasattr(texts, "__iter__"):
        raise TypeError(f"{name} must be a list of texts; got {type(texts).__name__}. Of one text it is [text].")
    found: list[Text] = []
    for place, text in enumerate(texts):
        if isinstance(text, str):
            found.append(str(text))
            continue
        if not isinstance(text, (list, tuple, np.ndarray)) or not all(isinstance(token, str) for token in text):
            odd = next((token for token in text if not isinstance(token, str)), text) if _iterable(text) else text
            raise TypeError(
                f"{name} must be strings, or lists of strings; got {type(odd).__name__} in {name}[{place}]."
            )
        found.append([str(token) for token in text])
    if len({isinstance(text, str) for text in found}) > 1:
        raise TypeError(f"{name} must be all strings or all lists of strings; got a mixture.")
    return found


def _iterable(value: Any) -> bool:
    return hasattr(value, "__iter__")


def _frequent(counts: Counter[str], least: int, most: int) -> tuple[str, ...]:
    """Those counted at least so often, the most frequent first, equals by code point."""
    kept = sorted((-count, token) for token, count in counts.items() if count >= least)
    return tuple(token for _, token in kept[:most])
