"""Draw the error by lag of runs that were trained on text, with the line where h cut it off.

    python benchmarks/error_by_lag.py runs/elman runs/gru runs/lstm docs/error-by-lag.svg

A run that is not there is trained first, a minute or so on two cores: 128 units of the cell that its folder is named
after, on the eight plays of Shakespeare that come with the library.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib

import throughtime as tt
from throughtime import cli
from throughtime.cli.fitting import text_of
from throughtime.credit import credit_named
from throughtime.flow import ErrorByLag, error_by_lag
from throughtime.pictures import ErrorAgainstLag
from throughtime.runs import Run

LAGS = 128
TRAINING = ["train", "--shipped", "shakespeare", "--units", "128", "--updates", "3000"]
NAMES = {"elman": "Elman", "gru": "GRU", "lstm": "LSTM"}


def measure(run: Run) -> ErrorByLag:
    """On the first characters of the run's validation part."""
    return error_by_lag(run.net, tt.cross_entropy, text_of(run).chunks(8, 2 * LAGS, "validation")[0], LAGS)


def main() -> None:
    *folders, picture = map(Path, sys.argv[1:])
    for folder in folders:
        if not folder.exists() and cli.main([*TRAINING, "--cell", folder.name, "--run", str(folder)]):
            sys.exit(1)
    runs = {NAMES.get(folder.name, folder.name): tt.load(folder) for folder in folders}
    h = {name: credit_named(run.config["training"]["credit"]).h for name, run in runs.items()}
    errors = {name: measure(run) for name, run in runs.items()}
    (first, *others) = errors
    drawn = ErrorAgainstLag(errors, h) if others else ErrorAgainstLag(errors[first], h[first])
    matplotlib.rcParams["svg.hashsalt"] = "error by lag"  # the same picture, the same file
    drawn.plot().figure.savefig(picture, facecolor="white", metadata={"Date": None})
    print(drawn.reading)


if __name__ == "__main__":
    main()
