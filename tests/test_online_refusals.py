"""What networks that learn while they run refuse, with a sentence and unchanged; copies, pickles and clones of them."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from throughtime.cells import Elman
from throughtime.kernels import native
from throughtime.kernels.online import SGD, Learner, Task, bytes_needed
from throughtime.online import OnlineClassifier, OnlineRegressor
from throughtime.online.engines import Settings

BACKENDS = ["reference"] if native.MISSING else ["native", "reference"]
backends = pytest.mark.parametrize("backend", BACKENDS)
compiled = pytest.mark.skipif(bool(native.MISSING), reason=native.MISSING)
NAN = float("nan")


def same(a: Any, b: Any) -> None:
    a, b = a.network().state_dict(), b.network().state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)


@compiled
@pytest.mark.parametrize("h", [10**12, 2**61, 2**62, 2**80])
def test_a_window_beyond_all_memory_is_refused(h: int) -> None:
    model = OnlineRegressor(units=4, h=h)
    with pytest.raises(ValueError, match=rf"h must leave a window that fits into memory.*h={h} .*Choose a smaller h"):
        model.learn_one([1.0], 1.0)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("units", [10**7, 10**12, 10**19, 10**30])
def test_weights_beyond_all_memory_are_refused(units: int, backend: str) -> None:
    model = OnlineRegressor(units=units, backend=backend)
    said = rf"units must be few enough for weights that fit into memory.*units={units} with 2 inputs and 1 outputs"
    with pytest.raises(ValueError, match=said):
        model.learn_one([1.0, 2.0], 1.0)
    assert model.predict_one([1.0, 2.0]) == 0.0
    with pytest.raises(ValueError, match=r"units must be few enough.* and 1000000000000000 outputs"):
        OnlineClassifier(classes=10**15, backend=backend).learn_one([1.0], 1)


@compiled
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm"])
def test_what_is_counted_is_not_less_than_what_is_taken(cell: str) -> None:
    for units, inputs, outputs, h in ((1, 1, 1, 1), (63, 7, 3, 70), (128, 384, 1, 5)):
        settings = Settings(units, cell, h, 1, True, "sgd", 0, "float32", "native")
        learner = settings.engine("native", "squared", inputs, outputs)
        assert isinstance(learner, Learner)
        taken = 4 * sum(learner._native.sizes)
        assert taken <= bytes_needed(learner.task) <= 2 * taken + 2**20
    assert bytes_needed(Task(Elman(), 1, 1, 1, "squared", 2**62, 1, False, SGD(), torch.float32)) > 2**63


def damaged(path: Path, **changed: Any) -> None:
    """Write a file again with tensors in place of others; None leaves one out."""
    with safe_open(path, "pt") as file:
        about, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors |= changed
    save_file({name: part for name, part in tensors.items() if part is not None}, path, about)


@compiled
@pytest.mark.parametrize(
    "clock",
    [[10**9, 10**9, 5, 5], [3, 4, 0, 1], [-1, -1, 0, 1], [5, 5, 0, 1], [3, 3, 2, 1], [17, 4, 0, 1], [3, 3, 1, -1]],
)
def test_a_clock_that_no_window_has_is_refused(clock: list[int], tmp_path: Path) -> None:
    model = OnlineRegressor(units=4, h=4, every=2)
    for step in range(3):
        model.learn_one([1.0, 2.0], float(step))
    model.save(tmp_path / "file")
    OnlineRegressor.load(tmp_path / "file")
    damaged(tmp_path / "file", clock=torch.tensor(clock))
    with pytest.raises(ValueError, match=r"clock must be .* damaged"):
        OnlineRegressor.load(tmp_path / "file")


@backends
def test_files_with_parts_missing_or_of_another_shape_are_refused(backend: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    model = OnlineClassifier(units=4, h=4, backend=backend)
    model.learn_one([1.0, 2.0], "a")
    model.save(file)
    with safe_open(file, "pt") as parts:
        names = list(parts.keys())
    for name in names:
        model.save(file)
        damaged(file, **{name: None})
        with pytest.raises(ValueError, match="damaged"):
            OnlineClassifier.load(file)
        if backend == "native":
            model.save(file)
            damaged(file, **{name: torch.zeros(1)})
            with pytest.raises(ValueError, match=f"{name} must be .* damaged"):
                OnlineClassifier.load(file)


def test_sizes_that_differ_from_the_labels_are_refused() -> None:
    model = OnlineClassifier(units=4, classes=2)
    model.learn_one([1.0], "a")
    about, tensors = model.__getstate__()
    about["extra"] |= {"classes": 10**6}
    with pytest.raises(ValueError, match="sizes must be"):
        OnlineClassifier().__setstate__((about, tensors))


@backends
@pytest.mark.parametrize("face", [OnlineRegressor, OnlineClassifier])
def test_copies_and_pickles_go_on_alike_and_apart(face: Any, backend: str) -> None:
    model = face(units=4, h=3, optimizer="adam", backend=backend)
    assert copy.deepcopy(model).settings == model.settings
    for step in range(5):
        model.learn_one({("a", 1): 1.0, "b": step % 3}, step % 2)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model)), model.clone(include_attributes=True)]
    before = copy.deepcopy(model)
    for each in (model, *others):
        each.learn_one({("a", 1): 2.0, "b": 0.5}, 1)
    for other in others:
        same(model, other)
    before.learn_one({("a", 1): 2.0, "b": 0.5}, 1)
    same(model, before)
    with pytest.raises(TypeError, match=r"features and labels must be .* to be saved; got \('a', 1\)"):
        model.save("nowhere")


def test_a_clone_has_the_options_and_learned_nothing() -> None:
    model = OnlineClassifier(classes=["a", "b"], units=4, h=3, seed=5)
    model.learn_one([1.0], "b")
    clone = model.clone()
    assert clone.settings == model.settings
    assert clone.labels_ == ["a", "b"]
    assert clone.predict_one([1.0, 2.0]) is None
    counted = OnlineClassifier(classes=3)
    counted.learn_one([1.0], "b")
    assert (counted.clone().labels_, counted.clone().classes, counted.clone({"h": 2}).settings.h) == ([], 3, 2)
    with pytest.raises(ValueError, match="new_params must be None"):
        counted.clone({"h": 2}, include_attributes=True)


@pytest.mark.filterwarnings("ignore")
def test_river_makes_ensembles_of_them() -> None:
    pytest.importorskip("river")
    from river import compose, ensemble, preprocessing

    bag = ensemble.BaggingClassifier(OnlineClassifier(units=4, h=3), n_models=3, seed=1)
    for step in range(20):
        bag.learn_one({"a": float(step % 2)}, bool(step % 2))
    assert bag.predict_one({"a": 1.0}) in (True, False)
    pipe = compose.Pipeline(preprocessing.StandardScaler(), OnlineRegressor(units=4))
    pipe.learn_one({"a": 1.0}, 1.0)
    assert pipe.clone().predict_one({"b": 1.0}) == 0.0


def test_a_refused_first_step_fixes_nothing() -> None:
    model = OnlineRegressor(units=4)
    for x, y in (({"a": NAN}, 1.0), ({"a": 1.0}, NAN), ({"a": 1.0}, None), ([[1.0, 2.0]], 1.0), ({"a": "b"}, 1.0)):
        with pytest.raises(ValueError, match="must be"):
            model.learn_one(x, y)  # type: ignore[arg-type]
        assert model.predict_one({"c": 1.0}) == 0.0
    with pytest.raises(ValueError, match="Y must be finite"):
        model.learn_many([[1.0, 2.0]], [NAN])
    model.learn_one({"b": 2.0}, [1.0, 2.0])
    assert model.features_ == ["b"]


def test_refused_steps_take_no_labels() -> None:
    model = OnlineClassifier(units=4, classes=2)
    for labels in (["a", "b", "c"], ["a", "b"], ["a", "b", NAN]):
        with pytest.raises(ValueError, match="must"):
            model.learn_many(np.ones((3, 1)), labels)
        assert model.labels_ == []
    with pytest.raises(ValueError, match=r"y must be a label that is finite; got nan\."):
        model.learn_one([1.0], NAN)
    model.learn_many([[1.0], [2.0]], ["x", "y"])
    assert model.labels_ == ["x", "y"]


def test_features_stay_dicts_or_rows() -> None:
    named, rows = OnlineRegressor(units=4), OnlineRegressor(units=4)
    named.learn_many([{"a": 1.0, "b": 2.0}, {"b": 1.0}], [1.0, 2.0])
    rows.learn_many([[1.0, 2.0], [0.0, 1.0]], [1.0, 2.0])
    same(named, rows)
    for call, said in (
        (lambda: named.learn_one([1.0, 2.0], 1.0), "x must be a dict of features"),
        (lambda: named.learn_many([[1.0, 2.0]], [1.0]), "X must be a data frame or a list of dicts"),
        (lambda: named.learn_many([{"c": 1.0}], [1.0]), "no features beyond those of the first step; got 'c'"),
        (lambda: rows.learn_many([{"a": 1.0}], [1.0]), "X must be an array"),
        (lambda: rows.learn_one(np.ones((2, 1)), 1.0), "x must be 2 numbers in one row"),
        (lambda: rows.learn_one([[1.0], [2.0]], 1.0), "x must be 2 numbers; got"),  # type: ignore[list-item]
    ):
        with pytest.raises(ValueError, match=said):
            call()
    same(named, rows)
    with pytest.raises(TypeError, match="X must be dicts or rows of numbers; got both"):
        named.learn_many([{"a": 1.0}, [1.0]], [1.0, 1.0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"optimizer": torch.optim.Adam}, "optimizer must be spelled, as 'adam:lr=0.001' is; got"),
        ({"cell": 3}, "cell must be spelled"),
        ({"seed": "a"}, "seed must be a whole number; got 'a'"),
        ({"h": None}, "h must be a whole number; got None"),
        ({"units": 2.0}, "units must be a whole number"),
        ({"replay": "yes"}, "replay must be True or False; got 'yes'"),
        ({"classes": True}, "classes must be a whole number; got True"),
        ({"classes": 2.5}, "classes must be a whole number; got 2.5"),
        ({"classes": "up"}, "classes must be labels in a list, or how many there may be; got 'up'"),
        ({"classes": b"up"}, "classes must be labels in a list, or how many there may be; got b'up'"),
    ],
)
def test_options_of_another_type_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(TypeError, match=said):
        OnlineClassifier(**options)


def test_whole_numbers_of_numpy_are_taken(tmp_path: Path) -> None:
    model = OnlineClassifier(classes=np.int64(3), units=np.int32(4), seed=np.int64(1))  # type: ignore[arg-type]
    model.save(tmp_path / "file")
    assert OnlineClassifier.load(tmp_path / "file").classes == 3
