"""A credit algorithm reads chunks in time order and returns the gradient of the errors that it settles now."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from throughtime.chunk import Chunk
from throughtime.nets import Loss
from throughtime.shapes import Float, Tensor
from throughtime.state import State


@dataclass(frozen=True, eq=False)
class Estimate:
    """Sums over the errors settled by one call: their loss, their count, and the gradient by parameter name.

    grads has no entry for a parameter that the errors do not depend on, and none at all while count is 0.
    """

    loss: Float[Tensor, ""]
    count: float
    grads: dict[str, Tensor]

    @staticmethod
    def nothing(like: Tensor) -> Estimate:
        """The estimate of a call that settles no error."""
        return Estimate(torch.zeros((), dtype=torch.get_default_dtype(), device=like.device), 0.0, {})

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.loss + other.loss, self.count + other.count, add(self.grads, other.grads))


class Credit(ABC):
    """How the error at one moment reaches the weights through the moments before it; the whole difference between
    training algorithms.

    Concrete algorithms are frozen dataclasses. At fixed weights the estimates up to `end` add up to the
    algorithm's whole gradient, however the stream is cut into chunks.
    `memories` are the dataclasses that may stand in its memory, so that a run can be saved and resumed.
    """

    memories: Sequence[type] = ()

    @abstractmethod
    def start(self, net: nn.Module, state: State = None) -> Any:
        """The memory before the first chunk: a frozen dataclass of tensors and numbers, never a graph."""

    @abstractmethod
    def __call__(self, net: nn.Module, loss: Loss, chunk: Chunk, memory: Any) -> tuple[Estimate, Any]:
        """Read the next chunk; returns the estimate of what it settles, and the memory for the next call."""

    def held(self, memory: Any) -> tuple[State, tuple[Chunk, ...]]:
        """A state of the stream and the steps that were read since, all that the next call goes back to; those without
        targets are settled already. What the memory has as `state` and `pending`, where it has them."""
        return getattr(memory, "state", None), getattr(memory, "pending", ())

    def note(self, memory: Any) -> str:
        """What the algorithm chose, and why, in a sentence for the record; empty when there was nothing to choose."""
        return ""


def gradient(net: nn.Module, error: Tensor) -> dict[str, Tensor]:
    """The gradient of a summed error, by name of parameter, tied weights once."""
    weights = learning(net)
    if not error.requires_grad:
        raise ValueError("net must have parameters that its errors depend on; got an error without a gradient.")
    found = torch.autograd.grad(error, list(weights.values()), allow_unused=True)
    return {name: grad for name, grad in zip(weights, found, strict=True) if grad is not None}


def learning(net: nn.Module) -> dict[str, nn.Parameter]:
    """The weights that learn, by name, tied ones once. Raises ValueError when there are none."""
    weights = {name: weight for name, weight in net.named_parameters() if weight.requires_grad}
    if not weights:
        raise ValueError("net must have parameters that learn; got none with requires_grad.")
    return weights


def add(a: dict[str, Tensor], b: dict[str, Tensor]) -> dict[str, Tensor]:
    """The sum of two gradients."""
    both = {name: grad + b[name] if name in b else grad for name, grad in a.items()}
    return both | {name: grad for name, grad in b.items() if name not in a}


def check_seed(name: str, seed: int | None) -> None:
    """Raise ValueError unless it is a whole number that a random generator takes, or None."""
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64):
        raise ValueError(f"{name} must be a whole number from 0 to 2**64 - 1; got {seed!r}.")


def check_steps(**steps: int) -> None:
    """Raise ValueError unless each is a whole number of steps, at least 1."""
    for name, value in steps.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number of steps, at least 1; got {value!r}.")
