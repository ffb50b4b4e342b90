"""A page that pictures stand in: one file that opens offline, its answers first, written whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from throughtime.pictures.base import Picture
from throughtime.pictures.style import DARK, LIGHT, variables
from throughtime.version import __version__


@dataclass(frozen=True, kw_only=True)
class Card:
    """One of the answers of the first screen: a figure with its unit, a sentence, or steps."""

    heading: str
    figure: str = ""
    unit: str = ""
    text: str = ""
    steps: Sequence[str] = ()


def write_page(path: Path, template: str, page: Mapping[str, Any]) -> Path:
    """Render a template under a temporary name, and rename it when it is whole."""
    templates = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, loader=FunctionLoader(_source)
    )
    style = {"light": Markup(variables(LIGHT)), "dark": Markup(variables(DARK)), "version": __version__}
    text = templates.get_template(template).render(**style, **page)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        # A file name of other bytes than UTF-8 has parts that UTF-8 cannot write; the page shows "?" for them.
        unfinished.write_text(text, encoding="utf-8", errors="replace")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def drawn(pictures: Iterable[Picture]) -> Iterator[dict[str, Any]]:
    """Each picture for wide and narrow screens, with its reading, which is its alternative text too."""
    seen: set[str] = set()
    for place, picture in enumerate(pictures):
        drawings = {size: picture.svg(size) for size in picture.sizes}
        if not seen.isdisjoint(drawings.values()):  # two that look the same still have ids of their own
            drawings = {
                size: re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{place}-", one) for size, one in drawings.items()
            }
        seen.update(drawings.values())
        shapes = {size: Markup(drawing) for size, drawing in drawings.items()}
        yield {"heading": picture.heading, "drawings": shapes, "reading": picture.reading}


def sentence_case(text: str) -> str:
    """The text with a capital at its beginning and a full stop at its end."""
    text = text[:1].upper() + text[1:]
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _source(name: str) -> str:
    return files("throughtime").joinpath("templates", name).read_text(encoding="utf-8")
