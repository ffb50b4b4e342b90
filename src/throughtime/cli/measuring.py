"""What `flow` does: it reads a stretch of a run's text, or of a file, and prints how far back the error reaches."""

from __future__ import annotations

from pathlib import Path

from throughtime.cli.fitting import reach, text_of
from throughtime.data import Text
from throughtime.flow import Clipping, clipping, measure
from throughtime.nets import losses
from throughtime.runs import Run, load

LAGS = 128
"""Lags that are measured of a text that is long enough, unless the training goes back further."""
LONGEST = 512
"""Lags that are measured unasked where the training goes back further: memory and time grow with them."""
STREAMS = 8


def flow(folder: Path, file: str | None, lags: int | None, samples: int, steps: int | None, *, json: bool) -> int:
    """The verdict on a run, and the numbers; the exit code."""
    run = load(folder)
    saved = run.config.get("training", {})
    if saved.get("loss", "softmax") not in losses:
        raise ValueError(f"{run.path} was trained with a loss of your own. Call throughtime.flow.measure with it.")
    net, h = run.net, reach(saved.get("credit"))
    text, part = part_of(run, file)
    there = len(text.part(part)) - 1
    if lags is None:
        lags = max(1, min(max(LAGS, min(2 * (h or 0), LONGEST)), there // 2 if steps is None else (steps - 1) // 2))
    steps = 2 * lags if steps is None else steps
    if steps <= lags:
        raise ValueError(f"--steps must be above --lags, {lags}; got {steps}. Raise --steps or lower --lags.")
    if there < steps:
        shorter = "Lower --steps, or give" if there > lags else "Lower --lags, or give" if lags > 1 else "Give"
        raise ValueError(
            f"the text must have at least {steps + 1} tokens to read {steps} steps; {file or f'its {part} part'} has "
            f"{there + 1}. {shorter} a longer FILE."
        )
    chunk = text.chunks(max(1, min(STREAMS, there // steps)), steps, part)[0]
    found = measure(
        net, losses[saved.get("loss", "softmax")], chunk, lags=lags, samples=samples, h=h, clipping=clipped(run)
    )
    print(found.to_json() if json else f"{run.path}, {chunk.steps} steps of {file or f'its {part} part'}\n{found}")
    return 0


def part_of(run: Run, file: str | None) -> tuple[Text, str]:
    """The text to measure on, and its part: a file, or what was held out of the run's own."""
    if file is not None:
        return Text(file, split=None, vocabulary=run.vocabulary), "train"
    text = text_of(run)
    return text, "validation" if len(text.part("validation")) > 2 else "train"


def clipped(run: Run) -> Clipping:
    """The norms that a run recorded, and what they were clipped to."""
    return clipping(run.records(), run.config.get("training", {}).get("clip"))
