"""Networks: embed -> layers -> readout, the MLP over a window that has no memory, and the losses of a step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits, embedding, one_hot, relu
from torch.nn.functional import cross_entropy as torch_cross_entropy
from torch.nn.functional import dropout as drop

from throughtime.cells import Cell, spell_cell
from throughtime.chunk import Chunk
from throughtime.inputs import check_embedding, check_inputs, check_sizes
from throughtime.kernels import check_ids
from throughtime.layers import Recurrent
from throughtime.recurrent import FullyRecurrent
from throughtime.sequence_network import SequenceNetwork
from throughtime.shapes import Bool, Float, Int, Shaped, Tensor
from throughtime.state import State, run_segments
from throughtime.token_network import TokenNetwork


class Network(nn.Module):
    """Recurrent layers with a readout at every step: y_t = W_q h_t + b_q.

    cell       a spelled name (`elman`, `elman:phi=relu`, `gru`, `lstm`, `ctrnn:alpha=0.5`) or a Cell.
    inputs     numbers a step, or the size of the vocabulary when x are ids.
    units      H, the width of every layer.
    outputs    numbers a step that the readout gives.
    embedding  0: ids enter as one-hot rows; above 0: through a table of vectors of this width.
    dropout    share of zeroed activations between layers and before the readout, in training mode only.
    tie        the readout uses the embedding's weights (Press and Wolf 2017); needs embedding = units.
    backend, memory   as in throughtime.RNN; memory changes no number and is not in `config`.
    Call: `net(x, state, reset) -> (y, state)`.
    """

    def __init__(
        self,
        cell: str | Cell,
        *,
        inputs: int,
        units: int,
        outputs: int,
        layers: int = 1,
        embedding: int = 0,
        dropout: float = 0.0,
        tie: bool = False,
        backend: str = "auto",
        memory: str = "auto",
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, units=units, outputs=outputs, layers=layers)
        check_embedding(embedding)
        if tie and (embedding != units or inputs != outputs):
            raise ValueError(
                f"tie must come with embedding = units and inputs = outputs; got embedding {embedding}, "
                f"units {units}, inputs {inputs}, outputs {outputs}. Make them equal or leave tie out."
            )
        self.inputs, self.tie, self.dropout = inputs, tie, dropout
        self.embed = nn.Embedding(inputs, embedding) if embedding else None
        self.layers = Recurrent(
            cell,
            inputs=embedding or inputs,
            units=units,
            layers=layers,
            dropout=dropout,
            backend=backend,
            memory=memory,
        )
        self.readout = nn.Linear(units, outputs)
        if self.embed is not None and tie:
            nn.init.uniform_(self.embed.weight, -(units**-0.5), units**-0.5)
            self.readout.weight = self.embed.weight

    def forward(
        self,
        x: Int[Tensor, "T B"] | Float[Tensor, "T B I"],
        state: State = None,
        reset: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B A"], State]:
        h, state = self.layers(self._read(x), state, reset)
        return self.readout(drop(h, self.dropout, self.training)), state

    def advance(self, x: Tensor, state: State = None, reset: Tensor | None = None) -> State:
        """The state that a call returns, without the readout; it draws the same random numbers."""
        h, state = self.layers(self._read(x), state, reset)
        drop(h, self.dropout, self.training)
        return state

    def encode(self, x: Tensor) -> Float[Tensor, "T B I"]:
        """What the first layer reads: numbers as they are, ids as vectors."""
        x = self._read(x)
        return x if x.is_floating_point() else one_hot(x, self.inputs).to(self.readout.weight.dtype)

    def _read(self, x: Tensor) -> Tensor:
        """The same, but ids that no table embeds stay ids."""
        check_inputs(x, self.inputs, self.embed is not None)
        if x.is_floating_point():
            return x
        return x.long() if self.embed is None else self.embed(x.long())

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; `build` makes the network anew from them."""
        layers = self.layers
        return {
            "network": "recurrent",
            "cell": spell_cell(layers.cell),
            "inputs": self.inputs,
            "units": layers.units,
            "outputs": self.readout.out_features,
            "layers": layers.depth,
            "embedding": 0 if self.embed is None else self.embed.embedding_dim,
            "dropout": self.dropout,
            "tie": self.tie,
            "backend": layers.backend,
        }


