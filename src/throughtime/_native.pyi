"""The compiled sweeps, csrc/module.cpp; csrc/kernel.hpp says what each argument is."""

from collections.abc import Sequence

class Task: ...

class Kept:
    @property
    def bytes(self) -> int: ...

def task(
    cell: int,
    phi: int,
    alpha: float,
    is_double: bool,
    sizes: Sequence[int],
    x: int,
    x_strides: Sequence[int],
    ids: bool,
    weights: Sequence[int],
    s0: Sequence[int],
    reset: int,
    lengths: int,
    y: int,
    y_strides: Sequence[int],
    threads: int,
) -> Task: ...
def plan(cell: int, is_double: bool, sizes: Sequence[int], threads: int) -> str: ...
def forward(task: Task, last: Sequence[int], keep: int) -> Kept | None: ...
def backward(
    task: Task,
    kept: Kept,
    dy: int,
    dy_strides: Sequence[int],
    dlast: Sequence[int],
    dx: int,
    dweights: Sequence[int],
    ds0: Sequence[int],
) -> None: ...

class Learner:
    @property
    def sizes(self) -> list[int]: ...
    def hold(self, weights: int, slots: Sequence[int], past: int, clock: int) -> None: ...
    def learn(self, T: int, x: int, y: int, mask: int, reset: int, prediction: int) -> None: ...
    def predict(self, x: int, reset: bool, prediction: int) -> None: ...
    def pack(self, packed: int, own: Sequence[int], out: bool) -> None: ...

def online(
    kinds: Sequence[int],
    alpha: float,
    is_double: bool,
    sizes: Sequence[int],
    replay: bool,
    rule: Sequence[float],
) -> Learner: ...
def lags(
    is_double: bool,
    sizes: Sequence[int],
    gamma: float,
    dv: Sequence[int],
    ds: Sequence[int],
    W_h: int,
    errors: int,
    reset: int,
    out: Sequence[int],
    threads: int,
) -> None: ...
def instruction_sets() -> list[str]: ...
def instruction_set() -> str: ...
def use(name: str) -> None: ...
def openmp() -> bool: ...
def peak(threads: int) -> float: ...
def latency() -> float: ...
