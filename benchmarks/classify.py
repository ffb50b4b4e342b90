"""How well SequenceClassifier does with its defaults, and what unequal lengths cost.

    python benchmarks/classify.py figures FOLDER... [--npz FILE.npz] [--seeds 3] [--memory]
    python benchmarks/classify.py lengths

figures   FOLDER/NAME has NAME_TRAIN.ts and NAME_TEST.ts; the npz has x, y, x_test, y_test. Mean test accuracy over the
          seeds beside the linear baseline, and with --memory beside the network without memory (an MLP over the last
          8 steps, as many weights, same readout).
lengths   processor time a step, forward and backward, of batches of unequal lengths over that of equal lengths.

What was tried for the defaults (test accuracy in %, 64 units, 400 to 1,000 updates, 1 to 4 seeds; a few sets, so a
difference of a point says little):
    readout    mean alone BasicMotions 87.5, ItalyPowerDemand 93.7; last alone MNIST-1D 85.1; max alone ItalyPowerDemand
               93.2; last+max 98.8, 96.7 and 88.9. A mean beside them added time, and nothing that was seen.
    frames     step by step MNIST-1D 88.9, ArrowHead 48; frames of 3 steps 96.2 (same updates); of 9 every 4: 61.
    noise      0.1 beside 0: ArrowHead 70.9 (61.1), ItalyPowerDemand 96.9 (96.2), GunPoint 98.0 (97.3); 0.2 alike.
    sizes      PLAID, whose sequences differ in size by 10^6: over the deviation of all steps 38.9; asinh 48 to 59;
               with each sequence on its own scale beside it 76.2 (own scale alone 75.4).
    layers     two instead of frames: MNIST-1D 95.9, in twice the time.
    dropout    of 0.3 beside 0 for regression on 140 rows of 10 numbers: R2 0.49 (0.21).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from throughtime.baselines.sequences import reference_classes
from throughtime.credit import BPTT
from throughtime.data.sequences import Batches
from throughtime.data.ts import read_ts
from throughtime.estimators import SequenceClassifier
from throughtime.nets import cross_entropy
from throughtime.sequence_network import SequenceNetwork

Split = tuple[list[np.ndarray], np.ndarray]


def problems(folders: list[Path], npz: Path | None) -> Iterator[tuple[str, Split, Split]]:
    for folder in folders:
        parts = [read_ts(folder / f"{folder.name}_{part}.ts") for part in ("TRAIN", "TEST")]
        train, test = ((list(part.sequences), np.array(part.labels)) for part in parts)
        yield folder.name, train, test
    if npz is not None:
        with np.load(npz) as held:
            yield (
                npz.stem,
                (list(held["x"][..., None].astype(float)), held["y"]),
                (list(held["x_test"][..., None].astype(float)), held["y_test"]),
            )


def figures(folders: list[Path], npz: Path | None, seeds: int, memory: bool) -> None:
    for name, (x, y), (x_test, y_test) in problems(folders, npz):
        *_, linear = reference_classes(x, y)
        beside = 100 * np.mean(linear.predict(x_test) == y_test)
        row = [f"{name}: {linear.name} {beside:.1f} %"]
        kinds: list[dict[str, Any]] = [{}, {"cell": "mlp"}] if memory else [{}]
        for options in kinds:
            start = time.perf_counter()
            scores = []
            for seed in range(seeds):
                model = SequenceClassifier(random_state=seed, **options).fit(x, y)
                scores.append(100 * model.score(x_test, y_test))
            each = ", ".join(f"{score:.1f}" for score in scores)
            seconds = (time.perf_counter() - start) / seeds
            row.append(f"{model.cell} {np.mean(scores):.2f} % ({each}; {seconds:.0f} s each, {model.n_iter_} updates)")
        print("; ".join(row), flush=True)


def lengths() -> None:
    chance = np.random.default_rng(1)
    kinds = {
        "1 to 79": chance.integers(1, 80, 256),
        "geometric, mean 40": chance.geometric(1 / 40, 256),
        "7 to 29": chance.integers(7, 30, 256),
        "100 to 999": chance.integers(100, 1000, 64),
    }
    for name, steps in kinds.items():
        equal = np.full(len(steps), round(steps.mean()))
        ratios = [cost(steps) / cost(equal) for _ in range(5)]
        print(f"lengths {name}: a step costs {np.median(ratios):.2f} of one of {equal[0]} equal steps", flush=True)


def cost(steps: np.ndarray, epochs: int = 3) -> float:
    """Seconds of this processor a step of the sequences, the best of some passes."""
    torch.manual_seed(0)
    chance = np.random.default_rng(0)
    net = SequenceNetwork("gru", inputs=6, units=64, outputs=5, reads="last+max", bidirectional=True)
    x = [chance.normal(size=(length, 6)) for length in steps]
    batches = Batches(x=x, y=chance.integers(0, 5, len(x)), seed=0, epochs=epochs + 1)
    credit, found = BPTT(), []
    for epoch in range(epochs + 1):
        start = time.process_time()
        for index in range(batches.per_epoch):
            credit(net, cross_entropy, batches[epoch * batches.per_epoch + index], credit.start(net))
        found.append(time.process_time() - start)
    return min(found[1:]) / float(steps.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["figures", "lengths"])
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--npz", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.what == "lengths":
        lengths()
    else:
        figures(asked.folders, asked.npz, asked.seeds, asked.memory)


if __name__ == "__main__":
    main()
