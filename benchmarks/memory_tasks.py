"""Which h, and which network, learns problems that need memory; beside it what was in reach before the first update.

    python benchmarks/memory_tasks.py [--quick] [reach] [coin]

reach   Networks learn Copy, TemporalOrder, Adding and Parity by BPTT(h; h), their state carried on. Measured on the
        fresh network: the memory length of flow, and its verdict. An error reaches min(h - 1, memory) steps back;
        `in reach` says what part of the error of guessing goes for one who sees no further: nothing, a part, all.
coin    The coin, seen h steps at a time from a start that knows nothing: the error that is left beside the Bayes
        floor; the memory of a network that learned it whole; and what a carried state adds to h.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from functools import partial

import torch

import throughtime as tt
from throughtime.credit import Credit
from throughtime.data.tasks import Adding, Coin, Copy, Parity, Task, TemporalOrder
from throughtime.flow import Flow, measure
from throughtime.nets import losses
from throughtime.training import cosine

UNITS, RATE, CLIP = 32, 1e-2, 1.0
LEARNED = 0.1
"""Of the error of guessing: with less left a problem counts as learned."""
SHARES = (1.0, 0.6, 0.3)
"""h, as shares of the steps of a sequence."""
LAST = 50
"""Updates over which a training error is averaged."""


@dataclass(frozen=True)
class Kind:
    """A network: its cell, and whether its gates are open for as long as the problem takes."""

    name: str
    cell: str
    open: bool = False

    def build(self, task: Task, seed: int) -> tt.Network:
        torch.manual_seed(seed)
        net = tt.Network(self.cell, inputs=task.inputs, units=UNITS, outputs=task.outputs)
        if self.open:
            open_gates(net, task.length)
        return net


KINDS = (Kind("Elman", "elman"), Kind("GRU", "gru"), Kind("GRU, chrono", "gru", open=True))


@torch.no_grad()
def open_gates(net: tt.Network, steps: int) -> None:
    """Chrono initialisation (Tallec and Ollivier 2018) of a GRU: biases of z are ln U(1, steps - 1), others zero."""
    H = net.layers.units
    net.layers.bias_ih_l0.zero_()
    net.layers.bias_hh_l0.zero_()
    net.layers.bias_ih_l0[H : 2 * H] = torch.empty(H).uniform_(1, steps - 1).log()


def learn(net: tt.Network, task: Task, credit: Credit, updates: int, rate: float = RATE) -> tuple[int, float]:
    """Train until the problem is learned, at most so many updates; their number, and the mean error at the end."""
    recent: list[float] = []
    optimizer = torch.optim.Adam(net.parameters(), lr=rate)
    for record in tt.train(net, task, credit=credit, loss=task.loss, optimizer=optimizer, clip=CLIP, updates=updates):
        recent = [*recent[1 - LAST :], record.loss]
        if len(recent) == LAST and sum(recent) / LAST < LEARNED * task.guess:
            break
    return record.update, sum(recent) / len(recent)


def measured(net: tt.Network, task: Task) -> Flow:
    """The flow of the error of the last step through a whole sequence."""
    return measure(net, losses[task.loss], task[0], lags=task.length - 1)


def in_reach(task: Task, memory: float | None, h: int) -> str:
    """What of the error of guessing goes when an error sees its own step and min(h - 1, memory) before."""
    seen = h if memory is None else min(h, 1 + int(memory))
    left = (task.floor(seen) - task.floor()) / (task.guess - task.floor())
    return "nothing" if left > 0.999 else "all" if left < 0.001 else f"{100 * (1 - left):.0f} %"


def row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


PROBLEMS = {"copy": partial(Copy, symbols=1, alphabet=4), "order": TemporalOrder, "adding": Adding, "parity": Parity}


def reach(problems: list[str], lengths: list[int], updates: int, streams: int, seed: int) -> None:
    row(
        "problem",
        "T",
        "network",
        "memory",
        "verdict",
        "h",
        "of its steps",
        "in reach",
        "error left",
        "updates",
        "learned",
    )
    row(*["---"] * 11)
    told: dict[tuple[bool, bool], int] = {}
    for T in lengths:
        for task in (PROBLEMS[name](T, streams=streams, batches=10**6) for name in problems):
            for kind in KINDS:
                flow = measured(kind.build(task, seed), task)
                memory = flow.whole.memory
                for share in SHARES if kind.open else SHARES[:1]:
                    h = round(share * task.length)
                    credit = tt.BPTT() if share == 1 else tt.BPTT(h, every=h)
                    done, error = learn(kind.build(task, seed), task, credit, updates)
                    hope, learned = in_reach(task, memory, h), error < LEARNED * task.guess
                    told[hope != "nothing", learned] = told.get((hope != "nothing", learned), 0) + 1
                    long = f"over {task.length - 1}" if memory is None else f"{memory:.1f}"
                    left = f"{100 * error / task.guess:.0f} %"
                    seen = (f"{100 * share:.0f} %", hope, left, done, "yes" if learned else "no")
                    row(type(task).__name__, T, kind.name, long, flow.word, h, *seen)
    print()
    for hope, name in ((True, "Something in reach"), (False, "Nothing in reach")):
        yes, no = told.get((hope, True), 0), told.get((hope, False), 0)
        print(f"{name}: {yes} of {yes + no} learned.")


def whole(net: tt.Network, task: Task, credit: Credit, updates: int) -> None:
    """Train to the end, the rate falling to zero, so that what is left is near what can be."""
    optimizer = torch.optim.Adam(net.parameters(), lr=RATE)
    for _ in tt.train(
        net,
        task,
        credit=credit,
        loss=task.loss,
        optimizer=optimizer,
        schedule=cosine,
        clip=CLIP,
        updates=updates,
    ):
        pass


def coin(updates: int, seed: int) -> None:
    print("The coin from a start that knows nothing:\n")
    row("h", "floor", "error left", "above the floor")
    row(*["---"] * 4)
    loss, gru, many = losses[Coin.loss], Kind("GRU", "gru"), 10**6
    for h in (1, 2, 3, 4, 6, 8, 9, 10, 12):
        task = Coin(h, last=True, streams=256, batches=many)
        fresh = Coin(h, last=True, streams=50_000, batches=4, seed=seed + 1)
        net = gru.build(task, seed)
        whole(net, task, tt.BPTT(), updates)
        error = tt.evaluate(net, fresh, loss).mean
        row(h, f"{task.floor():.4f}", f"{error:.4f}", f"{error - task.floor():.4f}")
    task, fresh = Coin(100, batches=many), Coin(100, streams=2000, seed=seed + 1)
    net = gru.build(task, seed)
    whole(net, task, tt.BPTT(), updates)
    error = tt.evaluate(net, fresh, loss).mean
    kept = measure(net, loss, Coin(100, streams=8, seed=seed + 2)[0], lags=40).kept
    assert kept is not None
    print(f"\nLearned whole, over 100 steps: {error:.4f} left, of {task.floor():.4f} that must be. Its flow says:\n")
    row("h", *kept.h[:14])
    row(*["---"] * 15)
    row("BPTT(h) is off by", *(f"{100 * off:.0f} %" for off in kept.error[:14]))
    within = ", ".join(f"{kept.smallest_h(share)} for {100 * share:.0f} %" for share in (0.2, 0.1, 0.05))
    print(f"\nSmallest h: {within}")
    print("\nWith a state that is carried on through 100 steps:\n")
    row("h", "floor from a start that knows nothing", "error left")
    row(*["---"] * 3)
    for h in (1, 3, 4, 8, 9):
        net = gru.build(task, seed)
        whole(net, task, tt.ParallelBPTT(h), updates)
        row(h, f"{Coin(h, last=True).floor():.4f}", f"{tt.evaluate(net, fresh, loss).mean:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=("reach", "coin"), default=["reach", "coin"])
    parser.add_argument("--quick", action="store_true", help="T = 20 and 100 alone, and fewer updates")
    parser.add_argument("--lengths", type=int, nargs="+", metavar="T", help="default: 20 100 500")
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=list(PROBLEMS), metavar="NAME")
    parser.add_argument("--updates", type=int, help="at most, a training; default 1500, with --quick 600")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lengths = options.lengths or ([20, 100] if options.quick else [20, 100, 500])
    updates = options.updates or (600 if options.quick else 1500)
    start = time.perf_counter()
    if "reach" in options.what:
        print(f"{UNITS} units, Adam {RATE}, clip {CLIP:g}, {options.streams} streams, at most {updates} updates\n")
        reach(options.problems, lengths, updates, options.streams, options.seed)
    if "coin" in options.what:
        coin(600, options.seed)
    print(f"\n{time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
