"""Online BPTT(h; every) with the update inside, compiled: csrc/online.hpp on arrays that Python owns.

It computes what `credit.BPTT` and torch.optim do when they are fed step by step, for one layer, a linear readout and
one stream, without a call of Python between two steps.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from throughtime.cells import Cell
from throughtime.kernels import native
from throughtime.shapes import Bool, Float, Shaped, Tensor

NAMES = (
    "layers.weight_ih_l0",
    "layers.weight_hh_l0",
    "layers.bias_ih_l0",
    "layers.bias_hh_l0",
    "readout.weight",
    "readout.bias",
)
"""The weights of a Network of one layer, in the order of csrc/kernel.hpp."""
LOSSES = {"squared": 0, "softmax": 1}
PIECE = 65536
"""Steps in one call, so that Ctrl-C is heard between two calls."""


@dataclass(frozen=True)
class SGD:
    """w <- w - lr v with v <- momentum v + g, as torch.optim.SGD computes it."""

    lr: float = 0.01
    momentum: float = 0.0

    def __post_init__(self) -> None:
        check_rate(self.lr)
        check_share(momentum=self.momentum)

    @property
    def slots(self) -> tuple[str, ...]:
        return ("momentum_buffer",) if self.momentum else ()

    def numbers(self) -> tuple[int, tuple[float, float, float, float]]:
        """Which rule the compiled part takes it for, and its four numbers."""
        return 0, (self.lr, self.momentum, 0.0, 0.0)


@dataclass(frozen=True)
class Adam:
    """Adam of Kingma and Ba (2015), as torch.optim.Adam computes it."""

    lr: float = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        check_rate(self.lr)
        check_share(beta1=self.beta1, beta2=self.beta2)
        if not 0 < self.eps < float("inf"):
            raise ValueError(f"eps must be above 0; got {self.eps}.")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("exp_avg", "exp_avg_sq")

    def numbers(self) -> tuple[int, tuple[float, float, float, float]]:
        """Which rule the compiled part takes it for, and its four numbers."""
        return 1, (self.lr, self.beta1, self.beta2, self.eps)


def check_rate(lr: float) -> None:
    """Raise ValueError unless a learning rate is a finite number of at least 0."""
    if not 0 <= lr < float("inf"):
        raise ValueError(f"lr must be at least 0; got {lr}.")


def check_share(**values: float) -> None:
    """Raise ValueError unless every value is at least 0 and below 1."""
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} must be at least 0 and below 1; got {value}.")


optimizers: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam}
Rule = SGD | Adam


@dataclass(frozen=True)
class Task:
    """What learns, and how: one layer of a cell with I inputs, H units and A outputs by BPTT(h; every)."""

    cell: Cell
    inputs: int
    units: int
    outputs: int
    loss: str
    h: int
    every: int
    replay: bool
    rule: Rule
    dtype: torch.dtype


def refusal(cell: Cell) -> str:
    """Why a cell cannot learn here; empty when it can."""
    if native.MISSING:
        return native.MISSING
    return "" if type(cell) in native.CELLS else "it has no sweep for this cell"


def check_room(task: Task) -> None:
    """Raise ValueError where weights, slots, window and scratch need more than the memory of this machine.

    Counted in whole numbers of Python, for the sizes of csrc/online.hpp would pass 64 bits first.
    """
    need, all_there = bytes_needed(task), memory_there()
    if need > all_there:
        raise ValueError(
            f"h must leave a window that fits into memory, {all_there / 2**30:.0f} GiB here; got h={task.h} with "
            f"{task.inputs} inputs, {task.units} units and {task.outputs} outputs, which needs {need / 2**30:.0f} GiB. "
            "Choose a smaller h."
        )


def bytes_needed(task: Task) -> int:
    """At most what a Learner takes: csrc/online.hpp with strides rounded up."""
    size = 8 if task.dtype is torch.float64 else 4
    H, I, A = (number + 32 for number in (task.units, task.inputs, task.outputs))
    rows, row = (4 if task.cell.gates > 1 else 1), H + I + 32
    weights = rows * H * (row + 2) + A * (H + 1)
    past = (2 * task.h + 8) * (row + 7 * H + 2 * H * task.replay + A + 2)
    return size * (weights * (1 + len(task.rule.slots)) + past + task.h * rows * H)


def memory_there() -> int:
    """The bytes of memory of this machine; where it does not say, more than any has."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return 2**46


