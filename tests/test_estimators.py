"""SequenceClassifier and SequenceRegressor: unequal lengths in scikit-learn, and laws of predictions."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from native_case import needed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from throughtime.credit import BPTT
from throughtime.estimators import SequenceClassifier, SequenceRegressor
from throughtime.estimators.learning import distinct
from throughtime.estimators.numbers import NumberReader
from throughtime.nets import Network, parameters_of

SMALL: dict[str, Any] = {"units": 8, "updates": 60, "learning_rate": 0.02, "random_state": 0}


def problem(count: int = 60, seed: int = 0, features: int = 2) -> tuple[list[np.ndarray], np.ndarray]:
    """Sequences of 1 to 15 steps, of which the sign of the first number tells the class."""
    chance = np.random.default_rng(seed)
    x = [chance.normal(size=(int(steps), features)) for steps in chance.integers(1, 16, count)]
    return x, np.array(["down", "up"])[[int(s[0, 0] > 0) for s in x]]


def as_objects(x: list[np.ndarray]) -> np.ndarray:
    found = np.empty(len(x), object)
    found[:] = x
    return found


@pytest.fixture(scope="module")
def fitted() -> SequenceClassifier:
    return SequenceClassifier(**SMALL | {"updates": 200}).fit(*problem(150))


def test_learns(fitted: SequenceClassifier) -> None:
    assert fitted.score(*problem(200, seed=1)) > 0.9
    x, _ = problem(80)
    y = np.array([[len(s), s[0, 0]] for s in x])
    both = SequenceRegressor(**SMALL | {"updates": 300, "dropout": 0.0}).fit(x, y)
    assert both.predict(x).shape == (80, 2)
    assert both.score(x, y) > 0.8
    one = SequenceRegressor(**SMALL | {"updates": 300, "dropout": 0.0}).fit(x, y[:, 1])
    assert one.predict(x).shape == (80,)
    assert one.score(x, y[:, 1]) > 0.8


# Unequal lengths


@pytest.mark.parametrize("shape", [list, as_objects, tuple])
def test_scikit_learn_takes_unequal_lengths(shape: Any) -> None:
    x, y = problem()
    X = shape(x)
    model = SequenceClassifier(**SMALL | {"updates": 5})
    if shape is not tuple:  # which scikit-learn cannot index
        assert cross_val_score(model, X, y, cv=3).shape == (3,)
        search = GridSearchCV(model, {"units": [2, 4], "bidirectional": [True, False]}, cv=2).fit(X, y)
        assert set(search.best_params_) == {"units", "bidirectional"}
        scaled = FunctionTransformer(lambda X: [2 * s for s in X])
        assert make_pipeline(scaled, clone(model)).fit(X, y).predict(X).shape == (60,)
    assert np.array_equal(clone(model).fit(X, y).predict_proba(X), clone(model).fit(x, y).predict_proba(x))


def test_lengths_of_a_padded_array(fitted: SequenceClassifier) -> None:
    x, y = problem(20, seed=3)
    lengths = [len(s) for s in x]
    cube = np.full((20, 16, 2), np.nan)
    for row, s in zip(cube, x, strict=True):
        row[: len(s)] = s
    assert np.array_equal(fitted.predict_proba(cube, lengths=lengths), fitted.predict_proba(x))
    assert fitted.score(cube, y, lengths=lengths) == fitted.score(x, y)
    counted = SequenceRegressor(**SMALL | {"updates": 3}).fit(x, lengths)
    assert counted.score(cube, lengths, lengths=lengths) == counted.score(x, lengths)
    model = SequenceClassifier(**SMALL | {"updates": 3}, layout="nct")
    turned = model.fit(cube.transpose(0, 2, 1), y, lengths=lengths)
    wanted = SequenceClassifier(**SMALL | {"updates": 3}).fit(x, y)
    assert np.array_equal(turned.predict_proba([s.T for s in x]), wanted.predict_proba(x))
    with pytest.raises(ValueError, match=r"X must be sequences \(T, 2\); sequence 0 is \(2, 16\)"):
        fitted.predict(cube.transpose(0, 2, 1)[:, :, :16], lengths=[2] * 20)


# What a prediction depends on


@needed
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": False}, {"reads": "mean"}, {"credit": "bptt:h=4,every=2"}, {"cell": "lstm", "layers": 2}],
)
def test_a_prediction_is_of_its_sequence_alone(options: dict[str, Any]) -> None:
    """To the last bit: in any batch, in any order, beside longer ones and alone."""
    x, y = problem()
    model = SequenceClassifier(**SMALL | {"updates": 10} | options).fit(x, y)
    more = [*x, *(np.random.default_rng(5).normal(size=(k, 2)) for k in (0, 40, 300)), *x[::-1]]
    found = model.predict_proba(more)
    assert np.array_equal(found[:60], model.predict_proba(x))
    assert np.array_equal(found[63:], found[:60][::-1])
    alone = np.concatenate([model.predict_proba([s]) for s in more])
    assert np.array_equal(found, alone)


def test_the_order_of_the_examples_and_equal_ones_change_nothing() -> None:
    x, y = problem(30)
    chance = np.random.default_rng(0)
    times, order = chance.integers(0, 3, 30), chance.permutation(30)
    weighed = SequenceClassifier(**SMALL).fit([x[k] for k in order], y[order], sample_weight=times[order])
    repeated = SequenceClassifier(**SMALL).fit(
        [s for s, k in zip(x, times, strict=True) for _ in range(k)], y.repeat(times)
    )
    assert np.array_equal(weighed.predict_proba(x), repeated.predict_proba(x))


def test_random_state() -> None:
    x, y = problem(30)
    before = torch.get_rng_state()
    found = [SequenceClassifier(**SMALL | {"random_state": seed}).fit(x, y).predict_proba(x) for seed in (0, 0, 1)]
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_pickle(fitted: SequenceClassifier) -> None:
    x, _ = problem(10)
    again = pickle.loads(pickle.dumps(fitted))
    assert np.array_equal(again.predict_proba(x), fitted.predict_proba(x))


def test_no_step_is_no_evidence() -> None:
    """Then the answer is the share of each class in the training data, or the mean."""
    x, y = problem(40)
    weight = np.random.default_rng(0).random(40)
    nothing = np.zeros((0, 2))
    model = SequenceClassifier(**SMALL | {"updates": 2}).fit([*x, nothing], [*y, "up"], sample_weight=[*weight, 0.5])
    share = (weight[y == "up"].sum() + 0.5) / (weight.sum() + 0.5)
    np.testing.assert_allclose(model.predict_proba([nothing, x[0]])[0], [1 - share, share])
    numbers = SequenceRegressor(**SMALL | {"updates": 2}).fit(x, np.arange(40.0))
    assert numbers.predict([nothing]) == pytest.approx(19.5)
    assert model.predict([]).shape == (0,)


# Weights of classes


def test_class_weight() -> None:
    x, y = problem(40)
    unbalanced = np.r_[np.flatnonzero(y == "up"), np.flatnonzero(y == "down")[:5]]
    x, y = [x[k] for k in unbalanced], y[unbalanced]
    total, ups = len(y), int((y == "up").sum())
    by_hand = {"up": total / (2 * ups), "down": total / (2 * (total - ups))}
    weights = np.array([by_hand[label] for label in y])
    options = SMALL | {"updates": 10}
    balanced = SequenceClassifier(**options, class_weight="balanced").fit(x, y).predict_proba(x)
    np.testing.assert_allclose(SequenceClassifier(**options, class_weight=by_hand).fit(x, y).predict_proba(x), balanced)
    np.testing.assert_allclose(
        SequenceClassifier(**options).fit(x, y, sample_weight=weights).predict_proba(x), balanced
    )


# Other credits, streams, the network without memory


@pytest.mark.parametrize(
    "credit", [BPTT(h=3), "bptt:h=4,every=2", "rtrl", "uoro:seed=1", "snap:n=1", "random", "adaptive"]
)
def test_any_credit(credit: Any) -> None:
    x, y = problem(20)
    model = SequenceClassifier(**SMALL | {"updates": 3, "units": 3}, credit=credit).fit(x, y)
    assert isinstance(model.net_, Network)
    assert len(model.records_) == model.n_iter_ == 3
    with pytest.raises(ValueError, match=r"credit must be bptt for a bidirectional network.*Set bidirectional=False"):
        model.set_params(bidirectional=True).fit(x, y)


@needed
def test_after_every_step() -> None:
    """What is said after step t is what is said of the first t steps alone."""
    x, y = problem(12)
    for reads in ("last", "last+mean+max"):
        options = SMALL | {"updates": 5, "bidirectional": False, "reads": reads}
        model = SequenceClassifier(**options).fit(x, y)
        for s, found in zip(x, model.predict_proba_steps(x), strict=True):
            assert np.array_equal(found, model.predict_proba([s[: t + 1] for t in range(len(s))]))
        numbers = SequenceRegressor(**options).fit(x, [len(s) for s in x])
        assert np.array_equal(numbers.predict_steps(x)[3][-1:], numbers.predict(x[3:4]))


def test_partial_fit_goes_on() -> None:
    x, y = problem(100)
    model = SequenceClassifier(**SMALL | {"dropout": 0.0})
    with pytest.raises(ValueError, match="classes must be given in the first call of partial_fit"):
        model.partial_fit(x, y)
    model.partial_fit(x, y, classes=["down", "up", "never"])
    for _ in range(25):
        model.partial_fit(x, y)
    assert model.score(x, y) > 0.9
    assert model.predict_proba(x).shape == (100, 3)
    with pytest.raises(ValueError, match=r"y must be one of the classes .* got 'other'"):
        model.partial_fit(x[:1], ["other"])
    with pytest.raises(ValueError, match="classes must be those of the first call"):
        model.partial_fit(x, y, classes=["down", "up"])


@pytest.mark.parametrize("reads", ["last", "last+max"])
def test_partial_fit_carries_the_state(reads: str) -> None:
    """Streams that arrive in pieces: with a rate of next to nothing the state is that of the whole stream."""
    chance = np.random.default_rng(0)
    streams = [chance.normal(size=(9, 2)) for _ in range(3)]
    model = SequenceClassifier(
        **SMALL | {"learning_rate": 1e-12, "weight_decay": 0.0}, bidirectional=False, reads=reads, dropout=0.0
    )
    pieces = [[s[:2] for s in streams], [streams[0][2:5], streams[1][2:2], streams[2][2:3]]]
    for piece in pieces:
        model.partial_fit(piece, [0, 1, 1], classes=[0, 1], carry=True)
    rest = [s[sum(len(piece[row]) for piece in pieces) :] for row, s in enumerate(streams)]
    whole = model.predict_proba_steps(streams)
    for row, found in enumerate(model.predict_proba_steps(rest, carry=True)):
        np.testing.assert_allclose(found, whole[row][-len(found) :], atol=1e-6)
    with pytest.raises(ValueError, match="X must be the next steps of the same 3 streams; got 2"):
        model.partial_fit(rest[:2], [0, 1], carry=True)


def test_carrying_learns_from_what_came_before() -> None:
    """A sign that was shown in an earlier call tells the label of this one."""
    chance = np.random.default_rng(0)
    model = SequenceClassifier(
        units=8, bidirectional=False, reads="last", dropout=0.0, learning_rate=0.01, random_state=0
    )
    right = []
    previous = np.zeros(16, int)
    for round_ in range(300):
        bits = chance.integers(0, 2, 16)
        piece = [np.array([[float(bit)]]) for bit in bits]
        if round_ > 250:
            steps = model.predict_proba_steps(piece, carry=True)
            right.append(np.mean([part[-1].argmax() == wanted for part, wanted in zip(steps, previous, strict=True)]))
        model.partial_fit(piece, previous, classes=[0, 1], carry=True)
        previous = bits
    assert np.mean(right) > 0.9


def test_both_directions_need_the_whole_sequence(fitted: SequenceClassifier) -> None:
    x, y = problem(5)
    for call in (lambda: fitted.predict_proba_steps(x), lambda: fitted.partial_fit(x, y, carry=True)):
        with pytest.raises(
            ValueError, match=r"needs the whole sequence. Make it SequenceClassifier.bidirectional=False"
        ):
            call()


def test_the_network_without_memory() -> None:
    """As many weights, the same readout, and nothing of what is further back than the window."""
    x, y = problem(30)
    with_memory = SequenceClassifier(**SMALL | {"updates": 2}).fit(x, y)
    without = SequenceClassifier(**SMALL | {"updates": 2}, cell="mlp", window=3).fit(x, y)
    a, b = parameters_of(with_memory.net_), parameters_of(without.net_)
    assert abs(a - b) < 0.05 * a  # half of what one unit more costs
    last = SequenceClassifier(**SMALL | {"updates": 2}, cell="mlp", window=3, reads="last").fit(x, y)
    longer = [np.concatenate((np.ones((4, 2)), s)) for s in x if len(s) >= 3]
    assert np.array_equal(last.predict_proba(longer), last.predict_proba([s[4:] for s in longer]))


# Early stopping


def test_early_stopping_holds_out_the_last_of_every_class() -> None:
    """What stands late in the order of X is never learned from; the weights kept are the best on it."""
    x, y = problem(40)
    model = SequenceClassifier(**SMALL, early_stopping=True, validation_fraction=0.25, patience=3)
    model.fit(x, y)
    late = np.concatenate([np.flatnonzero(y == c)[-round(0.25 * (y == c).sum()) :] for c in ("up", "down")])
    changed = [s + 100 * np.isin(k, late) for k, s in enumerate(x)]
    other = clone(model).fit(changed, y)
    assert np.array_equal(model.reader_.mean, other.reader_.mean)
    seen = [r["validation"] for r in model.records_ if r["validation"] is not None]
    logs = model.predict_log_proba([x[k] for k in late])
    mean = -np.mean(logs[np.arange(len(late)), (y[late] == "up").astype(int)])
    assert mean == pytest.approx(min(seen), rel=1e-4)
    with pytest.raises(ValueError, match="patience must go with early_stopping=True; got 3"):
        SequenceClassifier(patience=3).fit(x, y)
    with pytest.raises(ValueError, match="early_stopping needs sequences to hold out"):
        SequenceClassifier(early_stopping=True).fit(x[:2], ["a", "b"])


# What the network reads


@pytest.mark.parametrize("frame", [1, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 4])
def test_frames_by_definition(frame: int, stride: int) -> None:
    """The last one ends with the sequence; before its start the first step stands again."""
    x, _ = problem(20)
    reader = NumberReader(frame, stride).fit(x)
    values = np.concatenate(x)
    for s, found in zip(x, reader.read(x), strict=True):
        scaled = (s - values.mean(0)) / values.std(0)
        ends = [t for t in range(len(s)) if (len(s) - 1 - t) % stride == 0]
        wanted = [np.concatenate([scaled[max(t - back, 0)] for back in range(frame - 1, -1, -1)]) for t in ends]
        np.testing.assert_allclose(found, wanted)
    assert reader.read([np.zeros((0, 2))])[0].shape == (0, 2 * frame)


def test_constant_features_and_huge_ones() -> None:
    x, y = problem(30)
    odd = [np.concatenate((s * 1e12, np.full((len(s), 1), 7.0)), 1) for s in x]
    model = SequenceClassifier(**SMALL | {"updates": 150}).fit(odd, y)
    assert model.score(odd, y) > 0.8
    for size in (1e-300, 1e300):
        again = SequenceClassifier(**SMALL | {"updates": 150}).fit([s * size for s in x], y)
        assert again.score([s * size for s in x], y) > 0.8
    far = model.predict_proba([np.full((3, 3), 1e300)])
    assert np.isfinite(far).all()
    assert SequenceRegressor(**SMALL | {"updates": 2}).fit(x, np.full(30, 7.0)).predict(x) == pytest.approx(7.0)


def uneven(count: int, seed: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Slow and fast waves, each of a size of its own between 1e-4 and 1e4."""
    chance = np.random.default_rng(seed)
    kinds, sizes = chance.integers(0, 2, count), np.exp(chance.uniform(-9, 9, count))
    time = np.arange(16)[:, None]
    shapes = [np.sin((0.6 + 0.6 * kind) * time + chance.uniform(0, 6)) for kind in kinds]
    return [size * shape for size, shape in zip(sizes, shapes, strict=True)], kinds


