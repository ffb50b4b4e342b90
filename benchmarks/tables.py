"""What speed.py measured, as Markdown tables beside the floors and goals.

    python benchmarks/tables.py speed.json

Times are microseconds per time step of all rows; ratios are the peer's time over ours; bytes are MiB.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jobs
from jobs import Job, floor_and_goal, share_of_peak
from memory import GRAIN

NAMES = {"throughtime": "ours", "torch": "torch.nn", "jax": "JAX", "onnxruntime": "onnxruntime"}
ALLOCATORS = {"default": "allocator as it is", "kept": "allocator keeps its pages"}
MODES = {"training": "Training step", "forward": "Forward alone"}

Results = dict[str, Any]


def markdown(head: list[str], rows: list[list[str]]) -> list[str]:
    """A table, its columns aligned so that it reads on a terminal too."""
    widths = [max(len(row[index]) for row in [head, *rows]) for index in range(len(head))]
    rule = ["-" * width for width in widths]
    return [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in [head, rule, *rows]
    ] + [""]


def job_of(row: Results) -> Job:
    return Job(row["kind"], row["T"], row["B"], row["I"], row["H"], row["unequal"])


def step(row: Results, who: str) -> str:
    return f"{row['seconds'][who] / row['T'] * 1e6:.2f}"


def speed(row: Results, who: str) -> float:
    """GFLOP/s of the products."""
    return job_of(row).operations(row["mode"]) / row["seconds"][who] / 1e9


def peak(results: Results) -> float | None:
    """The FMA peak of all threads, GFLOP/s: the best that was seen before and after."""
    seen = [results[when]["peak"] for when in ("before", "after") if when in results]
    return max((peaks[-1] for peaks in seen if peaks), default=None)


def verdict(ratio: float, floor: float | None, goal: float | None = None, most: float | None = None) -> str:
    """Met or not; `most` is the ratio that we would reach at this machine's peak."""
    if floor is None:
        return "-"
    wanted = f"{floor:g}" if goal is None else f"{floor:g} / {goal:g}"
    beyond = "" if most is None or (goal or floor) <= most else f"; beyond this machine's peak, at most {most:.2f}"
    if goal is not None and ratio >= goal:
        return f"{wanted} goal met"
    if ratio >= floor:
        return f"{wanted} {'met' if goal is None else 'floor met'}" + (beyond and f" (goal{beyond[1:]})")
    if most is not None and floor > most:
        return f"{wanted}{beyond}"
    return f"{wanted} NOT MET"


def machine(results: Results) -> list[str]:
    facts, before = results["machine"], results["before"]
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    cores = f"{facts['threads']} threads on as many of {facts['processors']} processors"
    instructions = before["instruction_set"] or "no native part: the twins run on torch's kernels"
    lines = [
        f"{facts['processor']}, {cores}, {facts['system']}; instruction set {instructions}; {facts['priority']}",
        f"{versions}; commit {facts['commit']}, {facts['date']}",
        "Before: " + limits(before),
    ]
    return lines + (["QUICK: an eighth of the steps, once. Quote nothing."] if facts["quick"] else []) + [""]


def limits(found: Results) -> str:
    if found["peak"] is None:
        return "no peak (nothing native to measure it with)"
    peaks = ", ".join(f"{value:.0f} GFLOP/s (threads: {count + 1})" for count, value in enumerate(found["peak"]))
    return f"FMA peak {peaks}; one way between cores {found['latency']:.0f} ns"


def after(results: Results) -> list[str]:
    return ["After: " + limits(results["after"]), ""] if "after" in results else []


def parity(results: Results) -> list[str]:
    """One line a peer where all is green, and a row for whatever is red."""
    rows = results["parity"]
    lines = ["Parity with torch in float64, largest error relative to the largest number:", ""]
    table = []
    for who in dict.fromkeys(row["who"] for row in rows):
        mine = [row for row in rows if row["who"] == who]
        reds = [row for row in mine if not row["green"]]
        table.append([who, str(len(mine)), *worst(mine), "green" if not reds else f"{len(reds)} RED"])
        table += [[f"{who}: {job_of(row)}{' unequal' * row['unequal']}", "", *worst([row]), "RED"] for row in reds]
    return lines + markdown(["who", "cells", "outputs", "gradients", "torch float32", "verdict"], table)


def worst(rows: list[Results]) -> list[str]:
    values = [
        [row["outputs"] for row in rows],
        [row["gradients"] for row in rows if row["gradients"] is not None],
        [max(row["torch"].values()) for row in rows],
    ]
    return [f"{max(column):.1e}" if column else "-" for column in values]


def layers(results: Results) -> list[str]:
    lines = []
    for mode in MODES:
        for allocator in dict.fromkeys(row["allocator"] for row in results["layers"]):
            rows = [row for row in results["layers"] if (row["mode"], row["allocator"]) == (mode, allocator)]
            lines += [f"### {MODES[mode]}, {ALLOCATORS[allocator]}: microseconds per time step", ""]
            lines += layer_table(rows, peak(results))
    return [*lines, "Why these backends:", "", *sorted({f"- {row['why']}" for row in results["layers"]}), ""]


