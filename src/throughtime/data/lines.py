"""The lines of a text file that a user names, each checked: a plain file, UTF-8 (or UTF-16 with its mark), no NUL."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator
from pathlib import Path

HEAD = 1 << 16
"""Bytes looked at before the first line: a binary file need not be read to its end to be refused."""

KNOWN = {
    b"PK\x03\x04": "an Excel workbook or a ZIP archive",
    b"\x1f\x8b": "compressed with gzip",
    b"PAR1": "a Parquet file",
}
"""Binary files that are often named by mistake, by their first bytes."""


def plain_file(path: str | os.PathLike[str]) -> Path:
    """The path of a file with content. It is asked what it is before it is opened: a FIFO would block.

    Raises FileNotFoundError for a missing file, ValueError for a directory, FIFO or device and an empty file.
    """
    file = Path(path)
    name = repr(str(path))
    if not file.exists():
        raise FileNotFoundError(f"{name} must be an existing file; there is none. Check the path.")
    if file.is_dir():
        raise ValueError(f"{name} must be a file; it is a directory. Name the file in it.")
    if not file.is_file():
        raise ValueError(f"{name} must be a plain file; it is a pipe or a device. Save it as a file first.")
    if not file.stat().st_size:
        raise ValueError(f"{name} must have content; it is empty. Check that it was written.")
    return file


def lines(path: str | os.PathLike[str]) -> Iterator[str]:
    """The lines of a file, each with its line break as "\\n" (the last may have none); a byte order mark is dropped.

    Raises what plain_file raises, and ValueError for binary files and wrong encodings, with the place.
    """
    file = plain_file(path)
    with file.open("rb") as raw:
        head = raw.read(HEAD)
    wide = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    if not wide:
        _refuse_binary(file, head)
    with file.open(encoding="utf-16" if wide else "utf-8-sig") as text:
        try:
            for row, line in enumerate(text, start=1):
                if "\0" in line:
                    raise ValueError(f"{str(file)!r} must be text; row {row} has a NUL. Save it as UTF-8 text.")
                yield line
        except UnicodeError:
            raise ValueError(_wrong_encoding(file, wide)) from None


def _refuse_binary(file: Path, head: bytes) -> None:
    for start, what in KNOWN.items():
        if head.startswith(start):
            raise ValueError(f"{str(file)!r} must be plain text; it is {what}. Save it as UTF-8 text.")
    place = head.find(b"\0")
    if place >= 0:
        raise ValueError(
            f"{str(file)!r} must be text; it is binary (a NUL byte at offset {place}). Save it as UTF-8 text."
        )


def _wrong_encoding(file: Path, wide: bool) -> str:
    """Read once more, as bytes, to say where."""
    if wide:
        return f"{str(file)!r} must be text; it begins as UTF-16 and does not go on so. Save it as UTF-8."
    data = file.read_bytes()
    try:
        data.decode()
    except UnicodeDecodeError as error:
        row = _line_breaks(data[: error.start]) + 1
        return (
            f"{str(file)!r} must be UTF-8 text; the byte 0x{data[error.start]:02x} at offset {error.start} "
            f"(row {row}) is not. Save the file as UTF-8."
        )
    return f"{str(file)!r} must not change while it is read; it did. Try again."


def _line_breaks(data: bytes) -> int:
    return data.count(b"\n") + data.count(b"\r") - data.count(b"\r\n")
