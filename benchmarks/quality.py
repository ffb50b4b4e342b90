"""Does it learn as well as it should? Loss curves beside torch.nn's layers, and a language model against the clock.

    python benchmarks/quality.py curves [TEXT]            equal losses, update by update, with torch.nn in a plain loop
    python benchmarks/quality.py clock [TEXT] --time 180  nats per character after so many seconds of training
    python benchmarks/quality.py clock --unit word --time 600  the same of words

TEXT is a file, split 90/10 by position; by default the plays that come with the library.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy

import throughtime as tt
from throughtime.baselines import Ngram, best_ngram, kinds
from throughtime.cli.commands import announcement, counted, figures
from throughtime.cli.fitting import prepare
from throughtime.cli.options import NetworkOptions, Options, TrainingOptions
from throughtime.data import Text, shakespeare
from throughtime.inference import evaluate
from throughtime.kernels import why
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


def clock(text: Text, options: argparse.Namespace) -> None:
    """Train as `throughtime train --time` does, every choice that is not given being its recipe's; no looks between."""
    choices = {**vars(options), "time": f"{options.time}s"}
    network, training = (
        kind(**{name: value for name, value in choices.items() if name in kind.__dataclass_fields__})
        for kind in (NetworkOptions, TrainingOptions)
    )
    job = prepare(text, {}, Options(network=network, training=training))
    schedule = partial(cosine, warmup=options.warmup) if job.schedule == "cosine" else None
    print(announcement(job, Path("clock")), flush=True)
    start, looks, record = time.perf_counter(), 1, None
    for record in tt.train(
        job.net,
        job.chunks,
        credit=job.credit,
        optimizer=job.optimizer,
        schedule=schedule,
        clip=job.clip,
        seconds=options.time,
    ):
        if record.seconds > looks * options.time / 10:
            looks += 1
            print(f"update {record.update}, {record.seconds:.0f} s, training loss {record.loss:.3f}", flush=True)
    trained = time.perf_counter() - start
    assert record is not None
    score = evaluate(job.net, text.chunks(1, 512, "validation"))
    passes = record.targets / len(text.part())
    print(f"network      {figures(score.mean, text)}, on {score.count:.0f} of them, read as one stream")
    print(f"             {trained:.0f} s, {record.update} updates, {passes:.1f} passes, {why(job.net)}")
    train, held = text.part(), text.part("validation")
    print(counted(best_ngram(train, held, text.size), text))
    for kind in kinds:
        print(f"{kind} 5-grams: {Ngram(kind, 4, text.size).fit(train).nats(held, train).mean():.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("curves", "clock"))
    parser.add_argument("text", nargs="?")
    parser.add_argument("--updates", type=int, default=200, dest="length", help="updates of a curve")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the float32 spread of the curves")
    group = parser.add_argument_group("clock", "as for throughtime train; what is left out follows from the recipe")
    group.add_argument("--time", type=float, default=180.0, help="seconds of training")
    group.add_argument("--unit", default="char")
    for name in ("cell", "backend", "credit", "optimizer", "schedule"):
        group.add_argument(f"--{name}")
    for name in ("units", "layers", "embedding", "streams", "steps", "seed"):
        group.add_argument(f"--{name}", type=int)
    for name in ("dropout", "rate", "decay", "clip"):
        group.add_argument(f"--{name}", type=float)
    group.add_argument("--tie", action="store_true", default=None)
    group.add_argument("--warmup", type=float, default=0.02, help="share of the time in which the rate rises")
    options = parser.parse_args()
    given = {"unit": options.unit if options.what == "clock" else "char", "split": (0.9, 0.1, 0.0)}
    text = Text(options.text, **given) if options.text else Text.of(shakespeare(), **given)
    if options.what == "curves":
        curves(text, options.length, options.seeds)
    else:
        clock(text, options)


if __name__ == "__main__":
    main()
