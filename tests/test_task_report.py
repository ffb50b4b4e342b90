"""The page of a forecast or a classification: its answers first, honest beside the baselines, safe with any names."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from browser import WIDTHS, Browser, colours, marks, opened_window

from throughtime.pictures import ConfusionMatrix, ErrorByHorizon, ForecastFan
from throughtime.pictures.page import Card
from throughtime.task_report import NOTHING, Table, TaskSummary, how_well, verdict, what_memory_adds, write_task_report

__all__ = ["opened_window"]

HOSTILE = '<script>alert("1")</script> & $x_{$ "\' </pre> {{ 7 }} id="x" é ☃'
LONG = "wordwithoutend" * 30
NAMES = [HOSTILE, LONG, "שלום עולם", "😀👨‍👩‍👧", "", "x\ny\x00", "\u202eturned", "\ud800 half"]


def fan(name: str) -> ForecastFan:
    band = {90: ([11, 12, 13], [13, 16, 19])}
    return ForecastFan(
        time=range(5), history=range(5), ahead=[5, 6, 7], median=[5, 6, 7], bands=band, happened=[5, 7, 8], name=name
    )


def forecast() -> TaskSummary:
    others = {"seasonal naive": 0.95, "linear autoregression": 0.83}
    return TaskSummary(
        title="Forecast of rain.csv",
        sentence="A GRU of 32 units learned from 5 series.",
        cards=[
            how_well("MASE", 0.71, others=others, lower_is_better=True),
            what_memory_adds("MASE", 0.71, without=0.9, lower_is_better=True, window=12, weights=(5000, 5010)),
        ],
        advice=["Forecast new rows with: throughtime predict runs/rain new.csv"],
        tables=[
            Table(
                heading="Beside the baselines",
                columns=["", "MASE", "CRPS"],
                rows=[["network", 0.71, 1234.5], ["seasonal naive", 0.95, None], ["naive", math.nan, 2.0]],
            )
        ],
        pictures=[
            *(fan(f"series {place}") for place in range(5)),
            ErrorByHorizon({"network": [1, 2], "naive": [2, 1]}),
        ],
        notes=["2 missing values are not counted as errors."],
        records=[{"update": n, "loss": 1 / n, "validation": 2 / n} for n in range(1, 5)],
        unit="value",
        measure="pinball loss",
        missing=["The algorithms were not compared."],
        reproduce="throughtime forecast rain.csv --horizon 3",
        config={"cell": "gru", "units": 32},
    )


def classification() -> TaskSummary:
    """With the names that a hostile file may hold."""
    truth, predicted = [NAMES[i % 8] for i in range(40)], [NAMES[i * i % 8] for i in range(40)]
    rows = [[name, 0.5, 10, name] for name in NAMES]
    return TaskSummary(
        title=HOSTILE,
        sentence=LONG,
        cards=[how_well("accuracy", 0.5, others=dict.fromkeys(NAMES, 0.4), lower_is_better=False, count=40)],
        advice=[HOSTILE],
        tables=[Table(heading=HOSTILE, columns=[*NAMES[:2], "examples", "taken for"], rows=rows)],
        pictures=[ConfusionMatrix(truth, predicted, NAMES), fan(HOSTILE)],
        notes=[HOSTILE, LONG],
        records={HOSTILE: [{"update": 1, "loss": 1.0}], "b": [{"update": 1, "loss": 1.0}]},
        unit="<b>",
        missing=[HOSTILE],
        reproduce=f"throughtime classify {HOSTILE}",
        config={HOSTILE: LONG},
    )


class Page(HTMLParser):
    """What a browser would fetch, run and show."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.tags, self.links, self.ids, self.words = text, [], [], [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "data", "action")]
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.words += data


def page(folder: Path, summary: TaskSummary) -> Page:
    path = write_task_report(folder, summary)
    assert list(folder.iterdir()) == [folder / "report.html"] == [path]
    return Page(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module", name="pages")
def written_pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        name: write_task_report(tmp_path_factory.mktemp(name), summary)
        for name, summary in {"forecast": forecast(), "classification": classification()}.items()
    }


@pytest.fixture(scope="module", name="read")
def read_pages(pages: dict[str, Path]) -> dict[str, Page]:
    return {name: Page(path.read_text(encoding="utf-8")) for name, path in pages.items()}


# The page


