"""The command `throughtime`: reads what the user typed, calls commands.py, and turns errors into sentences and codes.

Exit codes: 0 done; 1 the job failed; 2 something the user gave is wrong; 128 + n stopped by signal n (Ctrl-C: 130).
Torch is imported when a command runs, not before, so that help and version answer at once.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError, Parameter
from cyclopts.validators import Number

from throughtime.cli.options import (
    Bound,
    Count,
    NetworkOptions,
    Options,
    Positive,
    TextOptions,
    TrainingOptions,
    Whole,
)
from throughtime.version import __version__

app = App(
    name="throughtime",
    version=__version__,
    help="Train recurrent networks, and see how far back they learn.",
    help_epilogue="Start: throughtime train --text machine --split none. With --debug an error shows where it arose.",
    help_format="plaintext",
    exit_on_error=False,
    print_error=False,
    result_action="return_value",
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative=""),
)

Words = Annotated[str, Parameter(allow_leading_hyphen=True)]
"""A text of the user's, which may begin with a hyphen."""


@app.command(usage="Usage: throughtime train FILE... | FOLDER | --text STRING [OPTIONS]")
def train(
    *files: str,
    text: Words | None = None,
    corpus: TextOptions = TextOptions(),
    network: NetworkOptions = NetworkOptions(),
    training: TrainingOptions = TrainingOptions(),
    run: str | None = None,
    resume: str | None = None,
    json: bool = False,
    no_report: bool = False,
) -> int:
    """Train a network on text; the run's folder keeps all that sample, evaluate and --resume need.

    Ctrl-C ends cleanly: the run is saved, and the command that goes on is printed.

    Parameters
    ----------
    files
        Text files, in this order, or a folder of .txt files.
    text
        A text in hand, in place of files.
    run
        The folder to make. [default: runs/NAME of the text, or NAME-2, ...]
    resume
        The folder of a run to go on with, exactly; with larger --epochs, --updates or --time if wanted.
    json
        A JSON object for every update on stdout, and nothing else there.
    no_report
        Write no report.html at the end; `throughtime report RUN` writes it later.
    """
    from throughtime.cli import commands

    options = Options(text=corpus, network=network, training=training)
    if resume is None:
        return commands.train(files, text, options, run, json=json, report=not no_report)
    if files or text is not None or run is not None:
        raise ValueError("--resume must go without FILE, --text and --run: the run has its own.")
    return commands.resume(resume, options, json=json, report=not no_report)


@app.command
def sample(
    run: Path,
    /,
    *,
    prompt: Words = "",
    length: Count = 500,
    temperature: Bound = 1.0,
    top_k: Count | None = None,
    seed: Whole | None = None,
) -> int:
    """Write text that a run makes up, as it comes.

    Parameters
    ----------
    run
        The folder of the run.
    prompt
        What the text begins with.
    length
        Tokens to make.
    temperature
        Below 1 safer, above 1 wilder, 0 always the most likely token.
    top_k
        Draw from the so many most likely tokens alone.
    seed
        The same seed gives the same text.
    """
    from throughtime.cli import commands

    return commands.sample(str(run), prompt, length, temperature, top_k, seed)


@app.command
def evaluate(
    run: Path,
    file: str | None = None,
    /,
    *,
    text: Words | None = None,
    part: Literal["train", "validation", "test"] | None = None,
    shuffle: bool = False,
) -> int:
    """How well a run predicts a text, beside n-grams counted on its training part.

    Parameters
    ----------
    run
        The folder of the run.
    file
        The text; without it a part of the run's own.
    text
        A text in hand: prints the surprise of every token.
    part
        Of the run's own text. [default: validation]
    shuffle
        Also on the same tokens in random orders: what order is worth.
    """
    from throughtime.cli import commands

    return commands.evaluate(str(run), file, text, part, shuffle=shuffle)


@app.command
def predict(run: Path, /, *, prompt: Words = "", top: Count = 5) -> int:
    """The probabilities of the token that comes after a prompt.

    Parameters
    ----------
    run
        The folder of the run.
    prompt
        The tokens before; without it, a line break.
    top
        How many of the most likely tokens to list.
    """
    from throughtime.cli import commands

    return commands.predict(str(run), prompt, top)


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
def demo(*, time: str = "2m", run: Path = Path("runs/demo")) -> int:
    """Train on plays of Shakespeare, and write a report.html that says what was learned and how far back.

    Parameters
    ----------
    time
        How long to train.
    run
        The folder to make; the folder of an earlier demo is replaced, so that the report stays where it was.
    """
    from throughtime.cli.demo import demo as show

    return show(time, run)


@app.command
def doctor() -> int:
    """Versions, devices, threads, and which backend runs which cell, and why."""
    from throughtime.cli import commands

    return commands.doctor()


def main(tokens: Sequence[str] | None = None) -> int:
    """Run a command line, sys.argv's when none is given; returns the exit code."""
    words = list(sys.argv[1:] if tokens is None else tokens)
    debug = "--debug" in words
    words = [word for word in words if word != "--debug"]
    _mend_streams()
    try:
        return _guarded(words) or 0
    except Exception as error:
        if debug:
            traceback.print_exc()
        sentence, code = _judge(error, words)
        print(sentence, file=sys.stderr)
        return code


def _guarded(words: list[str]) -> int | None:
    """The command itself, with what is no error: Ctrl-C, and a reader of stdout who has seen enough."""
    try:
        code = app(words)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _judge(error: Exception, words: list[str]) -> tuple[str, int]:
    if isinstance(error, CycloptsError):
        command = words[0] if words and words[0] in app else ""
        return f"{error} See: {' '.join(['throughtime', *filter(None, [command]), '--help'])}", 2
    if isinstance(error, ImportError):
        return f"A part of throughtime, or of torch, cannot be loaded: {error}. Install it again.", 1
    from throughtime.cli.failures import judge

    return judge(error)


def _mend_streams() -> None:
    """A closed stream takes what is written to it, and one that cannot spell a character writes another."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        reconfigure: Callable[..., None] | None = getattr(getattr(sys, name), "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
