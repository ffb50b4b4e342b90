"""Text: every target once whatever the cut, ids and back, blocks of any size, a sentence for bad input."""

from __future__ import annotations

import gc
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.chunk import join
from throughtime.data import Text, Vocabulary, parse_split, reading, spell_split
from throughtime.data.vocabulary import UNKNOWN

MIXED = "Zoë said: “naïve 🙂 日本”,\r\nthen -- 'tis to-night!\n\n" * 7
sizes = st.integers(1, 9)


@pytest.fixture(params=[1, 2, 3, 5, 64])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(reading, "BLOCK", request.param)
    return int(request.param)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


# The law of the streams.


@given(st.integers(2, 60), sizes, sizes)
def test_every_target_counts_exactly_once(count: int, streams: int, steps: int) -> None:
    text = Text.of("".join(chr(0x100 + i) for i in range(count)), split=None)
    targets = count - 1
    if targets < streams:
        with pytest.raises(
            ValueError, match=f"at most the {targets} targets of the train part; got {streams}"
        ):
            text.chunks(streams, steps)
        return
    chunks = text.chunks(streams, steps)
    seen: list[int] = []
    total = 0.0
    for chunk in chunks:
        mask = torch.ones(chunk.x.shape) if chunk.mask is None else chunk.mask
        assert chunk.mask is None or not chunk.mask.all()
        counted = mask.bool()
        assert torch.equal(chunk.x[counted] + 1, chunk.y[counted])
        seen += chunk.y[counted].tolist()
        total += float(mask.sum())
    assert total == chunks.count == targets
    assert sorted(seen) == list(range(2, count + 1))


@given(st.integers(2, 60), st.integers(1, 4), sizes, sizes)
def test_the_stream_is_the_same_whatever_the_chunk_length(n: int, streams: int, one: int, other: int) -> None:
    streams = min(streams, n - 1)
    text = Text.of("abcdefg" * n, split=None)
    first, second = (join(list(text.chunks(streams, steps))) for steps in (one, other))
    assert torch.equal(first.x, second.x)
    assert torch.equal(first.y, second.y)
    assert (first.mask is None) == (second.mask is None)
    assert first.mask is None or torch.equal(first.mask, second.mask)
    assert torch.equal(first.reset, second.reset)
    assert first.reset[0].all()
    assert not first.reset[1:].any()


def test_a_stream_is_a_contiguous_piece_of_the_part() -> None:
    text = Text.of("abcdefghijklmnopqrstuvw", split=None)  # 22 targets in 4 streams of 6
    whole = join(list(text.chunks(4, 4)))
    assert text.decode(whole.x[:, 1]) == "ghijkl"
    assert text.decode(whole.y[:, 1]) == "hijklm"
    assert whole.mask[:, 3].tolist() == [1, 1, 1, 1, 0, 0]


def test_chunks_are_a_source() -> None:
    chunks = Text.of("to be or not to be", split=None).chunks(2, 4)  # 17 targets, 9 steps a stream
    assert len(chunks) == len(list(chunks)) == 3
    assert [chunk.steps for chunk in chunks] == [4, 4, 1]
    assert [chunk.end for chunk in chunks] == [False, False, True]
    assert [chunk.reset is None for chunk in chunks] == [False, True, True]
    assert chunks[0].x.dtype == chunks[0].y.dtype == torch.int64
    assert torch.equal(chunks[-1].x, chunks[2].x)
    for index in (3, -4):
        with pytest.raises(IndexError, match="chunk must lie in"):
            chunks[index]


def test_steps_and_streams_must_be_positive() -> None:
    with pytest.raises(ValueError, match="at least 1; got streams=0 and steps=3"):
        Text.of("machine", split=None).chunks(0, 3)


# Parts.


@given(st.integers(40, 200))
def test_the_parts_make_up_the_text(count: int) -> None:
    text = Text.of("ab" * count, split=(0.7, 0.2, 0.1))
    parts = [text.part(name) for name in ("train", "validation", "test")]
    assert np.array_equal(np.concatenate(parts), text.ids)
    assert len(parts[0]) == 2 * count * 7 // 10
    assert len(parts[0]) + len(parts[1]) == 2 * count * 9 // 10