def test_the_first_screen_answers_how_well_what_memory_adds_and_what_next(read: dict[str, Page]):
    found = read["forecast"]
    head = Page(found.text[: found.text.index("</header>")]).words
    answers = [
        *("Forecast of rain.csv", "A GRU of 32 units learned from 5 series.", "How well", "0.71", "MASE"),
        "The network beats linear autoregression (MASE 0.71 against 0.83) and seasonal naive (0.95).",
        *("What memory adds", "21 %", "less MASE", "With memory it reaches MASE 0.71"),
        *("What to do next", "Forecast new rows with: throughtime predict runs/rain new.csv"),
    ]
    places = [head.index(answer) for answer in answers]
    assert places == sorted(places)
    rest = [
        *("Beside the baselines", "Forecast of series 0", "The error by horizon", "What it learned"),
        *("What cannot be shown", "What was done to the data", "2 missing values", "How it was trained", "Do it again"),
    ]
    places = [found.words.index(text) for text in rest]
    assert places == sorted(places)
    assert "pinball loss per value" in found.words
    assert "nats" not in found.words


def test_of_many_series_the_first_are_drawn_and_it_is_said(read: dict[str, Page], tmp_path: Path):
    found = read["forecast"]
    assert found.tags.count("svg") == 2 * (3 + 1 + 1)
    assert [f"Forecast of series {place}" in found.words for place in range(5)] == [True] * 3 + [False] * 2
    assert found.words.count("Drawn are the first 3 of 5 series.") == 1
    order = [found.words.index(text) for text in ("Forecast of series 2", "Drawn are", "The error by horizon")]
    assert order == sorted(order)
    few = page(tmp_path, replace(forecast(), pictures=[fan("one")], records=()))
    assert "Drawn are" not in few.words


