"""RNN, GRU and LSTM: twins of torch.nn's, with rows that restart and rows of unequal length; Recurrent for any cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from throughtime.cells import GRU as GRUStep
from throughtime.cells import LSTM as LSTMStep
from throughtime.cells import Cell, Elman, cell_named, spell_cell
from throughtime.kernels import choose
from throughtime.shapes import Bool, Float, Shaped, Slots, Tensor
from throughtime.stack import direction_of, run_stack, suffixes

Lengths = Tensor | Sequence[int]


class RNN(nn.RNN):
    """torch.nn.RNN, same arguments, weights and results; its call takes two more.

    reset    bool, the leading axes of x: True where a row starts anew before that step, from zeros. State and
             gradient are both cut; the backward direction is cut after the last step of each sequence.
    lengths  one number of steps a row, 0 allowed, in any order: outputs after a row's last step are zeros, its
             last state is that of its last step.
    backend  (constructor) auto, torch or reference; `throughtime.kernels.why(layer)` says which runs and why.
    """

    backend = "auto"

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _choose(self, backend)

    @property
    def cell(self) -> Cell:
        return Elman("tanh" if self.mode == "RNN_TANH" else "relu")

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        reset: Bool[Tensor, "..."] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Tensor]:
        return _forward(self, super().forward, input, hx, reset, lengths)

    def __prepare_scriptable__(self) -> None:
        _refuse_script(self)


class GRU(nn.GRU):
    """torch.nn.GRU, same arguments, weights and results; see RNN for `reset`, `lengths` and `backend`."""

    backend = "auto"
    cell = GRUStep()

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _choose(self, backend)

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        reset: Bool[Tensor, "..."] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Tensor]:
        return _forward(self, super().forward, input, hx, reset, lengths)

    def __prepare_scriptable__(self) -> None:
        _refuse_script(self)


class LSTM(nn.LSTM):
    """torch.nn.LSTM, same arguments, weights and results; see RNN for `reset`, `lengths` and `backend`."""

    backend = "auto"
    cell = LSTMStep()

    def __init__(self, *args: Any, backend: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _choose(self, backend)

    def forward(  # type: ignore[override]
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        reset: Bool[Tensor, "..."] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        return _forward(self, super().forward, input, hx, reset, lengths)

    def __prepare_scriptable__(self) -> None:
        _refuse_script(self)


class RNNCell(nn.RNNCell):
    """torch.nn.RNNCell; its call takes `reset`, (B,) bool: rows whose state starts anew from zeros."""

    def forward(self, input: Tensor, hx: Tensor | None = None, *, reset: Tensor | None = None) -> Tensor:
        return super().forward(input, _restarted(input, hx, reset))

    def __prepare_scriptable__(self) -> None:
        _refuse_script(self)


class GRUCell(nn.GRUCell):
    """torch.nn.GRUCell; see RNNCell for `reset`."""

    def forward(self, input: Tensor, hx: Tensor | None = None, *, reset: Tensor | None = None) -> Tensor:
        return super().forward(input, _restarted(input, hx, reset))

    def __prepare_scriptable__(self) -> None:
        _refuse_script(self)


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell; see RNNCell for `reset`."""

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return super().forward(input, _restarted(input, hx, reset))

    def __prepare_scriptable__(self) -> None:
        _refuse_script(self)


