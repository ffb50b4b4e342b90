"""The scikit-learn door: estimators over the same engine, for sequences, tags, series and text."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime.estimators.checking import check_sequence_estimator
    from throughtime.estimators.forecaster import Forecaster
    from throughtime.estimators.language import LanguageModel
    from throughtime.estimators.saving import load_estimator, save
    from throughtime.estimators.sequences import SequenceClassifier, SequenceRegressor
    from throughtime.estimators.tagger import SequenceTagger

_HOMES = {
    "Forecaster": "forecaster",
    "LanguageModel": "language",
    "SequenceClassifier": "sequences",
    "SequenceRegressor": "sequences",
    "SequenceTagger": "tagger",
    "check_sequence_estimator": "checking",
    "load_estimator": "saving",
    "save": "saving",
}

__all__ = [
    "Forecaster",
    "LanguageModel",
    "SequenceClassifier",
    "SequenceRegressor",
    "SequenceTagger",
    "check_sequence_estimator",
    "load_estimator",
    "save",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