def test_shapes_of_very_different_sizes_are_told() -> None:
    """Over the deviation of all steps, most of these would be flat lines."""
    x, y = uneven(80, 0)
    model = SequenceClassifier(**SMALL | {"updates": 150}).fit(x, y)
    assert model.reader_.uneven.all()
    assert model.net_.inputs == 2 * model.reader_.frame
    assert model.score(*uneven(100, 1)) > 0.9
    alone = np.concatenate([model.predict_proba([s]) for s in x])
    assert np.array_equal(model.predict_proba(x), alone)
    lasting = SequenceClassifier(**SMALL | {"updates": 3, "bidirectional": False}).fit(x, y)
    assert lasting.net_.inputs == 1  # the own size of a sequence is not known before its end
    even, kinds = problem()
    assert not SequenceClassifier(**SMALL | {"updates": 1}).fit(even, kinds).reader_.uneven.any()


def test_uneven_by_definition() -> None:
    """asinh((x - mean) / u), and beside it (x - own mean) / own deviation, in which a flat sequence is zeros."""
    flat = [np.full((4, 1), 3.0)]
    x = uneven(41, 2)[0] + flat
    reader = NumberReader(whole=True).fit(x)
    values, u = np.concatenate(x), np.sort([s.std() for s in x])[20]
    for s, found in zip(x, reader.read(x), strict=True):
        np.testing.assert_allclose(found[:, :1], np.arcsinh((s - values.mean()) / u))
        np.testing.assert_allclose(found[:, 1:], (s - s.mean()) / (s.std() or 1.0), atol=1e-9)
    weights = np.arange(len(x)) % 3
    twice = NumberReader().fit([s for s, w in zip(x, weights, strict=True) for _ in range(w)])
    assert NumberReader().fit(x, weights).scale == pytest.approx(twice.scale)


