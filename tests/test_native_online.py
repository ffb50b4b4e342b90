"""Online BPTT(h; every) inside the compiled part is the library's own credit fed step by step to torch's optimiser."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from native_case import FEW, instructions, needed, threads  # noqa: F401

from throughtime.cells import cell_named
from throughtime.chunk import Chunk
from throughtime.credit import BPTT
from throughtime.kernels.online import SGD, Adam, Learner, Task
from throughtime.nets import Network, losses
from throughtime.shapes import Tensor

pytestmark = needed
RULES = {"sgd": SGD(0.05), "momentum": SGD(0.02, 0.9), "adam": Adam(0.003)}
STEPS = 150  # of the main test


def torch_optimizer(rule: SGD | Adam, net: Network) -> torch.optim.Optimizer:
    if isinstance(rule, SGD):
        return torch.optim.SGD(net.parameters(), lr=rule.lr, momentum=rule.momentum)
    return torch.optim.Adam(net.parameters(), lr=rule.lr, betas=(rule.beta1, rule.beta2), eps=rule.eps)


def by_credit(
    net: Network, task: Task, x: Tensor, y: Tensor, mask: Tensor | None = None, reset: Tensor | None = None
) -> Network:
    """The definition: the credit, the mean over the errors that it settled, torch's optimiser."""
    net = copy.deepcopy(net)
    weights = dict(net.named_parameters())
    credit, optimizer = BPTT(task.h, task.every, task.replay), torch_optimizer(task.rule, net)
    memory = credit.start(net)
    for t in range(len(x)):
        one = slice(t, t + 1)
        parts = (None if part is None else part[one, None] for part in (mask, reset))
        estimate, memory = credit(net, losses[task.loss], Chunk(x[one, None], y[one, None], *parts), memory)
        if estimate.count:
            for name, grad in estimate.grads.items():
                weights[name].grad = grad / estimate.count
            optimizer.step()
    return net


class Case:
    def __init__(self, cell: str, *, I: int = 3, H: int = 7, A: int = 2, T: int = 80, **options: Any) -> None:
        loss = options.pop("loss", "squared")
        settings = {"h": 5, "every": 1, "replay": False, "rule": RULES["sgd"], "dtype": torch.double} | options
        self.task = Task(cell_named(cell), I, H, A, loss, **settings)
        dtype = self.task.dtype
        self.net = Network(cell, inputs=I, units=H, outputs=A, backend="reference").to(dtype)
        self.x = torch.randn(T, I, dtype=dtype)
        self.y = torch.randint(A, (T,)) if loss == "softmax" else torch.randn(T, A, dtype=dtype)
        self.learner = Learner(self.task, self.net.state_dict())

    def learn(self, mask: Tensor | None = None, reset: Tensor | None = None) -> np.ndarray:
        prediction = np.empty((len(self.x), self.task.outputs), self.x.numpy().dtype)
        flags = [None if part is None else part.numpy() for part in (mask, reset)]
        self.learner.learn(self.x.numpy(), self.y.numpy(), *flags, prediction)
        return prediction

    def check(self, mask: Tensor | None = None, reset: Tensor | None = None) -> None:
        wanted = by_credit(self.net, self.task, self.x, self.y, mask, reset)
        self.learn(mask, reset)
        self.close(wanted)

    def close(self, wanted: Network) -> None:
        # Some hundred updates of 1e-16 each that the recurrence may enlarge; a wrong term is off by more than 1e-4.
        for name, found in self.learner.weights().items():
            torch.testing.assert_close(found, wanted.state_dict()[name], rtol=0, atol=1e-10, msg=name)


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", FEW)
def test_the_weights_are_those_of_the_credit_and_torchs_optimiser(name: str, rule: str, replay: bool) -> None:
    Case(name, replay=replay, rule=RULES[rule], T=STEPS).check()


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize(("h", "every"), [(1, 1), (6, 2), (7, 3), (4, 4)])
def test_every_window(h: int, every: int, replay: bool, loss: str) -> None:
    for name in ("lstm", "gru"):
        Case(name, h=h, every=every, replay=replay, loss=loss, A=5).check()


