"""Going back from one error at the end, beside errors at every step: what vanished errors cost.

    python benchmarks/last_error.py           T 1000, B 16, I = H = 64, one thread; ours and torch.nn's, milliseconds
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

import throughtime as tt


def backward(layer: nn.Module, x: torch.Tensor, last: bool, rounds: int) -> float:
    """The shortest milliseconds of backward alone."""
    best = float("inf")
    for _ in range(rounds):
        y, _ = layer(x)
        loss = y[-1].sum() if last else y.sum()
        layer.zero_grad()
        start = time.perf_counter()
        loss.backward()
        best = min(best, time.perf_counter() - start)
    return 1e3 * best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("steps", 1000), ("rows", 16), ("units", 64), ("threads", 1), ("rounds", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    x = torch.randn(options.steps, options.rows, options.units)
    print("cell  whose        at every step  at the last one")
    for kind in ("RNN", "GRU", "LSTM"):
        for whose, library in (("throughtime", tt), ("torch.nn", nn)):
            torch.manual_seed(0)
            layer = getattr(library, kind)(options.units, options.units)
            every, last = (backward(layer, x, at_end, options.rounds) for at_end in (False, True))
            print(f"{kind:5} {whose:12} {every:13.2f} {last:16.2f}", flush=True)


if __name__ == "__main__":
    main()
