"""The page: the numbers of a network on one sequence as JSON, and the file that shows them.

The script of the page computes nothing of the model: it shows what stands in the JSON, of six significant digits.
Matrices stand there as in Dive into Deep Learning, [from, gate, to], the transposes of torch's.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from throughtime.cells import LSTM, Elman
from throughtime.explain import passes
from throughtime.explain.passes import Back, Forward
from throughtime.explain.problem import Problem
from throughtime.explain.subject import spelled
from throughtime.explain.updates import MOMENTS, Descent, descend
from throughtime.nets import Network
from throughtime.shapes import Tensor

LANGUAGES = ("en", "pt")
DIGITS = 6


@dataclass(frozen=True, eq=False)
class Explanation:
    """All that the page shows.

    there     the forward pass under the first weights; r (T, A) and e (T, H) its errors, by o and by h.
    together  the backward pass with the errors of all steps, by step.
    alone     of the error of each step alone: the steps t, t - 1, ..., 0.
    descents  the training under BPTT(h), h = 1 ... T.
    trained   whether the first weights are those of a run.
    """

    net: Network
    problem: Problem
    rate: float
    there: Forward
    r: Tensor
    e: Tensor
    together: tuple[Back, ...]
    alone: tuple[tuple[Back, ...], ...]
    descents: tuple[Descent, ...]
    trained: bool = False

    @classmethod
    def of(cls, net: Network, problem: Problem, rate: float = 0.1, *, trained: bool = False) -> Explanation:
        """Work it out. Raises ValueError for a rate under which a loss is not finite."""
        if not 0 < rate < float("inf"):
            raise ValueError(f"--rate must be above 0; got {rate:g}.")
        there = passes.forward(net, problem)
        r, e = passes.errors_of(net, problem, there)
        steps = problem.chunk.steps
        together = tuple(passes.backward(net, there, e, steps - 1)[::-1])
        alone = tuple(tuple(passes.backward(net, there, passes.alone(e, t), t)) for t in range(steps))
        descents = tuple(descend(net, problem, h, rate) for h in range(1, steps + 1))
        return cls(net, problem, rate, there, r, e, together, alone, descents, trained)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        problem, net, there = self.problem, self.net, self.there
        assert problem.chunk.y is not None
        held = net.layers.get_parameter("bias_hh_l0").detach().view(net.layers.cell.gates, -1)
        return {
            "cell": spelled(net).partition(":")[0],
            "phi": net.layers.cell.phi if isinstance(net.layers.cell, Elman) else None,
            "units": net.layers.units,
            "gates": passes.GATES[type(net.layers.cell)],
            "T": problem.chunk.steps,
            "tokens": problem.tokens,
            "items": problem.items,
            "scale": plain(problem.scale),
            "x": plain(problem.chunk.x.flatten()),
            "y": plain(problem.chunk.y.flatten()),
            "held": plain(held) if held.any() else None,
            "rate": self.rate,
            "trained": self.trained,
            "moments": MOMENTS,
            "first": {"weights": matrices(net, dict(net.named_parameters())), "pass": self._pass(there)},
            "r": plain(self.r),
            "to_o": plain(there.states[0][1:, :, None] * self.r[:, None, :]),
            "together": [step(back) for back in self.together],
            "alone": [[step(back) for back in steps] for steps in self.alone],
            "norms": [[plain(back.ds[0].norm()) for back in steps] for steps in self.alone],
            "descents": [self._descent(descent) for descent in self.descents],
        }

    def _descent(self, descent: Descent) -> dict[str, Any]:
        exact = self.descents[-1].grads
        off = sum(float((descent.grads[name] - grad).square().sum()) for name, grad in exact.items())
        whole = sum(float(grad.square().sum()) for grad in exact.values())
        return {
            "losses": [plain(loss) for loss in descent.losses],
            "grads": matrices(self.net, descent.grads),
            "off": plain((off / whole) ** 0.5 if whole else 0.0),
            "later": [
                {"weights": matrices(self.net, weights), "pass": self._pass(there)}
                for weights, there in list(zip(descent.weights, descent.passes, strict=True))[1:]
            ],
        }

    def _pass(self, there: Forward) -> dict[str, Any]:
        cell = self.net.layers.cell
        shown = ("inputs", "v", "a", "gates", "states", "o", "p", "losses")
        found = {name: plain(getattr(there, name)) for name in shown}
        slope = passes.slope(cell, there.states[0][1:])
        found["slope"] = None if slope is None else plain(slope)
        found["tanh_c"] = plain(there.kept[-1][:, 0]) if isinstance(cell, LSTM) else None
        found["best"] = None if there.p is None else plain(there.p.argmax(-1))
        return found


def step(back: Back) -> dict[str, Any]:
    """One backward step for JSON; t is counted from 0 there, as everywhere in the code."""
    return {name: plain(value) for name, value in vars(back).items()}


def matrices(net: Network, named: Mapping[str, Tensor]) -> dict[str, Any]:
    """Weights, or their gradients, [from, gate, to]."""
    G = net.layers.cell.gates
    return {
        "xh": plain(named["layers.weight_ih_l0"].T.unflatten(1, (G, -1))),
        "hh": plain(named["layers.weight_hh_l0"].T.unflatten(1, (G, -1))),
        "b": plain(named["layers.bias_ih_l0"].unflatten(0, (G, -1))),
        "hq": plain(named["readout.weight"].T),
        "bq": plain(named["readout.bias"]),
    }


def plain(value: Any) -> Any:
    """Tensors as lists of numbers, of so many significant digits."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def words(language: str) -> dict[str, Any]:
    """What the page says, in one of LANGUAGES."""
    return dict(json.loads(_part(f"{language}.json")))


def render(explanation: Explanation, language: str = "en", command: str = "") -> str:
    """The page as HTML; command is the one that makes it again. Raises ValueError for another language."""
    if language not in LANGUAGES:
        raise ValueError(f"language must be {' or '.join(LANGUAGES)}; got {language!r}.")
    data = {**explanation.to_dict(), "words": words(language), "language": language}
    numbers = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    script = "\n".join(_part(name) for name in ("words.js", "drawing.js", "panel.js", "page.js"))
    digest = base64.b64encode(hashlib.sha256(f"\n{script}\n".encode()).digest()).decode()
    template = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True).from_string(_part("page.html"))
    return template.render(
        data=data,
        words=data["words"],
        language=language,
        command=command,
        style=Markup(_part("style.css")),
        script=Markup(script),
        digest=digest,
        numbers=Markup(numbers),
    )


def write_page(path: str | Path, page: str) -> Path:
    """Write the page, whole or not at all. Raises OSError, which names the path, when it cannot be written."""
    path = Path(path)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        unfinished.write_text(page, encoding="utf-8")
        unfinished.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _part(name: str) -> str:
    return files("throughtime").joinpath("templates", "explain", name).read_text(encoding="utf-8")
