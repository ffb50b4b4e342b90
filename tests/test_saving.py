"""An estimator in a folder and back: the same predictions, parameters and attributes; damage is told in a sentence."""

from __future__ import annotations

from datetime import date

import narwhals as nw
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression

import throughtime
from throughtime.credit import BPTT
from throughtime.data import Vocabulary
from throughtime.estimators.forecaster import Forecaster
from throughtime.estimators.language import LanguageModel
from throughtime.estimators.saving import LEARNED, load_estimator, pack, save, unpack
from throughtime.estimators.sequences import SequenceClassifier, SequenceRegressor
from throughtime.estimators.tagger import SequenceTagger
from throughtime.nets import Committee, Network
from throughtime.state import flatten, unflatten

TOKENS = [["a", "Bb", "cc"], ["cc", "a"], ["dd"]]
TAGS = [["X", "Y", "X"], ["Y", "X"], ["X"]]
FRAMES = [np.arange(6.0).reshape(3, 2), np.ones((2, 2)), np.zeros((1, 2))]
TEXTS = ["a line of words", "another line here", "words and more words"]

CASES = {
    "tagger": (SequenceTagger(class_weight={"X": 2.0}), TOKENS, TAGS),
    "frames": (SequenceTagger(bidirectional=False, credit=BPTT(h=2, every=2)), FRAMES, [[1, 0, 1], [0, 1], [2]]),
    "classifier": (SequenceClassifier(class_weight="balanced"), FRAMES, ["u", "v", "w"]),
    "regressor": (SequenceRegressor(), FRAMES, [1.0, 2.0, 4.0]),
    "language": (LanguageModel(units=4), TEXTS, None),
}


def fitted(name):
    estimator, X, y = CASES[name]
    estimator = type(estimator)(**estimator.get_params() | {"updates": 2, "random_state": 0})
    return (estimator.fit(X) if y is None else estimator.fit(X, y)), X


def answers(estimator, X):
    return estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else estimator.predict(X)


@pytest.mark.parametrize("name", CASES)
def test_what_is_loaded_predicts_the_same_bits(name, tmp_path):
    estimator, X = fitted(name)
    loaded = load_estimator(save(estimator, tmp_path / "saved"))
    assert type(loaded) is type(estimator)
    assert loaded.get_params() == estimator.get_params()
    assert {n for n in vars(loaded) if n.endswith("_")} == {n for n in vars(estimator) if n.endswith("_")}
    for a, b in zip(answers(estimator, X), answers(loaded, X), strict=True):
        assert np.array_equal(a, b)
    assert [r["loss"] for r in loaded.records_] == [r["loss"] for r in estimator.records_]


@pytest.mark.parametrize("name", CASES)
def test_what_is_loaded_goes_on_learning(name, tmp_path):
    estimator, X = fitted(name)
    loaded = load_estimator(save(estimator, tmp_path / "saved"))
    rest = () if CASES[name][2] is None else (CASES[name][2],)
    if name == "classifier":
        loaded.set_params(class_weight=None)
    loaded.partial_fit(X, *rest)
    assert loaded.n_iter_ > estimator.n_iter_


def test_a_forecaster_comes_back_with_the_kind_of_its_frame(tmp_path):
    days = pl.date_range(date(2020, 1, 1), date(2020, 2, 29), eager=True)
    frame = pl.DataFrame({"unique_id": "a", "ds": days, "y": np.sin(np.arange(60.0))})
    model = Forecaster(horizon=3, updates=3, networks=2, random_state=0).fit(frame)
    loaded = load_estimator(save(model, tmp_path / "saved"))
    assert model.predict(3, level=[90]).equals(loaded.predict(3, level=[90]))
    more = pl.DataFrame({"unique_id": "a", "ds": [date(2020, 3, 1)], "y": [0.5]})
    assert model.update(more).predict(2).equals(loaded.update(more).predict(2))


def test_the_folder_is_a_run(tmp_path):
    estimator, _ = fitted("classifier")
    run = throughtime.load(save(estimator, tmp_path / "saved"))
    assert run.config["estimator"]["class"] == "SequenceClassifier"
    assert len(run.records()) == 2
    assert all(torch.equal(a, b) for a, b in zip(run.net.parameters(), estimator.net_.parameters(), strict=True))
    assert sorted(file.name for file in run.path.iterdir()) == [
        "config.toml",
        LEARNED,
        "metrics.jsonl",
        "weights.safetensors",
    ]


