"""The losses of forecasts: the Gaussian's and the quantiles', against their definitions and through training."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
import torch

from throughtime.chunk import Chunk
from throughtime.nets import Network, Quantile, gaussian, losses
from throughtime.training import train


def test_the_gaussian_loss_is_minus_the_log_of_its_density() -> None:
    prediction, y = torch.randn(4, 3, 6, dtype=torch.float64), torch.randn(4, 3, 3, dtype=torch.float64)
    found = gaussian(prediction, y)
    density = torch.distributions.Normal(prediction[..., :3], prediction[..., 3:].exp())
    assert torch.allclose(found, -density.log_prob(y))
    assert losses["gaussian"] is gaussian
    assert float(gaussian(torch.zeros(1, 1, 2), torch.zeros(1, 1, 1))) == pytest.approx(math.log(2 * math.pi) / 2)


def test_a_spread_of_nothing_stays_finite() -> None:
    prediction = torch.tensor([[[0.0, -1e9]]], requires_grad=True)
    loss = gaussian(prediction, torch.zeros(1, 1, 1)).sum()
    loss.backward()
    assert loss.isfinite()
    assert prediction.grad.isfinite().all()


def test_the_quantile_loss_by_hand() -> None:
    prediction = torch.tensor([[[0.0, 1.0, 2.0, 0.0, 0.0, 0.0]]])
    y = torch.tensor([[[1.0, -2.0]]])
    found = Quantile((0.1, 0.5, 0.8))(prediction, y)[0, 0]
    assert found.tolist() == pytest.approx([(0.1 * 1 + 0 + 0.2 * 1) / 3, (0.9 * 2 + 0.5 * 2 + 0.2 * 2) / 3])


def test_training_finds_the_quantiles_of_noise() -> None:
    levels = (0.1, 0.5, 0.9)
    y = torch.randn(400, 8, 1)
    chunk = Chunk(torch.zeros(400, 8, 1), y, end=True)
    net = Network("elman", inputs=1, units=2, outputs=3)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.05)
    list(train(net, [chunk], loss=Quantile(levels), optimizer=optimizer, epochs=120, probe_every=0))
    found = net(torch.zeros(50, 1, 1))[0][-1, 0].tolist()
    assert found == pytest.approx([NormalDist().inv_cdf(q) for q in levels], abs=0.12)
    assert found == pytest.approx(np.quantile(y, levels), abs=0.1)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="levels must be rising numbers between 0 and 1"):
        Quantile((0.5, 0.5))
    with pytest.raises(ValueError, match="levels must be rising numbers"):
        Quantile((0.0, 0.5))
    with pytest.raises(ValueError, match="levels must be rising numbers"):
        Quantile(())
    with pytest.raises(ValueError, match=r"two numbers for every target, \(1, 1, 2\); got \(1, 1, 1\)"):
        gaussian(torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    with pytest.raises(ValueError, match=r"every target and level, \(1, 1, 4\); got \(1, 1, 2\)"):
        Quantile((0.2, 0.7))(torch.zeros(1, 1, 2), torch.zeros(1, 1, 2))
