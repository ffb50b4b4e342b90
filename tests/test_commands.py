"""What a run is asked for: sample, predict, evaluate; and verify, doctor, demo."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from terminal import numbers, run_command, shell, trained_run

import throughtime as tt
from throughtime import cells, runs, verify

__all__ = ["run_command", "trained_run"]


# Sample, predict, evaluate


def test_sample(trained, run):
    said = run("sample", trained, "--prompt", "the", "--length", "50", "--seed", "3")
    assert said.code == 0
    assert said.out == "the" + runs.load(trained).sample("the", 50, seed=3) + "\n"
    assert said.out == run("sample", trained, "--prompt", "the", "--length", "50", "--seed", "3").out
    assert run("sample", trained, "--prompt", "☃ né\udcff", "--length", "3").code == 0
    assert run("sample", trained, "--prompt=-x", "--length", "3", "--top-k", "1").out.startswith("-x")
    for words, named in (
        (["--length", "0"], "length"),
        (["--temperature", "-1"], "temperature"),
        (["--temperature", "0", "--top-k", "2"], "--top-k"),
        (["--top-k", "0"], "--top-k"),
    ):
        answer = run("sample", trained, *words)
        assert answer.code == 2
        assert named in answer.sentence


def test_predict_agrees_with_evaluate(trained, run):
    everything = run("predict", trained, "--prompt", "the ca", "--top", "999").out.splitlines()[1:]
    p = {row.rsplit(None, 1)[0].strip(): float(row.rsplit(None, 1)[1]) for row in everything}
    assert sum(p.values()) == pytest.approx(1, abs=1e-5)
    assert len(p) == runs.load(trained).vocabulary.size
    nats = float(run("evaluate", trained, "--text", "the cat").out.splitlines()[7].split()[1])
    assert p["t"] == pytest.approx(math.exp(-nats), abs=2e-4)
    top = run("predict", trained, "--prompt", "the ca", "--top", "2").out.splitlines()
    assert "others" in top[3]
    assert sum(float(row.split()[-1]) for row in top[1:]) == pytest.approx(1, abs=1e-5)


def test_surprise_of_every_token(trained, run):
    rows = run("evaluate", trained, "--text", "a ☃\n").out.splitlines()
    assert rows[1].split() == ["a", "given"]
    assert rows[2].startswith("' '")
    assert "☃ (never seen in training)" in rows[3]
    assert rows[4].startswith("'\\n'")
    for row in rows[2:5]:
        nats, bits = numbers(row)
        assert bits == pytest.approx(nats / math.log(2), abs=2e-4)
    mean = sum(numbers(row)[0] for row in rows[2:5]) / 3
    assert numbers(rows[6])[0] == pytest.approx(mean, abs=2e-4)


def test_shuffle_says_what_order_is_worth(trained, run):
    answer = run("evaluate", trained, "--part", "test", "--shuffle").out.splitlines()
    net, mixed = numbers(answer[1])[0], numbers(answer[3])[0]
    assert mixed > net
    assert numbers(answer[4])[0] == pytest.approx(mixed - net, abs=2e-4)


def test_evaluate_refuses(trained, run, tmp_path):
    (tmp_path / "one.txt").write_text("x")
    for words, said in (
        (["one.txt"], "at least 2"),
        (["--text", "a"], "at least 2"),
        (["--text", ""], "empty"),
        (["one.txt", "--text", "x"], "leave one out"),
        (["--text", "ab", "--part", "test"], "--part must be left out"),
        (["gone.txt"], "existing file"),
    ):
        answer = run("evaluate", trained, *words)
        assert answer.code == 2, words
        assert said in answer.sentence


@pytest.mark.parametrize("command", ["sample", "evaluate", "predict"])
def test_folders_that_are_no_run(run, tmp_path, command):
    (tmp_path / "empty").mkdir()
    assert "does not exist" in run(command, "nowhere").sentence
    assert "is not a run" in run(command, "empty").sentence


def test_a_pipe_that_closes_is_no_error(trained):
    for words in (["sample", str(trained), "--length", "100000"], ["--help"]):
        process = shell("-m", "throughtime", *words)
        assert process.stdout is not None
        process.stdout.read(1)
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""
        process.stderr.close()
        assert process.wait(timeout=60) in (0, 1, 141)


def test_closed_streams_and_a_console_without_unicode(trained):
    command = f"{sys.executable} -m throughtime"
    environment = {"PYTHONPATH": str(Path(tt.__file__).parents[1]), "PYTHONIOENCODING": "ascii", "OMP_NUM_THREADS": "1"}
    for line in (f"{command} sample {trained} --prompt é --length 3 <&-", f"{command} predict {trained} >&- 2>&-"):
        done = subprocess.run(["sh", "-c", line], env={**os.environ, **environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


# Verify, doctor, demo


def test_doctor(run):
    said = run("doctor").out
    assert torch.__version__ in said
    for name in cells.cells:
        assert f"cell {name}" in said


def test_verify_fails_loudly(run, monkeypatch):
    result = verify.Result("a law", "lstm", 1e-3, 1e-6, 0.1)
    monkeypatch.setattr(verify, "run", lambda names: iter([result]))
    answer = run("verify")
    assert answer.code == 1
    assert "FAIL" in answer.out
    assert "1 of 1 checks failed in 0 s." in answer.out


def test_verify_runs_the_laws_that_are_named(run):
    answer = run("verify", verify.laws()[0])
    assert answer.code == 0, answer.out
    assert "All" in answer.out


def test_demo(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    assert "is neither" in run("demo", "--run", "mine").err
    assert (tmp_path / "mine/notes.txt").read_text() == "keep"
    runs.Run.create("runs/demo", {"command": {"name": "demo"}})
    answer = run("demo", "--time", "2s")
    assert answer.code == 0, answer.err
    assert "Before training it writes" in answer.out
    assert "-grams" in answer.out
    assert "Report: runs/demo/report.html" in answer.out
    assert (tmp_path / "runs/demo/report.html").stat().st_size > 10_000
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["demo"]
