"""Which backend runs, and why; what the native one refuses or must not read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from native_case import Case, close, needed, threads
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from throughtime import kernels, layers
from throughtime.cells import cell_named
from throughtime.kernels import native, run
from throughtime.nets import Network

pytestmark = needed
__all__ = ["threads"]

MISSING = "the compiled part is not installed: no module"


# Where it does not run.


def refusals() -> dict[str, tuple[Any, str]]:
    case = Case("gru", (4, 2, 3, 5))
    x, weights = case.x, case.weights
    sparse, masked = x.to_sparse(), type("Mine", (Tensor,), {})
    plain = "it runs on plain dense tensors on the CPU; got"
    return {
        "another dtype": ([x.bfloat16()], "it computes in float32 and float64; got torch.bfloat16"),
        "two dtypes": ([x.float(), weights.W_x], "all of it must be of one dtype; got torch.float32 and torch.float64"),
        "whole-number weights": ([x, weights.W_x.long()], "it computes in float32 and float64; got torch.int64"),
        "elsewhere": ([x.to("meta")], f"{plain} Tensor, meta"),
        "a subclass": ([x.as_subclass(masked)], f"{plain} Mine, cpu"),
        "sparse": ([sparse], f"{plain} Tensor, cpu"),
        "negated": ([torch.complex(x, x).conj().imag], f"{plain} Tensor, cpu"),
        "no memory": ([torch._efficientzerotensor(3)], f"{plain} Tensor, cpu"),
    }


@pytest.mark.parametrize("case", refusals())
def test_refused(case: str) -> None:
    tensors, sentence = refusals()[case]
    assert native.refusal(cell_named("gru"), False, False, tensors) == sentence
    with pytest.raises(ValueError) as caught:
        kernels.choose(cell_named("gru"), *tensors, backend="native")
    assert str(caught.value) == f"backend 'native' cannot run this: {sentence}. Choose 'reference' or 'auto'."
    choice = kernels.choose(cell_named("gru"), *tensors)
    assert choice.backend == "torch"
    assert choice.why.endswith(f"; not native: {sentence}")


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, in forward mode
def test_looked_into() -> None:
    """Transforms, forward mode and modes must see operations: they get them, and the right numbers."""
    case = Case("gru", (4, 2, 3, 5))
    native_run = lambda x: run(case.cell, x, case.weights, case.state)[0].square().sum()  # noqa: E731
    reference = lambda x: run(case.cell, x, case.weights, case.state, backend="reference")[0].square().sum()  # noqa: E731
    close([torch.func.grad(native_run)(case.x)], [torch.func.grad(reference)(case.x)])
    forced = lambda x: run(case.cell, x, case.weights, case.state, backend="native")[0].sum()  # noqa: E731
    with pytest.raises(ValueError, match=r"transforms of torch\.func cannot look inside it"):
        torch.func.grad(forced)(case.x)
    with torch.autograd.forward_ad.dual_level(), pytest.raises(ValueError, match="no derivative in forward mode"):
        forced(torch.autograd.forward_ad.make_dual(case.x, case.x))
    with FlopCounterMode(display=False) as counter:
        native_run(case.x)
    assert counter.get_total_flops()
    with (
        pytest.raises(ValueError, match="a dispatch mode is on"),
        FlopCounterMode(display=False),
    ):
        forced(case.x)


def test_functional_call_and_grad() -> None:
    layer, other = (layers.GRU(3, 5, backend=backend).double() for backend in ("auto", "reference"))
    other.load_state_dict(layer.state_dict())
    x = torch.randn(4, 2, 3, dtype=torch.double)
    found = []
    for one in (layer, other):
        weights = dict(one.named_parameters())
        loss = lambda weights: torch.func.functional_call(one, weights, (x,))[0].square().sum()  # noqa: B023, E731
        found.append(list(torch.func.grad(loss)(weights).values()))
    close(*found)


MISFITS: dict[str, dict[str, Any]] = {
    "a state of another width": {"state": (torch.zeros(2, 4, dtype=torch.double),)},
    "a slot too many": {"state": (torch.zeros(2, 5, dtype=torch.double),) * 2},
    "x of another width": {"x": torch.zeros(4, 2, 2, dtype=torch.double)},
    "reset of another shape": {"reset": torch.zeros(2, 4, dtype=torch.bool)},
    "reset of bytes": {"reset": torch.zeros(4, 2, dtype=torch.uint8)},
    "lengths above T": {"lengths": torch.tensor([5, 1])},
    "lengths below 0": {"lengths": torch.tensor([-1, 1])},
    "lengths of 32 bits": {"lengths": torch.tensor([1, 1], dtype=torch.int32)},
}


@pytest.mark.parametrize("case", MISFITS)
def test_what_does_not_fit_is_not_read(case: str) -> None:
    whole = Case("gru", (4, 2, 3, 5))
    arguments = {"x": whole.x, "weights": whole.weights, "state": whole.state, **MISFITS[case]}
    with pytest.raises(ValueError, match="must fit together"):
        run(whole.cell, backend="native", **arguments)


def test_a_cell_of_ones_own_is_not_taken() -> None:
    """Nor one that inherits from a cell of the library, for its forward may be another."""
    gru = type("Mine", (type(cell_named("gru")),), {})()
    assert native.refusal(gru, False, False) == "it has no sweep for this cell"


def test_memory_is_named() -> None:
    with pytest.raises(ValueError) as caught:
        layers.GRU(3, 5, memory="little")
    assert str(caught.value) == "memory must be auto, gates or states; got 'little'."
    with pytest.raises(ValueError) as caught:
        Network("gru", inputs=3, units=5, outputs=2, backend="reference", memory="states")
    assert str(caught.value) == (
        "memory must be auto with backend 'reference'; got 'states'. Only native has a choice."
    )


@pytest.mark.skipif(not (native.MISSING or native._native.openmp()), reason="built for one thread")
@pytest.mark.parametrize(
    ("sizes", "batch_first", "role"),
    [
        ((4, 2, 3, 5), False, "only one needed"),
        ((100, 1, 3, 40), False, "one walks, the others project inputs and sum dW"),
        ((1, 100, 3, 40), True, "one walks, the others project inputs and sum dW"),
        ((100, 20, 3, 40), False, "each with rows of its own"),
    ],
)
def test_why_says_what_the_threads_do(
    sizes: tuple[int, int, int, int], batch_first: bool, role: str, threads: None
) -> None:
    torch.set_num_threads(2)
    a, b, I, H = sizes
    layer = layers.GRU(I, H, batch_first=batch_first)
    assert f"2 threads, {role}, keeps" in kernels.why(layer, torch.zeros(a, b, I))


def test_why(monkeypatch: pytest.MonkeyPatch, threads: None) -> None:
    torch.set_num_threads(2)
    layer = layers.LSTM(3, 5)
    plan = f"native: {native._native.instruction_set()}, {2 if native._native.openmp() else 1} thread"
    assert kernels.why(layer).startswith(plan)
    assert kernels.why(layer).endswith("keeps gates up to 256 MB, then states")
    assert kernels.why(layer, torch.zeros(4, 2, 3)).endswith("keeps gates")
    assert kernels.why(layers.LSTM(3, 5, memory="states")).endswith("keeps states")
    assert kernels.why(Network("gru", inputs=3, units=5, outputs=2), torch.zeros(4, 2, dtype=torch.int64)).startswith(
        plan
    )
    assert "not native: it computes in float32 and float64; got torch.bfloat16" in kernels.why(layer.bfloat16())
    monkeypatch.setattr(native, "MISSING", MISSING)
    own = f"torch {torch.__version__} has its own gru"
    assert kernels.why(layers.GRU(3, 5)) == f"torch: {own}; not native: {MISSING}"


def test_without_the_compiled_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """All else works; asking for it by name says what is missing."""
    monkeypatch.setattr(native, "MISSING", MISSING)
    layer = layers.GRU(3, 5)
    y, _ = layer(torch.randn(4, 2, 3))
    assert "Sweep" not in type(y.grad_fn).__name__
    with pytest.raises(ValueError, match=f"cannot run this: {MISSING}"):
        layers.GRU(3, 5, backend="native")


def test_outputs_may_be_changed_in_place_as_those_of_torch() -> None:
    """Where batches come first y is a transposed view, which autograd must not take for one made inside."""
    for kind in (layers.LSTM, nn.LSTM):
        y, _ = kind(4, 5, batch_first=True)(torch.randn(3, 2, 4))
        y[:, 0] = 0
        assert not y[:, 0].any()
