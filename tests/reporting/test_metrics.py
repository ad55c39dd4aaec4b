"""Metrics against scikit-learn's own functions and by hand."""

import json

import numpy as np
import pytest
from sklearn import metrics

from featx.reporting.metrics import (
    describe_balance,
    measure_balance,
    score,
    summarize_classification,
    summarize_regression,
)

CLASSIFICATION = ["n", "accuracy", "balanced_accuracy", "macro_f1", "log_loss", "roc_auc", "per_class", "confusion"]


def random_answers(classes, n, seed):
    rng = np.random.default_rng(seed)
    y = np.concatenate([classes, rng.choice(classes, n - len(classes))])
    p = rng.dirichlet(np.ones(len(classes)), n)
    return y, np.array(classes)[p.argmax(axis=1)], p


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [["a", "b"], ["a", "b", "c", "d"]], ids=["binary", "four"])
def test_classification_agrees_with_scikit_learn(classes, seed):
    y, predicted, p = random_answers(classes, 60, seed)
    facts = summarize_classification(y, predicted, p, classes)
    assert list(facts) == CLASSIFICATION
    assert facts["n"] == 60
    assert facts["accuracy"] == pytest.approx(metrics.accuracy_score(y, predicted))
    assert facts["balanced_accuracy"] == pytest.approx(metrics.balanced_accuracy_score(y, predicted))
    assert facts["macro_f1"] == pytest.approx(metrics.f1_score(y, predicted, average="macro"))
    assert facts["log_loss"] == pytest.approx(metrics.log_loss(y, p))
    one = len(classes) == 2
    auc = metrics.roc_auc_score(y, p[:, 1]) if one else metrics.roc_auc_score(y, p, multi_class="ovr")
    assert facts["roc_auc"] == pytest.approx(auc)
    assert facts["confusion"] == metrics.confusion_matrix(y, predicted).tolist()
    report = metrics.classification_report(y, predicted, output_dict=True)
    assert list(facts["per_class"]) == classes
    for name in classes:
        row = facts["per_class"][name]
        assert set(row) == {"precision", "recall", "f1", "support"}
        assert row["precision"] == pytest.approx(report[name]["precision"])
        assert row["recall"] == pytest.approx(report[name]["recall"])
        assert row["f1"] == pytest.approx(report[name]["f1-score"])
        assert row["support"] == report[name]["support"]


def test_a_class_that_does_not_occur_is_left_out_of_the_means():
    p = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1]]
    facts = summarize_classification(["a", "b", "b"], ["a", "a", "b"], p, ["a", "b", "c"])
    assert facts["accuracy"] == pytest.approx(2 / 3)
    assert facts["balanced_accuracy"] == pytest.approx((1 + 1 / 2) / 2)
    assert facts["macro_f1"] == pytest.approx(2 / 3)  # 2/3 for each of a and b
    assert facts["log_loss"] == pytest.approx(-np.log([0.8, 0.3, 0.7]).mean())
    assert facts["roc_auc"] is None
    assert facts["per_class"]["c"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}
    assert facts["confusion"] == [[1, 0, 0], [1, 1, 0], [0, 0, 0]]


def test_a_class_that_is_only_predicted_counts_in_macro_f1():
    p = [[0.6, 0.2, 0.2], [0.1, 0.2, 0.7]]
    facts = summarize_classification(["a", "a"], ["a", "c"], p, ["a", "b", "c"])
    assert facts["macro_f1"] == pytest.approx(metrics.f1_score(["a", "a"], ["a", "c"], average="macro"))
    assert facts["balanced_accuracy"] == pytest.approx(0.5)


def test_one_row():
    facts = summarize_classification(["b"], ["b"], [[0.25, 0.75]], ["a", "b"])
    assert (facts["n"], facts["accuracy"], facts["balanced_accuracy"], facts["macro_f1"]) == (1, 1.0, 1.0, 1.0)
    assert facts["log_loss"] == pytest.approx(-np.log(0.75))
    assert facts["roc_auc"] is None


def test_the_second_class_is_the_positive_one():
    facts = summarize_classification(["a", "b"], ["b", "a"], [[0.1, 0.9], [0.9, 0.1]], ["a", "b"])
    assert facts["roc_auc"] == 0.0


def test_probabilities_in_float32_need_not_sum_to_one():
    y, predicted, p = random_answers(["a", "b", "c"], 30, 2)
    exact = summarize_classification(y, predicted, p, ["a", "b", "c"])
    rough = summarize_classification(y, predicted, (p * 1.00001).astype(np.float32), ["a", "b", "c"])
    assert rough["log_loss"] == pytest.approx(exact["log_loss"], rel=1e-5)
    assert rough["roc_auc"] == pytest.approx(exact["roc_auc"])


