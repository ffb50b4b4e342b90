"""scikit-learn's own checks of an estimator, all of them, without an exception."""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from throughtime.estimators import SequenceClassifier, SequenceRegressor

QUICK: dict[str, Any] = {"units": 16, "updates": 30, "learning_rate": 0.02}

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*SCIPY_ARRAY_API:sklearn.exceptions.SkipTestWarning"),
    pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning"),  # scikit-learn's own NaN
]


@parametrize_with_checks([SequenceClassifier(**QUICK), SequenceRegressor(**QUICK)])
def test_scikit_learn(estimator: Any, check: Any) -> None:
    if "regressors_train" in repr(check):  # which wants a score
        estimator.set_params(updates=200)
    check(estimator)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [SequenceClassifier, SequenceRegressor])
def test_scikit_learn_with_the_defaults(kind: Any) -> None:
    found = check_estimator(kind(), on_skip=None)
    assert len(found) > 50
    assert {check["status"] for check in found} <= {"passed", "skipped"}
