"""throughtime: recurrent networks, trained through time."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime import cells, credit, data, estimators, flow, kernels, pictures, verify
    from throughtime.chunk import Chunk, join
    from throughtime.comparing import compare
    from throughtime.credit import (
        BPTT,
        RFLO,
        RTRL,
        UORO,
        AdaptiveBPTT,
        Credit,
        Estimate,
        ParallelBPTT,
        RandomTruncation,
        SnAp,
    )
    from throughtime.estimators import (
        Forecaster,
        LanguageModel,
        SequenceClassifier,
        SequenceRegressor,
        SequenceTagger,
    )
    from throughtime.inference import evaluate
    from throughtime.layers import GRU, LSTM, RNN, GRUCell, LSTMCell, Recurrent, RNNCell
    from throughtime.nets import Adapted, Network, Window, bernoulli, cross_entropy, squared_error
    from throughtime.online import OnlineClassifier, OnlineRegressor
    from throughtime.recurrent import FullyRecurrent
    from throughtime.runs import load
    from throughtime.training import train
    from throughtime.verify.audit import audit
    from throughtime.version import __version__

_HOMES = {
    "Adapted": "nets",
    "AdaptiveBPTT": "credit",
    "BPTT": "credit",
    "Chunk": "chunk",
    "Credit": "credit",
    "Estimate": "credit",
    "Forecaster": "estimators",
    "FullyRecurrent": "recurrent",
    "GRU": "layers",
    "GRUCell": "layers",
    "LSTM": "layers",
    "LSTMCell": "layers",
    "LanguageModel": "estimators",
    "Network": "nets",
    "OnlineClassifier": "online",
    "OnlineRegressor": "online",
    "ParallelBPTT": "credit",
    "RFLO": "credit",
    "RNN": "layers",
    "RNNCell": "layers",
    "RTRL": "credit",
    "RandomTruncation": "credit",
    "Recurrent": "layers",
    "SequenceClassifier": "estimators",
    "SequenceRegressor": "estimators",
    "SequenceTagger": "estimators",
    "SnAp": "credit",
    "UORO": "credit",
    "Window": "nets",
    "__version__": "version",
    "audit": "verify.audit",
    "bernoulli": "nets",
    "cells": "",
    "compare": "comparing",
    "credit": "",
    "cross_entropy": "nets",
    "data": "",
    "estimators": "",
    "evaluate": "inference",
    "flow": "",
    "join": "chunk",
    "kernels": "",
    "load": "runs",
    "pictures": "",
    "squared_error": "nets",
    "train": "training",
    "verify": "",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'throughtime' has no attribute {name!r}")
    home = _HOMES[name]
    if not home:
        return import_module(f"throughtime.{name}")
    value = getattr(import_module(f"throughtime.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
