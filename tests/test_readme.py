"""README.md and LEIAME.md, its Portuguese twin: the same code, figures, links and pictures, section by section."""

from __future__ import annotations

import re
from collections import Counter
from itertools import zip_longest
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ("README.md", "LEIAME.md")
FENCE = r"^```(\w*)\n(.*?)^```$"


def sections(name: str) -> list[str]:
    """The parts of a page, cut at its headings, without the line that leads to the other language."""
    text = (ROOT / name).read_text(encoding="utf-8")
    text = re.sub(r"^.*\[[^]]+\]\((?:README|LEIAME)\.md\).*\n", "", text, flags=re.MULTILINE)
    return re.split(r"^## .*$", text, flags=re.MULTILINE)


def plain(section: str) -> str:
    """A section without its code blocks."""
    return re.sub(FENCE, "", section, flags=re.MULTILINE | re.DOTALL)


def code(section: str) -> list[tuple[str, str]]:
    """The code blocks, without what their comments say; that there is a comment is kept."""
    found = re.findall(FENCE, section, re.MULTILINE | re.DOTALL)
    return [(kind, re.sub(r"(^|\s+)#.*$", r" #", block, flags=re.MULTILINE)) for kind, block in found]


def spans(section: str) -> Counter[str]:
    """What stands in backticks."""
    return Counter(re.findall(r"`([^`\n]+)`", plain(section)))


def figures(section: str) -> Counter[str]:
    """All numbers in prose and comments, a decimal comma being a point, and so whatever sets thousands apart."""
    prose = re.sub(r"`[^`\n]+`", "", plain(section))
    comments = re.findall(r"#.*$", "\n".join(block for _, block in re.findall(FENCE, section, re.M | re.S)), re.M)
    found = re.findall(r"\d+(?:[.,]\d+)*(?:e-?\d+)?", "\n".join([prose, *comments]))
    return Counter(number.replace(",", ".") for number in found)


def links(section: str) -> list[str]:
    """Where links and pictures lead to, in order."""
    return re.findall(r"\]\(([^)]+)\)", section)


def rows(section: str) -> list[int]:
    """The cells of each line of each table."""
    return [line.count("|") for line in section.splitlines() if line.startswith("|")]


PAIRS = list(zip_longest(*map(sections, NAMES), fillvalue=""))


@pytest.mark.parametrize("what", [code, spans, figures, links, rows], ids=lambda what: what.__name__)
@pytest.mark.parametrize("place", range(len(PAIRS)))
def test_both_say_the_same(place: int, what) -> None:
    english, portuguese = PAIRS[place]
    assert what(portuguese) == what(english)


def test_each_leads_to_the_other() -> None:
    for name, other in (NAMES, NAMES[::-1]):
        assert f"]({other})" in (ROOT / name).read_text(encoding="utf-8")[:800]


@pytest.mark.parametrize("name", NAMES)
def test_what_they_lead_to_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    found = [target.partition("#")[0] for target in links(text) if "://" not in target]
    assert len(found) >= 6
    for target in found:
        assert (ROOT / target).is_file(), target


def test_the_comparison_sees_what_drifts() -> None:
    """A number, a command, a link or a row that is in one page alone is found."""
    english = PAIRS[0][0]
    for what, old, new in (
        (figures, "9,900", "9,800"),
        (figures, "1.5 GB", "15 GB"),
        (code, "python3 run.py test", "python3 run.py tests"),
        (code, "h=70", "h=71"),
        (spans, "`pip install .`", "`pip install -e .`"),
        (links, "docs/error-by-lag.svg", "docs/other.svg"),
    ):
        assert old in english
        assert what(english.replace(old, new)) != what(english)
