"""Recurrent layers for sequences that have an end: read in one direction or both, told at every step or in one answer.

With h_t the outputs of the last layer, those of the second direction beside those of the first, the readout is of

    each    h_t                       what stands at t, for a tag of every step
    last    h_t                       the past up to t; of the second direction its h at the first step, where it
                                      has read everything
    mean    (1/n) sum_{k <= t} h_k    n steps of the sequence so far
    max     max_{k <= t} h_k          unit by unit

or of several of the last three side by side, `last+mean+max`, so that the answer about a whole sequence stands at its
last step, whatever follows in the row.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import dropout as drop
from torch.nn.functional import one_hot, relu

from throughtime.cells import Cell, spell_cell
from throughtime.inputs import check_embedding, check_inputs, check_sizes
from throughtime.layers import Recurrent
from throughtime.shapes import Bool, Float, Int, Tensor
from throughtime.state import State

READS = ("last", "mean", "max")


class SequenceNetwork(nn.Module):
    """A recurrent network whose readout sees each step or a summary of the sequence, in one direction or both.

    cell, inputs, units, outputs, layers, embedding, dropout, backend   as in throughtime.Network. The cell `mlp` is the
                   network without memory: Windowed layers over the last `window` inputs, under the same readout.
    reads          each; or last, mean, max, or several of these with + between: what the readout is of.
    bidirectional  a second direction reads each sequence from its end, so the readout has 2 H inputs for H.
    noise          standard deviation of what is added to numbers that are read, in training mode only.
    window         steps that the cell mlp sees, at least 1; 0 with any other cell.

    Call: `net(x, state, reset) -> (y, state)`. In one direction the state is carried on and a call may stop anywhere.
    In both a call takes whole sequences: raises ValueError for a state, unless every row restarts at the first step,
    and hands none on; a restart or the end of the call is where a sequence ends.
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
        reads: str = "last",
        bidirectional: bool = False,
        noise: float = 0.0,
        window: int = 0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        check_sizes(inputs=inputs, units=units, outputs=outputs, layers=layers)
        check_embedding(embedding)
        check_reads(reads)
        if not 0 <= noise < float("inf"):
            raise ValueError(f"noise must be a standard deviation of at least 0; got {noise}.")
        if (window > 0) != (cell == "mlp"):
            raise ValueError(f"window must be at least 1 with the cell mlp, else 0; got {window} with {cell!r}.")
        self.inputs, self.dropout, self.reads, self.noise = inputs, dropout, reads, float(noise)
        self.embed = nn.Embedding(inputs, embedding) if embedding else None
        width = embedding or inputs
        self.layers: Recurrent | Windowed
        if window:
            if bidirectional:
                raise ValueError("bidirectional must be False with the cell mlp, which has no direction; got True.")
            self.layers = Windowed(inputs=width, units=units, window=window, layers=layers, dropout=dropout)
        else:
            self.layers = Recurrent(
                cell,
                inputs=width,
                units=units,
                layers=layers,
                dropout=dropout,
                bidirectional=bidirectional,
                backend=backend,
            )
        self.readout = nn.Linear(units * (1 + bidirectional) * len(self.parts), outputs)

    @property
    def parts(self) -> list[str]:
        """What the readout is of, one by one."""
        return self.reads.split("+")

    def forward(
        self,
        x: Int[Tensor, "T B"] | Float[Tensor, "T B I"],
        state: State = None,
        reset: Bool[Tensor, "T B"] | None = None,
    ) -> tuple[Float[Tensor, "T B A"], State]:
        h, state = self.summaries(x, state, reset)
        return self.readout(drop(h, self.dropout, self.training)), state

    def summaries(self, x: Tensor, state: State = None, reset: Tensor | None = None) -> tuple[Tensor, State]:
        """What the readout is of, H numbers a step for each of `reads` and each direction; and the state."""
        x = self._read(x)
        if self.layers.bidirectional:
            if state is not None and not (reset is not None and bool(reset[0].all())):
                raise ValueError(
                    "state must be None for a bidirectional network, which needs the future: it reads whole sequences. "
                    "Give a sequence in one call, with credit BPTT(), or take one direction."
                )
            h, _ = self.layers(x, None, reset)
            return torch.cat([self._summary(part, h, None, reset)[0] for part in self.parts], -1), None
        inner, outer = (None, (None,) * len(self.parts)) if state is None else state
        h, inner = self.layers(x, inner, reset)
        found = [self._summary(part, h, before, reset) for part, before in zip(self.parts, outer, strict=True)]
        return torch.cat([summary for summary, _ in found], -1), (inner, tuple(after for _, after in found))

    def _read(self, x: Tensor) -> Tensor:
        """What the first layer reads."""
        check_inputs(x, self.inputs, self.embed is not None)
        if x.is_floating_point():
            return x + self.noise * torch.randn_like(x) if self.noise and self.training else x
        if self.embed is not None:
            return self.embed(x.long())
        windowed = isinstance(self.layers, Windowed)
        return one_hot(x.long(), self.inputs).to(self.readout.weight.dtype) if windowed else x.long()

    def _summary(
        self, part: str, h: Float[Tensor, "T B H"], state: State, reset: Tensor | None
    ) -> tuple[Tensor, State]:
        """One of `reads` at every step, and what it carries on: (sum or maximum of h so far, steps so far)."""
        if part == "last" and self.layers.bidirectional:
            forwards, backwards = h.chunk(2, -1)
            first = _starts(reset, h)[..., None].expand_as(backwards)
            return torch.cat((forwards, backwards.gather(0, first)), -1), None
        if part in ("each", "last"):
            return h, None
        T, B = h.shape[:2]
        summary, steps = (h.new_zeros(B, h.shape[2]), h.new_zeros(B, 1)) if state is None else state
        start = _starts(reset, h, carried=-1)  # T B, -1 where the sequence began before
        new = (start >= 0)[..., None]
        counts = torch.arange(T, device=h.device)[:, None] + 1 - start.clamp_min(0)
        counts = counts[..., None].to(h.dtype) + torch.where(new, 0, steps)
        if part == "mean":
            sums = h.cumsum(0)
            before = torch.cat((torch.zeros_like(sums[:1]), sums))[:-1]
            origin = before.gather(0, start.clamp_min(0)[..., None].expand_as(h))
            summary = sums - origin + torch.where(new, 0, summary)
            return summary / counts, (summary[-1], counts[-1])
        known = torch.where(steps > 0, summary, -torch.inf)
        summary = _RunningMax.apply(h, known, start == torch.arange(T, device=h.device)[:, None])
        return summary, (summary[-1], counts[-1])

    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain values; `build` makes the network anew from them."""
        layers = self.layers
        return {
            "network": "sequence",
            "cell": "mlp" if isinstance(layers, Windowed) else spell_cell(layers.cell),
            "inputs": self.inputs,
            "units": layers.units,
            "outputs": self.readout.out_features,
            "layers": layers.depth,
            "embedding": 0 if self.embed is None else self.embed.embedding_dim,
            "dropout": self.dropout,
            "reads": self.reads,
            "bidirectional": layers.bidirectional,
            "noise": self.noise,
            "window": layers.window if isinstance(layers, Windowed) else 0,
            "backend": "auto" if isinstance(layers, Windowed) else layers.backend,
        }


class Windowed(nn.Module):
    """Hidden ReLU layers over the last `window` inputs of a sequence, zeros before its start: no memory beyond them.

    Call: `net(x (T, B, I), state, reset) -> (h (T, B, H), state)`; the state is the inputs that it still sees,
    (window - 1, B, I).
    """

    bidirectional = False

    def __init__(self, *, inputs: int, units: int, window: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        check_sizes(inputs=inputs, units=units, window=window, layers=layers)
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1; got {dropout}.")
        self.units, self.window, self.depth, self.dropout = units, window, layers, dropout
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise([window * inputs, *[units] * layers]))

    def forward(
        self, x: Float[Tensor, "T B I"], state: Tensor | None = None, reset: Bool[Tensor, "T B"] | None = None
    ) -> tuple[Float[Tensor, "T B H"], Tensor]:
        T, past = x.shape[0], self.window - 1
        seen = torch.cat((x.new_zeros(past, *x.shape[1:]) if state is None else state, x))  # window-1+T B I
        start = _starts(reset, x, carried=-past)
        time = torch.arange(T, device=x.device)[:, None]
        near = [
            seen[past - back : past - back + T].masked_fill((time - back < start)[..., None], 0)
            for back in range(self.window)
        ]
        h = torch.cat(near, -1)
        for index, layer in enumerate(self.hidden):
            h = relu(layer(drop(h, self.dropout, self.training and index > 0)))
        cut = torch.arange(T - past, T, device=x.device)[:, None] < start[-1]  # what is before the last restart
        return h, seen[T:].masked_fill(cut[..., None], 0)


def windowed_like(
    net: SequenceNetwork, window: int, inputs: int | None = None, layers: int | None = None
) -> dict[str, Any]:
    """The config of a network without memory with as many weights as a recurrent one, as near as its units allow.

    inputs: numbers that it reads at a step, where the recurrent one reads several steps as one. layers: its own.
    """
    config = net.config() | {"cell": "mlp", "window": window, "bidirectional": False, "backend": "auto"}
    config["inputs"] = config["inputs"] if inputs is None else inputs
    config["layers"] = config["layers"] if layers is None else layers
    wanted = sum(weight.numel() for weight in net.parameters())
    read = (config["embedding"] or config["inputs"]) * window
    table = config["embedding"] * config["inputs"]
    answers, L = config["outputs"], config["layers"]

    def weights(units: int) -> int:
        summary = units * len(net.parts)
        return table + (read + 1) * units + (L - 1) * (units + 1) * units + (summary + 1) * answers

    units = 1
    while weights(units + 1) <= wanted:
        units += 1
    near = units + (weights(units + 1) - wanted < wanted - weights(units))
    return config | {"units": near}


def check_reads(reads: str) -> None:
    """Raise ValueError unless it is each, or different ones of last, mean and max with + between."""
    parts = reads.split("+") if isinstance(reads, str) else []
    if reads != "each" and (not parts or len(set(parts)) < len(parts) or not set(parts) <= set(READS)):
        raise ValueError(f"reads must be each, {', '.join(READS)}, or several of these as last+mean; got {reads!r}.")


def _starts(reset: Tensor | None, h: Tensor, carried: int = 0) -> Int[Tensor, "T B"]:
    """The step at which the sequence of each step began; `carried` where that was before this call."""
    T, B = h.shape[:2]
    if reset is None:
        return torch.full((T, B), carried, device=h.device)
    time = torch.arange(T, device=h.device)[:, None]
    return torch.where(reset, time, carried).cummax(0).values


class _RunningMax(torch.autograd.Function):
    """m_t = max(h_t, m_{t-1}), m_{t-1} left out where a sequence begins; m_{-1} is `known`.

    h (T, B, H), known (B, H), begins (T, B) -> m (T, B, H). In place and without a temporary, as every call of a step
    costs more than its numbers.
    """

    @staticmethod
    def forward(ctx: Any, h: Tensor, known: Tensor, begins: Tensor) -> Tensor:
        m = torch.empty_like(h)
        most = torch.where(begins, -torch.inf, torch.inf)[..., None].to(h.dtype)  # of what is handed on
        before = known
        for step, bound, out in zip(h.unbind(0), most.unbind(0), m.unbind(0), strict=True):
            torch.minimum(before, bound, out=out)
            before = torch.maximum(step, out, out=out)
        ctx.save_for_backward(h, known, m, begins)
        return m

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dm: Tensor) -> tuple[Tensor, Tensor, None]:
        """dh_t is all that later steps hand back where h_t is the first to reach m_t; else they hand it on."""
        h, known, m, begins = ctx.saved_tensors
        taken = ((h > torch.cat((known[None], m[:-1]))) | begins[..., None]).to(h.dtype)
        dh, dknown = torch.empty_like(h), torch.zeros_like(known)  # dknown: what is handed on, at last to `known`
        for back, new, out in reversed(list(zip(dm.unbind(0), taken.unbind(0), dh.unbind(0), strict=True))):
            dknown.add_(back)
            torch.mul(dknown, new, out=out)
            dknown.sub_(out)
        return dh, dknown, None
