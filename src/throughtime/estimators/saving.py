"""A fitted estimator in a run's folder, and back: no pickle, the same predictions.

config.toml has [estimator], its class and its parameters to read, and [network]; weights.safetensors the weights;
metrics.jsonl the records; learned.safetensors the parameters to the letter and everything else that fit learned. That
is every attribute that is no parameter, of these kinds: numbers, strings, None, tensors, numpy arrays (of numbers,
strings, dates, or objects of these kinds), tuples, lists, dicts, the library's own dataclasses and networks, and the
names that narwhals has for a library of frames and for the types of its columns.

An estimator whose attributes are of other kinds defines

    _learned() -> dict          its learned values by name, of the kinds above, without net_ and records_
    _set_learned(dict) -> None  the reverse, on an estimator with the same parameters and its net_

What partial_fit keeps in its optimiser is not saved: after loading it begins with a new one.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import narwhals as nw
import numpy as np
import torch
from narwhals.dtypes import DType
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted
from torch import nn

from throughtime.nets import build
from throughtime.runs import Run, weights_of

LEARNED = "learned.safetensors"
PACKAGE = "throughtime"
KIND = "kind"
NET, RECORDS, OPTIMIZER = "net_", "records_", "optimizer_"


def save(estimator: BaseEstimator, folder: str | Path) -> Path:
    """Write a fitted estimator into a new folder; returns the folder.

    Raises NotFittedError before fit, FileExistsError when something is there, TypeError for an estimator that is not
    of this library or holds what cannot be written.
    """
    kind = type(estimator)
    if not isinstance(estimator, BaseEstimator) or kind.__module__.partition(".")[0] != PACKAGE:
        raise TypeError(f"estimator must be one of {PACKAGE}; got {kind.__name__}. Save the one inside it.")
    check_is_fitted(estimator, NET)
    net = getattr(estimator, NET)
    params = estimator.get_params(deep=False)
    tree = {"params": pack(params, "parameters"), "learned": pack(_learned(estimator), "learned")}
    shown = {name: value for name, value in params.items() if isinstance(value, (bool, int, float, str))}
    run = Run.create(
        folder,
        {
            "estimator": {"class": kind.__name__, "module": kind.__module__, "params": shown},
            "network": net.config(),
        },
    )
    try:
        run.save_weights(net)
        run.save_tree(LEARNED, tree)
        for record in getattr(estimator, RECORDS, ()):
            run.log(record)
    except BaseException:
        run.discard()
        raise
    return run.path


def load_estimator(folder: str | Path) -> Any:
    """The fitted estimator that `save` wrote. Raises FileNotFoundError or ValueError, with a sentence, as Run does."""
    run = Run(folder)
    section = run.config.get("estimator")
    if not isinstance(section, dict) or not {"class", "module"} <= section.keys():
        raise ValueError(f"{run.path} has no estimator in it: it was not made by save. Open it by throughtime.load.")
    tree = run.load_tree(LEARNED, hint="Restore it, or fit again.")
    try:
        kind = _class(section["module"], section["class"])
        if not issubclass(kind, BaseEstimator):
            raise ValueError(f"{section['class']} is no estimator")
        estimator = kind(**unpack(tree["params"]))
        net = build(run.config["network"])
        run.load_weights(net)
        setattr(estimator, NET, net.eval())
        learned = unpack(tree["learned"])
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        raise ValueError(f"{run.path} is damaged, or of another version: {error}. Restore it, or fit again.") from error
    if hasattr(estimator, "_set_learned"):
        estimator._set_learned(learned)
    else:
        for name, value in learned.items():
            setattr(estimator, name, value)
    setattr(estimator, RECORDS, run.records())
    return estimator


def _learned(estimator: BaseEstimator) -> dict[str, Any]:
    if hasattr(estimator, "_learned"):
        return estimator._learned()
    apart = (NET, RECORDS, OPTIMIZER)
    params = estimator.get_params(deep=False)
    return {name: value for name, value in vars(estimator).items() if name not in apart and name not in params}


def _class(module: str, name: str) -> type:
    """A class of this library. Raises ValueError for any other."""
    if not isinstance(module, str) or module.partition(".")[0] != PACKAGE:
        raise ValueError(f"class must be of {PACKAGE}; got {module}.{name}")
    found = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not isinstance(found, type):
        raise ValueError(f"class must be a class; got {module}.{name}")
    return found


def pack(value: Any, name: str) -> Any:
    """The value as a tree of tensors, plain values, lists and dicts of names, for Run.save_tree; name is for errors."""
    if value is None or isinstance(value, torch.Tensor) or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, np.generic):
        return {KIND: "number", "array": pack(np.asarray(value), name)}
    if isinstance(value, np.ndarray):
        return _pack_array(value, name)
    if isinstance(value, (tuple, list)) and type(value) in (tuple, list):
        return {KIND: type(value).__name__, "parts": [pack(part, f"{name}[{k}]") for k, part in enumerate(value)]}
    if isinstance(value, Mapping):
        pairs = [[pack(key, name), pack(part, f"{name}[{key!r}]")] for key, part in value.items()]
        return {KIND: "dict", "parts": pairs}
    ours = type(value).__module__.partition(".")[0] == PACKAGE
    if isinstance(value, nw.Implementation):
        return {KIND: "library", "name": value.name}
    if isinstance(value, DType) or (isinstance(value, type) and issubclass(value, DType)):
        return _pack_type(value, name)
    config: Any = getattr(value, "config", None)
    if isinstance(value, nn.Module) and ours and config is not None:
        return {KIND: "network", "config": pack(config(), name), "weights": weights_of(value)}
    if dataclasses.is_dataclass(value) and ours:
        fields = {f.name: pack(getattr(value, f.name), f"{name}.{f.name}") for f in dataclasses.fields(value)}
        return {KIND: "object", "module": type(value).__module__, "class": type(value).__qualname__, "fields": fields}
    raise TypeError(
        f"{name} must be numbers, strings, arrays, or objects of this library to be saved; got {type(value).__name__}."
    )


def _pack_type(value: Any, name: str) -> dict[str, Any]:
    """The type of a column, as narwhals names it; of a class of types that class is what is kept."""
    made = isinstance(value, DType)
    told = [key for key in ("time_unit", "time_zone", "categories") if made and hasattr(value, key)]
    options = {key: getattr(value, key) for key in told}
    kind: type[DType] = type(value) if made else value
    if getattr(nw, kind.__name__, None) is not kind or issubclass(kind, (nw.List, nw.Array, nw.Struct)):
        raise TypeError(f"{name} must be a plain type of column to be saved; got {value}.")
    return {KIND: "type", "name": kind.__name__, "made": made, "options": pack(options, name)}


def _pack_array(value: NDArray[Any], name: str) -> dict[str, Any]:
    if value.dtype.kind == "U":
        return {KIND: "strings", "dtype": value.dtype.str, "shape": list(value.shape), "values": value.ravel().tolist()}
    if value.dtype.kind == "O":
        parts = [pack(part, f"{name}[{k}]") for k, part in enumerate(value.ravel())]
        return {KIND: "objects", "shape": list(value.shape), "values": parts}
    if value.dtype.kind in "mM":
        return {KIND: "array", "dtype": value.dtype.str, "values": torch.tensor(value.astype(np.int64))}
    if value.dtype.kind not in "biufc" or value.dtype.itemsize > 16:
        raise TypeError(f"{name} must be an array of numbers, strings or dates to be saved; got {value.dtype}.")
    native = value.astype(value.dtype.newbyteorder("="))
    return {
        KIND: "array",
        "dtype": native.dtype.str,
        "values": torch.from_numpy(np.ascontiguousarray(native).copy().reshape(value.shape)),
    }


def unpack(tree: Any) -> Any:
    """The value that pack took apart."""
    if not isinstance(tree, dict):
        return tree
    kind = tree[KIND]
    if kind == "number":
        return unpack(tree["array"])[()]
    if kind == "array":
        values = tree["values"].numpy()
        return values.astype(tree["dtype"]) if values.dtype.str != tree["dtype"] else values
    if kind == "strings":
        return np.array(tree["values"], tree["dtype"]).reshape(tree["shape"])
    if kind == "objects":
        found = np.empty(len(tree["values"]), object)
        for place, part in enumerate(tree["values"]):
            found[place] = unpack(part)
        return found.reshape(tree["shape"])
    if kind in ("tuple", "list"):
        parts = [unpack(part) for part in tree["parts"]]
        return tuple(parts) if kind == "tuple" else parts
    if kind == "dict":
        return {unpack(key): unpack(part) for key, part in tree["parts"]}
    return _made_anew(tree)


def _made_anew(tree: dict[str, Any]) -> Any:
    """An object of the library or of narwhals."""
    kind = tree[KIND]
    if kind == "library":
        return nw.Implementation[tree["name"]]
    if kind == "type":
        column = getattr(nw, tree["name"])
        return column(**unpack(tree["options"])) if tree["made"] else column
    if kind == "network":
        net = build(unpack(tree["config"]))
        with torch.no_grad():
            for name, weight in weights_of(net).items():
                weight.copy_(tree["weights"][name])
        return net.eval()
    if kind == "object":
        cls = _class(tree["module"], tree["class"])
        if not dataclasses.is_dataclass(cls):
            raise ValueError(f"{tree['class']} must be a dataclass")
        made = cls.__new__(cls)
        for name, part in tree["fields"].items():
            object.__setattr__(made, name, unpack(part))
        return made
    raise ValueError(f"kind must be one that save writes; got {kind!r}")
