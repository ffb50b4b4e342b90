"""An interactive page that unrolls a small network over a word: forward, backward, update, each number shown.

`page.Explanation.of(subject.network(problem), problem)` works everything out with the library's own sweep,
`page.render` makes one HTML file of it that opens offline.
"""

from throughtime.explain.page import LANGUAGES, Explanation, render, write_page
from throughtime.explain.problem import Problem, of_values, of_word
from throughtime.explain.subject import network, trained

__all__ = [
    "LANGUAGES",
    "Explanation",
    "Problem",
    "network",
    "of_values",
    "of_word",
    "render",
    "trained",
    "write_page",
]
