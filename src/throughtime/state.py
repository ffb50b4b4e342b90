"""State is an argument and a result: any nesting of tuples of tensors with the streams on axis -2; None means zeros."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any

import torch

from throughtime.shapes import Bool, Tensor

State = Any
"""A tensor, None, or a tuple of states."""


def change(f: Callable[[Tensor], Tensor], state: State) -> State:
    """The same nesting, with f applied to every tensor."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return f(state)
    if isinstance(state, (tuple, list)):
        parts = [change(f, part) for part in state]
        return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)
    raise TypeError(f"state must be tensors in nested tuples, or None; got {type(state).__name__}.")


def detach(state: State) -> State:
    """The same state, outside any graph."""
    return change(Tensor.detach, state)


def restart(state: State, rows: Bool[Tensor, " B"]) -> State:
    """The state with the rows that start anew put to zeros, whatever they held (NaN too)."""
    return change(lambda part: part.masked_fill(rows[:, None], 0), state)


def segments(reset: Bool[Tensor, "T B"] | None, steps: int) -> Iterator[tuple[int, int, Tensor | None]]:
    """Cut time where any row starts anew: (start, stop, the rows that start anew at start, or None)."""
    if reset is None:
        yield 0, steps, None
        return
    starts = reset.any(dim=1).nonzero().flatten().tolist()
    bounds = [0, *(t for t in starts if t > 0), steps]
    for start, stop in pairwise(bounds):
        yield start, stop, reset[start] if start in starts else None


def run_segments(
    step: Callable[[Tensor, State], tuple[Tensor, State]], x: Tensor, state: State, reset: Tensor | None
) -> tuple[Tensor, State]:
    """Run `step(x, state) -> (y, state)` over T steps, with rows starting anew where reset says so.

    Exact for any function that carries its state: time is cut at every step in which a row restarts.
    Raises ValueError unless reset is bool (T, B).
    """
    if reset is not None and (reset.dtype != torch.bool or reset.shape != x.shape[:2]):
        wanted, got = tuple(x.shape[:2]), tuple(reset.shape)
        raise ValueError(f"reset must be bool with the leading axes of x, {wanted}; got {reset.dtype} {got}.")
    outputs = []
    for start, stop, rows in segments(reset, x.shape[0]):
        if rows is not None:
            state = restart(state, rows)
        y, state = step(x[start:stop], state)
        outputs.append(y)
    return (outputs[0] if len(outputs) == 1 else torch.cat(outputs)), state


def flatten(tree: Any, name: str = "") -> tuple[Any, dict[str, Tensor]]:
    """A tree of tuples, lists, dicts, dataclasses, tensors and plain values as (a JSON skeleton, tensors by name)."""
    if isinstance(tree, Tensor):
        return {"tensor": name}, {name: tree}
    if tree is None or isinstance(tree, (bool, int, float, str)):
        return tree, {}
    kind, parts = _parts(tree)
    tensors: dict[str, Tensor] = {}
    skeletons = []
    for key, part in parts:
        skeleton, inner = flatten(part, f"{name}.{key}")
        skeletons.append([key, skeleton])
        tensors |= inner
    return {kind: skeletons}, tensors


def unflatten(skeleton: Any, tensors: Mapping[str, Tensor], kinds: Iterable[type] = ()) -> Any:
    """The tree that flatten took apart; kinds are the dataclasses that may stand in it."""
    if not isinstance(skeleton, dict):
        return skeleton
    ((kind, parts),) = skeleton.items()
    if kind == "tensor":
        return tensors[parts]
    kinds = tuple(kinds)
    tree = {key: unflatten(part, tensors, kinds) for key, part in parts}
    if kind == "dict":
        return tree
    if kind in ("tuple", "list"):
        return tuple(tree.values()) if kind == "tuple" else list(tree.values())
    made = {known.__name__: known for known in kinds}
    return made[kind](**tree)


def _parts(tree: Any) -> tuple[str, list[tuple[Any, Any]]]:
    """The kind of a node and its children by key."""
    if dataclasses.is_dataclass(tree):
        return type(tree).__name__, [(field.name, getattr(tree, field.name)) for field in dataclasses.fields(tree)]
    if isinstance(tree, Mapping):
        return "dict", list(tree.items())
    if isinstance(tree, (tuple, list)):
        return "tuple" if isinstance(tree, tuple) else "list", list(enumerate(tree))
    raise TypeError(
        f"what is saved must be tensors, numbers, tuples, dicts and dataclasses; got {type(tree).__name__}."
    )


def moved(tree: Any, device: torch.device, kinds: Iterable[type]) -> Any:
    """The tree with its tensors on a device; kinds as in unflatten."""
    skeleton, tensors = flatten(tree)
    return unflatten(skeleton, {name: tensor.to(device) for name, tensor in tensors.items()}, kinds)


Random = tuple[Tensor, Tensor | None]
"""The state of torch's random numbers, on the CPU and on a GPU."""


def random_state(device: torch.device) -> Random:
    """Where torch's random numbers are; the GPU's too if the device is one."""
    return torch.get_rng_state(), torch.cuda.get_rng_state() if device.type == "cuda" else None


def set_random_state(random: Random, device: torch.device) -> None:
    """Put random numbers where random_state found them; the GPU's only if the device is one."""
    cpu, gpu = random
    torch.set_rng_state(cpu)
    if gpu is not None and device.type == "cuda":
        torch.cuda.set_rng_state(gpu)
