"""The guard of a network that was tuned, and of other networks tuned in each fold."""

from functools import cache

import numpy as np
import pytest

from featx.errors import InputError
from featx.guard import FoldFeatures, Guard, fit_tuned
from tests.guard.guard_tools import WIDTH, answer, answer_numbers, draw

N, N_FOLDS = 200, 4
FOLDS = np.arange(N) % N_FOLDS


def embed(features, network, pull=0.0):
    """Return features by a network of its own, which draws its training images towards their mean by ``pull``."""
    own = np.eye(WIDTH) + 0.15 * np.random.default_rng(network).normal(size=(WIDTH, WIDTH))
    return ((features + pull * (features.mean(axis=0) - features)) @ own).astype(np.float32)


def embed_classes(features, codes, network):
    drawn = features.copy()
    for code in np.unique(codes):
        rows = codes == code
        drawn[rows] += 0.6 * (features[rows].mean(axis=0) - features[rows])
    return embed(drawn, network)


def make_folds(features, codes, n_folds=N_FOLDS):
    for fold in range(n_folds):
        rows, out = np.flatnonzero(fold != FOLDS), np.flatnonzero(fold == FOLDS)
        seen = embed_classes(features[rows], codes[rows], fold)
        yield FoldFeatures(rows, seen, out, embed(features[out], fold))


@cache
def fit(seed):
    features, codes = draw(N, seed=seed)
    found, final = answer(features, codes, n_folds=N_FOLDS), embed_classes(features, codes, 9)
    return fit_tuned(final, found.y, make_folds(features, codes), found), final


def test_p_values_of_new_images_are_uniform_though_the_network_knows_its_own():
    new = embed(draw(500, seed=99)[0], 9)
    p_values = np.concatenate([fit(seed)[0].check(new).outlier for seed in range(4)])
    assert (p_values < 0.1).mean() == pytest.approx(0.1, abs=0.03)
    assert p_values.mean() == pytest.approx(0.5, abs=0.04)
    seen = Guard.fit(fit(0)[1], answer(*draw(N), n_folds=N_FOLDS))  # the mistake that is avoided
    assert (seen.check(new).outlier < 0.1).mean() > 0.3


def test_other_images_are_outliers():
    foreign = np.random.default_rng(1).normal(size=(50, WIDTH)).astype(np.float32)
    assert fit(0)[0].check(embed(foreign, 9)).is_outlier.mean() > 0.9


def test_the_means_and_deviations_are_those_of_left_out_images():
    parts = [fold.left_out_features for fold in make_folds(*draw(N))]
    roots = [np.copysign(np.sqrt(np.abs(part)), part) for part in parts]
    mean, deviation = fit(0)[0].scaling.values
    assert np.allclose(mean, np.concatenate(roots).mean(axis=0), atol=1e-5)
    assert np.allclose(deviation**2, np.mean([each.var(axis=0) for each in roots], axis=0), atol=1e-5)


@pytest.mark.parametrize("n_folds", [1, 2])
def test_some_folds_are_enough(n_folds):
    features, codes = draw(N)
    found = answer(features, codes, n_folds=N_FOLDS)
    rows = np.flatnonzero(n_folds > FOLDS)
    part = type(found)(
        rows,
        found.folds[rows],
        found.y[rows],
        found.predicted[rows],
        found.classes,
        found.probabilities[rows],
        found.candidates[rows],
        found.losses[rows],
    )
    final = embed_classes(features, codes, 9)
    guard = fit_tuned(final, found.y, make_folds(features, codes, n_folds), part)
    assert guard.n_images == len(rows)
    with pytest.raises(InputError, match="do not leave out each row"):
        fit_tuned(final, found.y, make_folds(features, codes, n_folds), found)


def test_intervals_of_numbers_hold_the_truth():
    features, codes = draw(N + 300)
    predicted = features.sum(axis=1).astype(float)
    y = predicted + np.random.default_rng(0).normal(size=len(predicted)) * np.exp(features[:, 0] - 1)
    old, new = slice(N), slice(N, None)
    found = answer_numbers(features[old], y[old], predicted[old])
    final = embed_classes(features[old], codes[old], 9)
    guard = fit_tuned(final, y[old], make_folds(features[old], codes[old]), found)
    low, high = guard.check(embed(features[new], 9), predicted[new], coverage=0.9).intervals.T
    assert ((low <= y[new]) & (y[new] <= high)).mean() == pytest.approx(0.9, abs=0.05)
    assert np.ptp(high - low) > 0.5
