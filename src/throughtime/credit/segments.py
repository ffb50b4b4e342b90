"""Segments of time: how long they are for a network and a number of streams, and what memory one of them takes.

For a Network on the native kernels the bytes follow from its sizes and from what csrc/forward.hpp and backward.hpp
lay out; any other module runs one segment under watch, and the storages that it makes are counted.
"""

from __future__ import annotations

import ctypes
import sys
import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from throughtime.cells import GRU, Cell
from throughtime.credit.base import learning
from throughtime.credit.checkpoint import Sizes
from throughtime.kernels import choose, native
from throughtime.nets import Network, Window
from throughtime.shapes import Tensor
from throughtime.state import State, change, random_state, set_random_state

SEGMENT_BYTES, SEGMENT_ROWS = 8 * 2**20, 1024
"""A segment keeps about so many bytes, so that what Python does between two of them is little; and has at least so
many rows (steps times streams), so that packing the weights and adding up their gradient is."""
OTHER_STEPS = 128
"""Steps of a segment of a module that is not the library's."""
OVERHEAD = 1024
"""Bytes that a stored tensor takes beside its numbers."""
RANDOM = 5056 + OVERHEAD
"""Bytes of the state of torch's random numbers on the CPU."""
VECTORS = {"avx512": 64, "avx2": 32}
PAGE, HUGE, AHEAD, STRIP = 4096, 2 * 2**20, 2**18, 16
"""Of csrc: bytes of a vector, of a page, of a huge one; bytes that a thread projects ahead,
twice; units whose dW a thread makes at a time."""


def cuts(net: nn.Module) -> bool:
    """Whether every BPTT runs this network in segments; others run whole unless a budget asks for segments."""
    return type(net) is Network


