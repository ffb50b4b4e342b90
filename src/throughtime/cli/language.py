"""What may be typed about language models: train, sample, evaluate, predict, demo."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from throughtime.cli.application import Words, app
from throughtime.cli.options import Bound, Count, NetworkOptions, Options, TextOptions, TrainingOptions, Whole


@app.command(usage="Usage: throughtime train FILE... | FOLDER | --text STRING [OPTIONS]")
def train(
    *files: str,
    text: Words | None = None,
    corpus: TextOptions = TextOptions(),
    network: NetworkOptions = NetworkOptions(),
    training: TrainingOptions = TrainingOptions(),
    run: str | None = None,
    resume: str | None = None,
    twin: bool = False,
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
    twin
        Train a network without memory beside it: an MLP over 8 tokens with as many weights, on the same data, for as
        many updates, which takes as long again. With --resume also for a run that is at its end.
    json
        A JSON object for every update on stdout, and nothing else there.
    no_report
        Write no report.html at the end; `throughtime report RUN` writes it later.
    """
    from throughtime.cli import commands

    options = Options(text=corpus, network=network, training=training)
    if resume is None:
        return commands.train(files, text, options, run, twin=twin, json=json, report=not no_report)
    if files or text is not None or run is not None:
        raise ValueError("--resume must go without FILE, --text and --run: the run has its own.")
    return commands.resume(resume, options, twin=twin, json=json, report=not no_report)


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


@app.command(usage="Usage: throughtime predict RUN [FILE | --text STRING | --prompt STRING] [OPTIONS]")
def predict(
    run: Path,
    file: str | None = None,
    /,
    *,
    prompt: Words | None = None,
    text: Words | None = None,
    top: Count | None = None,
    out: Path | None = None,
) -> int:
    """What a run predicts: the next token, the class of sequences or texts, tags, or the future of a series.

    Parameters
    ----------
    run
        The folder of the run.
    file
        Of a classifier: examples as it was trained on, with or without classes. Of a tagger: sentences, one word a
        line. Of a forecaster: the new rows of its series, from which it goes on. Of a language model: the tokens
        before.
    prompt
        Of a language model: the tokens before; without it, a line break.
    text
        A text to classify, or a sentence to tag.
    top
        Of a language model: how many of the most likely tokens to list. [default: 5]
    out
        The file to write the predictions to. [default: stdout]
    """
    from throughtime.cli import predicting

    return predicting.predict(str(run), file, prompt=prompt, text=text, top=top, out=out)


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
