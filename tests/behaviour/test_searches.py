"""Searches, folds and workers: a candidate is scored by its own features, whatever is shared behind it."""

import joblib
import numpy as np
import pytest
import sklearn
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import FitFailedWarning
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    GridSearchCV,
    GroupKFold,
    HalvingGridSearchCV,
    KFold,
    RandomizedSearchCV,
    StratifiedKFold,
    cross_val_score,
    cross_validate,
)
from sklearn.pipeline import Pipeline

import featx
from featx.extractor import FeatureExtractor

CV = StratifiedKFold(2, shuffle=True, random_state=0)
SCORING = "neg_log_loss"  # tells candidates apart that get the same images right
OF_FEATURES = ("backbone", "layer", "pooling", "precision")


@pytest.fixture(scope="module")
def images():
    X, y = featx.samples.load_fashion_mnist("test")
    chosen = [i for label in ("bag", "coat", "shirt") for i in np.flatnonzero(y == label)[:8]]
    return [X[i] for i in chosen], y[chosen]


@pytest.fixture(scope="module")
def grid(tiny_backbone):
    """Two networks, each with its int8 copy."""
    return {
        "images__backbone": ["efficientnet_lite0", tiny_backbone],
        "images__layer": ["head", "stage1"],
        "images__pooling": ["avg", "std"],
        "images__precision": [None, "int8"],
        "head__max_depth": [1, 4],
    }


def forest(**parameters):
    return RandomForestClassifier(**{"n_estimators": 8, "random_state": 0, **parameters})


def pipeline(head, **parameters):
    return Pipeline([("images", FeatureExtractor(**parameters)), ("head", head)])


class ByItself:
    """Scores a candidate without a search, a pipeline or a cache: its features, then its head."""

    def __init__(self, images):
        self.images, self.features = images, {}

    def score(self, candidate, **more):
        X, y = self.images
        own = {name.partition("__")[2]: value for name, value in candidate.items()}
        key = tuple(own.pop(name) for name in OF_FEATURES)
        if key not in self.features:
            self.features[key] = FeatureExtractor(**dict(zip(OF_FEATURES, key, strict=True))).transform(X)
        return cross_val_score(forest(**own, **more), self.features[key], y, cv=CV, scoring=SCORING).mean()


@pytest.fixture(scope="module")
def by_itself(images):
    return ByItself(images)


def test_a_search_over_two_backbones_scores_two_backbones(tmp_path, images, grid, by_itself):
    X, y = images
    search = GridSearchCV(pipeline(forest(), cache=tmp_path / "cache"), grid, cv=CV, scoring=SCORING).fit(X, y)
    scores, candidates = search.cv_results_["mean_test_score"], search.cv_results_["params"]
    assert len(candidates) == 32
    np.testing.assert_array_equal(scores, [by_itself.score(candidate) for candidate in candidates])
    by_features = {}
    for candidate, score in zip(candidates, scores, strict=True):
        rest = tuple(value for name, value in candidate.items() if name != "images__backbone")
        by_features.setdefault(rest, set()).add(score)
    assert all(len(of_each_backbone) == 2 for of_each_backbone in by_features.values())
    best = search.best_estimator_
    wanted = featx.backbones.open_backbone(
        search.best_params_["images__backbone"], search.best_params_["images__precision"]
    )
    assert best[0].backbone_identity_ == wanted.identity
    rows = FeatureExtractor(**{name: getattr(best[0], name) for name in OF_FEATURES}).transform(X)
    np.testing.assert_array_equal(search.predict_proba(X), best[1].predict_proba(rows))


def test_the_four_networks_of_the_grid_give_features_of_their_own(images, grid):
    rows = [
        FeatureExtractor(backbone, layer="head", precision=precision).transform(images[0][:4])
        for backbone in grid["images__backbone"]
        for precision in grid["images__precision"]
    ]
    assert len({row.tobytes() for row in rows}) == 4


def test_randomized_search(tmp_path, images, grid, by_itself):
    search = RandomizedSearchCV(
        pipeline(forest(), cache=tmp_path / "cache"), grid, n_iter=8, cv=CV, scoring=SCORING, random_state=0
    ).fit(*images)
    candidates = search.cv_results_["params"]
    assert len({str(candidate["images__backbone"]) for candidate in candidates}) == 2
    expected = [by_itself.score(candidate) for candidate in candidates]
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], expected)


@pytest.mark.heavy
def test_halving_search(tmp_path, images, grid, by_itself):
    search = HalvingGridSearchCV(
        pipeline(forest(), cache=tmp_path / "cache"),
        grid,
        resource="head__n_estimators",
        min_resources=2,
        max_resources=16,
        factor=3,
        cv=CV,
        scoring=SCORING,
        random_state=0,
    ).fit(*images)
    results = search.cv_results_
    assert set(results["n_resources"]) == {2, 6}
    expected = [by_itself.score(candidate) for candidate in results["params"]]
    np.testing.assert_array_equal(results["mean_test_score"], expected)


