"""Networks that predict numbers or labels and learn from each as it comes, in river's manner."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from throughtime.inputs import check_sizes
from throughtime.online.engines import Settings, whole
from throughtime.online.stream import Numbers, Online

Label = str | int | float | bool


class OnlineRegressor(Online):
    """Predicts numbers while it learns from them: half the squared error, BPTT(h; every), one layer.

    units      H, the width of the layer.
    cell       a spelled name: `elman`, `elman:phi=relu`, `gru`, `lstm`, `ctrnn:alpha=0.5`.
    h, every, replay   as in BPTT: steps back, steps between two updates, and how the past is read after an update.
    optimizer  `sgd:lr=0.01,momentum=0.9` or `adam:lr=0.001`; as torch.optim computes them.
    seed       of the first weights.
    dtype      `float32` or `float64`.
    backend    `auto`, `native` (raises where it cannot run) or `reference`.

    The first step fixes the features and whether y is a number, a sequence of numbers or a dict of numbers.
    Cost a step: a step of the layer, h / every steps back (and as many forward with replay), and one update of all
    weights. Bias: what comes from further back than h is lost, and without replay the past is read as it was under
    older weights, which errs by the order of lr. Inputs are not scaled here. Not for several streams at once.
    """

    loss = "squared"

    def __init__(
        self,
        *,
        units: int = 32,
        cell: str = "elman",
        h: int = 16,
        every: int = 1,
        replay: bool = False,
        optimizer: str = "sgd:lr=0.01",
        seed: int = 0,
        dtype: str = "float32",
        backend: str = "auto",
    ) -> None:
        self._names: list[Any] | None = None
        self._number = False
        super().__init__(Settings(units, cell, h, every, replay, optimizer, seed, dtype, backend))

    def predict_one(self, x: Numbers) -> Any:
        """What is predicted for a step: a number, array or dict as y is; 0.0 before the first one. Nothing moves."""
        found = self._predict(x)
        if found is None:
            return 0.0
        if self._names is not None:
            return dict(zip(self._names, found.tolist(), strict=True))
        return float(found[0]) if self._number else found.copy()

    def _width(self, y: Any) -> int:
        if y is None:
            raise ValueError("y must be given at the first step, which says how many numbers there are; got None.")
        self._names = list(y) if isinstance(y, Mapping) else None
        self._number = self._names is None and np.ndim(y) == 0
        return 1 if self._number else len(y)

    def _target(self, y: Any) -> Any:
        if self._names is None:
            if np.shape(y) != (() if self._number else self._out.shape):
                wanted = "a number" if self._number else f"{len(self._out)} numbers"
                raise ValueError(f"y must be {wanted}, as the first one was; got {y!r}.")
            return y
        if not isinstance(y, Mapping) or set(y) != set(self._names):
            raise ValueError(f"y must be a dict of {', '.join(map(str, self._names))}; got {y!r}.")
        return [y[name] for name in self._names]

    def _targets(self, Y: Any, mask: np.ndarray | None) -> np.ndarray:
        A = len(self._out)
        if isinstance(Y, Sequence) and any(isinstance(y, Mapping) for y in Y):
            raise ValueError(f"Y must be numbers (T, {A}) in the order of the first dict; got dicts. Use learn_one.")
        y = np.ascontiguousarray(Y, self.settings.dtype)
        if y.shape[1:] != (() if self._number else (A,)):
            raise ValueError(
                f"Y must be (T{'' if self._number else f', {A}'}), as the first target was; got {y.shape}."
            )
        y = y.reshape(len(y), A)
        if not np.isfinite(y if mask is None else y[mask]).all():
            raise ValueError("Y must be finite numbers wherever it counts; got NaN or infinity. Give a mask.")
        return y

    def _shaped(self, prediction: np.ndarray) -> np.ndarray:
        return prediction[:, 0] if self._number else prediction

    def _extra(self) -> dict[str, Any]:
        return {"names": self._names, "number": self._number}

    def _set_extra(self, extra: dict[str, Any]) -> None:
        self._names, self._number = extra["names"], extra["number"]

    def _outputs(self) -> int | None:
        return 1 if self._number else None if self._names is None else len(self._names)


class OnlineClassifier(Online):
    """Predicts labels while it learns from them: softmax cross-entropy, BPTT(h; every), one layer.

    classes   the labels, or how many there may be: each takes the next free output when it is first seen, and one
              too many raises ValueError.
    labels_   the labels in the order of their outputs.
    The other arguments, cost and bias as in OnlineRegressor. Labels are strings, whole numbers, bools or floats.
    """

    loss = "softmax"
    _multiclass = True  # river asks for it

    def __init__(
        self,
        *,
        classes: int | Sequence[Label] = 2,
        units: int = 32,
        cell: str = "elman",
        h: int = 16,
        every: int = 1,
        replay: bool = False,
        optimizer: str = "sgd:lr=0.01",
        seed: int = 0,
        dtype: str = "float32",
        backend: str = "auto",
    ) -> None:
        self._given: int | list[Label]
        if isinstance(classes, (str, bytes)):
            raise TypeError(f"classes must be labels in a list, or how many there may be; got {classes!r}.")
        if isinstance(classes, Sequence) or np.ndim(classes) == 1:
            self.labels_: list[Label] = [_label(label) for label in classes]  # type: ignore[union-attr]
            self._given, self.classes = list(self.labels_), len(self.labels_)
        else:
            self.labels_ = []
            self._given = self.classes = whole("classes", classes)
        check_sizes(classes=self.classes)
        self._index = {label: index for index, label in enumerate(self.labels_)}
        if len(self._index) < len(self.labels_):
            raise ValueError(f"classes must be different labels; got {self.labels_}.")
        super().__init__(Settings(units, cell, h, every, replay, optimizer, seed, dtype, backend))

    def predict_proba_one(self, x: Numbers) -> dict[Label, float]:
        """The probability of every label seen so far; {} before the first step. Nothing moves."""
        found = self._predict(x)
        return {} if found is None else dict(zip(self.labels_, found.tolist(), strict=False))

    def predict_one(self, x: Numbers) -> Label | None:
        """The most probable label of those seen so far; None before the first one. Nothing moves."""
        found = self.predict_proba_one(x)
        return max(found, key=found.__getitem__) if found else None

    def _width(self, y: Any) -> int:
        return self.classes

    def _target(self, y: Any) -> int:
        label = _label(y)
        if label not in self._index:
            if len(self.labels_) == self.classes:
                raise ValueError(
                    f"y must be one of {self.classes} labels, and {self.labels_} were seen before; got {label!r}. "
                    f"Make it OnlineClassifier(classes={self.classes + 1}) or more."
                )
            self._index[label] = len(self.labels_)
            self.labels_.append(label)
        return self._index[label]

    def _targets(self, Y: Any, mask: np.ndarray | None) -> np.ndarray:
        labels = Y.tolist() if hasattr(Y, "tolist") else list(Y)
        counts = [True] * len(labels) if mask is None else mask.tolist()
        found = [self._target(y) if count else 0 for y, count in zip(labels, counts, strict=False)]
        return np.array(found, np.int64)

    def _extra(self) -> dict[str, Any]:
        return {"labels": list(self.labels_), "classes": self.classes, "given": self._given}

    def _get_params(self) -> dict[str, Any]:
        return {"classes": self._given} | super()._get_params()

    def _set_extra(self, extra: dict[str, Any]) -> None:
        self.labels_, self.classes = list(extra["labels"]), extra["classes"]
        self._given = extra.get("given", self.classes)
        self._index = {label: index for index, label in enumerate(self.labels_)}
        if len(self._index) > self.classes:
            raise ValueError(f"labels must be at most {self.classes}; got {self.labels_}. What was saved is damaged.")

    def _outputs(self) -> int | None:
        return self.classes


def _label(y: Any) -> Label:
    label = y.item() if isinstance(y, np.generic) else y
    if not isinstance(label, (str, int, float)):
        raise TypeError(f"y must be a label: a string, a number or a bool; got {type(y).__name__}.")
    if isinstance(label, float) and not math.isfinite(label):
        raise ValueError(f"y must be a label that is finite; got {label}. Give None, or a mask, for no target.")
    return label
