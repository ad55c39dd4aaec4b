"""Tests of the comparison of sets, on arrays."""

import numpy as np
import pytest

from featx.errors import InputError
from featx.guard import Guard
from featx.guard.shift import compare_answers, compare_outliers, compare_shares, fit_baseline, separate
from featx.heads import OutOfFold

CLASSES = np.array(["ant", "bee", "fly"])


def make(n, rng, shares=(1 / 3, 1 / 3, 1 / 3), move=0.0, noise=1.0):
    """Return features and classes of a mixture of three Gaussians, and probabilities of the best classifier."""
    codes = rng.choice(3, n, p=shares)
    means = 2.5 * np.eye(3, 12)
    X = means[codes] + noise * rng.normal(size=(n, 12)) + 8 + move * np.arange(12) / 12
    logits = (X - 8) @ means.T
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    return X, codes, probabilities / probabilities.sum(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def guard():
    X, codes, probabilities = make(300, np.random.default_rng(0))
    columns = codes[:, None], np.zeros((300, 1), np.float32)
    predicted = CLASSES[probabilities.argmax(axis=1)]
    rows = np.arange(300)
    found = Guard.fit(X, OutOfFold(rows, rows % 5, CLASSES[codes], predicted, CLASSES, probabilities, *columns))
    return Guard.from_arrays(found.to_arrays())


def test_sets_of_the_same_kind_are_seldom_shifted(guard) -> None:
    rng = np.random.default_rng(1)
    found = [guard.check_set(*make(60, rng)[::2]) for _ in range(40)]
    assert np.mean([one.p_value < 0.05 for one in found]) <= 0.05
    assert np.mean([one.p_shares < 0.05 for one in found]) <= 0.15


def test_moved_images_are_shifted_and_lower_the_expected_accuracy(guard) -> None:
    rng = np.random.default_rng(2)
    X, _, probabilities = make(80, rng, noise=2.5)
    found, same = guard.check_set(X, probabilities), guard.check_set(*make(80, rng)[::2])
    assert found.p_value < 1e-4
    assert found.p_images < found.p_answers.min()
    assert found.accuracy < same.accuracy - 0.02


def test_other_shares_are_found_while_the_images_look_the_same(guard) -> None:
    X, codes, probabilities = make(100, np.random.default_rng(3), shares=(0.8, 0.1, 0.1))
    found = guard.check_set(X, probabilities)
    assert found.p_shares < 1e-4
    assert np.abs(found.shares - np.bincount(codes) / 100).sum() < 0.15
    assert found.p_images > 0.01


def test_features_alone_are_compared_without_answers(guard) -> None:
    found = guard.check_set(make(60, np.random.default_rng(4), noise=3.0)[0])
    assert found.p_value == found.p_images < 1e-3
    assert found.accuracy is None
    assert found.shares is None


def test_the_check_of_images_gives_the_same_p_value(guard) -> None:
    X, _, probabilities = make(60, np.random.default_rng(5), noise=1.6)
    found, checked = guard.check_set(X, probabilities), guard.check(X, probabilities)
    assert guard.detect_shift(checked.outlier, probabilities) == found.p_value


def test_a_set_needs_images(guard) -> None:
    with pytest.raises(InputError, match="no images"):
        guard.check_set(np.empty((0, 12)), np.empty((0, 3)))


def test_numbers_are_compared_by_their_distribution() -> None:
    rng = np.random.default_rng(6)
    baseline = fit_baseline(rng.normal(size=400))
    assert compare_answers(baseline, rng.normal(size=100), 400).tolist() == [pytest.approx(1, abs=0.95)]
    assert compare_answers(baseline, rng.normal(2, size=100), 400)[0] < 1e-6


def test_small_differences_are_no_shift_however_many_images() -> None:
    uniform = np.linspace(0, 1, 50_001)[1:]
    assert compare_outliers(uniform**1.2, 50_000) > 0.9
    assert compare_outliers(uniform**2, 50_000) < 1e-6


def test_shares_of_a_small_fit_vary_as_well(guard) -> None:
    _, _, probabilities = make(100, np.random.default_rng(7), shares=(0.5, 0.25, 0.25))
    assert compare_shares(guard.priors, probabilities, 50)[1] > compare_shares(guard.priors, probabilities, 5000)[1]


def test_two_sets_of_one_kind_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(8)
    p_values = [separate(rng.normal(size=(60, 20)), rng.normal(size=(30, 20))).p_value for _ in range(15)]
    assert np.mean(np.array(p_values) < 0.05) <= 0.2


def test_the_odd_images_of_a_set_have_the_highest_scores() -> None:
    rng = np.random.default_rng(9)
    new = rng.normal(size=(40, 20))
    new[:15] += 1.5
    found = separate(rng.normal(size=(120, 20)), new)
    assert found.p_value < 0.05
    assert np.mean(np.argsort(-found.scores)[:10] < 15) >= 0.9
