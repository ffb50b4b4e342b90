"""The command line as a user meets it: help, train, and what is wrong in one sentence with an exit code."""

from __future__ import annotations

import errno
import json
import math
import re

import pytest
import torch
from safetensors.torch import load_file
from terminal import SMALL, numbers, run_command, shell, story, trained_run

import throughtime as tt
from throughtime import baselines, data, runs, training
from throughtime.baselines import Baseline
from throughtime.cli import commands
from throughtime.cli.fitting import text_of
from throughtime.cli.options import NetworkOptions, TextOptions, TrainingOptions, flag

__all__ = ["run_command", "trained_run"]


# Help, version, misspellings


def test_help_and_version_import_no_torch():
    code = "import sys; from throughtime.cli import main; main({}); sys.exit('torch' in sys.modules)"
    for words in (["--help"], ["--version"], ["train", "--help"], ["trian"]):
        process = shell("-c", code.format(words))
        said = process.communicate()
        assert process.returncode == 0, said


def test_help_names_every_option(run):
    helped = run("train", "--help").out
    for kind in (TextOptions, NetworkOptions, TrainingOptions):
        for name in kind.__dataclass_fields__:
            assert flag(name) + " " in helped
    assert "norm of the mean gradient" in " ".join(helped.replace("│", " ").split())
    assert run("--version").out.strip() == tt.__version__


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], 'Did you mean "train"?'),
        (["train", "--untis", "3"], "Did you mean --units?"),
        (["train", "x", "--unit", "chr"], 'Did you mean "char"?'),
        (["train", "--text", "machine", "--split", "none", "--cell", "lstn"], "Did you mean 'lstm'?"),
        (["train", "--text", "machine", "--split", "none", "--credit", "bppt"], "Did you mean 'bptt'?"),
        (["train", "--text", "machine", "--split", "none", "--credit", "bptt:k=3"], "has h, every, replay and memory"),
        (["train", "--text", "machine", "--split", "none", "--optimizer", "adamaxx"], "Did you mean 'adamax'?"),
        (["verify", "cels"], "cells"),
        (["sample"], "RUN"),
    ],
)
def test_a_misspelling_is_named_and_makes_no_folder(run, tmp_path, words, said):
    answer = run(*words)
    assert answer.code == 2
    assert said in answer.sentence
    assert not list(tmp_path.iterdir())


# Train


def test_machine(run, tmp_path):
    answer = run("train", "--text", "machine", "--split", "none", report=True)
    assert answer.code == 0
    assert answer.out.splitlines()[-1] == "Report: runs/machine/report.html"
    assert "right at 6 of 6 positions: machin -> achine" in answer.out
    assert "throughtime sample runs/machine" in answer.out
    assert sorted(path.name for path in (tmp_path / "runs/machine").iterdir()) == [
        "config.toml",
        "metrics.jsonl",
        "report.html",
        "resume.safetensors",
        "vocabulary.json",
        "weights.safetensors",
    ]
    assert run("sample", "runs/machine", "--prompt", "mach", "--length", "3", "--temperature", "0").out == "machine\n"


def test_runs_get_folders_of_their_own(run, tmp_path):
    short = ["train", "--text", "machine", "--split", "none", "--updates", "1"]
    for name in ("machine", "machine-2", "machine-3"):
        assert run(*short).code == 0
        assert (tmp_path / "runs" / name / "config.toml").is_file()
    answer = run(*short, "--run", "runs/machine")
    assert answer.code == 2
    assert "exists" in answer.err


def test_the_last_lines_put_the_network_beside_the_ngrams(trained, run):
    config = runs.load(trained).config
    assert config["training"]["validate_every"] == 6
    answer = run("evaluate", trained)
    net, bar = (numbers(line) for line in answer.out.splitlines()[1:3])
    text = data.Text(config["text"]["source"], split=(0.8, 0.1, 0.1))
    best = baselines.best_ngram(text.part(), text.part("validation"), text.size)
    assert bar[:2] == [round(best.nats, 4), round(best.nats / math.log(2), 4)]
    assert answer.out.splitlines()[2].startswith(best.kind)
    assert f"{best.order + 1}-grams" in answer.out
    source = text.chunks(1, 300, "validation")
    assert net[0] == round(tt.evaluate(runs.load(trained).net, source).mean, 4)


def test_the_last_lines_say_when_the_network_loses(run, tmp_path):
    (tmp_path / "text.txt").write_text("abcdefghijklmnopqrstuvwxyz" * 30)
    answer = run("train", "text.txt", "--split", "0.8,0.2,0", *SMALL, "--updates", "2", "--run", "my run")
    assert answer.code == 0
    assert "The network loses to the n-grams by" in answer.out
    assert "throughtime train --resume 'my run' --updates 4" in answer.out
    assert "throughtime sample 'my run'" in answer.out


