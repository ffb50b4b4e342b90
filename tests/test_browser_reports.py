"""The reports of runs in a real browser: no complaint, no request, and they fit every screen."""

from __future__ import annotations

from pathlib import Path

import pytest
from browser import WIDTHS, Browser, colours, marks, opened_window
from terminal import SMALL, story

from throughtime import cli

__all__ = ["opened_window"]

pytestmark = marks


@pytest.fixture(scope="module", name="reports")
def written_reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a run, and the page that compares it with another."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "story.txt").write_text(story())
    both = [folder / cell for cell in ("elman", "lstm")]
    for run in both:
        words = ["train", folder / "story.txt", *SMALL, "--updates", 40, "--cell", run.name, "--run", run]
        assert cli.main([str(word) for word in words]) == 0
        assert cli.main(["report", str(run)]) == 0
    assert cli.main(["report", *map(str, both), "--out", str(folder / "both.html")]) == 0
    return {"one": both[1] / "report.html", "both": folder / "both.html"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("which", ["one", "both"])
def test_reports_open_in_silence_and_fit(
    window: Browser, reports: dict[str, Path], which: str, width: int, scheme: str
) -> None:
    window.size(width, 800)
    window.prefer(prefers_color_scheme=scheme)
    window.open(reports[which])
    assert window.text("h1")
    assert window.run("return document.documentElement.scrollWidth") <= width
    drawn = window.run("""return [...document.querySelectorAll("figure:has(svg)")].map(
        (figure) => [...figure.querySelectorAll("svg")].filter((svg) => svg.clientWidth > 0).length)""")
    assert drawn.count(1) == len(drawn) > 0  # of the drawings of a picture, the one for this width
    ink, paper = colours(window)
    assert ink < 60 < 200 < paper if scheme == "light" else paper < 60 < 200 < ink
    assert window.complaints() == []
    assert window.requests() == [reports[which].as_uri()]
