"""Where the training, the validation and the test part of a series begin and end: fractions by position."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate

Split = tuple[float, float, float]
PARTS = ("train", "validation", "test")


def parse_split(text: str) -> Split | None:
    """The split that "0.9,0.05,0.05" or "none" spells. Raises ValueError for anything else."""
    if text.strip().lower() == "none":
        return None
    try:
        fractions = [float(part) for part in text.split(",")]
    except ValueError:
        fractions = []
    return check_split(fractions, text)


def spell_split(split: Split | None) -> str:
    """The inverse of parse_split."""
    return "none" if split is None else ",".join(str(fraction) for fraction in split)


def check_split(split: Sequence[float], spelled: str | None = None) -> Split:
    """The split itself, when it is three fractions that sum to 1 with something to train on."""
    fine = len(split) == 3 and all(0 <= part <= 1 for part in split) and split[0] > 0
    if not fine or not math.isclose(sum(split), 1, abs_tol=1e-6):
        raise ValueError(
            "split must be three fractions that sum to 1 (train, validation, test; train above 0), such as "
            f"0.9,0.05,0.05, or none; got {spelled or split}."
        )
    return float(split[0]), float(split[1]), float(split[2])


def borders_of(split: Split | None, total: int) -> list[int]:
    """Where the parts begin and end: the sums of the fractions, in tokens, rounded down."""
    if split is None:
        return [0, total, total, total]
    # Rounded first, so that 0.7 + 0.2 (0.8999...) of 10 tokens is 9.
    inner = [math.floor(round(fraction * total, 6)) for fraction in accumulate(split[:2])]
    return [0, inner[0], total if split[2] == 0 else inner[1], total]
