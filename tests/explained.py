"""What the tests of the page share: small networks on a word, on a word that repeats itself, and on numbers."""

from __future__ import annotations

from functools import cache
from itertools import product

from throughtime.explain import Explanation, network, of_values, of_word

CELLS = ("elman", "gru", "lstm")
PROBLEMS = {"word": of_word("machine"), "repeated": of_word("papaya"), "values": of_values([1, -2.5, 3, 0])}
CASES = [(cell, name) for cell, name in product((*CELLS, "elman:phi=sigmoid"), PROBLEMS)]


@cache
def explained(cell: str, name: str, units: int = 3) -> Explanation:
    return Explanation.of(network(PROBLEMS[name], cell, units, seed=5), PROBLEMS[name])
