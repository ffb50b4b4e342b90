"""Classifying texts where nothing is asked: the sizes, the readout and the training that work without tuning, and why.

A step is a word as the mean of the vectors of the word and its parts (see WordReader), 128 wide; a gru of 128 units
reads it in both directions, and the readout is of the mean over all steps. On lines of three kinds (two authors, eight
plays, ten modules of source) five passes are too few and fifteen enough; the readouts mean, max, mean+max and
last+mean+max lie within the spread of a test of a thousand lines (1.3 points), and the mean is the quickest; 128 units
gain half a point to two on 64; vectors of 256, a decay of 0.3 and forgetting 0.4 of the words change nothing that is
larger than the spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from throughtime.estimators.words import WordReader
from throughtime.sequence_network import windowed_like
from throughtime.token_network import TokenNetwork

PASSES, FEWEST, MOST = 15, 400, 6000
"""Updates are as many as make so many passes, within bounds."""
STEPS = 8_000_000
"""Steps read in a training, at most, while that leaves FEWEST / 2 updates."""
LONGEST = 2000
"""Steps of a text that are read: with books in place of texts an update would take minutes and all of the memory."""


@dataclass(frozen=True, kw_only=True)
class TextRecipe:
    """As the Recipe for numbers, with the width of the vectors and the share of words whose own vector is dropped."""

    units: int = 128
    layers: int = 1
    dropout: float = 0.4
    noise: float = 0.0
    embedding: int = 128
    forget: float = 0.1
    reads: str = "mean"
    bidirectional: bool = True
    window: int = 0
    size: int = 32
    updates: int = FEWEST
    rate: float = 3e-3
    decay: float = 0.01


def for_texts(count: int, steps: int, **asked: Any) -> TextRecipe:
    """For so many different texts with so many steps in all; what is asked for, and is not None, stands."""
    if asked.get("noise"):
        raise ValueError(f"noise must be left out for texts, which are no numbers; got {asked['noise']!r}.")
    size = asked.get("size") or 32
    batches = -(-count // size)
    updates = min(MOST, max(FEWEST, PASSES * batches))
    updates = int(max(FEWEST // 2, min(updates, STEPS / max(1.0, steps / batches))))
    defaults: dict[str, Any] = {"size": size, "updates": updates}
    return TextRecipe(**defaults | {name: value for name, value in asked.items() if value is not None})


def text_network(reader: WordReader, recipe: TextRecipe, cell: str, outputs: int) -> TokenNetwork:
    """The network of a recipe over the ids of a reader; of the cell mlp, with as many weights as the gru."""
    shape: dict[str, Any] = {
        "inputs": reader.inputs,
        "outputs": outputs,
        "units": recipe.units,
        "embedding": recipe.embedding,
        "forget": recipe.forget,
        "layers": recipe.layers,
        "dropout": recipe.dropout,
        "reads": recipe.reads,
    }
    if cell != "mlp":
        return TokenNetwork(cell, **shape, bidirectional=recipe.bidirectional)
    twin = TokenNetwork("gru", **shape, bidirectional=True)
    units = windowed_like(twin.read, recipe.window)["units"]
    return TokenNetwork("mlp", **shape | {"units": units}, window=recipe.window)
