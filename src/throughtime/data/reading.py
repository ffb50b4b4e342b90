"""Files, folders and strings in blocks of whole characters or words: no corpus has to fit in memory."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BLOCK = 8 << 20
"""Bytes read at a time (characters, of a string in hand)."""

SHOWN = 4096
"""Characters of a string in hand that a config file still holds."""

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]


@dataclass(frozen=True)
class Files:
    """Text files, one after the other.

    A UTF-8 byte order mark at the start of a file is dropped; line ends stay as they are, "\\r\\n" included.
    Where a file does not end in a line break and another follows, one is put between them. As bytes nothing
    is changed.
    """

    given: tuple[str, ...]
    paths: tuple[Path, ...]

    @classmethod
    def at(cls, source: Paths) -> Files:
        """The files of a path, or of several; of a folder, all *.txt files below it in sorted order.

        Raises FileNotFoundError for a missing path, ValueError for a folder without .txt files.
        """
        several = (source,) if isinstance(source, (str, os.PathLike)) else tuple(source)
        if not several:
            raise ValueError("source must be a path or several; got none. Name a text file or a folder.")
        paths = tuple(file for path in several for file in _files_of(Path(path)))
        return cls(tuple(os.fspath(path) for path in several), paths)

    @property
    def name(self) -> str:
        return ", ".join(repr(path) for path in self.given[:3]) + (", ..." if len(self.given) > 3 else "")

    @property
    def size(self) -> int:
        return sum(path.stat().st_size for path in self.paths)

    def describe(self) -> dict[str, Any]:
        return {"source": list(self.given)}

    def raw(self) -> Iterator[bytes]:
        for path in self.paths:
            with path.open("rb") as file:
                yield from iter(lambda: file.read(BLOCK), b"")

    def characters(self) -> Iterator[str]:
        """Raises ValueError for a file that is binary or not UTF-8, with the offset of the first bad byte."""
        last = "\n"
        for path in self.paths:
            for place, text in enumerate(_decoded(path)):
                if place == 0 and last != "\n":
                    yield "\n"
                yield text
                last = text[-1]


@dataclass(frozen=True)
class String:
    """A string in hand. A long one is described by its length and checksum."""

    text: str
    paths: tuple[Path, ...] = ()
    name = "the text"

    @property
    def size(self) -> int:
        return 0

    def describe(self) -> dict[str, Any]:
        if len(self.text) <= SHOWN:
            return {"text": self.text}
        digest = hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()
        return {"characters": len(self.text), "sha256": digest}

    def characters(self) -> Iterator[str]:
        for start in range(0, len(self.text), BLOCK):
            yield self.text[start : start + BLOCK]

    def raw(self) -> Iterator[bytes]:
        return (block.encode("utf-8", "surrogatepass") for block in self.characters())


def whole_words(blocks: Iterable[str]) -> Iterator[str]:
    """The same text in blocks that end at white space, so that no word is cut in two."""
    rest = ""
    for block in blocks:
        text = rest + block
        cut = max(text.rfind(" "), text.rfind("\n")) + 1
        rest = text[cut:]
        if cut:
            yield text[:cut]
    if rest:
        yield rest


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        files = sorted(file for file in path.rglob("*.txt") if file.is_file())
        if not files:
            raise ValueError(f"source must be a folder with .txt files; got {str(path)!r}, which has none.")
        return files
    if not path.exists():
        raise FileNotFoundError(
            f"source must be an existing file or folder; got {str(path)!r}. Check the path."
        )
    if not path.is_file():
        raise ValueError(f"source must be a plain file (it is read twice); got {str(path)!r}. Save it first.")
    return [path]


def _decoded(path: Path) -> Iterator[str]:
    """The characters of one file, in blocks that are not empty; a character cut in two waits."""
    waiting, offset = b"", 0
    with path.open("rb") as file:
        while True:
            block = file.read(BLOCK)
            _refuse_binary(block, path, offset + len(waiting))
            data = waiting + block
            try:
                text, used = codecs.utf_8_decode(data, "strict", not block)
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{str(path)!r} must be UTF-8 text; the byte 0x{data[error.start]:02x} at offset "
                    f"{offset + error.start} is not. Convert the file, or read it with --unit byte."
                ) from None
            text = text.removeprefix("\ufeff") if offset == 0 else text
            if text:
                yield text
            waiting, offset = data[used:], offset + used
            if not block:
                return


def _refuse_binary(block: bytes, path: Path, offset: int) -> None:
    place = block.find(b"\0")
    if place >= 0:
        raise ValueError(
            f"{str(path)!r} must be text; it is binary (a NUL byte at offset {offset + place}). "
            "Convert the file to UTF-8, or read it with --unit byte."
        )