@pytest.mark.parametrize("phi", ["tanh", "relu", "sigmoid", "identity"])
@pytest.mark.parametrize("cell", ["elman", "ctrnn"])
def test_every_phi(cell: str, phi: str) -> None:
    Case(f"{cell}:phi={phi}", rule=SGD(0.01)).check()


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("name", FEW)
def test_steps_without_target_and_sequences_that_start_anew(name: str, every: int, replay: bool) -> None:
    case = Case(name, h=6, every=every, replay=replay)
    mask, reset = torch.rand(80) < 0.6, torch.rand(80) < 0.15
    reset[0], mask[20:33] = True, False
    case.check(mask, reset)


@pytest.mark.parametrize(("I", "H", "A"), [(1, 1, 1), (1, 63, 3), (17, 16, 9), (40, 33, 17), (3, 130, 2)])
@pytest.mark.parametrize("name", FEW)
def test_sizes_on_every_instruction_set(name: str, I: int, H: int, A: int, instructions: str) -> None:  # noqa: F811
    Case(name, I=I, H=H, A=A, h=9, T=25, replay=H % 2 == 0, rule=RULES["adam"]).check()


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("name", FEW)
def test_float32_rounds_and_no_more(name: str, replay: bool, rule: str, instructions: str) -> None:  # noqa: F811
    case = Case(name, I=5, H=20, A=3, h=8, T=30, replay=replay, rule=RULES[rule], dtype=torch.float)
    wanted = by_credit(case.net.double(), case.task, case.x.double(), case.y.double())
    case.learn()
    for name, found in case.learner.weights().items():  # 30 updates rounded at 6e-8; Adam divides small by small
        torch.testing.assert_close(found.double(), wanted.state_dict()[name], rtol=0, atol=2e-4, msg=name)


@pytest.mark.parametrize("loss", ["squared", "softmax"])
@pytest.mark.parametrize("name", FEW)
def test_predictions_come_before_the_target_is_learned(name: str, loss: str) -> None:
    case = Case(name, loss=loss, A=4, T=12)
    found = case.learn()
    for t in range(12):
        before = Case.__new__(Case)
        before.__dict__ |= case.__dict__
        before.x, before.y = case.x[:t], case.y[:t]
        before.learner = Learner(case.task, case.net.state_dict())
        before.learn()
        out = np.empty(4)
        state = {name: part.clone() for name, part in before.learner.tensors().items()}
        before.learner.predict(case.x[t].numpy(), False, out)
        np.testing.assert_array_equal(out, found[t])
        for name, part in before.learner.tensors().items():
            assert torch.equal(part, state[name])
    net = Network(case.task.cell, inputs=3, units=7, outputs=4).double()
    net.load_state_dict(case.net.state_dict())
    first = net(case.x[:1, None])[0][0, 0].detach()
    torch.testing.assert_close(torch.from_numpy(found[0]), first.softmax(0) if loss == "softmax" else first)


@pytest.mark.parametrize("replay", [False, True])
@pytest.mark.parametrize("name", FEW)
def test_calls_of_any_length_and_what_is_saved_change_no_bit(name: str, replay: bool) -> None:
    whole = Case(name, h=6, every=2, replay=replay, rule=RULES["adam"], dtype=torch.float, T=150)
    parts = Learner(whole.task, whole.net.state_dict())
    whole.learn()
    x, y = whole.x.numpy(), whole.y.numpy()
    for start, stop in ((0, 1), (1, 2), (2, 9), (9, 100), (100, 101), (101, 150)):
        saved, parts = parts.tensors(), Learner(whole.task, whole.net.state_dict())
        parts.load(saved)
        parts.learn(x[start:stop], y[start:stop])
    for name, part in whole.learner.tensors().items():
        assert torch.equal(part, parts.tensors()[name]), name
