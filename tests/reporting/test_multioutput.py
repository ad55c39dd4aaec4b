"""Metrics of several labels and numbers."""

import numpy as np
import pytest
from sklearn import metrics

from featx.reporting.multioutput import (
    average_precisions,
    score_labels,
    score_numbers,
    summarize_labels,
    summarize_numbers,
)


@pytest.fixture(scope="module")
def labels():
    rng = np.random.default_rng(0)
    true = (rng.random((60, 4)) < [0.5, 0.3, 0.1, 0]).astype(int)
    p = np.round(np.clip(0.4 * true + 0.6 * rng.random((60, 4)), 0, 1), 1)  # with equal scores
    return true, p


def test_metrics_are_those_of_scikit_learn(labels):
    true, p = labels
    predicted = (p > 0.5).astype(int)
    found = summarize_labels(true, predicted, p, list("abcd"))
    expected = metrics.average_precision_score(true[:, :3], p[:, :3], average="macro")
    assert found["macro_average_precision"] == pytest.approx(expected)
    assert found["macro_f1"] == pytest.approx(metrics.f1_score(true[:, :3], predicted[:, :3], average="macro"))
    assert found["micro_f1"] == pytest.approx(metrics.f1_score(true, predicted, average="micro"))
    assert found["subset_accuracy"] == pytest.approx(metrics.accuracy_score(true, predicted))
    assert found["per_label"]["d"]["average_precision"] is None
    assert found["per_label"]["a"]["support"] == true[:, 0].sum()


def test_weighted_average_precision_counts_rows_several_times(labels):
    true, p = labels
    counts = np.random.default_rng(1).integers(0, 3, (2, 60)).astype(float)
    found = average_precisions(true[:, :2], p[:, :2], counts)
    for i in range(2):
        for j in range(2):
            expected = metrics.average_precision_score(true[:, j], p[:, j], sample_weight=counts[i])
            assert found[i, j] == pytest.approx(expected)


def test_scores_have_intervals(labels):
    true, p = labels
    predicted = (p > 0.5).astype(int)
    score = score_labels("here", true, predicted, p)
    assert score.metric == "macro_average_precision"
    assert score.low < score.value < score.high
    assert score_labels("here", true, predicted, None).metric == "macro_f1"
    wide = score_labels("here", true, predicted, p, np.arange(60) // 12)
    assert wide.high - wide.low > 0


def test_the_interval_of_many_rare_labels_holds_their_score():
    rng = np.random.default_rng(0)
    true, p = (rng.random((60, 100)) < 0.03).astype(int), rng.random((60, 100))
    score = score_labels("here", true, (p > 0.5).astype(int), p)
    assert score.low < score.value < score.high


def test_several_numbers_have_a_row_each():
    true = np.random.default_rng(0).normal(size=(30, 2)) * [1, 100]
    found = summarize_numbers(true, true + np.array([0.1, 0]), ["a", "b"])
    assert found["per_target"]["b"]["r2"] == 1
    assert found["r2"] == pytest.approx(metrics.r2_score(true, true + np.array([0.1, 0])))
    score = score_numbers("here", true, true + np.array([0.5, 0]), ["a", "b"])
    assert score.values["mae of a"] == pytest.approx(0.5)
    assert score.low <= score.value <= score.high
