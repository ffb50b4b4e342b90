"""What the tests of the audit share: models, streams, and loops in which one thing at a time can be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from throughtime.verify.audit import Audit, audit

T, B, I, H, A, K = 14, 2, 3, 5, 2, 4
Loop = Callable[..., Any]


class Model(nn.Module):
    """A recurrent layer and a readout, as most people write it."""

    def __init__(self, kind: type = nn.RNN, layers: int = 1, batch_first: bool = False, outputs: int = A) -> None:
        super().__init__()
        self.rnn = kind(I, H, num_layers=layers, batch_first=batch_first)
        self.fc = nn.Linear(H, outputs)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        h, state = self.rnn(x, state)
        return self.fc(h), state


class CellModel(nn.Module):
    """A cell and a readout."""

    def __init__(self, kind: type = nn.RNNCell) -> None:
        super().__init__()
        self.cell = kind(I, H)
        self.fc = nn.Linear(H, A)

    def forward(self, x: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        state = self.cell(x, state)
        return self.fc(state[0] if isinstance(state, tuple) else state), state


def stream(steps: int = T, rows: int = B, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return torch.randn(steps, rows, I, dtype=dtype), torch.randn(steps, rows, A, dtype=dtype)


def detach(state: Any) -> Any:
    return state.detach() if isinstance(state, Tensor) else tuple(part.detach() for part in state)


def keep(state: Any) -> Any:
    return state


def squared(y: Tensor, wanted: Tensor) -> Tensor:
    return (y - wanted).square().sum()


def pieces_of(x: Tensor) -> Iterable[Tensor]:
    return x.split(K)


def chunked(
    cut: Callable[[Any], Any] = detach,
    loss: Loop = squared,
    pieces: Callable[[Tensor], Any] = pieces_of,
    *,
    given: Callable[[nn.Module], Any] = nn.Module.parameters,
    term: Callable[[nn.Module], Any] = lambda model: 0.0,
    retain: bool = False,
) -> Loop:
    """Chunks with the state carried on. What can be changed: how the state is cut, the loss, the pieces, the weights
    that the optimizer is given, a term of the loss, and whether the graph is retained."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer, state = torch.optim.Adam(given(model)), None
        for part, wanted in zip(pieces(x), pieces(y), strict=True):
            prediction, state = model(part, state)
            optimizer.zero_grad()
            (loss(prediction, wanted) + term(model)).backward(retain_graph=retain)
            clip_grad_norm_(model.parameters(), 0.1)
            optimizer.step()
            state = cut(state)

    return loop


def replayed(h: int, every: int) -> Loop:
    """BPTT(h; every): forward once without a gradient, then every window again from the state before it."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        states: list[Any] = [None]
        with torch.no_grad():
            for t in range(len(x)):
                states.append(model(x[t : t + 1], states[-1])[1])
        for start in range(0, len(x), every):
            stop = min(start + every, len(x))
            first = max(0, stop - h)
            prediction, _ = model(x[first:stop], states[first])
            optimizer.zero_grad()
            squared(prediction[start - first :], y[start:stop]).backward()
            optimizer.step()

    return loop


def epochwise(model: nn.Module, x: Tensor, y: Tensor) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.mse_loss(model(x)[0], y).backward()
        optimizer.step()


def handed_back(k1: int, k2: int, clear: bool = False) -> Loop:
    """The popular recipe for k1 != k2: pairs (detached state that went in, state that came out) of every step; the
    .grad of a later one is handed to the one before."""

    def loop(model: nn.Module, x: Tensor, y: Tensor) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        state = torch.zeros(B, H)
        pairs: list[tuple[Tensor, Tensor]] = []
        for t in range(len(x)):
            entered = state.detach().requires_grad_()
            prediction, state = model(x[t], entered)
            pairs = [*pairs, (entered, state)][-k2:]
            if (t + 1) % k1:
                continue
            optimizer.zero_grad()
            for before, _ in pairs if clear else ():
                before.grad = None
            squared(prediction, y[t]).backward(retain_graph=True)
            for (_, out), (later, _) in list(pairwise(pairs))[::-1]:
                out.backward(later.grad, retain_graph=True)
            optimizer.step()

    return loop


def run(loop: Loop, module: nn.Module | None = None, rows: int = B, **options: Any) -> Audit:
    x, y = stream(rows=rows)
    return audit(loop, Model() if module is None else module, x, y, **options)


def band(h: int, every: int, steps: int = T) -> Tensor:
    """The matrix of BPTT(h; every) by its definition."""
    matrix = torch.zeros(steps, steps, dtype=torch.float64)
    for t in range(steps):
        stop = min((t // every + 1) * every, steps)
        matrix[t, max(0, stop - h) : t + 1] = 1
    return matrix


CHUNKS = torch.block_diag(*(torch.ones(size, size, dtype=torch.float64).tril() for size in (4, 4, 4, 2)))


def assert_right(report: Audit, name: str, matrix: Tensor) -> None:
    assert report.name == name
    assert report.findings == ()
    torch.testing.assert_close(report.matrix, matrix, rtol=0, atol=0.01)