@pytest.mark.parametrize("name", ["forecast", "classification"])
def test_opens_offline_and_runs_nothing(read: dict[str, Page], name: str):
    found = read[name]
    assert len(found.text) < 400_000
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert not {"script", "link", "img", "iframe", "object", "embed", "b"} & set(found.tags)
    assert not re.search(r"<script|@import|url\((?!#)", found.text)
    assert set(re.findall(r"\w+://[^\"' )<]+", found.text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    assert len(found.ids) == len(set(found.ids))  # of series that look the same too
    used = {link[1:] for link in found.links if link[0] == "#"} | set(re.findall(r"url\(#([^)]+)\)", found.text))
    assert used
    assert used <= set(found.ids)
    assert "default-src 'none'" in found.text


def test_texts_are_escaped(read: dict[str, Page]):
    found = read["classification"]
    assert found.words.count(HOSTILE) == 2 + 1 + 1 + 1 + 2 + 1 + 1 + 1 + 1 + 1
    # title twice, advice, heading, column, cells, note, missing, configuration, command, learning curves
    assert "\u202eturned" not in found.text
    assert "%" not in found.ids


def test_nothing_but_a_title(tmp_path: Path):
    found = page(tmp_path, TaskSummary(title="Empty", sentence="Nothing was trained."))
    assert "svg" not in found.tags
    assert "table" not in found.tags
    assert "None" not in found.words
    assert NOTHING in found.words


def test_cells_are_texts_or_numbers_in_a_row(tmp_path: Path):
    rows = [
        ["a", 0.5, 1234567, None, True, 1e-7],
        ["", 0.25, np.int64(-3), math.nan, np.bool_(False), 5.0],
        [3, math.inf, "–", "", "x" * 300, np.float32(0.5)],
    ]
    table = Table(heading="Cells", columns=["name", "p", "n", "none", "text", "wide"], rows=rows)
    found = page(tmp_path, TaskSummary(title="", sentence="", tables=[table]))
    cells = re.findall(r'<t[hd] (?:scope="row" )?dir="auto"( class="number")?>([^<]*)</t[hd]>', found.text)
    texts, right = [text for _, text in cells], [bool(number) for number, _ in cells]
    assert texts[:6] == ["a", "0.500", "1,234,567", "–", "True", "1·10⁻⁷"]
    assert texts[6:12] == ["", "0.250", "−3", "–", "False", "5"]
    assert texts[12:] == ["3", "∞", "–", "", "x" * 199 + "…", "0.5"]
    assert right[:6] == [False, True, True, True, False, True]
    assert 'class="number">p</th>' in found.text


@pytest.mark.parametrize(("rows", "after", "folded"), [(12, False, False), (13, True, False), (41, True, True)])
def test_long_tables_come_after_the_pictures(tmp_path: Path, rows: int, after: bool, folded: bool):
    table = Table(heading="The long one", columns=["a"], rows=[["x"]] * rows)
    found = page(tmp_path, replace(forecast(), tables=[table], pictures=(), records=()))
    assert (found.words.index("The long one") > found.words.index("What cannot be shown")) == after
    assert (f"{rows} rows" in found.words) == folded


def test_a_row_has_a_cell_a_column():
    with pytest.raises(ValueError, match=r"rows must have a cell a column, 2; got 1 in \['x'\]"):
        Table(heading="", columns=["a", "b"], rows=[["x"]])


def test_the_same_summary_gives_the_same_page(tmp_path: Path):
    summary = replace(classification(), pictures=[fan(HOSTILE)], records=())
    assert page(tmp_path, summary).text == page(tmp_path, summary).text


def test_a_page_that_fails_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "report.html").write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_task_report(tmp_path, TaskSummary(title="", sentence=""))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "before"


# Judging


def judged(network: float, others: dict[str, float] | None = None, *, lower: bool = True, **options) -> str:
    others = {"a": 0.83, "b": 0.95} if others is None else others
    return verdict("MASE", network, others=others, lower_is_better=lower, **options)


NAN = float("nan")


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        (judged(0.71), "The network beats a (MASE 0.71 against 0.83) and b (0.95)."),
        (judged(0.71, lower=False), "The network loses to b (MASE 0.71 against 0.95) and a (0.83)."),
        (judged(1.2), "The network loses to a (MASE 1.2 against 0.83) and b (0.95)."),
        (judged(0.9), "The network loses to a (MASE 0.9 against 0.83), and beats b (0.95)."),
        (judged(0.9, lower=False), "The network loses to b (MASE 0.9 against 0.95), and beats a (0.83)."),
        (judged(0.8301), "The network is level with a (MASE 0.8301 against 0.83), and beats b (0.95)."),
        (judged(0.83), "The network is level with a (MASE 0.83 against 0.83), and beats b (0.95)."),
        (judged(0.9, {"a": 0.8, "b": 0.9, "c": 1, "d": 2}),
         "The network loses to a (MASE 0.9 against 0.8), is level with b (0.9), and beats c (1) and d (2)."),
        (judged(1.0051, {"a": 1.0149}), "The network beats a (MASE 1.005 against 1.015)."),
        (judged(0.0, {"a": 0.0}), "The network is level with a (MASE 0 against 0)."),
        (judged(-2.0, {"a": -1.0}), "The network beats a (MASE −2 against −1)."),
        (judged(0.7, {"a": math.inf}), "The network beats a (MASE 0.7 against ∞)."),
        (judged(0.7, {}), "The network reaches MASE 0.7; no baseline was measured beside it."),
        (judged(0.7, {"a": NAN}), "The network reaches MASE 0.7; no baseline was measured beside it. No MASE was "
         "measured of a."),
        (judged(0.7, {"a": 1.0, "b": NAN}), "The network beats a (MASE 0.7 against 1). No MASE was measured of b."),
        (judged(NAN), "The network has no finite MASE, beside a (0.83) and b (0.95)."),
        (judged(math.inf, {}), "The network has no finite MASE."),
        (judged(0.7, {"a": 1.0}, name="the GRU"), "The GRU beats a (MASE 0.7 against 1)."),
    ],
)  # fmt: skip
def test_the_verdict_is_honest(sentence: str, wanted: str):
    assert sentence == wanted


@pytest.mark.parametrize(
    ("share", "other", "count", "wanted"),
    [
        (0.95, 0.90, 20, "is level with a (accuracy 95.0 % against 90.0 %). On 20 examples its 95 % interval is 76.4 "
         "to 99.1 %; a difference within it may be chance."),
        (0.95, 0.90, 2000, "beats a (accuracy 95.0 % against 90.0 %). On 2,000 examples its 95 % interval is 94.0 to "
         "95.9 %."),
        (0.80, 0.90, 2000, "loses to a (accuracy 80.0 % against 90.0 %). On 2,000 examples"),
        (0.95, 0.951, 20000, "is level with a (accuracy 95.0 % against 95.1 %)"),
        (1.0, 1.0, 1, "is level with a (accuracy 100.0 % against 100.0 %). On 1 example its 95 % interval is 20.7 to "
         "100.0 %."),
        (0.95, 0.947, 1_000_000, "beats a (accuracy 95.0 % against 94.7 %)"),
    ],
)  # fmt: skip
def test_of_few_examples_a_difference_may_be_chance(share: float, other: float, count: int, wanted: str):
    assert wanted in verdict("accuracy", share, others={"a": other}, lower_is_better=False, count=count)


