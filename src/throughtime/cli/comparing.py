"""What `compare` does: it takes windows of a run's text, or of a file at first weights, and prints what is found."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from throughtime.chunk import Chunk
from throughtime.cli.fitting import prepare, read_text, text_of, text_section
from throughtime.cli.options import Options, flag, given
from throughtime.comparing import compare as compare_credits
from throughtime.credit import credit_named
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
    asked = [credit_named(credit) for credit in credits]
    if source is not None and (Path(source) / CONFIG).is_file():
        run = load(source)
        for part in (options.text, options.network):
            for name in given(part):
                raise ValueError(f"{flag(name)} must be left out with a run: it has its own.")
        text, net, saved = text_of(run), run.net, run.config["training"]
        streams, steps, own, loss = (saved[name] for name in ("streams", "steps", "credit", "loss"))
        what = f"{run.path}, with its trained weights"
    else:
        section = text_section((source,) if source else (), None, given(options.text))
        job = prepare(text := read_text(section), section, options)
        net, streams, steps, own, loss = job.net, job.chunks.streams, job.chunks.steps, job.credit, "softmax"
        what = f"{source or section['shipped']}, with first weights, untrained: give a run for trained ones"
    windows, chunks = stretch(text, where, min(streams, 8), steps)
    print(f"{what}\n{len(chunks)} chunks to read", file=sys.stderr)
    found = compare_credits(
        net, chunks, tuple(dict.fromkeys((credit_named(own), *asked))), loss=loss, windows=windows, **settings
    )
    if picture is not None:
        found.plot().figure.savefig(picture, bbox_inches="tight")
    print(found.to_json() if json else f"{fill(what, 80)}\n{found}")
    return 0


def check_picture(path: Path | None) -> None:
    """Raise ValueError for a file that no picture can be written to, before the work."""
    if path is not None and path.suffix not in (".png", ".svg", ".pdf"):
        raise ValueError(f"--picture must end in .png, .svg or .pdf; got {path}.")
    if path is not None and not path.parent.is_dir():
        raise ValueError(f"--picture must be in a folder that exists; {path.parent} does not.")


def stretch(text: Text, where: Stretch, streams: int, chunk: int) -> tuple[int, list[Chunk]]:
    """The number of windows, and the chunks of all of them: as long as in training, as many in every window."""
    steps = where.steps or min(2 * chunk, max(1, (len(text.part()) - 1) // 2))
    source = text.chunks(where.streams or streams, steps)
    whole = len(source) - (len(source) > 1 and source[len(source) - 1].steps < steps)
    windows = min(8, whole) if where.windows is None else where.windows
    if windows > whole:
        raise ValueError(
            f"--windows must be at most {whole}, as {source.streams} streams have no more of {steps} steps; got "
            f"{windows}. Lower it, --steps or --streams."
        )
    parts = [source[place] for place in range(windows)]
    return windows, [part[first : first + chunk] for part in parts for first in range(0, part.steps, chunk)]
