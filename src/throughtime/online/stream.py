"""A stream that is learned from while it runs: features, the state that is carried, restarts, and files."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from throughtime.nets import Network
from throughtime.online.engines import Engine, Settings
from throughtime.shapes import Tensor

FORMAT = 1
Numbers = Mapping[Any, float] | Sequence[float] | np.ndarray
"""One step: a dict of features, or numbers in a fixed order."""


class Online(ABC):
    """What OnlineRegressor and OnlineClassifier share: features, the state that is carried, and files.

    features_   the names of the inputs, in the order of the first dict; None when steps are arrays.
    backend, why   what runs it, and the sentence that says why.
    """

    _supervised = True  # river asks for it
    loss: Literal["squared", "softmax"]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.backend, self.why = settings.chosen()
        self.features_: list[Any] | None = None
        self._engine: Engine | None = None
        self._fresh = False
        _join_river(self)

    @abstractmethod
    def _width(self, y: Any) -> int:
        """The number of outputs that a first target asks for."""

    @abstractmethod
    def _target(self, y: Any) -> Any:
        """A target as numbers (A), or the index of a class."""

    @abstractmethod
    def _targets(self, Y: Any, mask: np.ndarray | None) -> np.ndarray:
        """Targets of T steps as numbers (T, A), or as indices (T); those under a mask of False are not read."""

    @abstractmethod
    def _extra(self) -> dict[str, Any]:
        """What a file holds beside the settings, as plain values."""

    @abstractmethod
    def _outputs(self) -> int | None:
        """The number of outputs that `_extra` asks for; None: any."""

    def learn_one(self, x: Numbers, y: Any) -> None:
        """Read one step, and learn from its target; y=None reads it without a target, and the state moves on.

        A dict's missing features are 0. Raises ValueError for a new feature, or a number that is not finite.
        """
        if self._engine is not None:
            return self._learn(self._engine, x, y)
        with self._unless_refused():
            self._learn(self._start(x, y), x, y)

    def _learn(self, engine: Engine, x: Numbers, y: Any) -> None:
        self._put(x)
        if y is not None:
            self._y[0] = self._target(y)
            if self.loss == "squared" and not np.isfinite(self._y).all():
                raise ValueError(f"y must be finite numbers, or None for no target; got {y!r}.")
        mask = None if y is not None else np.zeros(1, dtype=bool)
        engine.learn(self._x, self._y, mask, np.ones(1, dtype=bool) if self._fresh else None)
        self._fresh = False

    def learn_many(self, X: Any, Y: Any, *, mask: Any = None, reset: Any = None) -> np.ndarray:
        """Learn from T steps as so many calls of learn_one; returns what was predicted before each was learned.

        X      (T, I) numbers, a list of dicts, or a data frame with the features as columns.
        Y      targets of T steps; None: none has one.
        mask   (T,) bool: which targets count; those that do not are never read.
        reset  (T,) bool: True where a new sequence starts before the step.
        Returns (T,) or (T, A) numbers, or (T, A) probabilities in the order of `labels_` for a classifier.
        """
        with self._unless_refused():
            return self._learn_many(X, Y, mask, reset)

    def _learn_many(self, X: Any, Y: Any, mask: Any, reset: Any) -> np.ndarray:
        x, T = self._inputs(X), len(X)
        mask, reset = _flags("mask", mask, T), _flags("reset", reset, T)
        if Y is None:
            mask = np.zeros(T, dtype=bool)
        elif len(Y) != T:
            raise ValueError(f"Y must have a target for each of the {T} steps of X; got {len(Y)}.")
        if len(x) and self._engine is None:
            first = X if hasattr(X, "columns") else X[0] if _are_dicts(X) else x[0]
            self._start(first, None if Y is None else np.asarray(Y)[0])
        if not len(x):
            return np.zeros((0, 0))
        engine = self._engine
        assert engine is not None
        y = None if Y is None else self._targets(Y, mask)
        if self._fresh:
            reset = np.zeros(T, dtype=bool) if reset is None else reset.copy()
            reset[0] = True
        prediction = np.zeros((T, self._out.shape[0]), self._x.dtype)
        engine.learn(x, y, mask, reset, prediction)
        self._fresh = False
        return self._shaped(prediction)

    def restart(self) -> None:
        """The next step begins a new sequence: the state is zeros there, and no error goes back beyond it."""
        self._fresh = True

    def network(self) -> Network:
        """A Network with the weights of now; raises ValueError before the first step."""
        if self._engine is None:
            raise ValueError("network must have seen a step, which says how many inputs there are; got none yet.")
        net = self.settings.network(self._x.shape[1], self._out.shape[0])
        net.load_state_dict(self._engine.weights())
        return net

    # What river asks for

    def _get_params(self) -> dict[str, Any]:
        return dataclasses.asdict(self.settings)

    def clone(self, new_params: dict[str, Any] | None = None, include_attributes: bool = False) -> Self:
        """A model with the same options, or with new_params in their place, that has learned nothing.

        include_attributes: a copy with all that was learned; not together with new_params.
        """
        if not include_attributes:
            return type(self)(**copy.deepcopy(self._get_params()) | (new_params or {}))
        if new_params:
            raise ValueError(
                "new_params must be None where include_attributes is True: what was learned would not fit."
            )
        return copy.deepcopy(self)

    # What is read

    @contextmanager
    def _unless_refused(self) -> Iterator[None]:
        """What is refused fixes no features and takes no labels."""
        engine, features, extra = self._engine, self.features_, self._extra()
        try:
            yield
        except Exception:  # not for Ctrl-C, which comes when steps are learned
            self._engine, self.features_ = engine, features
            self._set_extra(extra)
            raise

    def _start(self, x: Any, y: Any) -> Engine:
        """Fix the sizes from the first step."""
        outputs = self._width(y)
        if hasattr(x, "columns") or isinstance(x, Mapping):
            self.features_ = list(getattr(x, "columns", x))
            inputs = len(self.features_)
        else:
            if np.ndim(x) != 1:
                raise ValueError(f"x must be a dict, or numbers in one row; got {x!r}.")
            inputs = len(x)
        if not inputs:
            raise ValueError("x must have at least one feature at the first step; got none.")
        return self._build(inputs, outputs)

    def _build(self, inputs: int, outputs: int) -> Engine:
        engine = self.settings.engine(self.backend, self.loss, inputs, outputs)
        s = self.settings
        self._x = np.zeros((1, inputs), s.dtype)
        self._y = np.zeros(1, np.int64) if self.loss == "softmax" else np.zeros((1, outputs), s.dtype)
        self._out = np.zeros(outputs, s.dtype)
        names = self.features_
        self._pick = itemgetter(*names) if names and len(names) > 1 else lambda x: (x[names[0]],)  # type: ignore[index]
        self._engine = engine
        return engine

    def _put(self, x: Numbers) -> None:
        """One step into the row that the engine reads."""
        row = self._x[0]
        if isinstance(x, Mapping):
            values: Sequence[float] | np.ndarray = self._values(x)
        else:
            if self.features_ is not None:
                raise ValueError(f"x must be a dict of features, as the first step was; got {x!r}.")
            if len(x) != len(row):
                raise ValueError(f"x must be {len(row)} numbers, as the first step had; got {len(x)}.")
            if getattr(x, "ndim", 1) != 1 or (len(row) == 1 and np.ndim(x[0])):
                raise ValueError(f"x must be {len(row)} numbers in one row; got {x!r}.")
            values = x
        try:
            row[:] = values
        except (TypeError, ValueError) as error:
            raise ValueError(f"x must be {len(row)} numbers; got {x!r}.") from error
        if not math.isfinite(row @ row) and not np.isfinite(row).all():
            raise ValueError("x must be finite numbers; got NaN or infinity, which the state would never forget.")

    def _values(self, x: Mapping[Any, float]) -> Sequence[float]:
        names = self.features_
        if names is None:
            raise ValueError("x must be numbers in a fixed order, as the first step was; got a dict.")
        try:
            values = self._pick(x)
        except KeyError:
            values = [x.get(name, 0.0) for name in names]
        if len(x) > len(names) or sum(name in x for name in names) < len(x):
            new = [name for name in x if name not in names]
            raise ValueError(
                f"x must have no features beyond those of the first step; got {new[0]!r}. "
                "Give every feature at the first step, 0 where it is missing."
            )
        return values

    def _inputs(self, X: Any) -> np.ndarray:
        if hasattr(X, "columns"):
            rows = self._columns(X)
        elif _are_dicts(X):
            rows = self._dicts(X)
        elif self.features_ is not None:
            raise ValueError("X must be a data frame or a list of dicts, as the first steps were; got an array.")
        else:
            rows = np.ascontiguousarray(X, self.settings.dtype)
        if rows.ndim != 2 or (self._engine is not None and rows.shape[1] != self._x.shape[1]):
            wanted = "I" if self._engine is None else self._x.shape[1]
            raise ValueError(f"X must be numbers (T, {wanted}); got {rows.shape}.")
        if not np.isfinite(rows).all():
            raise ValueError("X must be finite numbers; got NaN or infinity, which the state would never forget.")
        return rows

    def _dicts(self, X: Sequence[Mapping[Any, float]]) -> np.ndarray:
        names = self.features_
        if names is None and self._engine is not None:
            raise ValueError("X must be an array, as the first steps were; got dicts.")
        names = list(X[0]) if names is None else names
        new = [name for x in X for name in x if name not in names]
        if new:
            raise ValueError(f"X must have no features beyond those of the first step; got {new[0]!r}.")
        return np.array([[x.get(name, 0.0) for name in names] for x in X], self.settings.dtype)

    def _columns(self, X: Any) -> np.ndarray:
        names = self.features_
        if names is None and self._engine is not None:
            raise ValueError("X must be an array, as the first steps were; got a data frame.")
        names = list(X.columns) if names is None else names
        new = [name for name in X.columns if name not in names]
        if new:
            raise ValueError(f"X must have no columns beyond the features of the first step; got {new[0]!r}.")
        rows = np.zeros((len(X), len(names)), self.settings.dtype)
        for column, name in enumerate(names):
            if name in X.columns:
                rows[:, column] = X[name]
        return rows

    def _predict(self, x: Numbers) -> np.ndarray | None:
        """The outputs for a step, or None before the first one; nothing moves."""
        if self._engine is None:
            return None
        self._put(x)
        self._engine.predict(self._x[0], self._fresh, self._out)
        return self._out

    def _shaped(self, prediction: np.ndarray) -> np.ndarray:
        return prediction

    # Files

    def save(self, path: str | Path) -> None:
        """Write all that going on needs, weights, slots, window and counts, as one safetensors file; no pickle."""
        path = Path(path)
        about, tensors = self.__getstate__()
        tensors = tensors or {"none": torch.zeros(0)}
        other = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            save_file(tensors, other, {"throughtime.online": _plain_json(about)})
            os.replace(other, path)
        finally:
            other.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """What `save` wrote; it goes on bit for bit under the same instruction set.

        Raises ValueError for another kind of file, and where its backend cannot run.
        """
        about, tensors = _read_file(Path(path), cls.__name__)
        model = cls.__new__(cls)
        try:
            model.__setstate__((about, tensors))
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(
                f"path must be a file that save() wrote; {path} is damaged: {type(error).__name__} {error}."
            ) from error
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        return model

    def __getstate__(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """What files, copies and pickles hold: plain values, and tensors by name."""
        engine = self._engine
        about = {"format": FORMAT, "kind": type(self).__name__, "backend": self.backend, "features": self.features_}
        about |= {"settings": dataclasses.asdict(self.settings), "fresh": self._fresh, "extra": self._extra()}
        about["sizes"] = None if engine is None else [self._x.shape[1], self._out.shape[0]]
        return about, {} if engine is None else engine.tensors()

    def __setstate__(self, state: tuple[dict[str, Any], dict[str, Tensor]]) -> None:
        about, tensors = state
        Online.__init__(self, Settings(**about["settings"]))
        if self.backend != about["backend"]:
            raise ValueError(
                f"the model was saved by the {about['backend']} backend, whose memory the other cannot read; here runs "
                f"{self.why}."
            )
        self.features_, self._fresh = about["features"], about["fresh"]
        self._set_extra(about["extra"])
        if about["sizes"]:
            inputs, outputs = about["sizes"]
            features = inputs if self.features_ is None else len(self.features_)
            if features != inputs or self._outputs() not in (None, outputs):
                raise ValueError(f"sizes must be those of features and targets; got {about['sizes']}. It is damaged.")
            self._build(inputs, outputs).load(tensors)

    @abstractmethod
    def _set_extra(self, extra: dict[str, Any]) -> None:
        """Put back what `_extra` gave."""


def _flags(name: str, flags: Any, T: int) -> np.ndarray | None:
    if flags is None:
        return None
    array = np.ascontiguousarray(flags)
    if array.dtype != bool or array.shape != (T,):
        raise ValueError(f"{name} must be bool ({T},), one for each step; got {array.dtype} {array.shape}.")
    return array


def _are_dicts(X: Any) -> bool:
    """Whether the steps are dicts; raises TypeError where only some are."""
    found = [isinstance(x, Mapping) for x in X] if isinstance(X, (list, tuple)) else []
    if any(found) and not all(found):
        raise TypeError("X must be dicts or rows of numbers; got both.")
    return any(found)


def _plain_json(about: Any) -> str:
    for name in (*(about["features"] or ()), *(about["extra"].get("names") or ())):
        if not isinstance(name, (str, int, float)):
            raise TypeError(f"features and labels must be strings, numbers or bools to be saved; got {name!r}.")
    try:
        return json.dumps(about, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"features and labels must be strings, numbers or bools to be saved; {error}.") from error


def _read_file(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {}).get("throughtime.online", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"path must be a file that save() wrote; {path} is damaged: {error}.") from error
    if about.get("kind") != kind:
        raise ValueError(
            f"path must be a file that {kind}.save() wrote; got one of {about.get('kind', 'another kind')}."
        )
    if about.get("format", 0) > FORMAT:
        raise ValueError(f"{path} has format {about['format']}, of a newer throughtime. Update throughtime.")
    return about, tensors


def _join_river(model: Online) -> None:
    """River asks isinstance: where it is imported, it hears that these are its regressors and classifiers."""
    river = sys.modules.get("river.base")
    if river is not None:
        (river.Regressor if model.loss == "squared" else river.Classifier).register(type(model))
