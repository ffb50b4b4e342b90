"""The twins: the numbers of torch.nn, and rows that restart or end early."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence
from twins import EXACT, OPTIONS, backends, each, leaves, modes, options, outputs_and_gradients, pair, state_for

from throughtime import layers
from throughtime.cells import Elman
from throughtime.layers import Recurrent

SIZES = [(1, 1, 1, 3), (1, 7, 3, 7), (7, 1, 3, 63), (63, 3, 7, 3)]
"""T, B, I, H."""


def compare(ours: Any, plain: Any, x: Any, hx: Any = None) -> None:
    """The same call of both: outputs, last state and every gradient are equal, and lie in memory alike."""
    found, wanted = (
        outputs_and_gradients(partial(layer, x, hx), [*leaves((x, hx)), *layer.parameters()]) for layer in (ours, plain)
    )
    torch.testing.assert_close(found, wanted, **EXACT)
    assert [layout(part) for part in found] == [layout(part) for part in wanted]


def layout(tensor: Tensor) -> list[int]:
    """The strides of the axes that have more than one entry."""
    return [stride for stride, size in zip(tensor.stride(), tensor.shape, strict=True) if size > 1]


@modes
@options
@pytest.mark.parametrize("given", [False, True], ids=["no state", "state"])
@pytest.mark.parametrize("form", ["padded", "unbatched", "packed", "packed sorted"])
def test_equals_torch(mode: str, options: dict[str, Any], given: bool, form: str) -> None:
    ours, plain = pair(mode, "reference", **options)
    B = 4
    hx = state_for(plain, () if form == "unbatched" else (B,)) if given else None
    if form == "unbatched":
        return compare(ours, plain, torch.randn(6, 3, dtype=torch.double).requires_grad_(), hx)
    x = torch.randn((B, 6, 3) if plain.batch_first else (6, B, 3), dtype=torch.double).requires_grad_()
    if form == "padded":
        return compare(ours, plain, x, hx)
    lengths = [6, 3, 3, 1] if form == "packed sorted" else [3, 1, 6, 3]
    packed = pack_padded_sequence(x.detach(), lengths, plain.batch_first, enforce_sorted=form == "packed sorted")
    packed.data.requires_grad_()
    compare(ours, plain, packed, hx)
    assert isinstance(ours(packed, hx)[0], PackedSequence)


@modes
@backends
@pytest.mark.parametrize("sizes", SIZES)
def test_odd_sizes(mode: str, backend: str, sizes: tuple[int, int, int, int]) -> None:
    T, B, I, H = sizes
    ours, plain = pair(mode, backend, I, H, num_layers=2, bidirectional=True)
    compare(ours, plain, torch.randn(T, B, I, dtype=torch.double).requires_grad_(), state_for(plain, (B,)))


@modes
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
def test_rounding_is_torchs(mode: str) -> None:
    """float32 against float64: the median over draws of the relative error, at most twice torch's own.

    One rounding is a draw from a heavy tail (a gradient may cancel), the norm over all numbers of a draw is not,
    and the median over draws forgets the odd bad one: it is steady within some percent.
    """
    ratios = []
    for seed in range(5):
        torch.manual_seed(seed)
        ours, plain = pair(mode, "reference", 7, 33, num_layers=2)
        x = torch.randn(30, 8, 7)
        wanted = outputs_and_gradients(partial(plain, x.double()), list(plain.parameters()))
        errors = []
        for layer in (ours.float(), plain.float()):
            found = outputs_and_gradients(partial(layer, x), list(layer.parameters()))
            errors.append(sum((a - b).norm().item() / b.norm().item() for a, b in zip(found, wanted, strict=True)))
        ratios.append(errors[0] / errors[1])
    assert sorted(ratios)[2] < 2


@modes
@pytest.mark.parametrize("p", [0.3, 1.0])
def test_dropout(mode: str, p: float) -> None:
    """In training it acts between layers as torch's does, down to the random numbers; in evaluation not at all."""
    ours, plain = pair(mode, "reference", num_layers=3, bidirectional=True, dropout=p)
    x = torch.randn(5, 4, 3, dtype=torch.double)
    found, wanted = [], []
    for layer, results in ((ours, found), (plain, wanted)):
        torch.manual_seed(1)
        results += outputs_and_gradients(partial(layer, x), list(layer.parameters()))
        results += leaves(layer.eval()(x))
    torch.testing.assert_close(found, wanted, **EXACT)
    trained, evaluated = found[0], leaves(ours(x))[0]
    assert not torch.equal(trained, evaluated)


