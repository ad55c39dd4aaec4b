"""The choice between the frozen network and tuned ones, on predictions that the tests make."""

from dataclasses import replace

import numpy as np
import pytest

from featx.tuning.race import Race
from tests.tuning.race_tools import CODES, N, Y, make_problem, make_scores


def make_race(signal=1.0, groups=None, n_folds=2):
    return Race(make_problem(signal, groups), n_folds)


def test_a_better_network_is_chosen_and_the_numbers_are_those_of_the_left_out_images():
    race = make_race()
    assert race.add(("stage4", 8), (0.5,), make_scores(2.0)[None])
    found = race.decide((), 1.0)
    assert (found.chosen.depth, found.chosen.epochs, found.chosen.alpha) == ("stage4", 8, 0.5)
    right = np.unique(Y)[make_scores(2.0).argmax(axis=1)] == Y
    assert found.chosen.score == pytest.approx(right.mean())
    assert found.score_difference == pytest.approx(right.mean() - found.frozen_score)
    assert found.chosen.difference == pytest.approx(found.frozen_loss - found.chosen.loss)
    assert found.chosen.difference > found.chosen.error > 0
    assert np.array_equal(found.out_of_fold.predicted == Y, right)
    assert found.out_of_fold.candidates.shape == (N, 2)


@pytest.mark.parametrize("signal", [0.2, 1.0])
def test_a_worse_network_and_the_same_network_leave_it_frozen(signal):
    race = make_race()
    assert not race.add(("stage4", 8), (1.0,), make_scores(signal)[None])
    found = race.decide((), 1.0)
    assert found.chosen is None
    assert found.best.alpha == 1.0
    assert found.out_of_fold.predicted.tolist() == race.candidates[0].predicted.tolist()
    assert "tuning does not pay" in str(found)


def find_slightly_better(race, signal):
    """Return scores whose mean loss is below the best of a race, by less than a standard error of the difference."""
    for seed in range(1, 100):
        scores = make_scores(signal, seed)
        losses = race._judge("other", 8, 1.0, scores).losses
        difference, error = race._compare(race.best.losses, losses)
        if 0 < difference < 0.9 * error:
            return scores
    raise AssertionError("no seed gives such scores")


def test_a_gain_within_a_standard_error_is_a_tie_and_goes_to_the_frozen_network():
    race = make_race()
    race.add(("stage4", 8), (1.0,), find_slightly_better(race, 1.0)[None])
    found = race.decide((), 1.0)
    assert 0 < found.trials[0].difference < found.trials[0].error
    assert found.chosen is None


@pytest.mark.parametrize("epochs", [8, 16])
def test_of_two_that_are_as_good_the_shorter_training_is_chosen_and_of_one_training_the_smaller_loss(epochs):
    race = make_race()
    first = make_scores(2.0, seed=1)
    race.add(("stage4", 8), (0.25,), first[None])
    second = find_slightly_better(race, 2.0)
    race.add(("stage4", epochs), (1.0,), second[None])
    one, two = race.decide((), 1.0).trials
    assert one.loss > two.loss
    assert race.decide((), 1.0).chosen == (two if epochs == 8 else one)


def test_overconfident_scores_are_calibrated():
    race = make_race()
    race.add(("stage4", 8), (0.5,), 20 * make_scores(2.0)[None])
    plain = make_race()
    plain.add(("stage4", 8), (0.5,), make_scores(2.0)[None])
    assert race.decide((), 0.0).chosen.loss == pytest.approx(plain.decide((), 0.0).chosen.loss, rel=1e-3)
    assert race.decide((), 0.0).sharpness == pytest.approx(plain.decide((), 0.0).sharpness / 20, rel=1e-2)


def test_images_of_a_group_are_one_draw():
    def measure(groups):
        race = make_race(groups=groups)
        race.add(("stage4", 8), (0.5,), make_scores(2.0)[None])
        return race.decide((), 0.0).trials[0].error

    together = np.argsort(np.argsort(make_scores(2.0)[np.arange(N), CODES])) // 10  # alike in their losses
    assert measure(together) > 1.5 * measure(None)


def test_a_race_on_some_folds_takes_their_images_alone():
    race = make_race(n_folds=1)
    race.add(("stage4", 8), (0.5,), make_scores(2.0)[None, : N // 2])
    assert len(race.decide((), 0.0).out_of_fold.rows) == N // 2


def test_the_trial_that_is_shown_was_measured_on_all_folds():
    few, race = make_race(n_folds=1), make_race()
    few.add(("block1", 1), (1.0,), make_scores(1.0)[None, : N // 2])
    race.add(("block3", 1), (1.0,), make_scores(0.2)[None])
    tried = [replace(each, loss=0.0) for each in few.list_trials()]
    strategy = race.decide(tried, 1.0)
    assert strategy.chosen is None
    assert len(strategy.trials) == 2
    assert strategy.best.depth == "block3"
