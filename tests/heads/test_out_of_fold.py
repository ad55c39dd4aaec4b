import numpy as np
import pytest

from featx.heads import LogisticRegressionPath, correct_for_choice


def test_a_single_candidate_needs_no_correction():
    assert correct_for_choice(np.zeros((10, 1)), np.ones((10, 1))) == 0


def test_the_best_of_many_guesses_is_corrected_to_a_guess():
    best, corrected = [], []
    for seed in range(30):
        right = np.random.default_rng(seed).integers(0, 2, (40, 16))
        best.append(right.mean(axis=0).max())
        corrected.append(best[-1] - correct_for_choice(1 - right, right))
    assert np.mean(best) > 0.62
    assert np.mean(corrected) == pytest.approx(0.5, abs=0.03)


def test_rows_of_a_group_are_drawn_together():
    right = np.repeat(np.random.default_rng(0).integers(0, 2, (20, 8)), 5, axis=0)
    alone = correct_for_choice(1 - right, right)
    assert correct_for_choice(1 - right, right, np.repeat(np.arange(20), 5)) > alone


def test_few_images_and_many_penalties_are_not_scored_too_well():
    # labels without any relation to the features: every honest estimate is one half
    values = []
    for seed in range(25):
        rng = np.random.default_rng(seed)
        X, y = rng.normal(size=(24, 60)), np.arange(24) % 2
        found = LogisticRegressionPath(np.logspace(-4, 2, 25)).fit(X, y).out_of_fold_
        right = found.candidates == found.y[:, None]
        chosen = found.losses.mean(axis=0).argmin()
        values.append(right[:, chosen].mean() - correct_for_choice(found.losses, right))
    assert np.mean(values) < 0.5 + 2 * np.std(values) / 5
