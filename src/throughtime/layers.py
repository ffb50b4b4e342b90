"""RNN, GRU, LSTM: twins of torch.nn's, with rows that restart or are unequal; Recurrent for any cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.overrides import TorchFunctionMode

from throughtime import kernels
from throughtime.cells import Cell, cell_named, spell_cell
from throughtime.kernels import choose, native
from throughtime.kernels.torch_functions import FUNCTIONS, MODES
from throughtime.shapes import Bool, Float, Int, Slots, Tensor
from throughtime.stack import Run, autocasts, direction_of, directions_from, run_stack, suffixes

Lengths = Tensor | Sequence[int] | int


class RNN(nn.RNN):
    """torch.nn.RNN, same arguments, weights and results; its call takes two more.

    reset    bool, the leading axes of x: True where a row starts anew before that step, from zeros. State and
             gradient are both cut; the backward direction is cut after the last step of each sequence.
    lengths  one number of steps a row, 0 allowed, in any order: outputs after a row's last step are zeros,
             its last state is that of its last step. What stands in x after that step is never read.
    backend  (constructor) auto, native, torch or reference; `throughtime.kernels.why(layer)` says which runs and why.
    memory   (constructor) what the native backend keeps for a gradient: gates, states (several times less, for one
             more product) or auto, gates while they are small. It changes no number.

    Under autocast torch's own recurrence computes as torch does, all else in the dtype of the weights.
    """

    backend = "auto"
    memory = "auto"

    def __init__(self, *args: Any, backend: str = "auto", memory: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choose(MODES[self.mode], backend=backend, memory=memory)
        self.backend, self.memory = backend, memory

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        reset: Bool[Tensor, ...] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Tensor]:
        return _forward(self, super().forward, input, hx, reset, lengths)

    def __prepare_scriptable__(self) -> None:
        _refuse_script("RNN")


class GRU(nn.GRU):
    """torch.nn.GRU, same arguments, weights and results; see RNN for what is added."""

    backend = "auto"
    memory = "auto"

    def __init__(self, *args: Any, backend: str = "auto", memory: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choose(MODES[self.mode], backend=backend, memory=memory)
        self.backend, self.memory = backend, memory

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | None = None,
        *,
        reset: Bool[Tensor, ...] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, Tensor]:
        return _forward(self, super().forward, input, hx, reset, lengths)

    def __prepare_scriptable__(self) -> None:
        _refuse_script("GRU")


class LSTM(nn.LSTM):
    """torch.nn.LSTM, same arguments, weights and results; see RNN for what is added."""

    backend = "auto"
    memory = "auto"

    def __init__(self, *args: Any, backend: str = "auto", memory: str = "auto", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        choose(MODES[self.mode], backend=backend, memory=memory)
        self.backend, self.memory = backend, memory

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: tuple[Tensor, Tensor] | None = None,
        *,
        reset: Bool[Tensor, ...] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Any, tuple[Tensor, Tensor]]:
        return _forward(self, super().forward, input, hx, reset, lengths)

    def __prepare_scriptable__(self) -> None:
        _refuse_script("LSTM")


class RNNCell(nn.RNNCell):
    """torch.nn.RNNCell; its call takes `reset`, the leading axes of x: rows whose state starts anew."""

    def forward(self, input: Tensor, hx: Tensor | None = None, *, reset: Tensor | None = None) -> Tensor:
        return super().forward(input, _restarted(input, hx, reset))

    def __prepare_scriptable__(self) -> None:
        _refuse_script("RNNCell")


class GRUCell(nn.GRUCell):
    """torch.nn.GRUCell; see RNNCell for `reset`."""

    def forward(self, input: Tensor, hx: Tensor | None = None, *, reset: Tensor | None = None) -> Tensor:
        return super().forward(input, _restarted(input, hx, reset))

    def __prepare_scriptable__(self) -> None:
        _refuse_script("GRUCell")


class LSTMCell(nn.LSTMCell):
    """torch.nn.LSTMCell; see RNNCell for `reset`."""

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None, *, reset: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        return super().forward(input, _restarted(input, hx, reset))

    def __prepare_scriptable__(self) -> None:
        _refuse_script("LSTMCell")


class Recurrent(nn.Module):
    """Layers of any cell, time first, with torch's parameter names and initial weights.

    cell     a spelled name or a Cell.
    inputs, units, layers, dropout, bidirectional, backend, memory   as in RNN.
    Call: `net(x (T, B, I), state, reset (T, B)) -> (y (T, B, D H), state)`, state S tensors (L, B, H).
    x may also be whole-number ids (T, B), which stand for one-hot rows of width `inputs`.
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
        memory: str = "auto",
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
        choose(self.cell, backend=backend, memory=memory)
        self.backend, self.memory = backend, memory
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
        dtype = direction_of(self, "l0").weights.W_h.dtype
        zeros = torch.zeros(count, x.shape[1], self.units, dtype=dtype, device=x.device)
        return (zeros,) * self.cell.slots

    def forward(
        self,
        x: Float[Tensor, "T B I"] | Int[Tensor, "T B"],
        state: Slots | None = None,
        reset: Bool[Tensor, "T B"] | None = None,
        lengths: Lengths | None = None,
    ) -> tuple[Float[Tensor, "T B DH"], Slots]:
        ids = x.dim() == 2 and not x.is_floating_point()
        if ids:
            x = x.long()
        elif x.dim() != 3 or x.shape[-1] != self.inputs:
            raise ValueError(f"x must be (T, B, {self.inputs}); got {tuple(x.shape)}.")
        directions = [direction_of(self, suffix) for suffix in suffixes(self.depth, self.bidirectional)]
        state = self.start(x) if state is None else state
        shapes = [(len(directions), x.shape[1], self.units)] * self.cell.slots
        if [tuple(slot.shape) for slot in state] != shapes:
            raise ValueError(f"state must be tensors of {shapes}; got {[tuple(slot.shape) for slot in state]}.")
        return run_stack(
            self.cell,
            directions,
            x,
            state,
            bidirectional=self.bidirectional,
            reset=_restarts(reset, x[..., None] if ids else x),
            lengths=None if lengths is None else _steps(lengths, x),
            dropout=self.dropout if self.training else 0.0,
            run=partial(kernels.run, backend=self.backend, memory=self.memory),
        )

    def extra_repr(self) -> str:
        return f"{spell_cell(self.cell)}, {self.inputs}, {self.units}, layers={self.depth}"


