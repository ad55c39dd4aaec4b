"""The choice between the frozen network and tuned ones, on predictions that the tests make."""

import numpy as np
import pytest

from featx._events import Events
from featx.errors import InputError
from featx.heads import OutOfFold
from featx.tuning import strategy as strategy_module
from featx.tuning.strategy import Problem, TuningSettings, _deepen, _Measured, _Race, choose_strategy, keep_activations

N = 200
RNG = np.random.default_rng(0)
CODES = RNG.integers(0, 3, N)
Y = np.array(["ant", "bee", "cat"])[CODES]


def make_scores(signal, seed=0):
    """Return logits that know the class as well as the signal says."""
    noise = np.random.default_rng(seed).normal(size=(N, 3))
    noise[np.arange(N), CODES] += signal
    return noise.astype(np.float32)


def make_problem(signal=1.0, groups=None):
    scores = make_scores(signal)
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    rows = np.arange(N)
    folds = [(rows[N // 2 :], rows[: N // 2]), (rows[: N // 2], rows[N // 2 :])]
    predicted = np.unique(Y)[scores.argmax(axis=1)]
    frozen = OutOfFold(
        rows, rows // (N // 2), Y, predicted, np.unique(Y), probabilities, CODES[:, None], np.zeros((N, 1))
    )
    return Problem(list(rows), Y, "classification", None, folds, frozen, groups)


def make_race(signal=1.0, groups=None, n_folds=2):
    return _Race(make_problem(signal, groups), n_folds)


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


@pytest.mark.parametrize(
    ("trial", "alpha", "depths", "expected"),
    [
        (("b5", 8), 1.0, ["b4"], ("b5", 16)),
        (("b5", 16), 1.0, ["b4"], ("b4", 16)),
        (("b5", 8), 0.75, ["b4"], None),
        (("b5", 16), 1.0, [], None),
    ],
)
def test_more_is_tried_only_after_the_whole_way(trial, alpha, depths, expected):
    assert _deepen(trial, alpha, list(depths), TuningSettings(), 999, True) == expected


@pytest.mark.parametrize(
    ("is_first", "depths", "expected"), [(True, ["b4"], ("b4", 8)), (False, ["b4"], None), (True, [], None)]
)
def test_many_left_out_images_allow_one_deeper_layer_in_any_case(is_first, depths, expected):
    assert _deepen(("b5", 8), 0.75, depths, TuningSettings(), 1000, is_first) == expected


@pytest.mark.parametrize(("enough", "n_rows"), [(1000, N), (N // 2, N // 2)])
def test_folds_that_leave_out_enough_images_spare_the_others(monkeypatch, enough, n_rows):
    calls = []

    def predict(problem, numbers, *rest):
        calls.append(len(numbers))
        rows = np.concatenate([problem.folds[number][1] for number in numbers])
        scores = np.stack([make_scores(signal)[rows] for signal in (0.5, 2.0)])
        return _Measured(scores, np.stack([rows, 2 * rows])[..., None].astype(np.float32))

    monkeypatch.setattr(strategy_module, "_predict_folds", predict)
    monkeypatch.setattr(strategy_module, "find_depths", lambda *_: ["stage4"])
    monkeypatch.setattr(strategy_module, "_list_alphas", lambda _: (0.25, 0.5))
    monkeypatch.setattr(strategy_module, "_N_PROBE_FOLDS", 1)
    monkeypatch.setattr(strategy_module, "_ENOUGH", enough)
    found = choose_strategy(make_problem(), TuningSettings(), Events())
    assert (found.chosen.alpha, found.chosen.n_folds) == (0.5, n_rows // (N // 2))
    assert calls == [1] * found.chosen.n_folds
    assert found.features[:, 0].tolist() == [2 * row for row in found.out_of_fold.rows]


@pytest.mark.parametrize(("enough", "expected"), [(N // 4, [1]), (N // 4 + 1, [2])])
def test_one_fold_is_enough_if_it_leaves_out_many_images(monkeypatch, enough, expected):
    calls = []

    def predict(problem, numbers, *rest):
        calls.append(len(numbers))
        rows = np.concatenate([problem.folds[number][1] for number in numbers])
        return _Measured(make_scores(2.0)[None, rows], np.zeros((1, len(rows), 1), np.float32))

    monkeypatch.setattr(strategy_module, "_predict_folds", predict)
    monkeypatch.setattr(strategy_module, "find_depths", lambda *_: ["stage4"])
    monkeypatch.setattr(strategy_module, "_ENOUGH", enough)
    choose_strategy(make_problem(), TuningSettings(alpha=0.5), Events())
    assert calls == expected


def test_a_folder_for_the_activations_is_removed_unless_it_is_named(tmp_path):
    with keep_activations(TuningSettings(views=3)) as settings:
        assert settings.views == 3
        assert settings.folder.is_dir()
    assert not settings.folder.exists()
    with keep_activations(TuningSettings(folder=tmp_path)) as named:
        assert named.folder == tmp_path
    assert tmp_path.is_dir()


@pytest.mark.parametrize(
    "wrong",
    [
        {"alpha": 0},
        {"alpha": 1.5},
        {"epochs": 0},
        {"views": 0},
        {"views": 65},
        {"max_bytes": "2 GB"},
        {"random_state": -1},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        TuningSettings(**wrong)
