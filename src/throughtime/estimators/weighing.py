"""What a network is worth beside its anchor, judged on held-out steps: its share, and how far its quantiles stretch.

With d the mean gain of the network's loss over the anchor's, by origin, and s the standard error of d, the network has
the share max(0, 1 - (CAUTION s / d)^2) of what it says, and none where d <= 0: the estimate of James and Stein (1961)
for one number. Forecasts of H steps overlap, so N origins count as N / (H / 2) independent ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn

from throughtime.baselines.series import Numbers
from throughtime.chunk import Source
from throughtime.estimators.heads import Head
from throughtime.nets import Committee

CAUTION = 1.5
"""Standard errors that a gain must exceed before the network has any share."""


def readouts(net: nn.Module) -> list[nn.Linear]:
    """The last layer of a network, or of each in a committee."""
    found = [one.readout for one in (net.nets if isinstance(net, Committee) else [net])]
    assert all(isinstance(one, nn.Linear) for one in found)
    return cast("list[nn.Linear]", found)


@dataclass(frozen=True)
class Weighed:
    """share in [0, 1]; the held-out losses of the anchor and of the network before it was weighed; origins judged."""

    share: float
    anchor: float
    network: float
    origins: int


@torch.no_grad()
def weigh(net: nn.Module, head: Head, held: Source, horizon: int, bias: torch.Tensor) -> tuple[Weighed, Head]:
    """Shrink the readout of a network towards `bias`, what it says as the anchor, and stretch its head's quantiles.

    The readout's weights and biases change in place.
    """
    outputs, left = _outputs(net, held)
    losses = _losses(head, outputs, left), _losses(head, bias.expand_as(outputs), left)
    gain = losses[1] - losses[0]
    share = _share(gain, horizon)
    for readout in readouts(net):
        readout.weight.mul_(share)
        readout.bias.copy_(share * readout.bias + (1 - share) * bias)
    mixed = share * outputs + (1 - share) * bias
    found = Weighed(share, float(losses[1].mean()), float(losses[0].mean()), len(gain))
    return found, head.calibrated(mixed.double().numpy(), left, horizon)


def _share(gain: Numbers, horizon: int) -> float:
    independent = len(gain) / max(1.0, horizon / 2)
    if independent < 2 or gain.mean() <= 0:
        return 0.0
    error = gain.std() / np.sqrt(independent - 1)
    return float(max(0.0, 1 - (CAUTION * error / gain.mean()) ** 2))


def _outputs(net: nn.Module, held: Source) -> tuple[torch.Tensor, Numbers]:
    """The outputs (N, A) at the steps that are asked, and what was left over there (N, H), NaN where unknown."""
    outputs, left, state = [], [], None
    net.eval()
    for index in range(len(held)):
        chunk = held[index]
        assert chunk.y is not None
        assert chunk.mask is not None
        y, state = net(chunk.x, state, chunk.reset)
        asked = (chunk.mask > 0).any(-1)
        outputs.append(y[asked])
        left.append(chunk.y[asked].masked_fill(chunk.mask[asked] == 0, torch.nan))
    return torch.cat(outputs), torch.cat(left).double().numpy()


def _losses(head: Head, outputs: torch.Tensor, left: Numbers) -> Numbers:
    """(N,): the mean loss of each origin over the horizons that are known."""
    y = torch.from_numpy(left).to(outputs.dtype)
    known = ~y.isnan()
    loss = head.loss(outputs[None], y.nan_to_num()[None])[0] * known
    mean: Numbers = (loss.sum(1) / known.sum(1)).double().numpy()
    return mean
