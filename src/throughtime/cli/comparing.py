"""What `compare` does: it takes windows of a run's text, or of a file at first weights, and prints what is found."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from torch.nn import Module

from throughtime.chunk import Chunk
from throughtime.cli.fitting import prepare, read_text, text_of, text_section
from throughtime.cli.options import Options, check_picture, flag, given
from throughtime.comparing import compare as compare_credits
from throughtime.credit import credit_named, spell_credit
from throughtime.data import Text
from throughtime.runs import CONFIG, load


@dataclass(frozen=True)
class Stretch:
    """What of a text is compared on: windows of so many steps, of so many streams; None: left open."""

    steps: int | None = None
    streams: int | None = None
    windows: int | None = None


def compare(
    source: str | None,
    credits: tuple[str, ...],
    where: Stretch,
    options: Options,
    settings: Mapping[str, Any],
    picture: Path | None,
    *,
    json: bool,
) -> int:
    """Algorithms side by side on a run, or on a text at first weights; the exit code."""
    check_picture(picture)
    asked = [credit_named(credit) for credit in (settings["against"], *credits)][1:]
    if source is not None and (Path(source) / CONFIG).is_file():
        text, net, (streams, steps, own, loss) = of_run(source, options)
        what = f"{source}, with its trained weights"
    else:
        text, net, (streams, steps, own, loss) = of_text(source, options)
        what = f"{source or options.text.shipped}, with first weights, untrained: give a run for trained ones"
    windows, chunks = stretch(text, where, min(streams, 8), steps)
    print(f"{what}\n{len(chunks)} chunks to read", file=sys.stderr)
    found = compare_credits(
        net, chunks, tuple(dict.fromkeys((credit_named(own), *asked))), loss=loss, windows=windows, **settings
    )
    if picture is not None:
        found.plot().figure.savefig(picture, bbox_inches="tight")
    print(found.to_json() if json else f"{fill(what, 80)}\n{found}")
    return 0


Subject = tuple[Text, Module, tuple[int, int, str, str]]
"""A text, a network, and the streams, steps, algorithm and loss of its training."""


def of_run(source: str, options: Options) -> Subject:
    """A run's own text and network. Raises ValueError for options that it has itself, and for a damaged run."""
    for part in (options.text, options.network):
        for name in given(part):
            raise ValueError(f"{flag(name)} must be left out with a run: it has its own.")
    run = load(source)
    try:
        saved = run.config["training"]
        return text_of(run), run.net, (saved["streams"], saved["steps"], saved["credit"], saved["loss"])
    except KeyError as error:
        raise ValueError(f"{source}/{CONFIG} is damaged: it has no {error}. Restore it, or train again.") from error


def of_text(source: str | None, options: Options) -> Subject:
    """A text, and the network and the choices that a training on it would begin with."""
    if source is None and options.text.shipped is None:
        raise ValueError("RUN, FILE or --shipped must be given: the folder of a run, or a text to read untrained.")
    if source is not None and Path(source).is_dir() and not any(Path(source).rglob("*.txt")):
        raise ValueError(f"{source} must be the folder of a run, with {CONFIG}, or of .txt files; it has neither.")
    section = text_section((source,) if source else (), None, given(options.text))
    job = prepare(text := read_text(section), section, options)
    return text, job.net, (job.chunks.streams, job.chunks.steps, spell_credit(job.credit), "softmax")


def stretch(text: Text, where: Stretch, streams: int, chunk: int) -> tuple[int, list[Chunk]]:
    """The number of windows, and the chunks of all of them: as long as in training, as many in every window."""
    steps = where.steps or min(2 * chunk, max(1, (len(text.part()) - 1) // 2))
    source = text.chunks(where.streams or streams, steps)
    if where.steps is not None and source[0].steps < steps:
        raise ValueError(
            f"--steps must be at most {source[0].steps}, the length of each of {source.streams} streams; got {steps}. "
            "Lower it, or --streams."
        )
    whole = len(source) - (len(source) > 1 and source[len(source) - 1].steps < steps)
    windows = min(8, whole) if where.windows is None else where.windows
    if windows > whole:
        raise ValueError(
            f"--windows must be at most {whole}, as {source.streams} streams have no more of {steps} steps; got "
            f"{windows}. Lower it, --steps or --streams."
        )
    parts = [source[place] for place in range(windows)]
    return windows, [part[first : first + chunk] for part in parts for first in range(0, part.steps, chunk)]
