"""The twins stand where torch.nn's layers stood: torch's own samples and errors, and all that is done to a module."""

from __future__ import annotations

import copy
import io
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_leaves

from throughtime import layers

LAYERS = ("RNN", "GRU", "LSTM")
STEPS = ("RNNCell", "GRUCell", "LSTMCell")
TWINS = [(name, backend) for name in LAYERS for backend in ("auto", "reference")] + [(name, "") for name in STEPS]
"""A layer of one step has no backend."""

twins = pytest.mark.parametrize(("name", "backend"), TWINS, ids=lambda part: part or "-")
layers_only = pytest.mark.parametrize(("name", "backend"), TWINS[:6])


def make(name: str, backend: str, *args: Any, **options: Any) -> Any:
    return getattr(layers, name)(*args, **options, **({"backend": backend} if backend else {}))


def pair(name: str, backend: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Our layer and torch's, made under the same seed."""
    made = []
    for build in (lambda: make(name, backend, *args, **options), lambda: getattr(nn, name)(*args, **options)):
        torch.manual_seed(3)
        made.append(build())
    return made[0], made[1]


def example(name: str) -> Tensor:
    return torch.randn(4, 3) if name in STEPS else torch.randn(5, 4, 3)


def close(found: Any, wanted: Any, **tolerance: float) -> None:
    """Equal to rounding, and alike in memory."""
    found, wanted = tree_leaves(found), tree_leaves(wanted)
    torch.testing.assert_close(found, wanted, **tolerance)
    assert [part.is_contiguous() for part in found] == [part.is_contiguous() for part in wanted]


def results(call: Callable[[], Any], *learned: Any) -> list[Tensor]:
    """What a call returns, and the gradients of the sum of its squares."""
    outputs = [part for part in tree_leaves(call()) if part.is_floating_point()]
    wanted = [part for part in tree_leaves(learned) if isinstance(part, Tensor) and part.requires_grad]
    return outputs + list(torch.autograd.grad(sum(part.square().sum() for part in outputs), wanted))


def failure(call: Callable[[], Any]) -> tuple[type, str]:
    with pytest.raises(Exception) as caught:
        call()
    return caught.type, str(caught.value)


# torch's own samples and error samples.


@cache
def database() -> dict[str, Any]:
    """torch's ModuleInfo of each name; importing it freezes torch's flags, which other tests may want to set."""
    pytest.importorskip("expecttest", reason="torch's own test modules need expecttest")
    from torch.testing._internal.common_modules import module_db

    torch.backends.__allow_nonbracketed_mutation_flag = True  # type: ignore[attr-defined]
    return {info.name.removeprefix("nn."): info for info in module_db}


def samples(name: str, *, errors: bool = False, dtype: torch.dtype = torch.double) -> Iterator[Any]:
    info = database()[name]
    make_inputs = info.module_error_inputs_func if errors else info.module_inputs_func
    for training in (True, False):
        for sample in make_inputs(info, device="cpu", dtype=dtype, requires_grad=not errors, training=training):
            yield training, sample


@twins
def test_samples(name: str, backend: str) -> None:
    """Every sample: same weights under the same seed, same repr, same outputs, same gradients, same layout."""
    count = 0
    for training, sample in samples(name):
        build, call = sample.constructor_input, sample.forward_input
        ours, plain = pair(name, backend, *build.args, **build.kwargs)
        assert repr(ours) == repr(plain)
        close(dict(ours.named_parameters()), dict(plain.named_parameters()), rtol=0, atol=0)
        found, wanted = (
            results(
                lambda: layer(*call.args, **call.kwargs),  # noqa: B023
                call.args,
                list(layer.double().train(training).parameters()),
            )
            for layer in (ours, plain)
        )
        close(found, wanted, rtol=1e-12, atol=1e-12)
        count += 1
    assert count


@twins
@pytest.mark.parametrize("dtype", [torch.float, torch.double])
def test_error_samples(name: str, backend: str, dtype: torch.dtype) -> None:
    """Every call that torch refuses: the same error, to the letter."""
    count = 0
    for _, error in samples(name, errors=True, dtype=dtype):
        build, call = error.module_error_input.constructor_input, error.module_error_input.forward_input

        def run(make: Callable[..., Any]) -> Any:
            layer = make(*build.args, **build.kwargs)  # noqa: B023
            return layer(*call.args, **call.kwargs)  # noqa: B023

        found = failure(lambda: run(lambda *args, **options: make(name, backend, *args, **options)))
        assert found == failure(lambda: run(getattr(nn, name)))
        assert re.search(error.error_regex, found[1])
        count += 1
    assert count


WRONG: dict[str, Callable[[Any], Any]] = {
    "one axis": lambda layer: layer(torch.ones(3)),
    "four axes": lambda layer: layer(torch.ones(1, 1, 1, 3)),
    "another width": lambda layer: layer(torch.ones(5, 4, 2)),
    "another dtype": lambda layer: layer(torch.ones(5, 4, 3, dtype=torch.double)),
    "no steps": lambda layer: layer(torch.ones(0, 4, 3)),
    "a state with too many layers": lambda layer: layer(torch.ones(5, 4, 3), states(layer, 3, 4, 6)),
    "a state with too few rows": lambda layer: layer(torch.ones(5, 4, 3), states(layer, 2, 3, 6)),
    "a state of another width": lambda layer: layer(torch.ones(5, 4, 3), states(layer, 2, 4, 5)),
    "a state without rows": lambda layer: layer(torch.ones(5, 4, 3), states(layer, 2, 6)),
    "a state with rows": lambda layer: layer(torch.ones(5, 3), states(layer, 2, 4, 6)),
    "a state of another dtype": lambda layer: layer(torch.ones(5, 4, 3), states(layer, 2, 4, 6, dtype=torch.double)),
    "half a state": lambda layer: layer(torch.ones(5, 4, 3), (torch.ones(2, 4, 6),)),
    "a state and a half": lambda layer: layer(torch.ones(5, 4, 3), (torch.ones(2, 4, 6),) * 3),
    "proj_size": lambda layer: type(layer)(3, 4, proj_size=4),
    "an unknown option": lambda layer: type(layer)(3, 4, layers=2),
}


def states(layer: Any, *shape: int, **options: Any) -> Any:
    slot = torch.zeros(shape, **options)
    return (slot, slot) if isinstance(layer, nn.LSTM) else slot


@layers_only
@pytest.mark.parametrize("case", WRONG)
def test_errors(name: str, backend: str, case: str) -> None:
    ours, plain = pair(name, backend, 3, 6, 2)
    found, wanted = failure(lambda: WRONG[case](ours)), failure(lambda: WRONG[case](plain))
    assert found == wanted


@pytest.mark.parametrize("name", LAYERS)
def test_packed_errors(name: str) -> None:
    """torch itself lets an LSTM's packed sequence of any width run, in float32; the stack does not."""
    layer = make(name, "reference", 3, 6, 2)
    assert failure(lambda: layer(pack_sequence([torch.ones(5, 2)]))) == (
        RuntimeError,
        "input.size(-1) must be equal to input_size. Expected 3, got 2",
    )
    two = pack_sequence([torch.ones(5, 3), torch.ones(2, 3)])
    kind, sentence = failure(lambda: layer(two, states(layer, 2, 1, 6)))
    assert kind is RuntimeError
    assert re.match(r"Expected hidden(\[0\])? size \(2, 2, 6\), got \[2, 1, 6\]", sentence)


@twins
def test_what_they_are(name: str, backend: str) -> None:
    ours, plain = pair(name, backend, 3, 6)
    assert isinstance(ours, type(plain))
    assert type(ours).__name__ == name
    meta = make(name, backend, 3, 6, device="meta", dtype=torch.double)
    assert {weight.device.type for weight in meta.parameters()} == {"meta"}
    assert {weight.dtype for weight in meta.parameters()} == {torch.double}


def test_positional_arguments() -> None:
    ours, plain = (kind(3, 6, 2, "relu", False, True, 0.0, True) for kind in (layers.RNN, nn.RNN))
    assert repr(ours) == repr(plain)
    assert ours.nonlinearity == "relu"
    assert ours.batch_first
    assert ours.bidirectional
    assert not ours.bias


def test_same_warning() -> None:
    """Dropout that has nowhere to act: torch's warning, from torch's place."""
    seen = []
    for kind in (layers.LSTM, nn.LSTM):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            kind(3, 6, dropout=0.5)
        seen.append([(str(w.message), w.category, w.filename, w.lineno) for w in caught])
    assert seen[0] == seen[1]
    assert len(seen[0]) == 1


# What is done to a module from outside. Each treatment takes a layer and returns what is called from then on.


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


# Narrow numbers.


def error(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The relative error over all numbers, tensor by tensor: a norm, since one rounding has a heavy tail."""
    pairs = [(a.double(), b) for a, b in zip(found, wanted, strict=True) if b.any()]
    return sum((a - b).norm().item() / b.norm().item() for a, b in pairs)


@twins
def test_bfloat16(name: str, backend: str) -> None:
    """Against float64, from the same rounded weights: at most twice torch's own error."""
    ours, plain = pair(name, backend, 3, 33)
    x = torch.randn(8, 3) if name in STEPS else torch.randn(12, 8, 3)
    x = x.bfloat16()
    found, wanted = (results(lambda: layer(x), list(layer.bfloat16().parameters())) for layer in (ours, plain))  # noqa: B023
    assert {part.dtype for part in found} == {torch.bfloat16}
    exact = plain.double()
    truth = results(lambda: exact(x.double()), list(exact.parameters()))
    assert error(found, truth) < 2 * error(wanted, truth)


@layers_only
def test_autocast(name: str, backend: str) -> None:
    """The reference computes in the dtype of the weights, forward and backward; auto does what torch does here."""
    ours, plain = pair(name, backend, 3, 6)
    x = example(name).bfloat16().float()

    def run(layer: Any, **options: Any) -> list[Tensor]:
        def call() -> Any:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                return layer(x, **options)

        return results(call, list(layer.parameters()))

    exact = pair(name, "reference", 3, 6)[0]
    reset = torch.zeros(5, 4, dtype=torch.bool)
    reset[2, 1] = True
    torch.testing.assert_close(run(ours, reset=reset), results(lambda: exact(x, reset=reset), list(exact.parameters())))
    if backend == "reference":
        torch.testing.assert_close(run(ours), results(lambda: exact(x), list(exact.parameters())))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            torch.testing.assert_close(ours(x.bfloat16()), exact(x))
    elif name == "LSTM" and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        assert failure(lambda: run(ours)) == failure(lambda: run(plain))
    else:
        torch.testing.assert_close(run(ours), run(plain))


# The layers of one step.


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("rows", [(), (4,)], ids=["one row", "rows"])
def test_a_step_restarts(name: str, rows: tuple[int, ...]) -> None:
    """Restarted rows start from zeros, and neither numbers nor gradients of their state come through."""
    ours, plain = pair(name, "", 3, 6)
    x = torch.randn(*rows, 3)
    reset = torch.ones(rows, dtype=torch.bool) if not rows else torch.tensor([True, False, False, True])
    slots = [torch.randn(*rows, 6) for _ in range(1 + (name == "LSTMCell"))]
    dirty = [torch.where(reset[..., None], torch.nan, slot).requires_grad_() for slot in slots]
    clean = [torch.where(reset[..., None], 0, slot).requires_grad_() for slot in slots]
    found = results(lambda: ours(x, tuple(dirty) if len(dirty) > 1 else dirty[0], reset=reset), dirty)
    wanted = results(lambda: plain(x, tuple(clean) if len(clean) > 1 else clean[0]), clean)
    for grad in wanted[len(slots) :]:
        grad.masked_fill_(reset[..., None], 0)
    close(found, wanted)
    close(ours(x, reset=reset), plain(x))
