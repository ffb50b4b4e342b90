"""Spans in tags that begin with B-, go on with I- and are O outside, and how many of them are found (CoNLL 2000's F1).

A span (kind, first, last + 1) begins at B-kind, or at I-kind where no span of that kind goes on, and ends before the
next step that is not I-kind. With the spans of all sequences, found ones counting only where kind and both ends are
right,

    precision = right / predicted    recall = right / true    F1 = 2 right / (predicted + true).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

Span = tuple[str, int, int]


@dataclass(frozen=True)
class SpanScore:
    """How many spans there are, were predicted, and were predicted right."""

    true: int
    predicted: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.predicted if self.predicted else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.true if self.true else 0.0

    @property
    def f1(self) -> float:
        """1 where there are no spans and none were predicted."""
        return 2 * self.right / (self.predicted + self.true) if self.predicted + self.true else 1.0


def is_bio(tags: Iterable[Sequence[object]]) -> bool:
    """Whether tags are O, B-... and I-... alone, with at least one of the last two."""
    seen = {str(tag) for tag in chain.from_iterable(tags)}
    return bool(seen - {"O"}) and all(tag == "O" or tag[:2] in ("B-", "I-") for tag in seen)


def spans_of(tags: Sequence[object]) -> list[Span]:
    """The spans of one sequence of tags, in order."""
    found: list[Span] = []
    kind, first = "", 0
    for place, tag in enumerate([*map(str, tags), "O"]):
        if tag[:2] == "I-" and tag[2:] == kind:
            continue
        if kind:
            found.append((kind, first, place))
        kind, first = (tag[2:], place) if tag[:2] in ("B-", "I-") else ("", place)
    return found


def span_score(true: Iterable[Sequence[object]], predicted: Iterable[Sequence[object]]) -> SpanScore:
    """The spans of all sequences, counted. Raises ValueError for sequences of other numbers or lengths."""
    wanted = found = right = 0
    for one, other in zip(true, predicted, strict=True):
        if len(one) != len(other):
            raise ValueError(f"predicted must have the lengths of true; got {len(other)} tags for {len(one)}.")
        a, b = set(spans_of(one)), set(spans_of(other))
        wanted, found, right = wanted + len(a), found + len(b), right + len(a & b)
    return SpanScore(wanted, found, right)
