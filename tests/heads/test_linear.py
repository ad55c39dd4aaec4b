import pickle
import tracemalloc

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_diabetes, load_digits, make_classification
from sklearn.linear_model import LogisticRegression, Ridge, RidgeClassifier
from sklearn.model_selection import GroupKFold, KFold
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.heads import (
    LinearSVCPath,
    LogisticRegressionPath,
    RidgeClassifierPath,
    RidgeRegressionPath,
    make_head,
)

CLASSIFIERS = [LogisticRegressionPath, RidgeClassifierPath, LinearSVCPath]
DIGITS = load_digits(return_X_y=True)


@parametrize_with_checks([*(each() for each in CLASSIFIERS), RidgeRegressionPath()])
def test_estimators_are_scikit_learns(estimator, check):
    if check.func.__name__ == "check_sample_weight_equivalence_on_dense_data":
        pytest.skip("the folds that choose the penalty depend on the number of rows")
    check(estimator)


def make_data(n_classes=3, n=150, d=20, seed=0):
    return make_classification(n, d, n_informative=6, n_classes=n_classes, random_state=seed)


@pytest.mark.parametrize("C", [0.001, 0.1, 10.0])
@pytest.mark.parametrize(("n_classes", "d"), [(2, 20), (3, 20), (3, 300)])
def test_one_penalty_gives_the_coefficients_of_logistic_regression(n_classes, d, C):
    X, y = make_data(n_classes, d=d)
    ours = LogisticRegressionPath([C], scaling=None, calibrate=False, tol=1e-9).fit(X, y)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=10_000).fit(X, y)
    size = np.abs(theirs.coef_).max()
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=2e-3 * size)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=2e-3)
    assert ours.coef_.shape == theirs.coef_.shape


@pytest.mark.parametrize("weight", ["balanced", {0: 1.0, 1: 5.0, 2: 0.5}])
def test_weights_are_those_of_scikit_learn(weight):
    X, y = make_data()
    rows = np.random.default_rng(1).uniform(0, 2, len(y))
    ours = LogisticRegressionPath([0.1], scaling=None, calibrate=False, class_weight=weight, tol=1e-9)
    theirs = LogisticRegression(C=0.1, class_weight=weight, tol=1e-10, max_iter=10_000)
    ours.fit(X, y, sample_weight=rows)
    np.testing.assert_allclose(ours.coef_, theirs.fit(X, y, sample_weight=rows).coef_, atol=1e-3)


def test_standard_scaling_is_that_of_scikit_learn():
    X, y = make_data()
    X = X * np.logspace(-3, 3, X.shape[1]) + 100
    scaler = StandardScaler().fit(X)
    ours = LogisticRegressionPath([0.1], scaling="standard", calibrate=False, tol=1e-9).fit(X, y)
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000).fit(scaler.transform(X), y)
    np.testing.assert_allclose(ours.coef_ * scaler.scale_, theirs.coef_, atol=1e-3)


@pytest.mark.parametrize("d", [20, 300])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_ridge_and_svm_solve_the_problems_of_scikit_learn(n_classes, d):
    X, y = make_data(n_classes, d=d)
    ours = RidgeClassifierPath([10.0], scaling=None, calibrate=False, tol=1e-10).fit(X, y)
    theirs = RidgeClassifier(alpha=10.0).fit(X, y)
    expected = np.atleast_2d(theirs.coef_)
    np.testing.assert_allclose(ours.coef_, expected, atol=2e-3 * np.abs(expected).max())
    svm = LinearSVCPath([0.01], scaling=None, calibrate=False, tol=1e-10).fit(X, y)
    # a large column of ones leaves the intercept without a penalty, as ours
    liblinear = LinearSVC(C=0.01, intercept_scaling=100, tol=1e-8, max_iter=100_000).fit(X, y)
    np.testing.assert_allclose(svm.decision_function(X), liblinear.decision_function(X), atol=5e-3)


def test_ridge_regression_is_that_of_scikit_learn():
    X, y = load_diabetes(return_X_y=True)
    ours = RidgeRegressionPath([1.0], scaling=None, tol=1e-12).fit(X, y)
    np.testing.assert_allclose(ours.coef_, Ridge(alpha=1.0).fit(X, y).coef_, rtol=1e-3)
    assert isinstance(ours.intercept_, float)


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("labels", [["ant", "bee"], [False, True], [7, 3], ["x", "y", "z"]])
def test_labels_of_any_kind_come_back(kind, labels):
    X, codes = make_data(len(labels))
    y = np.array(labels)[codes]
    head = kind().fit(X, y)
    assert head.classes_.tolist() == sorted(labels)
    assert head.predict(X).dtype == y.dtype
    assert head.score(X, y) > 0.7
    assert head.predict_proba(X).shape == (len(y), len(labels))


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_classes_of_one_and_two_images_are_learned(kind):
    X, y = make_data(3)
    y[y == 2] = 0
    y[:2], y[2] = 2, 3
    X[:3] += np.array([[20.0], [20.0], [-20.0]])
    head = kind().fit(X, y)
    assert head.classes_.tolist() == [0, 1, 2, 3]
    assert np.isfinite(head.predict_proba(X)).all()
    assert head.predict(X[:2]).tolist() == [2, 2]


