"""What a trained network says: the mean error on chunks, the probability of the next token, a sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from throughtime.chunk import Source
from throughtime.nets import Loss, cross_entropy, sum_errors
from throughtime.shapes import Float, Int, Tensor
from throughtime.state import State


@dataclass(frozen=True)
class Score:
    """Summed errors and how many targets they are of."""

    total: float
    count: float

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else float("nan")


def device_of(net: nn.Module) -> torch.device:
    """Where the weights of a network are; the CPU when it has none."""
    weight = next(net.parameters(), None)
    return torch.device("cpu") if weight is None else weight.device


def evaluate(net: nn.Module, chunks: Source, loss: Loss = cross_entropy) -> Score:
    """The errors of a network over all chunks, its state carried on, in evaluation mode; the mode is put back."""
    device, modes = device_of(net), [(module, module.training) for module in net.modules()]
    total, count, state = 0.0, 0.0, None
    net.eval()
    try:
        with torch.no_grad():
            for index in range(len(chunks)):
                chunk = chunks[index].to(device)
                prediction, state = net(chunk.x, state, chunk.reset)
                error, counted = sum_errors(loss, prediction, chunk)
                total, count = total + float(error), count + counted
    finally:
        for module, mode in modes:
            module.training = mode
    return Score(total, count)


@torch.no_grad()
def surprise(net: nn.Module, ids: Int[Tensor, " N"], steps: int = 512) -> Float[Tensor, " N-1"]:
    """-ln p of every id after the first, given all before it, in nats; net is in evaluation mode.

    steps at a time, so that memory stays flat however long the text.
    """
    ids, state, found = ids.to(device_of(net)), None, []
    for start in range(0, len(ids) - 1, steps):
        part = ids[start : start + steps + 1]
        prediction, state = net(part[:-1, None], state)
        found.append(cross_entropy(prediction, part[1:, None]).squeeze(1))
    return torch.cat(found) if found else ids.new_zeros(0, dtype=torch.get_default_dtype())


@torch.no_grad()
def read(net: nn.Module, ids: Int[Tensor, " N"], state: State = None) -> tuple[Float[Tensor, " A"], State]:
    """The logits of the token after ids, at least one, and the state that goes with them."""
    prediction, state = net(ids.to(device_of(net))[:, None], state)
    return prediction[-1, 0], state


def sample(
    net: nn.Module,
    prompt: Int[Tensor, " N"],
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    never: Sequence[int] = (),
    seed: int | None = None,
) -> Iterator[int]:
    """Ids that follow the prompt, at least one id, one at a time and without end; net is in evaluation mode.

    temperature  divides the logits; 0 takes the most likely id.
    top_k        only the k most likely ids are drawn from.
    never        ids that are not drawn.
    """
    if len(prompt) == 0:
        raise ValueError("prompt must have at least one token; got none. Give a longer prompt.")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature must be at least 0; got {temperature}.")
    if top_k is not None and top_k < 1:
        raise ValueError(f"top_k must be at least 1; got {top_k}.")
    generator = torch.Generator()
    if seed is None:
        generator.seed()
    else:
        generator.manual_seed(seed)
    logits, state = read(net, prompt)
    while True:
        token = _draw(logits.float().cpu(), temperature, top_k, never, generator)
        yield token
        logits, state = read(net, torch.tensor([token]), state)


def _draw(
    logits: Tensor, temperature: float, top_k: int | None, never: Sequence[int], generator: torch.Generator
) -> int:
    logits = logits.clone()
    if never and len(never) < len(logits):
        logits[list(never)] = -torch.inf
    best = logits.max()
    if not best.isfinite():
        raise ValueError(f"net must give finite numbers to draw from; got {best.item()}. Look at its weights.")
    if temperature < 1e-30:  # as good as 0, and the quotient would overflow
        return int(logits.argmax())
    if top_k is not None and top_k < len(logits):
        kept = logits.topk(top_k).indices
        logits = torch.full_like(logits, -torch.inf).index_copy(0, kept, logits[kept])
    logits = (logits - best) / temperature
    return int(torch.multinomial(logits.exp(), 1, generator=generator))
