"""The recurrence as a dynamical system along the data: Lyapunov exponents, singular values of the k-step Jacobian.

    Q_{t-1} R_t = J_t^T Q_t,    lambda_i = mean of ln |(R_t)_ii|,    J_t = d s_t / d s_{t-1}

The iteration of Benettin et al. (1980) on the transposed products, from the last step to the first: a matrix and its
transpose stretch alike, and J^T v is what one backward pass gives. For any module: a vector is a stream of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from throughtime.chunk import Chunk
from throughtime.flow.parts import joined, leaf, names, real
from throughtime.flow.sampling import refuse, undisturbed
from throughtime.shapes import Float, Tensor
from throughtime.state import State, change, detach

WIDEST = 512
"""Numbers in a state above which no singular values are measured: their cost grows with the cube."""


def lyapunov(
    net: nn.Module, chunk: Chunk, *, exponents: int = 4, state: State = None, streams: int = 4
) -> NDArray[np.float64] | None:
    """The largest Lyapunov exponents along a chunk, descending, in natural logarithms a step; the mean over streams.

    Above 0 neighbouring states part, and gradients grow: chaos; below 0 both fade, by e to the exponent a step. -inf
    where a direction is lost in one step. The first quarter of the iteration, in which the vectors turn to where they
    belong, is left out, as are steps at which a row restarts; None when nothing is left.

    exponents, streams   at most so many; state as in error_by_lag; in evaluation mode.
    Cost: T steps forward, and T single steps forward and backward of exponents * streams streams.
    """
    refuse(net)
    if exponents < 1 or streams < 1:
        raise ValueError(f"exponents and streams must be at least 1; got {exponents} and {streams}.")
    with undisturbed(net):
        path = _Path(net, chunk, state, streams)
        generator = torch.Generator().manual_seed(0)
        start = torch.randn(path.streams, path.width, min(exponents, path.width), generator=generator)
        Q = torch.linalg.qr(start.double())[0]
        logs, counts = torch.zeros(Q.shape[0], Q.shape[2], dtype=torch.float64), torch.zeros(Q.shape[0])
        for done, t in enumerate(range(chunk.steps - 1, 0, -1)):
            Q, R = torch.linalg.qr(path.pulled(t, Q.mT).mT)
            passes = ~path.restarts[t]
            if done >= (chunk.steps - 1) // 4:
                grown = torch.diagonal(R, dim1=1, dim2=2).abs().log()
                logs += torch.where(passes[:, None], grown, 0)
                counts += passes
    if not counts.sum():
        return None
    return np.sort((logs.sum(0) / counts.sum()).numpy())[::-1].copy()


def singular_values(
    net: nn.Module, chunk: Chunk, steps: Sequence[int], *, state: State = None
) -> dict[int, NDArray[np.float64]]:
    """By number of steps k: the singular values of d s_t / d s_{t-k}, descending, t the last step of the first stream.

    All near 1: nothing vanishes or explodes (dynamical isometry, Saxe, McClelland and Ganguli 2014). k that reach over
    a restart or before the chunk are left out, and all of them where the state is wider than WIDEST. What is
    smaller than the largest one by more than the rounding of the net's dtype is rounding.
    Cost: max(steps) steps, forward and backward, of as many streams as the state has numbers.
    """
    refuse(net)
    if not steps or min(steps) < 1:
        raise ValueError(f"steps must be numbers of steps, at least 1; got {list(steps)}.")
    with undisturbed(net):
        path = _Path(net, chunk, state, 1)
        found: dict[int, NDArray[np.float64]] = {}
        if path.width > WIDEST:
            return found
        J, power = torch.eye(path.width, dtype=torch.float64)[None], 0
        for k in range(1, min(max(steps), chunk.steps - 1) + 1):
            t = chunk.steps - k
            if path.restarts[t, 0]:
                break
            J = path.pulled(t, J)
            excess = int(torch.frexp(J.norm())[1])
            J, power = torch.ldexp(J, torch.tensor(-excess)), power + excess
            if k in steps:
                found[k] = np.ldexp(torch.linalg.svdvals(J[0]).numpy(), power)
    return found


class _Path:
    """The states along a chunk, and products with the transposed Jacobians of its steps."""

    def __init__(self, net: nn.Module, chunk: Chunk, state: State, streams: int) -> None:
        self.net, self.chunk, self.streams = net, chunk, min(streams, chunk.streams)
        self.entering: list[State] = []
        self.restarts = torch.zeros(chunk.steps, self.streams, dtype=torch.bool)
        if chunk.reset is not None:
            self.restarts = chunk.reset[:, : self.streams].cpu()
        state = detach(state)
        with torch.no_grad():
            for t in range(chunk.steps):
                step = chunk[t : t + 1]
                self.entering.append(state)
                _, state = net(step.x, state, step.reset)
        names(net, state)
        self.width = joined(real(state)).shape[1]

    def pulled(self, t: int, V: Float[Tensor, "B M n"]) -> Float[Tensor, "B M n"]:
        """V J_t, t > 0: a row for each of M vectors of each of the first B streams, a stream of its own."""
        B, M, _ = V.shape
        x = self.chunk.x[t : t + 1, :B].repeat_interleave(M, 1)
        with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):
            state = change(lambda part: leaf(part[..., :B, :].repeat_interleave(M, -2)), self.entering[t])
            before = real(state)
            _, after = self.net(x, state, None)
            end = joined(real(after))
            if not end.requires_grad:
                return torch.zeros_like(V)
            found = torch.autograd.grad(end, before, V.flatten(0, 1).to(end), allow_unused=True)
        parts = [torch.zeros_like(b) if g is None else g for g, b in zip(found, before, strict=True)]
        return joined(parts).view(B, M, -1).double().cpu()