@pytest.mark.parametrize("seed", [0, 1])
def test_regression_agrees_with_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    y = rng.lognormal(12, 1, 40)
    predicted = y * rng.lognormal(0, 0.3, 40)
    assert summarize_regression(y, predicted) == {
        "n": 40,
        "mae": pytest.approx(metrics.mean_absolute_error(y, predicted)),
        "rmse": pytest.approx(metrics.mean_squared_error(y, predicted) ** 0.5),
        "r2": pytest.approx(metrics.r2_score(y, predicted)),
        "mape": pytest.approx(metrics.mean_absolute_percentage_error(y, predicted)),
    }


@pytest.mark.parametrize(
    ("y", "predicted", "expected"),
    [
        ([2.0, 4.0], [3.0, 2.0], {"n": 2, "mae": 1.5, "rmse": 2.5**0.5, "r2": -1.5, "mape": 0.5}),
        ([0.0, 2.0], [1.0, 2.0], {"n": 2, "mae": 0.5, "rmse": 0.5**0.5, "r2": 0.5, "mape": None}),
        ([-4.0], [-5.0], {"n": 1, "mae": 1.0, "rmse": 1.0, "r2": None, "mape": 0.25}),
    ],
    ids=["plain", "a-true-zero", "one-negative-row"],
)
def test_regression_by_hand(y, predicted, expected):
    facts = summarize_regression(y, predicted)
    assert list(facts) == ["n", "mae", "rmse", "r2", "mape"]
    for name, value in expected.items():
        assert facts[name] == (value if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    "facts",
    [
        summarize_classification(["a"], ["b"], [[0.0, 1.0]], ["a", "b"]),
        summarize_classification(np.array(["a", "b"]), np.array(["a", "b"]), np.eye(2, dtype=np.float32), ["a", "b"]),
        summarize_regression(np.zeros(1, np.float32), np.ones(1, np.float32)),
        summarize_regression([1.0, 1.0], [2.0, 3.0]),
    ],
    ids=["sure-and-wrong", "numpy", "one-zero", "constant"],
)
def test_facts_are_strict_json(facts):
    assert json.loads(json.dumps(facts, allow_nan=False)) == facts


def test_probabilities_keep_the_heads_order_of_classes():
    truth, answers = ["10", "2", "10", "3"], ["10", "2", "3", "3"]
    p = np.array([[0.1, 0.2, 0.7], [0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.6, 0.3]])  # of 2, 3 and 10
    facts = summarize_classification(truth, answers, p, ["2", "3", "10"])
    assert facts["log_loss"] == pytest.approx(-np.log([0.7, 0.8, 0.3, 0.6]).mean())
    assert list(facts["per_class"]) == ["2", "3", "10"]
    assert facts["confusion"] == [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    assert facts["roc_auc"] == pytest.approx(metrics.roc_auc_score([2, 0, 2, 1], p, multi_class="ovr"))


def test_the_worst_of_equally_bad_classes_is_the_largest():
    balance = measure_balance([*"aaaa", *"bb", "c"], [*"aaaa", *"aa", "a"])
    assert (balance.worst, balance.worst_count, balance.worst_recall) == ("b", 2, 0)
    assert (balance.largest, balance.baseline, balance.ratio) == ("a", 4 / 7, 4)


def test_an_interval_counts_groups():
    """Two intervals of 95 % cover the accuracy of new patients: by rows much too seldom, by groups about as said."""
    rng = np.random.default_rng(0)
    covered = {"rows": 0, "groups": 0}
    groups = np.repeat(np.arange(12), 30)
    for _ in range(300):
        share = rng.beta(4, 1, 12)  # of each patient's images that are predicted right; 0.8 on average
        right = rng.random(360) < share[groups]
        for name, given in (("rows", None), ("groups", groups)):
            found = score("", right, np.ones(360, bool), "classification", groups=given)
            covered[name] += found.low <= 0.8 <= found.high
    assert covered["rows"] < 200
    assert covered["groups"] > 270


def test_groups_of_one_image_change_nothing_and_a_wrong_answer_of_none_is_worth_the_groups():
    y, predicted = [1.0, 2.0, 3.0, 4.0] * 3, [1.5, 2.0, 3.0, 5.0] * 3
    assert score("", y, predicted, "regression", groups=np.arange(12)) == score("", y, predicted, "regression")
    alone = score("", ["a"] * 40, ["a"] * 40, "classification")
    grouped = score("", ["a"] * 40, ["a"] * 40, "classification", groups=np.arange(40) // 10)
    assert grouped.low < 0.6 < 0.9 < alone.low


@pytest.mark.parametrize("noun", ["image", "text", "row"])
def test_the_balance_counts_what_was_left_out(noun) -> None:
    rare = score(f"left-out {noun}s, 5 folds", ["a", "a", "a", "b"], ["a"] * 4, "classification")
    assert f"of b (1 {noun})" in describe_balance(rare.facts())
