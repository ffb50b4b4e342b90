"""A corpus of characters, bytes or words: read in blocks, split by position, cut into streams that go on."""

from __future__ import annotations

import hashlib
import tempfile
import weakref
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from throughtime.chunk import Chunk
from throughtime.data.reading import Files, Paths, String, whole_words
from throughtime.data.split import PARTS, Split, borders_of, check_split, spell_split
from throughtime.data.streams import Streams
from throughtime.data.vocabulary import UNITS, Unit, Vocabulary, code_points, words

LARGE = 256 << 20
"""Bytes of text above which memory_map="auto" keeps the ids in a file."""


class Text:
    """The ids of a corpus, in a training, a validation and a test part.

    source      a path to a file, to a folder (all *.txt files below it, sorted), or a sequence of paths;
                `files` says which files were read. For a string in hand use Text.of("machine").
    unit        "char" (the default), "byte" or "word"; see vocabulary.WORD for what a word is.
    split       fractions of the tokens by position (train, validation, test); None: all is the training part.
    vocabulary  one from another text, whose unit counts. None: made from the training part alone.
    least       words seen fewer times than this in the training part are <unk>.
    most        the greatest size of a vocabulary of words, <unk> included. None: no bound.
    memory_map  True keeps the ids in a temporary file, removed when the object dies; "auto": above 256 MiB.

    The files are read twice, to count and to encode, and the validation and test parts once more in between,
    a block at a time. Raises FileNotFoundError for a missing file and ValueError for text that is empty,
    binary, not UTF-8 or too short for the split.
    """

    def __init__(
        self,
        source: Paths | String,
        *,
        unit: Unit | None = None,
        split: Split | None = (0.9, 0.05, 0.05),
        vocabulary: Vocabulary | None = None,
        least: int = 2,
        most: int | None = None,
        memory_map: bool | Literal["auto"] = "auto",
    ) -> None:
        self.unit: Unit = _unit(unit, vocabulary)
        _check_words_only(self.unit, vocabulary, least, most)
        self.split = None if split is None else check_split(split)
        self._source = source if isinstance(source, String) else Files.at(source)
        self._bounds = {} if self.unit != "word" or vocabulary is not None else {"least": least, "most": most}
        total = None
        if vocabulary is None:
            counts, total = self._count()
            vocabulary = Vocabulary.of(self.unit, counts, least=least, most=most)
        self.vocabulary = vocabulary
        self.ids, characters = self._encoded(
            self._source.size > LARGE if memory_map == "auto" else memory_map
        )
        tokens = len(self.ids)
        if total is not None and tokens != total:
            raise ValueError(f"source must not change while it is read; {self._source.name} did. Try again.")
        if not tokens:
            raise ValueError(f"source must not be empty; {self._source.name} holds no {self.unit}.")
        self.characters_per_token = characters / tokens
        self._borders = self._checked_borders()

    @classmethod
    def of(
        cls,
        text: str,
        *,
        unit: Unit | None = None,
        split: Split | None = (0.9, 0.05, 0.05),
        vocabulary: Vocabulary | None = None,
        least: int = 2,
        most: int | None = None,
    ) -> Text:
        """The Text of a string in hand."""
        source = String(text)
        return cls(
            source, unit=unit, split=split, vocabulary=vocabulary, least=least, most=most, memory_map=False
        )

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were read, in order; none for a string in hand."""
        return self._source.paths

    @property
    def size(self) -> int:
        """How many different ids there are, <unk> included."""
        return self.vocabulary.size

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of all ids: whether a corpus is still the one that a run was trained on."""
        return hashlib.sha256(self.ids.data).hexdigest()

    def part(self, name: str = "train") -> NDArray[Any]:
        """The ids (N,) of the part "train", "validation" or "test": a view, in the smallest dtype."""
        if name not in PARTS:
            raise ValueError(f"part must be train, validation or test; got {name!r}.")
        place = PARTS.index(name)
        return self.ids[self._borders[place] : self._borders[place + 1]]

    def chunks(self, streams: int, steps: int, part: str = "train") -> Chunks:
        """The part as chunks of `steps` steps of `streams` contiguous streams."""
        return Chunks(self, streams=streams, steps=steps, part=part)

    def encode(self, text: str) -> NDArray[np.int64]:
        return self.vocabulary.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        return self.vocabulary.decode(ids)

    def describe(self) -> dict[str, Any]:
        """Plain values for a config file: the source (paths as given), unit, split, least, most."""
        bounds = {name: value for name, value in self._bounds.items() if value is not None}
        return {**self._source.describe(), "unit": self.unit, "split": spell_split(self.split), **bounds}

    def _blocks(self) -> Iterator[Any]:
        if self.unit == "byte":
            return self._source.raw()
        characters = self._source.characters()
        return whole_words(characters) if self.unit == "word" else iter(characters)

    def _count(self) -> tuple[Counter[str], int]:
        """How often each token stands in the training part, and how many tokens there are in all."""
        if self.unit == "byte":
            return Counter(), sum(map(len, self._blocks()))
        counts: Counter[str] = Counter()
        lengths = []
        for block in self._blocks():
            tokens = self._tokens(block)
            counts.update(_tally(tokens))
            lengths.append(len(tokens))
        ends = list(accumulate(lengths))
        total = ends[-1] if ends else 0
        border = borders_of(self.split, total)[1]
        if border < total:
            for block, length, end in zip(self._blocks(), lengths, ends, strict=False):
                if end > border:
                    counts.subtract(_tally(self._tokens(block)[max(0, border - end + length) :]))
        return counts, total

    def _tokens(self, block: str) -> Sequence[str]:
        return words(block) if self.unit == "word" else block

    def _encoded(self, memory_map: bool) -> tuple[NDArray[Any], int]:
        """The ids of the whole source, and how many characters it has."""
        characters = 0

        def blocks() -> Iterator[NDArray[Any]]:
            nonlocal characters
            for block in self._blocks():
                ids = self.vocabulary.lookup(block)
                # In UTF-8 every byte but 10xxxxxx starts a character.
                characters += len(block) if self.unit != "byte" else int(np.count_nonzero(ids & 0xC0 != 0x80))
                yield ids

        ids = (
            self._mapped(blocks()) if memory_map else np.concatenate([self.vocabulary.lookup(""), *blocks()])
        )
        return ids, characters

    def _mapped(self, blocks: Iterator[NDArray[Any]]) -> NDArray[Any]:
        with tempfile.NamedTemporaryFile(prefix="throughtime-", suffix=".ids", delete=False) as file:
            weakref.finalize(self, Path(file.name).unlink, missing_ok=True)
            for ids in blocks:
                file.write(ids.data)
            empty = file.tell() == 0
        return (
            np.empty(0, self.vocabulary.dtype) if empty else np.memmap(file.name, self.vocabulary.dtype, "r")
        )

    def _checked_borders(self) -> list[int]:
        borders = borders_of(self.split, len(self.ids))
        sizes = [end - start for start, end in pairwise(borders)]
        wanted = (1.0, 0.0, 0.0) if self.split is None else self.split
        if any(fraction > 0 and size < 2 for fraction, size in zip(wanted, sizes, strict=True)):
            raise ValueError(
                f"the text must give each part of split {spell_split(self.split)} at least 2 {self.unit}s; "
                f"got {len(self.ids)}, which makes {sizes[0]}, {sizes[1]} and {sizes[2]}. "
                + ("Use a longer text." if self.split is None else "Use a longer text, or --split none.")
            )
        return borders