def test_long_frame() -> None:
    """A row a step; columns are found by name, rows sorted by time with a word, and y is one a sequence."""
    x, y = problem(30)
    rows = [(name, t, *step) for name, s in enumerate(x) for t, step in enumerate(s)]
    frame = pl.DataFrame(rows, schema=["id", "time", "a", "b"], orient="row")
    model = SequenceClassifier(**SMALL | {"updates": 5}).fit(frame, y)
    wanted = clone(model).fit(x, y).predict_proba(x)
    assert np.array_equal(model.predict_proba(frame), wanted)
    assert np.array_equal(model.predict_proba(x), wanted)
    assert np.array_equal(model.predict_proba(frame.select("b", "time", "id", "a")), wanted)
    with pytest.warns(UserWarning, match="rows are sorted by 'time'"):
        turned = model.predict_proba(frame.sort("id", "time", descending=[False, True]))
    assert np.array_equal(turned, wanted)
    with pytest.raises(ValueError, match="must have the column 'b'"):
        model.predict(frame.drop("b"))
    with pytest.raises(ValueError, match="y must be one for each of the 30 sequences of the long frame"):
        model.fit(frame, y[frame["id"]])
    with pytest.raises(ValueError, match="layout and lengths must be left out for a long data frame"):
        model.predict(frame, lengths=[3])


