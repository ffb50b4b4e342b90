"""Forward in time: time per step of RTRL beside one step with torch.func.jacrev, and of what approximates it.

    python benchmarks/forward.py                          one thread, H = 64, chunks of 1, 32 and 128 steps
    python benchmarks/forward.py GRU --units 32 --json forward.json

The peer is RTRL as it is written with torch.func: jacrev of the whole step (functional_call of torch.nn's cell) by
all weights and the state, the product with the influence, and the gradient of the step's error. `jacrev` is the first
of these alone. Both sides are timed in turns; a time is the least of all rounds. Gradients are compared first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tables import markdown
from torch import nn
from torch.func import functional_call, grad, jacrev

import throughtime as tt
from throughtime.credit import Credit, credit_named, spell_credit

CELLS = {"RNN": ("elman", nn.RNNCell), "GRU": ("gru", nn.GRUCell), "LSTM": ("lstm", nn.LSTMCell)}
CHUNKS = (1, 32, 128)
WANTED = {1: 2.0, 32: 20.0, 128: 20.0}
OTHERS = ("snap", "rflo", "uoro", "bptt:h=32,every=32")


class Step(nn.Module):
    """One step of torch.nn's cell, its state as one vector: what jacrev differentiates."""

    def __init__(self, kind: str, net: tt.Network) -> None:
        super().__init__()
        layers = net.layers
        weights = dict(layers.named_parameters())
        self.slots, self.cell = layers.cell.slots, CELLS[kind][1](layers.inputs, layers.units)
        self.cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in weights.items()})
        self.cell.to(net.readout.weight.dtype)

    def forward(self, x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        parts = s.chunk(self.slots)
        after = self.cell(x, parts[0] if self.slots == 1 else parts)
        return after if self.slots == 1 else torch.cat(after)


class Peer:
    """RTRL by torch.func, one step a call; the influence is one matrix, so that its product is one call too."""

    def __init__(self, kind: str, net: tt.Network) -> None:
        step = Step(kind, net)
        self.weights = {name: weight.detach() for name, weight in step.named_parameters()}
        self.readout = {name: weight.detach() for name, weight in net.readout.named_parameters()}
        self.jacobians = jacrev(lambda own, s, x: self.moved(step, own, s, x), argnums=(0, 1), has_aux=True)
        self.errors = grad(lambda own, s, y: self.error(net.readout, own, s, y), argnums=(0, 1))
        self.n, self.units = step.slots * net.layers.units, net.layers.units

    @staticmethod
    def moved(step: Step, own: dict[str, torch.Tensor], s: torch.Tensor, x: torch.Tensor) -> Any:
        after = functional_call(step, own, (x, s))
        return after, after

    def error(self, readout: nn.Linear, own: dict[str, torch.Tensor], s: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (functional_call(readout, own, (s[: self.units],)) - y).square().sum() / 2

    def start(self) -> tuple[torch.Tensor, torch.Tensor]:
        P, like = sum(weight.numel() for weight in self.weights.values()), self.readout["weight"]
        return like.new_zeros(self.n), like.new_zeros(self.n, P)

    def __call__(self, x: torch.Tensor, y: torch.Tensor, s: torch.Tensor, M: torch.Tensor) -> Any:
        (direct, J), s = self.jacobians(self.weights, s, x)
        M = torch.addmm(torch.cat([part.reshape(self.n, -1) for part in direct.values()], 1), J, M)
        readout, ds = self.errors(self.readout, s, y)
        return ds @ M, readout, s, M


def chunk_of(T: int, net: tt.Network) -> tt.Chunk:
    dtype = net.readout.weight.dtype
    x, y = torch.randn(T, 1, net.inputs, dtype=dtype), torch.randn(T, 1, net.readout.out_features, dtype=dtype)
    return tt.Chunk(x, y)


def parity(kind: str, options: argparse.Namespace) -> float:
    """The largest difference of the gradient of twelve steps, relative to its largest entry, in float64."""
    net = network(kind, options).double()
    chunk, peer = chunk_of(12, net), Peer(kind, net)
    assert chunk.y is not None
    s, M = peer.start()
    wanted = torch.zeros_like(M[0])
    for x, y in zip(chunk.x[:, 0], chunk.y[:, 0], strict=True):
        found, _, s, M = peer(x, y, s, M)
        wanted += found
    estimate, _ = tt.RTRL()(net, tt.squared_error, chunk, tt.RTRL().start(net))
    names = (f"layers.{name.removeprefix('cell.')}_l0" for name in peer.weights)
    given = torch.cat([estimate.grads[name].flatten() for name in names])
    return float((given - wanted).abs().max() / wanted.abs().max())


def network(kind: str, options: argparse.Namespace) -> tt.Network:
    torch.manual_seed(0)
    return tt.Network(CELLS[kind][0], inputs=options.inputs, units=options.units, outputs=options.outputs)


def credited(credit: Credit, net: tt.Network, T: int) -> Callable[[], None]:
    """One call settles a chunk, from a memory that holds an influence already."""
    chunk = chunk_of(T, net)
    memory = credit(net, tt.squared_error, chunk, credit.start(net))[1]

    def settle() -> None:
        nonlocal memory
        memory = credit(net, tt.squared_error, chunk, memory)[1]

    return settle


def least(jobs: dict[str, Callable[[], Any]], seconds: float) -> dict[str, float]:
    """The least time of one call of each, in turns until the seconds are over, ten turns at least."""
    best = dict.fromkeys(jobs, float("inf"))
    stop, turns = time.perf_counter() + seconds, 0
    while turns < 10 or time.perf_counter() < stop:
        for name, job in jobs.items():
            begin = time.perf_counter()
            job()
            best[name] = min(best[name], time.perf_counter() - begin)
        turns += 1
    return best


def measured(kind: str, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds per step of one cell."""
    net = network(kind, options)
    peer, one = Peer(kind, net), chunk_of(1, net)
    assert one.y is not None
    x, y = one.x[0, 0], one.y[0, 0]
    s, M = peer.start()
    _, _, s, M = peer(x, y, s, M)
    jobs: dict[str, tuple[int, Callable[[], Any]]] = {
        "peer": (1, lambda: peer(x, y, s, M)),
        "jacrev": (1, lambda: peer.jacobians(peer.weights, s, x)),
    }
    jobs |= {f"rtrl {T}": (T, credited(tt.RTRL(), net, T)) for T in CHUNKS}
    jobs |= {spell_credit(credit): (32, credited(credit, net, 32)) for credit in map(credit_named, OTHERS)}
    best = least({name: job for name, (_, job) in jobs.items()}, options.seconds)
    seconds = {name: best[name] / steps for name, (steps, _) in jobs.items()}
    return {"kind": kind, "parity": parity(kind, options), "seconds": seconds}


def table(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        seconds = row["seconds"]
        table = []
        for name, value in seconds.items():
            ratio = seconds["peer"] / value
            floor = WANTED.get(int(name.split()[1])) if name.startswith("rtrl") else None
            verdict = "-" if floor is None else f"{floor:g} {'met' if ratio >= floor else 'NOT MET'}"
            alone = seconds["jacrev"] / value
            table.append([name, f"{value * 1e6:.1f}", f"{ratio:.1f}", f"{alone:.1f}", verdict])
        lines += [f"{row['kind']}: parity with the peer {row['parity']:.1e} in float64", ""]
        lines += markdown(["algorithm, steps a chunk", "us a step", "peer / it", "jacrev / it", "wanted"], table)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"of {', '.join(CELLS)}; RNN and GRU by default")
    for name, size in (("inputs", 32), ("units", 64), ("outputs", 8), ("threads", 1)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--seconds", type=float, default=10.0, help="of turns, a cell")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    for kind in options.kinds:
        if kind not in CELLS:
            parser.error(f"KIND must be of {', '.join(CELLS)}; got {kind!r}.")
    torch.set_num_threads(options.threads)
    rows = []
    for kind in options.kinds or ("RNN", "GRU"):
        rows.append(measured(kind, options))
        print("\n".join(table(rows[-1:])), flush=True)
    if options.json:
        sizes = {name: getattr(options, name) for name in ("inputs", "units", "outputs", "threads")}
        options.json.write_text(json.dumps({**sizes, "torch": torch.__version__, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