class Chunks:
    """A part of a text as chunks: each of its N ids but the first is a target exactly once.

    With M = N - 1 targets in B streams of L = ceil(M / B) steps, stream b reads ids[b L], ids[b L + 1], ...
    and predicts the id after each. Where the last streams run past the end, mask is 0. The first chunk has
    reset True at its first step; the last one, shorter where `steps` does not divide L, has end=True. x and y
    are (T, B) int64. `[i]` costs O(1). Raises ValueError when there are fewer targets than streams.
    """

    def __init__(self, text: Text, *, streams: int, steps: int, part: str = "train") -> None:
        self.text = text
        self.part = part
        self.streams = streams
        self.steps = steps
        self._ids = text.part(part)
        if not len(self._ids):
            raise ValueError(f"part must not be empty; {part} is, under the split {spell_split(text.split)}.")
        self._streams = Streams(len(self._ids) - 1, streams, steps, f"the {part} part")

    @property
    def count(self) -> int:
        """M, how many targets there are."""
        return self._streams.count

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, index: int) -> Chunk:
        window = self._streams[index]
        x, y = (torch.from_numpy(self._ids[window.position + lag].astype(np.int64)) for lag in (0, 1))
        return Chunk(x, y, window.mask(), window.reset(self.streams), window.last)

    def __iter__(self) -> Iterator[Chunk]:
        return (self[index] for index in range(len(self)))


def _tally(tokens: Sequence[str]) -> dict[str, int]:
    if not isinstance(tokens, str):
        return Counter(tokens)
    counts = np.bincount(code_points(tokens))
    return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}


def _unit(unit: Unit | None, vocabulary: Vocabulary | None) -> Unit:
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unit must be char, byte or word; got {unit!r}.")
    if vocabulary is None:
        return unit or "char"
    if unit not in (None, vocabulary.unit):
        raise ValueError(f"unit must be that of the vocabulary, {vocabulary.unit}; got {unit}. Leave it out.")
    return vocabulary.unit


def _check_words_only(unit: Unit, vocabulary: Vocabulary | None, least: int, most: int | None) -> None:
    if least < 1 or (most is not None and most < 2):
        raise ValueError(f"least must be at least 1 and most at least 2; got {least} and {most}.")
    if (least, most) != (2, None) and (unit != "word" or vocabulary is not None):
        raise ValueError(
            "least and most must be left out unless a vocabulary of words is made here. Drop them."
        )
