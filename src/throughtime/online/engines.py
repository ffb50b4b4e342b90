"""What runs an online network: the compiled learner, or the library's own credit and an optimiser of torch."""

from __future__ import annotations

import dataclasses
import json
import operator
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
import torch

from throughtime.cells import cell_named, spell_cell
from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.inputs import check_sizes
from throughtime.kernels import native
from throughtime.kernels.online import SGD, Learner, Rule, Task, memory_there, optimizers, refusal
from throughtime.nets import Network, losses
from throughtime.shapes import Tensor
from throughtime.spelling import parse
from throughtime.state import flatten, unflatten

DTYPES = {"float32": torch.float32, "float64": torch.float64}


class Engine(Protocol):
    """A task at work; its memory is its own."""

    def learn(self, x: Any, y: Any, mask: Any = None, reset: Any = None, prediction: Any = None) -> None: ...
    def predict(self, x: np.ndarray, reset: bool, prediction: np.ndarray) -> None: ...
    def weights(self) -> dict[str, Tensor]: ...
    def tensors(self) -> dict[str, Tensor]: ...
    def load(self, saved: Mapping[str, Tensor]) -> None: ...


class ByCredit:
    """The definition: credit.BPTT fed step by step to an optimiser of torch."""

    def __init__(self, task: Task, net: Network) -> None:
        self.task, self.net, self.credit = task, net, BPTT(task.h, task.every, task.replay)
        self.named = dict(net.named_parameters())
        rule = task.rule
        self.optimizer: torch.optim.Optimizer
        if isinstance(rule, SGD):
            self.optimizer = torch.optim.SGD(net.parameters(), lr=rule.lr, momentum=rule.momentum)
        else:
            self.optimizer = torch.optim.Adam(
                net.parameters(), lr=rule.lr, betas=(rule.beta1, rule.beta2), eps=rule.eps
            )
        self.memory = self.credit.start(net)
        self.state: Any = None

    def learn(self, x: Any, y: Any, mask: Any = None, reset: Any = None, prediction: Any = None) -> None:
        """As kernels.online.Learner.learn."""
        if y is None:
            ids = self.task.loss == "softmax"
            y = np.zeros(len(x), np.int64) if ids else np.zeros((len(x), self.task.outputs), x.dtype)
        # torch.tensor copies: the memory of the credit outlives the rows that it is given.
        stream, *parts = (None if part is None else torch.tensor(part)[:, None] for part in (x, y, mask, reset))
        assert stream is not None
        for t in range(len(x)):
            target, counts, starts = (None if part is None else part[t : t + 1] for part in parts)
            chunk = Chunk(stream[t : t + 1], target, counts, starts)
            found, self.state = self._read(chunk.x, self.state, chunk.reset)
            if prediction is not None:
                prediction[t] = found
            self._update(chunk)

    def _update(self, chunk: Chunk) -> None:
        estimate, self.memory = self.credit(self.net, losses[self.task.loss], chunk, self.memory)
        if estimate.count:
            for name, grad in estimate.grads.items():
                self.named[name].grad = grad / estimate.count
            self.optimizer.step()

    @torch.no_grad()
    def _read(self, x: Tensor, state: Any, reset: Tensor | None) -> tuple[np.ndarray, Any]:
        y, state = self.net(x, state, reset)
        y = y[0, 0]
        return (y.softmax(-1) if self.task.loss == "softmax" else y).numpy(), state

    def predict(self, x: np.ndarray, reset: bool, prediction: np.ndarray) -> None:
        """What would be predicted of x (I); nothing moves."""
        prediction[:] = self._read(torch.from_numpy(x)[None, None], None if reset else self.state, None)[0]

    def weights(self) -> dict[str, Tensor]:
        return {name: part.clone() for name, part in self.net.state_dict().items()}

    def tensors(self) -> dict[str, Tensor]:
        """All that lasts, by name, its skeleton as bytes."""
        tree = (self.weights(), self.optimizer.state_dict(), self.memory, self.state)
        skeleton, tensors = flatten(tree, "tree")
        written = torch.tensor(list(json.dumps(skeleton).encode()), dtype=torch.uint8)
        return {name: part.contiguous().clone() for name, part in tensors.items()} | {"skeleton": written}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        skeleton = json.loads(bytes(saved["skeleton"].tolist()))
        weights, optimizer, self.memory, self.state = unflatten(skeleton, saved, self.credit.memories)
        self.net.load_state_dict(weights)
        self.optimizer.load_state_dict(optimizer)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How an online network learns; spelled as in the flags of the command line."""

    units: int
    cell: str
    h: int
    every: int
    replay: bool
    optimizer: str
    seed: int
    dtype: str
    backend: str

    def __post_init__(self) -> None:
        for name in ("units", "h", "every", "seed"):
            object.__setattr__(self, name, whole(name, getattr(self, name)))
        for name, like in (("cell", "gru"), ("optimizer", "adam:lr=0.001")):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be spelled, as {like!r} is; got {getattr(self, name)!r}.")
        if not isinstance(self.replay, bool):
            raise TypeError(f"replay must be True or False; got {self.replay!r}.")
        check_sizes(units=self.units)
        object.__setattr__(self, "cell", spell_cell(cell_named(self.cell)))
        BPTT(self.h, self.every, self.replay)
        self.rule()
        if self.dtype not in DTYPES:
            raise ValueError(f"dtype must be float32 or float64; got {self.dtype!r}.")
        if self.backend not in ("auto", "native", "reference"):
            raise ValueError(f"backend must be auto, native or reference; got {self.backend!r}.")
        refused = refusal(cell_named(self.cell))
        if self.backend == "native" and refused:
            raise ValueError(f"backend 'native' cannot run this: {refused}. Choose 'reference' or 'auto'.")

    def rule(self) -> Rule:
        return parse(self.optimizer, optimizers, "optimizer")

    def chosen(self) -> tuple[str, str]:
        """The backend that runs, and the sentence that says why."""
        if self.backend == "reference":
            return "reference", "reference: asked for by name"
        refused = refusal(cell_named(self.cell))
        if refused:
            return "reference", f"reference, some hundred times slower; not native: {refused}"
        return "native", f"native: {native._native.instruction_set()}, 1 thread"

    def network(self, inputs: int, outputs: int) -> Network:
        """The network with its first weights; the numbers of others do not move. Raises ValueError for one that memory
        cannot hold."""
        self._check_room(inputs, outputs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            net = Network(self.cell, inputs=inputs, units=self.units, outputs=outputs)
        return net.to(DTYPES[self.dtype])

    def _check_room(self, inputs: int, outputs: int) -> None:
        numbers = cell_named(self.cell).gates * self.units * (inputs + self.units + 2) + outputs * (self.units + 1)
        need, all_there = numbers * DTYPES[self.dtype].itemsize, memory_there()
        if need > all_there:
            raise ValueError(
                f"units must be few enough for weights that fit into memory, {all_there // 2**30} GiB here; got "
                f"units={self.units} with {inputs} inputs and {outputs} outputs, which need {need // 2**30} GiB. "
                "Choose fewer."
            )

    def engine(self, backend: str, loss: str, inputs: int, outputs: int) -> Engine:
        """The backend at work on the network with its first weights."""
        dtype, cell = DTYPES[self.dtype], cell_named(self.cell)
        windows = (self.h, self.every, self.replay)
        task = Task(cell, inputs, self.units, outputs, loss, *windows, self.rule(), dtype)
        net = self.network(inputs, outputs)
        return ByCredit(task, net) if backend == "reference" else Learner(task, net.state_dict())


def whole(name: str, value: Any) -> int:
    """The value as an int of Python, NumPy's too; raises TypeError for anything else, a bool included."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number; got {value!r}.") from None
