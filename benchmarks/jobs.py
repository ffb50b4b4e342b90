"""What is measured: the cells and sizes, their weights and data from a seed, their operations, floors and goals."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
MODES = ("training", "forward")
WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")

# (T, B, I, H): floor and goal of the training step against torch.nn's RNN, GRU and LSTM; floors against JAX's scan.
SHAPES = {
    (128, 32, 64, 128): (((5, 7), (4.5, 6), (1.3, 1.6)), (2.5, 4, 4)),
    (128, 64, 128, 256): (((3, 3.5), (2.8, 3.2), (1.35, 1.5)), (2.5, 2.5, 2.5)),
    (128, 64, 512, 512): (((2.5, 2.9), (2.5, 2.8), (1.3, 1.4)), (1.7, 1.8, 2)),
    (1000, 1, 32, 64): (((60, 120), (90, 140), (3, 4.5)), (4, 5, 5)),
    (1000, 1, 128, 128): (((14, 35), (30, 40), (1.7, 2.3)), (1.8, 3.5, 3)),
    (1024, 16, 64, 64): (((14, 18), (15, 20), (1.7, 2.2)), (5, 6, 6)),
    (784, 128, 1, 128): (((2.7, 4), (3.3, 4), (1.1, 1.5)), (2.5, 2.5, 3.5)),
}
FORWARD_FLOORS = {"jax": 1.5, "onnxruntime": 1.15}
UNEQUAL_FLOOR, UNEQUAL_MEAN, UNEQUAL_COST = 3, 8, 1.15
MEMORY_FLOORS = {"GRU": 5, "LSTM": 8}
STATES_COST = 1.4
IMPORT_SECONDS = 0.15


@dataclass(frozen=True)
class Job:
    """One layer and its data: T steps, B rows, I inputs, H units; unequal: lengths uniform in [T/4, T]."""

    kind: str
    T: int
    B: int
    I: int
    H: int
    unequal: bool = False

    def __str__(self) -> str:
        return f"{self.kind} {self.shape}"

    @property
    def shape(self) -> str:
        return f"{self.T},{self.B},{self.I},{self.H}"

    def operations(self, mode: str) -> float:
        """Multiplications and additions of all products: u and v forward; back through W_h, to dW_h and to dW_x."""
        rows = 2.0 * self.T * self.B * GATES[self.kind] * self.H
        return rows * (self.I + self.H) + (rows * (2 * self.H + self.I) if mode == "training" else 0)

    def data(self) -> dict[str, np.ndarray]:
        """Weights by torch's names, within 1 / sqrt(H) as torch draws them, x (T, B, I), a dense dy (T, B, H)."""
        random = np.random.default_rng(0)
        width, bound = GATES[self.kind] * self.H, 1 / math.sqrt(self.H)
        sizes = ((width, self.I), (width, self.H), (width,), (width,))
        data = {name: random.uniform(-bound, bound, size) for name, size in zip(WEIGHTS, sizes, strict=True)}
        data["x"] = random.standard_normal((self.T, self.B, self.I))
        data["dy"] = random.standard_normal((self.T, self.B, self.H))
        return {name: array.astype(np.float32) for name, array in data.items()}

    def lengths(self) -> np.ndarray | None:
        if not self.unequal:
            return None
        return np.random.default_rng(0).integers(math.ceil(self.T / 4), self.T + 1, self.B)

    def share(self) -> float:
        """The steps that unequal rows have, as a share of T B."""
        lengths = self.lengths()
        return 1.0 if lengths is None else float(lengths.mean()) / self.T


def main_jobs() -> list[Job]:
    return [Job(kind, *shape) for kind in GATES for shape in SHAPES]


def off_grid_jobs() -> list[Job]:
    """Sizes that no vector width divides."""
    sizes = [(B, I, H) for H in (100, 200, 333) for B in (3, 20) for I in (1, 7)]
    return [Job(kind, 128, *size) for kind in GATES for size in sizes]


def chosen(jobs: list[Job], only: list[str]) -> list[Job]:
    """The jobs whose kind is among `only`, and whose shape is; a group that is not named keeps all."""
    kinds = [word for word in only if word in GATES]
    shapes = [word for word in only if word not in GATES]
    return [job for job in jobs if (not kinds or job.kind in kinds) and (not shapes or job.shape in shapes)]


def floor_and_goal(job: Job, mode: str, peer: str) -> tuple[float | None, float | None]:
    """What the ratio of a peer's time to ours is to reach; None where nothing was set."""
    index = list(GATES).index(job.kind)
    if mode == "training":
        table = next((SHAPES[shape] for shape in SHAPES if shape[1:] == (job.B, job.I, job.H)), None)
        if table is None or peer == "onnxruntime":
            return None, None
        return table[0][index] if peer == "torch" else (table[1][index], None)
    if peer != "torch":
        return FORWARD_FLOORS[peer], None
    if job.kind != "LSTM":
        return 2.5, None
    return (1.8 if job.B == 1 else 1.0 if job.H >= 256 else 1.3), None


def share_of_peak(job: Job, mode: str) -> float | None:
    """The share of the measured FMA peak to reach; None for shapes too small for one."""
    if job.B < 32 or job.H < 128 or job.H % 64:
        return None
    return 0.55 if job.I == 1 else 0.75 if mode == "forward" else 0.70