def _forward(
    layer: Any, plain: Callable[..., Any], input: Any, hx: Any, reset: Tensor | None, lengths: Lengths | None
) -> tuple[Any, Any]:
    """The ordinary call goes straight to the stack. Any other is torch's forward, so that its checks and errors are
    torch's; unless torch's recurrence is to run, with the stack in the place of that."""
    if isinstance(input, PackedSequence) and not (reset is None and lengths is None):
        raise ValueError("reset and lengths must come with a padded tensor; got a PackedSequence. Pad it.")
    reset = _restarts(reset, input)
    result = _direct(layer, input, hx, reset, lengths)
    if result is not None:
        return result
    if reset is None and lengths is None and _torch_runs(layer, input):
        return plain(input, hx)
    recurrence = _Recurrence(layer, input, reset, lengths)
    with recurrence:
        result = plain(input, hx)
    assert recurrence.ran, "torch's forward did not call its recurrent function through __torch_function__"
    return result


def _direct(layer: Any, input: Any, hx: Any, reset: Tensor | None, lengths: Lengths | None) -> Any:
    """The result, where nothing in the call is out of the ordinary and the native backend can run it; else None."""
    if layer.backend not in ("auto", "native") or layer.proj_size or torch.compiler.is_compiling():
        return None
    if type(input) is not Tensor or input.dim() != 3 or input.shape[2] != layer.input_size or not input.numel():
        return None
    if torch._C._is_any_autocast_enabled() or torch._C._len_torch_function_stack():
        return None
    cell, parameters = MODES[layer.mode], layer._parameters
    weights = [parameters.get(name) for name in layer._flat_weights_names]
    x = input.transpose(0, 1) if layer.batch_first else input
    shape = (layer.num_layers * (1 + layer.bidirectional), x.shape[1], layer.hidden_size)
    if hx is None:
        state: Any = (input.new_zeros(shape),) * cell.slots
    else:
        state = hx if cell.slots > 1 else (hx,)
        if type(state) is not tuple or len(state) != cell.slots:
            return None
    operands = (input, *weights, *state)
    if not all(isinstance(part, Tensor) for part in operands) or any(slot.shape != shape for slot in state):
        return None
    if native.refusal(cell, reset is not None, lengths is not None, operands):
        return None
    y, last = _stacked(layer, cell, x, state, weights, reset, lengths, native.run)
    return y.transpose(0, 1) if layer.batch_first else y, last if cell.slots > 1 else last[0]


def _torch_runs(layer: Any, input: Any) -> bool:
    """Whether torch's own recurrence runs where nothing of ours is needed."""
    if layer.backend != "auto":
        return layer.backend == "torch"
    data, packed = (input.data, True) if isinstance(input, PackedSequence) else (input, False)
    operands = (data, *layer._flat_weights)
    if layer.proj_size or torch.compiler.is_compiling() or not all(isinstance(part, Tensor) for part in operands):
        return True
    return autocasts(data.device) or bool(native.refusal(MODES[layer.mode], False, packed, operands))


