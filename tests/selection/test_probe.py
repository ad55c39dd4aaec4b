"""The probe and its scores against scikit-learn and SciPy, and what it makes of awkward numbers."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import binomtest
from sklearn.datasets import make_blobs
from sklearn.linear_model import Ridge
from sklearn.metrics import label_ranking_average_precision_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold

from featx.selection.goal import Goal, read_goal
from featx.selection.probe import _PENALTIES, logme, probe, score, split, standard_error, standardize


def make_task(kind, n=90, width=7, seed=0):
    rng = np.random.default_rng(seed)
    X = standardize(rng.normal(size=(n, width)).astype(np.float32))
    signal = X @ rng.normal(size=(width, 3)) + rng.normal(size=(n, 3))
    y = {
        "classes": np.array(["ant", "bee", "fly"])[signal.argmax(axis=1)],
        "number": signal[:, 0],
        "numbers": signal * [1, 1000, 1e-6],
        "labels": (signal > 0.3).astype(int),
    }[kind]
    goal, rows = read_goal(y)
    return X, goal, rows


@pytest.mark.parametrize("width", [7, 300], ids=["narrow", "wide"])
@pytest.mark.parametrize("kind", ["classes", "number", "numbers", "labels"])
def test_it_is_ridge_regression_with_an_intercept(kind, width):
    X, goal, rows = make_task(kind, width=width)
    folds = split(goal, rows, None, 5, 3)
    predicted = np.empty((len(_PENALTIES), *goal.values.shape))
    for i, penalty in enumerate(_PENALTIES):
        for out in folds:
            kept = np.setdiff1d(rows, out)
            ridge = Ridge(alpha=penalty * width).fit(X[kept].astype(float), goal.values[kept])
            predicted[i, out] = ridge.predict(X[out].astype(float)).reshape(len(out), -1)
    best = predicted[((predicted - goal.values) ** 2).mean(axis=(1, 2)).argmin()]
    gains, losses = probe(X, goal, rows, folds)
    assert gains == pytest.approx(goal.gains(best, rows), abs=1e-4)
    assert losses == pytest.approx(((best - goal.values) ** 2).mean(axis=1), rel=1e-3, abs=1e-4)


def test_some_rows_are_probed_as_if_there_were_no_others():
    X, goal, _ = make_task("number")
    rows = np.arange(5, 65, 2)
    alone = Goal("regression", goal.values[rows], np.zeros(30, int), [])
    folds = split(goal, rows, None, 5, 0)
    assert np.array_equal(probe(X[rows], goal, rows, folds), probe(X[rows], alone, np.arange(30), folds))


def test_more_features_than_rank_and_constant_ones_do_no_harm():
    X, goal, rows = make_task("classes")
    folds = split(goal, rows, None, 5, 0)
    plain = probe(X, goal, rows, folds)
    assert np.allclose(probe(np.tile(X, (1, 40)), goal, rows, folds), plain, atol=1e-4)
    assert np.isfinite(probe(np.zeros_like(X), goal, rows, folds)).all()


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("kind", ["number", "numbers"])
def test_the_unit_of_a_target_does_not_matter(kind, factor):
    X, goal, rows = make_task(kind)
    other, _ = read_goal(goal.values * factor + 3 * factor, "regression")
    folds = split(goal, rows, None, 5, 0)
    assert probe(X, other, rows, folds)[0] == pytest.approx(probe(X, goal, rows, folds)[0])
    assert logme(X, other, rows) == pytest.approx(logme(X, goal, rows), abs=1e-5)


def test_the_mean_of_gains_is_the_metric():
    rng = np.random.default_rng(0)
    for kind in ("number", "numbers"):
        _, goal, rows = make_task(kind)
        guess = goal.values + rng.normal(size=goal.values.shape)
        assert goal.gains(guess, rows).mean() == pytest.approx(r2_score(goal.values, guess))
    _, goal, rows = make_task("classes")
    guess = rng.normal(size=goal.values.shape)
    assert goal.gains(guess, rows).mean() == np.mean(guess.argmax(axis=1) == goal.strata)
    _, goal, rows = make_task("labels")
    for guess in (rng.normal(size=goal.values.shape), rng.integers(0, 2, goal.values.shape)):  # the second with ties
        expected = label_ranking_average_precision_score(goal.values, guess)
        assert goal.gains(guess.astype(float), rows).mean() == pytest.approx(expected)


def test_a_part_of_the_images_may_have_one_value_of_the_target():
    goal, _ = read_goal(np.array([[0.0, 5.5], [0.0, 6.5], [0.0, 7.5], [1.0, 8.5], [2.0, 1.5]]))
    gains = goal.gains(goal.values[:3] + 0.1, np.arange(3))
    assert (gains > 0.8).all()
    assert (gains < 1).all()


@pytest.mark.parametrize(("right", "n"), [(0, 4), (4, 4), (1, 30), (29, 30), (90, 100), (499, 500)])
def test_an_accuracy_has_wilsons_interval(right, n):
    goal, _ = read_goal(["ant", "bee"] * (n // 2))
    found = score(goal, np.repeat([1.0, 0.0], [right, n - right]))
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-5)
    assert found.value == right / n


def test_groups_widen_the_interval_as_if_each_were_asked_once():
    goal, _ = read_goal(["ant", "bee"] * 20)
    gains = np.repeat([1.0, 0.0], [30, 10])
    grouped, apart = score(goal, gains, np.arange(40) // 2), score(goal, gains[::2])
    assert grouped == pytest.approx(apart)
    all_right = score(goal, np.ones(40), np.arange(40) // 2)
    assert all_right.low == pytest.approx(binomtest(20, 20).proportion_ci(method="wilson").low, abs=2e-5)


def test_the_standard_error_of_groups_agrees_with_the_bootstrap():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 60, 240)
    values = rng.normal(size=60)[groups] + rng.normal(size=240)
    of_groups = [values[groups == g] for g in np.unique(groups)]
    means = []
    for _ in range(2000):
        drawn = rng.integers(0, len(of_groups), len(of_groups))
        means.append(np.concatenate([of_groups[g] for g in drawn]).mean())
    assert standard_error(values, groups) == pytest.approx(np.std(means), rel=0.08)
    assert standard_error(values, groups) > 1.5 * standard_error(values)
    assert standard_error(values) == pytest.approx(values.std() / 240**0.5)


@pytest.mark.parametrize(("n", "width"), [(40, 6), (20, 60)], ids=["narrow", "wide"])
@pytest.mark.parametrize("noise", [0.1, 1.0])
def test_logme_is_the_largest_evidence(n, width, noise):
    rng = np.random.default_rng(1)
    X = standardize(rng.normal(size=(n, width)).astype(np.float32))
    goal, rows = read_goal(X[:, :4] @ np.ones(4) + noise * rng.normal(size=n))
    contrasts = np.linalg.svd(np.eye(n) - 1 / n)[0][:, :-1]  # the space that centring leaves
    y = contrasts.T @ goal.values[:, 0]
    kernel = contrasts.T @ X.astype(float) @ X.T @ contrasts

    def minus_evidence(logs):
        covariance = np.exp(logs[0]) * kernel + np.exp(logs[1]) * np.eye(n - 1)
        _, log_volume = np.linalg.slogdet(2 * np.pi * covariance)
        return (log_volume + y @ np.linalg.solve(covariance, y)) / 2 / (n - 1)

    best = min(minimize(minus_evidence, start, method="Nelder-Mead").fun for start in ([-2, -2], [0, 0], [-4, 0]))
    assert logme(X, goal, rows) == pytest.approx(-best, abs=1e-3)


def test_logme_of_classes_is_the_mean_over_them_and_forgets_those_that_do_not_occur():
    X, goal, rows = make_task("classes")
    single = [logme(X, read_goal(goal.values[:, k] + 0.0, "regression")[0], rows) for k in range(3)]
    spread = np.log(goal.values.std(axis=0))  # a regression is fitted with variance 1
    assert logme(X, goal, rows) == pytest.approx(np.mean(single - spread), abs=1e-3)
    two = rows[goal.strata[rows] < 2]
    assert logme(X[two], goal, two) == pytest.approx(
        logme(X[two], read_goal(goal.strata[two].astype(str))[0], np.arange(len(two)))
    )


def test_standardize():
    X = np.array([[1, 5, 1e-6, 1e6], [2, 5, 2e-6, 1e6], [3, 5, 3e-6, 1e6 + 0.0625]], np.float32)
    out = standardize(X)
    assert out.dtype == np.float32
    assert out[:, 0] == pytest.approx([-1.2247, 0, 1.2247], abs=1e-3)
    assert out[:, 2] == pytest.approx(out[:, 0], abs=1e-3)  # small beside others, and no less a feature
    assert not out[:, [1, 3]].any()  # constant, and nearly so


def test_folds_of_classes_are_stratified_and_cover_all_once():
    goal, rows = read_goal(np.repeat(["ant", "bee"], [40, 20]))
    folds = split(goal, rows, None, 5, 0)
    assert sorted(np.concatenate(folds)) == list(range(60))
    assert [np.bincount(goal.strata[fold]).tolist() for fold in folds] == [[8, 4]] * 5
    expected = [out for _, out in StratifiedKFold(5, shuffle=True, random_state=0).split(rows, goal.strata)]
    assert all(np.array_equal(one, other) for one, other in zip(folds, expected, strict=True))


def test_a_rare_class_does_not_take_folds_from_the_others():
    goal, rows = read_goal(np.repeat(["ant", "bee"], [40, 2]))
    folds = split(goal, rows, None, 5, 0)
    assert len(folds) == 5
    assert max(np.count_nonzero(goal.strata[fold]) for fold in folds) == 1


@pytest.mark.parametrize("y", [["a", "b", "a", "b"], [1.5, 2.5, 3.5, 4.5]])
def test_four_images_make_as_many_folds_as_they_can(y):
    goal, rows = read_goal(y)
    folds = split(goal, rows, None, 5, 0)
    assert len(folds) == (2 if goal.names else 4)
    assert sorted(np.concatenate(folds)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["classes", "number"])
@pytest.mark.parametrize("n_groups", [2, 3, 30])
def test_a_group_is_on_one_side(kind, n_groups):
    _, goal, rows = make_task(kind)
    groups = np.random.default_rng(0).integers(0, n_groups, len(rows))
    folds = split(goal, rows, groups, 5, 0)
    assert len(folds) == min(5, n_groups)
    assert sorted(np.concatenate(folds)) == list(range(len(rows)))
    for fold in folds:
        assert not set(groups[fold]) & set(groups[np.setdiff1d(rows, fold)])


def test_folds_of_numbers_are_those_of_k_fold():
    _, goal, rows = make_task("number")
    expected = [out for _, out in KFold(5, shuffle=True, random_state=7).split(rows)]
    assert all(np.array_equal(a, b) for a, b in zip(split(goal, rows, None, 5, 7), expected, strict=True))


def test_a_thousand_classes_of_two_images():
    X, y = make_blobs([2] * 1000, 64, cluster_std=1.0, center_box=(-10, 10), random_state=0)
    goal, rows = read_goal(y)
    assert goal.describe() == "1000 classes"
    gains, _ = probe(standardize(X.astype(np.float32)), goal, rows, split(goal, rows, None, 5, 0))
    assert gains.mean() > 0.9
