"""What a measurement found: numbers by part of the state, a table, JSON, and what it means in one sentence."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from throughtime.flow.error import ErrorByLag
from throughtime.flow.table import TOLERANCES, lines


@dataclass(frozen=True, eq=False)
class Kept:
    """What BPTT(h) keeps of the gradient of all weights: of g, what arrives from all lags that were measured.

    h      (R,) ascending; the last one is the number of steps measured, where everything is kept.
    error  (R,) |g_h - g| / |g|, with g_h what BPTT(h) finds for the same errors.
    kept   (R,) <g_h, g> / |g|^2, the share of the gradient's length; it can pass 1 where later lags point back.
    """

    h: NDArray[np.int64]
    error: NDArray[np.float64]
    kept: NDArray[np.float64]

    def share(self, h: int) -> float:
        """kept at h, interpolated between the h that were measured; NaN beyond the last one."""
        if h < 1:
            raise ValueError(f"h must be a number of steps, at least 1; got {h}.")
        return float(np.interp(h, self.h, self.kept, right=math.nan))

    def smallest_h(self, tolerance: float) -> int | None:
        """The smallest measured h from which on every error is at most this; None when no truncation is."""
        if not tolerance > 0:
            raise ValueError(f"tolerance must be a share of the gradient, above 0; got {tolerance}.")
        above = np.flatnonzero(~(self.error <= tolerance))
        place = int(above[-1]) + 1 if len(above) else 0
        return int(self.h[place]) if place < len(self.h) - 1 else None


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Of a recurrent matrix W_h, or of one gate's: eigenvalues (H,) and singular values (H,), largest first."""

    eigenvalues: NDArray[np.complex128]
    singular: NDArray[np.float64]

    @property
    def radius(self) -> float:
        """The largest |eigenvalue|."""
        return float(np.abs(self.eigenvalues[0]))

    @property
    def norm(self) -> float:
        """The largest singular value: no vector becomes longer by more than this factor."""
        return float(self.singular[0])


@dataclass(frozen=True)
class Gate:
    """A gate over all steps, streams and units: its mean, and the shares below 0.01 and above 0.99."""

    mean: float
    shut: float
    open: float


@dataclass(frozen=True)
class Activity:
    """One layer over all steps and streams of a chunk.

    units      their number.
    saturated  share of activations within 0.01 of a bound of phi: |h| > 0.99 for tanh (of an LSTM |tanh c|), below
               0.01 or above 0.99 for a sigmoid; NaN where phi has no two bounds, or is not known.
    dead       units that say nothing: h stays within a thousandth of the layer's largest |h| all the time.
    gates      by name: r and z of a GRU, i, f and o of an LSTM.
    """

    units: int
    saturated: float
    dead: int
    gates: Mapping[str, Gate]


@dataclass(frozen=True, eq=False)
class Clipping:
    """The norm of the gradient of each update (N,) before and after clipping, as a run recorded it.

    bound  what the norm was clipped to; None: it was not clipped.
    """

    before: NDArray[np.float64]
    after: NDArray[np.float64]
    bound: float | None

    @property
    def share(self) -> float:
        """The share of the updates that were clipped; NaN when there were none."""
        return float((self.after < self.before).mean()) if len(self.before) else math.nan


@dataclass(frozen=True, eq=False)
class UnitsOverTime:
    """States and gates by name, such as `h of layer 1` and `f of layer 1`: (T, B, H) each, after every step."""

    states: Mapping[str, NDArray[np.float64]]
    gates: Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class Flow:
    """How far back the error of a network reaches on a chunk, and why; str() is the table, `to_json` all the numbers.

    whole      the error by lag of the whole state.
    parts      by part of the state: `h of layer 1`, `c of layer 1`; of other modules the names of the state's tensors.
               Their squares add up to that of the whole.
    kept       what BPTT(h) keeps of the gradient of the weights; None where no error counts.
    spectra    of the recurrent weights, by name: `W_h of layer 1`, of a gated cell `W_h of layer 1, f`.
    exponents  (n,) the largest Lyapunov exponents, per step, along the data; None where restarts leave none.
    singular   by number of steps k: the singular values of the Jacobian of s_t by s_{t-k}, largest first.
    activity   by layer.
    clipping   of the run that trained it; None: not known.
    h          where training cut the error off; None: not known, or nowhere.
    verdict    a sentence: vanishing, exploding, chaotic or healthy, with the numbers that say so.
    advice     what to try, most promising first; empty when healthy.
    """

    whole: ErrorByLag
    parts: Mapping[str, ErrorByLag]
    kept: Kept | None
    spectra: Mapping[str, Spectrum]
    exponents: NDArray[np.float64] | None
    singular: Mapping[int, NDArray[np.float64]]
    activity: Mapping[str, Activity]
    clipping: Clipping | None
    h: int | None
    verdict: str
    advice: tuple[str, ...]

    @property
    def word(self) -> str:
        """The first word of the verdict: vanishing, exploding, chaotic or healthy."""
        return self.verdict.split()[0].strip(":,.")

    def __str__(self) -> str:
        return self.table()

    def table(self) -> str:
        """Plain text, no line longer than 80 characters, beginning with the verdict."""
        return "\n".join(lines(self))

    def to_json(self) -> str:
        """The numbers, of the errors by lag their statistics; null for what is no number, complex ones as pairs.

        smallest_h: by error of the gradient, the smallest h that keeps to it; null where none was measured.
        """
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        found["smallest_h"] = {str(error): self.kept and self.kept.smallest_h(error) for error in TOLERANCES}
        return json.dumps(_plain(found))


def clipping(records: Iterable[Mapping[str, Any]], bound: float | None = None) -> Clipping:
    """The norms of a run's records, as `metrics.jsonl` has them; bound is what it was trained with.

    Records without a norm, or with one that was not finite, are left out.
    """
    norms = np.array([float(r["norm"]) for r in records if r.get("norm") is not None], dtype=np.float64)
    return Clipping(norms, norms if bound is None else np.minimum(norms, bound), bound)


def _plain(value: Any) -> Any:
    """The value as JSON has it."""
    if isinstance(value, ErrorByLag):
        names = ("lags", "at", "mean", "low", "high", "count", "summed", "half_life", "memory", "decay")
        return {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Spectrum):
        return {name: _plain(getattr(value, name)) for name in ("eigenvalues", "singular", "radius", "norm")}
    if hasattr(value, "__dataclass_fields__"):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (tuple, list)):
        return [_plain(part) for part in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    return None if isinstance(value, float) and not math.isfinite(value) else value