def test_the_vocabulary_is_that_of_the_training_part(block: int) -> None:
    text = Text.of("abababab" + "cc" + "dd", split=(8 / 12, 2 / 12, 2 / 12))
    assert text.vocabulary.tokens == (UNKNOWN, "a", "b")
    assert text.part("test").tolist() == [0, 0]
    words = Text.of("a b a b c c d\nd d", unit="word", split=(0.7, 0.3, 0.0))
    assert words.vocabulary.tokens == (UNKNOWN, "a", "b", "c")
    assert words.part("train").tolist() == [1, 2, 1, 2, 3, 3, 0]


def test_no_split_leaves_nothing_to_validate() -> None:
    text = Text.of("machine", split=None)
    assert len(text.part("train")) == 7
    assert len(text.part("validation")) == len(text.part("test")) == 0
    with pytest.raises(ValueError, match="part must not be empty; test is, under the split none"):
        text.chunks(1, 1, part="test")
    with pytest.raises(ValueError, match="part must be train, validation or test"):
        text.part("dev")


def test_a_text_too_short_for_its_split_says_the_numbers() -> None:
    with pytest.raises(ValueError, match=r"at least 2 chars; got 7, which makes 6, 0 and 1\. .*--split none"):
        Text.of("machine")


@pytest.mark.parametrize("split", [(0.9, 0.05, 0.05), (1.0, 0.0, 0.0), None, (1 / 3, 1 / 3, 1 / 3)])
def test_a_split_survives_its_spelling(split: tuple[float, float, float] | None) -> None:
    assert parse_split(spell_split(split)) == split


@pytest.mark.parametrize(
    "wrong", ["0.9", "0.9,0.1", "0.5,0.5,0.5", "0,0.5,0.5", "a,b,c", "1.2,-0.1,-0.1", ""]
)
def test_a_wrong_split_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="split must be three fractions that sum to 1"):
        parse_split(wrong)


# Vocabularies.


@pytest.mark.parametrize("unit", ["char", "byte"])
@given(text=st.text(st.characters(max_codepoint=0x2FFF, exclude_categories=["Cs"]), min_size=2))
def test_characters_and_bytes_come_back_as_they_were(unit: str, text: str) -> None:
    known = Text.of(text, unit=unit, split=None)
    assert known.decode(known.ids) == text
    assert known.ids.dtype == (np.uint8 if known.size <= 256 else np.uint16)
    assert known.encode(text).dtype == np.int64
    assert known.characters_per_token == pytest.approx(len(text) / len(known.ids), abs=1e-15)


@given(st.text(), st.sampled_from(["char", "byte", "word"]))
def test_unseen_text_is_encoded_and_decoded_without_a_crash(text: str, unit: str) -> None:
    known = Text.of("the cat sat on the mat", unit=unit, split=None)
    ids = known.encode(text)
    assert ((ids >= 0) & (ids < known.size)).all()
    assert isinstance(known.decode(ids), str)
    assert "".join(known.vocabulary.pieces(ids)) == known.decode(ids)


def test_unknown_has_a_sign() -> None:
    assert Text.of("abc", split=None).decode([1, 0, 3]) == "a\ufffdc"
    assert Text.of("abc", split=None).encode("aÆ🙂d`c").tolist() == [1, 0, 0, 0, 0, 3]
    assert Text.of("a a b", unit="word", split=None).decode([1, 0]) == "a <unk>"
    assert Vocabulary("byte").decode([0xE9, 0x21]) == "\ufffd!"
    with pytest.raises(ValueError, match=r"ids must lie in \[0, 4\); got 4"):
        Text.of("abc", split=None).decode([4])


def test_words_are_sorted_by_falling_frequency_and_cut() -> None:
    source = "b b b a a a c c d"
    assert Text.of(source, unit="word", split=None).vocabulary.tokens == (UNKNOWN, "a", "b", "c")
    assert Text.of(source, unit="word", split=None, least=1).vocabulary.tokens[-1] == "d"
    assert Text.of(source, unit="word", split=None, most=3).vocabulary.tokens == (UNKNOWN, "a", "b")
    with pytest.raises(ValueError, match="least and most must be left out"):
        Text.of(source, most=3)


