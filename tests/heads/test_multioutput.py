"""Linear heads of several labels and numbers."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge

from featx.heads import MultiLabelPath, RidgeMultiRegressionPath, stratify_labels
from featx.heads.calibration import fit_label_scales


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(120, 8))
    scores = X @ rng.normal(size=(8, 4)) + rng.normal(size=(120, 4))
    Y = (scores > [0, 1.5, 3, 99]).astype(int)
    return X, Y, scores


@pytest.mark.parametrize("weight", [None, "balanced", {"a": 3.0}])
def test_each_label_is_the_logistic_regression_of_that_label(data, weight):
    X, Y, _ = data
    head = MultiLabelPath(labels=list("abcd"), values=[0.1], scaling=None, class_weight=weight, tol=1e-9)
    head.fit(X, Y)
    for i, label in enumerate("abc"):
        own = {1: weight.get(label, 1.0)} if isinstance(weight, dict) else weight
        one = LogisticRegression(C=0.1, class_weight=own, tol=1e-8, max_iter=1000).fit(X, Y[:, i])
        slope = head.coef_[i] @ one.coef_[0] / (one.coef_[0] @ one.coef_[0])  # the calibration
        np.testing.assert_allclose(head.coef_[i], slope * one.coef_[0], atol=2e-3)
        np.testing.assert_allclose(head.intercept_[i], slope * one.intercept_[0], atol=5e-3)


@pytest.mark.parametrize("loss", ["logistic", "hinge", "squared"])
def test_shapes_names_and_a_label_that_no_row_has(data, loss):
    X, Y, _ = data
    head = clone(MultiLabelPath(loss, labels=list("abcd"))).fit(X[:100], Y[:100])
    p = head.predict_proba(X[100:])
    assert p.shape == (20, 4)
    assert head.classes_.tolist() == list("abcd")
    assert (p[:, 3] < 0.01).all()
    assert ((p > 0.5) == head.predict(X[100:])).all()
    assert (head.predict(X[100:]) == Y[100:]).mean() > 0.8
    found = head.out_of_fold_
    assert sorted(found.rows.tolist()) == list(range(100))
    assert abs(found.probabilities[:, 0].mean() - Y[:100, 0].mean()) < 0.05


def test_a_wrong_matrix_is_refused(data):
    X, Y, _ = data
    with pytest.raises(ValueError, match="expected 0 and 1"):
        MultiLabelPath().fit(X, Y * 2)
    with pytest.raises(ValueError, match="3 names for 4 columns"):
        MultiLabelPath(labels=list("abc")).fit(X, Y)
    with pytest.raises(ValueError, match="is no label"):
        MultiLabelPath(class_weight={"z": 2}).fit(X, Y)
    with pytest.raises(NotFittedError):
        MultiLabelPath().predict(X)


def test_several_numbers_are_the_ridge_of_each(data):
    X, _, scores = data
    numbers = scores * [1, 1000, 1e-3, 1] + 5
    head = RidgeMultiRegressionPath(alphas=[10.0], scaling=None).fit(X, numbers)
    one = Ridge(alpha=10.0).fit(X, numbers)
    scale = numbers.std(axis=0)
    np.testing.assert_allclose(head.predict(X) / scale, one.predict(X) / scale, atol=1e-3)
    assert head.out_of_fold_.predicted.shape == numbers.shape


def test_folds_spread_rare_labels_and_keep_groups():
    rng = np.random.default_rng(1)
    Y = (rng.random((200, 6)) < [0.5, 0.3, 0.1, 0.05, 0.04, 0.03]).astype(int)
    folds = stratify_labels(Y, 5)
    counts = np.array([Y[out].sum(axis=0) for _, out in folds])
    assert (np.ptp(counts, axis=0) <= [5, 4, 2, 1, 1, 1]).all()
    assert sorted(np.concatenate([out for _, out in folds]).tolist()) == list(range(200))
    groups = np.arange(200) // 4
    for kept, out in stratify_labels(Y, 5, groups):
        assert not set(groups[kept]) & set(groups[out])


def test_scales_restore_probabilities():
    rng = np.random.default_rng(2)
    logits = rng.normal(size=(4000, 2)) * 2 - 1
    truth = rng.random((4000, 2)) < 1 / (1 + np.exp(-logits))
    slopes, offsets = fit_label_scales(logits / [2, 5] + 0.3, truth, np.ones((4000, 2)), shift=True)
    np.testing.assert_allclose(slopes, [2, 5], rtol=0.15)
    np.testing.assert_allclose(offsets, [-0.6, -1.5], atol=0.25)
