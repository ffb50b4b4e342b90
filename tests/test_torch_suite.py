"""The twins stand where torch.nn's layers stood: torch's own samples and errors, every one of them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from beside_torch import LAYERS, STEPS, close, example, failure, layers_only, make, pair, results, twins
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from throughtime import layers

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