def test_one_image_of_each_class_is_enough():
    X = np.eye(5) * 10
    head = LogisticRegressionPath().fit(X, list("abcde"))
    assert head.predict(X).tolist() == list("abcde")
    assert len(head.out_of_fold_.rows) == 0


@pytest.mark.parametrize("kind", [*CLASSIFIERS, RidgeRegressionPath])
@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_scale_of_features_does_not_matter(kind, scale, dtype):
    X, y = make_data(2)
    X = np.hstack([X, np.ones((len(X), 1))])  # a constant feature
    expected = kind().fit(X, y)
    head = kind().fit((X * scale).astype(dtype), y)
    assert head.coef_.dtype == dtype
    assert np.isfinite(head.coef_).all()
    np.testing.assert_allclose(head.predict((X * scale).astype(dtype)), expected.predict(X), atol=0.01)


def test_features_that_are_all_constant_give_the_shares_of_the_classes():
    head = LogisticRegressionPath().fit(np.full((40, 3), 7.0), [0] * 30 + [1] * 10)
    np.testing.assert_allclose(head.predict_proba([[7.0, 7.0, 7.0]]), [[0.75, 0.25]], atol=0.03)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    X, y = make_data()
    X[3, 4] = bad
    with pytest.raises(ValueError, match=r"NaN|infinity"):
        LogisticRegressionPath().fit(X, y)


def test_an_unknown_scaling_is_refused():
    with pytest.raises(ValueError, match="scaling='minmax': expected 'pareto'"):
        LogisticRegressionPath(scaling="minmax").fit(*make_data())


@pytest.mark.parametrize("kind", [*CLASSIFIERS, RidgeRegressionPath])
def test_left_out_predictions_come_from_heads_that_did_not_see_the_rows(kind):
    X, y = make_data(2, n=80)
    folds = list(KFold(4).split(X))
    found = kind(cv=folds).fit(X, y).out_of_fold_
    np.testing.assert_array_equal(np.sort(found.rows), np.arange(80))
    np.testing.assert_array_equal(found.y, y[found.rows])
    X[folds[0][1]] = 0  # these rows have no part in their own prediction, whatever they are
    y[folds[0][1]] = 1 - y[folds[0][1]]
    assert [len(found.rows[found.folds == i]) for i in range(4)] == [20] * 4


def test_left_out_probabilities_are_those_of_separate_fits():
    X, y = make_data(3)
    folds = list(KFold(3, shuffle=True, random_state=1).split(X))
    found = LogisticRegressionPath([0.1], cv=folds, scaling=None, calibrate=False).fit(X, y).out_of_fold_
    for number, (kept, out) in enumerate(folds):
        alone = LogisticRegression(C=0.1, tol=1e-8, max_iter=1000).fit(X[kept], y[kept])
        np.testing.assert_allclose(found.probabilities[found.folds == number], alone.predict_proba(X[out]), atol=0.04)


def test_a_class_that_a_fold_does_not_know_is_never_predicted_there():
    X, y = make_data(3)
    order = np.argsort(y, kind="stable")
    folds = [(order[:90], order[90:]), (order[::2], order[1::2])]
    found = LogisticRegressionPath(cv=folds).fit(X, y).out_of_fold_
    unknown = found.y == 2
    assert not (found.predicted[(found.folds == 0) & unknown] == 2).any()
    assert found.probabilities[(found.folds == 0) & unknown, 2].max() < 0.01


def test_a_splitter_and_rows_left_out_twice():
    X, y = make_data(2)
    twice = list(KFold(3).split(X)) * 2
    assert len(LogisticRegressionPath(cv=twice).fit(X, y).out_of_fold_.rows) == 2 * len(X)
    groups = np.arange(len(X)) // 10
    split = list(GroupKFold(3).split(X, y, groups))
    found = LogisticRegressionPath(cv=split).fit(X, y).out_of_fold_
    for group in range(groups.max() + 1):
        assert len(set(found.folds[groups[found.rows] == group])) == 1


def test_equal_penalties_give_the_stronger_one():
    X = np.concatenate([np.full((20, 2), -5.0), np.full((20, 2), 5.0)])
    y = np.repeat(["a", "b"], 20)
    head = RidgeClassifierPath([1e-3, 1e3], calibrate=False).fit(X, np.roll(y, 0))
    assert head.alpha_ == 1e-3
    assert head.score(X, y) == 1


def test_weak_penalties_that_stop_winning_are_not_tried():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(200, 50)), rng.integers(0, 2, 200)
    head = LogisticRegressionPath().fit(X, y)
    assert head.C_ < 1e-2
    assert head.out_of_fold_.losses.shape[1] < 17


