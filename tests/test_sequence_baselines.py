"""Linear models on whole sequences: what they see, by definition."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.preprocessing import StandardScaler

from throughtime.baselines.sequences import reference_classes, reference_numbers, summary, table


def test_summary_by_hand() -> None:
    found = summary(np.array([[1.0, 5.0], [2.0, 5.0], [6.0, 5.0]]), 2)
    wanted = [[3, 5], [np.std([1, 2, 6]), 0], [1, 5], [6, 5], [1, 5], [6, 5], [2.5, 0]]
    np.testing.assert_allclose(found, np.ravel(wanted))
    values = np.random.default_rng(0).normal(size=(9, 1))
    assert summary(values, 1)[-1] == pytest.approx(np.polyfit(np.arange(9), values[:, 0], 1)[0])
    assert not summary(np.zeros((0, 2)), 2).any()
    assert summary(np.ones((1, 1)), 1).tolist() == [1, 0, 1, 1, 1, 1, 0]


def test_equal_lengths_see_all_values() -> None:
    chance = np.random.default_rng(1)
    x = list(chance.normal(size=(60, 5, 2)))
    y = np.array([f"{int(s[2, 1] > 0)}" for s in x])
    prior, linear = reference_classes(x, y)
    assert linear.name == "logistic regression on all values"
    assert set(prior.predict(x)) == {max(set(y), key=list(y).count)}
    C = linear.model.best_params_["logisticregression__C"]
    rows = np.array(x).reshape(60, -1)
    scaled = StandardScaler().fit(rows)
    wanted = LogisticRegression(C=C, max_iter=2000).fit(scaled.transform(rows), y).predict(scaled.transform(rows))
    assert np.array_equal(linear.predict(x), wanted)
    with pytest.raises(ValueError, match="sequences must have 5 steps, as those that were fitted; got one of 4"):
        linear.predict([np.zeros((4, 2))])


def test_unequal_lengths_see_summaries() -> None:
    chance = np.random.default_rng(2)
    x = [chance.normal(size=(k, 1)) + k % 2 * 3 for k in chance.integers(1, 30, 80)]
    y = [len(s) % 2 for s in x]
    _, linear = reference_classes(x, y)
    assert linear.name == "logistic regression on summaries"
    assert (linear.predict(x) == y).mean() > 0.9
    assert linear.predict([np.zeros((0, 1))]).shape == (1,)
    with pytest.raises(ValueError, match="equal must be False for sequences of"):
        reference_classes(x, y, equal=True)


def test_numbers() -> None:
    chance = np.random.default_rng(3)
    x = list(chance.normal(size=(50, 4, 1)))
    y = np.array([[s[0, 0], s.sum()] for s in x])
    mean, linear = reference_numbers(x, y)
    np.testing.assert_allclose(mean.predict(x[:1])[0], y.mean(0))
    rows = np.array(x).reshape(50, -1)
    scaled = StandardScaler().fit(rows)
    ridge = RidgeCV(alphas=[10.0**power for power in range(-3, 6)]).fit(scaled.transform(rows), y)
    np.testing.assert_allclose(linear.predict(x), ridge.predict(scaled.transform(rows)))
    np.testing.assert_allclose(linear.predict(x), y, atol=0.05)


def test_one_of_a_class_and_none_at_all() -> None:
    x = [np.array([[float(k)]]) for k in range(4)]
    _, linear = reference_classes(x, ["a", "a", "a", "b"])
    assert linear.predict(x).shape == (4,)
    with pytest.raises(ValueError, match="x must have a sequence; got none"):
        reference_classes([], [])
    assert table([], 3, 2).shape[0] == 0