def test_a_share_lies_between_0_and_1():
    with pytest.raises(ValueError, match="network must be a share of the 20 examples, between 0 and 1; got 95"):
        how_well("accuracy", 95, others={}, lower_is_better=False, count=20)


def test_how_well_is_a_card():
    card = how_well("accuracy", 0.95, others={"a": 0.5}, lower_is_better=False, count=100)
    assert (card.heading, card.figure, card.unit) == ("How well", "95.0 %", "accuracy")
    assert card.text == verdict("accuracy", 0.95, others={"a": 0.5}, lower_is_better=False, count=100)


def memory(network: float, without: float | None, *, lower: bool = True, **options) -> Card:
    return what_memory_adds("MASE", network, without=without, lower_is_better=lower, **options)


@pytest.mark.parametrize(
    ("card", "figure", "unit", "text"),
    [
        (memory(0.6, 0.8), "25 %", "less MASE", "With memory it reaches MASE 0.6; the network without has 0.8 on the "
         "same data."),
        (memory(0.6, 0.8, window=1, weights=(1000, 1099)), "25 %", "less MASE", "the network without, which sees 1 "
         "step, has 0.8 on the same data. They have 1,000 and 1,099 weights."),
        (memory(0.6, 0.8, weights=(1000, 2000)), "25 %", "less MASE", "1,000 and 2,000 weights, so they are not of one "
         "size."),
        (memory(0.8, 0.6), "33 %", "more MASE", "Memory does harm here."),
        (memory(0.8, 0.6, lower=False), "33 %", "more MASE", "has 0.6 on the same data."),
        (memory(0.8, 0.801), "nothing", "that can be told", "reaches MASE 0.8; the network without has 0.801"),
        (memory(1.0, 0.0), "1", "more MASE", "Memory does harm here."),
        (memory(0.9, 0.8, lower=False, count=1000), "10.0 points", "more MASE", "has 80.0 % on the same data."),
        (memory(0.9, 0.8, lower=False, count=10), "nothing", "that can be told", "Within the 95 % interval of 10 "
         "examples this may be chance."),
        (memory(0.9, None), "", "", "The network without memory was not measured."),
        (memory(0.9, NAN), "", "", "The network without memory was not measured."),
        (memory(NAN, 0.9), "", "", "With memory it reaches MASE –; the network without has 0.9"),
    ],
)  # fmt: skip
def test_what_memory_adds_stands_beside_the_network_without(card: Card, figure: str, unit: str, text: str):
    assert (card.figure, card.unit) == (figure, unit)
    assert text in card.text
    assert ("harm" in text) == ("harm" in card.text)


# In a browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [pytest.param(width, marks=marks) for width in WIDTHS])
@pytest.mark.parametrize("name", ["forecast", "classification"])
def test_pages_open_in_silence_and_fit(
    window: Browser, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    window.size(width, 800)
    window.prefer(prefers_color_scheme=scheme)
    window.open(pages[name])
    assert window.run("return document.documentElement.scrollWidth") <= width
    drawn = window.run("""return [...document.querySelectorAll("figure:has(svg)")].map(
        (figure) => [...figure.querySelectorAll("svg")].filter((svg) => svg.clientWidth > 0).length)""")
    assert drawn.count(1) == len(drawn) > 0  # of the drawings of a picture, the one for this width
    wide = window.run("""return [...document.querySelectorAll("td.number")].every(
        (cell) => cell.scrollWidth <= cell.clientWidth + 1)""")
    assert wide
    if name == "forecast":
        assert window.run("return document.querySelector('header').getBoundingClientRect().bottom") <= 800
    ink, paper = colours(window)
    assert ink < 60 < 200 < paper if scheme == "light" else paper < 60 < 200 < ink
    assert window.complaints() == []
    assert window.requests() == [pages[name].as_uri()]
