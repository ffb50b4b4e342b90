"""What is done to a module from outside: copies, parametrizations, hooks, transforms and compilers."""

from __future__ import annotations

import copy
import io
import pickle
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from beside_torch import LAYERS, STEPS, close, example, layers_only, make, pair, results, twins
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

from throughtime import layers

# Each treatment takes a layer and returns what is called from then on.


def saved(layer: Any) -> Any:
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def loaded(layer: Any) -> Any:
    """The weights of a layer, in a layer of torch's."""
    plain = next(base for base in type(layer).__mro__ if base.__module__.startswith("torch."))(3, 6)
    plain.load_state_dict(layer.state_dict(), strict=True)
    return plain


def functional(layer: Any) -> Any:
    """Weights from elsewhere, a function of the layer's own."""
    return lambda *args: torch.func.functional_call(
        layer, {name: weight * 1.5 for name, weight in layer.named_parameters()}, args
    )


def weight_name(layer: Any) -> str:
    return "weight_hh" if hasattr(layer, "weight_hh") else "weight_hh_l0"


class Doubled(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def parametrized(layer: Any) -> Any:
    parametrize.register_parametrization(layer, weight_name(layer), Doubled())
    return layer


def normed(layer: Any) -> Any:
    return parametrizations.weight_norm(layer, weight_name(layer))


def spectral(layer: Any) -> Any:
    """Its power iteration moves at every reading of the weight: it must be read as often as torch reads it."""
    torch.manual_seed(7)
    return parametrizations.spectral_norm(layer, weight_name(layer))


def orthogonal(layer: Any) -> Any:
    torch.manual_seed(7)
    return parametrizations.orthogonal(layer, weight_name(layer))


def pruned(layer: Any) -> Any:
    prune.l1_unstructured(layer, weight_name(layer), amount=0.4)
    return layer


def unpruned(layer: Any) -> Any:
    prune.remove(pruned(layer), weight_name(layer))
    return layer


def replaced(layer: Any) -> Any:
    setattr(layer, weight_name(layer), nn.Parameter(getattr(layer, weight_name(layer)).detach() * 3))
    return copy.deepcopy(layer)


def shared(layer: Any) -> Any:
    """Two weights that are one."""
    other = weight_name(layer).replace("weight", "bias")
    setattr(layer, other, getattr(layer, other.replace("hh", "ih")))
    return layer


def scaled_in_place(layer: Any) -> Any:
    with torch.no_grad():
        for weight in layer.parameters():
            weight.mul_(0.5)
    return layer


def hooked(layer: Any) -> Any:
    layer.register_forward_pre_hook(lambda module, args: (args[0] * 2, *args[1:]))
    layer.register_forward_hook(lambda module, args, output: torch.utils._pytree.tree_map(lambda y: y * 3, output))
    return layer


def hooked_backward(layer: Any) -> Any:
    layer.register_full_backward_hook(lambda module, into, out: tuple(g * 5 if g is not None else g for g in into))
    return layer


def through_meta(layer: Any) -> Any:
    weights = copy.deepcopy(layer.state_dict())
    layer = layer.to("meta").to_empty(device="cpu")
    layer.load_state_dict(weights)
    return layer


def assigned(layer: Any) -> Any:
    layer.load_state_dict({name: weight * 2 for name, weight in layer.state_dict().items()}, assign=True)
    return layer


TREATMENTS = {
    "nothing": lambda layer: layer,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
    "torch.save": saved,
    "double": lambda layer: layer.double().float(),
    "state_dict into torch's": loaded,
    "functional_call": functional,
    "a parametrization": parametrized,
    "weight_norm": normed,
    "spectral_norm": spectral,
    "orthogonal": orthogonal,
    "prune": pruned,
    "prune.remove": unpruned,
    "a weight replaced, then copied": replaced,
    "weights shared": shared,
    "weights changed in place": scaled_in_place,
    "forward hooks": hooked,
    "backward hook": hooked_backward,
    "to meta and back": through_meta,
    "load_state_dict(assign=True)": assigned,
    "share_memory": lambda layer: layer.share_memory(),
    "frozen": lambda layer: layer.requires_grad_(False),
    "eval": lambda layer: layer.eval(),
    "inside Sequential": lambda layer: nn.Sequential(layer),
}


@twins
@pytest.mark.parametrize("treatment", TREATMENTS)
def test_treated_alike(name: str, backend: str, treatment: str) -> None:
    """Three calls, each after a step of the optimiser, since a treatment may act at every call."""
    found: list[list[Tensor]] = []
    start = example(name)
    for layer in pair(name, backend, 3, 6):
        treated = TREATMENTS[treatment](layer)
        x = start.clone().requires_grad_()
        here: list[Tensor] = []
        for _ in range(3):
            weights = [*treated.parameters()] if isinstance(treated, nn.Module) else [*layer.parameters()]
            here += results(lambda: treated(x), x, weights)  # noqa: B023
            with torch.no_grad():
                for weight in weights:
                    weight.mul_(0.9)
        if isinstance(treated, nn.Module):
            here += treated.state_dict().values()
        found.append(here)
    torch.testing.assert_close(found[0], found[1])


@twins
def test_state_dict_both_ways(name: str, backend: str) -> None:
    ours, plain = make(name, backend, 3, 6), getattr(nn, name)(3, 6)
    assert list(ours.state_dict()) == list(plain.state_dict())
    ours.load_state_dict(plain.state_dict(), strict=True)
    close(ours(x := example(name)), plain(x))
    fresh = getattr(nn, name)(3, 6)
    fresh.load_state_dict(ours.state_dict(), strict=True)
    close(fresh(x), plain(x))


@pytest.mark.parametrize("name", LAYERS)
def test_pickles_without_a_backend(name: str) -> None:
    """A layer that was saved before backends had names is of the default one."""
    ours, plain = pair(name, "auto", 3, 6)
    del ours.__dict__["backend"]
    ours = pickle.loads(pickle.dumps(ours))
    assert "backend" not in ours.__dict__
    assert ours.backend == "auto"
    close(ours(x := example(name)), plain(x))
    close(ours(x, reset=torch.zeros(5, 4, dtype=torch.bool)), plain(x))


@pytest.mark.parametrize("name", LAYERS)
def test_attributes_of_ones_own(name: str) -> None:
    """A subclass may call what it adds as it likes, as under torch's class."""
    kind = getattr(layers, name)
    Mine = type("Mine", (kind,), {"forward": lambda self, x: self.cell(kind.forward(self, x)[0])})
    mine = Mine(3, 6, backend="reference")
    mine.cell, mine.input, mine.layers, mine.reset = nn.Linear(6, 2), 1, 2, 3
    assert mine(example(name)).shape == (5, 4, 2)
    assert "backend" not in getattr(nn, name)(3, 6).__dict__


# Transforms of torch.func, of which torch's own recurrent functions know few.


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, in forward mode
def test_functional_transforms(name: str) -> None:
    layer, _ = pair(name, "reference", 3, 4, bidirectional=True)
    layer = layer.double()
    weights = dict(layer.named_parameters())
    x = torch.randn(5, 2, 3, dtype=torch.double)

    def loss(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        return torch.func.functional_call(layer, weights, (x,))[0].square().sum()

    wanted = dict(zip(weights, torch.autograd.grad(loss(weights, x), list(weights.values())), strict=True))
    close(torch.func.grad(loss)(weights, x), wanted)
    alone = torch.func.vmap(torch.func.grad(loss), (None, 1))(weights, x)
    for row in range(2):
        close({key: part[row] for key, part in alone.items()}, torch.func.grad(loss)(weights, x[:, row]))
    together = {key: torch.stack((part, 2 * part)) for key, part in weights.items()}
    doubled = {key: 2 * part for key, part in weights.items()}
    close(torch.func.vmap(loss, (0, None))(together, x), torch.stack((loss(weights, x), loss(doubled, x))))
    hessian = torch.func.hessian(loss, 1)(weights, x)
    torch.testing.assert_close(hessian, torch.func.jacrev(torch.func.jacrev(loss, 1), 1)(weights, x))


# Compilers.


@pytest.mark.parametrize("name", [*LAYERS, *STEPS])
@pytest.mark.parametrize("place", [lambda layer: layer, nn.Sequential], ids=["alone", "a part"])
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_torchscript_is_refused(name: str, place: Callable[[Any], Any]) -> None:
    sentence = (
        f"throughtime.{name} cannot be compiled by TorchScript. "
        f"Load its state_dict into torch.nn.{name} and compile that, or use torch.export."
    )
    with pytest.raises(RuntimeError, match=re.escape(sentence)):
        torch.jit.script(place(getattr(layers, name)(3, 6)))


def traced(layer: Any, x: Tensor) -> Any:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(layer, (x,)), buffer)
    buffer.seek(0)
    return torch.jit.load(buffer)


COMPILERS: dict[str, Callable[[Any, Tensor], Any]] = {
    "trace": traced,
    "export": lambda layer, x: torch.export.export(layer, (x,)).module(),
}


@twins
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.filterwarnings("ignore")
def test_compilers(name: str, backend: str, compiler: str) -> None:
    layer = make(name, backend, 3, 6)
    compiled = COMPILERS[compiler](layer, example(name))
    torch.testing.assert_close(compiled(x := example(name)), layer(x))


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.filterwarnings("ignore")
def test_compile(backend: str) -> None:
    layer = layers.LSTM(3, 6, backend=backend)
    compiled = torch.compile(layer, backend="eager")
    x, reset = example("LSTM"), torch.rand(5, 4) < 0.3
    torch.testing.assert_close(compiled(x), layer(x))
    torch.testing.assert_close(compiled(x, reset=reset), layer(x, reset=reset))


@layers_only
def test_nothing_is_read_back(name: str, backend: str) -> None:
    """Without reset and lengths no number decides what is done: a call works where there are no numbers."""
    layer = make(name, backend, 3, 6, bidirectional=True, device="meta")
    assert layer(torch.empty(5, 4, 3, device="meta"))[0].shape == (5, 4, 12)