class Recurrent(nn.Module):
    """Layers of any cell, time first, with torch's parameter names and initial weights.

    cell     a spelled name or a Cell.
    inputs, units, layers, dropout, bidirectional, backend   as in RNN.
    Call: `net(x (T, B, I), state, reset (T, B)) -> (y (T, B, D H), state)`, the state S tensors (L, B, H) or None.
    Under the same seed the weights are those of torch.nn's layer of the same kind.
    """

    def __init__(
        self,
        cell: str | Cell,
        *,
        inputs: int,
        units: int,
        layers: int = 1,
        dropout: float = 0.0,
        bidirectional: bool = False,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.cell = cell_named(cell)
        for name, value in (("inputs", inputs), ("units", units), ("layers", layers)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}.")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
        self.inputs, self.units, self.depth, self.dropout = inputs, units, layers, dropout
        self.bidirectional = bidirectional
        _choose(self, backend)
        width = self.cell.gates * units
        for index, suffix in enumerate(suffixes(layers, bidirectional)):
            below = inputs if index <= bidirectional else units * (1 + bidirectional)
            for name, shape in (
                ("weight_ih", (width, below)),
                ("weight_hh", (width, units)),
                ("bias_ih", (width,)),
                ("bias_hh", (width,)),
            ):
                self.register_parameter(f"{name}_{suffix}", nn.Parameter(torch.empty(shape)))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform within 1 / sqrt(H) for all weights and biases, as torch does."""
        bound = 1 / math.sqrt(self.units)
        for weight in self.parameters():
            nn.init.uniform_(weight, -bound, bound)

    def start(self, x: Tensor) -> Slots:
        """The zero state for the streams of x."""
        count = self.depth * (1 + self.bidirectional)
        dtype = self.get_parameter("weight_hh_l0").dtype
        zeros = torch.zeros(count, x.shape[1], self.units, dtype=dtype, device=x.device)
        return (zeros,) * self.cell.slots

    def forward(
        self,
        x: Float[Tensor, "T B I"],
        state: Slots | None = None,
        reset: Bool[Tensor, "T B"] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Float[Tensor, "T B DH"], Slots]:
        if x.shape[-1] != self.inputs:
            raise ValueError(f"x must have {self.inputs} numbers a step; got {x.shape[-1]}.")
        return run_stack(
            self.cell,
            _directions(self, self.depth, self.bidirectional),
            x,
            self.start(x) if state is None else state,
            reset=reset,
            lengths=None if lengths is None else _lengths(lengths, *x.shape[:2], x.device),
            dropout=self.dropout if self.training else 0.0,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"{spell_cell(self.cell)}, {self.inputs}, {self.units}, layers={self.depth}"


def _choose(layer: Any, backend: str) -> None:
    """Set the backend of a layer, at once an error when it cannot run the cell."""
    choose(layer.cell, backend=backend)
    layer.backend = backend


def _directions(module: nn.Module, layers: int, bidirectional: bool) -> list[list[Any]]:
    each = [direction_of(module, suffix) for suffix in suffixes(layers, bidirectional)]
    width = 1 + bidirectional
    return [each[i : i + width] for i in range(0, len(each), width)]


def _forward(
    layer: Any, plain: Callable[..., Any], input: Any, hx: Any, reset: Tensor | None, lengths: Lengths | None
) -> tuple[Any, Any]:
    """torch's forward where nothing of ours is needed, else the stack, in torch's call forms."""
    if reset is None and lengths is None and layer.backend in ("auto", "torch"):
        return plain(input, hx)
    if isinstance(input, PackedSequence):
        return _forward_packed(layer, input, hx, reset, lengths)
    if input.dim() not in (2, 3):
        name = type(layer).__name__
        raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
    batched, batch = input.dim() == 3, 0 if layer.batch_first else 1
    if reset is not None and (reset.dtype != torch.bool or reset.shape != input.shape[:-1]):
        raise ValueError(
            f"reset must be bool with the leading axes of x, {tuple(input.shape[:-1])}; "
            f"got {reset.dtype} {tuple(reset.shape)}."
        )
    if not batched:
        input = input.unsqueeze(batch)
        reset = None if reset is None else reset.unsqueeze(batch)
        hx = _unbatched(layer, hx)
    elif hx is not None:
        _check_batched(layer, hx)
    hx = _zeros(layer, input, input.shape[batch]) if hx is None else hx
    layer.check_forward_args(input, hx, None)
    if layer.batch_first:
        input, reset = input.transpose(0, 1), None if reset is None else reset.transpose(0, 1)
    y, last = _run(layer, input, hx, reset, lengths)
    y = y.transpose(0, 1) if layer.batch_first else y
    if not batched:
        return y.squeeze(batch), _each(last, lambda slot: slot.squeeze(1))
    return y, last


def _forward_packed(
    layer: Any, input: PackedSequence, hx: Any, reset: Tensor | None, lengths: Lengths | None
) -> tuple[Any, Any]:
    if reset is not None or lengths is not None:
        raise ValueError("reset and lengths must go with a padded tensor; got a PackedSequence. Pad it first.")
    data, batch_sizes, order, back = input
    hx = _zeros(layer, data, int(batch_sizes[0])) if hx is None else layer.permute_hidden(hx, order)
    layer.check_forward_args(data, hx, batch_sizes)
    x, steps = pad_packed_sequence(PackedSequence(data, batch_sizes))
    y, last = _run(layer, x, hx, None, steps)
    y = pack_padded_sequence(y, steps).data
    return PackedSequence(y, batch_sizes, order, back), layer.permute_hidden(last, back)


def _run(layer: Any, x: Tensor, hx: Any, reset: Tensor | None, lengths: Lengths | None) -> tuple[Tensor, Any]:
    if x.shape[0] == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    y, last = run_stack(
        layer.cell,
        _directions(layer, layer.num_layers, layer.bidirectional),
        x,
        hx if isinstance(hx, tuple) else (hx,),
        reset=reset,
        lengths=None if lengths is None else _lengths(lengths, *x.shape[:2], x.device),
        dropout=layer.dropout if layer.training else 0.0,
        backend=layer.backend,
    )
    return y, last if isinstance(hx, tuple) else last[0]


def _lengths(lengths: Lengths, T: int, B: int, device: torch.device) -> Shaped[Tensor, " B"]:
    steps = torch.as_tensor(lengths, device=device)
    if steps.shape != (B,) or steps.is_floating_point() or steps.is_complex():
        raise ValueError(f"lengths must be one whole number a row, {B} in all; got {lengths!r}.")
    if B and (int(steps.min()) < 0 or int(steps.max()) > T):
        raise ValueError(f"lengths must be from 0 to the {T} steps of x; got {steps.tolist()}.")
    return steps.long()


def _zeros(layer: Any, like: Tensor, rows: int) -> Any:
    count = layer.num_layers * (1 + layer.bidirectional)
    widths = [layer.proj_size or layer.hidden_size, layer.hidden_size][: layer.cell.slots]
    zeros = tuple(torch.zeros(count, rows, width, dtype=like.dtype, device=like.device) for width in widths)
    return zeros if len(zeros) > 1 else zeros[0]


def _each(hx: Any, change: Callable[[Tensor], Tensor]) -> Any:
    return tuple(change(slot) for slot in hx) if isinstance(hx, tuple) else change(hx)


def _check_batched(layer: Any, hx: Any) -> None:
    _check_dims(layer, hx, 3, "For batched 3-D input, hx {}should also be 3-D but got {}")


def _unbatched(layer: Any, hx: Any) -> Any:
    if hx is None:
        return None
    _check_dims(layer, hx, 2, "For unbatched 2-D input, hx {}should also be 2-D but got {}")
    return _each(hx, lambda slot: slot.unsqueeze(1))


def _check_dims(layer: Any, hx: Any, wanted: int, message: str) -> None:
    if layer.cell.slots == 1:
        if hx.dim() != wanted:
            raise RuntimeError(message.format("", f"{hx.dim()}-D tensor"))
    elif any(slot.dim() != wanted for slot in hx):
        raise RuntimeError(message.format("and cx ", f"({hx[0].dim()}-D, {hx[1].dim()}-D) tensors"))


def _restarted(input: Tensor, hx: Any, reset: Tensor | None) -> Any:
    if reset is None or hx is None:
        return hx
    if reset.dtype != torch.bool or reset.shape != input.shape[:-1]:
        raise ValueError(
            f"reset must be bool with the leading axes of x, {tuple(input.shape[:-1])}; "
            f"got {reset.dtype} {tuple(reset.shape)}."
        )
    return _each(hx, lambda slot: slot.masked_fill(reset[..., None], 0))


def _refuse_script(layer: nn.Module) -> None:
    name = type(layer).__name__
    raise RuntimeError(
        f"throughtime.{name} cannot be compiled by TorchScript. "
        f"Load its state_dict into torch.nn.{name} and compile that, or use torch.export."
    )
