"""What `explain` does: it makes the network that the flags name, works out its numbers and writes the page."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from throughtime.cli.options import check_out
from throughtime.explain import Explanation, Problem, network, of_values, of_word, render, trained, write_page
from throughtime.nets import Network
from throughtime.runs import load


def explain(
    word: str | None,
    values: str | None,
    given: dict[str, str | int | None],
    rate: float | None,
    run: Path | None,
    language: str,
    out: Path,
) -> int:
    """Write the page; the exit code. given: cell, units and seed, None where left out."""
    check_out(out, "explain.html")
    problem, net = _subject(word, values, {name: value for name, value in given.items() if value is not None}, run)
    rates = () if rate is None else (rate,)
    explanation = Explanation.of(net, problem, *rates, trained=run is not None)
    flags = {"--values": values, **{f"--{name}": value for name, value in given.items()}, "--rate": rate, "--run": run}
    words = [*filter(None, [word]), *(f"{flag}={value}" for flag, value in flags.items() if value is not None)]
    words += ["--language=pt"] * (language == "pt")
    command = " ".join(["throughtime explain", *map(quote, words)])
    path = write_page(out, render(explanation, language, command))
    print(f"Open {path} in a browser.")
    return 0


def _subject(
    word: str | None, values: str | None, given: dict[str, str | int], run: Path | None
) -> tuple[Problem, Network]:
    """What is read, and by which network."""
    if word is not None and values is not None:
        raise ValueError("WORD and --values must not be given together; leave one out.")
    word = "machine" if word is None else word
    if run is not None:
        if values is not None or given:
            odd = "values" if values is not None else next(iter(given))
            raise ValueError(f"--{odd} must be left out with --run: the run has its own network, of letters.")
        opened = load(run)
        net = trained(opened.net, run)
        if opened.vocabulary.unit != "char":
            raise ValueError(f"--run must have learned characters; {run} learned {opened.vocabulary.unit}s.")
        return of_word(word, opened.vocabulary.tokens), net
    problem = of_word(word) if values is None else of_values(numbers(values))
    return problem, network(problem, **given)  # type: ignore[arg-type]


def numbers(values: str) -> list[float]:
    """The numbers of a list such as 1,2,3. Raises ValueError for anything else."""
    try:
        return [float(value) for value in values.split(",")]
    except ValueError:
        raise ValueError(f"--values must be numbers with commas between, such as 1,2,3; got {values!r}.") from None
