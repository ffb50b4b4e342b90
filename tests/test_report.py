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
from throughtime.flow import measure
from throughtime.nets import Network, cross_entropy
from throughtime.pictures import Eigenvalues, LearningCurves, gallery
from throughtime.pictures.style import DARK, LIGHT
from throughtime.report import Summary, differences, next_steps, verdict, write_comparison, write_report


def learned(cell: str, seed: int = 0) -> Summary:
    """A network that learns to repeat abcabc, trained for a second."""
    torch.manual_seed(seed)
    net = Network(cell, inputs=3, units=8, outputs=3)
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
        targets, seconds = 40.0 * update, update / 8
        records.append(
            {"update": update, "targets": targets, "seconds": seconds, "loss": loss, "validation": validation}
        )
    chunk = chunk_of(ids[:41])
    flow = measure(net, cross_entropy, chunk, h=10)
    tokens = ["abc"[id] for id in chunk.x[:, 0]]
    return Summary(
        title=f"A network of {cell} learns abc",
        sentence=f"A {cell} of 8 units read abcabc.",
        facts=[("cell", cell), ("units", 8)],
        config={"network.cell": cell, "network.units": 8, "text.sha256_of_ids": "abc", "text.split": "none"},
        records=records,
        baseline=("a 2-gram model", 1.5),
        samples=[("before", "bbac"), ("after", "\nabcabc")],
        flow=flow,
        pictures=list(gallery(net, cross_entropy, chunk, flow, tokens)),
        advice=["Write with it: throughtime sample runs/abc"],
        longer="throughtime train --resume runs/abc --epochs 2",
        weights=sum(weight.numel() for weight in net.parameters()),
        reproduce=f"throughtime train abc.txt --cell {cell}",
    )


def chunk_of(ids: torch.Tensor) -> Chunk:
    return Chunk(ids[:-1], ids[1:])


@pytest.fixture(scope="module")
def trained() -> Summary:
    return learned("gru")


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

    @property
    def words(self) -> str:
        return "".join(self.shown)


