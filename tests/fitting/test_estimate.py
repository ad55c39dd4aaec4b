"""Folds of the estimate, and its corrections."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, ShuffleSplit

import featx
from featx._events import Events
from featx.errors import InputError
from featx.fitting import estimate, inputs
from featx.fitting.estimate import estimate_head
from featx.heads import OutOfFold, make_head
from featx.reporting.metrics import score
from featx.selection.folds import join_groups
from featx.sources import Listing
from tests.fitting.fitting_tools import X, Y


def test_groups_are_never_divided(features, monkeypatch):
    groups = np.arange(27) // 3
    seen = []
    original = estimate.divide
    monkeypatch.setattr(estimate, "divide", lambda *a: seen.append(original(*a)) or seen[-1])
    found = estimate_head(
        lambda cv: make_head("knn"), features, Y, "classification", groups=groups, cv=3, events=Events()
    )
    assert "3 folds, groups on one side" in found.score.how
    for fitted_on, out in seen[0][0]:
        assert not set(groups[fitted_on]) & set(groups[out])


def test_groups_join_near_duplicates():
    joined = join_groups(np.array([0, 1, 1, 2, 3]), np.array(["a", "a", "b", "c", "c"]))
    assert joined.tolist() == [0, 0, 0, 1, 1]


def test_groups_that_are_classes_are_refused(extractor):
    with pytest.raises(InputError, match="groups: 3 groups cannot be divided into 5 folds"):
        featx.fit(X, Y, head="knn", groups=Y, extractor=extractor)
    assert featx.fit(X, Y, head="knn", groups=Y, extractor=extractor, estimate=False).score is None


def test_the_folds_that_choose_a_penalty_keep_groups_together_without_an_estimate():
    rng = np.random.default_rng(0)
    groups = np.arange(120) // 2
    y = np.where(groups % 2, "ant", "bee")
    vectors = rng.normal(size=(60, 40)).astype(np.float32)[groups]  # a group is an image and its copy
    apart, together = (
        estimate.fit_head(make_head(), vectors, y, "classification", groups=each, events=Events())[-1]
        for each in (None, groups)
    )
    assert together.C_ < apart.C_
    found = together.out_of_fold_
    assert all(len(set(found.folds[groups[found.rows] == group])) == 1 for group in range(60))
    assert together.cv == 5


def test_the_folds_that_calibrate_keep_groups_together():
    groups = np.arange(120) // 2
    y = np.where(groups % 2, "ant", "bee")
    vectors = np.random.default_rng(0).normal(size=(60, 40)).astype(np.float32)[groups]
    apart, together = (
        estimate.fit_head(make_head("knn"), vectors, y, "classification", groups=each, events=Events())[-1]
        for each in (None, groups)
    )
    assert together.temperature_ > 2 * apart.temperature_  # copies foresee each other
    assert together.cv == 5
    found = [
        estimate_head(
            lambda cv: make_head("knn", cv=cv), vectors, y, "classification", groups=each, cv=4, events=Events()
        ).out_of_fold.probabilities.max(axis=1)
        for each in (None, groups)
    ]
    assert found[1].mean() < found[0].mean() - 0.1


def test_groups_that_are_classes_still_choose_a_penalty_without_an_estimate():
    vectors = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    y = np.arange(60) % 2
    head = estimate.fit_head(make_head(), vectors, y, "classification", groups=y, events=Events())
    assert len(head[-1].out_of_fold_.rows) == 60


@pytest.mark.parametrize(
    ("cv", "how"), [(3, "3 folds"), (ShuffleSplit(2, test_size=0.3, random_state=0), "2 folds"), ([], None)]
)
def test_cv_is_a_number_or_a_splitter(features, cv, how):
    if how is None:
        cv, how = [(np.arange(0, 27, 2), np.arange(1, 27, 2))], "1 folds"
    found = estimate_head(lambda cv: make_head("knn"), features, Y, "classification", cv=cv, events=Events())
    assert found.score.how == f"left-out images, {how}"


def test_a_splitter_gets_the_groups(shallow):
    result = featx.fit(X, Y, head="knn", groups=np.arange(27) // 3, cv=GroupKFold(3), extractor=shallow)
    assert "3 folds, groups on one side" in result.score.how
    with pytest.raises(InputError, match="cannot divide 27 rows"):
        featx.fit(X, Y, head="knn", cv=GroupKFold(3), extractor=shallow)


@pytest.mark.parametrize(("cv", "said"), [(1, "cv=1"), (object(), "cv="), (True, "cv=True")])
def test_a_wrong_cv_is_named(shallow, cv, said):
    with pytest.raises(InputError, match=said):
        featx.fit(X, Y, cv=cv, extractor=shallow)


def test_groups_of_another_length_are_refused(shallow):
    with pytest.raises(InputError, match="groups: of shape"):
        featx.fit(X, Y, groups=[1, 2], extractor=shallow)


def test_a_column_of_a_table_groups(photos, monkeypatch, shallow):
    paths = sorted(map(str, photos.rglob("*.png")))
    groups = [str(i // 3) for i in range(27)]
    listing = Listing(paths, paths, [path.split("/")[-2] for path in paths], "path", "label", (), {"patient": groups})
    monkeypatch.setattr(inputs, "list_images", lambda *_, **__: listing)
    result = featx.fit("t.csv", head="knn", cv=3, groups="patient", extractor=shallow)
    assert "groups on one side" in result.score.how
    with pytest.raises(InputError, match=r"groups='doctor'.* patient"):
        featx.fit("t.csv", head="knn", groups="doctor", extractor=shallow)


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_every_metric_is_corrected_for_the_choice_of_a_penalty(task):
    rng = np.random.default_rng(0)
    is_class = task == "classification"
    y = rng.integers(0, 2, 60) if is_class else rng.uniform(1, 2, 60)
    guesses = rng.integers(0, 2, (60, 20)) if is_class else rng.uniform(1, 2, (60, 20))
    losses = np.abs(guesses - y[:, None])
    best = guesses[:, losses.mean(axis=0).argmin()]
    classes = np.arange(2) if is_class else None
    found = OutOfFold(np.arange(60), np.zeros(60, int), y, best, classes, None, guesses, losses)
    plain = score("guesses", y, best, task)
    corrected = estimate._correct(plain, found, None)
    assert corrected.value == corrected.values[plain.metric]
    assert corrected.high - corrected.low == pytest.approx(plain.high - plain.low)
    for name, value in plain.values.items():
        assert (corrected.values[name] > value) == (name in ("mae", "mape"))
        assert corrected.values[name] != value
