"""A run goes on from where it was stopped: by --resume, after a signal, and only with the text it was trained on."""

from __future__ import annotations

import os
import signal
import time

import pytest
import torch
from safetensors.torch import load_file
from terminal import SMALL, run_command, shell, story, trained_run

import throughtime as tt
from throughtime import data, runs

__all__ = ["run_command", "trained_run"]


def test_resume_is_exact(run, tmp_path):
    text = ["train", "--text", story(2000), "--split", "0.8,0.2,0", "--schedule", "none", "--dropout", "0.3", *SMALL]
    text += ["--credit", "bptt:h=8,every=4"]
    assert run(*text, "--updates", "23", "--run", "whole").code == 0
    assert run(*text, "--updates", "9", "--run", "part").code == 0
    answer = run("train", "--resume", "part", "--updates", "23")
    assert answer.code == 0
    for name in ("weights.safetensors", "resume.safetensors"):
        whole, part = (load_file(tmp_path / run / name) for run in ("whole", "part"))
        for key in whole:
            assert torch.equal(whole[key], part[key]), key
    assert runs.load("part").config["training"]["updates"] == 23
    updates = [record["update"] for record in runs.load("part").records()]
    assert updates == list(range(1, 24))


def test_resume_takes_limits_alone(run, tmp_path):
    assert run("train", "--text", "machine", "--split", "none", "--updates", "3").code == 0
    config = (tmp_path / "runs/machine/config.toml").read_bytes()
    for words, said in (
        (["--rate", "1"], "got --rate"),
        (["--units", "3"], "--units must be left out"),
        (["--text", "x"], "without FILE"),
        (["--run", "x"], "without FILE"),
        ([], "something left to train"),
        (["--updates", "2"], "something left to train"),
    ):
        answer = run("train", "--resume", "runs/machine", *words)
        assert answer.code == 2
        assert said in answer.err.splitlines()[-1]
    assert (tmp_path / "runs/machine/config.toml").read_bytes() == config
    assert "does not exist" in run("train", "--resume", "runs/machin").sentence


def test_resume_refuses_another_text(run, tmp_path):
    (tmp_path / "book.txt").write_text(story())
    assert run("train", "book.txt", "--updates", "3", *SMALL).code == 0
    (tmp_path / "book.txt").write_text(story(seed=1))
    answer = run("train", "--resume", "runs/book", "--updates", "9")
    assert answer.code == 2
    assert "it was changed" in answer.sentence
    assert "No n-grams beside it: " in run("evaluate", "runs/book", "book.txt").out
    (tmp_path / "book.txt").unlink()
    assert "existing file" in run("train", "--resume", "runs/book", "--updates", "9").sentence
    assert "existing file" in run("evaluate", "runs/book").sentence


def test_resume_refuses_a_run_made_in_python(run):
    text = data.Text.of("machine", split=None)
    net = tt.Network("elman", inputs=text.size, units=4, outputs=text.size)
    list(tt.train(net, text.chunks(1, 6), run="python"))
    assert "made in Python" in run("train", "--resume", "python", "--epochs", "9").sentence
    assert run("evaluate", "python", "--part", "train").code == 0


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_printed_command_goes_on(run, tmp_path, number, code):
    (tmp_path / "book.txt").write_text(story())
    process = shell("-m", "throughtime", "train", "book.txt", "--epochs", "100000", *SMALL, "--json", cwd=tmp_path)
    assert process.stdout is not None
    for _ in range(3):
        process.stdout.readline()
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "throughtime train --resume runs/book" in err
    assert "Traceback" not in err
    last = len(runs.load(tmp_path / "runs/book").records())
    assert last >= 3
    assert run("train", "--resume", "runs/book", "--updates", str(last + 2)).code == 0
    assert len(runs.load(tmp_path / "runs/book").records()) == last + 2


@pytest.fixture
def listening():
    """Ctrl-C is heard, even where the tests run in the background of a shell that has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_stops_at_once(run, tmp_path, monkeypatch, listening):
    def slow(*_, **__):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(9)

    monkeypatch.setattr(tt.BPTT, "__call__", slow)
    start = time.monotonic()
    answer = run("train", "--text", "machine", "--split", "none")
    assert time.monotonic() - start < 40
    assert answer.code == 130
    assert "Go on: throughtime train --resume runs/machine" in answer.err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