@pytest.mark.parametrize(
    "line",
    [
        "Don't go to-night, sir: 'tis late!\n\nAll: (aside) why?\n",
        'He said "come in" -- and then, "go".\n',
        "Wait... what--now; [Exeunt.]\n",
    ],
)
def test_words_are_set_with_sensible_spaces(line: str) -> None:
    text = Text.of(line, unit="word", split=None, least=1)
    assert text.decode(text.ids) == line.replace(" -- ", "--")


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_a_vocabulary_survives_json(unit: str) -> None:
    vocabulary = Text.of(MIXED, unit=unit).vocabulary
    assert Vocabulary.from_json(vocabulary.to_json()) == vocabulary
    assert Vocabulary("byte").size == 256


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        ("{", "damaged"),
        ("[]", "damaged"),
        ('{"version": 1, "unit": "char"}', "damaged"),
        ('{"version": 2, "unit": "char", "tokens": ["<unk>"]}', "must be of version 1; got 2"),
        ('{"version": 1, "unit": "char", "tokens": ["<unk>", 3]}', "strings"),
        ('{"version": 1, "unit": "char", "tokens": ["<unk>", "ab"]}', "single characters"),
        ('{"version": 1, "unit": "char", "tokens": ["a"]}', "begin with <unk>"),
        ('{"version": 1, "unit": "byte", "tokens": ["a"]}', "256"),
        ('{"version": 1, "unit": "line", "tokens": ["<unk>"]}', "char, byte or word"),
    ],
)
def test_a_bad_vocabulary_file_is_refused(saved: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Vocabulary.from_json(saved)


def test_another_text_with_a_vocabulary_in_hand() -> None:
    known = Text.of("hello hello world world", unit="word", split=None)
    other = Text.of("hello brave world", vocabulary=known.vocabulary, split=None)
    assert other.unit == "word"
    assert other.decode(other.ids) == "hello <unk> world"
    with pytest.raises(ValueError, match="unit must be that of the vocabulary, word; got char"):
        Text.of("hello", unit="char", vocabulary=known.vocabulary)


# Files.


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
@pytest.mark.parametrize("memory_map", [True, False])
def test_blocks_change_nothing(tmp_path: Path, block: int, unit: str, memory_map: bool) -> None:
    path = write(tmp_path, "mixed.txt", MIXED)
    text = Text(path, unit=unit, memory_map=memory_map)
    whole = Text.of(MIXED, unit=unit)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", 1 << 20)
        plain = Text.of(MIXED, unit=unit)
    for other in (whole, plain):
        assert text.vocabulary == other.vocabulary
        assert np.array_equal(text.ids, other.ids)
        assert text.characters_per_token == other.characters_per_token
    assert isinstance(text.ids, np.memmap) == memory_map


def test_folders_and_several_files(tmp_path: Path) -> None:
    write(tmp_path, "b.txt", "two")
    write(tmp_path, "a/z.txt", "one\n")
    write(tmp_path, "empty.txt", "")
    write(tmp_path, "notes.md", "not me")
    folder = Text(tmp_path, split=None)
    assert [path.name for path in folder.files] == ["z.txt", "b.txt", "empty.txt"]
    assert folder.decode(folder.ids) == "one\ntwo"
    both = Text([tmp_path / "b.txt", str(tmp_path / "a")], split=None)
    assert both.decode(both.ids) == "two\none\n"
    raw = Text([tmp_path / "b.txt", tmp_path / "b.txt"], unit="byte", split=None)
    assert raw.decode(raw.ids) == "twotwo"
    assert both.describe()["source"] == [str(tmp_path / "b.txt"), str(tmp_path / "a")]


def test_describe_is_plain_and_rebuilds_the_text(tmp_path: Path) -> None:
    path = write(tmp_path, "mixed.txt", MIXED)
    described = Text(str(path), unit="word", most=9).describe()
    assert described == {
        "source": [str(path)],
        "unit": "word",
        "split": "0.9,0.05,0.05",
        "least": 2,
        "most": 9,
    }
    assert Text.of("machine", split=None).describe() == {"text": "machine", "unit": "char", "split": "none"}
    assert Text.of("x" * 10_000).describe()["characters"] == 10_000


def test_a_byte_order_mark_is_dropped_and_line_ends_are_kept(tmp_path: Path, block: int) -> None:
    path = write(tmp_path, "windows.txt", b"\xef\xbb\xbfa\r\nb\xef\xbb\xbf")
    text = Text(path, split=None)
    assert text.decode(text.ids) == "a\r\nb\ufeff"
    assert Text(path, unit="byte", split=None).ids[:3].tolist() == [0xEF, 0xBB, 0xBF]


@given(st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"\0", b"\x01")), st.integers(1, 9))
def test_the_offset_of_the_first_bad_byte_is_exact(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, block: int
) -> None:
    path = tmp_path_factory.mktemp("bad") / "bad.txt"
    path.write_bytes(raw)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        try:
            expected = raw.decode().removeprefix("\ufeff")
        except UnicodeDecodeError as error:
            sentence = (
                rf"'.*bad.txt' must be UTF-8 text; the byte 0x.. at offset {error.start} is not.*--unit byte"
            )
            with pytest.raises(ValueError, match=sentence):
                Text(path, split=None)
        else:
            assert "".join(reading.Files.at(path).characters()) == expected
    path.unlink()


