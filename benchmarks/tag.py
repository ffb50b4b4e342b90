"""Tagging Python source, labelled exactly by the standard library's tokenizer, beside two baselines.

    python benchmarks/tag.py [--seeds 3] [--lines 3000]

A sentence is a logical line of a module, its tokens without comments, line ends and indentation. Spans of names that
dots join are tagged in BIO: `def` and `class` after those words, `import` in import statements, `call` before an
opening bracket, `keyword` before = in a bracket, `ref` for the others; keywords, operators, strings and numbers are O.
Training and test lines are of different modules, so that many names of the test were never seen.
"""

from __future__ import annotations

import argparse
import io
import json
import keyword
import random
import time
import tokenize
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from throughtime.baselines.tags import UsualTag, WindowedTag
from throughtime.estimators.spans import span_score
from throughtime.estimators.tagger import SequenceTagger

Line = tuple[list[str], list[str]]
SKIPPED = {tokenize.COMMENT, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING, tokenize.ENDMARKER}


def lines_of(source: str) -> Iterator[Line]:
    """Tokens and tags of each logical line."""
    line: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NEWLINE:
            if len(line) > 1:
                yield [t.string for t in line], tags_of(line)
            line = []
        elif token.type not in SKIPPED:
            line.append(token)


def tags_of(line: list[tokenize.TokenInfo]) -> list[str]:
    """B-kind, I-kind or O for every token of a logical line."""
    is_name = [t.type == tokenize.NAME and not keyword.iskeyword(t.string) for t in line]
    tags = ["O"] * len(line)
    depth, place = 0, 0
    while place < len(line):
        depth += (line[place].string in "([{" and bool(line[place].string)) - (line[place].string in (")", "]", "}"))
        if not is_name[place]:
            place += 1
            continue
        stop = place + 1
        while stop + 1 < len(line) and line[stop].string == "." and is_name[stop + 1]:
            stop += 2
        before = line[place - 1].string if place else ""
        after = line[stop].string if stop < len(line) else ""
        kind = kind_of(line[0].string, before, after, depth)
        tags[place:stop] = [f"B-{kind}"] + [f"I-{kind}"] * (stop - place - 1)
        place = stop
    return tags


def kind_of(first: str, before: str, after: str, depth: int) -> str:
    if before in ("def", "class"):
        return before
    if first in ("import", "from"):
        return "import"
    if after == "(":
        return "call"
    return "keyword" if after == "=" and depth else "ref"


def modules(seed: int) -> list[Path]:
    """The single-file modules of the standard library, in an order of chance."""
    found = sorted(Path(json.__file__).parent.parent.glob("[a-z]*.py"))
    random.Random(seed).shuffle(found)
    return found


def sample(paths: list[Path], count: int) -> list[Line]:
    """So many lines of modules, about as many of each."""
    found: list[Line] = []
    for path in paths:
        lines = list(lines_of(path.read_text(encoding="utf-8")))
        found += random.Random(path.name).sample(lines, min(len(lines), 60))
        if len(found) >= count:
            break
    return found[:count]


def data(lines: int, seed: int) -> tuple[list[Line], list[Line]]:
    """Training and test lines, of different modules."""
    paths = modules(seed)
    return sample(paths[: 2 * len(paths) // 3], lines), sample(paths[2 * len(paths) // 3 :], lines // 2)


def share(found: list, truth: list, chosen: list | None = None) -> float:
    """The share of tokens that are tagged right, of all or of the chosen ones."""
    right = np.concatenate([np.asarray(a) == np.asarray(b) for a, b in zip(found, truth, strict=True)])
    return float(right.mean() if chosen is None else right[np.concatenate(chosen)].mean())


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--lines", type=int, default=3000)
    options = arguments.parse_args()
    print(f"{'':24}{'accuracy':>10}{'unseen':>10}{'span F1':>10}{'seconds':>10}")
    rows: dict[str, list[list[float]]] = {}
    for seed in range(options.seeds):
        train, test = data(options.lines, seed)
        X, y = ([line[k] for line in train] for k in (0, 1))
        Xt, yt = ([line[k] for line in test] for k in (0, 1))
        known = {token for line in X for token in line}
        unseen = [np.array([token not in known for token in line]) for line in Xt]
        taggers = {
            "usual tag": UsualTag(),
            "windowed regression": WindowedTag(seed),
            "gru, both directions": SequenceTagger(random_state=seed),
            "gru, one direction": SequenceTagger(random_state=seed, bidirectional=False),
            "mlp, window of 3": SequenceTagger(random_state=seed, cell="mlp", window=3),
        }
        for name, tagger in taggers.items():
            begin = time.perf_counter()
            found = list(tagger.fit(X, y).predict(Xt))
            seconds = time.perf_counter() - begin
            figures = [share(found, yt), share(found, yt, unseen), span_score(yt, found).f1, seconds]
            rows.setdefault(name, []).append(figures)
    for name, figures in rows.items():
        accuracy, rare, f1, seconds = np.mean(figures, axis=0)
        print(f"{name:24}{accuracy:10.4f}{rare:10.4f}{f1:10.4f}{seconds:10.1f}")


if __name__ == "__main__":
    main()