# Rows that restart, rows that end early: the definition is every piece of every row run alone by torch.nn.


def pieces(reset: Tensor | None, steps: int, row: int) -> Iterator[tuple[int, int]]:
    """(start, stop) of each sequence in the first steps of a row."""
    starts = [t for t in range(1, steps) if reset is not None and reset[t, row]]
    yield from zip([0, *starts], [*starts, steps], strict=True)


def every_piece_alone(layer: Any, x: Tensor, hx: Any, reset: Tensor | None, lengths: Any) -> list[Tensor]:
    """Outputs (T, B, ...) and last states of a torch layer that runs each piece of each row by itself; time first."""
    T, B, _ = x.shape
    backward = torch.arange(layer.num_layers * (1 + layer.bidirectional)) % 2 == 1
    backward = backward[:, None, None] & torch.tensor(layer.bidirectional)
    outputs, lasts = [], []
    for row in range(B):
        steps = T if lengths is None else int(lengths[row])
        first, last = ([slot[:, row : row + 1] for slot in leaves(hx)] for _ in range(2))
        cuts = list(pieces(reset, steps, row)) if steps else []
        found = []
        for start, stop in cuts:
            goes_on = start == 0 and not (reset is not None and reset[0, row])
            enters = torch.where(backward, torch.tensor(stop == steps), torch.tensor(goes_on))
            into = [torch.where(enters, slot, 0) for slot in first]
            y, after = layer(x[start:stop, row : row + 1], tuple(into) if len(into) > 1 else into[0])
            found.append(y)
            leaves_here = torch.where(backward, torch.tensor(start == 0), torch.tensor(stop == steps))
            last = [torch.where(leaves_here, new, old) for new, old in zip(leaves(after), last, strict=True)]
        width = (layer.proj_size or layer.hidden_size) * (1 + layer.bidirectional)
        found.append(x.new_zeros(T - steps, 1, width))
        outputs.append(torch.cat(found))
        lasts.append(last)
    return [torch.cat(outputs, 1), *(torch.cat(rows, 1) for rows in zip(*lasts, strict=True))]


def some_reset(T: int, B: int) -> Tensor:
    """Row 0 never restarts, row 1 at its first step, row 2 always, the others here and there."""
    reset = torch.rand(T, B) < 0.3
    reset[:, 0], reset[0, 1], reset[:, 2] = False, True, True
    return reset


CUTS = {
    "reset": lambda T, B: (some_reset(T, B), None),
    "reset at the start": lambda T, B: (torch.arange(T)[:, None].expand(T, B) == 0, None),
    "reset of all rows": lambda T, B: (torch.arange(T)[:, None].expand(T, B) == 3, None),
    "reset nowhere": lambda T, B: (torch.zeros(T, B, dtype=torch.bool), None),
    "lengths": lambda T, B: (None, [3, T, 0, 1, T - 1]),
    "lengths, sorted": lambda T, B: (None, [T, T, 4, 1, 1]),
    "lengths, a tensor": lambda T, B: (None, torch.tensor([2, 0, 0, T, 1], dtype=torch.int32)),
    "lengths, all empty": lambda T, B: (None, [0] * B),
    "lengths, all full": lambda T, B: (None, [T] * B),
    "both": lambda T, B: (some_reset(T, B), [3, T, 5, 0, T - 1]),
}


