"""forecast and predict of its runs: going on without ids or times, JSON, what is said once, and Ctrl-C."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from terminal import run_command

from throughtime.cli import forecast_page, forecasting
from throughtime.cli.task_options import SeriesOptions, TaskOptions
from throughtime.estimators import load_estimator
from throughtime.nets import parameters_of

__all__ = ["run_command"]

FEW = ("--updates", "2", "--units", "4", "--no-report")


def column(path: Path, values: object, name: str = "sold") -> str:
    path.write_text("\n".join([name, *map(str, np.atleast_1d(values))]) + "\n")
    return str(path)


@pytest.mark.parametrize("name", ["y", "sold"])
def test_values_in_hand_go_on_by_a_file_of_one_column(run, tmp_path, name):
    assert run("forecast", "--values", "2,4,6,8,10", "--horizon", "3", "--run", "line", *FEW).code == 0
    said = run("predict", "line", column(tmp_path / "new.csv", [12, 14], name))
    assert said.code == 0, said.err
    assert [row.split(",")[:3] for row in said.out.split()[1:]] == [
        ["values", "8", "16.0"],
        ["values", "9", "18.0"],
        ["values", "10", "20.0"],
    ]
    dated = tmp_path / "dated.csv"
    dated.write_text("ds,y\n2020-01-01,12\n2020-01-02,14\n")
    assert "must be whole numbers, as those before; got 2020-01-01" in run("predict", "line", str(dated)).sentence


def test_a_file_without_times_goes_on_by_its_rows(run, tmp_path):
    file = column(tmp_path / "first.csv", np.arange(30))
    assert run("forecast", file, "--horizon", "2", "--run", "rows", *FEW).code == 0
    said = run("predict", "rows", column(tmp_path / "second.csv", np.arange(30, 33)))
    assert said.code == 0, said.err
    assert said.out.split()[1].startswith("sold,33,33.0")
    assert "which follow the last one seen" in said.err


def test_json_has_null_for_a_score_without_a_unit(run):
    said = run("forecast", "--values", "5,5,5,5,5,5,5,5", "--horizon", "2", "--json", "--run", "flat", *FEW)
    assert said.code == 0, said.err
    found = json.loads(said.out, parse_constant=pytest.fail)
    assert found["scores"]["throughtime"]["MASE"] is None
    assert found["scores"]["throughtime"]["sMAPE"] == 0


def test_what_is_missing_is_said_once_and_a_constant_is_measured(run, tmp_path):
    values = [5 if k % 7 != 3 else "NA" for k in range(40)]
    said = run("forecast", column(tmp_path / "few.csv", values), "--horizon", "2", "--run", "few", *FEW)
    assert said.code == 0, said.err
    assert said.out.count("values are missing") == 1
    assert "6 of 40 values are missing (the first in row 5)" in said.out
    assert "With memory it reaches sMAPE 0" in said.out


def test_a_run_that_was_stopped_before_its_page_is_gone(run, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(forecasting, "write_task_report", stop)
    said = run("forecast", "--values", "1,2,4,3", "--horizon", "2", "--run", "stopped")
    assert said.code == 130
    assert not Path("stopped").exists()


def test_months_and_quarters_are_written_as_they_were_read(run, tmp_path):
    for name, stamps, ahead in (
        ("months", [f"20{20 + k // 12}-{k % 12 + 1:02d}" for k in range(36)], ["2023-01", "2023-02"]),
        ("quarters", [f"20{10 + k // 4}Q{k % 4 + 1}" for k in range(36)], ["2019Q1", "2019Q2"]),
    ):
        rows = [f"{stamp},{10 + place % 4}" for place, stamp in enumerate(stamps)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["time,y", *rows]) + "\n")
        said = run("forecast", f"{name}.csv", "--horizon", "2", "--updates", "10", "--run", name, "--no-report")
        assert said.code == 0, said.err
        lines = (tmp_path / name / "forecast.csv").read_text().splitlines()[1:]
        assert [line.split(",")[1] for line in lines] == ahead
        assert [line.split(",")[1] for line in run("predict", name).out.splitlines()[1:]] == ahead


def test_the_network_without_memory_is_of_one_size(run, tmp_path):
    rows = [f"{place},{np.sin(place / 3) + np.cos(place**2) / 9:.4f}" for place in range(120)]
    (tmp_path / "w.csv").write_text("\n".join(["t,y", *rows]) + "\n")
    words = ["forecast", "w.csv", "--horizon", "2", "--updates", "5", "--windows", "1", "--no-report"]
    assert run(*words, "--cell", "lstm", "--units", "8", "--run", "lstm").code == 0
    refused = run(*words, "--cell", "mlp", "--run", "mlp")
    assert refused.code == 2
    assert "--cell must have a memory" in refused.sentence
    model = load_estimator("lstm")
    bare = forecasting._without(model, 2, SeriesOptions(), TaskOptions(cell="lstm", units=8, updates=5))
    bare.fit([float(row.split(",")[1]) for row in rows])
    sizes = [parameters_of(one.net_) for one in (model, bare)]
    assert abs(sizes[0] - sizes[1]) < 0.1 * sizes[0]


def test_the_learning_curves_of_several_networks_stand_apart():
    records = [{"update": update, "loss": 1.0, "validation": None} for update in (1, 2, 3, 1, 2, 1)]
    found = forecast_page._courses(records)
    assert {name: len(part) for name, part in found.items()} == {"network 1": 3, "network 2": 2, "network 3": 1}
    assert forecast_page._courses(records[:3]) == records[:3]
    assert not forecast_page._courses([])
