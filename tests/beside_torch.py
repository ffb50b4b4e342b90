"""What the tests share that put our layers in the place of torch.nn's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from throughtime import layers

LAYERS = ("RNN", "GRU", "LSTM")
STEPS = ("RNNCell", "GRUCell", "LSTMCell")
TWINS = [(name, backend) for name in LAYERS for backend in ("auto", "reference")] + [(name, "") for name in STEPS]
"""A layer of one step has no backend."""

twins = pytest.mark.parametrize(("name", "backend"), TWINS, ids=lambda part: part or "-")
layers_only = pytest.mark.parametrize(("name", "backend"), TWINS[:6])


def make(name: str, backend: str, *args: Any, **options: Any) -> Any:
    return getattr(layers, name)(*args, **options, **({"backend": backend} if backend else {}))


def pair(name: str, backend: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Our layer and torch's, made under the same seed."""
    made = []
    for build in (lambda: make(name, backend, *args, **options), lambda: getattr(nn, name)(*args, **options)):
        torch.manual_seed(3)
        made.append(build())
    return made[0], made[1]


def example(name: str) -> Tensor:
    return torch.randn(4, 3) if name in STEPS else torch.randn(5, 4, 3)


def close(found: Any, wanted: Any, **tolerance: float) -> None:
    """Equal to rounding, and alike in memory."""
    found, wanted = tree_leaves(found), tree_leaves(wanted)
    torch.testing.assert_close(found, wanted, **tolerance)
    assert [part.is_contiguous() for part in found] == [part.is_contiguous() for part in wanted]


def results(call: Callable[[], Any], *learned: Any) -> list[Tensor]:
    """What a call returns, and the gradients of the sum of its squares."""
    outputs = [part for part in tree_leaves(call()) if part.is_floating_point()]
    wanted = [part for part in tree_leaves(learned) if isinstance(part, Tensor) and part.requires_grad]
    return outputs + list(torch.autograd.grad(sum(part.square().sum() for part in outputs), wanted))


def failure(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:
        call()
    return caught.type, str(caught.value)
