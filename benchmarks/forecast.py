"""Does the forecaster, with its defaults, forecast better than what it must beat? Means of some seeds.

    python benchmarks/forecast.py              every set that is there
    python benchmarks/forecast.py co2 airline  some
    python benchmarks/forecast.py --laser FILE.npy
    python benchmarks/forecast.py memory       peak memory of a fit to a million hours

sunspots  months from 1749, out of the statsmodels wheel: 50 origins, 12 ahead, a year apart
co2       weeks at Mauna Loa, which come with the library: 18 origins, 26 ahead, half a year apart
airline   months, out of the sktime wheel: 4 origins, 12 ahead, a year apart
laser     Santa Fe set A (Huebner and others 1989) as an .npy: fitted to the first 1000, one step ahead over 1001-1100
Each is fitted once, before the first origin. --cell mlp --window k is the network without memory.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import resource
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import polars as pl

from throughtime import scores
from throughtime.baselines import autoregression
from throughtime.data import co2
from throughtime.estimators.forecaster import Forecaster


def wheel(package: str, path: str) -> Path | None:
    """A data file inside an installed package, or nothing."""
    spec = find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else None
    return file if file and file.exists() else None


def months(first: int, values: list[float]) -> pl.DataFrame:
    stamps = [dt.date(first + k // 12, k % 12 + 1, 1) for k in range(len(values))]
    return pl.DataFrame({"ds": stamps, "y": values})


def sunspots() -> pl.DataFrame | None:
    file = wheel("statsmodels", "datasets/sunspots/src/sunspots_monthly.dat")
    if file is None:
        return None
    rows = [line.split() for line in file.read_text().splitlines()]
    return months(1749, [float(v) for row in rows if len(row) >= 13 and row[0].isdigit() for v in row[1:13]])


def airline() -> pl.DataFrame | None:
    file = wheel("sktime", "datasets/data/Airline/Airline.csv")
    if file is None:
        return None
    with file.open() as opened:
        return months(1949, [float(row[-1]) for row in list(csv.reader(opened))[1:]])


def weeks() -> pl.DataFrame:
    days, ppm = co2()
    return pl.DataFrame({"ds": days.astype("datetime64[us]"), "y": ppm}).with_columns(pl.col("ds").cast(pl.Date))


ROLLING = {"sunspots": (sunspots, 12, 50, 12), "co2": (weeks, 26, 18, 26), "airline": (airline, 12, 4, 12)}


def rolling(name: str, seeds: int, cell: str, window: int | None) -> None:
    make, horizon, windows, step = ROLLING[name]
    frame = make()
    if frame is None:
        print(f"{name}: the wheel with its data is not installed")
        return
    found = []
    for seed in range(seeds):
        start = time.perf_counter()
        model = Forecaster(horizon, cell=cell, window=window, random_state=seed)
        found.append(model.backtest(frame, windows=windows, step=step))
        print(f"{name} seed {seed}, {time.perf_counter() - start:.0f} s: {found[-1].summary}")
    for model, row in found[0].scores.items():
        means = {measure: np.mean([one.scores[model][measure] for one in found]) for measure in row}
        print(f"{name:9} {model:22} " + "  ".join(f"{measure} {value:.3f}" for measure, value in means.items()))


def laser(file: Path, seeds: int, cell: str, window: int | None) -> None:
    y = np.load(file).ravel().astype(float)[:1100]
    linear = autoregression(y[:1000], most=25).paths(y, np.arange(999, 1099), 1)[:, 0]
    errors = []
    for seed in range(seeds):
        model = Forecaster(1, cell=cell, window=window, random_state=seed).fit(y[:1000])
        said = []
        for k in range(1000, 1100):
            said.append(model.predict()["throughtime"][0])
            model.update(y[k : k + 1])
        errors.append(scores.nmse(y[1000:], said))
    print(f"laser     one-step NMSE {np.mean(errors):.4f} ({', '.join(f'{e:.4f}' for e in errors)})", end="")
    print(f"  linear autoregression {scores.nmse(y[1000:], linear):.4f}")


def memory() -> None:
    steps, random = 1_000_000, np.random.default_rng(0)
    y = 3 * np.sin(np.arange(steps) * np.pi / 12) + random.normal(size=steps)
    hours = pl.datetime_range(dt.datetime(1900, 1, 1), interval="1h", end=dt.datetime(2015, 1, 1), eager=True)[:steps]
    start = time.perf_counter()
    Forecaster(24, random_state=0).fit(pl.DataFrame({"ds": hours, "y": y[: len(hours)]}))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"memory    {len(hours)} hours in {time.perf_counter() - start:.0f} s, peak {peak:.2f} GiB, torch included")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--laser", type=Path, metavar="FILE.npy")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cell", default="gru")
    parser.add_argument("--window", type=int)
    options = parser.parse_args()
    if options.laser is not None:
        laser(options.laser, options.seeds, options.cell, options.window)
    for name in options.sets or ([] if options.laser else ROLLING):
        if name in ROLLING:
            rolling(name, options.seeds, options.cell, options.window)
        elif name == "memory":
            memory()
        else:
            parser.error(f"sets must be {', '.join(ROLLING)} or memory; got {name!r}")


if __name__ == "__main__":
    main()
