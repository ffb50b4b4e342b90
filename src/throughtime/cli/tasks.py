"""What may be typed about series, sequences and tags: forecast, classify, tag."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from throughtime.cli.application import Words, app
from throughtime.cli.options import Count
from throughtime.cli.task_options import ExampleOptions, SeriesOptions, TaskOptions

Column = Annotated[int, Parameter(allow_leading_hyphen=True)]


@app.command(usage="Usage: throughtime forecast FILE --horizon N | --values NUMBERS --horizon N [OPTIONS]")
def forecast(
    file: str | None = None,
    /,
    *,
    horizon: Count,
    values: Words | None = None,
    columns: SeriesOptions = SeriesOptions(),
    network: TaskOptions = TaskOptions(),
    run: str | None = None,
    json: bool = False,
    no_report: bool = False,
) -> int:
    """Forecast a series, or many, beside simple methods and a network without memory.

    The last windows of the data are forecast from what came before them, to see how good it is; then the future is
    forecast from everything. The run's folder keeps forecast.csv, the page and the network.

    Parameters
    ----------
    file
        CSV or Parquet with a column of times and one of values; with one of ids for several series.
    horizon
        Steps ahead.
    values
        A series in hand, in place of a file: numbers with commas between, as in --values 2,4,6,8,10.
    run
        The folder to make. [default: runs/NAME of the file, or NAME-2, ...]
    json
        The forecast and the scores as one JSON object on stdout, and nothing else there.
    no_report
        Write no report.html.
    """
    from throughtime.cli import forecasting

    return forecasting.forecast(file, values, horizon, columns, network, run, json=json, report=not no_report)


@app.command(usage="Usage: throughtime classify TRAIN... [--test FILE] | --shipped authors [OPTIONS]")
def classify(
    *train: str,
    test: str | None = None,
    shipped: Literal["authors"] | None = None,
    columns: ExampleOptions = ExampleOptions(),
    network: TaskOptions = TaskOptions(),
    run: str | None = None,
    no_report: bool = False,
) -> int:
    """Learn the class of sequences or texts, beside a simple method and a network without memory.

    Parameters
    ----------
    train
        A .ts file; CSV or Parquet, with one row a moment of a sequence (id, time, features, label) or one row a text
        (text, label); several text files, one a class with one text a line; or a folder with a folder a class.
    test
        Examples to judge by, as a file like TRAIN. [default: a fifth of every class is held out]
    shipped
        Practise on what comes along. authors: is a line by Shakespeare or by H. G. Wells?
    run
        The folder to make. [default: runs/NAME of the file, or NAME-2, ...]
    no_report
        Write no report.html.
    """
    from throughtime.cli import classifying

    return classifying.classify(train, test, shipped, columns, network, run, report=not no_report)


@app.command(usage="Usage: throughtime tag TRAIN [--test FILE] [OPTIONS]")
def tag(
    train: str,
    /,
    *,
    test: str | None = None,
    word_column: Column | None = None,
    tag_column: Column | None = None,
    forwards: bool = False,
    network: TaskOptions = TaskOptions(),
    run: str | None = None,
    no_report: bool = False,
) -> int:
    """Learn a tag for every word, beside the most frequent tag of a word and a network without memory.

    Parameters
    ----------
    train
        CoNLL columns: one word a line, with its tag, and a blank line after each sentence.
    test
        Sentences to judge by, as TRAIN. [default: the last fifth is held out]
    word_column
        The column of the words, from 0. [default: 0, of CoNLL-U the forms]
    tag_column
        The column of the tags; -1 is the last. [default: -1, of CoNLL-U UPOS]
    forwards
        Read in one direction, so that tags can be told before a sentence ends.
    run
        The folder to make. [default: runs/NAME of the file, or NAME-2, ...]
    no_report
        Write no report.html.
    """
    from throughtime.cli import tagging

    return tagging.tag(train, test, (word_column, tag_column), network, run, forwards=forwards, report=not no_report)
