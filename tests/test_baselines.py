"""The n-grams: their definitions by dictionaries, probabilities that sum to one, known figures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.baselines import Ngram, best_ngram, discounts, kinds
from throughtime.data import Text, shakespeare

SHAKESPEARE = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare" / "input.txt"
FIGURES = [3.347, 2.486, 2.049, 1.774, 1.669, 1.698, 1.779]  # contexts of 0 to 6 characters, nats
START = -1
"""What stands before the first id."""

Context = tuple[int, ...]
Counts = dict[Context, Counter[int]]


def followers(train: list[int], n: int) -> Counts:
    """N(c, w) of every context of n ids."""
    found: Counts = defaultdict(Counter)
    for t in range(n, len(train)):
        found[tuple(train[t - n : t])][train[t]] += 1
    return found


def continuations(train: list[int], n: int) -> Counts:
    """How many different ids stood before (c, w), of every context c of n ids."""
    before: dict[tuple[Context, int], set[int]] = defaultdict(set)
    for t in range(n, len(train)):
        before[tuple(train[t - n : t]), train[t]].add(train[t - n - 1] if t > n else START)
    found: Counts = defaultdict(Counter)
    for (context, w), ids in before.items():
        found[context][w] = len(ids)
    return found


def witten_bell(train: list[int], size: int, order: int, context: Context, w: int) -> float:
    """p(w | context), straight from the definition."""
    p = 1 / size
    for n in range(len(context) + 1):
        counts = followers(train, n).get(context[len(context) - n :])
        if counts:
            p = (counts[w] + len(counts) * p) / (counts.total() + len(counts))
    return p


def kneser_ney(train: list[int], size: int, order: int, context: Context, w: int) -> float:
    """p(w | context), straight from the definition."""
    longest = min(order, len(train) - 1)
    p = 1 / size
    for n in range(min(len(context), longest) + 1):
        level = followers(train, n) if n == longest else continuations(train, n)
        counts = level.get(context[len(context) - n :])
        if counts:
            D = textbook_discounts([count for row in level.values() for count in row.values()])
            rest = sum(D[min(count, 3)] for count in counts.values())
            p = (counts[w] - D[min(counts[w], 3)] + rest * p) / counts.total()
    return p


def textbook_discounts(counts: list[int]) -> list[float]:
    """D(0), D(1), D(2), D(3+) by formula (26) of Chen and Goodman, bounded as its docstring says."""
    n = Counter(counts)
    D = [0.0, 0.5, 1.0, 1.5]
    for k in (1, 2, 3):
        if n[1] and n[k] and n[k + 1]:
            Y = n[1] / (n[1] + 2 * n[2])
            value = k - (k + 1) * Y * n[k + 1] / n[k]
            D[k] = value if value > 0 else D[k]
    return D


ids = st.lists(st.integers(0, 3), min_size=1, max_size=40)


@pytest.mark.parametrize(("kind", "definition"), [("Witten-Bell", witten_bell), ("Kneser-Ney", kneser_ney)])
@given(ids, st.lists(st.integers(0, 4), min_size=1, max_size=8), st.lists(st.integers(0, 3), max_size=5), st.data())
def test_it_equals_the_definition(kind, definition, train, held, before, data) -> None:
    order = data.draw(st.integers(0, 4))
    nats = Ngram(kind, order, 5).fit(np.array(train, np.uint8)).nats(held, before)
    stream = before + held
    for t, value in enumerate(nats):
        here = len(before) + t
        context = tuple(stream[max(0, here - order) : here])
        assert value == pytest.approx(-math.log(definition(train, 5, order, context, held[t])), rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("kind", kinds)
@given(ids, st.lists(st.integers(0, 4), max_size=5), st.integers(0, 4))
def test_probabilities_sum_to_one(kind, train: list[int], before: list[int], order: int) -> None:
    fitted = Ngram(kind, order, 5).fit(train)
    assert sum(math.exp(-fitted.nats([w], before)[0]) for w in range(5)) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("kind", kinds)
def test_probabilities_sum_to_one_over_the_words_of_plays(kind) -> None:
    text = plays()
    fitted, held = Ngram(kind, 4, text.size).fit(text.part()), text.part("validation")
    every = np.arange(text.size)
    for end in np.random.default_rng(0).integers(5, len(held), 5):
        # Each of the words after the same four: the others stand so far before that none sees them.
        stream = np.stack([*np.broadcast_to(held[end - 4 : end, None], (4, text.size)), every]).T.reshape(-1)
        nats = fitted.nats(stream)[4::5]
        assert np.exp(-nats).sum() == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("kind", kinds)
def test_one_model_holds_all_smaller_orders(kind) -> None:
    generator = np.random.default_rng(0)
    train, held = generator.integers(0, 6, 500), generator.integers(0, 6, 80)
    fitted = Ngram(kind, 4, 6).fit(train)
    for order, nats in enumerate(fitted.by_order(held, train)):
        np.testing.assert_array_equal(nats, Ngram(kind, order, 6).fit(train).nats(held, train))


def test_the_best_is_the_least_surprised() -> None:
    generator = np.random.default_rng(0)
    train, held = generator.integers(0, 6, 500), generator.integers(0, 6, 80)
    fitted = {(kind, order): Ngram(kind, order, 6).fit(train) for kind in kinds for order in range(5)}
    means = {name: model.nats(held, train).mean() for name, model in fitted.items()}
    best = best_ngram(train, held, 6, range(5))
    assert (best.kind, best.order) == min(means, key=means.__getitem__)
    assert best.nats == pytest.approx(min(means.values()), rel=1e-14)
    assert best_ngram(train, held, 6, [3]).order == 3


def test_discounts_by_hand() -> None:
    # n_1 = 4, n_2 = 2, n_3 = 1, n_4 = 1: Y = 1/2.
    assert discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4, 9])).tolist() == [0, 0.5, 2 - 3 / 4, 3 - 2]
    assert discounts(np.array([7, 7])).tolist() == [0, 0.5, 1, 1.5]


def test_a_vocabulary_of_fifty_thousand_words() -> None:
    train = np.random.default_rng(1).zipf(1.3, 30_000) % 50_000
    best = best_ngram(train[:27_000], train[27_000:], 50_000)
    assert 0 <= best.order <= 6
    assert 0 < best.nats < math.log(50_000)


def plays() -> Text:
    """Words of the plays that come with the library."""
    return Text.of(shakespeare(), unit="word", split=(0.9, 0.1, 0.0))


def test_kneser_ney_is_better_on_the_words_of_plays() -> None:
    text = plays()
    train, held = text.part(), text.part("validation")
    nats = {kind: Ngram(kind, 4, text.size).fit(train).nats(held, train).mean() for kind in kinds}
    assert nats["Kneser-Ney"] < nats["Witten-Bell"] - 0.3
    assert round(float(nats["Kneser-Ney"]), 3) == 4.256
    assert best_ngram(train, held, text.size).kind == "Kneser-Ney"


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tinyshakespeare is not beside the repository")
def test_the_figures_for_tinyshakespeare() -> None:
    whole = Text(SHAKESPEARE, split=None)
    ids = whole.ids.astype(np.int64) - 1  # 65 characters, no <unk>, as the figures count them
    border = int(0.9 * len(ids))
    nats = list(Ngram("Witten-Bell", 6, 65).fit(ids[:border]).by_order(ids[border:], ids[:border]))
    assert [round(float(each.mean()), 3) for each in nats] == FIGURES


@pytest.mark.parametrize("kind", kinds)
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda kind: Ngram("Laplace", 1, 5), "kind must be Witten-Bell or Kneser-Ney; got 'Laplace'"),
        (lambda kind: Ngram(kind, -1, 5), "order must be at least 0"),
        (lambda kind: Ngram(kind, 1, 5).nats([1]), "fit must be called before nats"),
        (lambda kind: Ngram(kind, 1, 5).fit([]), "at least one id to count"),
        (lambda kind: Ngram(kind, 1, 5).fit([5]), r"ids must lie in \[0, 5\); got 5 to 5"),
        (lambda kind: Ngram(kind, 1, 5).fit([0.5]), "whole numbers"),
        (lambda kind: best_ngram([1], [], 5), "held must have at least one id"),
    ],
)
def test_bad_input_is_refused(kind, call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(kind)