class Window(nn.Module):
    """The network without memory: an MLP over the last `window` inputs (1: the present one alone).

    Its state is the inputs that it still sees, nothing learned, so its gradient is exact under every credit.
    Arguments as in Network; layers are hidden ReLU layers. Inputs before a sequence's start are zeros.
    """

    def __init__(
        self,
        *,
        inputs: int,
        units: int,
        outputs: int,
        window: int,
        layers: int = 1,
        embedding: int = 0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, units=units, outputs=outputs, window=window, layers=layers)
        check_embedding(embedding)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
        self.inputs, self.window, self.dropout = inputs, window, dropout
        self.embed = nn.Embedding(inputs, embedding) if embedding else None
        widths = [window * (embedding or inputs), *[units] * layers]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.readout = nn.Linear(units, outputs)

    def forward(
        self,
        x: Int[Tensor, "T B"] | Float[Tensor, "T B I"],
        state: State = None,
        reset: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B A"], State]:
        """The state is the last window - 1 inputs, (window - 1, B, I), ids one up so that 0 means none."""
        check_inputs(x, self.inputs, self.embed is not None)
        if not x.is_floating_point():
            x = x.long()[..., None] + 1
        if state is None:
            state = x.new_zeros(self.window - 1, *x.shape[1:])
        wanted = (self.window - 1, *x.shape[1:])
        if not isinstance(state, Tensor) or state.shape != wanted:
            raise ValueError(f"state must be a tensor {wanted}, as the call before returned it.")
        return run_segments(self._segment, x, state, reset)

    def _segment(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        T = x.shape[0]
        seen = torch.cat((state, x))  # window-1+T B I
        vectors = self._encode(seen)
        h = torch.cat([vectors[k : k + T] for k in range(self.window)], -1)
        for layer in self.hidden:
            h = drop(relu(layer(h)), self.dropout, self.training)
        return self.readout(h), seen[T:]

    def _encode(self, seen: Tensor) -> Tensor:
        if seen.is_floating_point():
            return seen
        ids, known = (seen - 1).clamp_min(0).squeeze(-1), seen > 0
        table = torch.eye(self.inputs, dtype=self.readout.weight.dtype, device=seen.device)
        return embedding(ids, table if self.embed is None else self.embed.weight) * known

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; `build` makes the network anew from them."""
        return {
            "network": "window",
            "inputs": self.inputs,
            "units": self.readout.in_features,
            "outputs": self.readout.out_features,
            "window": self.window,
            "layers": len(self.hidden),
            "embedding": 0 if self.embed is None else self.embed.embedding_dim,
            "dropout": self.dropout,
        }


class Adapted(nn.Module):
    """Any module whose forward is `(x, hx) -> (y, hx)`, time first, under the library's state contract.

    hx is any nesting of tuples of tensors with the streams on axis -2, and None starts from zeros.
    Restarts cut time: the module is called once for each stretch in which no row restarts.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor, state: State = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        return run_segments(self.module, x, state, reset)


class Committee(nn.Module):
    """Networks that say the mean of what each says; the state is the tuple of theirs."""

    def __init__(self, nets: Sequence[nn.Module]) -> None:
        super().__init__()
        self.nets = nn.ModuleList(nets)

    def forward(self, x: Tensor, state: State = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        states = (None,) * len(self.nets) if state is None else state
        said = [net(x, one, reset) for net, one in zip(self.nets, states, strict=True)]
        return torch.stack([y for y, _ in said]).mean(0), tuple(one for _, one in said)

    def config(self) -> dict[str, Any]:
        """The configs of the networks; `build` makes them anew."""
        configs: list[Any] = [getattr(net, "config") for net in self.nets]  # noqa: B009
        return {"network": "committee", "nets": [config() for config in configs]}


def build(config: dict[str, Any]) -> Network | Window | FullyRecurrent | SequenceNetwork | TokenNetwork | Committee:
    """The network that a config describes, with fresh weights."""
    options = dict(config)
    kind = options.pop("network")
    if kind == "recurrent":
        return Network(options.pop("cell"), **options)
    if kind == "window":
        return Window(**options)
    if kind == "fully recurrent":
        return FullyRecurrent(**options)
    if kind == "sequence":
        return SequenceNetwork(options.pop("cell"), **options)
    if kind == "tokens":
        return TokenNetwork(options.pop("cell"), **options)
    if kind == "committee":
        return Committee([build(one) for one in options["nets"]])
    raise ValueError(
        f"network must be recurrent, window, fully recurrent, sequence, tokens or committee; got {kind!r}."
    )


def parameters_of(net: nn.Module) -> int:
    """The number of weights that a network learns, shared ones once."""
    return sum(weight.numel() for weight in net.parameters() if weight.requires_grad)


def window_like(net: Network, window: int) -> Window:
    """A Window with as many parameters as a recurrent network, as near as its number of units allows."""
    config = net.config()
    shared = {name: config[name] for name in ("inputs", "outputs", "layers", "embedding", "dropout")}
    wanted = parameters_of(net)
    low, high = 1, 2
    with torch.device("meta"), torch.random.fork_rng(devices=[]):  # counting draws nothing
        sizes = lambda units: parameters_of(Window(units=units, window=window, **shared))  # noqa: E731
        while sizes(high) < wanted:
            high *= 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if sizes(middle) <= wanted else (low, middle)
        units = low if wanted - sizes(low) <= sizes(high) - wanted else high
    return Window(units=units, window=window, **shared)


def cross_entropy(prediction: Float[Tensor, "T B A"], y: Int[Tensor, "T B"]) -> Float[Tensor, "T B"]:
    """-ln softmax(prediction)[y] of every step, in nats. y may have one more axis: (T, B, N) of (T, B, N, A)."""
    if y.is_floating_point() or y.shape != prediction.shape[:-1]:
        raise ValueError(
            f"y must be whole-number ids, one for every prediction, {tuple(prediction.shape[:-1])}; "
            f"got {y.dtype} {tuple(y.shape)}."
        )
    check_ids("y", y, prediction.shape[-1])
    return torch_cross_entropy(prediction.flatten(0, -2), y.flatten().long(), reduction="none").view(y.shape)


def squared_error(prediction: Float[Tensor, "T B A"], y: Float[Tensor, "T B A"]) -> Float[Tensor, "T B A"]:
    """Half the squared error of every output, (d - y)^2 / 2, so that its derivative is the error itself."""
    check_same("y", y, prediction)
    return (prediction - y).square() / 2


def bernoulli(prediction: Float[Tensor, "T B A"], y: Shaped[Tensor, "T B A"]) -> Float[Tensor, "T B A"]:
    """-ln p(y) of independent yes-no outputs, in nats; prediction are logits, y is 0 or 1."""
    check_same("y", y, prediction)
    return binary_cross_entropy_with_logits(prediction, y.to(prediction.dtype), reduction="none")


def gaussian(prediction: Float[Tensor, "T B A"], y: Float[Tensor, "T B N"]) -> Float[Tensor, "T B N"]:
    """-ln N(y; mu, sigma) of independent numbers, in nats; prediction, A = 2 N, holds every mu, then every ln sigma.

    ln sigma is read within [-10, 10], so that a number that never varies cannot make the error infinite.
    """
    if prediction.shape != (*y.shape[:-1], 2 * y.shape[-1]):
        raise ValueError(
            f"prediction must have two numbers for every target, {(*y.shape[:-1], 2 * y.shape[-1])}; "
            f"got {tuple(prediction.shape)}."
        )
    mu, ln_sigma = prediction.chunk(2, -1)
    ln_sigma = ln_sigma.clamp(-10, 10)
    return ((y - mu) * (-ln_sigma).exp()).square() / 2 + ln_sigma + math.log(2 * math.pi) / 2


@dataclass(frozen=True)
class Quantile:
    """The pinball loss of Koenker and Bassett (1978), the mean over Q levels: max(q (y - p), (q - 1) (y - p)).

    Its lowest mean is at the q-quantile of y. prediction is (T, B, N Q), the levels of a number side by side; y and
    the errors are (T, B, N). levels are rising numbers between 0 and 1.
    """

    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        inside = bool(self.levels) and self.levels[0] > 0 and self.levels[-1] < 1
        if not inside or any(a >= b for a, b in pairwise(self.levels)):
            raise ValueError(
                f"levels must be rising numbers between 0 and 1, such as (0.1, 0.5, 0.9); got {self.levels}."
            )

    def __call__(self, prediction: Float[Tensor, "T B A"], y: Float[Tensor, "T B N"]) -> Float[Tensor, "T B N"]:
        wanted = (*y.shape[:-1], y.shape[-1] * len(self.levels))
        if prediction.shape != wanted:
            raise ValueError(
                f"prediction must have a number for every target and level, {wanted}; got {tuple(prediction.shape)}."
            )
        q = prediction.new_tensor(self.levels)
        left = y[..., None] - prediction.unflatten(-1, (y.shape[-1], len(self.levels)))
        return torch.maximum(q * left, (q - 1) * left).mean(-1)


def check_same(name: str, value: Tensor, like: Tensor) -> None:
    """Raise ValueError unless a target has the shape of the prediction; broadcasting hides mistakes."""
    if value.shape != like.shape:
        wanted, got = tuple(like.shape), tuple(value.shape)
        raise ValueError(f"{name} must have the shape of the prediction, {wanted}; got {got}.")


losses = {"softmax": cross_entropy, "squared": squared_error, "bernoulli": bernoulli, "gaussian": gaussian}

Loss = Callable[[Tensor, Tensor], Tensor]
"""loss(prediction, y): errors not yet summed, with leading axes (T, B)."""


def sum_errors(loss: Loss, prediction: Tensor, chunk: Chunk) -> tuple[Float[Tensor, ""], float]:
    """The sum of the errors that count, and their count: the sum of the mask, or T B without one.

    Targets under a mask of 0 are never read, so NaN may stand there for `no target`.
    """
    if chunk.y is None:
        raise ValueError("y must be there to learn from; got a chunk without targets.")
    mask = chunk.mask
    if mask is None:
        errors = loss(prediction, chunk.y)
        _check_errors(errors, chunk)
        return errors.sum(), float(chunk.steps * chunk.streams)
    if mask.dim() > chunk.y.dim():
        raise ValueError(f"mask must have no more axes than y, {tuple(chunk.y.shape)}; got {tuple(mask.shape)}.")
    if (mask < 0).any():
        raise ValueError(f"mask must be weights of at least 0; got {float(mask.min())}.")
    counted = mask != 0
    y = chunk.y.masked_fill(~_spread(counted, chunk.y), 0)
    errors = loss(prediction, y)
    _check_errors(errors, chunk)
    if mask.dim() > errors.dim():
        raise ValueError(
            f"mask must have no more axes than the errors, {tuple(errors.shape)}; got {tuple(mask.shape)}."
        )
    weighted = errors * _spread(mask, errors).to(errors.dtype)
    return weighted.masked_fill(~_spread(counted, errors), 0).sum(), float(mask.sum(dtype=torch.float64))


def _spread(mask: Tensor, like: Tensor) -> Tensor:
    """The mask with one axis for every axis of like."""
    return mask.reshape(*mask.shape, *(1,) * (like.dim() - mask.dim()))


def _check_errors(errors: Tensor, chunk: Chunk) -> None:
    if errors.shape[:2] != (chunk.steps, chunk.streams):
        raise ValueError(
            f"loss must return errors not yet summed, with leading axes (T, B) = {(chunk.steps, chunk.streams)}; "
            f"got {tuple(errors.shape)}."
        )
