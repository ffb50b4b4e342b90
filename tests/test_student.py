"""docs/student.md: its arithmetic is done again, its programs run, its tables are held to sums written out in NumPy."""

from __future__ import annotations

import ast
import math
import operator
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.cli import app, main

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "student.md").read_text(encoding="utf-8")
LETTERS, READ, WANTED, ETA = "acehimn", "machin", "achine", 0.3
W_x = np.array([[0, -1, 0.5, 0, 0.5, 1, -0.5], [1, 0, -0.5, -1, 0.5, 0, 0.5]])
W_h = np.array([[0.5, -0.4], [0.3, 0.6]])
V = np.array([[1, 0], [0, 1], [-0.5, 0.5], [-1, 0], [0, -1], [0, 0], [0.5, 0.5]])
T = len(READ)


class Hand:
    """The network of the document, forward, with numbers by step from 1 on; h[0] are the zeros before."""

    def __init__(self, W_x: np.ndarray = W_x, W_h: np.ndarray = W_h, V: np.ndarray = V) -> None:
        self.W_x, self.W_h, self.V = W_x, W_h, V
        self.h, self.p, self.loss = [np.zeros(2)], [np.zeros(7)], [0.0]
        for x, y in zip(READ, WANTED, strict=True):
            self.h.append(np.tanh(W_x[:, LETTERS.index(x)] + W_h @ self.h[-1]))
            e = np.exp(V @ self.h[-1])
            self.p.append(e / e.sum())
            self.loss.append(-math.log(self.p[-1][LETTERS.index(y)]))

    def residual(self, t: int) -> np.ndarray:
        """p - one-hot of what was wanted."""
        return self.p[t] - np.eye(7)[LETTERS.index(WANTED[t - 1])]

    def journey(self, t: int, h: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
        """g and delta of the error of step t alone, at the steps t, t - 1, ... that BPTT(h) reaches."""
        g, found = self.V.T @ self.residual(t), {}
        for step in range(t, max(0, t - h), -1):
            delta = g * (1 - self.h[step] ** 2)
            found[step] = g, delta
            g = self.W_h.T @ delta
        return found

    def gradient(self, h: int = T, every: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """dW_x, dW_h and dV of BPTT(h; every): an error settled at step s reaches the steps after s - h."""
        dW_x, dW_h, dV = np.zeros_like(W_x), np.zeros_like(W_h), np.zeros_like(V)
        for t in range(1, T + 1):
            settled = min(T, -(-t // every) * every)
            dV += np.outer(self.residual(t), self.h[t])
            for step, (_, delta) in self.journey(t, t - settled + h).items():
                dW_x[:, LETTERS.index(READ[step - 1])] += delta
                dW_h += np.outer(delta, self.h[step - 1])
        return dW_x, dW_h, dV

    def updated(self) -> Hand:
        return Hand(*(w - ETA * d for w, d in zip((self.W_x, self.W_h, self.V), self.gradient(), strict=True)))


HAND = Hand()


def table(head: str, rows: list[list[object]]) -> str:
    """A table of the document: numbers with four places, the rest as it is."""
    cells = [[f"{c + 0:.4f}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    names = [name.strip() for name in head.split("|")]
    return "\n".join("| " + " | ".join(row) + " |" for row in [names, ["---"] * len(names), *cells])


def forward_table() -> str:
    rows = [
        [t, READ[t - 1], *map(float, HAND.h[t]), WANTED[t - 1], float(np.exp(-HAND.loss[t])), HAND.loss[t]]
        for t in range(1, T + 1)
    ]
    return table("t | reads | h_t[1] | h_t[2] | wanted | its p | loss", rows)


def softmax_table() -> str:
    o = V @ HAND.h[2]
    rows = [["o_2", *map(float, o)], ["e to the o_2", *map(float, np.exp(o))], ["p_2", *map(float, HAND.p[2])]]
    return table("letter | " + " | ".join(LETTERS), rows)


def journey_table() -> str:
    rows = [
        [T - step, step, *map(float, g), *map(float, delta), float(np.linalg.norm(g))]
        for step, (g, delta) in HAND.journey(T, T).items()
    ]
    return table("lag | at step | g[1] | g[2] | delta[1] | delta[2] | length of g", rows)


def recursion_table() -> str:
    rows, later = [], np.zeros(2)
    for t in range(T, 0, -1):
        own = V.T @ HAND.residual(t)
        g = own + later
        delta = g * (1 - HAND.h[t] ** 2)
        rows.append([t, *map(float, own), *map(float, later), *map(float, g), *map(float, delta)])
        later = W_h.T @ delta
    return table("t | own[1] | own[2] | later[1] | later[2] | g[1] | g[2] | delta[1] | delta[2]", rows)


def truncation_table() -> str:
    exact, rows = HAND.gradient()[1], []
    for h, every in [(1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (3, 3), (4, 2)]:
        found = HAND.gradient(h, every)[1]
        name = f"BPTT({h})" if every == 1 else f"BPTT({h}; {every})"
        pairs = sum(min(t, t - min(T, -(-t // every) * every) + h) for t in range(1, T + 1))
        off = float(np.linalg.norm(found - exact) / np.linalg.norm(exact))
        rows.append([name, pairs, *map(float, found.flatten()), f"{100 * off:.1f} %"])
    return table("algorithm | pairs | dW_h[1,1] | dW_h[1,2] | dW_h[2,1] | dW_h[2,2] | off by", rows)


TABLES = [forward_table, softmax_table, journey_table, recursion_table, truncation_table]


@pytest.mark.parametrize("make", TABLES)
def test_tables(make) -> None:
    assert make() in TEXT


def blocks(kind: str) -> list[tuple[str, str]]:
    """The fenced blocks of a kind, each with the block of no kind that follows at once, if one does."""
    pattern = rf"^```{kind}\n(.*?)^```\n(?:\n```\n(.*?)^```$)?"
    return re.findall(pattern, TEXT, re.MULTILINE | re.DOTALL)


FUNCTIONS = {"tanh": math.tanh, "exp": math.exp, "ln": math.log, "sqrt": math.sqrt}
OPERATORS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}


def value_of(expression: str) -> float:
    """The value of sums, products and the functions above; raises KeyError or ValueError for anything else."""

    def walk(node: ast.expr) -> float:
        if isinstance(node, ast.Constant):
            return float(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand)
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            return FUNCTIONS[node.func.id](*map(walk, node.args))
        raise ValueError(expression)

    return walk(ast.parse(expression.strip().replace("^", "**"), mode="eval").body)


def sums() -> list[list[str]]:
    """The lines `name = expression = ... = value` of the arithmetic in the document."""
    lines = [line for block, _ in blocks("text") for line in block.splitlines()]
    joined = re.sub(r"\n +(?=[=+-])", " ", "\n".join(lines))
    return [[part.strip() for part in line.split(" = ")] for line in joined.splitlines() if line.strip()]


def test_arithmetic() -> None:
    """Each line holds to the rounding of the four-figure numbers that stand in it."""
    found = sums()
    assert len(found) > 20
    for name, *expressions in found:
        values = [value_of(expression) for expression in expressions]
        assert max(values) - min(values) < 2e-4, (name, expressions, values)


def true_values() -> dict[str, float]:
    """What the names in the arithmetic stand for, from the sums in NumPy."""
    dW_h = HAND.gradient()[1]
    new = HAND.updated()
    wider, narrower = (Hand(W_h=W_h + np.array([[step, 0], [0, 0]])) for step in (0.01, -0.01))
    named = {
        "p_2[c]": HAND.p[2][1],
        "loss_2": HAND.loss[2],
        "loss": sum(HAND.loss),
        "mean loss": sum(HAND.loss) / T,
        "knows nothing": math.log(7),
        "loss at 0.51": sum(wider.loss),
        "loss at 0.49": sum(narrower.loss),
        "slope": (sum(wider.loss) - sum(narrower.loss)) / 0.02,
        "dW_h[1,1]": dW_h[0, 0],
        "W_h[1,1]": new.W_h[0, 0],
        "new loss": sum(new.loss),
    }
    for t in range(1, T + 1):
        for unit in (1, 2):
            named[f"h_{t}[{unit}]"] = HAND.h[t][unit - 1]
            named[f"a_{t}[{unit}]"] = math.atanh(HAND.h[t][unit - 1])
            for step, (g, d) in HAND.journey(t, T).items():
                if t == T:
                    named[f"g_{step}[{unit}]"], named[f"delta_{step}[{unit}]"] = g[unit - 1], d[unit - 1]
        for letter, residual in zip(LETTERS, HAND.residual(t), strict=True):
            named[f"r_{t}[{letter}]"] = residual
    return named


def test_results_of_the_arithmetic_are_true() -> None:
    """The last number of each line is the exact value, rounded."""
    named = true_values()
    for name, *expressions in sums():
        if name in named:
            places = len(expressions[-1].partition(".")[2])
            assert expressions[-1] == f"{named[name] + 0:.{places}f}", name
        else:
            assert name.startswith("answer"), f"{name} is not known here"


def test_every_figure_of_four_places_is_accounted_for() -> None:
    """In the part by hand, no number stands that is not in a table, in the arithmetic, or among what is computed."""
    by_hand = TEXT[: TEXT.index("## 7.")]
    known = set(re.findall(r"\d+\.\d{4}", "\n".join(make() for make in TABLES)))
    known |= {number for parts in sums() for number in re.findall(r"\d+\.\d{4}", " ".join(parts))}
    known |= {number for _, shown in blocks("python") for number in re.findall(r"\d+\.\d{4}", shown)}
    known |= {f"{abs(value):.4f}" for value in true_values().values()}
    assert set(re.findall(r"\d+\.\d{4}", by_hand)) <= known


def test_programs_print_what_is_shown(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    found = blocks("python")
    assert len(found) >= 5
    for code, shown in found:
        torch.manual_seed(0)
        exec(compile(code, "docs/student.md", "exec"), names)
        assert capsys.readouterr().out == shown


def numbers_and_words(line: str) -> tuple[list[str], list[float]]:
    """A line's words, and apart from them its numbers."""
    return re.sub(r"[\d.]+", "#", line).split(), [float(n) for n in re.findall(r"\d+(?:\.\d+)?", line)]


WORDS = [(command, shown) for command, shown in blocks("sh") if "--text" in command]


@pytest.mark.parametrize(("command", "shown"), WORDS, ids=[command.split("--run ")[1].strip() for command, _ in WORDS])
def test_commands_on_words_print_what_is_shown(command: str, shown: str, tmp_path, monkeypatch, capsys) -> None:
    """To a hundredth, as another processor may round otherwise."""
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(command)[1:]) == 0
    printed = [numbers_and_words(line) for line in capsys.readouterr().out.splitlines()]
    assert shown.strip()
    for words, wanted in map(numbers_and_words, shown.splitlines()):
        assert any(words == other and wanted == pytest.approx(found, abs=0.01) for other, found in printed), words


def test_the_commands_of_the_text_can_be_said(monkeypatch, capsys) -> None:
    """Each names a command and flags that there are; none is run here."""
    for block, _ in blocks("sh"):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("throughtime"):
                app.parse_args(shlex.split(line, comments=True)[1:], print_error=False, exit_on_error=False)


def test_nobody_who_sees_one_letter_knows_memory_better() -> None:
    """2 ln 2 / 5: the mean entropy of the next letter given the present one."""
    pairs = list(zip("memor", "emory", strict=True))
    entropy = -sum(math.log(pairs.count(pair) / [x for x, _ in pairs].count(pair[0])) for pair in pairs) / len(pairs)
    assert entropy == pytest.approx(2 * math.log(2) / 5)
    assert f"(2 ln 2) / 5 = {entropy:.4f}" in TEXT


def test_the_library_agrees_with_the_sums_by_hand() -> None:
    """The network of the document in float64: losses, and gradients of every BPTT(h; h') that the text names."""
    net = tt.Network("elman", inputs=7, units=2, outputs=7).double()
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
        net.layers.weight_ih_l0.copy_(torch.from_numpy(W_x))
        net.layers.weight_hh_l0.copy_(torch.from_numpy(W_h))
        net.readout.weight.copy_(torch.from_numpy(V))
    x, y = (torch.tensor([[LETTERS.index(letter)] for letter in word]) for word in (READ, WANTED))
    chunk = tt.Chunk(x, y, end=True)
    for credit, h, every in [(tt.BPTT(), T, 1), *((tt.BPTT(h), h, 1) for h in range(1, 7))] + [
        (tt.BPTT(h, every), h, every) for h, every in ((3, 3), (4, 2), (5, 3), (4, 4))
    ]:
        estimate, _ = credit(net, tt.cross_entropy, chunk, credit.start(net))
        assert float(estimate.loss) == pytest.approx(sum(HAND.loss), abs=1e-13)
        names = ("layers.weight_ih_l0", "layers.weight_hh_l0", "readout.weight")
        for name, wanted in zip(names, HAND.gradient(h, every), strict=True):
            np.testing.assert_allclose(estimate.grads[name].numpy(), wanted, atol=1e-14)
