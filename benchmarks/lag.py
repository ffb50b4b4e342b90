"""All windows of BPTT(h; 1) at once beside window by window, at fixed weights, one after another in one run.

    python benchmarks/lag.py                       Elman, T 1000, B 1, I 32, H 64, h 8, 16 and 32, one thread
    python benchmarks/lag.py --cell gru --json lag.json

Window by window is the usual way with torch.nn: one pass for the states, then for every step its window is run again
from the state h steps before, and its error differentiated, the gradients adding up in `.grad`. Both give the same
gradient, which is checked first in float64, over the first 50 steps; where it differs nothing is timed (exit 1). Both
times hold the forward pass, readout and loss. `back` is the part of ours that takes the place of the windows: from the
states and the errors of all steps to the gradients of the layer's weights; beside it stand the windows without the
pass for the states. A time is the shortest of some rounds, in which they take turns; with one thread it is processor
time, so that what else runs on the machine does not stretch the longest of them.
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
from throughtime.credit.lag import through_lags_at_once
from throughtime.credit.trace import read
from throughtime.nets import squared_error

LAYERS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
GOAL = 800
"""The ratio to reach, for Elman's cell."""


def states_of(layer: nn.Module, x: torch.Tensor, units: int) -> list[Any]:
    """The state before every step."""
    zeros = torch.zeros(1, x.shape[1], units, dtype=x.dtype)
    state: Any = (zeros, zeros) if isinstance(layer, nn.LSTM) else zeros
    states = []
    with torch.no_grad():
        for t in range(len(x)):
            states.append(state)
            _, state = layer(x[t : t + 1], state)
    return states


def windows(layer: nn.Module, readout: nn.Linear, x: torch.Tensor, y: torch.Tensor, states: list[Any], h: int) -> None:
    """The sum of the gradients of all windows, in .grad."""
    for t in range(len(x)):
        first = max(0, t + 1 - h)
        outputs, _ = layer(x[first : t + 1], states[first])
        (0.5 * (readout(outputs[-1]) - y[t]).square().sum()).backward()


def case(options: argparse.Namespace, h: int, steps: int, dtype: torch.dtype) -> tuple[Callable[[], Any], ...]:
    """What is timed: all at once, window by window, and the parts of both that differ, on the same data."""
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
        windows(layer, readout, x, y, states_of(layer, x, options.units), h)
        named = [("layers", layer), ("readout", readout)]
        return {f"{place}.{name}": w.grad for place, part in named for name, w in part.named_parameters()}

    trace, _ = read(net, chunk, None)
    errors = torch.randn_like(trace.h)
    states = states_of(layer, x, options.units)

    def back() -> None:
        with torch.no_grad():
            through_lags_at_once(credit, steps, net, trace, errors, {})

    def windows_alone() -> None:
        windows(layer, readout, x, y, states, h)

    return at_once, one_by_one, back, windows_alone


def same(options: argparse.Namespace, h: int) -> float:
    """The largest relative difference of the two gradients, over 50 steps in float64."""
    ours, theirs = (run() for run in case(options, h, 50, torch.float64)[:2])
    return max(float((ours[name] - grad).abs().max() / grad.abs().max()) for name, grad in theirs.items())


def shortest(runs: tuple[Callable[[], Any], ...], rounds: int, clock: Callable[[], float]) -> list[float]:
    """Seconds of each; every second one is long and runs once a round, the others thirty times."""
    best = [float("inf")] * len(runs)
    for _ in range(rounds):
        for index, run in enumerate(runs):
            for _ in range(1 if index % 2 else 30):
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
    print("h    all at once, ms  window by window, ms    ratio   back, ms  windows alone, ms    ratio")
    for h in options.h:
        difference = same(options, h)
        if not difference < 1e-10:
            sys.exit(f"h={h}: the two gradients differ by {difference:.1e} of their size: nothing is timed")
        found = shortest(case(options, h, options.steps, torch.float32), options.rounds, clock)
        rows.append({"h": h, "seconds": dict(zip(("at once", "windows", "back", "windows alone"), found, strict=True))})
        ours, theirs, back, alone = (1e3 * seconds for seconds in found)
        short = options.cell == "elman" and theirs < GOAL * ours
        goal = f"  whole: below the goal of {GOAL}" if short else ""
        whole = f"{h:<4} {ours:16.2f} {theirs:21.1f} {theirs / ours:8.0f}"
        print(f"{whole} {back:10.2f} {alone:18.1f} {alone / back:8.0f}{goal}", flush=True)
    if options.json:
        about = {name: value for name, value in vars(options).items() if name != "json"}
        about |= {"torch": torch.__version__, "rows": rows}
        options.json.write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
