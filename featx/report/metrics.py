"""Metrics of predictions, as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from featx._results import format_metric

__all__ = [
    "ClassMetrics",
    "ClassificationMetrics",
    "RegressionMetrics",
    "Score",
    "describe_score",
    "score",
    "summarize_classification",
    "summarize_regression",
    "wilson_interval",
]


class ClassMetrics(TypedDict):
    """Metrics of one class; ``support`` is its number of images."""

    precision: float
    recall: float
    f1: float
    support: int


class ClassificationMetrics(TypedDict):
    """Metrics of a classification.

    ``balanced_accuracy`` is the mean recall of the classes that occur. ``macro_f1`` is the mean
    over the classes that occur or are predicted. ``log_loss`` uses the natural logarithm.
    ``roc_auc`` is the mean of one class against the rest, and None if a class does not occur.
    ``log_loss`` and ``roc_auc`` are None without probabilities. ``confusion`` has a row per true
    and a column per predicted class, both in the order of ``per_class``.
    """

    n: int
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    log_loss: float | None
    roc_auc: float | None
    per_class: dict[str, ClassMetrics]
    confusion: list[list[int]]


class RegressionMetrics(TypedDict):
    """Metrics of a regression.

    ``mae`` and ``rmse`` have the unit of the target. ``r2`` is None for a single value. ``mape``
    is a fraction, and None if a true value is 0.
    """

    n: int
    mae: float
    rmse: float
    r2: float | None
    mape: float | None


class Score(TypedDict):
    """An estimate of the quality of predictions.

    ``how`` names the images it was measured on. ``values`` maps metrics to values, and
    ``intervals`` some of them to the ends of a 95 % interval.
    """

    how: str
    values: dict[str, float]
    intervals: dict[str, list[float]]


def summarize_classification(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, probabilities: npt.ArrayLike | None, classes: Sequence[str]
) -> ClassificationMetrics:
    """Compute the metrics of a classification.

    Parameters
    ----------
    y_true, y_pred : array-like of str, shape (n,)
        Labels, all of them in ``classes``.
    probabilities : array-like of float, shape (n, n_classes), or None
        Probabilities in the order of ``classes``.
    classes : sequence of str
        Classes in the order of the head.

    Returns
    -------
    ClassificationMetrics
        A dict of JSON values.

    Examples
    --------
    >>> from featx.report.metrics import summarize_classification
    >>> summary = summarize_classification(["a", "b"], ["a", "a"], [[0.9, 0.1], [0.6, 0.4]], ["a", "b"])
    >>> summary["accuracy"], summary["roc_auc"], summary["confusion"]
    (0.5, 1.0, [[1, 0], [1, 0]])
    """
    number = {label: i for i, label in enumerate(classes)}  # scikit-learn sorts labels; numbers keep our order
    y_true, y_pred = (np.array([number[label] for label in np.asarray(y)], dtype=int) for y in (y_true, y_pred))
    labels = list(range(len(classes)))
    p = None if probabilities is None else np.asarray(probabilities, float)
    if p is not None:
        p = p / p.sum(axis=1, keepdims=True)  # rows of float32 do not sum to 1 exactly
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=labels, zero_division=0.0
    )
    occurs = support > 0
    occurs_or_predicted = occurs | np.isin(labels, y_pred)
    return {
        "n": len(y_true),
        "accuracy": float(np.mean(y_true == y_pred)),
        "balanced_accuracy": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs_or_predicted].mean()),
        "log_loss": None if p is None else float(metrics.log_loss(y_true, p, labels=labels)),
        "roc_auc": None if p is None or not occurs.all() else _roc_auc(y_true, p, labels),
        "per_class": {
            label: {
                "precision": float(precision[i]),
                "recall": float(recall[i]),
                "f1": float(f1[i]),
                "support": int(support[i]),
            }
            for i, label in enumerate(classes)
        },
        "confusion": metrics.confusion_matrix(y_true, y_pred, labels=labels).tolist(),
    }


def _roc_auc(y_true: npt.NDArray[Any], p: npt.NDArray[Any], labels: list[int]) -> float:
    if len(labels) == 2:
        return float(metrics.roc_auc_score(y_true == labels[1], p[:, 1]))
    return float(metrics.roc_auc_score(y_true, p, labels=labels, multi_class="ovr"))


def summarize_regression(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> RegressionMetrics:
    """Compute the metrics of a regression.

    Parameters
    ----------
    y_true, y_pred : array-like of float, shape (n,)
        Values in the unit of the target.

    Returns
    -------
    RegressionMetrics
        A dict of JSON values.

    Examples
    --------
    >>> from featx.report.metrics import summarize_regression
    >>> summarize_regression([1.0, 2.0], [1.0, 3.0])["mape"]
    0.25
    """
    y_true, y_pred = np.asarray(y_true, float), np.asarray(y_pred, float)
    return {
        "n": len(y_true),
        "mae": float(metrics.mean_absolute_error(y_true, y_pred)),
        "rmse": float(metrics.root_mean_squared_error(y_true, y_pred)),
        "r2": float(metrics.r2_score(y_true, y_pred)) if len(y_true) > 1 else None,
        "mape": float(metrics.mean_absolute_percentage_error(y_true, y_pred)) if y_true.all() else None,
    }


def score(how: str, y_true: npt.ArrayLike, y_pred: npt.ArrayLike, task: str) -> Score:
    """Estimate the quality of predictions for held-out images, with 95 % intervals.

    Parameters
    ----------
    how : str
        Description of the images.
    y_true, y_pred : array-like, shape (n,)
        Labels, or values in the unit of the target.
    task : {"classification", "regression"}
        The task.

    Returns
    -------
    Score
        The accuracy with Wilson's interval; or mae with the normal interval, mape (if no true
        value is 0) and r2.

    Examples
    --------
    >>> from featx.report.metrics import score
    >>> score("four held-out images", ["a", "b", "a", "b"], ["a", "b", "a", "a"], "classification")["values"]
    {'accuracy': 0.75}
    """
    if task == "classification":
        right = np.asarray(y_true) == np.asarray(y_pred)
        low, high = wilson_interval(float(right.mean()), len(right))
        return {
            "how": how,
            "values": {"accuracy": float(right.mean())},
            "intervals": {"accuracy": [low, high]},
        }
    summary = summarize_regression(y_true, y_pred)
    errors = np.abs(np.asarray(y_true, float) - np.asarray(y_pred, float))
    intervals = {}
    if len(errors) > 1:
        half = 1.96 * float(errors.std(ddof=1)) / len(errors) ** 0.5
        intervals["mae"] = [max(0.0, summary["mae"] - half), summary["mae"] + half]
    measured = {"mae": summary["mae"], "mape": summary["mape"], "r2": summary["r2"]}
    return {
        "how": how,
        "values": {name: value for name, value in measured.items() if value is not None},
        "intervals": intervals,
    }


def wilson_interval(share: float, n: float) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of a share of n draws; n may be an effective number.

    Examples
    --------
    >>> from featx.report.metrics import wilson_interval
    >>> tuple(round(end, 3) for end in wilson_interval(0.9, 100))
    (0.826, 0.945)
    """
    z = 1.959964**2 / n
    middle, half = (share + z / 2) / (1 + z), (z * share * (1 - share) + z**2 / 4) ** 0.5 / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def describe_score(score: Mapping[str, Any]) -> str:
    """Format a score as one line.

    Examples
    --------
    >>> from featx.report.metrics import describe_score, score
    >>> describe_score(score("held-out images", ["a", "b"] * 50, ["a", "b"] * 49 + ["a", "a"], "classification"))
    'held-out images: accuracy 0.990 (95 % interval 0.946 to 0.998)'
    """
    parts = []
    for name, value in score["values"].items():
        text = f"{name} {format_metric(value)}"
        if interval := score["intervals"].get(name):
            text += f" (95 % interval {' to '.join(map(format_metric, interval))})"
        parts.append(text)
    return f"{score['how']}: {', '.join(parts)}" if parts else str(score["how"])