@modes
@backends
@pytest.mark.parametrize(
    ("cut", "options"),
    [*((cut, {}) for cut in CUTS), *((cut, OPTIONS[3]) for cut in ("reset", "lengths", "both"))],
    ids=lambda part: part if isinstance(part, str) else "both ways" if part else "-",
)
def test_pieces_are_alone(mode: str, backend: str, cut: str, options: dict[str, Any]) -> None:
    ours, plain = pair(mode, backend, **options)
    T, B = 7, 5
    reset, lengths = CUTS[cut](T, B)
    x = torch.randn(T, B, 3, dtype=torch.double).requires_grad_()
    hx = state_for(plain, (B,))
    plain.batch_first = False

    def run(hx: Any) -> Any:
        if not ours.batch_first:
            return ours(x, hx, reset=reset, lengths=lengths)
        turned = None if reset is None else reset.T
        y, last = ours(x.transpose(0, 1), hx, reset=turned, lengths=lengths)
        return y.transpose(0, 1), last

    inputs = [x, *leaves(hx)]
    found = outputs_and_gradients(lambda: run(hx), [*inputs, *ours.parameters()])
    wanted = outputs_and_gradients(
        lambda: every_piece_alone(plain, x, hx, reset, lengths), [*inputs, *plain.parameters()]
    )
    torch.testing.assert_close(found, wanted, **EXACT)
    torch.testing.assert_close(leaves(run(None)), leaves(run(each(hx, torch.zeros_like))))


@modes
@backends
def test_one_row_without_an_axis(mode: str, backend: str) -> None:
    ours, _ = pair(mode, backend, bidirectional=True)
    x, reset = torch.randn(7, 3, dtype=torch.double), torch.rand(7) < 0.4
    y, last = ours(x, reset=reset, lengths=5)
    wanted, after = ours(x[:, None], reset=reset[:, None], lengths=[5])
    torch.testing.assert_close([y, *leaves(last)], [wanted[:, 0], *(part[:, 0] for part in leaves(after))])


@modes
@backends
def test_nothing_leaks_out_of_what_is_cut(mode: str, backend: str) -> None:
    """NaN in a state that a reset puts aside, and in padding, reaches no output and no gradient."""
    ours, _ = pair(mode, backend, num_layers=2)
    x = torch.randn(6, 3, 3, dtype=torch.double)
    reset = torch.zeros(6, 3, dtype=torch.bool)
    reset[0, 1] = reset[2, 0] = True
    dirty = each(state_for(ours, (3,)), Tensor.detach)
    clean = each(dirty, lambda slot: slot.index_fill(1, torch.tensor([1]), 0).requires_grad_())
    dirty = each(dirty, lambda slot: slot.index_fill(1, torch.tensor([1]), torch.nan).requires_grad_())
    found, wanted = (
        outputs_and_gradients(lambda: ours(x, hx, reset=reset), [*ours.parameters(), *leaves(hx)])  # noqa: B023
        for hx in (dirty, clean)
    )
    torch.testing.assert_close(found, wanted, **EXACT)

    lengths = [2, 6, 0]
    padded = x.clone()
    for row, steps in enumerate(lengths):
        padded[steps:, row] = torch.nan
    both = reset if backend == "reference" else None
    found, wanted = (
        outputs_and_gradients(
            lambda: ours(data, reset=both, lengths=lengths),  # noqa: B023
            list(ours.parameters()),
        )
        for data in (padded, x)
    )
    torch.testing.assert_close(found, wanted, **EXACT)


def test_long_padding_cannot_overflow() -> None:
    """A state that would grow without end in the padding is never formed."""
    layer = layers.RNN(1, 1, nonlinearity="relu", bias=False, backend="reference")
    nn.init.constant_(layer.weight_hh_l0, 3.0)
    y, _ = layer(torch.ones(200, 2, 1), lengths=[2, 1])
    y.sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in layer.parameters())


# Calls that make no sense.