def test_halving_search_over_ever_more_images(tmp_path, images, tiny_backbone):
    search = HalvingGridSearchCV(
        pipeline(forest(), cache=tmp_path / "cache"),
        {"images__backbone": ["efficientnet_lite0", tiny_backbone], "images__layer": ["stem", "stage1"]},
        min_resources=12,
        factor=2,
        cv=CV,
        random_state=0,
    ).fit(*images)
    assert list(search.n_resources_) == [12, 24]
    assert search.best_estimator_[0].backbone_identity_


@pytest.mark.parametrize("backend", ["loky", "threading"])
@pytest.mark.heavy
def test_workers_score_as_one_process_does(images, tiny_backbone, backend):
    grid = {"images__backbone": ["efficientnet_lite0", tiny_backbone], "head__max_depth": [1, 4]}
    search = GridSearchCV(pipeline(forest(), layer="stem"), grid, cv=CV, scoring=SCORING)
    serial = clone(search).fit(*images)
    with joblib.parallel_config(backend, n_jobs=2):
        parallel = search.fit(*images)
    for name in ("mean_test_score", "std_test_score", "rank_test_score"):
        np.testing.assert_array_equal(parallel.cv_results_[name], serial.cv_results_[name])


def test_a_search_inside_cross_validation(tmp_path, images, tiny_backbone):
    X, y = images
    search = GridSearchCV(
        pipeline(forest(), backbone=tiny_backbone, cache=tmp_path / "cache"),
        {"images__layer": ["stem", "head"], "head__max_depth": [1, 4]},
        cv=CV,
        scoring=SCORING,
    )
    done = cross_validate(search, X, y, cv=CV, return_estimator=True, return_indices=True)
    for inner, train, test in zip(done["estimator"], done["indices"]["train"], done["indices"]["test"], strict=True):
        best = inner.best_estimator_
        rows = FeatureExtractor(tiny_backbone, layer=best[0].layer).transform(X)
        expected = forest(max_depth=best[1].max_depth).fit(rows[train], y[train])
        np.testing.assert_array_equal(inner.predict_proba([X[i] for i in test]), expected.predict_proba(rows[test]))


def test_a_candidate_that_cannot_be_is_scored_as_nothing_and_says_why(images, tiny_backbone):
    search = GridSearchCV(
        pipeline(forest()), {"images__backbone": [tiny_backbone, "no-such-backbone"]}, cv=CV, error_score=np.nan
    )
    why = "backbone='no-such-backbone': expected a file or one of"
    with pytest.warns(FitFailedWarning, match=why), pytest.warns(UserWarning, match="test scores are non-finite"):
        search.fit(*images)
    assert list(np.isnan(search.cv_results_["mean_test_score"])) == [False, True]
    assert search.best_params_ == {"images__backbone": tiny_backbone}


def test_cross_validate_keeps_groups_together(images, tiny_backbone):
    X, y = images
    groups = np.arange(len(y)) // 2 % 6
    done = cross_validate(
        *(pipeline(forest(), backbone=tiny_backbone), X, y),
        **{"groups": groups, "cv": GroupKFold(3), "return_indices": True, "return_estimator": True},
    )
    rows = FeatureExtractor(tiny_backbone).transform(X)
    for train, test, score, fitted in zip(
        done["indices"]["train"], done["indices"]["test"], done["test_score"], done["estimator"], strict=True
    ):
        assert not set(groups[train]) & set(groups[test])
        assert score == forest().fit(rows[train], y[train]).score(rows[test], y[test])
        assert fitted[0].backbone_identity_ == featx.backbones.open_backbone(tiny_backbone).identity


def test_metadata_is_routed_to_the_head_the_splitter_and_the_scorer(images, tiny_backbone):
    X, y = images
    weight, groups = np.where(y == "bag", 3.0, 0.5), np.arange(len(y)) % 4
    rows = FeatureExtractor(tiny_backbone).transform(X)
    with sklearn.config_context(enable_metadata_routing=True):
        head = LogisticRegression(max_iter=2000).set_fit_request(sample_weight=True)
        head.set_score_request(sample_weight=True)
        search = GridSearchCV(
            pipeline(head), {"images__backbone": [tiny_backbone], "head__C": [0.1, 1]}, cv=GroupKFold(2)
        ).fit(X, y, sample_weight=weight, groups=groups)
        expected = GridSearchCV(head, {"C": [0.1, 1]}, cv=GroupKFold(2))
        expected.fit(rows, y, sample_weight=weight, groups=groups)
        unweighted = GridSearchCV(LogisticRegression(max_iter=2000), {"C": [0.1, 1]}, cv=GroupKFold(2))
        unweighted.fit(rows, y, groups=groups)
    ours, theirs, other = (done.cv_results_["mean_test_score"] for done in (search, expected, unweighted))
    np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(ours, other)


@pytest.mark.parametrize("make", [list, lambda x: np.array(x, dtype=object)])
def test_folds_of_a_list_and_of_an_array_are_the_same(images, tiny_backbone, make):
    X, y = images
    scores = cross_val_score(pipeline(forest(), backbone=tiny_backbone), make(X), y, cv=KFold(3))
    rows = FeatureExtractor(tiny_backbone).transform(X)
    np.testing.assert_array_equal(scores, cross_val_score(forest(), rows, y, cv=KFold(3)))
