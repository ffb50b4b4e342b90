"""The report: one page that opens offline, escapes what it shows and says so when the network loses."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.flow import ErrorByLag, error_by_lag
from throughtime.nets import Network, cross_entropy
from throughtime.report import (
    COLOURS,
    Summary,
    plot_error_by_lag,
    plot_learning,
    read_error_by_lag,
    read_learning,
    verdict,
    write_report,
)


@pytest.fixture(scope="module")
def trained() -> Summary:
    """A network that learns to repeat abcabc, trained for a second."""
    torch.manual_seed(0)
    net = Network("gru", inputs=3, units=8, outputs=3)
    credit, optimizer = BPTT(h=10, every=10), torch.optim.Adam(net.parameters(), 0.02)
    memory, records = credit.start(net), []
    ids = (torch.arange(402)[:, None] + torch.arange(4)) % 3
    for update in range(1, 41):
        start = 10 * (update - 1)
        estimate, memory = credit(net, cross_entropy, chunk_of(ids[start : start + 11]), memory)
        for name, weight in net.named_parameters():
            weight.grad = estimate.grads[name] / estimate.count
        optimizer.step()
        loss = float(estimate.loss) / estimate.count
        validation = loss + 0.01 if update % 10 == 0 else None
        records.append({"update": update, "targets": 40.0 * update, "loss": loss, "validation": validation})
    return Summary(
        title="A GRU learns abc",
        sentence="A GRU of 8 units read abcabc.",
        facts=[("cell", "gru"), ("units", 8)],
        records=records,
        baseline=("a 2-gram model", 1.5),
        samples=[("before", "bbac"), ("after", "\nabcabc")],
        lag=error_by_lag(net.eval(), cross_entropy, chunk_of(ids[:31]), 20),
        h=10,
        reproduce="throughtime demo",
    )


def chunk_of(ids: torch.Tensor) -> Chunk:
    return Chunk(ids[:-1], ids[1:])


class Page(HTMLParser):
    """What a browser would fetch, run and show."""

    def __init__(self, text: str):
        super().__init__()
        self.text, self.tags, self.links, self.ids, self.labels, self.shown = text, [], [], [], [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
                self.links.append(value)
            if name == "id":
                self.ids.append(value)
            if name == "aria-label":
                self.labels.append(value)

    def handle_data(self, data):
        self.shown.append(data)


def page(folder: Path, summary: Summary) -> Page:
    return Page(write_report(folder, summary).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(trained: Summary, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("run")
    found = page(folder, trained)
    assert list(folder.iterdir()) == [folder / "report.html"]
    return found


def test_tells_everything(whole: Page, trained: Summary):
    shown = "".join(whole.shown)
    for text in (trained.title, trained.sentence, verdict(trained), "abcabc", "throughtime demo", "units"):
        assert text in shown
    for text in ("characters read in training", "loss (nats per character)", "lag k (steps back)"):
        assert text in shown
    assert "cut at h = 10" in shown
    assert whole.tags.count("svg") == 4  # two pictures, each for wide and narrow screens
    assert whole.labels == [text for text in readings_of(trained) for _ in range(2)]


def readings_of(summary: Summary) -> list[str]:
    assert summary.lag is not None
    return [read_learning(summary), read_error_by_lag(summary.lag, summary.h)]


def test_opens_offline_and_is_small(whole: Page):
    assert len(whole.text.encode()) < 400_000
    assert all(link.startswith("#") for link in whole.links)
    assert not {"script", "link", "img", "iframe", "object", "embed", "image"} & set(whole.tags)
    addresses = set(re.findall(r"\w+://[^\"' )<]+", whole.text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)", whole.text)
    assert "default-src 'none'" in whole.text


def test_pictures_share_no_names(whole: Page):
    assert len(whole.ids) == len(set(whole.ids))
    used = {link[1:] for link in whole.links} | set(re.findall(r"url\(#([^)]+)\)", whole.text))
    assert used
    assert used <= set(whole.ids)


def test_colours_follow_the_style_sheet(whole: Page):
    svgs = "".join(re.findall(r"<svg .*?</svg>", whole.text, re.DOTALL))
    for name, colour in COLOURS.items():
        assert whole.text.count(f"--{name}: ") == 3  # light, dark, print
        assert colour not in svgs
    assert "prefers-color-scheme: dark" in whole.text
    assert "@media print" in whole.text


def test_the_same_summary_gives_the_same_page(whole: Page, trained: Summary, tmp_path: Path):
    assert page(tmp_path, trained).text == whole.text


def test_long_trainings_give_small_pages(tmp_path: Path, trained: Summary):
    generator = np.random.default_rng(0)
    records = [
        {"update": i, "loss": float(loss), "validation": float(loss)}
        for i, loss in enumerate(generator.uniform(1, 4, 50_000))
    ]
    path = write_report(tmp_path, replace(trained, records=records))
    assert path.stat().st_size < 400_000


HOSTILE = '<script>alert("1")</script> & $x_{$ "\' </pre> {{ 7 }} id="x" é ☃'


def test_texts_are_escaped(tmp_path: Path, trained: Summary):
    pairs = [(HOSTILE, HOSTILE)]
    texts = {"title": HOSTILE, "sentence": HOSTILE, "reproduce": HOSTILE, "facts": pairs, "samples": pairs}
    summary = replace(trained, **texts, baseline=(HOSTILE, 1.0), unit='<b>"$x', lag=None)
    found = page(tmp_path, summary)
    assert found.labels == [read_learning(summary)] * 2
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert "<script" not in found.text
    assert "".join(found.shown).count(HOSTILE) == 2 + 1 + 2 + 2 + 1 + 1  # title twice, verdict


@pytest.mark.parametrize("fields", [("records",), ("lag",), ("baseline", "h")])
def test_every_part_may_be_missing(tmp_path: Path, trained: Summary, fields: tuple[str, ...]):
    nothing = Summary(title="", sentence="")
    shown = "".join(
        page(tmp_path, replace(trained, **{name: getattr(nothing, name) for name in fields})).shown
    )
    assert trained.title in shown
    assert "None" not in shown


def test_nothing_but_a_title(tmp_path: Path):
    found = page(tmp_path, Summary(title="Empty", sentence="Nothing was trained."))
    assert "svg" not in found.tags
    assert "No loss was recorded" in "".join(found.shown)


def told(
    *validation: float | None, baseline: tuple[str, float] | None = ("a 5-gram model", 1.669)
) -> Summary:
    records = [{"update": i, "loss": 2.0 - i / 10, "validation": v} for i, v in enumerate(validation)]
    return Summary(title="", sentence="", records=records, baseline=baseline)


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (told(4.0, None, 1.5), "beats the baseline: 1.500 nats (2.16 bits) per character on text held out "
         "from training, 0.169 nats below the 1.669 of a 5-gram model."),
        (told(4.0, 2.0), "loses to the baseline: 2.000 nats (2.89 bits) per character on text held out "
         "from training, 0.331 nats above the 1.669 of a 5-gram model."),
        (told(4.0, 1.6691), "the baseline (a 5-gram model) are level: 1.669 nats"),
        (told(4.0, 1.5, 3.0), "beats the baseline: 1.500 nats"),  # a run keeps the best weights
        (told(4.0, baseline=None), "no baseline was measured"),
        (told(None, None), "On the training text it reaches 1.900 nats"),
        (told(float("nan")), "The training failed"),
        (told(), "No loss was recorded"),
    ],
)  # fmt: skip
def test_the_verdict_is_honest(summary: Summary, sentence: str):
    assert sentence in verdict(summary)


def test_the_readings_of_the_learning_curve():
    assert read_learning(told(4.0, 1.5)) == (
        "The validation loss goes from 4.000 to 1.500 nats per character; below the dashed line it is better "
        "than the baseline."
    )
    assert "after 1.200 at its lowest, where the weights are kept" in read_learning(told(4.0, 1.2, 1.5))
    assert read_learning(told(None, None, baseline=None)) == (
        "The training loss goes from 2.000 to 1.900 nats per character."
    )


def lag_of(slope: float, lags: int = 50) -> ErrorByLag:
    mean = slope * np.arange(lags + 1)
    return ErrorByLag(np.arange(lags + 1), mean, mean - 1, mean + 1, np.full(lags + 1, 9), 10**mean)


@pytest.mark.parametrize(
    ("lag", "h", "sentence"),
    [
        (lag_of(-0.1), None, "Over 50 steps back the typical gradient of the error shrinks by a factor "
         "of 100,000; half of it is gone at lag 4."),
        (lag_of(-0.2), None, "shrinks by a factor of 10¹⁰; half of it is gone at lag 2."),
        (lag_of(0.01), None, "grows by a factor of 3.2."),
        (lag_of(-0.1), 10, "Training cut the error off at h = 10. Before it lies 90 % of the norm"),
        (lag_of(-0.1), 70, "Training cut the error off after h = 70 steps, beyond this picture."),
        (lag_of(float("nan")), 3, "Restarts left nothing to measure."),
    ],
)  # fmt: skip
def test_the_readings_of_the_error_by_lag(lag: ErrorByLag, h: int | None, sentence: str):
    assert sentence in read_error_by_lag(lag, h)


def test_pictures_draw_on_given_axes_or_their_own(trained: Summary):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert plot_learning(trained.records, trained.baseline, ax) is ax
    assert [line.get_label() for line in ax.lines] == ["training", "validation", "a 2-gram model: 1.500"]
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), [record["loss"] for record in trained.records])
    np.testing.assert_array_equal(ax.lines[1].get_xdata(), [400, 800, 1200, 1600])
    ax = plot_error_by_lag([("GRU", trained.lag), ("steep", lag_of(-0.1))], h=10)
    assert [line.get_label() for line in ax.lines[:2]] == ["GRU", "steep"]
    assert ax.lines[2].get_xdata()[0] == 10
    assert len(plot_error_by_lag(lag_of(-0.1), h=70).lines) == 1
    assert plot_learning([]).get_xlabel() == "updates"


def test_loads_no_pyplot_and_matplotlib_only_to_draw(tmp_path: Path):
    code = (
        "import sys, throughtime.report as report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "summary = report.Summary(title='', sentence='', records=[{'update': 1, 'loss': 2.0}])\n"
        "report.write_report(sys.argv[1], summary)\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)


def test_the_folder_must_be_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "missing", Summary(title="", sentence=""))