def layer_table(rows: list[Results], limit: float | None) -> list[str]:
    peers = [who for who in rows[0]["seconds"] if who != "throughtime"] if rows else []
    head = ["cell", "T,B,I,H", "ours"]
    for peer in peers:
        head += [NAMES[peer], "ratio", "wanted"]
    table = []
    for row in rows:
        line = [row["kind"], job_of(row).shape, step(row, "throughtime")]
        for peer in peers:
            ratio = row["seconds"][peer] / row["seconds"]["throughtime"]
            peak_now = row["peak"] or limit
            most = peak_now / speed(row, peer) if peak_now and peer == "torch" else None
            floor, goal = floor_and_goal(job_of(row), row["mode"], peer)
            line += [step(row, peer), f"{ratio:.2f}", verdict(ratio, floor, goal, most)]
        table.append([*line, *of_peak(row, row["peak"] or limit)])
    return markdown([*head, "GFLOP/s", "of peak", "wanted"], table)


def of_peak(row: Results, limit: float | None) -> list[str]:
    share = speed(row, "throughtime") / limit if limit else None
    wanted = share_of_peak(job_of(row), row["mode"])
    shown = f"{share:.0%}" if share is not None else "-"
    if wanted is None or share is None:
        return [f"{speed(row, 'throughtime'):.0f}", shown, "-"]
    return [f"{speed(row, 'throughtime'):.0f}", shown, f"{wanted:.0%} {'met' if share >= wanted else 'NOT MET'}"]


def unequal(results: Results) -> list[str]:
    table, ratios = [], []
    for row in results["unequal"]:
        seconds = row["seconds"]
        ratio = seconds["torch"] / seconds["throughtime"]
        cost = seconds["throughtime"] / (seconds["full"] * row["share"])
        met = "met" if cost <= jobs.UNEQUAL_COST else "NOT MET"
        line = [row["kind"], job_of(row).shape, f"{row['share']:.0%}", *(step(row, who) for who in seconds)]
        table.append([*line, f"{ratio:.2f}", verdict(ratio, jobs.UNEQUAL_FLOOR), f"{cost:.2f}", met])
        ratios.append(ratio)
    mean = sum(ratios) / len(ratios)
    head = ["cell", "T,B,I,H", "steps", "ours", "torch.nn packed", "ours, full rows", "ratio", "wanted"]
    return [
        "### Rows of unequal length, training: lengths uniform in [T/4, T]; microseconds per time step",
        "",
        *markdown([*head, "cost of its steps", f"at most {jobs.UNEQUAL_COST}"], table),
        f"Mean ratio {mean:.2f}: {verdict(mean, jobs.UNEQUAL_MEAN)}",
        "",
    ]


def sizes(results: Results) -> list[str]:
    table = []
    for row in results["sizes"]:
        ratio = row["seconds"]["torch"] / row["seconds"]["throughtime"]
        cells = [row["kind"], job_of(row).shape, row["mode"], step(row, "throughtime"), step(row, "torch")]
        table.append([*cells, f"{ratio:.2f}", verdict(ratio, 1.0)])
    head = ["cell", "T,B,I,H", "mode", "ours", "torch.nn", "ratio", "wanted"]
    return ["### Sizes off the grid: microseconds per time step", "", *markdown(head, table)]


def memory(results: Results) -> list[str]:
    table = []
    for row in results["memory"]:
        taken, seconds = row["bytes"], row["seconds"]
        ratio = taken["torch"] / max(taken["states"], GRAIN)
        cost = seconds["states"] / seconds["gates"]
        fast = cost <= jobs.STATES_COST and seconds["states"] <= seconds["torch"]
        table.append(
            [
                row["kind"],
                job_of(row).shape,
                *(f"{taken[who] / 2**20:.2f}" for who in ("torch", "gates", "states")),
                f"{ratio:.1f}",
                verdict(ratio, jobs.MEMORY_FLOORS.get(row["kind"])),
                *(step(row, who) for who in ("torch", "gates", "states")),
                f"{cost:.2f}",
                "met" if fast else "NOT MET",
            ]
        )
    head = ["cell", "T,B,I,H", "torch.nn MiB", "gates MiB", "states MiB", "ratio", "wanted", "torch.nn us", "gates us"]
    return [
        "### Peak memory of a training step beyond x, y and dy, and its time per time step",
        "",
        f"Less than {GRAIN / 2**20:g} MiB cannot be told from nothing and is counted as that.",
        "",
        *markdown([*head, "states us", "states / gates", f"at most {jobs.STATES_COST}, and torch.nn"], table),
    ]


def import_time(results: Results) -> list[str]:
    met = "met" if results["import"] <= jobs.IMPORT_SECONDS else "NOT MET"
    what = "`import throughtime; throughtime.LSTM` beyond torch"
    return [f"{what}: {results['import']:.3f} s; at most {jobs.IMPORT_SECONDS} s: {met}", ""]


SECTIONS: dict[str, Callable[[Results], list[str]]] = {
    "layers": layers,
    "unequal": unequal,
    "sizes": sizes,
    "memory": memory,
    "import": import_time,
}


def summary(results: Results) -> list[str]:
    """How many floors and goals are met, section by section."""
    lines = []
    for section, table in SECTIONS.items():
        text = "\n".join(table(results)) if section in results else ""
        missed, beyond, met = (text.count(word) for word in (" NOT MET", "; beyond", " met"))
        if text:
            lines.append(f"{section}: {met} met, {missed} not met, {beyond} beyond this machine's peak")
    return [*lines, ""]


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    results = json.loads(Path(sys.argv[1]).read_text())
    lines = machine(results) + after(results) + parity(results)
    for section, table in SECTIONS.items():
        lines += table(results) if section in results else []
    print("\n".join(lines + summary(results)))


if __name__ == "__main__":
    main()
