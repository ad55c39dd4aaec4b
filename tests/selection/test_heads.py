"""The comparison of heads: one measure, paired ties, balanced classes, groups and mistakes."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import cross_val_predict

from featx._events import Events
from featx.errors import InputError
from featx.heads import make_head
from featx.selection import compare, compare_heads
from featx.selection.folds import make_folds
from featx.selection.heads import HeadTask, score_heads
from tests.selection.selection_tools import of_tiny


def features(counts, seed=0, apart=1.5):
    """Rows of classes with these counts."""
    rng = np.random.default_rng(seed)
    y = np.repeat([f"class {i}" for i in range(len(counts))], counts)
    centres = rng.normal(size=(len(counts), 12)) * apart / 2
    return (np.repeat(centres, counts, axis=0) + rng.normal(size=(len(y), 12))).astype(np.float32), y


def test_heads_are_ranked_by_the_squared_error_that_is_shown():
    X, y = features([40, 40, 40])
    found = compare_heads(X, y, heads=["knn", "ridge", "random_forest"], cv=3)
    assert found.metric == "accuracy"
    losses = [score.loss for score in found.scores]
    assert losses == sorted(losses)
    assert "behind, %" in found.table()
    for score in found.scores:
        assert score.behind == pytest.approx(score.loss - losses[0])
        assert score.tied == (score is not found.scores[0] and score.behind <= 2 * score.behind_error)
        assert score.fit_s > 0
        assert score.ms > 0
        assert score.mb > 0
    assert max(found.scores, key=lambda score: score.mb).head == "random_forest"
    [knn] = [score for score in found.scores if score.head == "knn"]
    folds, _ = make_folds("classification", y, None, 0, 3)
    assert knn.score == pytest.approx((cross_val_predict(make_head("knn"), X, y, cv=folds) == y).mean())
    probabilities = cross_val_predict(make_head("knn", cv=2), X, y, cv=folds, method="predict_proba")
    errors = ((probabilities - (y[:, None] == np.unique(y))) ** 2).sum(axis=1)
    assert knn.loss == pytest.approx(errors.mean() / (2 / 3), rel=0.05)  # three equal classes have a variance of 2/3
    n = sum(score.tied for score in found.scores)
    assert (f"{n} of 3 " if n else "all others are behind") in found.reason


def test_unbalanced_classes_have_a_balanced_accuracy():
    X, y = features([60, 20, 10], apart=1.0)
    found = compare_heads(X, y, heads="knn", cv=3)
    folds, _ = make_folds("classification", y, None, 0, 3)
    expected = balanced_accuracy_score(y, cross_val_predict(make_head("knn"), X, y, cv=folds))
    assert (found.metric, found.scores[0].score) == ("balanced accuracy", pytest.approx(expected))
    constant = HeadTask("classification", balanced=True).score_images(y, np.full((90, 3), 1 / 3))[1]
    assert constant.mean() == pytest.approx(1)  # the best prediction that ignores the images


def test_numbers_and_their_logarithm():
    X, _ = features([60])
    y = np.exp(X[:, 0] / 2)
    X = X * np.abs(X)  # the head takes square roots
    plain, logarithm = compare_heads(X, y, heads="ridge"), compare_heads(X, y, heads="ridge", log_target=True)
    assert (plain.task, plain.metric, logarithm.metric) == ("regression", "r2", "r2 of the logarithm")
    assert logarithm.scores[0].score > 0.95 > plain.scores[0].score
    assert plain.scores[0].loss == pytest.approx(1 - plain.scores[0].score)


def test_groups_stay_together_and_every_fit_advances():
    class Count(Events):
        n = total = 0

        def begin(self, task, total, done=0, *, unit="image"):
            Count.total += total

        def advance(self, n=1, **_):
            Count.n += n

    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(20, 8)), 4, axis=0).astype(np.float32)
    y, groups = np.repeat(rng.permutation(["a", "b"] * 10), 4), np.repeat(np.arange(20), 4)
    apart = compare_heads(X, y, heads="knn", events=Count())
    together = compare_heads(X, y, heads="knn", groups=groups, events=Count())
    assert apart.scores[0].score == 1.0 > together.scores[0].score
    assert Count.n == Count.total == 10


def test_without_time_the_first_head_is_finished_and_the_others_are_named():
    X, y = features([20, 20])
    found = compare_heads(X, y, heads=["ridge", "knn"], max_seconds=0)
    assert [score.head for score in found.scores] == ["ridge"]
    assert found.left_out == ("knn: no time left",)
    assert "left out: knn: no time left" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["left_out"] == ["knn: no time left"]
    assert "no time left" in found._repr_html_()


def test_all_heads_that_suit_the_task_are_compared_unless_they_are_named(monkeypatch):
    from featx.selection import heads

    rows = {name: heads.HEADS[name] for name in ("logistic_regression", "ridge", "knn")}
    monkeypatch.setattr(heads, "HEADS", rows)
    X, y = features([12, 12])
    assert {score.head for score in compare_heads(X, y, cv=2).scores} == set(rows)
    assert {score.head for score in compare_heads(X, X[:, 0], cv=2).scores} == {"ridge", "knn"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"heads": "rigde"}, "head='rigde': did you mean"),
        ({"heads": []}, "heads=[]: expected True or names of heads"),
        ({"groups": [1, 2]}, "groups: 2 for 8 rows"),
        ({"cv": 1}, "cv=1"),
        ({"y": [None, *"aaabbbb"]}, "y: 1 targets are missing"),
        ({"y": np.eye(8, dtype=int)[:, :3] | 1}, "y: "),
        ({"X": np.zeros((8, 2, 2))}, "X: of shape (8, 2, 2)"),
    ],
)
def test_arguments_that_cannot_be_used(options, said):
    given = {"X": np.zeros((8, 3)), "y": list("aaaabbbb"), "heads": "ridge", **options}
    with pytest.raises(InputError, match=re.escape(said)):
        compare_heads(given.pop("X"), given.pop("y"), **given)


def test_a_comparison_of_features_compares_heads_on_the_recommended_ones(tiny_backbone, colours):
    X, y, _ = colours
    labels = [*y[:60], "blue"]
    labels[3] = None
    with pytest.raises(InputError, match="blue"):
        compare(X[:61], labels, heads="ridge", **of_tiny(tiny_backbone))
    found = compare(X[:60], labels[:60], heads=["ridge", "knn"], **of_tiny(tiny_backbone))
    assert {score.candidate.key for score in found.heads.scores} == {found.recommended.key}
    assert found.heads.n_images == found.n_used == 59
    assert found.heads.table() in str(found)
    assert found.to_dict()["heads"]["n_images"] == 59
    several = np.c_[y[:60] == "red", y[:60] == "blue"].astype(int)
    found = compare(X[:60], several, heads=["ridge", "knn"], **of_tiny(tiny_backbone))
    assert (found.heads.metric, len(found.heads.scores)) == ("label ranking average precision", 2)
    order = pd.Series(pd.Categorical(y[:60], sorted(set(y)), ordered=True))
    with pytest.raises(InputError, match="the target is ordinal"):
        compare(X[:60], order, heads=True, **of_tiny(tiny_backbone))


def test_heads_of_several_numbers_are_compared_by_their_mean_error():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 9)).astype(np.float32)
    found = compare_heads(X, np.c_[X[:, 0] * 1000, X[:, 1]] + rng.normal(size=(60, 2)), heads=["ridge", "knn"])
    assert (found.metric, found.scores[0].head) == ("r2", "ridge")
    assert found.scores[0].score > 0.5


def test_a_head_that_cannot_be_fitted_on_texts_names_texts():
    rows = np.ones((3, 2), np.float32)
    with pytest.raises(InputError, match=r"single readable text \("):
        score_heads(
            [(None, rows)],
            np.array(["a", "a", "b"]),
            2,
            HeadTask("classification", kind="text"),
            ["ridge"],
            events=Events(),
        )