def test_a_wrong_axis_of_sequences_names_both_shapes() -> None:
    x, y = np.zeros((7, 12, 2)), np.arange(12) % 2
    with pytest.raises(ValueError, match=r"7 sequences that X \(7, 12, 2\) .* got \(12,\). .* layout='tnc'"):
        SequenceClassifier().fit(x, y)
    with pytest.raises(ValueError, match="layout='ntc' or 'nct'"):
        SequenceRegressor(layout="tnc").fit(x, y[:7])


def test_texts() -> None:
    texts = ["good and fine", "bad and poor", "", "fine good day", "poor bad day"] * 4
    model = SequenceClassifier(**SMALL).fit(texts, ["+", "-", "+", "+", "-"] * 4)
    assert model.predict(["good fine", "poor bad"]).tolist() == ["+", "-"]
    with pytest.raises(ValueError, match="frame must be left out for texts"):
        model.set_params(frame=3).fit(texts, ["+", "-", "+", "+", "-"] * 4)


# Refusals


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 3}, "window must go with cell='mlp'; got cell='gru'"),
        ({"units": 0}, "units must be a whole number of at least 1; got 0"),
        ({"batch_size": 2.5}, "batch_size must be a whole number of at least 1; got 2.5"),
        ({"reads": "each"}, "reads must be last, mean, max.* which is for tags"),
        ({"reads": "first"}, "reads must be"),
        ({"credit": "rtrl", "reads": "mean"}, "reads must be 'last' with credit rtrl"),
        ({"cell": "grrr"}, "cell"),
        ({"layout": "tcn"}, "layout must be"),
        ({"validation_fraction": 0.5}, "validation_fraction must go with early_stopping"),
        ({"early_stopping": True, "validation_fraction": 2.0}, "validation_fraction must be between 0 and 1"),
        ({"class_weight": "heavy"}, "class_weight"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0; got 0.0"),
        ({"credit": "bptt:memory=1MB", "bidirectional": True}, "credit must be bptt for a bidirectional network"),
        ({"unit": "word"}, "unit must be left out for numbers"),
    ],
)
def test_parameters_that_are_refused(options: dict[str, Any], message: str) -> None:
    x, y = problem(10)
    with pytest.raises(ValueError, match=message):
        SequenceClassifier(**options).fit(x, y)


