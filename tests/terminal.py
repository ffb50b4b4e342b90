"""What the tests of the command line share: a command line in a folder of its own, and a text to learn from."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import throughtime as tt
from throughtime import cli

SMALL = ["--units", "8", "--steps", "16", "--streams", "4"]
WORDS = ["the", "cat", "dog", "saw", "bit", "a", "man", "and", "ran", "far", ".\n"]


def story(length: int = 6000, seed: int = 0) -> str:
    """Sentences drawn from a few words: short, but with something to learn."""
    return " ".join(np.random.default_rng(seed).choice(WORDS, length // 4))[:length]


class Answer:
    """What one command line did."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def sentence(self) -> str:
        """Stderr, which must be one line, and no traceback."""
        assert self.err.count("\n") == 1, self.err
        assert "Traceback" not in self.err
        return self.err.strip()


Run = Callable[..., Answer]


@pytest.fixture(name="run")
def run_command(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line in an empty folder of its own; a training writes its report where a test asks for it."""
    monkeypatch.chdir(tmp_path)

    def call(*words: object, report: bool = False) -> Answer:
        capsys.readouterr()
        quick = ["--no-report"] if words[:1] == ("train",) and not report else []
        code = cli.main([*map(str, words), *quick])
        return Answer(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module", name="trained")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a small text, to read from only."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "story.txt").write_text(story())
    words = ["train", str(folder / "story.txt"), "--split", "0.8,0.1,0.1", "--updates", "60", *SMALL]
    assert cli.main([*words, "--run", str(folder / "run"), "--no-report"]) == 0
    return folder / "run"


def shell(*words: str, **options) -> subprocess.Popen[str]:
    """Python with these arguments, in a process of its own."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(tt.__file__).parents[1])}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    # A shell that starts the tests in the background has them ignore SIGINT, and so would the program.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([sys.executable, *words], env=environment, preexec_fn=heed, **options)


def numbers(line: str) -> list[float]:
    """The decimal fractions in a line."""
    return [float(found) for found in re.findall(r"-?\d+\.\d+", line)]
