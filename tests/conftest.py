"""What every test runs under: seeds of its own, uninitialised memory full of NaN, one thread a worker."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings

settings.register_profile("throughtime", deadline=None, derandomize=True)
settings.load_profile("throughtime")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed(request: pytest.FixtureRequest) -> int:
    """A seed from the name of the test, so that it draws the same numbers alone and among others."""
    number = zlib.crc32(request.node.nodeid.encode())
    torch.manual_seed(number)
    np.random.seed(number)
    return number


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody wrote to holds NaN, and numbers are huge: what forgets to write an entry fails."""
    for owner, name in (
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (torch.Tensor, "new_empty"),
        (np, "empty"),
        (np, "empty_like"),
    ):
        monkeypatch.setattr(owner, name, _poisoning(getattr(owner, name)))


def _poisoning(make: Callable[..., Any]) -> Callable[..., Any]:
    def poisoned(*args: Any, **kwargs: Any) -> Any:
        made = make(*args, **kwargs)
        return _poison_array(made) if isinstance(made, np.ndarray) else _poison_tensor(made)

    return poisoned


def _poison_tensor(tensor: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        if tensor.is_floating_point() or tensor.is_complex():
            return tensor.fill_(float("nan"))
        return tensor.fill_(True if tensor.dtype == torch.bool else torch.iinfo(tensor.dtype).max)


def _poison_array(array: np.ndarray) -> np.ndarray:
    if array.dtype.kind in "fc":
        array.fill(np.nan)
    elif array.dtype.kind in "iu":
        array.fill(np.iinfo(array.dtype).max)
    elif array.dtype.kind == "b":
        array.fill(True)
    return array