def test_the_verdict_is_by_the_smaller_loss(trained):
    run = runs.load(trained)
    net = commands.beside_ngrams(run, text_of(run), None, "Do more.")
    assert len(net) == 1
    nats = numbers(net[0])[0]
    beats = commands.beside_ngrams(run, text_of(run), Baseline("Kneser-Ney", 4, nats + 0.5), "Do more.")
    assert beats[1].startswith("Kneser-Ney   ")
    assert beats[1].endswith("counting 5-grams")
    assert beats[2] == "The network beats the n-grams by 0.5000 nats per character."
    loses = commands.beside_ngrams(run, text_of(run), Baseline("Witten-Bell", 2, nats - 0.25), "Do more.")
    assert loses[2] == "The network loses to the n-grams by 0.2500 nats per character. Do more."


def test_json_is_all_that_stdout_gets(run):
    answer = run("train", "--text", "machine" * 9, "--split", "0.5,0.5,0", "--updates", "7", "--json")
    records = [json.loads(line) for line in answer.out.splitlines()]
    assert [record["update"] for record in records] == list(range(1, 8))
    assert records[-1]["validation"] > 0
    assert "the n-grams by" in answer.err


def test_bytes_and_words_and_folders(run, tmp_path):
    (tmp_path / "books").mkdir()
    (tmp_path / "books/a.txt").write_bytes(b"\xff\x00 not text " * 20)
    short = ["--updates", "2", *SMALL]
    assert "UTF-8" in run("train", "books", *short).sentence or "binary" in run("train", "books", *short).sentence
    assert run("train", "books", "--unit", "byte", *short).code == 0
    assert run("sample", "runs/books", "--length", "20").code == 0
    (tmp_path / "books/a.txt").write_text(story())
    (tmp_path / "books/b.txt").write_text("a cat saw a dog .\n" * 20)
    assert run("train", "books", "--unit", "word", "--least", "1", "--most", "9", *short).code == 0
    said = run("evaluate", "runs/books-2", "--text", "a zebra saw").out
    assert "zebra (never seen in training)" in said
    assert run("predict", "runs/books-2", "--prompt", "zebra").code == 0


def test_the_text_that_comes_with_the_library(run):
    words = ["--shipped", "shakespeare", "--unit", "word"]
    assert run("train", *words, "--updates", "1", "--most", "50", *SMALL).code == 0
    answer = run("train", "--resume", "runs/shakespeare", "--updates", "2")
    assert "Kneser-Ney" in answer.out
    assert "leave one out" in run("train", "x.txt", *words).sentence
    assert "--shipped must be left out" in run("train", "--resume", "runs/shakespeare", *words).sentence


