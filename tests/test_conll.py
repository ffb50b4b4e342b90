"""Tagged sentences from columns: what was written is read, and what is left out is counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reading_case import sentence, written

from throughtime.data.conll import Tagged, read_conll

UNIVERSAL = """# sent_id = 1
# text = vámonos
1-2\tvámonos\t_\t_\t_\t_\t_\t_\t_\t_
1\tvamos\tir\tVERB\t_\t_\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\t_
2.1\tal\tal\tX\t_\t_\t1\tobj\t_\t_

"""
tokens = st.text(st.characters(codec="utf-8", categories=["L", "N", "P", "S"]), min_size=1, max_size=5)
plain = tokens.filter(lambda token: token[0] not in "#-")


def read(folder: Path, content: str, **arguments: int) -> Tagged:
    return read_conll(written(folder, content, "x.conll"), **arguments)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(
    st.lists(st.lists(st.tuples(plain, tokens, tokens), min_size=1, max_size=4), min_size=1, max_size=4),
    st.sampled_from(["\t", " ", "   "]),
    st.sampled_from(["\n", "\n\n", "\n \n"]),
)
def test_what_was_written_is_read(tmp_path: Path, sentences: list, between: str, end: str) -> None:
    content = end.join("".join(between.join(row) + "\n" for row in rows) for rows in sentences)
    found = read(tmp_path, content)
    assert found.sentences == tuple(tuple(row[0] for row in rows) for rows in sentences)
    assert found.tags == tuple(tuple(row[2] for row in rows) for rows in sentences)
    assert found.notes == ()
    assert read(tmp_path, content, word=-1, tag=1).sentences == found.tags


def test_one_column_has_no_tags(tmp_path: Path) -> None:
    assert read(tmp_path, "a\nb\n\n#c\n") == Tagged((("a", "b"), ("#c",)), None)


def test_words_between_tabs_may_hold_blanks(tmp_path: Path) -> None:
    assert read(tmp_path, "10 000\tNUM\nmen\tN\n").sentences == (("10 000", "men"),)


def test_a_word_may_look_like_a_range(tmp_path: Path) -> None:
    assert read(tmp_path, "1-2 A\n1.1 B\n").sentences == (("1-2", "1.1"),)


def test_documents_and_comments_are_left_out_and_counted(tmp_path: Path) -> None:
    found = read(tmp_path, "-DOCSTART- -X-\n\n# id = 1\n# one two three\na A\n# #\n#tag H\n-DOCSTART-\nb B\n")
    assert found.sentences == (("a", "#", "#tag"), ("b",))
    assert [note.split(": ")[1] for note in found.notes] == [
        "2 comment lines are left out.",
        "2 -DOCSTART- lines are left out.",
    ]


def test_conll_u_is_known_by_its_columns(tmp_path: Path) -> None:
    found = read(tmp_path, UNIVERSAL)
    assert found.sentences == (("vamos", "nos"),)
    assert found.tags == (("VERB", "PRON"),)
    assert [note.partition("x.conll'")[2] for note in found.notes] == [
        ": 2 comment lines are left out.",
        ": 2 range or empty node lines are left out.",
        " is CoNLL-U: words are column 1, tags column 3, counted from 0.",
    ]
    found = read(tmp_path, UNIVERSAL, word=2, tag=7)
    assert (found.sentences, found.tags) == ((("ir", "nosotros"),), (("root", "obj"),))


@pytest.mark.parametrize(
    ("content", "arguments", "start"),
    [
        ("\n \n", {}, "'x.conll' must have a line with a word; got none"),
        ("-DOCSTART-\n", {}, "'x.conll' must have a line with a word; got none"),
        ("# id = 1\n", {}, "'x.conll' must have a line with a word; got none"),
        ("a A\n\nb\n", {}, "'x.conll', row 3 must have 2 columns between white space as row 1 has; got 1"),
        ("# id = 1\na\tA\nb\tB\tC\n", {}, "'x.conll', row 3 must have 2 columns between tabs as row 2 has; got 3"),
        ("a\nb c\n", {}, "'x.conll', row 2 must have 1 column between"),
        ("a\tA\nb\t\n", {}, "'x.conll', row 2 must have a tag in column 1; got an empty cell"),
        ("a\tA\n\tB\n", {}, "'x.conll', row 2 must have a word in column 0; got an empty cell"),
        ("a A\n", {"word": 2}, "word must be a column of 'x.conll', 0 to 1; got 2"),
        ("a A\n", {"tag": -3}, "tag must be a column of 'x.conll', 0 to 1; got -3"),
        ("a A\n", {"tag": 0}, "word and tag must be different columns; got 0 and 0 of 2"),
    ],
)
def test_a_file_that_is_no_table_of_words_is_refused(tmp_path: Path, content: str, arguments: dict, start: str) -> None:
    assert (sentence(lambda: read(tmp_path, content, **arguments), tmp_path) or "it was read").startswith(start)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.one_of(st.binary(max_size=60), st.text("ab#-.1\t \n=", max_size=40).map(str.encode)))
def test_any_file_gives_sentences_or_a_sentence(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content, "x.conll")
    if sentence(lambda: read_conll(path)) is None:
        found = read_conll(path)
        assert all(found.sentences)
        assert found.tags is None or [len(tags) for tags in found.tags] == [len(words) for words in found.sentences]
