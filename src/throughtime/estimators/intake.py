"""What a user hands to an estimator of whole sequences: X as a list of sequences or texts, weights, the seed."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, validate_data

from throughtime.data.labelled import from_long
from throughtime.data.long import ID, ID_NAMES, known_as
from throughtime.data.sequences import sequences_of

Numbers = NDArray[np.float64]


def take(
    estimator: BaseEstimator, X: Any, *, reset: bool, layout: str, lengths: ArrayLike | None, features: int | None
) -> list[Any]:
    """X as a list, of strings or of arrays (T_i, I).

    An array or data frame (N, T), or a list of as long lists of plain numbers, is checked as scikit-learn does, which
    with reset=True sets n_features_in_ = T, and else holds it to the T of fit. All others go through `sequences_of`; a
    list of strings stays what it is. A data frame with a column of ids is long, and read by `from_long`; its other
    columns are kept as columns_, and found by name again.
    features is the I of fit, None in fit itself.
    """
    if reset:
        estimator.__dict__.pop("columns_", None)
    if hasattr(X, "__array__") and not isinstance(X, np.ndarray) and not _is_frame(X):
        X = np.asarray(X)
    if is_text(X):
        if features is not None:
            raise TypeError("X must be sequences of numbers, as in fit; got texts.")
        if lengths is not None or layout != "ntc":
            raise ValueError("layout and lengths must be left out for texts, which have neither.")
        return [str(text) for text in X]
    if is_long(X):
        return _from_long(estimator, X, reset=reset, features=features, plain=lengths is None and layout == "ntc")
    if _is_table(X):
        if reset or hasattr(estimator, "n_features_in_"):
            X = validate_data(estimator, X, reset=reset, dtype=np.float64, ensure_all_finite=lengths is None)
        else:
            X = check_array(X, dtype=np.float64, ensure_all_finite=lengths is None)
    elif reset:
        for name in ("n_features_in_", "feature_names_in_"):
            estimator.__dict__.pop(name, None)
    return list(sequences_of(X, layout=layout, lengths=lengths, features=features))


def is_text(X: Any) -> bool:
    """Whether X is a list, a tuple or an array of strings."""
    if isinstance(X, np.ndarray):
        return X.ndim == 1 and (X.dtype.kind in "UT" or (X.dtype == object and X.size > 0 and isinstance(X[0], str)))
    return isinstance(X, (list, tuple)) and len(X) > 0 and isinstance(X[0], str)


def is_long(X: Any) -> bool:
    """Whether X is a data frame with a column of ids: a row a step."""
    return _is_frame(X) and bool(known_as([str(name) for name in X.columns], (ID, *ID_NAMES)))


def _from_long(
    estimator: BaseEstimator, X: Any, *, reset: bool, features: int | None, plain: bool
) -> list[NDArray[np.float64]]:
    if not plain:
        raise ValueError("layout and lengths must be left out for a long data frame, which has neither.")
    columns = None if reset else getattr(estimator, "columns_", None)
    found = from_long(X, features=columns)
    for note in found.notes:
        warnings.warn(note, stacklevel=4)
    if reset:
        for name in ("n_features_in_", "feature_names_in_"):
            estimator.__dict__.pop(name, None)
        estimator.columns_ = found.features
    return sequences_of(list(found.sequences), features=features)


def take_weight(sample_weight: ArrayLike | None, count: int) -> Numbers:
    """One weight of at least 0 a sequence, not all of them 0; ones where there are none."""
    if sample_weight is None:
        return np.ones(count)
    weight = np.asarray(sample_weight, np.float64)
    if weight.ndim == 0:
        weight = np.full(count, float(weight))
    if weight.shape != (count,):
        raise ValueError(f"sample_weight must be one number for each of the {count} sequences; got {weight.shape}.")
    if not np.isfinite(weight).all() or (weight < 0).any():
        raise ValueError("sample_weight must be finite numbers of at least 0.")
    if not weight.any():
        raise ValueError("sample_weight must have a weight above zero; got weights that are all zero.")
    return weight


def seed_of(random_state: Any) -> int:
    """A seed drawn from scikit-learn's random_state: None, a whole number or a RandomState."""
    return int(check_random_state(random_state).randint(2**31 - 1))


def _is_table(X: Any) -> bool:
    """Whether X has one row of as many numbers for each sequence; or is nothing else, for scikit-learn to say so."""
    if isinstance(X, np.ndarray):
        return X.ndim == 2 or (X.ndim < 2 and X.dtype != object)
    if isinstance(X, (list, tuple)):
        rows = [len(row) if isinstance(row, (list, tuple)) else -1 for row in X]
        return bool(rows) and min(rows) == max(rows) > 0 and all(np.isscalar(value) for row in X for value in row)
    return _is_frame(X) or hasattr(X, "tocsr")


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns") and hasattr(X, "shape")