class Learner:
    """A task at work: weights, the optimiser's slots, the window of the past and the counts of steps and updates.

    weights: a tensor for each of NAMES. One thread at a time: what it works on is its own.
    """

    def __init__(self, task: Task, weights: Mapping[str, Tensor]) -> None:
        check_room(task)
        self.task = task
        kind, numbers = task.rule.numbers()
        cell = task.cell
        self._native = native._native.online(
            (native.CELLS[type(cell)], native.PHIS[getattr(cell, "phi", "tanh")], LOSSES[task.loss], kind),
            getattr(cell, "alpha", 1.0),
            task.dtype is torch.float64,
            (task.inputs, task.units, task.outputs, task.h, task.every),
            task.replay,
            numbers,
        )
        size, past = self._native.sizes
        self._weights = torch.zeros(size, dtype=task.dtype)
        self._slots = tuple(torch.zeros(size, dtype=task.dtype) for _ in task.rule.slots)
        self._past = torch.zeros(past, dtype=task.dtype)
        self._clock = torch.zeros(4, dtype=torch.int64)
        self._hold()
        self._exchange(self._weights, weights, out=False)

    def _hold(self) -> None:
        parts = (self._weights, self._past, *self._slots)
        assert all(part.data_ptr() % 64 == 0 for part in parts)
        slots = [slot.data_ptr() for slot in self._slots]
        self._native.hold(self._weights.data_ptr(), slots, self._past.data_ptr(), self._clock.data_ptr())

    def _exchange(self, packed: Tensor, own: Mapping[str, Tensor], *, out: bool) -> None:
        parts = [own[name].detach() for name in NAMES]
        assert all(part.dtype == packed.dtype and part.is_contiguous() for part in parts)
        self._native.pack(packed.data_ptr(), [part.data_ptr() for part in parts], out)

    def learn(
        self,
        x: Float[np.ndarray, "T I"],
        y: Shaped[np.ndarray, "T ..."] | None,
        mask: Bool[np.ndarray, " T"] | None = None,
        reset: Bool[np.ndarray, " T"] | None = None,
        prediction: Float[np.ndarray, "T A"] | None = None,
    ) -> None:
        """Learn from T steps; what is predicted of each before its target is learned goes into prediction.

        All are contiguous; numbers are of the task's dtype, classes int64. y may be None only if mask is all False.
        """
        arrays = (x, y, mask, reset, prediction)
        assert all(array is None or array.flags.c_contiguous for array in arrays)
        T = len(x)
        for start in range(0, T, PIECE):
            parts = [0 if array is None else array[start:].ctypes.data for array in arrays]
            self._native.learn(min(PIECE, T - start), *parts)

    def predict(self, x: Float[np.ndarray, " I"], reset: bool, prediction: Float[np.ndarray, " A"]) -> None:
        """What would be predicted of the next step; nothing moves. reset: it begins a new sequence."""
        assert x.flags.c_contiguous
        assert prediction.flags.c_contiguous
        self._native.predict(x.ctypes.data, reset, prediction.ctypes.data)

    def weights(self, slot: int | None = None) -> dict[str, Tensor]:
        """The weights, or one of the optimiser's slots, as tensors of their own by NAMES."""
        task, width = self.task, self.task.cell.gates * self.task.units
        shapes = (
            (width, task.inputs),
            (width, task.units),
            (width,),
            (width,),
            (task.outputs, task.units),
            (task.outputs,),
        )
        own = {name: torch.zeros(shape, dtype=task.dtype) for name, shape in zip(NAMES, shapes, strict=True)}
        self._exchange(self._weights if slot is None else self._slots[slot], own, out=True)
        return own

    def tensors(self) -> dict[str, Tensor]:
        """All that lasts, by name: what `load` takes."""
        saved = {f"weights.{name}": part for name, part in self.weights().items()}
        for slot, kind in enumerate(self.task.rule.slots):
            saved |= {f"{kind}.{name}": part for name, part in self.weights(slot).items()}
        return saved | {"past": self._past.clone(), "clock": self._clock.clone()}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Go on from what `tensors` gave for the same task; ValueError for anything else, and nothing changes."""
        for name, own in self.tensors().items():
            given = saved.get(name)
            if given is None or given.dtype != own.dtype or given.shape != own.shape:
                got = "none" if given is None else f"{given.dtype} {tuple(given.shape)}"
                raise ValueError(
                    f"{name} must be {own.dtype} {tuple(own.shape)}; got {got}. What was saved is damaged."
                )
        self._check_clock(saved["clock"].tolist())
        kinds = ("weights", *self.task.rule.slots)
        for kind, packed in zip(kinds, (self._weights, *self._slots), strict=True):
            self._exchange(packed, {name: saved[f"{kind}.{name}"] for name in NAMES}, out=False)
        self._past.copy_(saved["past"])
        self._clock.copy_(saved["clock"])

    def _check_clock(self, clock: list[int]) -> None:
        end, length, fresh, updates = clock
        h, every = self.task.h, self.task.every
        if not (0 <= fresh <= length <= end <= 2 * h + 8 and length <= h and fresh < every and updates >= 0):
            raise ValueError(
                f"clock must be the end and the length of a window of h={h}, its steps that are not settled and the "
                f"updates; got {clock}. What was saved is damaged."
            )
