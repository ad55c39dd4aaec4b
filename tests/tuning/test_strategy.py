"""Trials of tuned networks, on predictions that the tests make."""

import numpy as np
import pytest

from featx._events import Events
from featx.errors import InputError
from featx.tuning import strategy as strategy_module
from featx.tuning.strategy import TuningSettings, _deepen, _Measurement, choose_strategy, keep_activations
from tests.tuning.race_tools import N, make_problem, make_scores


@pytest.mark.parametrize(
    ("trial", "alpha", "depths", "expected"),
    [
        (("b5", 8), 1.0, ["b4"], ("b5", 16)),
        (("b5", 16), 1.0, ["b4"], ("b4", 16)),
        (("b5", 8), 0.75, ["b4"], None),
        (("b5", 16), 1.0, [], None),
    ],
)
def test_more_is_tried_only_if_alpha_1_is_best(trial, alpha, depths, expected):
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
        return _Measurement(scores, tuple(f"network {number}" for number in numbers))

    monkeypatch.setattr(strategy_module, "_predict_folds", predict)
    monkeypatch.setattr(strategy_module, "find_depths", lambda *_: ["stage4"])
    monkeypatch.setattr(strategy_module, "_list_alphas", lambda _: (0.25, 0.5))
    monkeypatch.setattr(strategy_module, "_N_PROBE_FOLDS", 1)
    monkeypatch.setattr(strategy_module, "_ENOUGH", enough)
    found, networks = choose_strategy(make_problem(), TuningSettings(), Events())
    assert (found.chosen.alpha, found.chosen.n_folds) == (0.5, n_rows // (N // 2))
    assert calls == [1] * found.chosen.n_folds
    assert networks == tuple(f"network {number}" for number in range(found.chosen.n_folds))


@pytest.mark.parametrize(("enough", "expected"), [(N // 4, [1]), (N // 4 + 1, [2])])
def test_one_fold_is_enough_if_it_leaves_out_many_images(monkeypatch, enough, expected):
    calls = []

    def predict(problem, numbers, *rest):
        calls.append(len(numbers))
        rows = np.concatenate([problem.folds[number][1] for number in numbers])
        return _Measurement(make_scores(2.0)[None, rows], ())

    monkeypatch.setattr(strategy_module, "_predict_folds", predict)
    monkeypatch.setattr(strategy_module, "find_depths", lambda *_: ["stage4"])
    monkeypatch.setattr(strategy_module, "_ENOUGH", enough)
    choose_strategy(make_problem(), TuningSettings(alpha=0.5), Events())
    assert calls == expected


def test_an_interruption_on_the_further_folds_lists_each_trial_once(monkeypatch):
    def predict(problem, numbers, trial, *rest):
        if 0 not in numbers:
            raise KeyboardInterrupt
        rows = np.concatenate([problem.folds[number][1] for number in numbers])
        return _Measurement(make_scores(trial[1] / 4)[None, rows], ())

    monkeypatch.setattr(strategy_module, "_predict_folds", predict)
    monkeypatch.setattr(strategy_module, "find_depths", lambda *_: ["stage4"])
    monkeypatch.setattr(strategy_module, "_note_cost", lambda *_: None)
    monkeypatch.setattr(strategy_module, "_N_PROBE_FOLDS", 1)
    found, _ = choose_strategy(make_problem(), TuningSettings(alpha=1.0, keep_on_interrupt=True), Events())
    assert [trial.epochs for trial in found.trials] == [6, 12]
    assert (found.chosen.epochs, found.chosen.n_folds) == (12, 1)


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
