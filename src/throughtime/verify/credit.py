"""The laws of a credit algorithm: chunks, rows, restarts and padding change nothing but when it settles."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise, product
from math import isnan
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from throughtime.chunk import Chunk
from throughtime.credit import Credit, Estimate, credit_named, spell_credit
from throughtime.nets import Loss, Network, cross_entropy, squared_error, sum_errors
from throughtime.shapes import Tensor
from throughtime.state import State, flatten, unflatten
from throughtime.verify.result import Measured, Result, check, distance, random, rounding

B, UNITS, SYMBOLS = 3, 4, 5
DOUBLE = torch.float64


@dataclass(frozen=True)
class Case:
    """An algorithm, and the network that it is checked on."""

    credit: Credit
    cell: str
    layers: int
    period: int
    against: Credit | None

    @property
    def subject(self) -> str:
        return f"{spell_credit(self.credit)} {self.cell} x{self.layers}"

    @property
    def steps(self) -> int:
        """The first multiple of the period that is at least ten steps long."""
        return -(-10 // self.period) * self.period


def check_credit(
    credit: str | Credit,
    cell: str = "gru",
    *,
    layers: Sequence[int] = (1, 2),
    period: int = 1,
    flat: bool = True,
    placed: bool = False,
    against: str | Credit | None = None,
) -> list[Result]:
    """Hold an algorithm to the laws of `throughtime.credit.Credit`, on small networks of a cell.

    layers   the depths of the networks.
    period   an algorithm that settles every so many stream steps says so: then only rows and paddings of
             whole periods are compared, as the errors of a shorter one reach further or less far back.
    flat     False for an algorithm that keeps the whole sequence until `end`.
    placed   True for an algorithm whose random numbers depend on the place of a row and a step: laws that compare
             other places hold in the mean alone, and are left out.
    against  another algorithm that must give the same gradient.
    Returns one Result a law and depth; `throughtime.verify.require` makes a broken one an AssertionError.
    """
    credit = credit_named(credit)
    other = None if against is None else credit_named(against)
    left_out = [_flat] * (not flat) + [_sequences, _padding, _rows, _anew] * placed
    laws = {law: measure for law, measure in LAWS.items() if measure not in left_out}
    if other is not None:
        laws[f"the gradient of {spell_credit(other)}"] = _against
    both = product(laws.items(), [Case(credit, cell, depth, period, other) for depth in layers])
    return [check(law, case.subject, partial(measure, case)) for (law, measure), case in both]


def total(
    credit: Credit, net: nn.Module, loss: Loss, chunk: Chunk, cuts: Sequence[int] = (), state: State = None
) -> Estimate:
    """The sum of the estimates over a stream, handed over in chunks that begin at the cuts."""
    memory = credit.start(net, state)
    estimate = Estimate.nothing(chunk.x)
    bounds = [0, *cuts, chunk.steps]
    for start, stop in pairwise(bounds):
        settled, memory = credit(net, loss, chunk[start:stop], memory)
        estimate += settled
    return estimate


def brute_force(
    net: nn.Module, loss: Loss, chunk: Chunk, h: int | None, every: int, state: State = None
) -> Estimate:
    """BPTT(h; every) by its definition (Williams and Peng 1990), at T times the cost; h None: no limit.

    Every step runs alone, on weights of its own. The errors of `every` steps are settled together, after the
    last of them, and reach the weights of the h steps up to there. No window, no stored state, no replay.
    """
    names = [name for name, weight in net.named_parameters() if weight.requires_grad]
    weights = dict(net.named_parameters())
    copies = [
        {name: weights[name].detach().clone().requires_grad_() for name in names} for _ in range(chunk.steps)
    ]
    errors: list[Tensor] = []
    count = 0.0
    for t, copy in enumerate(copies):
        step = chunk[t : t + 1]
        prediction, state = functional_call(net, copy, (step.x, state, step.reset))
        error, counted = sum_errors(loss, prediction, step)
        errors.append(error)
        count += counted
    grads = {name: torch.zeros_like(weights[name]) for name in names}
    for start in range(0, chunk.steps, every):
        stop = min(start + every, chunk.steps)
        window = copies[0 if h is None else max(0, stop - h) : stop]
        leaves = [copy[name] for copy in window for name in names]
        error = torch.stack(errors[start:stop]).sum()
        found = torch.autograd.grad(error, leaves, retain_graph=True, materialize_grads=True)
        for index, grad in enumerate(found):
            grads[names[index % len(names)]] += grad
    return Estimate(torch.stack(errors).sum().detach(), count, grads)


def text(case: Case, steps: int, rows: int = B, tie: bool = True) -> tuple[Network, Chunk]:
    """Ids through a tied embedding, weights between 0 and 1 on the errors, restarts in mid-row."""
    options = {"inputs": SYMBOLS, "units": UNITS, "outputs": SYMBOLS, "embedding": UNITS, "tie": tie}
    net = Network(case.cell, layers=case.layers, **options).double()  # type: ignore[arg-type]
    x, y = (torch.randint(0, SYMBOLS, (steps, rows)) for _ in range(2))
    mask = torch.rand(steps, rows, dtype=DOUBLE) * (torch.rand(steps, rows) < 0.7)
    return net, Chunk(x, y, mask, torch.rand(steps, rows) < 0.2, end=True)


def numbers(case: Case, steps: int, rows: int = B) -> tuple[Network, Chunk]:
    """Numbers in and out; some outputs have targets at some steps, and NaN stands where they have none."""
    net = Network(case.cell, inputs=2, units=UNITS, outputs=2, layers=case.layers).double()
    mask = (torch.rand(steps, rows, 2) < 0.5).double()
    y = random(steps, rows, 2).masked_fill(mask == 0, float("nan"))
    return net, Chunk(random(steps, rows, 2), y, mask, None, end=True)


def compare(given: Estimate, wanted: Estimate, steps: int) -> Measured:
    """Loss, count and gradient; a parameter without an entry has a gradient of zero."""
    zeros = {name: torch.zeros_like(grad) for name, grad in (wanted.grads | given.grads).items()}
    errors = [
        distance(zeros | given.grads, zeros | wanted.grads),
        distance(given.loss, wanted.loss),
        distance(given.count, wanted.count),
    ]
    return Measured(float(torch.tensor(errors).max()), rounding(DOUBLE, steps, UNITS))


def worst(measures: Sequence[Measured]) -> Measured:
    """The measure with the largest error; one that is not a number is larger than any."""
    return max(measures, key=lambda measured: float("inf") if isnan(measured.error) else measured.error)


def row(chunk: Chunk, b: int, stop: int | None = None) -> Chunk:
    """One row of a chunk as a stream of its own, up to a step."""
    parts = {name: part[:stop, b : b + 1] for name, part in vars(chunk).items() if isinstance(part, Tensor)}
    return Chunk(**parts, end=True)


def _chunking(case: Case) -> Measured:
    measures = []
    for make, loss in ((text, cross_entropy), (numbers, squared_error)):
        net, chunk = make(case, 13)
        whole = total(case.credit, net, loss, chunk)
        for cuts in (range(1, 13), (5, 6), (3, 7)):
            measures.append(compare(total(case.credit, net, loss, chunk, cuts), whole, 13))
    return worst(measures)


def _once(case: Case) -> Measured:
    """Loss and count are those of one plain pass from the state that was given."""
    net, chunk = text(case, 13)
    assert chunk.y is not None
    assert chunk.mask is not None
    state = tuple(random(*slot.shape) for slot in net.layers.start(torch.zeros(1, B, 1)))
    given = total(case.credit, net, cross_entropy, chunk, (4, 5), state)
    with torch.no_grad():
        prediction, _ = net(chunk.x, state, chunk.reset)
    errors = -prediction.log_softmax(-1).gather(-1, chunk.y[..., None])[..., 0] * chunk.mask
    measured = distance((given.loss, given.count), (errors.sum(), float(chunk.mask.sum())))
    return Measured(measured, rounding(DOUBLE, 13, UNITS))


def _restart(case: Case) -> Measured:
    """What stands on one side of a restart changes nothing of the errors on the other side."""
    net, chunk = text(case, 13)
    other = replace(chunk, x=torch.randint(0, SYMBOLS, (13, B)))
    assert chunk.mask is not None
    start = torch.tensor([3, 7, 10])
    late = torch.arange(13)[:, None] >= start
    reset = torch.arange(13)[:, None] == start
    measures = []
    for counted, swapped in ((late, ~late), (~late, late)):
        mask = chunk.mask * counted
        x = torch.where(swapped, other.x, chunk.x)
        pair = [replace(chunk, x=ids, mask=mask, reset=reset) for ids in (chunk.x, x)]
        given, wanted = (total(case.credit, net, cross_entropy, part, (5,)) for part in pair)
        measures.append(compare(given, wanted, 13))
    return worst(measures)


def _sequences(case: Case) -> Measured:
    """Two sequences one after the other in a row, against each as a stream of its own."""
    net, chunk = text(case, 2 * case.steps)
    cut = case.steps
    reset = torch.zeros(chunk.steps, B, dtype=torch.bool)
    reset[cut] = True
    chunk = replace(chunk, reset=reset)
    parts = [replace(chunk[:cut], end=True), chunk[cut:]]
    first, second = (total(case.credit, net, cross_entropy, part) for part in parts)
    return compare(total(case.credit, net, cross_entropy, chunk, (4,)), first + second, chunk.steps)


def _padding(case: Case) -> Measured:
    """Rows of unequal length, their last steps without weight, against each row up to its last step."""
    net, chunk = numbers(case, 2 * case.steps)
    assert chunk.y is not None
    assert chunk.mask is not None
    lengths = torch.tensor([case.steps, 2 * case.steps, case.period])
    over = (torch.arange(chunk.steps)[:, None] >= lengths)[..., None]
    padded = replace(chunk, mask=chunk.mask.masked_fill(over, 0), y=chunk.y.masked_fill(over, float("nan")))
    alone = Estimate.nothing(chunk.x)
    for b in range(B):
        alone += total(case.credit, net, squared_error, row(padded, b, int(lengths[b])))
    return compare(total(case.credit, net, squared_error, padded, (4,)), alone, chunk.steps)


def _rows(case: Case) -> Measured:
    net, chunk = text(case, 13)
    alone = Estimate.nothing(chunk.x)
    for b in range(B):
        alone += total(case.credit, net, cross_entropy, row(chunk, b))
    return compare(total(case.credit, net, cross_entropy, chunk), alone, 13)


def _tied(case: Case) -> Measured:
    """A weight that two places share gets one gradient: the sum of what two equal weights would get."""
    net, chunk = text(case, 13)
    apart, _ = text(case, 1, tie=False)
    missing = apart.load_state_dict(net.state_dict())
    assert not missing.missing_keys
    shared, separate = (total(case.credit, each, cross_entropy, chunk) for each in (net, apart))
    grads = dict(separate.grads)
    grads["embed.weight"] = grads["embed.weight"] + grads.pop("readout.weight")
    if set(shared.grads) != {name for name, _ in net.named_parameters()}:
        return Measured(float("inf"), 0, f"The gradient has the names {sorted(shared.grads)}.")
    return compare(shared, replace(separate, grads=grads), 13)


def _memory(case: Case) -> Measured:
    """No tensor with a graph; written to names and numbers and read back, it goes on to the same sums."""
    net, chunk = text(case, 13)
    memory = case.credit.start(net)
    estimate, graphs = Estimate.nothing(chunk.x), 0
    for start in range(13):
        settled, memory = case.credit(net, cross_entropy, chunk[start : start + 1], memory)
        estimate += settled
        skeleton, tensors = flatten(memory)
        graphs += sum(part.requires_grad or part.grad_fn is not None for part in tensors.values())
        copies = {name: part.detach().clone() for name, part in tensors.items()}
        memory = unflatten(json.loads(json.dumps(skeleton)), copies, case.credit.memories)
    if graphs:
        return Measured(graphs, 0, "Tensors of the memory carry a graph: detach them.")
    return compare(estimate, total(case.credit, net, cross_entropy, chunk), 13)


def _flat(case: Case) -> Measured:
    """The growth, in tensors and bytes, of the largest memory from one stretch of steps to a later one."""
    net, chunk = text(case, 2)
    chunk = replace(chunk, end=False)
    memory = case.credit.start(net)
    sizes = []
    for _ in range(60):
        _, memory = case.credit(net, cross_entropy, chunk, memory)
        sizes.append(footprint(memory))
    early, late = (torch.tensor(part).amax(0) for part in (sizes[20:40], sizes[40:]))
    growth = (late - early).tolist()
    detail = f"It grew by {growth[0]} tensors and {growth[1]} bytes in 40 steps." if max(growth) > 0 else ""
    return Measured(max(0, *growth), 0, detail)


def footprint(memory: Any) -> tuple[int, int]:
    """The number of tensors in a memory, and the bytes that they hold on to, shared ones once."""
    tensors = flatten(memory)[1].values()
    storages = {part.untyped_storage().data_ptr(): part.untyped_storage().nbytes() for part in tensors}
    return len(tensors), sum(storages.values())


def _pure(case: Case) -> Measured:
    """A call leaves weights, their .grad, random numbers and the memory that it was given as they were."""
    net, chunk = text(case, 13)
    memory = case.credit.start(net)
    _, memory = case.credit(net, cross_entropy, chunk[:6], memory)
    after = (*net.parameters(), *flatten(memory)[1].values())
    before = [part.clone() for part in after]
    drawn = torch.get_rng_state()
    given, _ = case.credit(net, cross_entropy, chunk[6:], memory)
    faults = sum(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    faults += not torch.equal(drawn, torch.get_rng_state())
    faults += sum(weight.grad is not None for weight in net.parameters())
    if faults:
        return Measured(faults, 0, "Weights, their .grad, random numbers or the given memory were changed.")
    again, _ = case.credit(net, cross_entropy, chunk[6:], memory)
    return compare(given, again, 0)


def _anew(case: Case) -> Measured:
    """The memory after `end` reads the stream once more as a fresh one does."""
    net, chunk = text(case, 13)
    assert chunk.reset is not None
    chunk.reset[0] = True
    first, memory = case.credit(net, cross_entropy, chunk, case.credit.start(net))
    second, _ = case.credit(net, cross_entropy, chunk, memory)
    return compare(second, first, 13)


def _against(case: Case) -> Measured:
    assert case.against is not None
    net, chunk = text(case, 13)
    both = (case.credit, case.against)
    given, wanted = (total(credit, net, cross_entropy, chunk, (4, 9)) for credit in both)
    return compare(given, wanted, 13)


LAWS: dict[str, Callable[[Case], Measured]] = {
    "the same sums however the stream is cut into chunks": _chunking,
    "every error counts once, as in one plain pass": _once,
    "a restart cuts state and credit": _restart,
    "two sequences in a row = each alone": _sequences,
    "steps without weight change nothing": _padding,
    "rows together = each row alone": _rows,
    "a shared weight gets one gradient": _tied,
    "memory holds no graph and can be saved": _memory,
    "memory stays flat": _flat,
    "a call changes nothing but the memory it returns": _pure,
    "after end the stream starts anew": _anew,
}
