import numpy as np
import pytest
from scipy.special import expit, logit

from featx.heads import MultiLabelPath, MultiLabelStack, MultiRegressionStack
from featx.heads.stack import _find_shares


def test_each_label_weighs_the_members_for_itself():
    rng = np.random.default_rng(0)
    Y = rng.integers(0, 2, (200, 3))
    Y[:, 2] = 1
    first, second = rng.uniform(0.05, 0.95, (2, 200, 3))
    first[:, 0], second[:, 1] = 0.1 + 0.8 * Y[:, 0], 0.1 + 0.8 * Y[:, 1]
    stack = MultiLabelStack([("first", None), ("second", None)], labels=["a", "b", "c"])
    stack.join([], [first, second], Y)
    assert stack.classes_.tolist() == ["a", "b", "c"]
    assert stack.coef_[0, 0] > 10 * abs(stack.coef_[0, 1])
    assert stack.coef_[1, 1] > 10 * abs(stack.coef_[1, 0])
    assert stack.coef_[2].tolist() == [0, 0]  # a label that every row has
    assert (stack.coef_ >= 0).all()
    scores = stack.combine([first, second])
    assert (expit(scores[:, 2]) > 0.99).all()
    odds = np.stack([logit(first[:, 0]), logit(second[:, 0])], axis=1)
    np.testing.assert_allclose(scores[:, 0], odds @ stack.coef_[0] + stack.intercept_[0])


def test_numbers_take_shares_and_a_member_without_knowledge_has_none():
    rng = np.random.default_rng(0)
    y = rng.normal(10, 1, 90)
    good, mean = y + rng.normal(0, 0.1, 90), np.repeat([y[30:].mean(), y[np.r_[:30, 60:90]].mean(), y[:60].mean()], 30)
    shares = _find_shares(np.stack([good, mean], axis=1), y)
    assert shares.sum() == pytest.approx(1)
    assert (shares >= 0).all()
    assert shares[0] > 0.95
    assert _find_shares(good[:, None], y).tolist() == [1]


def test_a_stack_fits_by_itself():
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=(40, 3)), rng.integers(0, 2, (40, 2))
    X[:, :2] += 3 * Y
    stack = MultiLabelStack([("all", MultiLabelPath(cv=2))], cv=2).fit(X, Y)
    assert (stack.predict(X) == Y).mean() > 0.8
    with pytest.raises(ValueError, match="n_targets"):
        MultiRegressionStack([]).fit(X, Y[:, 0])
