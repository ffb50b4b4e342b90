"""Algorithms side by side at fixed weights: how far each gradient is from the exact one, in what way, at what cost.

    e_i = g'_i - g_i                            i: the draws of a random algorithm, the windows of data of another
    spread^2 = sum_i |e_i - mean e|^2 / (N - 1)
    bias^2 = |mean e|^2 - spread^2 / N          the mean alone would be as long as its own noise
    kept = <g', g> / |g|^2                      the share of the gradient's length; of BPTT(h; 1) the sum over k < h of
    share_k = <g_k, g> / |g|^2                  g_k what arrives k steps back; over all lags these add up to 1

all relative to |g|, g the exact gradient of all windows together. Every window starts from the state of the stream,
and its gradient is its own: exact means through all steps of the window, and nothing reaches back before it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import nn

from throughtime.chunk import Chunk, Source, join
from throughtime.comparison import Comparison, Curve, Part, Row
from throughtime.credit import BPTT, Credit, ParallelBPTT, credit_named, spell_credit
from throughtime.credit.base import add, learning
from throughtime.credit.influence import is_plain
from throughtime.credit.lag import factors, lags, times
from throughtime.credit.segments import Watch
from throughtime.credit.trace import Trace, add_layer, carry, read
from throughtime.flow.sampling import undisturbed
from throughtime.inference import device_of
from throughtime.inputs import check_sizes
from throughtime.nets import Loss, Network
from throughtime.shapes import Float, Tensor
from throughtime.state import State, detach, flatten
from throughtime.training import loss_named

SEEN, DOUBT, ROUNDING = 0.02, 0.25, 1e-5
"""A range of lags that carries less than the first share of the gradient's norm says nothing of what an algorithm
keeps, nor does a share whose standard error is above the second; below the third it is rounding, in float32."""


def compare(
    net: nn.Module,
    chunks: Source | Chunk,
    credits: Sequence[str | Credit] | str | Credit,
    *,
    against: str | Credit = BPTT(),  # noqa: B008
    loss: Loss | str = "softmax",
    state: State = None,
    draws: int = 8,
    windows: int = 8,
    tolerance: float = 0.1,
) -> Comparison:
    """Hold algorithms against the exact gradient, at the weights that the network has now; nothing is trained.

    net        `net(x, state, reset) -> (y, state)`, measured in evaluation mode: dropout is left out. The mode is put
               back.
    chunks     the stream, in the chunks that the algorithms get; cut into windows of as many chunks each, as nearly
               as can be. One chunk is cut into windows of steps.
    credits    algorithms, or their spellings.
    against    what the others are held against; one without random numbers. BPTT(memory=...) where windows are long.
    loss       as in train.
    state      before the first chunk; None: zeros.
    draws      of an algorithm with a `seed`, from that seed on, each over all windows.
    windows    at least 2 for a spread of deterministic algorithms.
    tolerance  the error that the smallest h is looked for, as a share of the gradient.

    Cost: of every algorithm one pass over the stream, of a random one `draws`, one window more to count its tensors;
    and for the curve all windows once, as many lags back as a window has steps, which is quadratic in these. There h
    is measured at every step up to 16 and then at steps of a sixteenth; of networks other than Network at powers
    of two and, by bisection, between the two around the tolerance, with BPTT(h).
    Raises ValueError for arguments that do not fit and for a gradient that is not finite, TypeError where an
    algorithm does not take the network.
    """
    for name, value in (("windows", windows), ("draws", draws)):
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError(f"{name} must be a whole number; got {value!r}.")
    check_sizes(windows=windows)
    if draws < 2:
        raise ValueError(f"draws must be at least 2, for a spread; got {draws}.")
    if not 0 < tolerance <= 1e30:
        raise ValueError(f"tolerance must be a share of the gradient, above 0 and at most 1e30; got {tolerance}.")
    against = credit_named(against)
    if _is_random(against):
        raise ValueError(f"against must be an algorithm without random numbers; got {spell_credit(against)}. Use bptt.")
    given = [credits] if isinstance(credits, (str, Credit)) else list(credits)
    if odd := [credit for credit in given if not isinstance(credit, (str, Credit))]:
        raise TypeError(f"credits must be algorithms or their spellings; got {odd[0]!r}.")
    algorithms = [against, *(credit for credit in map(credit_named, given) if credit != against)]
    error = loss_named(loss) if isinstance(loss, str) else loss
    with undisturbed(net):
        bench = _Bench(net, error, chunks, state, windows)
        for credit in algorithms:
            credit.start(net)
        exact = bench.measure(against, 0).grads
        if not exact.isfinite().all():
            raise ValueError(
                f"net must have a finite gradient to compare with; {spell_credit(against)} gives NaN or infinity, as "
                "weights or data that are not finite do, or an error that grows without end."
            )
        curve, ranges = bench.curve(exact.mean(0), tolerance)
        rows = tuple(bench.row(credit, draws, exact, ranges) for credit in dict.fromkeys(algorithms))
    noise = _part(exact - exact.mean(0), exact.mean(0), single=False).spread
    steps = max(sum(chunk.steps for chunk in window) for window in bench.windows)
    streams = bench.windows[0][0].streams
    return Comparison(spell_credit(against), rows, curve, steps, streams, len(bench.windows), tolerance, noise)


@dataclass(frozen=True, eq=False)
class _Measured:
    """One pass of an algorithm over all windows: the gradient of each, (W, P), and what it took."""

    grads: Float[Tensor, "W P"]
    seconds: float
    held: int
    note: str


class _Bench:
    """The network, its windows and the states before them; gradients are vectors, block after block."""

    def __init__(self, net: nn.Module, loss: Loss, chunks: Source | Chunk, state: State, windows: int) -> None:
        self.net, self.loss = net, loss
        self.windows = [[chunk.to(device_of(net)) for chunk in window] for window in _windows(chunks, windows)]
        self.states = [detach(state)]
        with torch.no_grad():
            for chunk in (join([replace(part, end=False) for part in window]) for window in self.windows[:-1]):
                self.states.append(detach(net(chunk.x, self.states[-1], chunk.reset)[1]))
        weights = learning(net)
        self.blocks: dict[str, slice] = {}
        self.names = sorted(weights, key=lambda name: list(dict.fromkeys(map(_block, weights))).index(_block(name)))
        place = 0
        for name in self.names:
            start = self.blocks[_block(name)].start if _block(name) in self.blocks else place
            place += weights[name].numel()
            self.blocks[_block(name)] = slice(start, place)

    def vector(self, grads: Mapping[str, Tensor]) -> Float[Tensor, " P"]:
        weights = learning(self.net)
        return torch.cat([grads.get(name, torch.zeros_like(weights[name])).detach().flatten() for name in self.names])

    def measure(self, credit: Credit, draw: int) -> _Measured:
        found, seconds, held, note = [], math.inf, 0, ""
        for place in range(len(self.windows)):
            number = draw * len(self.windows) + place
            grads, taken, kept, chosen = self.run(_drawn(credit, number), place)
            found.append(self.vector(grads))
            seconds, held, note = min(seconds, taken), max(held, kept), chosen or note
        return _Measured(torch.stack(found), seconds, held, note)

    def run(self, credit: Credit, place: int) -> tuple[dict[str, Tensor], float, int, str]:
        """The gradient of a window, the seconds a step, the bytes held between chunks, and the note."""
        window = self.windows[place]
        grads: dict[str, Tensor] = {}
        begin = time.perf_counter()
        taken, held, memory = 0.0, 0, credit.start(self.net, self.states[place])
        for chunk in window:
            estimate, memory = credit(self.net, self.loss, chunk, memory)
            grads = add(grads, estimate.grads)
            taken += time.perf_counter() - begin
            held = held if chunk is window[-1] and len(window) > 1 else max(held, _held(memory))
            begin = time.perf_counter()
        return grads, taken / sum(chunk.steps for chunk in window), held, credit.note(memory)

    def row(self, credit: Credit, draws: int, exact: Tensor, ranges: Float[Tensor, "W R P"]) -> Row:
        drawn = draws if _is_random(credit) else 0
        passes = [self.measure(credit, draw) for draw in range(drawn or 1)]
        g = exact.mean(0)
        errors = torch.stack([each.grads.mean(0) - g for each in passes]) if drawn else passes[0].grads - exact
        known = [*self.windows[0], *self.states[:1]]
        tensors = [part for chunk in known for part in flatten(chunk)[1].values()]
        with Watch([*self.net.parameters(), *self.net.buffers(), *tensors]) as watch:
            self.run(credit, 0)
        return Row(
            credit=spell_credit(credit),
            draws=drawn,
            whole=_part(errors, g, single=bool(drawn)),
            blocks={name: _part(errors[:, at], g[at], single=bool(drawn)) for name, at in self.blocks.items()},
            lags=_kept_by_range(torch.stack([each.grads for each in passes]).mean(0), exact, ranges),
            reach=_reach(credit),
            seconds=min(each.seconds for each in passes),
            held=max(each.held for each in passes),
            peak=watch.most,
            note=passes[0].note,
        )

    def curve(self, g: Float[Tensor, " P"], tolerance: float) -> tuple[Curve, Float[Tensor, "W R P"]]:
        """BPTT(h) for many h, and what arrives in each range of lags, by windows."""
        steps = max(sum(chunk.steps for chunk in window) for window in self.windows)
        powers = _powers(steps)
        if is_plain(self.net):
            found, each = self.by_lag(_places(steps), powers)
        else:
            each = {h: self.measure(BPTT(h), 0).grads for h in powers}
            found = {h: grads.mean(0) for h, grads in each.items()}
            self.bisect(found, g, tolerance)
        parts = [_part((grads - g)[None], g, single=True) for _, grads in sorted(found.items())]
        ranges = torch.stack([each[b] - each[a] if a else each[b] for a, b in pairwise([0, *powers])], 1)
        arrived, size = ranges.double().mean(0), g.double().norm()
        return Curve(
            h=tuple(sorted(found)),
            error=tuple(part.error for part in parts),
            kept=tuple(part.kept for part in parts),
            ranges=tuple((a, b - 1) for a, b in pairwise([0, *powers])),
            share=tuple((arrived @ g.double() / size**2).tolist()),
            norm=tuple((arrived.norm(dim=1) / size).tolist()),
        ), ranges

    def bisect(self, found: dict[int, Tensor], g: Tensor, tolerance: float) -> None:
        """Measure more between the last h that is off by more than the tolerance and the next one."""
        error = lambda h: float((found[h] - g).norm() / g.norm())  # noqa: E731
        low = max((h for h in found if not error(h) <= tolerance), default=0)
        high = min((h for h in found if h > low), default=low)
        while high - low > 1:
            middle = (low + high) // 2
            found[middle] = self.measure(BPTT(middle), 0).grads.mean(0)
            low, high = (low, middle) if error(middle) <= tolerance else (middle, high)

    def by_lag(
        self, hs: Sequence[int], powers: Sequence[int]
    ) -> tuple[dict[int, Float[Tensor, " P"]], dict[int, Float[Tensor, "W P"]]]:
        """The gradient of BPTT(h) at each h, in the mean over the windows, and of each window at the powers."""
        total: dict[int, Tensor] = {}
        each: dict[int, list[Tensor]] = {h: [] for h in powers}
        for window, state in zip(self.windows, self.states, strict=True):
            for h, grads in _sums_by_h(self.net, self.loss, join(window), state, hs):
                part = self.vector(grads)
                total[h] = total[h] + part / len(self.windows) if h in total else part / len(self.windows)
                if h in each:
                    each[h].append(part)
        return total, {h: torch.stack(parts) for h, parts in each.items()}


def _sums_by_h(
    net: nn.Module, loss: Loss, window: Chunk, state: State, hs: Sequence[int]
) -> Iterator[tuple[int, dict[str, Tensor]]]:
    """The gradient of a window under BPTT(h), for each h."""
    assert isinstance(net, Network)
    trace, _ = read(net, window, state)
    found: list[dict[int, Tensor]] = []

    def back(net: Network, trace: Trace, dh: Tensor, grads: dict[int, Tensor]) -> Tensor:
        layers = factors(net, trace)
        for k, (_, reached) in enumerate(lags(layers, trace.reset, dh, window.steps, hs[-1])):
            if k + 1 in hs:
                own: dict[int, Tensor] = {}
                dx = dh
                for depth, (layer, ds) in reversed(list(enumerate(zip(layers, reached, strict=True)))):
                    dx = add_layer(net, trace, depth, times(layer.du, ds, 0), times(layer.dv, ds, 0), own)
                if net.embed is not None:
                    table = torch.zeros_like(net.embed.weight)
                    own[id(net.embed.weight)] = table.index_add_(0, trace.x.flatten(), dx.flatten(0, 1))
                found.append(own)
        return torch.zeros_like(trace.layers[0].x)

    readout = carry(net, loss, trace, window, back).grads
    weights = learning(net)
    for h, own in zip(hs, found or [{} for _ in hs], strict=True):
        yield h, add(readout, {name: own[id(weight)] for name, weight in weights.items() if id(weight) in own})


def _part(errors: Float[Tensor, "N P"], g: Float[Tensor, " P"], *, single: bool) -> Part:
    """Of N errors of one gradient each (single), or of the N parts that it is the mean of."""
    errors, g = errors.double(), g.double()
    size, mean, N = float(g.norm()), errors.mean(0), len(errors)
    if not size:
        return Part(*[math.nan] * 6)
    given = g + (errors if single else mean[None])
    square = float((errors - mean).square().sum()) / (N - 1) if N > 1 else math.nan
    bias = float(mean.square().sum()) - (square / N if N > 1 else 0.0)
    return Part(
        cosine=float(torch.cosine_similarity(given, g[None], eps=1e-300).mean()),
        error=float((given - g).square().sum(1).mean().sqrt()) / size,
        kept=float((given @ g).mean()) / size**2,
        bias=math.sqrt(max(0.0, bias)) / size,
        doubt=math.sqrt(square / N) / size,
        spread=math.sqrt(square) / size,
    )


def _kept_by_range(
    given: Float[Tensor, "W P"], exact: Float[Tensor, "W P"], ranges: Float[Tensor, "W R P"]
) -> tuple[float | None, ...]:
    """The coefficients of given gradients on what arrives in each range of lags, by least squares over the windows.

    None where a range is small, the gradients are not finite, or leaving out one window after the other moves the
    coefficient (the jackknife's standard error) by more than DOUBT.
    """
    found: list[float | None] = [None] * ranges.shape[1]
    norms = ranges.double().square().sum((0, 2)).sqrt() / exact.double().norm()
    used = norms > ROUNDING
    if not used.any() or not given.isfinite().all():
        return tuple(found)
    basis = ranges[:, used].double() / norms[used, None]
    square, product = basis @ basis.mT, basis @ given.double()[:, :, None]  # W R R, W R 1
    solve = lambda a, b: torch.linalg.lstsq(a, b).solution[:, 0] / norms[used]  # noqa: E731
    values, W = solve(square.sum(0), product.sum(0)), len(given)
    doubts = torch.zeros_like(values)
    if W > 1:
        others = [solve(square.sum(0) - a, product.sum(0) - b) for a, b in zip(square, product, strict=True)]
        doubts = torch.stack(others).var(0, correction=0).mul(W - 1).sqrt()
    for place, value, doubt in zip(used.nonzero().flatten().tolist(), values.tolist(), doubts.tolist(), strict=True):
        found[place] = value if doubt <= DOUBT and norms[place] >= SEEN else None
    return tuple(found)


def _windows(chunks: Source | Chunk, windows: int) -> list[list[Chunk]]:
    """Consecutive windows of as many chunks each, as nearly as can be; the last chunk of each has `end`."""
    if isinstance(chunks, Chunk):
        bounds = [round(chunks.steps * place / windows) for place in range(windows + 1)]
        chunks = [chunks[a:b] for a, b in pairwise(bounds) if b > a]
    count = len(chunks)
    if not count:
        raise ValueError("chunks must hold one chunk at least; got none.")
    if count < windows:
        raise ValueError(f"windows must be at most {count}, the chunks or steps that are there; got {windows}.")
    bounds = [round(count * place / windows) for place in range(windows + 1)]
    found = [[chunks[index] for index in range(a, b)] for a, b in pairwise(bounds)]
    return [[*(replace(c, end=False) for c in window[:-1]), replace(window[-1], end=True)] for window in found]


def _is_random(credit: Credit) -> bool:
    return hasattr(credit, "seed")


def _drawn(credit: Any, number: int) -> Credit:
    """The algorithm with random numbers of its own; itself when it draws none."""
    return replace(credit, seed=credit.seed + number) if _is_random(credit) else credit


def _reach(credit: Credit) -> float | None:
    """The steps that an error goes back in the mean over the places between two settlements."""
    if isinstance(credit, BPTT) and credit.h is not None:
        return credit.h - (credit.period - 1) / 2
    return credit.h if isinstance(credit, ParallelBPTT) and credit.decay == 1 else None


def _block(name: str) -> str:
    """The block of weights that a parameter of a Network belongs to; another module's parameter is one of its own."""
    kinds = {"weight_ih": "W_x", "weight_hh": "W_h", "bias_ih": "b", "bias_hh": "b"}
    kind, _, depth = name.removeprefix("layers.").rpartition("_")
    if name.startswith("layers.") and kind in kinds:
        return f"{depth} {kinds[kind]}"
    return name.partition(".")[0] if name.startswith(("embed.", "readout.")) else name


def _places(steps: int) -> list[int]:
    """The h that are measured: all up to 16, then steps of a sixteenth, with the powers of two and the last."""
    found = [1]
    while found[-1] < steps:
        found.append(max(found[-1] + 1, found[-1] * 17 // 16))
    return sorted({h for h in found if h <= steps} | set(_powers(steps)))


def _powers(steps: int) -> list[int]:
    return [*(2**k for k in range((steps - 1).bit_length())), steps]


def _held(memory: Any) -> int:
    """The bytes that the tensors of a memory hold on to, shared ones once."""
    parts = [part.untyped_storage() for part in flatten(memory)[1].values()]
    return sum({part.data_ptr(): part.nbytes() for part in parts}.values())
