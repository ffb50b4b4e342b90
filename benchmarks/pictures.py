"""Draw what speed.py measured: speed against torch.nn by shape, and memory by cell.

    python benchmarks/pictures.py speed.json docs        writes docs/speed.svg and docs/memory.svg
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib
from jobs import GATES, MODES, SHAPES, Job, floor_and_goal
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullFormatter
from memory import GRAIN
from tables import MODES as TITLES

# Okabe and Ito (2008), apart for the colour-blind; the markers and hatches are for print without colour.
LOOKS = {"RNN": ("#0072b2", "o"), "GRU": ("#d55e00", "s"), "LSTM": ("#009e73", "D")}
POLICIES = {
    "torch": ("torch.nn", "#8a929c", ""),
    "gates": ('ours, memory="gates"', "#56b4e9", "//"),
    "states": ('ours, memory="states"', "#0072b2", ""),
}
INK, FAINT = "#1b1f24", "#d5d9de"


def plain(axis: Any) -> None:
    """Whole numbers on a log axis, and a faint grid."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.grid(color=FAINT, linewidth=0.6)


def plot_speed(results: dict[str, Any], allocator: str) -> pyplot.Figure:
    """A dot a cell: torch.nn's time over ours; a tick: the floor that was set for it."""
    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.6), sharey=True, layout="constrained")
    shapes = list(SHAPES)
    for panel, mode in zip(panels, MODES, strict=True):
        for row in results["layers"]:
            if (row["mode"], row["allocator"]) != (mode, allocator):
                continue
            place = [shape[1:] for shape in shapes].index((row["B"], row["I"], row["H"]))
            draw_cell(panel, row, place + 0.22 * (list(GATES).index(row["kind"]) - 1))
        panel.axvline(1, color=INK, linewidth=1)
        panel.set_xscale("log")
        panel.set_xticks([tick for tick in (1, 2, 3, 5, 10, 20, 50, 100, 200) if tick < panel.get_xlim()[1]])
        plain(panel.xaxis)
        panel.set_title(TITLES[mode], loc="left", fontsize=10)
        panel.set_xlabel("time of torch.nn / time of throughtime (log)")
    panels[0].set_yticks(range(len(shapes)), [", ".join(map(str, shape)) for shape in shapes])
    panels[0].set_ylabel("T steps, B rows, I inputs, H units")
    panels[0].invert_yaxis()
    for kind, (colour, marker) in LOOKS.items():
        panels[1].plot([], [], marker, color=colour, label=f"nn.{kind}")
    panels[1].plot([], [], "|", color=INK, markersize=11, markeredgewidth=1.6, label="floor set before")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return figure


def draw_cell(panel: Axes, row: dict[str, Any], place: float) -> None:
    colour, marker = LOOKS[row["kind"]]
    ratio = row["seconds"]["torch"] / row["seconds"]["throughtime"]
    floor, _ = floor_and_goal(Job(row["kind"], row["T"], row["B"], row["I"], row["H"]), row["mode"], "torch")
    panel.plot([1, ratio], [place, place], color=colour, linewidth=1.2, alpha=0.5)
    panel.plot(ratio, place, marker, color=colour, markersize=6)
    if floor is not None:
        panel.plot(floor, place, "|", color=INK, markersize=11, markeredgewidth=1.6)


def plot_memory(results: dict[str, Any]) -> pyplot.Figure:
    """Three bars a cell and shape, MiB."""
    shapes = list(dict.fromkeys((row["T"], row["B"], row["I"], row["H"]) for row in results["memory"]))
    kinds = list(dict.fromkeys(row["kind"] for row in results["memory"]))
    figure, grid = pyplot.subplots(1, len(kinds), figsize=(9.2, 4.6), sharey=True, layout="constrained", squeeze=False)
    panels = grid[0]
    for panel, kind in zip(panels, kinds, strict=True):
        for row in (row for row in results["memory"] if row["kind"] == kind):
            place = shapes.index((row["T"], row["B"], row["I"], row["H"]))
            for offset, (who, (_, colour, hatch)) in enumerate(POLICIES.items()):
                width = max(row["bytes"][who], GRAIN) / 2**20
                panel.barh(place + 0.26 * (offset - 1), width, 0.24, color=colour, hatch=hatch, edgecolor="white")
        panel.set_xscale("log")
        panel.set_xlim(left=GRAIN / 2**21)
        plain(panel.xaxis)
        panel.set_axisbelow(True)
        panel.set_title(kind, loc="left", fontsize=10)
    panels[0].set_yticks(range(len(shapes)), [", ".join(map(str, shape)) for shape in shapes])
    panels[0].set_ylabel("T steps, B rows, I inputs, H units")
    panels[0].invert_yaxis()
    figure.supxlabel("peak memory of a training step beyond x, y and dy (MiB, log)", fontsize=10)
    names = [pyplot.Rectangle((0, 0), 1, 1, color=colour, label=name) for name, colour, _ in POLICIES.values()]
    names[1].set(hatch="//", edgecolor="white")
    figure.legend(handles=names, loc="outside upper center", ncols=3, frameon=False)
    return figure


def main() -> None:
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    results, folder = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
    matplotlib.use("svg")
    # The salt and no date: the same figures give the same file.
    matplotlib.rcParams.update({"svg.hashsalt": "throughtime", "font.size": 9, "text.color": INK})
    pictures = {}
    if "layers" in results:
        pictures["speed"] = plot_speed(results, results["layers"][0]["allocator"])
    if "memory" in results:
        pictures["memory"] = plot_memory(results)
    for name, figure in pictures.items():
        for panel in figure.axes:
            panel.spines[["top", "right"]].set_visible(False)
        figure.savefig(folder / f"{name}.svg", facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
