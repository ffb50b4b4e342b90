"""The pages of runs from the command line: after a training, on request, of several runs, of runs made in Python."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from terminal import SMALL, run_command, story, trained_run

import throughtime as tt
from throughtime import runs
from throughtime.cli import fitting, reporting
from throughtime.data import Text

__all__ = ["run_command", "trained_run"]


def shown(path: Path) -> str:
    """The words of a page, without its pictures."""
    text = re.sub(r"<(style|svg).*?</\1>", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def test_a_training_ends_with_its_report(run, tmp_path):
    (tmp_path / "story.txt").write_text(story())
    words = ["story.txt", "--split", "0.8,0.2,0", "--updates", "30", *SMALL]
    answer = run("train", *words, "--run", "my run", report=True)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "Report: my run/report.html"
    page = shown(tmp_path / "my run" / "report.html")
    loss = re.search(r"validation +([\d.]+) nats", answer.out)
    baseline = re.search(r"\n[\w-]+ +([\d.]+) nats .* counting (\d-grams)", answer.out)
    assert loss is not None
    assert baseline is not None
    assert f"{float(loss[1]):.3f} nats per character" in page
    assert f"{float(baseline[1]):.3f}" in page
    assert baseline[2] in page
    for heading in ("What it learned", "How far back it learned", "The error by time and lag", "Hidden units"):
        assert heading in page
    assert "What cannot be shown" not in page
    assert "throughtime train --resume &#39;my run&#39; --updates 60" in page
    assert run("train", *words, "--run", "quiet").out.count("eport") == 0
    assert not (tmp_path / "quiet/report.html").exists()
    (tmp_path / "my run/report.html").unlink()
    answer = run("train", "--resume", "my run", "--updates", "32", report=True)
    assert answer.out.splitlines()[-1] == "Report: my run/report.html"
    answer = run("train", *words, "--run", "json", "--json", report=True)
    assert "Report:" not in answer.out
    assert "Report: json/report.html" in answer.err


def test_a_report_that_fails_does_not_fail_the_training(run, tmp_path, monkeypatch):
    def broken(*_: object) -> None:
        raise RuntimeError("no such picture")

    monkeypatch.setattr(reporting, "write_report", broken)
    answer = run("train", "--text", "machine", "--split", "none", "--updates", "2", report=True)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == (
        "No report was written (RuntimeError: no such picture). The run is whole; try again: throughtime report "
        "runs/machine"
    )
    assert runs.load(tmp_path / "runs/machine").sample("m", 3, seed=0)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert run("report", "runs/machine").out == "runs/machine/report.html\n"
    assert "over 3 characters of memory" in shown(tmp_path / "runs/machine/report.html")


def test_report_says_what_the_run_says(trained, run):
    assert run("report", trained).code == 0
    page = shown(trained / "report.html")
    config = runs.load(trained).config
    assert "LSTM, 8 units" in page
    assert f"credit {config['training']['credit']}" in page
    assert "training.optimizer.name AdamW" in page
    (trained / "report.html").unlink()


CHOICES = (
    [],
    ["--text", "-a b'c\"d\n" * 9, "--split", "none", "--seed", "7", "--clip", "0", "--schedule", "none"],
    [
        "--text",
        story(3000),
        "--unit",
        "word",
        "--split",
        "0.7,0.3,0",
        "--least",
        "1",
        "--patience",
        "3",
        "--updates",
        "5",
    ],
    ["--text", story(3000), "--cell", "elman:phi=relu", "--layers", "2", "--embedding", "0", "--dropout", "0.25"],
    [
        "--text",
        story(3000),
        "--unit",
        "word",
        "--tie",
        "--units",
        "12",
        "--optimizer",
        "sgd:momentum=0.9,nesterov=true",
    ],
    ["--text", story(3000), "--cell", "mlp", "--window", "3", "--layers", "2", "--units", "5", "--epochs", "2"],
    ["--text", story(3000), "--credit", "bptt:h=9,every=3", "--backend", "reference", "--time", "7s", "--rate", "1e-5"],
    ["--shipped", "shakespeare", "--unit", "byte", "--credit", "uoro:seed=3", "--probe-every", "0", "--decay", "0.3"],
)


@pytest.mark.parametrize("words", CHOICES, ids=range(len(CHOICES)))
def test_the_command_of_a_run_makes_every_choice_again(words: list[str], run, tmp_path, monkeypatch):
    """All that config.toml says, and the first weights."""
    (tmp_path / "two words.txt").write_text(story())
    train = fitting.train

    def only_begun(*given, **options):
        train(*given, **options)  # which makes the folder; nothing is learned
        return (_ for _ in ())

    monkeypatch.setattr(fitting, "train", only_begun)
    run("train", *(words or ["two words.txt"]), "--run", "once")
    name, *command = shlex.split(reporting.command_of(runs.load("once").config))
    assert name == "throughtime"
    run(*command, "--run", "twice")
    once, twice = runs.load("once"), runs.load("twice")
    assert once.config == twice.config
    for one, other in zip(once.net.parameters(), twice.net.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_command_of_a_run_gives_its_weights(run, tmp_path):
    (tmp_path / "two words.txt").write_text(story())
    given = ["two words.txt", "--split", "0.8,0.2,0", "--updates", "6", "--dropout", "0.2", *SMALL]
    assert run("train", *given, "--run", "once").code == 0
    name, *command = shlex.split(reporting.command_of(runs.load(tmp_path / "once").config))
    assert name == "throughtime"
    assert run(*command, "--run", "twice").code == 0
    once, twice = (runs.load(tmp_path / folder) for folder in ("once", "twice"))
    assert once.config == twice.config
    for one, other in zip(once.net.parameters(), twice.net.parameters(), strict=True):
        assert torch.equal(one, other)


# Several


def test_several_runs_on_one_page(trained, run, tmp_path):
    other = tmp_path / "other"
    config = runs.load(trained).config
    source = config["text"]["source"][0]
    words = ["--split", "0.8,0.1,0.1", "--updates", "20", *SMALL, "--cell", "gru", "--run", "other"]
    assert run("train", source, *words).code == 0
    assert run("report", trained, other).out == f"{trained.parent / 'comparison.html'}\n"
    assert run("report", trained, "other", "--out", "both.html").out == "both.html\n"
    page = shown(tmp_path / "both.html")
    assert "run, other beside each other" in page
    assert "network.cell lstm gru" in page
    assert "training.updates 60 20" in page
    assert "network.units" not in page
    assert not (trained / "report.html").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "RUN must be given"),
        (["missing"], "missing does not exist"),
        (["{run}", "missing"], "missing does not exist"),
        (["{run}", "{run}"], "RUN must name different runs; one is given twice"),
        (["{run}", "--out", "x.html"], "--out must be left out with one run"),
        (["{run}", "{run}", "--out", "no/x.html"], "--out must be in a folder that exists; no does not"),
        (["{run}", "{run}", "--out", "."], "--out must be a file; . is a folder"),
    ],
)
def test_what_report_refuses(words: list[str], sentence: str, trained, run, tmp_path):
    answer = run("report", *[word.format(run=trained) for word in words])
    assert answer.code == 2
    assert sentence in answer.sentence
    assert not list(tmp_path.iterdir())
    assert not (trained / "report.html").exists()


def test_a_device_or_a_pipe_is_not_replaced_by_a_page(trained, run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    shutil.copytree(trained, tmp_path / "other")
    answer = run("report", trained, "other", "--out", "pipe")
    assert answer.code == 2
    assert "--out must be a file; pipe is a device or a pipe" in answer.sentence
    assert (tmp_path / "pipe").is_fifo()


# Runs made in Python


def made_in_python(folder: Path, text: Text, net: torch.nn.Module | None = None, **options) -> Path:
    torch.manual_seed(0)
    net = net or tt.Network("gru", inputs=text.size, units=8, outputs=text.size)
    chunks = text.chunks(2, 16)
    list(tt.train(net, chunks, updates=5, run=folder, **options))
    return folder


def test_a_run_made_in_python_on_a_file(run, tmp_path):
    (tmp_path / "story.txt").write_text(story())
    text = Text(tmp_path / "story.txt", split=(0.8, 0.2, 0.0))
    made_in_python(tmp_path / "own", text)
    assert run("report", "own").code == 0
    page = shown(tmp_path / "own/report.html")
    loss = tt.evaluate(runs.load(tmp_path / "own").net, text.chunks(1, 256, "validation")).mean
    assert abs(float(re.search(r"How well ([\d.]+) nats", page)[1]) - loss) < 2e-3  # type: ignore[index]
    assert "-grams" in page
    assert "Hidden units over the text" in page
    assert "it was made in Python, by a program of its own" in page
    assert "Do it again" not in page


def test_a_run_made_in_python_on_a_string(run, tmp_path):
    made_in_python(tmp_path / "own", Text.of(story(), split=None))
    assert run("report", "own").code == 0
    page = shown(tmp_path / "own/report.html")
    assert "the text of this run was a string in Python, which is not in its folder" in page
    assert "What it learned" in page
    assert "Eigenvalues of the recurrent weights" in page
    assert "Hidden units" not in page


def test_a_run_by_an_algorithm_of_its_own(run, tmp_path):
    """Its name says nothing of where it cuts errors off; all else is measured."""

    class Own(tt.BPTT):
        pass

    (tmp_path / "story.txt").write_text(story())
    made_in_python(tmp_path / "own", Text(tmp_path / "story.txt", split=(0.8, 0.2, 0.0)), credit=Own(4))
    assert run("report", "own").code == 0
    page = shown(tmp_path / "own/report.html")
    assert "Hidden units over the text" in page
    assert "cut the error off" not in page
    answer = run("flow", "own")
    assert answer.code == 0
    assert "BPTT(4)" not in answer.out


def test_a_run_of_a_network_of_its_own(run, tmp_path):
    class Own(tt.Adapted):
        pass

    (tmp_path / "story.txt").write_text(story())
    text = Text(tmp_path / "story.txt", split=None)

    class Inner(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.inner = torch.nn.Embedding(text.size, 4), torch.nn.GRU(4, 4)
            self.head = torch.nn.Linear(4, text.size)

        def forward(self, x, state):
            h, state = self.inner(self.table(x), state)
            return self.head(h), state

    made_in_python(tmp_path / "own", text, Own(Inner()), probe_every=0)
    assert run("report", "own").code == 0
    page = shown(tmp_path / "own/report.html")
    assert "own: Own" in page
    assert "was trained on a network of your own" in page
    assert "What it learned" in page


def test_a_text_that_was_changed_is_said(run, tmp_path):
    (tmp_path / "story.txt").write_text(story())
    assert run("train", "story.txt", "--split", "0.8,0.2,0", "--updates", "3", *SMALL, "--run", "a").code == 0
    (tmp_path / "story.txt").write_text(story(seed=1))
    assert run("report", "a").code == 0
    page = shown(tmp_path / "a/report.html")
    assert "it was changed" in page
    assert "nats per character" in page
    assert "throughtime train" in page


def test_weights_that_are_no_numbers_are_said(trained, run, tmp_path):
    shutil.copytree(trained, tmp_path / "bad")
    file = tmp_path / "bad/weights.safetensors"
    weights = load_file(file)
    weights["layers.weight_hh_l0"][0, 0] = torch.nan
    save_file(weights, file)
    assert run("report", "bad").code == 0
    page = shown(tmp_path / "bad/report.html")
    assert "How far back the error reaches: net must give finite errors to measure; got nan" in page
    assert "What it writes: net must give finite numbers to draw from; got nan" in page
    for temperature in (0, 1):
        answer = run("sample", "bad", "--temperature", temperature)
        assert answer.code == 2
        assert "net must give finite numbers to draw from" in answer.sentence
    assert run("flow", "bad").code == 2


@pytest.mark.parametrize(("text", "table"), [("ab", False), ("abc", False), ("abcdefghijk", True)])
def test_texts_of_two_and_three_letters(text: str, table: bool, run):
    """Two steps are needed for a lag of one, and a lag of two for an h that cuts something off."""
    assert run("train", "--text", text, "--split", "none", "--updates", "2", "--run", "r", "--units", "4").code == 0
    assert run("report", "r").code == 0
    answer = run("flow", "r")
    if len(text) == 2:
        assert answer.code == 2
        assert "at least 3 tokens to read 2 steps; its train part has 2. Give a longer FILE" in answer.sentence
    else:
        assert answer.code == 0
        assert ("BPTT(h) beside" in answer.out) == table


def test_a_config_is_flat_with_dotted_names():
    config = tomllib.loads("format = 1\n[a]\nb = [1, 'x']\n[a.c]\nd = true\n")
    assert reporting.flat(config) == {"format": 1, "a.b": "1, x", "a.c.d": True}
