"""docs/estimators.md: its examples run, one after the other, and do what it says; its commands and links are there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "estimators.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples leave behind."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("examples"))
        for code in re.findall(r"^```python\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
            exec(compile(code, "docs/estimators.md", "exec"), found)
        found["folder"] = Path("runs/forecaster").resolve()
    return found


def test_the_examples_do_what_is_said(names: dict[str, Any]) -> None:
    assert len(names["found"].sequences) == 120
    assert names["found"].features == ("load",)
    assert [len(row) for row in names["found"].sequences] == [len(row) for row in names["X"]]
    assert names["model"].score(names["X"][80:], names["y"][80:]) > 0.8
    assert names["author"].predict(["not to be", "the machine"]).tolist() == ["S", "W"]
    assert names["tagger"].predict([["the", "cat", "runs"]])[0].tolist() == ["D", "N", "V"]
    assert names["forecaster"].predict(6)["ds"].to_list() == list(range(138, 144))
    assert {"recipe_", "net_"} <= vars(names["model"]).keys()


def test_what_is_kept_says_the_same(names: dict[str, Any]) -> None:
    loaded = names["tt"].estimators.load_estimator(names["folder"])
    np.testing.assert_array_equal(loaded.predict(6).to_numpy(), names["forecaster"].predict(6).to_numpy())


def test_the_commands_and_links_are_there() -> None:
    for target in re.findall(r"python (benchmarks/\w+\.py)|pytest\s(tests/\w+\.py)|\]\(([^)]+)\)", TEXT):
        place = next(part for part in target if part)
        assert (ROOT / place).is_file() or (ROOT / "docs" / place).is_file(), place