X = torch.zeros(4, 2, 3)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "unknown backend": (
        lambda: layers.GRU(3, 5, backend="cuda"),
        "backend must be auto, native, torch or reference; got 'cuda'.",
    ),
    "unknown backend of Recurrent": (
        lambda: Recurrent("gru", inputs=3, units=5, backend="Torch"),
        "backend must be auto, native, torch or reference; got 'Torch'.",
    ),
    "torch for a cell that it has not": (
        lambda: Recurrent("ctrnn", inputs=3, units=5, backend="torch"),
        "backend 'torch' cannot run this: torch has no recurrent function for this cell. Choose 'reference' or 'auto'.",
    ),
    "torch for both cuts": (
        lambda: layers.GRU(3, 5, backend="torch")(X, reset=torch.ones(4, 2, dtype=torch.bool), lengths=[4, 4]),
        "backend 'torch' cannot run this: torch has no restarts inside rows of unequal length. "
        "Choose 'reference' or 'auto'.",
    ),
    "reset of another shape": (
        lambda: layers.LSTM(3, 5)(X, reset=torch.zeros(2, 4, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (4, 2); got torch.bool, (2, 4).",
    ),
    "reset that is not bool": (
        lambda: layers.LSTM(3, 5)(X, reset=torch.zeros(4, 2)),
        "reset must be bool with the leading axes of x, (4, 2); got torch.float32, (4, 2).",
    ),
    "reset that is no tensor": (
        lambda: layers.LSTM(3, 5)(X, reset=[[True, False]] * 4),  # type: ignore[arg-type]
        "reset must be bool with the leading axes of x, (4, 2); got list.",
    ),
    "reset without an axis": (
        lambda: layers.LSTM(3, 5)(X[:, 0], reset=torch.zeros(4, 1, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (4,); got torch.bool, (4, 1).",
    ),
    "reset of a step": (
        lambda: layers.LSTMCell(3, 5)(X[0], reset=torch.zeros(3, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (2,); got torch.bool, (3,).",
    ),
    "reset of Recurrent": (
        lambda: Recurrent("gru", inputs=3, units=5)(X, None, torch.zeros(4, dtype=torch.bool)),
        "reset must be bool with the leading axes of x, (4, 2); got torch.bool, (4,).",
    ),
    "too few lengths": (
        lambda: layers.RNN(3, 5)(X, lengths=[4]),
        "lengths must be one whole number a row, 2 in all; got [4].",
    ),
    "lengths that are no numbers of steps": (
        lambda: layers.RNN(3, 5)(X, lengths=[1.5, 2.0]),
        "lengths must be one whole number a row, 2 in all; got [1.5, 2.0].",
    ),
    "lengths that are a mask": (
        lambda: layers.RNN(3, 5)(X, lengths=[True, False]),
        "lengths must be one whole number a row, 2 in all; got [True, False].",
    ),
    "lengths above T": (
        lambda: layers.RNN(3, 5)(X, lengths=[4, 5]),
        "lengths must be from 0 to the 4 steps of x; got [4, 5].",
    ),
    "lengths below 0": (
        lambda: layers.RNN(3, 5)(X, lengths=torch.tensor([4, -1])),
        "lengths must be from 0 to the 4 steps of x; got [4, -1].",
    ),
    "a packed sequence with lengths": (
        lambda: layers.GRU(3, 5)(pack_padded_sequence(X, [4, 2]), lengths=[4, 2]),  # type: ignore[arg-type]
        "reset and lengths must come with a padded tensor; got a PackedSequence. Pad it.",
    ),
    "x of another width": (
        lambda: Recurrent("gru", inputs=2, units=5)(X),
        "x must be (T, B, 2); got (4, 2, 3).",
    ),
    "x without rows": (lambda: Recurrent("gru", inputs=3, units=5)(X[0]), "x must be (T, B, 3); got (2, 3)."),
    "a state of another shape": (
        lambda: Recurrent("lstm", inputs=3, units=5)(X, (torch.zeros(1, 1, 5),)),
        "state must be tensors of [(1, 2, 5), (1, 2, 5)]; got [(1, 1, 5)].",
    ),
    "no units": (lambda: Recurrent("gru", inputs=3, units=0), "units must be at least 1; got 0."),
    "all dropped": (
        lambda: Recurrent("gru", inputs=3, units=5, dropout=1.0),
        "dropout must be at least 0 and below 1; got 1.0.",
    ),
    "a phi that no cell has": (
        lambda: Recurrent(Elman("gelu"), inputs=3, units=5),
        "phi must be one of tanh, relu, sigmoid, identity; got 'gelu'.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    call, sentence = REFUSED[case]
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == sentence
