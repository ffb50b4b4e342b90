"""SequenceTagger: the laws of checking.py, what it learns, weights, credits, streams, refusals; spans; baselines."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils._pytree import tree_leaves

from throughtime.baselines.tags import UsualTag, WindowedTag
from throughtime.credit import BPTT
from throughtime.estimators.checking import check_sequence_estimator
from throughtime.estimators.spans import SpanScore, is_bio, span_score, spans_of
from throughtime.estimators.steps import class_weights
from throughtime.estimators.tagger import SequenceTagger
from throughtime.sequence_network import SequenceNetwork
from throughtime.token_network import TokenNetwork


def sentences(count: int, seed: int, stems: tuple[str, ...] = ("walk", "park", "call", "jump", "sort")):
    """Words whose ending gives the tag, except that what follows `not` is N whatever it ends in."""
    chance = np.random.default_rng(seed)
    X, y = [], []
    for _ in range(count):
        row = [str(chance.choice(stems)) + str(chance.choice(["ing", "ed", "s"])) for _ in range(chance.integers(1, 8))]
        row = [word if chance.random() > 0.2 else "not" for word in row]
        tags = ["O" if word == "not" else {"g": "G", "d": "D", "s": "S"}[word[-1]] for word in row]
        X.append(row)
        y.append(["N" if k and row[k - 1] == "not" and tag != "O" else tag for k, tag in enumerate(tags)])
    return X, y


@pytest.mark.parametrize(
    ("kind", "options"),
    [("tokens", {}), ("frames", {"bidirectional": False})],
)
def test_the_laws_of_an_estimator(kind, options):
    assert len(check_sequence_estimator(SequenceTagger(updates=3, units=5, **options), kind)) == 13


def test_it_learns_context_and_reads_unseen_words_by_their_ends():
    X, y = sentences(200, 0)
    tagger = SequenceTagger(updates=200, units=16, random_state=0).fit(X, y)
    new, truth = sentences(50, 1, stems=("kick", "blend", "mutter"))
    assert tagger.score(*sentences(50, 2)) > 0.98
    assert tagger.score(new, truth) > 0.9
    assert UsualTag().fit(X, y).predict([["kicking", "zzz"]])[0][0] == "G"


def test_both_directions_see_what_follows_and_one_does_not():
    chance = np.random.default_rng(0)
    X = [chance.integers(0, 2, (chance.integers(2, 9), 1)).astype(float) for _ in range(150)]
    y = [np.append(frame[1:, 0], 0).astype(int) for frame in X]  # the next value
    both, one = (
        SequenceTagger(updates=150, units=8, bidirectional=way, random_state=0).fit(X, y) for way in (True, False)
    )
    assert both.score(X, y) > 0.98 > 0.8 > one.score(X, y)


def test_score_is_the_weighted_share_of_steps():
    X, y = sentences(12, 0)
    tagger = SequenceTagger(updates=5, units=4, random_state=0).fit(X, y)
    right = [[a == b for a, b in zip(found, row, strict=True)] for found, row in zip(tagger.predict(X), y, strict=True)]
    assert tagger.score(X, y) == pytest.approx(sum(map(sum, right)) / sum(map(len, right)))
    weight = [np.arange(len(row), dtype=float) for row in X]
    share = sum(float(np.dot(r, w)) for r, w in zip(right, weight, strict=True)) / sum(float(w.sum()) for w in weight)
    assert tagger.score(X, y, weight) == pytest.approx(share)


def test_the_weight_of_a_step_is_that_of_its_error():
    """A step of weight 0 is read but never learned from, even if its tag is one of a kind."""
    X, y = sentences(30, 0)
    weight = [np.ones(len(row)) for row in X]
    other = [list(row) for row in y]
    weight[3][0], other[3][0] = 0.0, "odd"
    first, second = (SequenceTagger(updates=5, units=4, random_state=0).fit(X, tags, weight) for tags in (y, other))
    assert "odd" not in second.classes_.tolist()
    assert all(np.array_equal(a, b) for a, b in zip(first.predict_proba(X), second.predict_proba(X), strict=True))


def test_balanced_tags_weigh_the_same_in_sum():
    ids, weight = [np.array([0, 0, 0, 1]), np.array([2, 0])], [np.ones(4), np.array([2.0, 1.0])]
    factor = class_weights("balanced", np.array(["a", "b", "c"]), ids, weight)
    sums = np.bincount(np.concatenate(ids), np.concatenate(weight) * factor[np.concatenate(ids)])
    np.testing.assert_allclose(sums, 7 / 3)
    assert class_weights({"b": 3.0}, np.array(["a", "b"]), ids, weight).tolist() == [1.0, 3.0]


CREDITS = ["bptt:h=3,every=2", "parallel:h=3", "random", "adaptive", "rtrl", "snap", "rflo", "uoro"]


@pytest.mark.parametrize("credit", CREDITS)
@pytest.mark.parametrize("kind", ["tokens", "frames"])
def test_any_credit_learns_in_one_direction(credit, kind):
    X, y = sentences(6, 0)
    X = X if kind == "tokens" else [np.array([[len(word), word == "not"] for word in row], float) for row in X]
    tagger = SequenceTagger(updates=3, units=4, credit=credit, random_state=0).fit(X, y)
    assert tagger.n_iter_ == 3
    assert not tagger.recipe_.bidirectional
    assert [len(row) for row in tagger.predict(X)] == [len(row) for row in X]


def test_the_network_is_the_one_that_is_asked_for():
    X, y = sentences(6, 0)
    frames = [np.ones((len(row), 2)) for row in X]
    fitted = lambda X, **options: SequenceTagger(updates=1, random_state=0, **options).fit(X, y).net_  # noqa: E731
    assert isinstance(fitted(X), TokenNetwork)
    assert isinstance(fitted(frames), SequenceNetwork)
    for data in (X, frames):
        gru, mlp = fitted(data), fitted(data, cell="mlp", window=3)
        size = lambda net: sum(weight.numel() for weight in net.parameters())  # noqa: E731
        assert abs(size(mlp) - size(gru)) / size(gru) < 0.02


@pytest.mark.parametrize("cell", ["gru", "lstm", "mlp"])
def test_streams_step_by_step_are_the_whole(cell):
    X, y = sentences(12, 0)
    options = {"cell": "mlp", "window": 3} if cell == "mlp" else {"cell": cell, "bidirectional": False}
    tagger = SequenceTagger(updates=3, units=4, random_state=0, **options).fit(X, y)
    whole = tagger.predict(X)
    state, parts = None, [[] for _ in X]
    for step in range(max(map(len, X))):
        found, state = tagger.predict_on([row[step : step + 1] for row in X], state)
        for part, tags in zip(parts, found, strict=True):
            part.extend(tags.tolist())
    assert parts == [tags.tolist() for tags in whole]
    with pytest.raises(ValueError, match="the same 12 streams; got 2"):
        tagger.predict_on(X[:2], state)


def test_what_needs_the_future_is_refused_with_the_way_out():
    X, y = sentences(6, 0)
    tagger = SequenceTagger(updates=1, random_state=0).fit(X, y)
    for call in (lambda: tagger.predict_on(X), lambda: tagger.partial_fit(X, y, carry=True)):
        with pytest.raises(ValueError, match=r"SequenceTagger\(bidirectional=False\)"):
            call()
    with pytest.raises(ValueError, match="Set bidirectional=False"):
        SequenceTagger(credit="bptt:h=3,every=1", bidirectional=True).fit(X, y)


def test_partial_fit_goes_on_and_carries_the_state():
    X, y = sentences(8, 0)
    tagger = SequenceTagger(units=4, bidirectional=False, random_state=0)
    with pytest.raises(ValueError, match="classes must be given in the first call"):
        tagger.partial_fit(X, y)
    tags = sorted({tag for row in y for tag in row})
    tagger.partial_fit(X, y, classes=tags)
    before = tagger.n_iter_
    tagger.partial_fit(X, y, carry=True)
    _, wanted = tagger.predict_on(X)
    held, stood = ([part for part in tree_leaves(state) if part is not None] for state in (tagger.state_, wanted))
    assert held
    assert all(torch.equal(a, b) for a, b in zip(held, stood, strict=True))
    tagger.partial_fit(X, y, carry=True)
    assert tagger.n_iter_ == before + 2
    with pytest.raises(ValueError, match="the same 8 streams"):
        tagger.partial_fit(X[:3], y[:3], carry=True)
    with pytest.raises(ValueError, match="classes must be those of before"):
        tagger.partial_fit(X, y, classes=["z"])


def test_long_sequences_are_learned_in_pieces_and_it_is_said():
    chance = np.random.default_rng(0)
    X = [chance.normal(size=(40, 1)), chance.normal(size=(7, 1))]
    y = [(frame[:, 0] > 0).astype(int) for frame in X]
    tagger = SequenceTagger(updates=2, units=4, longest=16, random_state=0).fit(X, y)
    assert tagger.notes_ == ("1 of 2 sequences are longer than 16 steps and learned in pieces.",)
    assert [len(tags) for tags in tagger.predict(X)] == [40, 7]
    cut = SequenceTagger(updates=2, units=4, random_state=0).fit(
        [X[0][:16], X[0][16:32], X[0][32:], X[1]], [y[0][:16], y[0][16:32], y[0][32:], y[1]]
    )
    assert cut.notes_ == ()
    assert cut.records_[0]["targets"] == tagger.records_[0]["targets"] == 47


def test_early_stopping_holds_out_the_last_and_keeps_the_best():
    X, y = sentences(40, 0)
    tagger = SequenceTagger(
        updates=60, units=4, early_stopping=True, validation_fraction=0.25, patience=3, random_state=0
    ).fit(X, y)
    looks = [record for record in tagger.records_ if record["validation"] is not None]
    ends = tagger.predict_log_proba(X[30:])
    lost = [
        -row[np.arange(len(tags)), np.searchsorted(tagger.classes_, tags)]
        for row, tags in zip(ends, y[30:], strict=True)
    ]
    assert np.concatenate(lost).mean() == pytest.approx(min(r["validation"] for r in looks), rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "window must go with cell='mlp'"),
        ({"cell": "mlp"}, "window must go with cell='mlp': the steps that it sees"),
        ({"cell": "mlp", "window": 2, "bidirectional": True}, "bidirectional must be left out"),
        ({"units": 0}, "units must be a whole number of at least 1"),
        ({"updates": 0}, "updates must be a whole number"),
        ({"patience": 3}, "patience must go with early_stopping=True"),
        ({"early_stopping": True, "validation_fraction": 2}, "validation_fraction must be between 0 and 1"),
        ({"class_weight": {"Z": 1.0}}, "class_weight must be of the tags"),
        ({"class_weight": "odd"}, "class_weight must be a dict"),
        ({"credit": "magic"}, "magic"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SequenceTagger(**options).fit(*sentences(6, 0))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (["a b", "c"], [["A"], ["B"]], "X must be lists of tokens or arrays of numbers; got strings"),
        ([["a", "b"]], [["A"]], r"y\[0\] is \(1,\) for a sequence of 2 steps"),
        ([["a"]], [[1.5]], "y must be tags, all strings or all whole numbers; got 1.5"),
        ([["a", "b"]], [["A", None]], "got None in y"),
        ([["a", "b"]], [["A", float("nan")]], "got nan in y"),
        ([["a", "b"]], [["A", 1]], "got 1 in y"),
        ([["a"], ["b"]], [["A"], [1]], "all strings or all whole numbers"),
        ([["a"]], "A", "y must be a list of sequences of tags"),
        ([["a"], [1]], [["A"], ["B"]], r"got int in X\[1\]"),
        (np.ones((2, 3)), [["A"] * 3] * 2, r"X must be sequences of frames, \(N, T, I\)"),
        ([[[1.0], [np.nan]]], [[1, 0]], "NaN in sequence 0, step 1"),
        ([[]], [[]], "X must have a sequence with a step"),
    ],
)
def test_data_that_do_not_fit_are_refused(X, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        SequenceTagger(updates=1).fit(X, y)


def test_one_tag_alone_and_numbers_as_tags():
    X = [["a", "b"], ["c"]]
    assert SequenceTagger(updates=1).fit(X, [["A", "A"], ["A"]]).predict([["q"]])[0].tolist() == ["A"]
    tags = SequenceTagger(updates=1).fit(X, [[3, -1], [3]]).predict(X)
    assert tags[0].dtype.kind == "i"
    assert set(np.concatenate(tags).tolist()) <= {3, -1}


def test_a_credit_object_is_taken_as_it_is():
    tagger = SequenceTagger(updates=1, credit=BPTT(h=2), bidirectional=False).fit(*sentences(3, 0))
    assert tagger.credit_ == BPTT(h=2)


# Spans


def test_spans_by_hand():
    tags = ["B-x", "I-x", "B-x", "O", "I-y", "I-x", "I-x", "O"]
    assert spans_of(tags) == [("x", 0, 2), ("x", 2, 3), ("y", 4, 5), ("x", 5, 7)]
    assert spans_of([]) == []
    assert is_bio([tags])
    assert not is_bio([["O"]])
    assert not is_bio([["B-x", "N"]])


def test_the_score_of_spans_by_hand():
    score = span_score([["B-x", "I-x", "O", "B-y"]], [["B-x", "O", "O", "B-y"]])
    assert score == SpanScore(2, 2, 1)
    assert score.precision == score.recall == score.f1 == 0.5
    assert span_score([["O"]], [["O"]]).f1 == 1.0
    assert span_score([["B-x"]], [["O"]]).f1 == 0.0
    with pytest.raises(ValueError, match="the lengths of true"):
        span_score([["O"]], [["O", "O"]])


# Baselines


def test_the_usual_tag_is_a_count():
    X, y = sentences(40, 0)
    tags = {word: Counter() for row in X for word in row}
    for row, tag in zip(X, y, strict=True):
        for word, found in zip(row, tag, strict=True):
            tags[word][found] += 1
    found = UsualTag().fit(X, y).predict(X)
    for row, predicted in zip(X, found, strict=True):
        assert all(tags[word][tag] == max(tags[word].values()) for word, tag in zip(row, predicted, strict=True))
    with pytest.raises(ValueError, match="must have a token"):
        UsualTag().fit([[]], [[]])


def test_the_windowed_regression_sees_its_neighbours():
    X, y = sentences(300, 0)
    new, truth = sentences(60, 1)
    right = lambda found: np.mean(np.concatenate(found) == np.concatenate([np.array(row) for row in truth if row]))  # noqa: E731
    assert right(WindowedTag().fit(X, y).predict(new)) > 0.97 > right(UsualTag().fit(X, y).predict(new))
    assert [len(row) for row in WindowedTag().fit([["a"]], [["A"]]).predict([["x", "y"], []])] == [2, 0]
    assert [len(row) for row in WindowedTag().fit(X, y).predict([[], []])] == [0, 0]