def test_data_that_is_refused(fitted: SequenceClassifier) -> None:
    x, y = problem(10)
    model = SequenceClassifier(**SMALL)
    for X, labels, message in (
        (x, ["a"] * 10, "y must have at least two classes; got one class, 'a'"),
        (x, y[:9], "inconsistent numbers of samples"),
        ([np.zeros((0, 2))] * 10, y, "X must have a sequence with at least one step"),
        ([*x[:9], np.full((1, 2), np.nan)], y, "got NaN in sequence 9, step 0, feature 0"),
        (x, np.random.default_rng(0).random(10), "Unknown label type"),
    ):
        with pytest.raises(ValueError, match=message):
            model.fit(X, labels)
    for weight in ([-1.0] * 10, [np.nan] * 10, [0.0] * 10, [1.0] * 9):
        with pytest.raises(ValueError, match="sample_weight must"):
            model.fit(x, y, sample_weight=weight)
    with pytest.raises(NotFittedError):
        model.predict(x)
    with pytest.raises(TypeError, match="X must be sequences of numbers, as in fit; got texts"):
        fitted.predict(["a b"])
    with pytest.raises(ValueError, match=r"X must be sequences \(T, 2\); sequence 0 is \(3, 4\)"):
        fitted.predict([np.zeros((3, 4))])
    with pytest.raises(ValueError, match="carry must come after partial_fit with carry=True"):
        SequenceClassifier(**SMALL, bidirectional=False).fit(x, y).predict_proba_steps(x, carry=True)


def test_equal_examples_are_one_of_their_summed_weight() -> None:
    a, b = np.array([[1.0], [2.0]]), np.array([[3.0]])
    x, y, weight = distinct([b, a, a, b, a], np.array([0, 1, 1, 1, 0]), np.array([1.0, 2.0, 0.5, 3.0, 0.0]))
    found = sorted((len(one), int(label), float(w)) for one, label, w in zip(x, y, weight, strict=True))
    assert found == [(1, 0, 1.0), (1, 1, 3.0), (2, 1, 2.5)]
    again = distinct([a, b, b, a], np.array([1, 1, 0, 1]), np.array([0.5, 3.0, 1.0, 2.0]))
    assert all(np.array_equal(one, other) for one, other in zip(x, again[0], strict=True))
    assert np.array_equal(weight, again[2])
