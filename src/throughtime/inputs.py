"""What a network may read: whole-number ids, or rows of numbers; and the sizes that it may have."""

from __future__ import annotations

from throughtime.kernels import check_ids
from throughtime.shapes import Tensor


def check_sizes(**sizes: int) -> None:
    """Raise ValueError when a size is below 1."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"{name} must be at least 1; got {value}.")


def check_embedding(embedding: int) -> None:
    """Raise ValueError unless it is a width, or 0 for none."""
    if embedding < 0:
        raise ValueError(f"embedding must be at least 0, where 0 means one-hot ids; got {embedding}.")


def check_inputs(x: Tensor, inputs: int, embedded: bool) -> None:
    """Raise ValueError unless x are (T, B) ids in the vocabulary, or (T, B, I) numbers and nothing is embedded."""
    if x.is_floating_point():
        if embedded:
            raise ValueError(f"x must be whole-number ids, as the network has an embedding; got {x.dtype}.")
        if x.dim() != 3 or x.shape[-1] != inputs:
            raise ValueError(f"x must be numbers (T, B, {inputs}); got {tuple(x.shape)}.")
    elif x.dim() != 2:
        raise ValueError(f"x must be ids (T, B), or numbers (T, B, {inputs}); got {x.dtype} {tuple(x.shape)}.")
    else:
        check_ids("x", x, inputs)
