"""Losses of a step, and their sum: weights, counts, and targets that are not there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from throughtime.chunk import Chunk
from throughtime.nets import bernoulli, cross_entropy, gaussian, losses, squared_error, sum_errors

DOUBLE = torch.float64
T, B, A = 9, 3, 2


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_cross_entropy_is_minus_the_log_of_the_softmax() -> None:
    prediction, y = torch.randn(T, B, 7, dtype=DOUBLE), torch.randint(0, 7, (T, B))
    p = prediction.exp() / prediction.exp().sum(-1, keepdim=True)
    close(cross_entropy(prediction, y), -p.gather(-1, y[..., None])[..., 0].log())
    many, ys = torch.randn(T, B, 4, 7, dtype=DOUBLE), torch.randint(0, 7, (T, B, 4))
    close(cross_entropy(many, ys)[:, :, 2], cross_entropy(many[:, :, 2], ys[:, :, 2]))


def test_squared_error_and_bernoulli() -> None:
    prediction = torch.randn(T, B, A, dtype=DOUBLE)
    y = torch.randn(T, B, A, dtype=DOUBLE)
    close(squared_error(prediction, y), (y - prediction) ** 2 / 2)
    bits = torch.randint(0, 2, (T, B, A))
    p = 1 / (1 + (-prediction).exp())
    close(bernoulli(prediction, bits), -torch.where(bits == 1, p, 1 - p).log())
    close(bernoulli(prediction, bits.bool()), bernoulli(prediction, bits.double()))
    assert bernoulli(torch.tensor([[[1000.0]]]), torch.tensor([[[0]]])).item() == 1000
    named = {"softmax": cross_entropy, "squared": squared_error, "bernoulli": bernoulli, "gaussian": gaussian}
    assert losses == named


@pytest.mark.parametrize(
    ("loss", "y", "sentence"),
    [
        (cross_entropy, torch.zeros(T, B), r"y must be whole-number ids, one for every prediction, \(9, 3\)"),
        (
            cross_entropy,
            torch.zeros(T, B, 1).long(),
            r"y must be whole-number ids.*got torch.int64 \(9, 3, 1\)",
        ),
        (cross_entropy, torch.full((T, B), 2), "y must be ids from 0 to 1; got 2 to 2."),
        (cross_entropy, torch.full((T, B), -100), "y must be ids from 0 to 1; got -100 to -100."),
        (
            squared_error,
            torch.zeros(T, B),
            r"y must have the shape of the prediction, \(9, 3, 2\); got \(9, 3\)",
        ),
        (
            bernoulli,
            torch.zeros(T, B, 1),
            r"y must have the shape of the prediction, \(9, 3, 2\); got \(9, 3, 1\)",
        ),
    ],
)
def test_targets_that_do_not_fit_are_refused(loss: Any, y: Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        loss(torch.zeros(T, B, A), y)


@pytest.mark.parametrize("axes", [2, 3])
def test_errors_are_weighted_summed_and_counted(axes: int) -> None:
    prediction, y = torch.randn(2, T, B, A, dtype=DOUBLE)
    mask = torch.rand((T, B, A)[:axes], dtype=DOUBLE) * (torch.rand((T, B, A)[:axes]) < 0.5)
    weights = mask if axes == 3 else mask[..., None]
    hidden = y.masked_fill(weights == 0, float("nan"))
    for targets in (y, hidden):
        error, count = sum_errors(squared_error, prediction, Chunk(prediction, targets, mask))
        close(error, (squared_error(prediction, y) * weights).sum())
        assert count == pytest.approx(float(mask.sum()))


def test_without_a_mask_every_step_of_every_row_counts_once() -> None:
    prediction, y = torch.randn(2, T, B, A, dtype=DOUBLE)
    error, count = sum_errors(squared_error, prediction, Chunk(prediction, y))
    close(error, squared_error(prediction, y).sum())
    assert count == T * B
    ones = torch.ones(T, B, dtype=torch.bool)
    error, count = sum_errors(squared_error, prediction, Chunk(prediction, y, ones))
    close(error, squared_error(prediction, y).sum())
    assert count == T * B


def test_no_gradient_comes_from_targets_that_do_not_count() -> None:
    prediction = torch.randn(T, B, A, dtype=DOUBLE, requires_grad=True)
    mask = torch.zeros(T, B, dtype=DOUBLE)
    mask[2] = 0.5
    y = torch.full((T, B, A), float("nan"), dtype=DOUBLE)
    y[2] = 0
    error, _ = sum_errors(squared_error, prediction, Chunk(prediction, y, mask))
    (grad,) = torch.autograd.grad(error, prediction)
    close(grad[2], prediction[2].detach() / 2)
    assert (grad[:2] == 0).all()
    assert (grad[3:] == 0).all()


@pytest.mark.parametrize(
    ("loss", "y", "mask", "sentence"),
    [
        (cross_entropy, None, None, "y must be there to learn from; got a chunk without targets."),
        (
            lambda p, y: p.sum(),
            torch.zeros(T, B, A),
            None,
            r"loss must return errors not yet summed.*\(9, 3\); got \(\)",
        ),
        (
            nn.functional.mse_loss,
            torch.zeros(T, B, A),
            torch.ones(T, B),
            "loss must return errors not yet summed",
        ),
        (
            cross_entropy,
            torch.zeros(T, B).long(),
            torch.ones(T, B, A),
            r"mask must have no more axes than y, \(9, 3\)",
        ),
        (
            lambda p, y: p[..., 0],
            torch.zeros(T, B, A),
            torch.ones(T, B, A),
            "mask must have no more axes than the errors",
        ),
    ],
)
def test_losses_and_masks_that_do_not_fit_are_refused(loss: Any, y: Any, mask: Any, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        sum_errors(loss, torch.zeros(T, B, A), Chunk(torch.zeros(T, B, A), y, mask))
