"""The exact gradient under a memory budget: time and peak memory against the prediction (Linux).

    python benchmarks/budget.py                                  the table below, GRU
    python benchmarks/budget.py --cell lstm --memory 64MB --steps 1000000 --units 128
    python benchmarks/budget.py --json ...                       one JSON object a row

Without --steps: a length where the plain pass fits in memory too, both ways, taken in turn; then 70,000 and 1,000,000
steps under the budget. One stream, 8 inputs, 4 outputs, float32, softmax. Every row runs in a fresh process. Memory is
what settling adds to the resident memory beyond chunk and weights; a small run goes first, so that what a library
takes once (code, thread stacks) is not counted. `ratio` is the time a step against the plain pass of the same table.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from memory import resident

from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.credit.epochwise import Stream, settle
from throughtime.nets import Network, cross_entropy

INPUTS, OUTPUTS = 8, 4
FITS, LONG = 20_000, (70_000, 1_000_000)
REPEATS = 5


def measure(cell: str, units: int, layers: int, streams: int, steps: int, memory: str | None) -> dict[str, object]:
    """One settlement in this process: peak against prediction, and seconds."""
    torch.manual_seed(0)
    small, net = (Network(cell, inputs=INPUTS, units=size, outputs=OUTPUTS, layers=layers) for size in (8, units))
    x, y = torch.randn(steps, streams, INPUTS), torch.randint(0, OUTPUTS, (steps, streams))
    chunk, credit = Chunk(x, y, end=True), BPTT(memory=memory)
    for slots in (None, 1):
        settle(small, cross_entropy, Stream([chunk[:32]]), None, 4, slots)
    plan = credit.plan(net, steps, streams)
    start = credit.start(net)
    ctypes.CDLL(None).malloc_trim(0)  # memory that is free already would hide what the pass takes
    Path("/proc/self/clear_refs").write_text("5")  # the highest so far becomes what there is now
    before, clock = resident("VmRSS"), time.perf_counter()
    estimate, _ = credit(net, cross_entropy, chunk, start)
    seconds, peak = time.perf_counter() - clock, resident("VmHWM") - before
    return {
        "cell": cell,
        "steps": steps,
        "streams": streams,
        "memory": credit.memory,
        "seconds": round(seconds, 3),
        "microseconds a step": round(1e6 * seconds / steps, 3),
        "peak": peak,
        "predicted": plan.peak,
        "measured / predicted": round(peak / plan.peak, 3),
        "forward runs": round(plan.recompute, 3),
        "loss": float(estimate.loss) / estimate.count,
        "plan": str(plan),
    }


def fresh(arguments: argparse.Namespace, steps: int, memory: str | None) -> dict[str, object]:
    """The same in a process of its own."""
    options = vars(arguments) | {"steps": steps, "memory": memory or "none"}
    names = ("cell", "units", "layers", "streams", "steps", "memory", "threads")
    flags = [f"--{name}={options[name]}" for name in names]
    command = [sys.executable, __file__, "--here", *flags]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(f"{steps} steps under {memory} cannot be measured:\n{run.stderr}")
    return json.loads(run.stdout)


def both(arguments: argparse.Namespace) -> list[dict[str, object]]:
    """The plain pass and the one under the budget, in turn; of each the median time with the largest peak."""
    plain, budget = zip(
        *((fresh(arguments, FITS, None), fresh(arguments, FITS, arguments.memory)) for _ in range(REPEATS)), strict=True
    )
    rows = []
    for runs in (plain, budget):
        middle = dict(sorted(runs, key=lambda run: run["seconds"])[len(runs) // 2])
        middle["peak"] = max(run["peak"] for run in runs)
        middle["measured / predicted"] = round(middle["peak"] / middle["predicted"], 3)
        rows.append(middle)
    ratios = [b["seconds"] / p["seconds"] for p, b in zip(plain, budget, strict=True)]
    return [rows[0] | {"ratio": 1.0}, rows[1] | {"ratio": round(statistics.median(ratios), 3)}]


def table(arguments: argparse.Namespace) -> list[dict[str, object]]:
    rows = both(arguments)
    plain = rows[0]["microseconds a step"]
    for steps in LONG:
        row = fresh(arguments, steps, arguments.memory)
        rows.append(row | {"ratio": round(row["microseconds a step"] / plain, 3)})
    return rows


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--memory", default="64MB")
    for name, value in (("units", 128), ("layers", 1), ("streams", 1), ("threads", 1), ("steps", None)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def show(row: dict[str, object]) -> str:
    ratio = f", {row['ratio']:.2f} x plain" if "ratio" in row else ""
    return (
        f"{row['cell']:6} {row['steps']:9,} steps  {row['memory'] or 'plain':>6}  {row['seconds']:8.2f} s  "
        f"{row['microseconds a step']:7.2f} us a step{ratio}  peak {row['peak'] / 1e6:6.1f} MB, "
        f"predicted {row['predicted'] / 1e6:6.1f}\n       {row['plan']}"
    )


if __name__ == "__main__":
    arguments = parsed()
    if arguments.memory == "none":
        arguments.memory = None
    if arguments.here:
        torch.set_num_threads(arguments.threads)
        given = (getattr(arguments, name) for name in ("cell", "units", "layers", "streams", "steps", "memory"))
        print(json.dumps(measure(*given)))
    else:
        rows = [fresh(arguments, arguments.steps, arguments.memory)] if arguments.steps else table(arguments)
        for row in rows:
            print(json.dumps(row) if arguments.json else show(row), flush=True)
