"""Where a new run goes when nobody said."""

from __future__ import annotations

import re
from pathlib import Path


def free_folder(files: tuple[str, ...], string: str | None) -> Path:
    """runs/<name of the text>, or the first of runs/<name>-2, -3, ... that is not there."""
    name = Path(files[0]).resolve().stem if files else " ".join((string or "").split())
    name = re.sub(r"[^\w.-]+", "-", name)[:30].strip("-.") or "text"
    folder, number = Path("runs") / name, 1
    while folder.exists():
        number += 1
        folder = Path("runs") / f"{name}-{number}"
    return folder
