"""What the page is about: a word, letter by letter, or a few numbers, each step predicting what comes next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from throughtime.chunk import Chunk
from throughtime.nets import Loss, cross_entropy, squared_error

LONGEST = 10
"""Letters or numbers that a page takes: as many columns as an eye can follow, and a file of about a megabyte."""


@dataclass(frozen=True, eq=False)
class Problem:
    """T steps of one stream; at step t the input is item t, and item t + 1 is wanted.

    chunk   x and y, ids (T, 1) of a word, numbers (T, 1, 1) in float64 of values.
    tokens  the different letters of a word, a letter's id being its place; none for values.
    items   what was given, T + 1 letters or numbers.
    scale   what numbers were divided by, so that the largest is 1 or -1; 1 for a word.
    """

    chunk: Chunk
    tokens: tuple[str, ...]
    items: tuple[str, ...] | tuple[float, ...]
    scale: float = 1.0

    @property
    def width(self) -> int:
        """I and A: numbers that enter a step, and that its readout gives."""
        return len(self.tokens) or 1

    @property
    def loss(self) -> Loss:
        return cross_entropy if self.tokens else squared_error


def of_word(word: str, tokens: Sequence[str] | None = None) -> Problem:
    """The problem `all but the last letter -> all but the first`; tokens are those of a network that knows some.

    Raises ValueError for a word that is too short or too long, or with a letter that is not among the tokens.
    """
    if not 2 <= len(word) <= LONGEST:
        raise ValueError(f"WORD must have 2 to {LONGEST} letters; got {len(word)}. Give a word such as machine.")
    try:
        word.encode()
    except UnicodeEncodeError:
        raise ValueError("WORD must be UTF-8; got other bytes. Give a word such as machine.") from None
    known = tuple(sorted(set(word))) if tokens is None else tuple(tokens)
    for letter in word:
        if letter not in known:
            raise ValueError(f"WORD must be of letters that the network has learned; got {letter!r}. Leave it out.")
    ids = torch.tensor([known.index(letter) for letter in word])[:, None]  # T+1 1
    return Problem(Chunk(ids[:-1], ids[1:], end=True), known, tuple(word))


def of_values(values: Sequence[float]) -> Problem:
    """The problem of predicting each number from those before it. Raises ValueError for too few or too many."""
    if not 2 <= len(values) <= LONGEST:
        raise ValueError(f"--values must be 2 to {LONGEST} numbers; got {len(values)}. Give some such as 1,2,3.")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("--values must be finite numbers; got one that is not. Give some such as 1,2,3.")
    scale = max(abs(value) for value in values) or 1.0
    series = (torch.tensor(values, dtype=torch.float64) / scale)[:, None, None]  # T+1 1 1
    return Problem(Chunk(series[:-1], series[1:], end=True), (), tuple(values), scale)
