"""Heads: quantiles between and beyond those learned, no crossing, and a stretch that covers what it should."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.estimators.heads import UNSEEN, Head, normal_scores

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def test_quantiles_of_a_gaussian_are_right_between_and_beyond() -> None:
    head = Head("quantile", LEVELS)
    out = (2 + 3 * normal_scores(LEVELS))[None]
    wanted = np.array([0.01, 0.05, 0.1, 0.5, 0.6, 0.95, 0.995])
    assert head.quantiles(out, wanted)[0, 0] == pytest.approx(2 + 3 * normal_scores(wanted))
    gaussian = Head("gaussian", LEVELS)
    assert gaussian.quantiles(np.array([[2.0, np.log(3)]]), wanted)[0, 0] == pytest.approx(
        2 + 3 * normal_scores(wanted)
    )


def test_quantiles_never_cross() -> None:
    out = np.random.default_rng(0).normal(size=(20, 3 * len(LEVELS)))
    found = Head("quantile", LEVELS).quantiles(out, np.linspace(0.01, 0.99, 30))
    assert found.shape == (20, 3, 30)
    assert (np.diff(found, axis=-1) >= -1e-12).all()


@pytest.mark.parametrize("kind", ["quantile", "gaussian"])
def test_the_stretch_covers_what_the_outputs_do_not(kind: str) -> None:
    left = 2.0 * np.random.default_rng(1).normal(size=(4000, 1))
    scores = normal_scores(LEVELS) if kind == "quantile" else np.zeros(2)
    head = Head(kind, LEVELS)
    out = np.repeat(scores[None], 4000, 0)  # as if the deviation were 1
    before, after = (h.quantiles(out, np.array([0.05, 0.95])) for h in (head, head.calibrated(out, left, 1)))
    inside = [float(((left >= q[..., 0]) & (left <= q[..., 1])).mean()) for q in (before, after)]
    assert inside[0] < 0.65
    assert inside[1] == pytest.approx(0.9, abs=0.02)


def test_a_stretch_of_few_errors_is_held_back() -> None:
    left = 2.0 * np.random.default_rng(1).normal(size=(12, 1))
    out = np.repeat(normal_scores(LEVELS)[None], 12, 0)
    found = Head("quantile", LEVELS).calibrated(out, left, 6).stretch
    assert max(found) < 2
    assert Head("point", LEVELS).calibrated(out[:, :1], left, 1) == Head("point", LEVELS)


def test_the_start_says_what_the_anchor_says() -> None:
    left = np.random.default_rng(2).exponential(size=(100, 2))
    left[:, 1] = np.nan
    for kind in ("quantile", "gaussian", "point"):
        head = Head(kind, LEVELS)
        out = head.start(left)[None]
        assert out.shape == (1, 2 * head.each)
        assert head.median(out).tolist() == [[0, 0]]
    spans = Head("quantile", LEVELS).start(left).reshape(2, -1)
    assert spans[0] == pytest.approx(np.quantile(left[:, 0], LEVELS) - np.median(left[:, 0]))
    assert spans[1] == pytest.approx(spans[0]), "a horizon without errors has those of all"


def test_draws_have_the_quantiles() -> None:
    head = Head("quantile", LEVELS)
    out = np.repeat((1 + normal_scores(LEVELS))[None], 20_000, 0)
    drawn = head.draw(out, np.random.default_rng(3))
    assert np.quantile(drawn, LEVELS) == pytest.approx(1 + normal_scores(LEVELS), abs=0.05)


@pytest.mark.parametrize("kind", ["quantile", "gaussian"])
def test_without_held_out_errors_the_usual_stretch_is_taken(kind: str) -> None:
    head = Head(kind, LEVELS)
    out = (normal_scores(LEVELS) if kind == "quantile" else np.zeros(2))[None]
    wide = head.calibrated(np.zeros((0, head.each)), np.zeros((0, 1)), 1)
    wanted = np.array([0.05, 0.5, 0.95])
    assert wide.quantiles(out, wanted) == pytest.approx(UNSEEN * head.quantiles(out, wanted))
