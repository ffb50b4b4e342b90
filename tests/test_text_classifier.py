"""SequenceClassifier and SequenceRegressor on texts, beside TF-IDF with logistic regression."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.baselines.texts import WordBaseline
from throughtime.estimators.checking import check_sequence_estimator
from throughtime.estimators.saving import load_estimator, save
from throughtime.estimators.sequences import SequenceClassifier, SequenceRegressor
from throughtime.estimators.texts import TextRecipe, for_texts
from throughtime.token_network import TokenNetwork

SUBJECTS = ("the cat", "a dog", "my old friend", "this film", "their music")
GOOD, BAD = ("lovely", "splendid", "brilliant", "pleasant"), ("dreadful", "awful", "boring", "nasty")


def reviews(count: int, seed: int) -> tuple[list[str], list[str]]:
    """`x is [not] adjective`: not turns it round, so that single words do not tell."""
    chance = np.random.default_rng(seed)
    texts, labels = [], []
    for _ in range(count):
        good, turned = chance.integers(0, 2, 2)
        adjective = str(chance.choice((BAD, GOOD)[good]))
        words = [str(chance.choice(SUBJECTS)), "is", "not" if turned else "really", "so very", adjective]
        texts.append(" ".join(words) + " and that is that")
        labels.append("good" if good != turned else "bad")
    return texts, labels


@pytest.mark.parametrize("options", [{}, {"unit": "char", "bidirectional": False}])
def test_the_laws_of_an_estimator(options):
    assert len(check_sequence_estimator(SequenceClassifier(updates=2, units=4, **options), "texts")) == 13


def test_it_learns_what_the_order_of_words_says():
    X, y = reviews(200, 0)
    new, truth = reviews(100, 1)
    network = SequenceClassifier(units=32, random_state=0).fit(X, y)
    assert network.score(new, truth) > 0.9 > 0.7 > np.mean(WordBaseline().fit(X, y).predict(new) == truth)


def test_names_are_read_by_their_characters():
    chance = np.random.default_rng(0)
    stem = lambda: "".join(chance.choice(list("bdfgklmnprst"), 4))  # noqa: E731
    X = [stem() + str(end) for end in chance.choice(["a", "o"], 200)]
    y = [text[-1] for text in X]
    network = SequenceClassifier(updates=150, units=16, random_state=0).fit(X, y)
    assert network.reader_.chosen == "char"
    assert network.score([stem() + "a", stem() + "o"], ["a", "o"]) == 1.0


def test_the_regressor_reads_texts():
    X = [" ".join(["ping"] * k + ["pong"] * (5 - k)) for k in range(6)] * 5
    y = [float(k) for k in range(6)] * 5
    assert SequenceRegressor(updates=100, units=8, random_state=0).fit(X, y).score(X, y) > 0.9


def test_the_network_is_that_of_the_recipe_and_what_is_asked_for_stands():
    X, y = reviews(40, 0)
    plain = SequenceClassifier(updates=1, random_state=0).fit(X, y)
    assert plain.recipe_ == TextRecipe(updates=1)
    assert isinstance(plain.net_, TokenNetwork)
    own = SequenceClassifier(updates=1, units=5, reads="max", dropout=0.1, bidirectional=False).fit(X, y)
    assert (own.recipe_.units, own.recipe_.reads, own.recipe_.bidirectional) == (5, "max", False)
    mlp = SequenceClassifier(updates=1, cell="mlp", window=3).fit(X, y)
    size = lambda estimator: sum(weight.numel() for weight in estimator.net_.parameters())  # noqa: E731
    assert abs(size(mlp) - size(plain)) / size(plain) < 0.02


def test_longer_trainings_for_more_texts_but_bounded_in_steps():
    assert for_texts(100, 1000).updates == 400
    assert for_texts(5000, 50_000).updates == 15 * 157
    assert for_texts(10**6, 10**7).updates == 6000
    assert for_texts(1000, 10**7).updates == 200


def test_texts_of_the_test_may_hold_what_was_never_seen(tmp_path):
    X, y = reviews(40, 0)
    network = SequenceClassifier(updates=2, random_state=0).fit(X, y)
    strange = ["", "zzz qqq", "Ω≈ç 🙂", "so lovely", "a" * 5000, "word " * 3000]
    found = network.predict_proba(strange)
    assert np.allclose(found.sum(1), 1)
    loaded = load_estimator(save(network, tmp_path / "saved"))
    assert np.array_equal(loaded.predict_proba(strange), found)


@pytest.mark.parametrize(
    ("options", "X", "message"),
    [
        ({"noise": 0.5}, ["a b c", "d e f"], "noise must be left out for texts"),
        ({"unit": "line"}, ["a b c", "d e f"], "unit must be auto, word, char"),
        ({"longest": 0}, ["a b c", "d e f"], "longest must be at least 1"),
        ({"layout": "nct"}, ["a b c", "d e f"], "layout and lengths must be left out for texts"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, X, message):
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(updates=1, **options).fit(X, [0, 1])


# The baseline


def test_the_baseline_by_its_definition():
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    X, y = reviews(60, 0)
    rows = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b").fit(X)
    model = LogisticRegression(C=10.0, max_iter=2000).fit(rows.transform(X), y)
    found = WordBaseline().fit(X, y)
    np.testing.assert_allclose(found.predict_proba(X), model.predict_proba(rows.transform(X)))
    assert found.predict(X).tolist() == model.predict(rows.transform(X)).tolist()


def test_the_baseline_on_odd_texts():
    assert WordBaseline().fit(["!?", "..!"], [0, 1]).predict(["!?"]).tolist() == [0]
    assert WordBaseline().fit(["a b", "c"], ["x", "x"]).predict(["q", ""]).tolist() == ["x", "x"]
    with pytest.raises(ValueError, match="texts must have a text that is not empty"):
        WordBaseline().fit(["", ""], [0, 1])
