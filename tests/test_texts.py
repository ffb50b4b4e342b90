"""Labelled texts from a table, from a file a class and from a folder a class."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_case import sentence, written

from throughtime.data.texts import Texts, read_texts


def refusal(source: Any, folder: Path, **arguments: Any) -> str:
    return sentence(lambda: read_texts(source, **arguments), folder) or "it was read"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes; a text in two lines, one in a sub-folder."""
    for name, content in {"neg/1.txt": "bad", "neg/more/2.txt": " worse\n", "pos/1.txt": "good\nfilm\n"}.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        written(tmp_path, content, name)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "arguments", "texts", "labels"),
    [
        ('text,label\nhi,a\n"yo, man",b\n', {}, ("hi", "yo, man"), ("a", "b")),
        ("Label;id;TEXT\na;1;hi\nb;2;yo\n", {}, ("hi", "yo"), ("a", "b")),
        ("content,label,id\nhi,1,3\nyo,2,4\n", {}, ("hi", "yo"), ("1", "2")),
        ("text,author\nhi,a\nyo,b\n", {}, ("hi", "yo"), ("a", "b")),
        ("a,b,c\nhi,x,p\nyo,y,q\n", {"text": "a", "label": "c"}, ("hi", "yo"), ("p", "q")),
        ("text,sentence,label\nhi,x,p\nyo,y,q\n", {}, ("hi", "yo"), ("p", "q")),
        ("words\nhi\n", {"training": False}, ("hi",), None),
        ("id,text\n1,hi\n", {"training": False}, ("hi",), None),
        ("text,label\nhi,a\n", {"training": False}, ("hi",), ("a",)),
    ],
)
def test_tables(tmp_path: Path, content: str, arguments: dict, texts: tuple, labels: tuple | None) -> None:
    assert read_texts(written(tmp_path, content), **arguments) == Texts(texts, labels)


def test_a_table_between_tabs_and_parquet(tmp_path: Path) -> None:
    expected = Texts(("hi", "yo"), ("ham", "spam"))
    assert read_texts(written(tmp_path, "label\ttext\nham\thi\nspam\tyo\n", "sms")) == expected
    pl.DataFrame({"text": ["hi", "yo"], "label": ["ham", "spam"]}).write_parquet(tmp_path / "x.parquet")
    assert read_texts(tmp_path / "x.parquet") == expected


def test_empty_texts_are_left_out_and_said(tmp_path: Path) -> None:
    found = read_texts(written(tmp_path, "text,label\nhi,a\n,\n ,a\nyo,b\n"))
    assert found.texts == ("hi", "yo")
    assert found.notes[0].endswith("x.csv': 2 rows without a 'text' are left out (the first is row 3).")


def test_a_file_a_class(tmp_path: Path) -> None:
    paths = [written(tmp_path, "to be\n\nor not\n", "shakespeare.txt"), written(tmp_path, "call me", "melville.txt")]
    found = read_texts(paths)
    assert found.texts == ("to be", "or not", "call me")
    assert found.labels == ("shakespeare", "shakespeare", "melville")
    assert found.notes[0].endswith("shakespeare.txt': 1 empty line is left out (the first is row 2).")
    assert read_texts(paths[1], training=False) == Texts(("call me",), None)
    assert read_texts(os.fspath(paths[1]), training=False) == Texts(("call me",), None)


def test_a_folder_a_class(folder: Path) -> None:
    assert read_texts(folder) == Texts(("bad", "worse", "good\nfilm"), ("neg", "neg", "pos"))


def test_what_a_folder_leaves_out_is_said(folder: Path) -> None:
    for name in ("README", "neg/.hidden", "pos/empty.txt"):
        written(folder, "" if name == "pos/empty.txt" else "x", name)
    (folder / ".git").mkdir()
    found = read_texts(folder)
    assert found.texts == ("bad", "worse", "good\nfilm")
    assert [note.partition(": ")[2] for note in found.notes] == [
        "2 beside the folders of the classes left out (the first is '.git').",
        "1 hidden file is left out (the first is neg/.hidden).",
        "1 empty file is left out (the first is pos/empty.txt).",
    ]


@pytest.mark.parametrize(
    ("content", "arguments", "start"),
    [
        ("text,label\nhi,a\nyo,a\n", {}, "'x.csv' must have two classes or more; got only 'a'"),
        ("text,label\nhi,a\nyo,\n", {}, "'x.csv', row 3, column 'label' must be a label; got an empty cell"),
        ("text,label\n,a\n,b\n", {}, "'x.csv' must have a text; all are empty"),
        ("text\nhi\n", {}, "'x.csv' must have labels; got only texts"),
        (
            "a,b\nhi,x\nyo,y\n",
            {},
            "'x.csv' must have a column of texts and one of labels; got 'a', 'b'. Name them with",
        ),
        ("text,class,target\nhi,x,y\n", {}, "'x.csv' must have one label; 'class', 'target' can all be it"),
        ("a,b\nhi,x\n", {"text": "c"}, "'x.csv' must have the column 'c'; got 'a', 'b'"),
        ("a,b\nhi,x\n", {"text": "a", "label": "a"}, "text and label must be different columns; got 'a' for both"),
        ("text,label\n", {}, "'x.csv' must have rows"),
    ],
)
def test_a_table_without_texts_or_classes_is_refused(
    tmp_path: Path, content: str, arguments: dict[str, str], start: str
) -> None:
    assert refusal(written(tmp_path, content), tmp_path, **arguments).startswith(start)


def test_files_that_are_no_classes_are_refused(tmp_path: Path, folder: Path) -> None:
    one, other = folder / "neg/1.txt", folder / "pos/1.txt"
    assert refusal([], folder).startswith("source must be a path or several; got none")
    assert refusal(one, folder).startswith("'neg/1.txt' must have labels; got only texts")
    assert refusal([one, other], folder).startswith(
        "the files must have different names, which name the classes; got '1'"
    )
    assert refusal([one, folder / "none"], folder).startswith("'none' must be an existing file; there is none")
    assert refusal([one, folder / "pos"], folder).startswith("'pos' must be a file; it is a directory")
    assert refusal([one, other], folder, label="x").startswith(
        "text and label must go with one table; got 'neg/1.txt', "
    )
    blank, bad = written(tmp_path, "\n", "blank.txt"), written(tmp_path, b"\xff\xffx", "bad.txt")
    assert refusal([one, blank], folder).startswith("'blank.txt' must have a line of text; all are empty")
    assert refusal([one, bad], folder).startswith("'bad.txt' must be UTF-8 text; the byte 0xff at offset 0 (row 1)")


def test_folders_that_are_no_classes_are_refused(folder: Path) -> None:
    assert refusal(folder / "pos", folder).startswith("'pos' must have a folder for each class; got none among its 1 ")
    (folder / "dull").mkdir()
    assert refusal(folder, folder).endswith("must have a text in every folder; 'dull' has none. Remove the folder.")
    os.mkfifo(folder / "dull" / "pipe")
    assert refusal(folder, folder).startswith("'dull/pipe' must be a plain file; it is a pipe or a device")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode)), st.sampled_from(["x.csv", "x.txt"]))
def test_any_file_gives_texts_or_a_sentence(tmp_path: Path, content: bytes, name: str) -> None:
    path = written(tmp_path, content, name)
    if sentence(lambda: read_texts(path, training=False)) is None:
        assert all(read_texts(path, training=False).texts)
