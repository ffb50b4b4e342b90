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
from terminal import run_command

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
    assert Path("r/without-memory/config.toml").is_file()
    assert run("train", "--text", "abc" * 30, "--cell", "mlp", "--twin", "--updates", "2").code == 2
