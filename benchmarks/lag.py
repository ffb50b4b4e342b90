"""All windows of BPTT(h; 1) at once beside window by window, at fixed weights, one after another in one run.

    python benchmarks/lag.py                       Elman, T 1000, B 1, I 32, H 64, h 8, 16 and 32, one thread
    python benchmarks/lag.py --cell gru --json lag.json

Window by window is the usual way with torch.nn: one pass for the states, then for every step its window is run again
from the state h steps before, and its error differentiated, the gradients adding up in `.grad`. Both give the same
gradient, which is checked first in float64, over the first 50 steps; where it differs nothing is timed (exit 1). Both
times hold the forward pass, readout and loss. A time is the shortest of some rounds, in which the two take turns; with
one thread it is processor time, so that what else runs on the machine does not stretch the longer of the two.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import throughtime as tt
from throughtime.credit import ParallelBPTT
from throughtime.nets import squared_error

LAYERS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GOAL = 800
"""The ratio to reach, for Elman's cell."""


def windows(layer: nn.Module, readout: nn.Linear, x: torch.Tensor, y: torch.Tensor, h: int) -> None:
    """The sum of the gradients of all windows, in .grad."""
    B, H = x.shape[1], readout.in_features
    zeros = torch.zeros(1, B, H, dtype=x.dtype)
    state: Any = (zeros, zeros) if isinstance(layer, nn.LSTM) else zeros
    states = []
    with torch.no_grad():
        for t in range(len(x)):
            states.append(state)
            _, state = layer(x[t : t + 1], state)
    for t in range(len(x)):
        first = max(0, t + 1 - h)
        outputs, _ = layer(x[first : t + 1], states[first])
        (0.5 * (readout(outputs[-1]) - y[t]).square().sum()).backward()


def case(options: argparse.Namespace, h: int, steps: int, dtype: torch.dtype) -> tuple[Callable[[], Any], ...]:
    """What is timed: all at once, and window by window, each from the same weights and data."""
    torch.manual_seed(0)
    net = tt.Network(options.cell, inputs=options.inputs, units=options.units, outputs=4).to(dtype)
    layer = LAYERS[options.cell](options.inputs, options.units).to(dtype)
    layer.load_state_dict(net.layers.state_dict())
    readout = nn.Linear(options.units, 4).to(dtype)
    readout.load_state_dict(net.readout.state_dict())
    x, y = torch.randn(steps, options.rows, options.inputs), torch.randn(steps, options.rows, 4)
    x, y = x.to(dtype), y.to(dtype)
    credit = ParallelBPTT(h)
    chunk = tt.Chunk(x, y, end=True)

    def at_once() -> dict[str, torch.Tensor]:
        estimate, _ = credit(net, squared_error, chunk, credit.start(net))
        return estimate.grads

    def one_by_one() -> dict[str, torch.Tensor]:
        layer.zero_grad(), readout.zero_grad()
        windows(layer, readout, x, y, h)
        named = [("layers", layer), ("readout", readout)]
        return {f"{place}.{name}": w.grad for place, part in named for name, w in part.named_parameters()}

    return at_once, one_by_one


def same(options: argparse.Namespace, h: int) -> float:
    """The largest relative difference of the two gradients, over 50 steps in float64."""
    ours, theirs = (run() for run in case(options, h, 50, torch.float64))
    return max(float((ours[name] - grad).abs().max() / grad.abs().max()) for name, grad in theirs.items())


def shortest(runs: tuple[Callable[[], Any], ...], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each; the second, which is long, runs once a round, the first thirty times."""
    best = [float("inf")] * len(runs)
    for _ in range(rounds):
        for index, run in enumerate(runs):
            for _ in range(1 if index else 30):
                start = clock()
                run()
                best[index] = min(best[index], clock() - start)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", choices=LAYERS, default="elman")
    for name, default in (("steps", 1000), ("rows", 1), ("inputs", 32), ("units", 64), ("threads", 1), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--h", type=int, nargs="+", default=[8, 16, 32])
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    rows = []
    print("h    all at once, ms  window by window, ms    ratio")
    for h in options.h:
        difference = same(options, h)
        if not difference < 1e-10:
            sys.exit(f"h={h}: the two gradients differ by {difference:.1e} of their size: nothing is timed")
        ours, theirs = shortest(case(options, h, options.steps, torch.float32), options.rounds, clock)
        rows.append({"h": h, "seconds": {"at once": ours, "windows": theirs}, "ratio": theirs / ours})
        short = options.cell == "elman" and theirs < GOAL * ours
        goal = f"  below the goal of {GOAL}" if short else ""
        print(f"{h:<4} {1e3 * ours:16.2f} {1e3 * theirs:21.1f} {theirs / ours:8.0f}{goal}", flush=True)
    if options.json:
        about = {name: value for name, value in vars(options).items() if name != "json"}
        about |= {"torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
