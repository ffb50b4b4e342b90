"""forecast, classify, tag and predict on their runs: what they write and say, and the sentences of bad input."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from terminal import run_command

from throughtime.cli import estimating
from throughtime.estimators import LanguageModel
from throughtime.runs import load

__all__ = ["run_command"]

FEW = ("--updates", "25", "--units", "12")
"""Enough to learn what these tests ask for."""


def table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def sequences(path: Path, *, labels: bool = True, seed: int = 0) -> Path:
    """Sequences that rise or fall, of 5 to 9 steps, in long form."""
    rng = np.random.default_rng(seed)
    rows = ["id,time,label,a,b"] if labels else ["id,time,a,b"]
    for name in range(40):
        rise = name % 2
        for step in range(rng.integers(5, 10)):
            value = (1 if rise else -1) * step + rng.normal(0, 0.1)
            middle = [("down", "up")[rise]] if labels else []
            rows.append(",".join(map(str, [f"s{name}", step, *middle, f"{value:.4f}", f"{rng.normal():.4f}"])))
    path.write_text("\n".join(rows) + "\n")
    return path


def wave(path: Path, steps: int = 90, *, id: bool = False, more: str = "") -> Path:
    days = np.datetime64("2024-01-01") + np.arange(steps)
    rows = ["series,day,sold" if id else "day,sold"]
    for name in ("north", "south") if id else ("",):
        for place, day in enumerate(days):
            value = 10 + (3 if name == "south" else 5) * np.sin(2 * np.pi * place / 7) + 0.05 * np.cos(place**2)
            rows.append(",".join([*([name] if id else []), str(day), f"{value:.4f}"]))
    path.write_text("\n".join(rows) + "\n" + more)
    return path


# forecast


def test_a_series_in_hand(run):
    said = run("forecast", "--values", "2,4,6,8,10", "--horizon", "3", "--run", "line")
    assert said.code == 0, said.err
    found = [float(row["throughtime"]) for row in table(Path("line/forecast.csv").read_text())]
    assert found == pytest.approx([12, 14, 16], rel=0.05)
    assert [row["ds"] for row in table(Path("line/forecast.csv").read_text())] == ["6", "7", "8"]
    assert Path("line/report.html").is_file()
    assert "it is level with the straight line" in said.out
    assert "What memory adds:" in said.out
    assert "no width" in said.out


def test_of_many_series_it_is_said_how_many_are_drawn(run):
    rows = [f"{name},{place},{place * weight}" for weight, name in enumerate("abcd") for place in range(8)]
    Path("many.csv").write_text("\n".join(["id,t,y", *rows]) + "\n")
    assert "Drawn are the first 3 of 4 series." in run("forecast", "many.csv", "--horizon", "2", "--run", "many").out
    page = Path("many/report.html").read_text()
    assert [page.count(f">Forecast of {name}<") for name in "abcd"] == [2, 2, 2, 0]  # of the past, and of the future


def test_forecast_of_a_file_and_going_on(run, tmp_path):
    file = wave(tmp_path / "sales.csv")
    said = run("forecast", str(file), "--horizon", "7", "--run", "sales", *FEW)
    assert said.code == 0, said.err
    rows = table(Path("sales/forecast.csv").read_text())
    assert [row["ds"][:10] for row in rows] == [str(np.datetime64("2024-03-31") + h) for h in range(7)]
    true = 10 + 5 * np.sin(2 * np.pi * (90 + np.arange(7)) / 7)
    assert np.abs([float(row["throughtime"]) for row in rows] - true).max() < 0.5
    assert {"throughtime-lo-90", "throughtime-hi-50"} <= rows[0].keys()
    assert "the seasonal naive" in said.out
    again = run("predict", "sales")
    assert again.code == 0
    assert [row["throughtime"] for row in table(again.out)] == [row["throughtime"] for row in rows]
    new = tmp_path / "new.csv"
    new.write_text("day,sold\n" + "".join(f"2024-03-31,{true[0]:.4f}\n2024-04-01,{true[1]:.4f}\n"))
    later = table(run("predict", "sales", str(new)).out)
    assert later[0]["ds"][:10] == "2024-04-02"
    assert abs(float(later[0]["throughtime"]) - true[2]) < 0.5
    backwards = run("predict", "sales", str(file))
    assert backwards.code == 2
    assert "must come after" in backwards.sentence


def test_several_series_and_json(run, tmp_path):
    file = wave(tmp_path / "both.csv", 60, id=True)
    said = run(
        "forecast", str(file), "--horizon", "4", "--windows", "2", "--json", "--no-report", "--run", "both", *FEW
    )
    assert said.code == 0, said.err
    found = json.loads(said.out)
    assert [row["unique_id"] for row in found["forecast"]] == ["north"] * 4 + ["south"] * 4
    assert {"throughtime", "naive", "seasonal naive", "network without memory"} <= found["scores"].keys()
    assert not Path("both/report.html").exists()


def test_what_is_known_ahead(run, tmp_path):
    rng = np.random.default_rng(0)
    price = rng.normal(size=84).round(3)
    rows = ["day,sold,price,other"]
    for place in range(84):
        sold = f"{5 - 2 * price[place]:.4f}" if place < 80 else ""
        rows.append(f"{np.datetime64('2024-01-01') + place},{sold},{price[place]},1")
    file = tmp_path / "priced.csv"
    file.write_text("\n".join(rows) + "\n")
    said = run("forecast", str(file), "--horizon", "4", "--value", "sold", "--known", "price", "--run", "priced", *FEW)
    assert said.code == 0, said.err
    assert "not used: 'other'" in said.out
    found = [float(row["throughtime"]) for row in table(Path("priced/forecast.csv").read_text())]
    assert np.abs(np.array(found) - (5 - 2 * price[80:])).max() < 1
    short = run("forecast", str(file), "--horizon", "9", "--value", "sold", "--known", "price", "--run", "x")
    assert short.code == 2
    assert "must name columns that go on 9 rows" in short.sentence


BAD = {
    "comma": ('day,sold\n2024-01-01,"1,5"\n2024-01-02,2\n', "row 2, column 'sold'"),
    "text": ("day,sold\n2024-01-01,1\n2024-01-02,many\n2024-01-03,2\n", "row 3, column 'sold'"),
    "infinite": ("day,sold\n2024-01-01,1\n2024-01-02,inf\n", "row 3, column 'sold'"),
    "twice": ("day,sold\n2024-01-01,1\n2024-01-01,2\n", "row 3, column 'day'"),
    "mixed": ("day,sold\n2024-01-01,1\nyesterday,2\n", "row 3, column 'day'"),
    "unsorted": ("day,sold\n2024-01-02,1\n2024-01-01,2\n", "row 3"),
    "header": ("day,sold\n", "must have rows"),
    "ragged": ("day,sold\n2024-01-01,1\n2024-01-02,1,2\n", "row 3"),
    "empty": ("", "empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tables_are_one_sentence_and_nothing_is_written(run, tmp_path, name):
    text, where = BAD[name]
    file = tmp_path / f"{name}.csv"
    file.write_text(text)
    said = run("forecast", str(file), "--horizon", "2")
    assert said.code == 2
    assert f"{name}.csv" in said.sentence
    assert where in said.sentence
    assert not Path("runs").exists()


def test_no_file_is_no_wait(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for words, named in (
        ([str(tmp_path / "pipe"), "--horizon", "2"], "pipe"),
        ([str(tmp_path), "--horizon", "2"], "directory"),
        ([str(tmp_path / "none.csv"), "--horizon", "2"], "none.csv"),
        (["--horizon", "2"], "FILE or --values"),
        (["--values", "1,2", str(tmp_path / "none.csv"), "--horizon", "2"], "not both"),
        (["--values", "1,x,3", "--horizon", "2"], "number 2 is 'x'"),
        (["--values", "1,2,3", "--horizon", "0"], "horizon"),
        (["--values", "1,2,3"], "horizon"),
        (["--values", "1,2,3", "--horizon", "2", "--level", "120"], "--level"),
        (["--values", "1,2,3", "--horizon", "2", "--time", "day"], "--time"),
    ):
        said = run("forecast", *words)
        assert said.code == 2, words
        assert named in said.sentence
    assert not Path("runs").exists()


# classify


def test_classify_sequences(run, tmp_path):
    file = sequences(tmp_path / "moves.csv")
    said = run("classify", str(file), "--run", "moves", "--updates", "80", "--units", "12")
    assert said.code == 0, said.err
    assert "8 of 40 examples, a fifth of every class by chance, are held out" in said.out
    assert "How well: The network" in said.out
    page = Path("moves/report.html").read_text()
    assert "What memory adds" in page
    assert "logistic regression" in page
    kept = table(Path("moves/predictions.csv").read_text())
    assert np.mean([row["class"] == row["predicted"] for row in kept]) > 0.8
    unknown = sequences(tmp_path / "new.csv", labels=False, seed=1)
    rows = table(run("predict", "moves", str(unknown)).out)
    assert len(rows) == 40
    assert np.mean([row["predicted"] == ("down", "up")[place % 2] for place, row in enumerate(rows)]) > 0.8
    assert float(rows[0]["p(down)"]) + float(rows[0]["p(up)"]) == pytest.approx(1, abs=1e-5)
    with_labels = run("predict", "moves", str(sequences(tmp_path / "told.csv", seed=2)), "--out", "told-out.csv")
    assert with_labels.out == ""
    assert "accuracy" in with_labels.err
    assert len(table(Path("told-out.csv").read_text())) == 40


def test_classify_texts(run, tmp_path):
    cold, warm = ("ice", "snow", "frost", "north"), ("sun", "sand", "heat", "south")
    for name, words in (("cold", cold), ("warm", warm)):
        rng = np.random.default_rng(0)
        lines = [" ".join(rng.choice(words, 5)) for _ in range(30)]
        (tmp_path / f"{name}.txt").write_text("\n".join(lines) + "\n")
    files = [str(tmp_path / "cold.txt"), str(tmp_path / "warm.txt")]
    said = run("classify", *files, "--run", "weather", "--updates", "60", "--units", "12")
    assert said.code == 0, said.err
    assert "logistic regression on TF-IDF" in said.out
    assert table(run("predict", "weather", "--text", "snow and ice and frost").out)[0]["predicted"] == "cold"
    assert table(run("predict", "weather", "--text", "sand and sun and heat").out)[0]["predicted"] == "warm"
    for words, named in (
        (["predict", "weather"], "FILE or --text"),
        (["predict", "weather", "--prompt", "x"], "--prompt"),
        (["sample", "weather"], "not trained on text"),
        (["classify", files[0]], "class"),
        (["classify"], "TRAIN"),
        (["classify", *files, "--shipped", "authors"], "TRAIN"),
        (["classify", *files, "--missing", "fill"], "--missing"),
        (["classify", *files, "--id", "x"], "--id"),
        (["classify", *files, "--run", "weather"], "weather"),
    ):
        answer = run(*words)
        assert answer.code == 2, words
        assert named in answer.sentence


def test_a_class_that_was_never_learned(run, tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\n" + "one two,a\nthree four,b\n" * 5)
    test.write_text("text,label\none,c\n")
    said = run("classify", str(train), "--test", str(test), *FEW)
    assert said.code == 2
    assert "'c'" in said.sentence
    assert not Path("runs").exists()


# tag


def test_tag(run, tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for _ in range(60):
        for word in rng.choice(["Ada", "Bob", "runs", "sees", "and"], 6):
            lines.append(f"{word}\t{'NAME' if word[0].isupper() else 'OTHER'}")
        lines.append("")
    file = tmp_path / "names.conll"
    file.write_text("\n".join(lines) + "\n")
    said = run("tag", str(file), "--run", "names", "--updates", "60", "--units", "12")
    assert said.code == 0, said.err
    assert "The last 12 of 60 sentences are held out" in said.out
    assert run("predict", "names", "--text", "Ada sees Bob").out == "Ada\tNAME\nsees\tOTHER\nBob\tNAME\n"
    alone = tmp_path / "alone.txt"
    alone.write_text("Bob\nruns\n\nAda\n")
    assert run("predict", "names", str(alone)).out == "Bob\tNAME\nruns\tOTHER\n\nAda\tNAME\n"
    untagged = run("tag", str(alone))
    assert untagged.code == 2
    assert "column of tags" in untagged.sentence


@pytest.mark.parametrize("command", ["classify", "tag"])
def test_stopped_at_its_page_a_command_leaves_no_run(run, tmp_path, monkeypatch, command):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(estimating, "write_task_report", stop)
    (tmp_path / "train.conll").write_text("Ada\tA\nruns\tB\n\n" * 10)
    (tmp_path / "train.csv").write_text("text,label\n" + "one two,a\nthree four,b\n" * 10)
    said = run(command, "train.csv" if command == "classify" else "train.conll", "--run", "r", *FEW)
    assert said.code == 130
    assert not Path("r").exists()


def test_parquet_is_read(run, tmp_path):
    frame = pl.read_csv(wave(tmp_path / "w.csv", 40), try_parse_dates=True)
    frame.write_parquet(tmp_path / "w.parquet")
    said = run("forecast", str(tmp_path / "w.parquet"), "--horizon", "2", "--run", "w", *FEW)
    assert said.code == 0, said.err
    assert len(table(Path("w/forecast.csv").read_text())) == 2


def test_the_network_without_memory_beside_a_language_model(run):
    said = run("train", "--text", "abcabdabe" * 30, "--updates", "12", "--units", "8", "--run", "r", report=True)
    assert said.code == 0
    assert "--resume r --twin" in Path("r/report.html").read_text()
    twin = run("train", "--resume", "r", "--twin", report=True)
    assert twin.code == 0, twin.err
    page = Path("r/report.html").read_text()
    assert "Without memory, an MLP over 8 characters" in page
    assert "without memory  " in twin.out
    assert run("train", "--text", "abc" * 30, "--split", "none", "--twin", "--updates", "2").code == 2
    assert Path("r/without-memory/config.toml").is_file()
    assert run("train", "--text", "abc" * 30, "--cell", "mlp", "--twin", "--updates", "2").code == 2


# What a stranger does


def steps(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join((header, *rows)) + "\n")
    return path


@pytest.fixture
def moves(run, tmp_path):
    file = sequences(tmp_path / "moves.csv")
    assert run("classify", str(file), "--run", "moves", "--no-report", *FEW).code == 0
    return "moves"


def test_predict_takes_columns_by_their_names(run, tmp_path, moves):
    whole = sequences(tmp_path / "whole.csv", labels=False, seed=3)
    asked = table(run("predict", moves, str(whole)).out)
    frame = pl.read_csv(whole)
    frame.select("b", "id", "a", "time").with_columns(c=pl.lit(7)).write_csv(tmp_path / "other.csv")
    said = run("predict", moves, str(tmp_path / "other.csv"))
    assert table(said.out) == asked
    assert "not used: 'c'" in said.err
    frame.rename({"a": "z"}).write_csv(tmp_path / "renamed.csv")
    renamed = run("predict", moves, str(tmp_path / "renamed.csv"))
    assert renamed.code == 2
    assert "must have the column 'a'" in renamed.sentence


def test_a_label_is_no_must_in_predicting(run, tmp_path):
    file = sequences(tmp_path / "moves.csv")
    pl.read_csv(file).rename({"label": "kind"}).write_csv(tmp_path / "named.csv")
    words = ["classify", str(tmp_path / "named.csv"), "--label", "kind", "--run", "named", "--no-report", *FEW]
    assert run(*words).code == 0
    bare = sequences(tmp_path / "bare.csv", labels=False)
    assert len(table(run("predict", "named", str(bare)).out)) == 40


def test_predict_says_what_was_never_learned(run, tmp_path, moves):
    file = steps(
        tmp_path / "new.csv", "id,time,label,a,b", *(f"s{k % 2},{k},{('up', 'side')[k % 2]},1,1" for k in range(6))
    )
    assert "'side' was not learned: 1 of 2 sequences count as wrong." in run("predict", moves, str(file)).err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["classify", "a.csv", "b.csv"], "a text a line"),
        (["classify", "one.csv"], "two classes or more; got only 'up'"),
        (["classify", "moves.csv", "--cell", "mlp"], "--cell must have a memory"),
        (["classify", "moves.csv", "--cell", "gruu"], "cell must be"),
        (["classify", "moves.csv", "--credit", "x"], "credit must be"),
        (["classify", "moves.csv", "--run", "moves.csv/deep"], "--run must be where a folder can be made"),
        (["classify", "moves.csv", "--test", "t.txt"], "must be a table"),
        (["classify", "moves.csv", "--test", "none.txt"], "existing file"),
        (["classify", "moves.csv", "--test", "wide.ts"], "--test must have 2 numbers a step"),
        (["classify", "texts.csv", "--test", "wide.ts"], "must have texts"),
        (["classify", "--shipped", "authors", "--missing", "fill"], "--missing must be left out with --shipped"),
        (["tag", "same.txt"], "two tags or more; got only 'O'"),
        (["tag", "two.txt", "--cell", "mlp", "--window", "3"], "--cell must have a memory"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence_before_the_work(run, words, named):
    sequences(Path("moves.csv"))
    steps(Path("one.csv"), "id,time,label,a", "s,0,up,1", "t,0,up,2")
    steps(Path("texts.csv"), "text,label", *["good day,up", "bad night,down"] * 5)
    Path("t.txt").write_text("some text\n")
    Path("wide.ts").write_text("@classLabel true up down\n@data\n1,2,3:up\n")
    Path("same.txt").write_text("a\tO\nb\tO\n")
    Path("two.txt").write_text("a\tO\nb\tX\n")
    said = run(*words)
    assert said.code == 2
    assert named in said.sentence
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert not Path("runs").exists()


def test_a_run_of_whole_files_reads_one_file_as_one_text(run):
    for name in ("up", "down"):
        Path("corpus", name).mkdir(parents=True)
        for place in range(5):
            Path("corpus", name, f"{place}.txt").write_text(f"it goes {name}\nand on {place}\n")
    assert run("classify", "corpus", "--run", "files", "--no-report", *FEW).code == 0
    rows = table(run("predict", "files", "corpus/up/1.txt").out)
    assert [row["id"] for row in rows] == ["1.txt"]


def test_texts_that_are_not_read_whole_are_said(run):
    rows = [f"{'word ' * (2001 + 5 * place)},{('up', 'down')[place % 2]}" for place in range(4)]
    steps(Path("long.csv"), "text,label", *rows)
    said = run("classify", "long.csv", "--run", "long", "--no-report", "--updates", "1", "--units", "4")
    assert "4 of 4 texts are longer than 2,000 words; the first 2,000 are read." in said.out
    assert "4 of 4 texts are longer" in run("predict", "long", "long.csv").err


def test_a_tag_that_stands_only_in_what_is_held_out(run):
    plain = "a\tX\nb\tY\n\n" * 8
    Path("rare.txt").write_text(plain + "c\tZ\na\tX\n\n" * 2)
    said = run("tag", "rare.txt", "--run", "rare", *FEW)
    assert said.code == 0, said.err
    assert "'Z' was not learned: 2 of 4 words to judge by count as wrong." in said.out
    assert "'Z' was not learned: 2 of 20 words count as wrong." in run("predict", "rare", "rare.txt").err


@pytest.mark.parametrize("words", [["--cell", "lstm"], ["--credit", "rtrl"], ["--forwards"]])
def test_the_network_without_memory_is_as_large_as_the_one_that_is_asked_for(run, words):
    Path("two.txt").write_text("a\tX\nb\tY\n\n" * 10)
    sequences(Path("moves.csv"))
    asked = [["tag", "two.txt"]] + ([] if "--forwards" in words else [["classify", "moves.csv"]])
    for command in asked:
        said = run(*command, "--updates", "2", "--no-report", *words)
        assert "What memory adds" in said.out
        assert "not of one size" not in said.out


@pytest.mark.parametrize("unit", ["char", "word"])
def test_train_and_the_language_model_are_one_training(run, unit):
    text = "the cat sat on the mat\nand the dog sat on the log\n" * 20
    Path("t.txt").write_text(f"\n{text}\n")
    words = ["--unit", unit, "--split", "none", "--units", "8", "--seed", "3", "--probe-every", "0"]
    assert run("train", "t.txt", "--run", "r", "--updates", "9", *words).code == 0
    model = LanguageModel(unit=unit, units=8, updates=9, random_state=3).fit(text)
    told = load("r").net.state_dict()
    assert all(torch.equal(weight, told[name]) for name, weight in model.net_.state_dict().items())
