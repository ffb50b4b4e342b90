"""What the tests of readers share: a file with given content, and the sentence by which it is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any


def written(folder: Path, content: str | bytes, name: str = "x.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def sentence(read: Callable[[], Any], folder: Path | None = None) -> str | None:
    """The one line in which `read` refuses what it is given, without the folder; None where it reads it."""
    try:
        read()
    except (ValueError, OSError) as error:
        said = str(error) if folder is None else str(error).replace(f"{folder}/", "")
        assert said
        assert "\n" not in said
        return said
    return None
