"""Where NaN and infinity came from: the first tensor of an update that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from throughtime.chunk import Chunk
from throughtime.credit import Estimate
from throughtime.shapes import Tensor
from throughtime.state import flatten


class NonFiniteError(ArithmeticError):
    """A loss or a gradient became NaN or infinite."""


def check_weights(net: nn.Module, update: int) -> None:
    """Raise NonFiniteError when a weight is not finite after an update."""
    for name, weight in net.named_parameters():
        if not weight.isfinite().all():
            raise NonFiniteError(f"the weight {name} is not finite after update {update}. Lower the learning rate.")


def first_bad(net: nn.Module, chunk: Chunk, memory: Any, estimate: Estimate) -> str:
    """The name of the first tensor that is not finite, in the order in which they depend on each other."""
    for name, weight in net.named_parameters():
        if not weight.isfinite().all():
            return f"the weight {name}"
    for name in ("x", "y"):
        value = getattr(chunk, name)
        counted = value is not None and (name == "x" or chunk.mask is None)
        if counted and not value.isfinite().all():
            return name
    for name, value in flatten(memory, "memory")[1].items():
        if value.is_floating_point() and not value.isfinite().all() and not name.endswith(".y"):
            return f"{name} (the carried state)"
    outputs = _first_bad_output(net, chunk)
    if outputs:
        return outputs
    if not estimate.loss.isfinite():
        return "the loss"
    bad = (f"the gradient of {name}" for name, grad in estimate.grads.items() if not grad.isfinite().all())
    return next(bad, "the norm of the gradient, of which every part is finite")


def _first_bad_output(net: nn.Module, chunk: Chunk) -> str:
    """The first module whose output is not finite, in the order in which they run from a zero state."""
    bad: list[str] = []
    hooks = []

    def look(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, Tensor) and not first.isfinite().all():
                bad.append(f"the output of {name or 'the network'}")

        return hook

    for name, module in net.named_modules():
        hooks.append(module.register_forward_hook(look(name)))
    with torch.no_grad():
        net(chunk.x, None, chunk.reset)
    for hook in hooks:
        hook.remove()
    return bad[0] if bad else ""
