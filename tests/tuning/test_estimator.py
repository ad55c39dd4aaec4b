"""FineTuned, the scikit-learn estimator."""

import pickle

import numpy as np
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import cross_val_score

import featx
from featx.errors import InputError
from featx.samples import load_fashion_mnist
from featx.tuning import strategy as strategy_module
from featx.tuning.race import Race

IMAGES, LABELS = load_fashion_mnist("test")
ROWS = [i for name in ("bag", "coat", "sandal") for i in np.flatnonzero(name == LABELS)[:10]]
X, Y = [IMAGES[i] for i in ROWS], LABELS[ROWS]
QUICK = {"depth": "stage4", "epochs": 1, "alpha": 0.5, "views": 2, "cv": 2}


@pytest.fixture(autouse=True)
def _own_backbones(tmp_path_factory, monkeypatch):
    """Keep the tuned networks of loaded files out of the user's folder, where each search would find them."""
    monkeypatch.setenv("FEATX_BACKBONES", str(tmp_path_factory.mktemp("own")))


@pytest.fixture
def _always_tuned(monkeypatch):
    monkeypatch.setattr(Race, "_is_as_good", lambda race, candidate, best: bool(candidate.depth))


def test_it_is_a_classifier_or_a_regressor():
    assert is_classifier(featx.FineTuned())
    assert not is_regressor(featx.FineTuned())
    assert is_regressor(featx.FineTuned(task="regression"))
    assert not hasattr(featx.FineTuned(task="regression"), "predict_proba")


def test_it_clones_and_keeps_its_arguments():
    made = featx.FineTuned(featx.FeatureExtractor(crop="whole"), depth="stage4", random_state=3)
    assert clone(made).get_params()["extractor__crop"] == "whole"
    assert clone(made).random_state == 3


@pytest.mark.parametrize("wrong", [{"task": "ranking"}, {"cv": 1}, {"alpha": 2}])
def test_wrong_arguments_are_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        featx.FineTuned(**wrong).fit(X, Y)


def test_labels_of_another_length_are_refused():
    with pytest.raises(InputError, match="one label or number for each of 30 images"):
        featx.FineTuned().fit(X, Y[:-1])


@pytest.mark.parametrize(
    ("task", "change", "reason"),
    [
        ("classification", np.nan, "missing"),
        ("classification", 3.0, "single example each"),
        ("regression", np.nan, "finite"),
    ],
)
def test_targets_that_leave_no_fold_are_refused(task, change, reason):
    y = np.arange(30.0)
    y[3] = change
    with pytest.raises(InputError, match=reason):
        featx.FineTuned(task=task).fit(X, y)


@pytest.mark.heavy
def test_a_network_that_is_not_better_stays_frozen_and_is_that_of_fit():
    easy = [i for name in ("bag", "sandal") for i in np.flatnonzero(name == LABELS)[:8]]
    images, labels = [IMAGES[i] for i in easy], LABELS[easy]
    found = featx.FineTuned(**QUICK | {"cv": 4}).fit(images, labels)
    assert found.strategy_.chosen is None
    fitted = featx.fit(images, labels, cv=4).pipeline
    assert np.array_equal(found.predict_proba(images), fitted.predict_proba(images))


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_a_tuned_network_is_a_plain_pipeline_which_can_be_saved_and_pickled(tmp_path):
    found = featx.FineTuned(**QUICK).fit(X, Y)
    assert found.strategy_.chosen.depth == "stage4"
    assert type(found.pipeline_[-1]).__name__ == "LogisticRegression"
    assert found.score(X, Y) > 0.8
    frozen = featx.FeatureExtractor().transform(X)
    assert np.abs(found.pipeline_[0].transform(X) - frozen).max() > 1e-3

    expected = found.predict_proba(X)
    assert np.array_equal(pickle.loads(pickle.dumps(found)).predict_proba(X), expected)
    featx.save(found.pipeline_, tmp_path / "tuned.featx")
    found.pipeline_[0].backbone = "gone"
    assert np.array_equal(featx.load(tmp_path / "tuned.featx").predict_proba(X), expected)


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_cross_val_score_tunes_in_each_fold(monkeypatch):
    seen = []
    train = strategy_module.tune_tail

    def watch(*arguments, **options):
        seen.append(len(arguments[3]))
        return train(*arguments, **options)

    monkeypatch.setattr(strategy_module, "tune_tail", watch)
    scores = cross_val_score(featx.FineTuned(**QUICK), X, Y, cv=2)
    assert len(scores) == 2
    assert seen == [15] * 6  # in each of 2 folds, on 15 images: 2 folds that choose, and all


@pytest.mark.heavy
@pytest.mark.usefixtures("_always_tuned")
def test_numbers():
    numbers = np.array([np.mean(np.frombuffer(image, np.uint8)) for image in X])
    found = featx.FineTuned(task="regression", **QUICK).fit(X, numbers)
    assert np.isfinite(found.predict(X)).all()
    assert type(found.pipeline_[-1]).__name__ == "Ridge"
