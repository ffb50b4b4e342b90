"""What an audit holds still and what it watches while a loop runs: random numbers, graphs, optimizers, clipping."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.amp.grad_scaler import GradScaler
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.overrides import TorchFunctionMode

from throughtime.shapes import Tensor
from throughtime.verify.tape import TINY, Tape
from throughtime.verify.taps import counter, watch_padding


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The same random numbers in every run; the caller's go on as if none were drawn."""
    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


@contextmanager
def _replaced(owner: Any, **others: Callable[..., Any]) -> Iterator[None]:
    """Other functions in a module or class."""
    plain = {name: getattr(owner, name) for name in others}
    for name, other in others.items():
        setattr(owner, name, other)
    try:
        yield
    finally:
        for name, function in plain.items():
            setattr(owner, name, function)


@contextmanager
def graph_kept() -> Iterator[None]:
    """No backward frees its graph, so that a loop that goes back twice shows where it goes."""

    def keep(function: Callable[..., Any], place: int) -> Callable[..., Any]:
        def kept(*args: Any, **options: Any) -> Any:
            if len(args) > place:
                return function(*args[:place], True, *args[place + 1 :], **options)
            return function(*args, **options | {"retain_graph": True})

        return kept

    with _replaced(torch.autograd, backward=keep(torch.autograd.backward, 2), grad=keep(torch.autograd.grad, 3)):
        yield


@contextmanager
def unscaled() -> Iterator[None]:
    """A GradScaler scales nothing and skips no step: errors here are larger than its scale is made for."""
    with _replaced(
        GradScaler,
        scale=lambda self, outputs: outputs,
        unscale_=lambda self, optimizer: None,
        step=lambda self, optimizer, *args, **options: optimizer.step(*args, **options),
        update=lambda self, new_scale=None: None,
    ):
        yield


@contextmanager
def watched_optimizers(model: nn.Module, parts: dict[str, nn.Module], tape: Tape) -> Iterator[None]:
    """Every step of an optimizer of the model is read, and changes nothing: it finds no gradients."""
    names = {id(weight): name for name, weight in model.named_parameters()}
    weights = counter(tape.carrier.module, parts[tape.carrier.module], tape.given)
    assert weights is not None
    hidden: list[tuple[Tensor, Tensor]] = []

    def take(optimizer: torch.optim.Optimizer) -> None:
        held = [weight for group in optimizer.param_groups for weight in group["params"] if id(weight) in names]
        if held:
            tape.log("step")
            tape.held |= {names[id(weight)] for weight in held}
        if any(weight is weights for weight in held):
            grad = weights.grad
            found = torch.zeros(weights.numel()) if grad is None else grad.detach().flatten().cpu()
            tape.updates.append(found.double() / TINY)
        for weight in held:
            if weight.grad is not None:
                hidden.append((weight, weight.grad))
                weight.grad = None

    def before(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> Any:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            take(optimizer)
            return None

        def closed() -> Any:
            loss = closure()
            take(optimizer)
            return loss

        if len(args) > 1:
            return (args[0], closed, *args[2:]), kwargs
        return args, kwargs | {"closure": closed}

    def after(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        while hidden:
            weight, grad = hidden.pop()
            weight.grad = grad

    hooks = register_optimizer_step_pre_hook(before), register_optimizer_step_post_hook(after)
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def watched_clipping(tape: Tape) -> Iterator[None]:
    """Calls of torch's clipping are seen under whatever name the loop knows them; not while another profiler runs."""
    names = {"clip_grad_norm_", "clip_grad_value_"}

    def profile(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_name in names and "clip_grad" in frame.f_code.co_filename:
            tape.log("clip")

    if sys.getprofile() is not None:
        yield
        return
    sys.setprofile(profile)
    try:
        yield
    finally:
        sys.setprofile(None)


class WatchedPadding(TorchFunctionMode):
    """Sees the errors that come back to what pad_packed_sequence put behind the ends of rows."""

    def __init__(self, tape: Tape) -> None:
        super().__init__()
        self.tape = tape

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if getattr(func, "__name__", "") == "_pad_packed_sequence":
            batch_first = args[2] if len(args) > 2 else (kwargs or {}).get("batch_first", False)
            watch_padding(result[0], result[1], batch_first, self.tape)
        return result
