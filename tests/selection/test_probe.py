"""The probe and its scores against scikit-learn and SciPy, on awkward numbers too."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.datasets import make_blobs
from sklearn.linear_model import Ridge
from sklearn.metrics import label_ranking_average_precision_score, r2_score

from featx.selection.probe import _PENALTIES, balance, probe, score, standard_error, standardize
from featx.selection.target import EncodedTarget, encode_target
from tests.selection.selection_tools import make_task, split


@pytest.mark.parametrize("width", [7, 300], ids=["narrow", "wide"])
@pytest.mark.parametrize("kind", ["classes", "number", "numbers", "labels"])
def test_it_is_ridge_regression_with_an_intercept(kind, width):
    X, target, rows = make_task(kind, width=width)
    folds = split(target, None, 5, 3)
    predicted = np.empty((len(_PENALTIES), *target.values.shape))
    for i, penalty in enumerate(_PENALTIES):
        for out in folds:
            kept = np.setdiff1d(rows, out)
            ridge = Ridge(alpha=penalty * width).fit(X[kept].astype(float), target.values[kept])
            predicted[i, out] = ridge.predict(X[out].astype(float)).reshape(len(out), -1)
    best = predicted[((predicted - target.values) ** 2).mean(axis=(1, 2)).argmin()]
    gains, losses = probe(X, target, rows, folds)
    assert gains == pytest.approx(target.score_images(best, rows), abs=1e-4)
    assert losses == pytest.approx(((best - target.values) ** 2).mean(axis=1), rel=1e-3, abs=1e-4)


def test_weights_make_classes_count_alike():
    strata = np.repeat([0, 1, 2], [60, 20, 10])
    weights = balance(strata)
    assert np.bincount(strata, weights=weights) == pytest.approx([30, 30, 30])
    assert balance(np.repeat([0, 1, 2], [60, 20, 21])) is not None
    assert balance(np.repeat([0, 1, 2], [59, 20, 21])) is None
    assert balance(np.array([0, 0, 2])) is None  # a class without images does not count


def test_weighted_it_is_weighted_ridge_regression():
    X, target, rows = make_task("classes", width=40)
    weights = np.random.default_rng(0).uniform(0.2, 3, len(rows))
    weights /= weights.mean()
    folds = split(target, None, 5, 0)
    losses = []
    for penalty in _PENALTIES:
        predicted = np.empty(target.values.shape)
        for out in folds:
            kept = np.setdiff1d(rows, out)
            scale = weights[kept].sum() / len(kept)
            ridge = Ridge(alpha=penalty * 40 * scale).fit(X[kept].astype(float), target.values[kept], weights[kept])
            predicted[out] = ridge.predict(X[out].astype(float))
        losses.append(((predicted - target.values) ** 2).mean(axis=1))
    expected = min(losses, key=lambda values: values @ weights)
    assert probe(X, target, rows, folds, weights)[1] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_some_rows_are_probed_as_if_there_were_no_others():
    X, target, _ = make_task("number")
    rows = np.arange(5, 65, 2)
    alone = EncodedTarget("regression", target.values[rows], np.zeros(30, int), [])
    folds = split(alone, None, 5, 0)
    assert np.array_equal(probe(X[rows], target, rows, folds), probe(X[rows], alone, np.arange(30), folds))


def test_more_features_than_rank_and_constant_ones_do_no_harm():
    X, target, rows = make_task("classes")
    folds = split(target, None, 5, 0)
    plain = probe(X, target, rows, folds)
    assert np.allclose(probe(np.tile(X, (1, 40)), target, rows, folds), plain, atol=1e-4)
    assert np.isfinite(probe(np.zeros_like(X), target, rows, folds)).all()


@pytest.mark.parametrize("factor", [1e-12, 1.0, 1e12])
@pytest.mark.parametrize("kind", ["number", "numbers"])
def test_the_unit_of_a_target_does_not_matter(kind, factor):
    X, target, rows = make_task(kind)
    other, _ = encode_target(target.values * factor + 3 * factor, "regression")
    folds = split(target, None, 5, 0)
    assert probe(X, other, rows, folds)[0] == pytest.approx(probe(X, target, rows, folds)[0])


def test_the_mean_of_gains_is_the_metric():
    rng = np.random.default_rng(0)
    for kind in ("number", "numbers"):
        _, target, rows = make_task(kind)
        guess = target.values + rng.normal(size=target.values.shape)
        assert target.score_images(guess, rows).mean() == pytest.approx(r2_score(target.values, guess))
    _, target, rows = make_task("classes")
    guess = rng.normal(size=target.values.shape)
    assert target.score_images(guess, rows).mean() == np.mean(guess.argmax(axis=1) == target.strata)
    _, target, rows = make_task("labels")
    for guess in (
        rng.normal(size=target.values.shape),
        rng.integers(0, 2, target.values.shape),
    ):  # the second with ties
        expected = label_ranking_average_precision_score(target.values, guess)
        assert target.score_images(guess.astype(float), rows).mean() == pytest.approx(expected)


def test_a_part_of_the_images_may_have_one_value_of_the_target():
    target, _ = encode_target(np.array([[0.0, 5.5], [0.0, 6.5], [0.0, 7.5], [1.0, 8.5], [2.0, 1.5]]))
    gains = target.score_images(target.values[:3] + 0.1, np.arange(3))
    assert (gains > 0.8).all()
    assert (gains < 1).all()


@pytest.mark.parametrize(("right", "n"), [(0, 4), (4, 4), (1, 30), (29, 30), (90, 100), (499, 500)])
def test_an_accuracy_has_wilsons_interval(right, n):
    target, _ = encode_target(["ant", "bee"] * (n // 2))
    found = score(target, np.repeat([1.0, 0.0], [right, n - right]))
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=2e-5)
    assert found.value == right / n


def test_groups_widen_the_interval_as_if_each_were_asked_once():
    target, _ = encode_target(["ant", "bee"] * 20)
    gains = np.repeat([1.0, 0.0], [30, 10])
    grouped, apart = score(target, gains, np.arange(40) // 2), score(target, gains[::2])
    assert grouped == pytest.approx(apart)
    all_right = score(target, np.ones(40), np.arange(40) // 2)
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


def test_standardize():
    X = np.array([[1, 5, 1e-6, 1e6], [2, 5, 2e-6, 1e6], [3, 5, 3e-6, 1e6 + 0.0625]], np.float32)
    out = standardize(X)
    assert out.dtype == np.float32
    assert out[:, 0] == pytest.approx([-1.2247, 0, 1.2247], abs=1e-3)
    assert out[:, 2] == pytest.approx(out[:, 0], abs=1e-3)  # small beside others, and no less a feature
    assert not out[:, [1, 3]].any()  # constant, and nearly so


def test_a_thousand_classes_of_two_images():
    X, y = make_blobs([2] * 1000, 64, cluster_std=1.0, center_box=(-10, 10), random_state=0)
    target, rows = encode_target(y)
    assert target.describe() == "1000 classes"
    gains, _ = probe(standardize(X.astype(np.float32)), target, rows, split(target, None, 5, 0))
    assert gains.mean() > 0.9