def test_temperature_calibrates_scores_that_are_too_sure():
    X, y = make_data(3, n=300)
    sure, calibrated = (LogisticRegressionPath([100.0], calibrate=flag).fit(X, y) for flag in (False, True))
    assert sure.temperature_ == 1
    assert calibrated.temperature_ != 1
    np.testing.assert_allclose(calibrated.coef_ * calibrated.temperature_, sure.coef_, rtol=1e-5)
    np.testing.assert_array_equal(calibrated.predict(X), sure.predict(X))
    losses = [
        -np.log(h.out_of_fold_.probabilities[np.arange(300), h.out_of_fold_.y]).mean() for h in (sure, calibrated)
    ]
    assert losses[1] < losses[0]


def test_left_out_predictions_are_not_saved():
    head = LogisticRegressionPath().fit(*make_data())
    again = pickle.loads(pickle.dumps(head))
    assert not hasattr(again, "out_of_fold_")
    X, _ = make_data()
    np.testing.assert_array_equal(again.predict_proba(X), head.predict_proba(X))
    assert hasattr(head, "out_of_fold_")
    assert not hasattr(clone(head), "coef_")


def test_threads_change_nothing(monkeypatch):
    from featx.heads import path

    monkeypatch.setattr(path, "_MIN_WORK", 0)
    X, y = DIGITS
    one, two = (LogisticRegressionPath(n_jobs=n).fit(X[::3], y[::3]) for n in (1, 2))
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), atol=0.02)


def test_a_fit_takes_less_memory_than_three_copies_of_the_features():
    rng = np.random.default_rng(0)
    y = np.arange(6000) % 10
    X = (rng.normal(size=(10, 300))[y] + 3 * rng.normal(size=(6000, 300))).astype(np.float32)
    tracemalloc.start()
    LogisticRegressionPath(n_jobs=1).fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * X.nbytes


def test_a_fit_may_overwrite_its_features():
    rng = np.random.default_rng(0)
    y = np.arange(6000) % 10
    X = (rng.normal(size=(10, 300))[y] + 3 * rng.normal(size=(6000, 300))).astype(np.float32)
    kept = X.copy()
    plain = LogisticRegressionPath(n_jobs=1).fit(X, y)
    np.testing.assert_array_equal(X, kept)
    tracemalloc.start()
    head = LogisticRegressionPath(n_jobs=1, copy=False).fit(X, y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1.5 * X.nbytes
    np.testing.assert_array_equal(head.coef_, plain.coef_)
    kept.flags.writeable = False
    np.testing.assert_array_equal(LogisticRegressionPath(n_jobs=1, copy=False).fit(kept, y).coef_, plain.coef_)


def test_the_features_of_a_head_are_not_overwritten():
    X, y = make_data()
    for task in ("classification", "regression"):
        features = X.astype(np.float32)
        make_head(task=task).fit(features, y)
        np.testing.assert_array_equal(features, X.astype(np.float32))


def test_many_classes_take_the_memory_of_their_coefficients_nine_times(monkeypatch):
    monkeypatch.setattr("featx._memory._LARGE", np.inf)  # tracemalloc sees no memory that comes from the system
    rng = np.random.default_rng(0)
    y = np.arange(1500) % 500
    X = (rng.normal(size=(500, 400))[y] + rng.normal(size=(1500, 400))).astype(np.float32)
    tracemalloc.start()
    head = LogisticRegressionPath([0.001, 0.01], n_jobs=2, copy=False, tol=1e-3).fit(X.copy(), y)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    scores = head.out_of_fold_.probabilities.nbytes
    assert peak < 9 * head.coef_.nbytes + 2 * scores + X.nbytes + 4_000_000


def test_left_out_probabilities_of_many_classes_are_those_of_separate_fits():
    rng = np.random.default_rng(0)
    y = np.arange(1000) % 250  # the best scores are kept in half the digits
    X = rng.normal(size=(250, 20))[y] + 0.3 * rng.normal(size=(1000, 20))
    rows = np.arange(1000)
    folds = [(rows[rows // 250 != i], rows[rows // 250 == i]) for i in range(2)]
    found = LogisticRegressionPath([0.1], scaling=None, calibrate=False, cv=folds).fit(X, y).out_of_fold_
    kept, out = folds[0]
    alone = LogisticRegressionPath([0.1], scaling=None, calibrate=False, cv=[]).fit(X[kept], y[kept])
    assert np.abs(found.probabilities[: len(out)] - alone.predict_proba(X[out])).mean() < 1e-4
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)
    assert (found.predicted == found.y).mean() > 0.9


def test_many_classes_are_solved_one_fold_at_a_time():
    rng = np.random.default_rng(0)
    y = np.arange(240) % 40
    X = rng.normal(size=(40, 60))[y] + 0.5 * rng.normal(size=(240, 60))
    head = LogisticRegressionPath().fit(X, y)
    assert (head.out_of_fold_.predicted == head.out_of_fold_.y).mean() > 0.8
