"""Words as ids and their parts: definitions, unknown words, weights, and the network that reads them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from throughtime.estimators.words import ENDS, PAD, UNKNOWN, WordReader, parts_of, shape_of
from throughtime.nets import build
from throughtime.token_network import TokenNetwork

LINES = ["The cat sat on the mat.", "A cat is on the old mat", "the dog ran", "dogs and cats ran on"]


def test_the_parts_of_a_token_are_its_shape_and_all_n_grams():
    marked = "^ab1$"
    grams = [marked[a:b] for n in (2, 3, 4) for a in range(5) if (b := a + n) <= 5]
    assert list(parts_of("aB1")) == [" xX0", *grams]
    assert shape_of("HelloWorld-42_x") == "XxXx-0_x"


def test_of_a_long_token_the_ends_are_read_and_every_count_of_parts_is_bounded():
    long = "abcdefgh" + "x" * 10_000 + "stuvwxyz"
    parts = list(parts_of(long))
    assert "^abc" in parts
    assert "xyz$" in parts
    assert not any("xx" in part for part in parts[1:])
    assert max(len(list(parts_of("q" * length))) for length in (2 * ENDS, 2 * ENDS + 1, 9999)) <= 60


def test_ids_name_tokens_and_grams_and_nothing_else():
    reader = WordReader(least=2).fit(LINES)
    assert reader.chosen == "word"
    assert set(reader.tokens) == {"the", "cat", "on", "mat", "ran"}
    names = dict(enumerate((*reader.tokens, *reader.grams), start=2))
    for line, ids in zip(LINES, reader.read(LINES), strict=True):
        for token, row in zip(reader.split(line), ids, strict=True):
            assert row[0] == UNKNOWN if token not in reader.tokens else names[row[0]] == token
            read = [names[id] for id in row[1:] if id != PAD]
            assert read == [part for part in parts_of(token) if part in reader.grams]
    assert max(ids.max() for ids in reader.read(LINES)) < reader.inputs


def test_an_unknown_word_is_read_by_its_parts():
    first, second = (
        WordReader(unit="word", least=1).fit(["walking talking", "parking sleeping"]).read(["barking zzzz"])[0]
    )
    assert first[0] == second[0] == UNKNOWN
    assert (first[1:] > 0).sum() > 5
    assert (second[1:] > 0).sum() <= 1


def test_equal_texts_count_once_and_those_without_weight_not_at_all():
    texts = ["one two", "one two", "three four five"]
    assert WordReader(least=2, unit="word").fit(texts).tokens == ()
    assert WordReader(least=2, unit="word").fit([*texts, "one six"]).tokens == ("one",)
    weighted = WordReader(least=1, unit="word").fit(texts, [1, 3, 0])
    assert weighted.tokens == WordReader(least=1, unit="word").fit(texts[:1]).tokens


@pytest.mark.parametrize(
    ("texts", "unit"),
    [
        (["Smith", "Miller", "Baker"], "char"),
        (["今天天气很好我们去公园", "他们在学校里学习中文呢"], "char"),
        (["a line of words", "and another line"], "word"),
        ([["a", "b"], ["c"]], "token"),
        (["", ""], "char"),
    ],
)
def test_auto_takes_characters_for_names_and_for_text_without_spaces(texts, unit):
    reader = WordReader(least=1).fit(texts)
    assert reader.chosen == unit
    assert [len(ids) for ids in reader.read(texts)] == [len(reader.split(text)) for text in texts]


def test_longest_cuts_and_says_how_many():
    reader = WordReader(least=1, longest=3).fit(["a b c d e", "a b c"])
    assert [len(ids) for ids in reader.read(["a b c d e", "a b c"])] == [3, 3]
    assert reader.cut(["a b c d e", "a b c"]) == 1
    assert reader.notes(["a b c d e", "a b c"]) == ("1 of 2 texts is longer than 3 words; the first 3 are read.",)
    assert reader.notes(["a b c"]) == ()
    assert WordReader(least=1).fit(["a b"]).cut(["a b"]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"unit": "byte"}, "unit must be auto, word, char"),
        ({"least": 0}, "least and most must be at least 1"),
        ({"longest": 0}, "longest must be at least 1 step"),
    ],
)
def test_wrong_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        WordReader(**arguments)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("a text", "X must be a list of texts; got str"),
        (["a", ["b"]], "a mixture"),
        (["a", 3], r"got int in X\[1\]"),
        ([["a", 2]], r"got int in X\[0\]"),
    ],
)
def test_what_is_no_text_is_refused(texts, message):
    with pytest.raises(TypeError, match=message):
        WordReader().fit(texts)


def test_texts_and_sentences_are_not_taken_for_each_other():
    with pytest.raises(TypeError, match="X must be lists of tokens"):
        WordReader().fit([["a"], ["b"]]).read(["a"])
    with pytest.raises(TypeError, match="X must be strings"):
        WordReader().fit(["a b c"]).read([["a"]])


def network(**options) -> TokenNetwork:
    torch.manual_seed(0)
    return TokenNetwork("gru", inputs=9, embedding=3, units=4, outputs=2, **options).eval()


def test_a_step_is_the_mean_of_the_vectors_of_its_features():
    net, x = network(), torch.tensor([[[2, 5, 0], [1, 0, 0]], [[8, 7, 6], [0, 0, 0]]])
    table = net.embed.weight
    wanted = [[(table[2] + table[5]) / 2, table[1]], [(table[8] + table[7] + table[6]) / 3, torch.zeros(3)]]
    torch.testing.assert_close(net.vectors(x), torch.stack([torch.stack(row) for row in wanted]))
    torch.testing.assert_close(net.vectors(x[..., 0]), table[x[..., 0]] * (x[..., :1] > 0))
    wider = torch.cat((x, torch.zeros(2, 2, 4, dtype=torch.long)), -1)
    assert torch.equal(net.vectors(x), net.vectors(wider))


def test_forgetting_touches_the_own_id_alone_and_only_in_training():
    net = network(forget=0.5)
    with torch.no_grad():
        net.embed.weight.copy_(torch.arange(9.0)[:, None].expand(9, 3))
    x = torch.tensor([2, 8]).expand(400, 1, 2)
    assert torch.equal(net.vectors(x), torch.full((400, 1, 3), 5.0))
    found = net.train().vectors(x)[:, 0, 0]
    assert set(found.tolist()) == {5.0, 4.5}
    assert 0.4 < float((found == 4.5).float().mean()) < 0.6


def test_build_makes_the_network_of_a_config_and_steps_are_the_whole():
    net = network(reads="mean", dropout=0.2)
    assert build(net.config()).config() == net.config()
    x = torch.randint(1, 9, (5, 2, 3))
    whole, _ = net(x)
    state, parts = None, []
    for step in x:
        y, state = net(step[None], state)
        parts.append(y)
    torch.testing.assert_close(torch.cat(parts), whole)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.zeros(2, 2, 3), "x must be ids"),
        (torch.tensor([[9]]), "x"),
        (torch.zeros(3, dtype=torch.long), "x must be ids"),
    ],
)
def test_the_network_refuses_what_are_no_ids(x, message):
    with pytest.raises(ValueError, match=message):
        network()(x)


def test_reading_does_not_depend_on_what_else_is_read():
    reader = WordReader(least=1).fit(LINES)
    alone = [reader.read([line])[0] for line in LINES]
    for one, other in zip(reader.read(LINES), alone, strict=True):
        width = min(one.shape[1], other.shape[1])
        assert np.array_equal(one[:, :width], other[:, :width])
        assert not one[:, width:].any()
        assert not other[:, width:].any()
