"""Which tokens there are, and the way from text to their ids and back."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Unit = Literal["char", "byte", "word"]
UNITS: tuple[str, ...] = get_args(Unit)
UNKNOWN = "<unk>"
VERSION = 1

# A word (inner apostrophes and hyphens belong to it: don't, to-night), a line break, a run of hyphens or of
# full stops, or any other single character that is not white space. Other white space only separates.
WORD = re.compile(r"\w+(?:['’-]\w+)*|\n|-{2,}|\.{2,}|[^\w\s]")

_NO_SPACE_BEFORE = re.compile(r"[.,;:!?)\]}%’”»…—–\n]|-+|\.{2,}")
_NO_SPACE_AFTER = re.compile(r"[(\[{$£€#@'‘“«—–\n]|-+")
_BYTES = tuple(chr(value) if 32 <= value < 127 else f"\\x{value:02x}" for value in range(256))


def words(text: str) -> list[str]:
    """The word tokens of a text, by the one pattern WORD."""
    return WORD.findall(text)


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a text, each with its place in `tokens` as id.

    unit    "char", "byte" or "word".
    tokens  char and word: id 0 is <unk>, all that the training part did not show (often enough).
            byte: the 256 byte values, always, shown as themselves where they print and as \\x.. where not.
    """

    unit: Unit
    tokens: tuple[str, ...] = _BYTES

    def __post_init__(self) -> None:
        if self.unit not in UNITS:
            raise ValueError(f"unit must be char, byte or word; got {self.unit!r}.")
        if self.unit == "byte":
            if self.tokens != _BYTES:
                raise ValueError("tokens of a byte vocabulary must be the 256 byte values. Leave them out.")
        elif not self.tokens or self.tokens[0] != UNKNOWN or len(set(self.tokens)) != len(self.tokens):
            raise ValueError(f"tokens must begin with {UNKNOWN} and be distinct; got {self.tokens[:3]} ...")
        elif self.unit == "char" and any(len(token) != 1 for token in self.tokens[1:]):
            raise ValueError("tokens of a char vocabulary must be single characters.")

    @classmethod
    def of(
        cls, unit: Unit, counts: Mapping[str, int], *, least: int = 2, most: int | None = None
    ) -> Vocabulary:
        """The vocabulary of a text whose tokens were counted.

        Characters are sorted by code point. Words are sorted by falling frequency (equals by code point);
        those seen fewer than `least` times are <unk>, and `most`, where given, is the greatest size, <unk>
        included. Both are for words alone.
        """
        if unit == "byte":
            return cls(unit)
        if unit == "char":
            return cls(unit, (UNKNOWN, *sorted(token for token, count in counts.items() if count > 0)))
        kept = sorted((-count, token) for token, count in counts.items() if count >= max(least, 1))
        return cls(unit, (UNKNOWN, *(token for _, token in kept[: None if most is None else most - 1])))

    @property
    def size(self) -> int:
        return len(self.tokens)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The smallest unsigned type that holds every id."""
        return np.dtype(np.min_scalar_type(self.size - 1))

    def encode(self, text: str | bytes) -> NDArray[np.int64]:
        """The ids (N,) of a text; what the vocabulary does not hold becomes 0, <unk>."""
        return self.lookup(text).astype(np.int64)

    def lookup(self, text: str | bytes) -> NDArray[Any]:
        """As encode, in the smallest dtype. Bytes are for the unit byte alone; a str is its UTF-8 there."""
        if self.unit == "byte":
            raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
            return np.frombuffer(raw, np.uint8)
        if not isinstance(text, str):
            raise TypeError(f"text must be a str for the unit {self.unit}; got {type(text).__name__}.")
        if self.unit == "char":
            table = self._table
            return table[np.minimum(code_points(text), len(table) - 1)]
        ids = self._ids
        return np.array([ids.get(word, 0) for word in words(text)], self.dtype)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids. <unk> is "<unk>" among words and U+FFFD among characters, as is broken UTF-8."""
        return "".join(self.pieces(ids))

    def pieces(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of ids one at a time, as a sampler prints it: joined, the pieces are decode(ids).

        Words are set with a space between them, but none before closing marks, none after opening ones and
        none around dashes and line breaks. A straight single quote is taken as an elision ('tis), a double
        one as opening and closing in turn, so the spacing of the original is not always found again.
        Raises ValueError for an id outside the vocabulary.
        """
        if self.unit == "byte":
            return self._byte_pieces(self._checked(ids))
        if self.unit == "char":
            return ("\ufffd" if id == 0 else self.tokens[id] for id in self._checked(ids))
        return _spaced(self.tokens[id] for id in self._checked(ids))

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, "unit": self.unit, "tokens": self.tokens}, ensure_ascii=True)

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """The vocabulary that to_json wrote. Raises ValueError when it is damaged or from a newer version."""
        try:
            saved = json.loads(text)
            version, unit, tokens = saved["version"], saved["unit"], tuple(saved["tokens"])
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"vocabulary must be JSON of version, unit, tokens; it is damaged ({error})."
            ) from None
        if version != VERSION:
            raise ValueError(f"vocabulary must be of version {VERSION}; got {version}. Update the library.")
        if not all(isinstance(token, str) for token in tokens):
            raise ValueError("vocabulary must have strings as tokens; it is damaged.")
        return cls(unit, tokens)

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: id for id, token in enumerate(self.tokens)}

    @cached_property
    def _table(self) -> NDArray[Any]:
        """Id by code point; the last place, one past the highest code point known, is <unk>."""
        codes = code_points("".join(self.tokens[1:]))
        table = np.zeros(int(codes.max(initial=0)) + 2, self.dtype)
        table[codes] = np.arange(1, self.size)
        return table

    def _checked(self, ids: Iterable[int]) -> Iterator[int]:
        for id in ids:
            id = int(id)
            if not 0 <= id < self.size:
                raise ValueError(f"ids must lie in [0, {self.size}); got {id}.")
            yield id

    @staticmethod
    def _byte_pieces(ids: Iterator[int]) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for id in ids:
            yield decoder.decode(id.to_bytes(1, "big"))
        yield decoder.decode(b"", final=True)


def code_points(text: str) -> NDArray[np.uint32]:
    """The code points (N,) of a text; lone surrogates are allowed."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _spaced(tokens: Iterator[str]) -> Iterator[str]:
    glued, quoted = True, False
    for token in tokens:
        closing = token == '"' and quoted
        quoted = (token == '"') != quoted and token != "\n"
        space = "" if glued or closing or _NO_SPACE_BEFORE.fullmatch(token) else " "
        glued = bool(_NO_SPACE_AFTER.fullmatch(token)) or (token == '"' and quoted)
        yield space + token
