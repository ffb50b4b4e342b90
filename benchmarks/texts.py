"""Telling where a line comes from, beside TF-IDF with logistic regression; with another author's text, whose it is.

    python benchmarks/texts.py [--seeds 3] [--lines 650] [--other FILE]

    plays     which of the eight shipped plays a line of four words or more is from
    modules   which of ten modules of the standard library a line of three words or more is from
    authors   Shakespeare, or the author of FILE, as many lines of each
So many lines of each class, every one different, four fifths to learn from and a fifth to test on, at random. Untuned.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
from pathlib import Path

import numpy as np

from throughtime.baselines.texts import WordBaseline
from throughtime.data import shakespeare
from throughtime.estimators import SequenceClassifier

Lines = dict[str, list[str]]
Labelled = tuple[list[str], list[str]]


def plays() -> Lines:
    parts = re.split(r"^ACT I\.$", shakespeare(), flags=re.MULTILINE)
    return {f"play {place}": long_lines(part, 4) for place, part in enumerate(parts[1:], start=1)}


def modules() -> Lines:
    found = sorted(Path(json.__file__).parent.parent.glob("[a-z]*.py"))
    large = [path for path in found if path.stat().st_size > 60_000][:10]
    return {path.stem: long_lines(path.read_text(encoding="utf-8"), 3) for path in large}


def authors(other: Path) -> Lines:
    return {"Shakespeare": long_lines(shakespeare(), 4), "other": long_lines(other.read_text(encoding="utf-8"), 4)}


def long_lines(text: str, words: int) -> list[str]:
    """The different lines of at least so many words."""
    return sorted({line.strip() for line in text.splitlines() if len(line.split()) >= words})


def split(lines: Lines, most: int, seed: int) -> tuple[Labelled, Labelled]:
    """At most so many lines of each class, as many of all; four fifths to learn from."""
    chance = random.Random(seed)
    count = min(most, *map(len, lines.values()))
    pairs = [(line, name) for name, own in lines.items() for line in chance.sample(own, count)]
    chance.shuffle(pairs)
    border = 4 * len(pairs) // 5
    train, test = ([list(part) for part in zip(*some, strict=True)] for some in (pairs[:border], pairs[border:]))
    return (train[0], train[1]), (test[0], test[1])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--lines", type=int, default=650)
    arguments.add_argument("--other", type=Path)
    options = arguments.parse_args()
    tasks = {"plays": plays(), "modules": modules()} | ({"authors": authors(options.other)} if options.other else {})
    print(f"{'':10}{'classes':>8}{'learned':>8}{'tested':>8}{'TF-IDF':>9}{'network':>9}{'seconds':>9}")
    for name, lines in tasks.items():
        figures = []
        for seed in range(options.seeds):
            most = options.lines if len(lines) > 2 else 5 * options.lines
            (X, y), (Xt, yt) = split(lines, most, seed)
            base = float(np.mean(WordBaseline().fit(X, y).predict(Xt) == yt))
            begin = time.perf_counter()
            score = SequenceClassifier(random_state=seed).fit(X, y).score(Xt, yt)
            figures.append((base, score, time.perf_counter() - begin))
        base, score, seconds = np.mean(figures, axis=0)
        print(f"{name:10}{len(lines):8}{len(X):8}{len(Xt):8}{base:9.4f}{score:9.4f}{seconds:9.1f}", flush=True)


if __name__ == "__main__":
    main()
