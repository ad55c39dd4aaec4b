import numpy as np
import pytest

from featx.errors import InputError
from featx.fitting.target import StackTarget

LABELS = np.array([[1, 0], [0, 1], [1, 1], [0, 0]])


def test_the_logarithm_is_fitted_and_the_number_kept():
    target = StackTarget("regression", np.array([1.0, np.e, 10.0]), log_target=True)
    np.testing.assert_allclose(target.fitted, [0, 1, np.log(10)])
    assert target.count() == {"target": {"min": 1.0, "median": np.e, "max": 10.0}}


def test_targets_of_which_nothing_can_be_learnt_are_refused():
    with pytest.raises(InputError, match="at least two classes"):
        StackTarget("classification", np.array(["ant", "bee", "ant"])).take([0, 2])
    labels = StackTarget("multilabel", LABELS, ("sea", "sky"))
    assert labels.take([0, 1, 2]).count() == {"counts": {"sea": 2, "sky": 2}}
    with pytest.raises(InputError, match="nothing to learn"):
        labels.take([2, 2])


@pytest.mark.parametrize(
    "target",
    [StackTarget("classification", np.array(["a", "b"] * 8)), StackTarget("multilabel", LABELS.repeat(4, 0), "ab")],
)
def test_groups_lie_on_one_side_of_each_fold(target):
    groups = np.arange(16) // 2
    folds, _ = target.divide(np.zeros((16, 1)), None, groups, 2)
    assert len(folds) == 2
    assert all(not set(groups[fit]) & set(groups[out]) for fit, out in folds)
