"""Networks that learn while they run: the faces, in every backend, and in river where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from throughtime.kernels import native
from throughtime.kernels.online import SGD, Adam
from throughtime.online import OnlineClassifier, OnlineRegressor

BACKENDS = ["reference"] if native.MISSING else ["native", "reference"]
backends = pytest.mark.parametrize("backend", BACKENDS)
faces = pytest.mark.parametrize("face", [OnlineRegressor, OnlineClassifier])


def stream(T: int = 40) -> tuple[np.ndarray, np.ndarray]:
    x = np.random.randn(T, 3)
    return x, np.roll(x[:, 0], 1)


def made(face: Any, **options: Any) -> Any:
    return face(**{"units": 5, "h": 4, "dtype": "float64", "optimizer": "adam:lr=0.01"} | options)


def target(face: Any, y: np.ndarray) -> np.ndarray:
    return y if face is OnlineRegressor else np.where(y > 0, "up", "down")


def weights(model: Any) -> dict[str, Any]:
    return model.network().state_dict()


def close(a: Any, b: Any, atol: float = 0.0) -> None:
    a, b = weights(a), weights(b)
    for name, weight in a.items():
        np.testing.assert_allclose(weight, b[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)
@pytest.mark.parametrize(
    "options", [{}, {"replay": True, "every": 2}, {"cell": "lstm", "optimizer": "sgd:momentum=0.9"}]
)
@faces
def test_the_backends_agree(face: Any, options: dict[str, Any]) -> None:
    x, y = stream()
    y = target(face, y)
    ours, theirs = made(face, backend="native", **options), made(face, backend="reference", **options)
    mask, reset = np.random.rand(40) < 0.7, np.random.rand(40) < 0.2
    found = [model.learn_many(x, y, mask=mask, reset=reset) for model in (ours, theirs)]
    np.testing.assert_allclose(*found, rtol=0, atol=1e-12)
    for model in (ours, theirs):
        model.restart()
        model.learn_many(x[:3], None)
        model.learn_one(x[3], None)
        model.learn_one(x[4], y[4])
    close(ours, theirs, 1e-12)
    assert ours.why.startswith("native: ")
    assert theirs.why == "reference: asked for by name"


@backends
@faces
def test_one_by_one_is_learn_many(face: Any, backend: str) -> None:
    x, y = stream()
    y = target(face, y)
    many, one = made(face, backend=backend), made(face, backend=backend)
    for start in (0, 20):
        many.restart()
        many.learn_many(x[start : start + 20], y[start : start + 20])
    for t in range(40):
        if t in (0, 20):
            one.restart()
        one.learn_one(dict(zip("abc", x[t].tolist(), strict=True)), y[t])
    close(many, one)


@backends
@faces
def test_predict_one_does_not_move_the_state(face: Any, backend: str) -> None:
    x, y = stream()
    y = target(face, y)
    asked, silent = made(face, backend=backend), made(face, backend=backend)
    for t in range(20):
        if t == 9:
            asked.restart(), silent.restart()
        if t:
            first, second = asked.predict_one(x[t]), asked.predict_one(x[t])
            assert first == second
        for model in (asked, silent):
            model.learn_one(x[t], y[t])
    close(asked, silent)
    assert asked.predict_one(x[20]) == silent.predict_one(x[20])


@backends
@faces
def test_predict_one_says_what_learn_many_saw_before_it_learned(face: Any, backend: str) -> None:
    x, y = stream()
    y = target(face, y)
    model, other = made(face, backend=backend), made(face, backend=backend)
    model.learn_many(x[:20], y[:20])
    other.learn_many(x[:20], y[:20])
    found = other.learn_many(x[20:21], y[20:21])[0]
    if face is OnlineRegressor:
        assert model.predict_one(x[20]) == found
    else:
        assert list(model.predict_proba_one(x[20]).values()) == found.tolist()
        assert model.predict_one(x[20]) == model.labels_[int(found.argmax())]


@backends
@pytest.mark.parametrize("replay", [False, True])
@faces
def test_saved_and_loaded_it_goes_on_bit_for_bit(face: Any, replay: bool, backend: str, tmp_path: Path) -> None:
    x, y = stream()
    y = target(face, y)
    model = made(face, cell="gru", every=2, replay=replay, backend=backend, dtype="float32")
    rows = [dict(zip(("a", "b", 3), row.tolist(), strict=True)) for row in x]
    file = tmp_path / "model.safetensors"
    for t in range(40):
        model.save(file)
        again = face.load(file)
        assert again.why == model.why
        assert again.settings == model.settings
        if t == 21:
            again.restart()
            again.save(file)
            again = face.load(file)
            model.restart()
        for each in (model, again):
            each.learn_one(rows[t], y[t])
        close(model, again)
        assert model.predict_one(rows[0]) == again.predict_one(rows[0])
        model = again if t % 3 else model
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


@backends
def test_it_learns_what_only_the_state_can_tell(backend: str) -> None:
    model = OnlineRegressor(units=8, h=3, optimizer="adam:lr=0.02", backend=backend)
    x = np.random.choice([-1.0, 1.0], (1000, 1))
    error = (model.learn_many(x, np.roll(x[:, 0], 1)) - np.roll(x[:, 0], 1)) ** 2
    assert error[-200:].mean() < 0.05 < 0.5 < error[:50].mean()


@backends
def test_labels_take_the_next_output(backend: str) -> None:
    model = made(OnlineClassifier, classes=3, backend=backend)
    assert model.predict_one({"a": 1.0}) is None
    assert model.predict_proba_one({"a": 1.0}) == {}
    model.learn_one({"a": 1.0}, "x")
    model.learn_one({"a": 2.0}, True)
    found = model.predict_proba_one({"a": 1.0})
    assert list(found) == ["x", True]
    assert 0 < sum(found.values()) < 1
    model.learn_many([{"a": 3.0}], np.array([7]))
    assert model.labels_ == ["x", True, 7]
    assert sum(model.predict_proba_one({"a": 1.0}).values()) == pytest.approx(1)
    with pytest.raises(ValueError, match=r"y must be one of 3 labels.*got 'z'\. Make it OnlineClassifier\(classes=4\)"):
        model.learn_one({"a": 1.0}, "z")


@backends
def test_targets_are_numbers_sequences_or_dicts(backend: str) -> None:
    number, several, named = (made(OnlineRegressor, backend=backend) for _ in range(3))
    assert number.predict_one([1.0, 2.0]) == 0.0
    number.learn_one([1.0, 2.0], 3)
    several.learn_one([1.0, 2.0], [1.0, 2.0])
    named.learn_one([1.0, 2.0], {"u": 1.0, "v": 2.0})
    assert isinstance(number.predict_one([1.0, 2.0]), float)
    named.learn_one([1.0, 2.0], {"v": 0.0, "u": 5.0})
    several.learn_one([1.0, 2.0], [5.0, 0.0])
    assert list(named.predict_one([1.0, 0.0]).values()) == several.predict_one([1.0, 0.0]).tolist()
    assert list(named.predict_one([1.0, 0.0])) == ["u", "v"]
    for model, y, said in (
        (number, [1.0], "a number"),
        (several, 1.0, "2 numbers"),
        (named, {"u": 1.0}, "a dict of u, v"),
        (number, float("nan"), "finite numbers"),
    ):
        with pytest.raises(ValueError, match=f"y must be {said}"):
            model.learn_one([1.0, 2.0], y)


def test_features_that_are_missing_are_zeros_and_new_ones_are_refused() -> None:
    model, full = made(OnlineRegressor), made(OnlineRegressor)
    for each in (model, full):
        each.learn_one({"a": 1.0, "b": 2.0}, 1.0)
    model.learn_one({"b": 3.0}, 0.0)
    full.learn_one({"b": 3.0, "a": 0.0}, 0.0)
    close(model, full)
    for new in ({"a": 1.0, "b": 1.0, "c": 1.0}, {"a": 1.0, "c": 1.0}):
        with pytest.raises(ValueError, match="no features beyond those of the first step; got 'c'"):
            model.learn_one(new, 1.0)
    close(model, full)


class Frame:
    """As much of a data frame as is asked for."""

    def __init__(self, columns: dict[str, list[float]]) -> None:
        self.data, self.columns = columns, list(columns)

    def __len__(self) -> int:
        return len(self.data[self.columns[0]])

    def __getitem__(self, name: str) -> list[float]:
        return self.data[name]


def test_data_frames_are_read_by_column() -> None:
    model, other = made(OnlineRegressor), made(OnlineRegressor)
    model.learn_many(Frame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), [1.0, 2.0])
    model.learn_many(Frame({"b": [5.0]}), [1.0])
    other.learn_many([[1.0, 3.0], [2.0, 4.0], [0.0, 5.0]], [1.0, 2.0, 1.0])
    close(model, other)
    assert model.features_ == ["a", "b"]
    with pytest.raises(ValueError, match="no columns beyond the features of the first step; got 'c'"):
        model.learn_many(Frame({"c": [1.0]}), [1.0])


@backends
def test_targets_that_do_not_count_are_never_read(backend: str) -> None:
    x, y = stream(6)
    model = made(OnlineRegressor, backend=backend)
    y[2] = np.nan
    model.learn_many(x, y, mask=np.arange(6) != 2)
    assert all(weight.isfinite().all() for weight in weights(model).values())
    with pytest.raises(ValueError, match="Y must be finite numbers wherever it counts"):
        model.learn_many(x, y)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda m: m.learn_one([1.0, 2.0], 1.0), "x must be 3 numbers, as the first step had; got 2"),
        (lambda m: m.learn_one([1.0, 2.0, float("inf")], 1.0), "x must be finite numbers"),
        (lambda m: m.predict_one([1.0, 2.0, float("nan")]), "x must be finite numbers"),
        (lambda m: m.learn_one({"a": 1.0}, 1.0), "x must be numbers in a fixed order"),
        (lambda m: m.learn_many(np.ones((2, 4)), [1.0, 1.0]), r"X must be numbers \(T, 3\); got \(2, 4\)"),
        (lambda m: m.learn_many(np.full((2, 3), np.nan), [1.0, 1.0]), "X must be finite numbers"),
        (lambda m: m.learn_many(np.ones((2, 3)), [1.0]), "Y must have a target for each of the 2 steps of X; got 1"),
        (lambda m: m.learn_many(np.ones((2, 3)), np.ones((2, 2))), r"Y must be"),
        (lambda m: m.learn_many(np.ones((2, 3)), [1.0, 1.0], mask=[1, 0]), r"mask must be bool \(2,\)"),
        (lambda m: m.learn_many(np.ones((2, 3)), [1.0, 1.0], reset=[True]), r"reset must be bool \(2,\)"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(call: Any, said: str) -> None:
    model, other = made(OnlineRegressor), made(OnlineRegressor)
    for each in (model, other):
        each.learn_one([1.0, 2.0, 3.0], 1.0)
    with pytest.raises(ValueError, match=said):
        call(model)
    for each in (model, other):
        each.learn_one([3.0, 2.0, 1.0], 1.0)
    close(model, other)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": 0}, "units must be at least 1"),
        ({"h": 2, "every": 3}, "h must be at least every"),
        ({"cell": "no"}, "cell must be"),
        ({"optimizer": "rmsprop"}, "optimizer must be"),
        ({"optimizer": "sgd:momentum=1"}, "momentum must be at least 0 and below 1"),
        ({"optimizer": "adam:lr=-1"}, "lr must be at least 0"),
        ({"dtype": "float16"}, "dtype must be float32 or float64"),
        ({"backend": "gpu"}, "backend must be auto, native or reference"),
    ],
)
@faces
def test_settings_that_cannot_be(face: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        face(**options)


def test_other_numbers_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="eps must be above 0"):
        Adam(eps=0.0)
    with pytest.raises(ValueError, match="beta2 must be"):
        Adam(beta2=1.0)
    with pytest.raises(ValueError, match="lr must be"):
        SGD(lr=float("inf"))
    with pytest.raises(ValueError, match="classes must be different labels"):
        OnlineClassifier(classes=["a", "a"])
    with pytest.raises(ValueError, match="y must be given at the first step"):
        OnlineRegressor().learn_one([1.0], None)
    with pytest.raises(TypeError, match="y must be a label"):
        OnlineClassifier().learn_one([1.0], [1])


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    OnlineRegressor().save(file)
    assert OnlineRegressor.load(file).predict_one([1.0]) == 0.0
    with pytest.raises(ValueError, match=r"a file that OnlineClassifier\.save"):
        OnlineClassifier.load(file)
    file.write_bytes(b"no")
    with pytest.raises(ValueError, match="is damaged"):
        OnlineRegressor.load(file)


def test_without_the_compiled_part_the_credit_runs_and_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "file"
    before = OnlineRegressor(units=3)
    before.learn_one([1.0], 1.0)
    before.save(file)
    monkeypatch.setattr(native, "MISSING", "no compiler was there")
    model = OnlineRegressor(units=3)
    assert model.backend == "reference"
    assert model.why == "reference, some hundred times slower; not native: no compiler was there"
    model.learn_one([1.0], 1.0)
    with pytest.raises(ValueError, match="backend 'native' cannot run this: no compiler was there"):
        OnlineRegressor(backend="native")
    if before.backend == "native":
        with pytest.raises(ValueError, match="saved by the native backend, whose memory the other cannot read"):
            OnlineRegressor.load(file)


@pytest.mark.filterwarnings("ignore")
def test_river_scores_them_as_its_own() -> None:
    river = pytest.importorskip("river")
    from river import compose, evaluate, metrics, preprocessing

    assert river
    x, y = stream(120)
    rows = [dict(zip("abc", row.tolist(), strict=True)) for row in x]
    model = OnlineRegressor(units=4, h=3)
    score = evaluate.progressive_val_score(zip(rows, y.tolist(), strict=True), model, metrics.MSE())
    other = OnlineRegressor(units=4, h=3)
    errors = (other.learn_many(x.astype(np.float32), y) - y)[1:] ** 2  # river predicts before the first step: 0.0
    assert score.get() == pytest.approx((errors.sum() + y[0] ** 2) / 120, rel=1e-5)
    scaled = compose.Pipeline(preprocessing.StandardScaler(), OnlineClassifier(units=4, h=3))
    labels = [bool(value > 0) for value in y]
    assert 0 < evaluate.progressive_val_score(zip(rows, labels, strict=True), scaled, metrics.LogLoss()).get() < 5
    accuracy = evaluate.progressive_val_score(zip(rows, labels, strict=True), OnlineClassifier(), metrics.Accuracy())
    assert 0 < accuracy.get() <= 1