def page(folder: Path, summary: Summary) -> Page:
    return Page(write_report(folder, summary).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def whole(trained: Summary, tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("run")
    found = page(folder, trained)
    assert list(folder.iterdir()) == [folder / "report.html"]
    return found


@pytest.fixture(scope="module")
def both(trained: Summary, tmp_path_factory: pytest.TempPathFactory) -> Page:
    """Two runs beside each other."""
    path = tmp_path_factory.mktemp("runs") / "comparison.html"
    runs = {"gated": trained, "plain": replace(learned("elman"), longer="", pictures=())}
    return Page(write_comparison(path, runs).read_text(encoding="utf-8"))


# One run


def test_the_first_screen_has_the_answers_in_their_order(whole: Page, trained: Summary):
    head = whole.text[: whole.text.index("</header>")]
    shown = Page(head).words
    memory = trained.flow.whole.memory
    assert memory is not None
    answers = [
        trained.title,
        trained.sentence,
        "How well",
        f"{min(record['validation'] or 9 for record in trained.records):.3f}",
        verdict(trained),
        "How far back",
        f"{memory:.3g}",
        trained.flow.verdict[1:],
        "What to do next",
        *next_steps(trained),
    ]
    places = [shown.index(answer) for answer in answers]
    assert places == sorted(places)
    assert "svg" not in Page(head).tags


def test_then_come_pictures_then_how_it_was_made(whole: Page, trained: Summary):
    curves = LearningCurves(trained.records, trained.baseline, trained.unit)
    pictures = [curves, *trained.pictures]
    assert whole.labels == [picture.reading for picture in pictures for _ in range(2)]
    assert whole.tags.count("svg") == 2 * len(pictures)  # for wide and for narrow screens
    places = [whole.words.rindex(picture.heading) for picture in pictures]
    places += [
        whole.words.index(text) for text in ("abcabc\n", "How it was trained", "network.units", trained.reproduce)
    ]
    assert places == sorted(places)
    for text in ("characters read in training", "loss (nats per character)", "lag k (steps back)", "cut at h = 10"):
        assert text in whole.words


@pytest.mark.parametrize("name", ["whole", "both"])
def test_opens_offline_and_is_small(name: str, request: pytest.FixtureRequest):
    found = request.getfixturevalue(name)
    assert len(found.text.encode()) < 1_000_000
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in found.links)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(found.tags)
    addresses = set(re.findall(r"\w+://[^\"' )<]+", found.text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}
    assert not re.search(r"@import|url\((?!#)", found.text)
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in found.text


@pytest.mark.parametrize("name", ["whole", "both"])
def test_pictures_share_no_names(name: str, request: pytest.FixtureRequest):
    found = request.getfixturevalue(name)
    assert len(found.ids) == len(set(found.ids))
    used = {link[1:] for link in found.links if link[0] == "#"} | set(re.findall(r"url\(#([^)]+)\)", found.text))
    assert used
    assert used <= set(found.ids)


def test_colours_follow_the_style_sheet(whole: Page):
    svgs = "".join(re.findall(r"<svg .*?</svg>", whole.text, re.DOTALL))
    for name, colour in LIGHT.items():
        assert whole.text.count(f"--{name}: {colour};") == 2  # light, print
        assert whole.text.count(f"--{name}: {DARK[name]};") == 1
        assert colour not in svgs
    assert "prefers-color-scheme: dark" in whole.text
    assert "@media print" in whole.text


def test_the_same_summary_gives_the_same_page(whole: Page, trained: Summary, tmp_path: Path):
    assert page(tmp_path, trained).text == whole.text


def test_large_networks_and_long_trainings_give_small_pages(tmp_path: Path):
    generator = np.random.default_rng(0)
    records = [
        {"update": i, "loss": float(loss), "validation": float(loss)}
        for i, loss in enumerate(generator.uniform(1, 4, 50_000))
    ]
    values = generator.normal(size=(8, 1024)) + 1j * generator.normal(size=(8, 1024))
    eigenvalues = Eigenvalues({f"W_h of layer {layer}": row for layer, row in enumerate(values)})
    path = write_report(tmp_path, Summary(title="", sentence="", records=records, pictures=[eigenvalues]))
    assert path.stat().st_size < 600_000  # the other pictures do not grow with either


HOSTILE = '<script>alert("1")</script> & $x_{$ "\' </pre> {{ 7 }} id="x" é ☃'


def test_texts_are_escaped(tmp_path: Path, trained: Summary):
    pairs = [(HOSTILE, HOSTILE)]
    texts = {"title": HOSTILE, "sentence": HOSTILE, "reproduce": HOSTILE, "facts": pairs, "samples": pairs}
    more = {"config": {HOSTILE: HOSTILE}, "missing": [HOSTILE], "advice": [HOSTILE], "longer": HOSTILE}
    summary = replace(trained, **texts, **more, baseline=(HOSTILE, 0.001), unit='<b>"$x', pictures=(), flow=None)
    found = page(tmp_path, summary)
    assert found.labels == [LearningCurves(summary.records, summary.baseline, summary.unit).reading] * 2
    assert "script" not in found.tags
    assert "b" not in found.tags
    assert "<script" not in found.text
    head = 2 + 1 + 1 + 1 + 2  # title twice, sentence, verdict, how far back, two steps
    assert found.words.count(HOSTILE) == head + 1 + 2 + 2 + 2 + 1  # missing, samples, facts, config, command
    runs = {HOSTILE: summary, "b": replace(summary, config={})}
    assert "script" not in Page(write_comparison(tmp_path / "two.html", runs).read_text(encoding="utf-8")).tags


@pytest.mark.parametrize(
    "fields",
    [
        ("records",),
        ("flow",),
        ("pictures", "samples"),
        ("baseline", "advice", "longer"),
        ("facts", "config", "reproduce"),
    ],
)
def test_every_part_may_be_missing(tmp_path: Path, trained: Summary, fields: tuple[str, ...]):
    nothing = Summary(title="", sentence="")
    light = {"pictures": ()} | {name: getattr(nothing, name) for name in fields}
    shown = page(tmp_path, replace(trained, **light)).words
    assert trained.title in shown
    assert "None" not in shown
    runs = {"a": trained, "b": replace(trained, **light)}
    assert "None" not in Page(write_comparison(tmp_path / "two.html", runs).read_text(encoding="utf-8")).words


def test_nothing_but_a_title(tmp_path: Path):
    found = page(tmp_path, Summary(title="Empty", sentence="Nothing was trained.", missing=["The text is gone."]))
    assert "svg" not in found.tags
    assert "No loss was recorded" in found.words
    assert found.words.count("The text is gone.") == 2  # in the place of the memory, and in the list
    assert "Nothing that was measured calls for a change." in found.words


def test_a_page_that_fails_leaves_the_one_before(tmp_path: Path, trained: Summary, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "report.html").write_text("before")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space"):
        write_report(tmp_path, replace(trained, pictures=()))
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    assert (tmp_path / "report.html").read_text() == "before"


def test_the_folder_must_be_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        write_report(tmp_path / "missing", Summary(title="", sentence=""))


def test_loads_matplotlib_only_to_draw():
    code = "import sys, throughtime.report\nassert 'matplotlib' not in sys.modules\n"
    subprocess.run([sys.executable, "-c", code], check=True)


# What it says


def told(
    *validation: float | None, baseline: tuple[str, float] | None = ("a 5-gram model", 1.669), loss: float | None = None
) -> Summary:
    records = [{"update": i, "loss": 2.0 - i / 10, "validation": v} for i, v in enumerate(validation)]
    return Summary(title="", sentence="", records=records, baseline=baseline, loss=loss)


@pytest.mark.parametrize(
    ("summary", "sentence"),
    [
        (told(4.0, None, 1.5), "beats the baseline: 1.500 nats (2.16 bits) per character on text held out "
         "from training, 0.169 nats below the 1.669 of a 5-gram model."),
        (told(4.0, 2.0), "loses to the baseline: 2.000 nats (2.89 bits) per character on text held out "
         "from training, 0.331 nats above the 1.669 of a 5-gram model."),
        (told(4.0, 1.6691), "the baseline (a 5-gram model) are level: 1.669 nats"),
        (told(4.0, 1.5, 3.0), "beats the baseline: 1.500 nats"),  # a run keeps the best weights
        (told(4.0, 1.5, loss=2.0), "loses to the baseline: 2.000 nats"),  # what was measured counts
        (told(loss=1.5), "beats the baseline: 1.500 nats"),
        (told(4.0, baseline=None), "no baseline was measured"),
        (told(None, None), "On the training text it reaches 1.900 nats"),
        (told(float("nan")), "The training failed: no validation loss is finite."),
        (replace(told(), records=[{"update": 1, "loss": None}]), "The training failed: no last loss is finite."),
        (told(), "No loss was recorded"),
    ],
)  # fmt: skip
def test_the_verdict_is_honest(summary: Summary, sentence: str):
    assert sentence in verdict(summary)


def test_what_to_do_next_begins_with_the_baseline_and_ends_with_the_caller(trained: Summary):
    losing = replace(trained, baseline=("a 2-gram model", 0.001))
    first, *rest = next_steps(losing)
    assert first.startswith(f"Train it longer, as with {trained.longer}, or make it larger")
    assert rest == [*trained.flow.advice, *trained.advice]
    assert next_steps(trained) == rest


# Several runs


def test_runs_stand_beside_each_other(both: Page, trained: Summary):
    head = Page(both.text[: both.text.index("</header>")]).words
    plain = learned("elman")
    best = min(("gated", trained), ("plain", plain), key=lambda run: min(r["validation"] or 9 for r in run[1].records))
    assert f"What to do next with {best[0]}" in head
    assert f"Steps of memory: gated {trained.flow.whole.memory:.3g}, plain {plain.flow.whole.memory:.3g}." in head
    assert both.tags.count("svg") == 4
    rows = dict(re.findall(r'<tr><th scope="row">([^<]*)</th><td>(.*?)</td></tr>', both.text))
    assert rows["network.cell"] == "gru</td><td>elman"
    assert "network.units" not in rows
    assert rows["weights"] == f"{trained.weights}</td><td>{plain.weights}"
    assert rows["cut off at h"] == "10</td><td>10"
    assert rows["updates"] == "40</td><td>40"
    assert rows["read a second"] == "320</td><td>320"  # 40 targets an update, 8 updates a second
    losses = [min(r["validation"] for r in one.records if r["validation"]) for one in (trained, plain)]
    assert rows["loss (nats)"] == "{:.4f}</td><td>{:.4f}".format(*losses)
    for command in (trained.reproduce, plain.reproduce):
        assert command in both.words


def test_runs_on_different_texts_are_not_ranked(tmp_path: Path, trained: Summary):
    other = replace(trained, config={**trained.config, "text.sha256_of_ids": "xyz"})
    path = write_comparison(tmp_path / "two.html", {"a": trained, "b": other})
    head = Page(path.read_text(encoding="utf-8").partition("</header>")[0]).words
    assert "have no text in common" in head
    assert "comes lowest" not in head
    unheld = replace(trained, records=[{"update": 1, "loss": 0.5}])
    path = write_comparison(tmp_path / "two.html", {"a": trained, "b": unheld})
    assert "Not every run held text out" in path.read_text(encoding="utf-8")


def test_a_comparison_needs_two(tmp_path: Path, trained: Summary):
    with pytest.raises(ValueError, match="at least two runs; got 1"):
        write_comparison(tmp_path / "one.html", {"a": trained})


def test_differences_are_what_is_not_the_same_everywhere():
    assert differences([{"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}]) == [("b", ["2", "3"]), ("c", ["–", "4"])]
