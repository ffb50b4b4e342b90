"""What may be typed to look into networks and loops: compare, flow, report, audit, explain, verify, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from throughtime.cli.application import Words, app
from throughtime.cli.options import Count, NetworkOptions, Options, Positive, TextOptions, TrainingOptions, Whole


@app.command(usage="Usage: throughtime compare RUN | FILE | --shipped NAME [OPTIONS]")
def compare(
    source: str | None = None,
    /,
    *,
    credit: tuple[str, ...] = (),
    against: str = "bptt",
    steps: Count | None = None,
    streams: Count | None = None,
    windows: Count | None = None,
    draws: Annotated[int, Parameter(validator=Number(gte=2))] = 8,
    tolerance: Positive = 0.1,
    picture: Path | None = None,
    json: bool = False,
    corpus: TextOptions = TextOptions(),
    network: NetworkOptions = NetworkOptions(),
) -> int:
    """How far each algorithm's gradient is from the exact one, by block and by lag, and what it costs.

    Nothing is trained. The weights are those of RUN; with a FILE, those that a training on it would begin with.

    Parameters
    ----------
    source
        The folder of a run, or a text file.
    credit
        An algorithm to compare, spelled as in train; may be given again. That of the run comes first.
    against
        What they are held against.
    steps
        Of a window: as far back as the exact gradient looks. [default: twice the steps of a chunk in training]
    streams
        Read side by side. [default: as in training, at most 8]
    windows
        Taken one after the other from the beginning of the training part. [default: 8, or what there is]
    draws
        Of every random algorithm.
    tolerance
        The error that the smallest h is looked for, as a share of the gradient.
    picture
        A file for the picture, .png, .svg or .pdf.
    json
        All the numbers as one JSON object on stdout, and nothing else there.
    """
    from throughtime.cli import comparing

    options = Options(text=corpus, network=network, training=TrainingOptions())
    where = comparing.Stretch(steps, streams, windows)
    settings = {"against": against, "draws": draws, "tolerance": tolerance}
    return comparing.compare(source, credit, where, options, settings, picture, json=json)


@app.command
def flow(
    run: Path,
    file: str | None = None,
    /,
    *,
    lags: Count | None = None,
    samples: Count = 16,
    steps: Count | None = None,
    json: bool = False,
) -> int:
    """How far back the error of a run reaches, why, and what to try.

    Parameters
    ----------
    run
        The folder of the run.
    file
        The text to measure on; without it what was held out of the run's own, else the text it learned from.
    lags
        How far back to look. [default: 128, or twice as far as the training; less on a short text]
    samples
        Steps whose error is followed, in each of up to 8 streams.
    steps
        Steps of text to read, more than lags. [default: twice the lags]
    json
        All the numbers as one JSON object on stdout, and nothing else there.
    """
    from throughtime.cli import measuring

    return measuring.flow(run, file, lags, samples, steps, json=json)


@app.command(usage="Usage: throughtime report RUN... [OPTIONS]")
def report(*runs: Path, out: Path | None = None) -> int:
    """Write the page of a run, report.html in its folder; of several runs one page that compares them.

    Parameters
    ----------
    runs
        The folder of a run, or of several.
    out
        The page that compares. [default: comparison.html beside the first run]
    """
    from throughtime.cli import reporting

    return reporting.report(runs, out)


@app.command(usage="Usage: throughtime audit FILE.py[:FUNCTION]... [OPTIONS]")
def audit(*loops: str, picture: Path | None = None) -> int:
    """Which errors a training loop of your own lets reach which uses of the weights, and what that is called.

    FILE.py defines a function without arguments that returns tt.audit(loop, module, x, y). Exit code 0: the loop is
    right; 1: something is wrong with it.

    Parameters
    ----------
    loops
        Python files, each with a function audit() or with the name of another behind a colon.
    picture
        A file for the picture of the matrix, .png, .svg or .pdf.
    """
    from throughtime.cli import auditing

    return auditing.audit(loops, picture)


@app.command(usage="Usage: throughtime explain [WORD] [OPTIONS]")
def explain(
    word: Words | None = None,
    /,
    *,
    values: Words | None = None,
    cell: str | None = None,
    units: int | None = None,
    seed: Whole | None = None,
    rate: float | None = None,
    run: Path | None = None,
    language: Literal["en", "pt"] = "en",
    out: Path = Path("explain.html"),
) -> int:
    """Write a page that unrolls a small network over a word: forward, backward and update, with every number.

    It opens offline in any browser; the arrow keys go through its steps.

    Parameters
    ----------
    word
        2 to 10 letters; at each the next one is to be predicted. [default: machine]
    values
        A series in place of a word: 2 to 10 numbers, as in --values 1,2,3.
    cell
        elman, gru or lstm; elman also as elman:phi=relu. [default: elman]
    units
        3 to 8. [default: 4]
    seed
        Of the first weights. [default: 0]
    rate
        The learning rate of its updates. [default: 0.1]
    run
        A trained run to explain in place of first weights: one layer of at most 8 units, with --embedding 0.
    language
        en: English; pt: Portuguese.
    out
        The file to write; one that is there is replaced.
    """
    from throughtime.cli import explaining

    given = {"cell": cell, "units": units, "seed": seed}
    return explaining.explain(word, values, given, rate, run, language, out)


@app.command
def verify(*laws: str) -> int:
    """Check the library's laws on this machine: gradients, backends, algorithms.

    Parameters
    ----------
    laws
        Groups of laws; all of them when none is named.
    """
    from throughtime.cli import commands

    return commands.check(laws)


@app.command
def doctor() -> int:
    """Versions, devices, threads, and which backend runs which cell, and why."""
    from throughtime.cli import commands

    return commands.doctor()
