"""What `predict` does with a run: the next token, the classes of sequences or texts, tags, or a forecast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from throughtime.cli import classifying, commands, forecasting, tagging
from throughtime.cli.examples import Examples, check_width, read_examples
from throughtime.cli.options import check_out
from throughtime.cli.task_options import ExampleOptions
from throughtime.data.conll import read_conll
from throughtime.data.lines import lines
from throughtime.data.reading import Files
from throughtime.data.texts import TABLES
from throughtime.estimators.saving import load_estimator
from throughtime.runs import Run


def predict(
    folder: str, file: str | None, *, prompt: str | None, text: str | None, top: int | None, out: Path | None
) -> int:
    """The exit code."""
    run = Run(folder)
    given = {"FILE": file, "--prompt": prompt, "--text": text}
    if out is not None:
        check_out(out, "predictions.csv")
    several = [name for name, value in given.items() if value is not None]
    if len(several) > 1:
        raise ValueError(f"{' and '.join(several)} must not be given together; leave one out.")
    if "estimator" not in run.config:
        if text is not None or out is not None:
            name = "--text" if text is not None else "--out"
            raise ValueError(f"{name} must be left out with a language model, which predicts a token. Use --prompt.")
        if file is not None:
            prompt = "".join(Files.at(file).characters())
        return commands.predict(folder, prompt or "", 5 if top is None else top)
    if prompt is not None or top is not None:
        name = "--prompt" if prompt is not None else "--top"
        raise ValueError(f"{name} must be left out with {run.path}, which is no language model. Give FILE or --text.")
    kind = run.config.get("data", {}).get("kind")
    if kind == "series":
        return _write(*forecasting.predict(run, file, text), out)
    if file is None and text is None:
        raise ValueError("FILE or --text must be given: what to predict for.")
    net = load_estimator(folder)
    if kind == "tags":
        return _write(*_tags(run, net, file, text), out)
    if kind not in ("sequences", "texts"):
        raise ValueError(f"{run.path} was not made by classify, tag or forecast. Open it in Python: load_estimator.")
    examples = _examples(run, kind, file, text)
    if kind == "sequences":
        check_width(examples, net.reader_.features, repr(file))
    frame, said = classifying.predict(net, examples)
    return _write(frame.write_csv(), said, out)


def _tags(run: Run, net: Any, file: str | None, text: str | None) -> tuple[str, list[str]]:
    if text is not None:
        return tagging.predict(net, [text.split()], None)
    data = run.config["data"]
    found = read_conll(str(file), word=data.get("word"), tag=data.get("tag"))
    table, said = tagging.predict(net, found.sentences, found.tags)
    return table, [*found.notes, *said]


def _examples(run: Run, kind: Any, file: str | None, text: str | None) -> Examples:
    data = run.config["data"]
    if text is None:
        told = {name: value for name, value in data.items() if name not in ("kind", "features", "files")}
        columns, path = ExampleOptions(**told), Path(str(file))
        if data.get("files") and not path.is_dir() and path.suffix.lower() not in TABLES:
            return Examples("texts", ["".join(lines(path)).strip()], None, [path.name])
        return read_examples([str(file)], columns, training=False, kind=kind, features=data.get("features", ()))
    if kind == "texts":
        return Examples("texts", [text], None, ["1"])
    raise ValueError(f"--text must be left out with {run.path}, which reads sequences of numbers. Give a FILE.")


def _write(table: str, said: list[str], out: Path | None) -> int:
    """The table to a file or to stdout; what is said of it goes to stderr, as stdout is for programs."""
    print("\n".join(said), end="\n" * bool(said), file=sys.stderr)
    if out is None:
        sys.stdout.write(table)
        sys.stdout.flush()
    else:
        write_beside(out, table)
    return 0


def write_beside(path: Path, text: str) -> None:
    """Write under a temporary name and rename it when it is whole."""
    unfinished = path.with_name(f".{path.name}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
