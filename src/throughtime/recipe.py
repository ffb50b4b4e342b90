"""What works without tuning for a text of so many tokens: sizes, batches, rate and length of training."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The choices that follow from the corpus and from how long is trained."""

    units: int
    dropout: float
    tie: bool
    streams: int
    steps: int
    passes: float
    updates: int
    rate: float
    decay: float


SPEED = {"char": 30_000, "byte": 30_000, "word": 8_000}
"""Tokens a second that two cores learn from, roughly: what a time is worth."""


def recipe(
    targets: int,
    unit: str = "char",
    *,
    seconds: float | None = None,
    epochs: float | None = None,
    updates: float | None = None,
    streams: int | None = None,
    steps: int | None = None,
) -> Recipe:
    """What works without tuning for a training part of so many targets, under the limits that the user gave.

    steps    64 characters reach back over a line or two, 32 words over three; a short text whole.
    streams  16 cost no more a token than 32 on two cores, and give twice the updates; fewer where each stream
             would be shorter than eight chunks.
    updates  where no limit is given. 5 000 take a megabyte past the n-grams; a word or a line needs only hundreds.
    passes   over the text, as many as the limits will allow: they decide what is needed against learning by heart,
             which a text of less than a few thousand tokens is there for.
    dropout  none for characters while they are read only a few times. Words are too few for their vocabulary, whose
             vectors alone have more weights than most texts have words.
    units    of characters a power of two near half the square root of the text, 32 to 256: about one weight a
             character. Words need 256, even 60 000 of them. Twice as many where many passes pay for them.
    tie      one vector a word, not two, learns the rare ones sooner; the few characters need none.
    rate     high, as the schedule ends at zero: of 5e-3, 8e-3 and 12e-3 the second is best for one pass over a megabyte
             of characters, of 3e-3, 5e-3 and 8e-3 the last for five over words. Small networks bear a higher one,
             wide ones need a lower.
    """
    words = unit == "word"
    steps = min(32 if words else 64, targets) if steps is None else steps
    streams = min(16, max(1, targets // (8 * steps))) if streams is None else streams
    enough = min(5000, max(300, targets // 4))
    limits = [epochs, updates and updates * streams * steps / targets, seconds and seconds * SPEED[unit] / targets]
    passes = min((limit for limit in limits if limit), default=enough * streams * steps / targets)
    long, often = targets > 5000, passes > (40 if words else 10)
    units = min(256, max(32, 1 << (max(1, int(targets**0.5) // 2).bit_length() - 1)))
    if words and targets > 20_000:
        units = 256
    if long and often:
        units *= 2
    return Recipe(
        units=units,
        dropout=0.0 if not long else 0.5 if words else 0.4 if often else 0.0,
        tie=words,
        streams=streams,
        steps=steps,
        passes=passes,
        updates=enough,
        rate=1e-2 if units <= 32 else 8e-3 if units <= 256 else 3e-3,
        decay=0.1,
    )