def test_every_network_trains(run):
    short = ["train", "--text", story(900), "--split", "none", "--updates", "2", *SMALL]
    for more in (
        ["--cell", "elman:phi=relu", "--embedding", "0"],
        ["--cell", "ctrnn:alpha=0.5", "--layers", "2", "--dropout", "0.5"],
        ["--cell", "gru", "--tie", "--backend", "reference"],
        ["--cell", "mlp", "--window", "2", "--optimizer", "sgd:momentum=0.9,nesterov=true", "--clip", "0"],
        ["--credit", "bptt", "--schedule", "none", "--optimizer", "rmsprop", "--decay", "0.1", "--device", "cpu"],
    ):
        assert run(*short, *more).code == 0, more
    assert run(*short, "--cell", "mlp", "--window", "3", "--like", "lstm", "--run", "like").code == 0
    assert run(*short, "--cell", "lstm", "--run", "lstm").code == 0
    sizes = [sum(w.numel() for w in runs.load(name).net.parameters()) for name in ("like", "lstm")]
    assert abs(sizes[0] - sizes[1]) < 0.05 * sizes[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--window", "3"], "--window must be left out with --cell lstm"),
        (["--like", "gru"], "--like must be left out"),
        (["--cell", "mlp", "--tie"], "--tie must be left out with --cell mlp"),
        (["--patience", "3"], "--patience must be left out when --split leaves no validation part"),
        (["--validate-every", "3"], "--validate-every must be left out"),
        (["--least", "2"], "--least must be left out unless --unit is word"),
        (["--credit", "bptt:h=2,every=4"], "h must be at least every"),
        (["--credit", "bptt:every=4"], "every and replay must go with h"),
        (["--cell", "elman:phi=cosine"], "phi must be one of"),
        (["--units", "0"], 'Invalid value "0" for --units. Must be >= 1.'),
        (["--layers", "0"], "--layers. Must be >= 1"),
        (["--dropout", "1.5"], "--dropout. Must be < 1"),
        (["--embedding", "3", "--tie"], "tie must come with embedding = units"),
        (["--embedding", "-3"], "--embedding. Must be >= 0"),
        (["--streams", "9"], "streams must be at most the 6 targets"),
        (["--steps", "0"], "--steps. Must be >= 1"),
        (["--epochs", "0"], "--epochs. Must be >= 1"),
        (["--time", "soon"], "time must be above 0, such as 90s"),
        (["--clip", "-1"], "--clip. Must be >= 0"),
        (["--rate", "-1"], "--rate. Must be > 0"),
        (["--optimizer", "sgd:speed=3"], "speed"),
        (["--split", "0.5,0.1"], "split must be three fractions"),
        (["--split", "0.9,0.05,0.05"], "Use a longer text, or --split none"),
        (["--cell", "lstm", "--backend", "fast"], "fast"),
        (["somewhere.txt"], "leave one out"),
        (["--seed", "99999999999999999999"], "--seed. Must be <"),
    ],
)
def test_settings_that_do_not_fit(run, tmp_path, words, said):
    answer = run("train", "--text", "machine", *([] if "--split" in words else ["--split", "none"]), *words)
    assert answer.code == 2, answer.err
    assert said.lower() in answer.sentence.lower()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "must be an existing file"),
        (b"", "must not be empty"),
        (b"ab", "at least 2 chars"),
        (b"text\x00text" * 99, "NUL byte at offset 4"),
        (b"caf\xe9 " * 99, "0xe9 at offset 3"),
    ],
)
def test_files_that_cannot_be_read(run, tmp_path, content, said):
    file = tmp_path / "book.txt"
    if content is not None:
        file.write_bytes(content)
    answer = run("train", "book.txt")
    assert answer.code == 2
    assert said in answer.sentence
    assert not (tmp_path / "runs").exists()


def test_texts_that_cannot_be_read(run, tmp_path):
    assert "--text must not be empty" in run("train", "--text", "").sentence
    assert "must be given" in run("train").sentence
    assert "must be UTF-8" in run("train", "--text", "a\udcffb").sentence
    (tmp_path / "empty").mkdir()
    assert "has none" in run("train", "empty").sentence
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty"]


def test_a_folder_that_cannot_be_written(run, tmp_path):
    (tmp_path / "file").write_text("")
    answer = run("train", "--text", "machine", "--split", "none", "--run", "file/run")
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("file/run cannot be used: Not a directory.")


def test_a_full_disk_fails_the_job(run, tmp_path, monkeypatch):
    written = runs._write

    def full(path, write):
        if path.name == "weights.safetensors":
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        written(path, write)

    monkeypatch.setattr(runs, "_write", full)
    answer = run("train", "--text", "machine", "--split", "none")
    assert answer.code == 1
    assert "No space left on device. Make room" in answer.err
    assert not (tmp_path / "runs/machine").exists()


def test_full_memory_fails_the_job(run, monkeypatch):
    def full(*_, **__):
        raise MemoryError

    monkeypatch.setattr("throughtime.cli.commands.prepare", full)
    answer = run("train", "--text", "machine", "--split", "none")
    assert (answer.code, answer.sentence[:18]) == (1, "The memory is full")


def test_a_fault_of_our_own_is_called_that(run, monkeypatch):
    monkeypatch.setattr("throughtime.cli.commands.doctor", lambda: {}["missing"])
    assert run("doctor").code == 1
    assert "KeyError" in run("doctor").sentence
    assert "Traceback" in run("doctor", "--debug").err


def test_a_loss_that_explodes(run, tmp_path):
    answer = run("train", "--text", "machine", "--split", "none", "--rate", "1e30", "--schedule", "none")
    assert answer.code == 1
    sentence = answer.err.splitlines()[-1]
    assert re.search(r"not finite at update [23], first in .+\. Lower the learning rate", sentence)
    assert "runs/machine holds the weights that were saved last" in sentence
    for weight in load_file(tmp_path / "runs/machine/weights.safetensors").values():
        assert weight.isfinite().all()
    assert run("sample", "runs/machine", "--length", "5").code == 0


def test_a_training_that_fails_at_once_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setitem(training.losses, "softmax", lambda p, y: p.sum(-1) * torch.nan)
    answer = run("train", "--text", "machine", "--split", "none")
    assert answer.code == 1
    assert "not finite at update 1" in answer.err
    assert not (tmp_path / "runs/machine").exists()