def segment_steps(net: nn.Module, streams: int) -> int:
    """Steps of a segment, at most; a function of the network and the streams alone."""
    if not isinstance(net, Network):
        return OTHER_STEPS
    layers, itemsize = net.layers, net.readout.weight.itemsize
    numbers = layers.depth * (layers.cell.gates + 3) * layers.units + 3 * net.readout.out_features
    return max(1, SEGMENT_ROWS // streams, SEGMENT_BYTES // (numbers * itemsize * streams))


def check_forwards(net: nn.Module) -> None:
    """Raise TypeError when a layer reads time backwards too, for such a network cannot be cut in time."""
    name = next((type(part).__name__ for part in net.modules() if getattr(part, "bidirectional", False)), None)
    if name is not None:
        raise TypeError(
            f"net must read time forwards alone for a memory budget; got one with a bidirectional {name}. "
            "Leave memory out."
        )


def release(device: torch.device) -> None:
    """Give free memory back to the system where it is glibc's: it cannot use the room of an aligned tensor again for
    one of the same size, and a budget is for what the process holds."""
    if device.type == "cpu" and _trim is not None:
        _trim(0)


_trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def tensors_of(state: State) -> list[Tensor]:
    """The tensors of a state, in order."""
    found: list[Tensor] = []

    def note(part: Tensor) -> Tensor:
        found.append(part)
        return part

    change(note, state)
    return found


def as_leaves(state: State) -> State:
    """The same numbers as the start of a graph, so that what goes back to them can be asked for."""
    return change(lambda part: part.detach().requires_grad_(part.is_floating_point()), state)


def sizes_of(net: nn.Module, steps: int, streams: int, x: Tensor | None = None, state: State = None) -> Sizes:
    """The memory of one segment. x: inputs (T, B) or (T, B, I), of which one step is read; state: that before them.

    Raises ValueError without x for a module that is not the library's.
    """
    if isinstance(net, Network) and runs_native(net):
        return _laid_out(net, steps, streams)
    step = _example(net, streams) if x is None else x[:1]
    return _watched(net, step.expand(steps, *step.shape[1:]), state)


def runs_native(net: nn.Module) -> bool:
    """Whether this is a Network on the native kernels."""
    if not isinstance(net, Network) or not cuts(net):
        return False
    layers = net.layers
    choice = choose(layers.cell, *layers.parameters(), backend=layers.backend, memory=layers.memory)
    return choice.backend == "native"


def _example(net: nn.Module, streams: int) -> Tensor:
    """One step of inputs for a network of the library."""
    if not isinstance(net, (Network, Window)):
        raise ValueError(
            f"x must be given for {type(net).__name__}, which is not a network of the library; got none. "
            "Pass one step of its inputs."
        )
    like = net.readout.weight
    if net.embed is not None:
        return torch.zeros(1, streams, dtype=torch.int64, device=like.device)
    return torch.zeros(1, streams, net.inputs, dtype=like.dtype, device=like.device)


def _laid_out(net: Network, steps: int, streams: int) -> Sizes:
    """The bytes of a segment on the native kernels; the loss is taken for softmax cross-entropy."""
    layers, cell, H, A = net.layers, net.layers.cell, net.layers.units, net.readout.out_features
    dtype = net.readout.weight.dtype
    e, rows, depth = dtype.itemsize, steps * streams, layers.depth
    E = 0 if net.embed is None else net.embed.embedding_dim
    noisy = bool(net.dropout) and net.training
    above = H * (depth > 1) or E
    kept = e * rows * (E + depth * (1 + 2 * noisy) * H + A + 1) + 8 * rows
    keep = native.keeps(layers.memory, cell, rows, H, dtype)
    block = _kept_block(cell, keep, steps, streams, H, e)
    kept += depth * block
    entering = [(layers.inputs, bool(E)), *[(H, True)] * (depth - 1)]  # its width, and whether its dx is wanted
    scratch = [_workspaces(cell, keep, steps, streams, H, I, e, dx) for I, dx in entering]
    working = e * rows * max(2 * A, H * (1 + noisy) + above) + 2 * _bytes(learning(net).values())
    working += _pooled(block, scratch) - depth * block
    state = depth * cell.slots * streams * H * e + cell.slots * OVERHEAD + RANDOM * noisy
    return Sizes(steps, streams, net.training, kept, working, state)


def _block(size: int) -> int:
    """A block of csrc/pool.cpp: whole pages, or whole huge pages."""
    unit = HUGE if size >= HUGE else PAGE
    return -(-size // unit) * unit


def _width(H: int, e: int) -> int:
    """The units of a gate, rounded up to whole vectors."""
    lanes = VECTORS.get(native.plan().partition(",")[0], 16) // e
    return -(-H // lanes) * lanes


def _chunk_steps(streams: int, H: int) -> int:
    """The steps of a chunk of the backward pass, as csrc/layer.hpp has them."""
    return max(1, (256 if H > 256 else 128) // streams)


def _kept_block(cell: Cell, keep: str, steps: int, streams: int, H: int, e: int) -> int:
    """What one layer keeps beside its outputs."""
    if keep == "gates":
        return _block(steps * streams * native.KEPT[type(cell)] * _width(H, e) * e)
    chunks = -(-steps // _chunk_steps(streams, H))
    return _block(chunks * streams * _width(H, e) * e * (cell.slots > 1))


def _workspaces(cell: Cell, keep: str, steps: int, streams: int, H: int, I: int, e: int, dx: bool) -> tuple[int, int]:
    """The scratch blocks of the forward and the backward pass of one layer."""
    Hp, threads = _width(H, e), torch.get_num_threads()
    width = (cell.gates + isinstance(cell, GRU)) * Hp
    packed = cell.gates * Hp * (H + I) * e
    forward = packed + 2 * threads * min(AHEAD, steps * streams * width * e) + 16 * steps
    rows = min(steps, _chunk_steps(streams, H)) * streams
    backward = packed + cell.gates * Hp * (Hp + I * dx) * e + 2 * rows * (width + Hp + I) * e + 16 * steps
    backward += threads * rows * STRIP * e
    if keep == "states" and native.KEPT[type(cell)]:
        backward += rows * (native.KEPT[type(cell)] * Hp + width) * e
    return _block(forward), _block(backward)


def _pooled(kept: int, scratch: Sequence[tuple[int, int]]) -> int:
    """What csrc/pool.cpp holds after a few segments, forward and back: its rule, the warmest piece of up to twice the
    size, lets layers take each other's."""
    free: list[int] = []
    held = 0

    def take(size: int) -> int:
        nonlocal held
        for place in reversed(range(len(free))):
            if size <= free[place] <= 2 * size:
                return free.pop(place)
        held += size
        return size

    for _ in range(4):
        layers = []
        for forward, _ in scratch:
            layers.append(take(kept))
            free.append(take(forward))
        for _, backward in reversed(scratch):
            free.append(take(backward))
            free.append(layers.pop())
    return held


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.itemsize for tensor in tensors)


def _watched(net: nn.Module, x: Tensor, state: State) -> Sizes:
    """Run one segment and go back, counting storages; what the loss takes is put at twice the predictions."""
    random = random_state(x.device)
    weights = learning(net).values()
    with torch.no_grad():
        _, state = net(x[:1], state, None)
    starts = as_leaves(state)
    leaves = [part for part in tensors_of(starts) if part.requires_grad]
    drawn = random_state(x.device)
    with Watch([x, *net.parameters(), *net.buffers(), *leaves]) as watch, torch.enable_grad():
        prediction, end = net(x, starts, None)
        kept = watch.alive
        outputs = [part.sum() for part in (prediction, *tensors_of(end)) if part.requires_grad]
        torch.autograd.grad(outputs, [*weights, *leaves], allow_unused=True)
    draws = not torch.equal(drawn[0], torch.get_rng_state())
    set_random_state(random, x.device)
    loss = 2 * _bytes([prediction])
    size = _bytes(tensors_of(state)) + OVERHEAD * len(tensors_of(state)) + RANDOM * draws
    return Sizes(x.shape[0], x.shape[1], net.training, kept + loss, watch.most - kept + _bytes(weights), size)


class Watch(TorchDispatchMode):
    """Counts the bytes of the storages that operations make while it is on: those alive, and the most so far."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.alive = self.most = 0
        self.known = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in tree_leaves(made):
            if isinstance(part, Tensor):
                self._count(part.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self.known:
            self.known.add(key)
            self.alive += size
            self.most = max(self.most, self.alive)
            weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.alive -= size
