"""Does it learn as well as it should? Loss curves beside torch.nn's layers, and a character model against the clock.

    python benchmarks/quality.py curves [TEXT]            equal losses, update by update, with torch.nn in a plain loop
    python benchmarks/quality.py clock [TEXT] --time 180  nats per character after so many seconds of training

TEXT is a file of characters, split 90/10 by position; by default the text that comes with the library.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import throughtime as tt
from throughtime.baselines import best_witten_bell
from throughtime.data import Text, shakespeare
from throughtime.inference import evaluate
from throughtime.training import cosine

STREAMS, STEPS, UNITS, RATE, CLIP = 16, 32, 64, 2e-3, 1.0
LAYERS = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Plain(nn.Module):
    """The same network of torch.nn's parts, made in the same order, so that a seed gives the same weights."""

    def __init__(self, kind: str, size: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(size, UNITS)
        self.layer = LAYERS[kind](UNITS, UNITS)
        self.readout = nn.Linear(UNITS, size)

    def forward(self, x, state):
        h, state = self.layer(self.embed(x), state)
        return self.readout(h), state


def plain_losses(kind: str, text: Text, updates: int, seed: int) -> Iterator[float]:
    """The textbook loop: chunks, detached state, mean loss, clipping, AdamW; nothing of throughtime's but the data."""
    torch.manual_seed(seed)
    net = Plain(kind, text.size)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    chunks, state = text.chunks(STREAMS, STEPS), None
    for index in range(updates):
        chunk = chunks[index % len(chunks)]
        if index % len(chunks) == 0:
            state = None
        prediction, state = net(chunk.x, state)
        state = tuple(part.detach() for part in state) if isinstance(state, tuple) else state.detach()
        errors = cross_entropy(prediction.flatten(0, 1), chunk.y.flatten(), reduction="none")
        mask = torch.ones_like(errors) if chunk.mask is None else chunk.mask.flatten().to(errors.dtype)
        loss = (errors * mask).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), CLIP)
        optimizer.step()
        yield loss.item()


def our_losses(kind: str, text: Text, updates: int, seed: int, backend: str) -> Iterator[float]:
    torch.manual_seed(seed)
    net = tt.Network(kind, inputs=text.size, units=UNITS, outputs=text.size, embedding=UNITS, backend=backend)
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE)
    chunks = text.chunks(STREAMS, STEPS)
    for record in tt.train(net, chunks, optimizer=optimizer, clip=CLIP, updates=updates):
        yield record.loss


def curves(text: Text, updates: int, seeds: int) -> None:
    print(f"{updates} updates, {STREAMS} streams of {STEPS} steps, {UNITS} units, AdamW {RATE}, clip {CLIP}")
    print("cell   backend    float64: largest difference  float32: ours  torch.nn   spread")
    for kind, backend in itertools.product(LAYERS, ("torch", "reference")):
        torch.set_default_dtype(torch.float64)
        pairs = zip(our_losses(kind, text, updates, 0, backend), plain_losses(kind, text, updates, 0), strict=True)
        largest = max(abs(a - b) for a, b in pairs)
        torch.set_default_dtype(torch.float32)
        ours = [tail(our_losses(kind, text, updates, seed, backend)) for seed in range(seeds)]
        peer = [tail(plain_losses(kind, text, updates, seed)) for seed in range(seeds)]
        spread = max(peer) - min(peer)
        far = max(abs(a - b) for a, b in zip(ours, peer, strict=True))
        verdict = "equal" if largest <= 1e-9 and far <= spread else "DIFFERENT"
        print(
            f"{kind:6} {backend:10} {largest:28.1e} {sum(ours) / seeds:14.4f} {sum(peer) / seeds:9.4f} "
            f"{spread:8.4f}  {verdict}",
            flush=True,
        )


def tail(losses: Iterator[float], last: int = 20) -> float:
    """The mean of the last losses of a curve."""
    every = list(losses)[-last:]
    return sum(every) / len(every)


def clock(text: Text, seconds: float, seed: int, cell: str, units: int) -> None:
    """16 streams of 64 steps cost no more a character than 32, with twice the updates; a narrow embedding is cheap."""
    order, baseline = best_witten_bell(text.part("train"), text.part("validation"), text.size)
    torch.manual_seed(seed)
    net = tt.Network(cell, inputs=text.size, units=units, outputs=text.size, embedding=units // 2)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=0.1, fused=True)
    start, record = time.perf_counter(), None
    for record in tt.train(
        net, text.chunks(16, 64), optimizer=optimizer, schedule=cosine, clip=CLIP, seconds=seconds
    ):
        if record.update % 500 == 0:
            print(f"update {record.update}, {record.seconds:.0f} s, training loss {record.loss:.3f}", flush=True)
    trained = time.perf_counter() - start
    assert record is not None
    score = evaluate(net, text.chunks(1, 512, "validation"))
    print(
        f"{cell}, {units} units, {torch.get_num_threads()} threads: {score.mean:.4f} nats per character on "
        f"{score.count:.0f} characters after {trained:.0f} s and {record.update} updates; "
        f"Witten-Bell with {order} characters of context {baseline:.4f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "clock"))
    parser.add_argument("text", nargs="?")
    parser.add_argument("--time", type=float, default=180.0, help="seconds of training (clock)")
    parser.add_argument("--updates", type=int, default=200, help="updates of a curve (curves)")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the float32 spread (curves)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cell", default="lstm")
    parser.add_argument("--units", type=int, default=256)
    options = parser.parse_args()
    split = (0.9, 0.1, 0.0)
    text = Text(options.text, split=split) if options.text else Text.of(shakespeare(), split=split)
    if options.what == "curves":
        curves(text, options.updates, options.seeds)
    else:
        clock(text, options.time, options.seed, options.cell, options.units)


if __name__ == "__main__":
    main()