VALUES = {
    "plain": [None, True, 3, 0.5, float("inf"), "text", (1, (2,), []), [1, "x"], {}],
    "keys": {1: "a", "b": 2.0, (1, 2): None, False: True},
    "numpy": [np.float64(0.1), np.int32(3), np.str_("x"), np.bool_(True)],
    "arrays": [np.arange(6).reshape(2, 3).T, np.zeros((0, 3), np.float32), np.array(2.5), np.array([True])],
    "dtypes": [np.array([1, 2], np.uint8), np.array([1.5], np.float16), np.array([1j]), np.array([3], ">i4")],
    "strings": [np.array(["a", "bcd"]), np.array([], str), np.array([["ä", ""]])],
    "dates": [np.array(["2020-01-01", "NaT"], "datetime64[D]"), np.array([5], "timedelta64[h]")],
    "objects": [np.array(["a", None, 3, np.arange(2)], object)],
    "frames": [nw.Implementation.POLARS, nw.Implementation.PANDAS],
    "columns": [nw.String(), nw.Int64, nw.Datetime("ns", "UTC"), nw.Date(), nw.Enum(["a", "b"])],
    "ours": [BPTT(h=3, every=2), Vocabulary.of("word", {"a": 3, "b": 2})],
}


def same(a, b) -> bool:
    if isinstance(a, (np.ndarray, np.generic)):
        assert a.dtype.newbyteorder("=") == b.dtype
        if a.dtype == object:
            return all(same(p, q) for p, q in zip(a.ravel(), b.ravel(), strict=True))
        return a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind in "fcmM")
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and all(same(p, q) for p, q in zip(a, b, strict=True))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("name", VALUES)
def test_values_come_back_as_they_were(name):
    skeleton, tensors = flatten(pack(VALUES[name], "value"))
    assert same(VALUES[name], unpack(unflatten(skeleton, tensors)))


def test_a_network_inside_comes_back():
    net = Committee([Network("gru", inputs=2, units=3, outputs=1), Network("lstm", inputs=2, units=1, outputs=1)])
    skeleton, tensors = flatten(pack({"nets": [net]}, "value"))
    (again,) = unpack(unflatten(skeleton, tensors))["nets"]
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), again.parameters(), strict=True))


def test_what_cannot_be_saved_is_refused_and_leaves_no_folder(tmp_path):
    estimator, _ = fitted("tagger")
    with pytest.raises(NotFittedError):
        save(SequenceTagger(), tmp_path / "a")
    with pytest.raises(TypeError, match="estimator must be one of throughtime; got LogisticRegression"):
        save(LogisticRegression(), tmp_path / "a")
    estimator.random_state = np.random.RandomState(0)
    with pytest.raises(TypeError, match=r"parameters\['random_state'\] must be numbers, strings"):
        save(estimator, tmp_path / "a")
    estimator.random_state, estimator.odd_ = 0, object()
    with pytest.raises(TypeError, match=r"learned\['odd_'\]"):
        save(estimator, tmp_path / "a")
    assert not (tmp_path / "a").exists()
    del estimator.odd_
    save(estimator, tmp_path / "a")
    with pytest.raises(FileExistsError, match="run must be a new folder"):
        save(estimator, tmp_path / "a")


def test_damage_is_told(tmp_path):
    estimator, _ = fitted("tagger")
    folder = save(estimator, tmp_path / "saved")
    config = folder / "config.toml"
    text = config.read_text()
    for old, new, message in (
        ('class = "SequenceTagger"', 'class = "Absent"', "is damaged, or of another version"),
        ('module = "throughtime.estimators.tagger"', 'module = "os"', "class must be of throughtime; got os"),
        ('class = "SequenceTagger"', 'class = "Objects"', "must be a class"),
        ("[estimator]", "[other]", "has no estimator in it"),
        ("units = 64", "units = 7", "does not fit the network"),
    ):
        assert old in text
        config.write_text(text.replace(old, new))
        with pytest.raises(ValueError, match=message):
            load_estimator(folder)
    config.write_text(text)
    (folder / LEARNED).write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is damaged"):
        load_estimator(folder)
    (folder / LEARNED).unlink()
    with pytest.raises(FileNotFoundError, match="is missing"):
        load_estimator(folder)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        load_estimator(tmp_path / "absent")
