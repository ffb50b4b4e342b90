"""The Witten-Bell n-gram: its definition by dictionaries, probabilities that sum to one, known figures."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from throughtime.baselines import WittenBell, best_witten_bell
from throughtime.data import Text

SHAKESPEARE = Path(__file__).parents[2] / "shared" / "data" / "tinyshakespeare" / "input.txt"
FIGURES = [3.347, 2.486, 2.049, 1.774, 1.669, 1.698, 1.779]  # contexts of 0 to 6 characters, nats


def by_dictionary(train: list[int], size: int, context: tuple[int, ...], w: int) -> float:
    """p(w | context), straight from the definition."""
    followers: dict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    for n in range(len(context) + 1):
        for t in range(n, len(train)):
            followers[tuple(train[t - n : t])][train[t]] += 1
    p = 1 / size
    for n in range(len(context) + 1):
        counts = followers.get(context[len(context) - n :])
        if counts:
            p = (counts[w] + len(counts) * p) / (counts.total() + len(counts))
    return p


ids = st.lists(st.integers(0, 3), min_size=1, max_size=25)


@given(ids, ids, st.lists(st.integers(0, 3), max_size=5), st.integers(0, 4))
def test_it_equals_the_definition(train: list[int], held: list[int], before: list[int], order: int) -> None:
    nats = WittenBell(order, 5).fit(np.array(train, np.uint8)).nats(held, before)
    stream = before + held
    for t, value in enumerate(nats):
        here = len(before) + t
        context = tuple(stream[max(0, here - order) : here])
        assert value == pytest.approx(-math.log(by_dictionary(train, 5, context, held[t])), rel=1e-12)


@given(ids, st.lists(st.integers(0, 4), max_size=5), st.integers(0, 4))
def test_probabilities_sum_to_one(train: list[int], before: list[int], order: int) -> None:
    model = WittenBell(order, 5).fit(train)
    assert sum(math.exp(-model.nats([w], before)[0]) for w in range(5)) == pytest.approx(1, abs=1e-12)


def test_one_model_holds_all_smaller_orders() -> None:
    generator = np.random.default_rng(0)
    train, held = generator.integers(0, 6, 500), generator.integers(0, 6, 80)
    means = [WittenBell(n, 6).fit(train).nats(held, train).mean() for n in range(5)]
    best, mean = best_witten_bell(train, held, 6, range(5))
    assert best == int(np.argmin(means))
    assert mean == pytest.approx(min(means), rel=1e-14)
    assert best_witten_bell(train, held, 6, [3]) == (3, pytest.approx(means[3], rel=1e-14))


def test_a_vocabulary_of_fifty_thousand_words() -> None:
    train = np.random.default_rng(1).zipf(1.3, 30_000) % 50_000
    order, mean = best_witten_bell(train[:27_000], train[27_000:], 50_000)
    assert 0 <= order <= 6
    assert 0 < mean < math.log(50_000)


@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="tinyshakespeare is not beside the repository")
def test_the_figures_for_tinyshakespeare() -> None:
    whole = Text(SHAKESPEARE, split=None)
    ids = whole.ids.astype(np.int64) - 1  # 65 characters, no <unk>, as the figures count them
    border = int(0.9 * len(ids))
    nats = list(WittenBell(6, 65).fit(ids[:border])._by_order(ids[border:], ids[:border]))
    assert [round(float(each.mean()), 3) for each in nats] == FIGURES


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: WittenBell(-1, 5), "order must be at least 0"),
        (lambda: WittenBell(1, 5).nats([1]), "fit must be called before nats"),
        (lambda: WittenBell(1, 5).fit([]), "at least one id to count"),
        (lambda: WittenBell(1, 5).fit([5]), r"ids must lie in \[0, 5\); got 5 to 5"),
        (lambda: WittenBell(1, 5).fit([0.5]), "whole numbers"),
        (lambda: best_witten_bell([1], [], 5), "held must have at least one id"),
    ],
)
def test_bad_input_is_refused(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
