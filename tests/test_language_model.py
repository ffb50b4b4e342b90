"""LanguageModel: the laws of checking.py, its score by hand, samples, streams that go on, refusals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from throughtime.credit import BPTT
from throughtime.estimators.checking import check_sequence_estimator
from throughtime.estimators.language import LanguageModel
from throughtime.recipe import recipe

RHYME = ["one two three four", "five six seven eight", "nine ten"] * 8


def fitted(**options) -> LanguageModel:
    return LanguageModel(**{"updates": 5, "units": 8, "random_state": 0} | options).fit(RHYME)


@pytest.mark.parametrize("unit", ["char", "word", "byte"])
def test_the_laws_of_an_estimator(unit):
    assert len(check_sequence_estimator(LanguageModel(updates=2, units=4, unit=unit), "language")) == 11


@pytest.mark.parametrize("unit", ["char", "byte", "word"])
def test_the_score_is_the_mean_log_probability_of_each_token_after_a_line_break(unit):
    model = fitted(unit=unit)
    texts = ["two one", "", "ten x"]
    logs = []
    for text in texts:
        ids = model.vocabulary_.encode("\n" + text)
        for place in range(1, len(ids)):
            before = model.vocabulary_.decode(ids[1:place]) if unit != "byte" else text.encode()[: place - 1].decode()
            row = model.predict_proba([before])[0]
            logs.append((text, np.log(row[ids[place]])))
    assert model.score(texts) == pytest.approx(np.mean([log for _, log in logs]), rel=1e-5)
    for text, log in zip(texts, model.score_samples(texts), strict=True):
        assert log == pytest.approx(sum(part for name, part in logs if name == text), rel=1e-5)
    assert model.perplexity(texts) == pytest.approx(np.exp(-model.score(texts)))


def test_it_learns_and_goes_on_with_the_prompt():
    model = LanguageModel(updates=150, units=24, random_state=0).fit(["abcabcabcabc"] * 30)
    assert model.sample("ab", 7, temperature=0) == "cabcabc"
    assert model.perplexity(["abcabc"]) < 1.2
    assert model.predict(["ab", "abca"]).tolist() == ["c", "b"]


def test_samples_repeat_under_a_seed_and_draw_no_unknown_token():
    model = fitted(updates=1)
    assert model.sample("one", 30, seed=3) == model.sample("one", 30, seed=3) != model.sample("one", 30, seed=4)
    assert "�" not in model.sample("", 300, seed=0)
    assert model.sample("one", 0) == ""
    with pytest.raises(ValueError, match="length must be at least 0"):
        model.sample("one", -1)


def test_a_string_is_one_text():
    one, many = (LanguageModel(updates=3, units=4, random_state=0).fit(X) for X in ("one two", ["one two"]))
    assert one.score("two one") == many.score(["two one"])


def test_the_choices_are_those_of_the_recipe_and_yield():
    model = LanguageModel(updates=2, random_state=0).fit(RHYME)
    targets = sum(len(line) + 1 for line in RHYME)
    assert model.recipe_ == replace(recipe(targets, "char", updates=2), updates=2)
    assert model.n_iter_ == 2
    assert model.credit_ == BPTT(h=model.recipe_.steps, every=model.recipe_.steps)
    own = fitted(units=5, steps=7, streams=2, learning_rate=1e-3, credit="rtrl", layers=2, cell="gru")
    assert (own.recipe_.units, own.recipe_.steps, own.recipe_.streams, own.recipe_.rate) == (5, 7, 2, 1e-3)
    assert own.net_.layers.depth == 2


def test_partial_fit_carries_the_stream_on():
    """What the state is after many calls is what it is after reading the whole stream."""
    model = LanguageModel(units=4, random_state=0, learning_rate=1e-12, weight_decay=0).partial_fit(["ab", "ba"])
    model.partial_fit("aab").partial_fit("")
    ids = torch.from_numpy(model.vocabulary_.encode("\nab\nba\naab\n"))
    with torch.no_grad():
        _, wanted = model.net_(ids[:-1, None])
    for a, b in zip(model.state_, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    assert model.last_.tolist() == [int(ids[-1])]
    assert sum(record["epoch"] == 0 for record in model.records_) == model.n_iter_


def test_each_new_token_of_partial_fit_is_a_target_once():
    model = LanguageModel(units=4, steps=3, random_state=0)
    counts = [model.partial_fit(text).records_[-1]["targets"] for text in ("abcd", "ab", "abcdefg")]
    assert counts == [4, 3, 8]


def test_partial_fit_after_fit_gets_better_at_what_it_reads():
    model = fitted()
    before = model.score("zebra zebra")
    for _ in range(5):
        model.partial_fit(RHYME)
    assert model.score(RHYME) > fitted().score(RHYME)
    assert np.isfinite(before)


def test_early_stopping_keeps_the_best_weights():
    model = fitted(updates=40, early_stopping=True, validation_fraction=0.3, patience=2, units=4)
    looks = [record["validation"] for record in model.records_ if record["validation"] is not None]
    assert looks
    assert min(looks) == min(r["best"] for r in model.records_ if r["best"] is not None)


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({}, "", "X must have a text that is not empty"),
        ({}, [], "X must have a text that is not empty"),
        ({}, b"abc", "X must be a string or a list of strings; got bytes"),
        ({}, ["a", 3], "got int in it"),
        ({}, 7, "got int"),
        ({"least": 3}, "abc", "least must go with unit='word'"),
        ({"unit": "line"}, "abc", "unit must be char, byte or word"),
        ({"patience": 3}, "abc", "patience must go with early_stopping=True"),
        ({"validation_fraction": 0.2}, "abc", "validation_fraction must go with early_stopping=True"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "abc", "between 0 and 1"),
        ({"cell": "mlp"}, "abc", "mlp"),
    ],
)
def test_what_does_not_fit_is_refused(options, X, message):
    with pytest.raises((ValueError, TypeError), match=message):
        LanguageModel(**{"updates": 1, "units": 4} | options).fit(X)


def test_scoring_on_nothing_is_refused():
    with pytest.raises(ValueError, match="got none to score on"):
        fitted(updates=1).score(["", ""])
