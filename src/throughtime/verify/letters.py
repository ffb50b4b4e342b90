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