def test_a_binary_file_is_refused_unless_bytes_are_wanted(tmp_path: Path, block: int) -> None:
    path = write(tmp_path, "image.txt", b"12\xe2\x82\xac\0" + b"x" * 9)
    with pytest.raises(ValueError, match=r"it is binary \(a NUL byte at offset 5\).*--unit byte"):
        Text(path)
    assert len(Text(path, unit="byte", split=None).ids) == 15


def test_bad_sources_are_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="source must be an existing file or folder; got 'nowhere"):
        Text("nowhere.txt")
    with pytest.raises(ValueError, match=r"folder with \.txt files; got .*which has none"):
        Text(tmp_path)
    with pytest.raises(ValueError, match="source must be a path or several; got none"):
        Text([])
    with pytest.raises(ValueError, match=r"must be a plain file \(it is read twice\)"):
        Text("/dev/null")
    empty = write(tmp_path, "empty.txt", "")
    for unit in ("char", "byte", "word"):
        for memory_map in (True, False):
            with pytest.raises(ValueError, match=r"source must not be empty; '.*empty.txt' holds no"):
                Text(empty, unit=unit, memory_map=memory_map)
    with pytest.raises(ValueError, match="the text holds no word"):
        Text.of("  \t ", unit="word")
    with pytest.raises(ValueError, match="unit must be char, byte or word; got 'line'"):
        Text.of("a", unit="line")


# Size.


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_memory_stays_flat_for_a_corpus_larger_than_a_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    block = 1 << 13
    monkeypatch.setattr(reading, "BLOCK", block)
    path = write(tmp_path, "large.txt", "the quick brown fox -- café -- jumps\n" * 14_000)
    Text.of("warm up, once", unit=unit, split=None)
    tracemalloc.start()
    text = Text(path, unit=unit, memory_map=True)
    for index in (0, 1, -1):
        text.chunks(8, 32)[index]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert path.stat().st_size > 60 * block
    # A block as a list of Python words is about 16 times its bytes; as code points, cast to be counted, 12.
    assert peak < 40 * block
    plain = Text(path, unit=unit, memory_map=False)
    assert np.array_equal(text.ids, plain.ids)
    one, other = text.chunks(5, 33)[7], plain.chunks(5, 33)[7]
    assert torch.equal(one.x, other.x)
    assert torch.equal(one.y, other.y)


def test_the_temporary_file_goes_with_the_text(tmp_path: Path) -> None:
    text = Text(write(tmp_path, "a.txt", "hello " * 99), memory_map=True)
    file = Path(text.ids.filename)
    chunks = text.chunks(2, 5)
    del text
    gc.collect()
    assert file.exists()
    assert chunks[0].steps == 5
    del chunks
    gc.collect()
    assert not file.exists()


def test_a_megabyte_is_read_in_well_under_a_second(tmp_path: Path) -> None:
    path = write(tmp_path, "megabyte.txt", "The quick brown fox jumps over the lazy dog.\n" * 23_000)
    start = time.perf_counter()
    Text(path)
    assert time.perf_counter() - start < 0.7  # about 0.04 s on an idle core
