"""How fast does it learn while it runs? BPTT(h) at every step, beside the idiom of PyTorch, one thread (Linux).

    python benchmarks/online.py --json online.json          about three minutes
    python benchmarks/online.py --quick                     once, a few steps: does it run? Quote nothing

The idiom: the state is carried by nn.RNN without a gradient, the window of the last h steps is replayed from the state
stored before it, the loss of the newest step goes back by autograd, optimizer.step() follows; the same optimiser as
ours. Inputs are ready tensors. One stream, 32 inputs, 64 units, 8 outputs, half the squared error, float32.
Before any speed, both learn the same 100 steps in float64: where the weights differ, nothing is timed (exit 1).
With the stored past the weights of then made the activations, so only replay=True is held to the idiom.
Peers take turns in this process, with real-time priority where the system grants it; a time is the shortest of all
blocks of steps.
"""

from __future__ import annotations

import argparse
import collections
import json
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from throughtime.kernels import native
from throughtime.online import OnlineRegressor

I, H, A = 32, 64, 8
WINDOWS = (8, 16, 32)
OPTIMIZERS = {
    "sgd": ("sgd:lr=0.001", lambda w: torch.optim.SGD(w, lr=0.001)),
    "momentum": ("sgd:lr=0.001,momentum=0.9", lambda w: torch.optim.SGD(w, lr=0.001, momentum=0.9)),
    "adam": ("adam:lr=0.0001", lambda w: torch.optim.Adam(w, lr=0.0001)),
}
WANTED = {("stored", "many"): 200, ("replayed", "many"): 95, ("stored", "one"): 25, ("replayed", "one"): 25}
REST = 0.03  # under real-time priority the kernel stops who runs for 0.95 s of a second


class Idiom:
    """What people write in PyTorch."""

    def __init__(self, h: int, optimizer: str, model: OnlineRegressor, dtype: torch.dtype) -> None:
        self.rnn, self.readout = nn.RNN(I, H).to(dtype), nn.Linear(H, A).to(dtype)
        net = model.network()
        self.rnn.load_state_dict(net.layers.state_dict())
        self.readout.load_state_dict(net.readout.state_dict())
        self.optimizer = OPTIMIZERS[optimizer][1]([*self.rnn.parameters(), *self.readout.parameters()])
        self.h, self.state = h, torch.zeros(1, 1, H, dtype=dtype)
        self.stored: collections.deque[torch.Tensor] = collections.deque(maxlen=h)
        self.past: collections.deque[torch.Tensor] = collections.deque(maxlen=h)

    def learn(self, x: torch.Tensor, y: torch.Tensor) -> None:
        self.stored.append(self.state)
        self.past.append(x)
        with torch.no_grad():
            _, self.state = self.rnn(x, self.state)
        window, _ = self.rnn(torch.cat(tuple(self.past)), self.stored[0])
        loss = (self.readout(window[-1]) - y).square().sum() / 2
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()


def made(h: int, optimizer: str, replay: bool, dtype: str = "float32") -> OnlineRegressor:
    """A model that knows its sizes and has its first weights: a step without a target changes none, and a restart
    forgets it."""
    model = OnlineRegressor(units=H, h=h, replay=replay, optimizer=OPTIMIZERS[optimizer][0], dtype=dtype)
    model.learn_many(np.zeros((1, I)), np.zeros((1, A)), mask=np.zeros(1, dtype=bool))
    model.restart()
    return model


def stream(T: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    return draw.standard_normal((T, I)).astype(dtype), draw.standard_normal((T, A)).astype(dtype)


def parity(h: int, optimizer: str) -> float:
    """The largest difference between the weights after 100 steps in float64."""
    x, y = stream(100, "float64")
    model = made(h, optimizer, True, "float64")
    idiom = Idiom(h, optimizer, model, torch.float64)
    for row, target in zip(torch.from_numpy(x), torch.from_numpy(y), strict=True):
        idiom.learn(row[None, None], target[None])
    model.learn_many(x, y)
    ours, theirs = model.network(), [*idiom.rnn.parameters(), *idiom.readout.parameters()]
    return max(float((a - b).detach().abs().max()) for a, b in zip(ours.parameters(), theirs, strict=True))


def block(call: Callable[[], Any]) -> float:
    time.sleep(REST)
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measured(h: int, optimizer: str, rounds: int, steps: int) -> dict[str, float]:
    """Microseconds a step of who and how."""
    x, y = stream(steps)
    few = max(h + 1, steps // 40)
    rows, targets = torch.from_numpy(x)[:, None, None], torch.from_numpy(y)[:, None]
    models = {name: made(h, optimizer, name == "replayed") for name in ("stored", "replayed")}
    idiom = Idiom(h, optimizer, models["stored"], torch.float32)
    calls: dict[str, tuple[int, Callable[[], Any]]] = {
        "torch": (few, lambda: [idiom.learn(rows[t], targets[t]) for t in range(few)])
    }
    for name, model in models.items():
        calls[f"{name} many"] = (steps, lambda model=model: model.learn_many(x, y))
        calls[f"{name} one"] = (few, lambda model=model: [model.learn_one(x[t], y[t]) for t in range(few)])
    best = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, (count, call) in calls.items():
            best[name] = min(best[name], block(call) / count * 1e6)
    return best


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = ["| optimiser | h | past | torch, us a step | learn_many | ratio | learn_one | ratio |", "|---" * 8 + "|"]
    for row in rows:
        torch_time = row["us"]["torch"]
        for past in ("stored", "replayed"):
            cells = [row["optimizer"], str(row["h"]), past, f"{torch_time:.0f}"]
            for how in ("many", "one"):
                ours, wanted = row["us"][f"{past} {how}"], WANTED[past, how]
                ratio = torch_time / ours
                met = "" if row["optimizer"] != "sgd" else f" of {wanted} {'met' if ratio >= wanted else 'NOT MET'}"
                cells += [f"{ours:.2f}", f"{ratio:.0f}{met}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def real_time() -> str:
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except PermissionError:
        return "usual priority: real-time was refused, so whatever else runs is in these times"
    return "real-time priority"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--quick", action="store_true", help="few steps, once; quote nothing")
    options = parser.parse_args()
    if native.MISSING:
        sys.exit(native.MISSING)
    torch.set_num_threads(1)
    priority = real_time()
    differences = {f"{name} {h}": parity(h, name) for name in OPTIMIZERS for h in WINDOWS}
    print(f"weights after 100 steps, float64: differ by at most {max(differences.values()):.1e}")
    if not max(differences.values()) < 1e-9:
        sys.exit("parity is red: no speed is printed")
    rounds, steps = (1, 400) if options.quick else (25, 2000)
    rows, peaks = [], [native._native.peak(1)]
    for optimizer in OPTIMIZERS:
        for h in WINDOWS:
            rows.append({"optimizer": optimizer, "h": h, "us": measured(h, optimizer, rounds, steps)})
            peaks.append(native._native.peak(1))
    peak = f"FMA peak {min(peaks):.0f}-{max(peaks):.0f} GFLOP/s"
    about = f"{native.describe()}; torch {torch.__version__}; {priority}; {peak}"
    print("\n".join([about, "", *table(rows)]))
    if options.json:
        result = {"about": about, "peaks": peaks, "parity": differences, "quick": options.quick, "rows": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
