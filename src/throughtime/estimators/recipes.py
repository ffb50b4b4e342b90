"""What an estimator of whole sequences of numbers does where nothing is asked of it, and why.

Both directions, with `last` and `max` beside each other: some classes are told by what stands where (last), others by
what stands anywhere (max). Frames, several steps read as one, give the first layer slopes and shapes, and make long
sequences short. Noise on the scaled inputs and dropout before the readout stand against few examples. What was tried
beside is told in benchmarks/classify.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PASSES, FEWEST, MOST = 20, 600, 6000
"""Updates are as many as make so many passes, within bounds."""
FRAMES = 64
"""A typical sequence is read in about so many frames at most."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """units, layers, dropout, noise, reads, bidirectional and window are the network's; frame and stride the reader's;
    size is the sequences of a batch; updates, rate and decay are of AdamW along a cosine."""

    units: int = 64
    layers: int = 1
    dropout: float = 0.3
    noise: float = 0.1
    reads: str = "last+max"
    bidirectional: bool = True
    window: int = 0
    frame: int = 1
    stride: int = 1
    size: int = 32
    updates: int = FEWEST
    rate: float = 3e-3
    decay: float = 0.01


def for_numbers(count: int, typical: int, **asked: Any) -> Recipe:
    """For so many different sequences of typically so many steps; what is asked for, and is not None, stands.

    Where the whole sequence is there, in both directions, it is read in frames of two strides and a step.
    """
    given = {name: value for name, value in asked.items() if value is not None}
    size = given.get("size", Recipe.size)
    stride, frame = 1, 1
    if given.get("bidirectional", Recipe.bidirectional):
        stride = given.get("stride", max(1, round(typical / FRAMES)))
        frame = 2 * stride + 1
    updates = min(MOST, max(FEWEST, PASSES * -(-count // size)))
    return Recipe(**{"stride": stride, "frame": frame, "updates": updates} | given)
