"""An audit as plain text: sentences and a matrix, a letter for each use, within 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.shapes import Tensor


def wrapped(lines: Sequence[str], width: int = 79) -> list[str]:
    """Lines no longer than a width, cut at blanks; what is cut goes on under the text."""
    result = []
    for line in lines:
        indent = "    " if line.startswith("  ! ") else ""
        while len(line) > width:
            cut = line.rfind(" ", len(indent) + 4, width)
            if cut < 0:
                break
            result.append(line[:cut])
            line = indent + line[cut + 1 :]
        result.append(line)
    return result


def drawn(matrix: Tensor) -> list[str]:
    """The matrix in letters: one character a use, a row an error; only the first 64 steps."""
    shown = matrix[:64, :64].tolist()
    ruler = "".join(str(t // 10 % 10) if t % 10 == 0 else "5" if t % 5 == 0 else " " for t in range(len(shown)))
    rows = [
        f"{t:8}  " + "".join(_letter(value, use <= t) for use, value in enumerate(row)) for t, row in enumerate(shown)
    ]
    more = [f"({len(matrix) - len(shown)} more steps are in .matrix)"] * (len(matrix) > len(shown))
    legend = ". cut off  # counted once  2-9 so often  - by less  + by a part more  * more"
    return ["error at  use of the weights at step", f"          {ruler}", *map(str.rstrip, rows), *more, legend]


def _letter(value: float, past: bool) -> str:
    if abs(value) < 0.005:
        return "." if past else " "
    if abs(value - round(value)) < 0.01 and 1 <= round(value) < 10:
        return "#" if round(value) == 1 else str(round(value))
    return "-" if value < 1 else "+" if value < 10 else "*"


def listed(words: Sequence[object]) -> str:
    """`a, b and c`."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def spans(steps: Sequence[int]) -> str:
    """Steps in words, at most six runs of them: `steps 3, 8 to 11 and 16`."""
    runs: list[list[int]] = []
    for step in sorted(set(steps)):
        if runs and step == runs[-1][-1] + 1:
            runs[-1].append(step)
        else:
            runs.append([step])
    words = [str(run[0]) if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    words = words if len(words) <= 6 else [*words[:5], "..."]
    noun = "step" if words == [str(steps[0])] else "steps"
    return f"{noun} {listed(words)}"
