"""What the tests of the layers share: our layer beside torch's, and all that a call of either gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughtime import layers

MODES: dict[str, tuple[str, dict[str, Any]]] = {
    "tanh": ("RNN", {}),
    "relu": ("RNN", {"nonlinearity": "relu"}),
    "gru": ("GRU", {}),
    "lstm": ("LSTM", {}),
    "projected": ("LSTM", {"proj_size": 2}),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 3},
    {"bidirectional": True},
    {"num_layers": 2, "bidirectional": True, "batch_first": True},
    {"num_layers": 2, "bias": False},
    {"bidirectional": True, "bias": False},
]
BACKENDS = ("auto", "reference")
EXACT = {"rtol": 1e-12, "atol": 1e-12}
"""float64: some thousand roundings of 1e-16 each, of numbers near one."""

modes = pytest.mark.parametrize("mode", MODES)
options = pytest.mark.parametrize("options", OPTIONS, ids=lambda o: ",".join(f"{k}={v}" for k, v in o.items()) or "-")
backends = pytest.mark.parametrize("backend", BACKENDS)


def pair(mode: str, backend: str, I: int = 3, H: int = 5, **options: Any) -> tuple[Any, Any]:
    """Our layer and torch's, with the same random weights, in float64."""
    name, more = MODES[mode]
    plain = getattr(nn, name)(I, H, **more, **options).double()
    ours = getattr(layers, name)(I, H, backend=backend, **more, **options).double()
    ours.load_state_dict(plain.state_dict())
    return ours, plain


def state_for(layer: Any, rows: Sequence[int]) -> Any:
    """A random state in torch's form, rows () or (B,)."""
    count = layer.num_layers * (1 + layer.bidirectional)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: 1 + isinstance(layer, nn.LSTM)]
    slots = tuple(torch.randn(count, *rows, width, dtype=torch.double).requires_grad_() for width in widths)
    return slots if len(slots) > 1 else slots[0]


def leaves(tree: Any) -> list[Tensor]:
    """The tensors of floating numbers in nested tuples."""
    if isinstance(tree, Tensor):
        return [tree] if tree.is_floating_point() else []
    return [leaf for part in tree if part is not None for leaf in leaves(part)]


def _grad(graph: list[tuple[Tensor, Tensor]], inputs: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    outputs, errors = zip(*graph, strict=True)
    return torch.autograd.grad(outputs, inputs, errors, allow_unused=True)


def outputs_and_gradients(run: Callable[[], Any], inputs: Sequence[Tensor], seed: int = 0) -> list[Tensor]:
    """What run returns, and the gradients of its inputs under random errors of every number returned."""
    outputs = leaves(run())
    generator = torch.Generator().manual_seed(seed)
    errors = [torch.randn(part.shape, generator=generator, dtype=torch.double).to(part) for part in outputs]
    graph = [(part, error) for part, error in zip(outputs, errors, strict=True) if part.requires_grad]
    grads = _grad(graph, inputs) if graph else [None] * len(inputs)
    return outputs + [torch.zeros_like(x) if grad is None else grad for x, grad in zip(inputs, grads, strict=True)]


def each(hx: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tuple(change(slot) for slot in hx) if isinstance(hx, tuple) else change(hx)