class _Recurrence(TorchFunctionMode):
    """Inside, torch's forward checks and arranges its arguments as ever; its recurrent function is ours."""

    def __init__(self, layer: Any, input: Any, reset: Tensor | None, lengths: Lengths | None) -> None:
        super().__init__()
        self.layer, self.input, self.reset, self.lengths = layer, input, reset, lengths
        self.cell, self.run = MODES[layer.mode], partial(kernels.run, backend=layer.backend)
        self.ran = False

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function != FUNCTIONS[self.cell]:
            return function(*args, **(kwargs or {}))
        self.ran = True
        packed = isinstance(self.input, PackedSequence)
        data, batch_sizes, hx, weights = args[:4] if packed else (args[0], None, *args[1:3])
        state = (hx,) if isinstance(hx, Tensor) else tuple(hx)
        if not self._fit(data, state, weights):
            result = function(*args)  # torch refuses it, in its own words
            if self.reset is None and self.lengths is None and self.layer.backend == "auto":
                return result
        if batch_sizes is None:
            return self._padded(data, state, weights)
        self.layer.check_forward_args(data, hx, batch_sizes)
        x, steps = pad_packed_sequence(PackedSequence(data, batch_sizes))
        y, last = _stacked(self.layer, self.cell, x, state, weights, None, steps, self.run)
        return pack_padded_sequence(y, steps).data, *last

    def _fit(self, data: Tensor, state: Slots, weights: Sequence[Any]) -> bool:
        """Whether there is something to run, and all of it is of one kind."""
        if not data.numel() or len(state) != self.cell.slots or any(part is None for part in weights):
            return False
        if any(part.device != data.device for part in (*state, *weights)):
            return False
        return autocasts(data.device) or all(part.dtype == data.dtype for part in (*state, *weights))

    def _padded(self, data: Tensor, state: Slots, weights: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """data is (T, B, I) or (B, T, I); torch has put the axis B in where the user's x had none."""
        turned = self.layer.batch_first
        x = data.transpose(0, 1) if turned else data
        reset = None if self.reset is None else self.reset.reshape(data.shape[:-1])
        y, last = _stacked(self.layer, self.cell, x, state, weights, reset, self.lengths, self.run)
        return y.transpose(0, 1) if turned else y, *last


def _stacked(
    layer: Any,
    cell: Cell,
    x: Float[Tensor, "T B I"],
    state: Slots,
    weights: Sequence[Tensor],
    reset: Tensor | None,
    lengths: Lengths | None,
    run: Run,
) -> tuple[Tensor, Slots]:
    """The stack of a layer of torch's making; its weights in torch's flat order, reset as the user's x lies."""
    if reset is not None and layer.batch_first:
        reset = reset.T
    return run_stack(
        cell,
        directions_from(weights, 2 + 2 * layer.bias, projected=layer.proj_size > 0),
        x,
        state,
        bidirectional=bool(layer.bidirectional),
        reset=reset,
        lengths=None if lengths is None else _steps(lengths, x),
        dropout=layer.dropout if layer.training else 0.0,
        run=partial(run, memory=layer.memory, batch_first=layer.batch_first),
    )


def _restarts(reset: Tensor | None, x: Any) -> Tensor | None:
    """reset, checked against x; None where it says nothing."""
    if reset is None:
        return None
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool or reset.shape != x.shape[:-1]:
        given = f"{reset.dtype}, {tuple(reset.shape)}" if isinstance(reset, Tensor) else type(reset).__name__
        raise ValueError(f"reset must be bool with the leading axes of x, {tuple(x.shape[:-1])}; got {given}.")
    return reset if reset.any() else None


def _steps(lengths: Lengths, x: Tensor) -> Int[Tensor, " B"]:
    """The number of steps of each row; where there is one row, a number will do."""
    T, B = x.shape[:2]
    steps = torch.as_tensor(lengths, device=x.device)
    steps = steps[None] if B == 1 and steps.dim() == 0 else steps
    if steps.shape != (B,) or steps.dtype == torch.bool or steps.is_floating_point() or steps.is_complex():
        raise ValueError(f"lengths must be one whole number a row, {B} in all; got {lengths!r}.")
    if B and (int(steps.min()) < 0 or int(steps.max()) > T):
        raise ValueError(f"lengths must be from 0 to the {T} steps of x; got {steps.tolist()}.")
    return steps.long()


def _restarted(input: Tensor, hx: Any, reset: Tensor | None) -> Any:
    """hx with the rows that start anew put to zeros."""
    reset = _restarts(reset, input)
    if reset is None or hx is None:
        return hx
    if isinstance(hx, Tensor):
        return hx.masked_fill(reset[..., None], 0)
    return tuple(slot.masked_fill(reset[..., None], 0) for slot in hx)


def _refuse_script(name: str) -> None:
    raise RuntimeError(
        f"throughtime.{name} cannot be compiled by TorchScript. "
        f"Load its state_dict into torch.nn.{name} and compile that, or use torch.export."
    )
