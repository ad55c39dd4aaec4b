"""Metrics of predictions, as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from featx._results import format_metric

__all__ = [
    "Score",
    "describe_score",
    "score",
    "summarize_classification",
    "summarize_regression",
    "wilson_interval",
]


@dataclass(frozen=True)
class Score:
    """A metric on left-out images, with its 95 % interval.

    Parameters
    ----------
    how : str
        The images that it was measured on.
    metric : {"accuracy", "mae"}
    value : float
    low, high : float or None
        Ends of the interval; None for a regression on a single image.
    values : dict of str to float
        Every metric: ``accuracy``, or ``mae``, ``mape`` (if no target is 0) and ``r2``.
    """

    how: str
    metric: str
    value: float
    low: float | None
    high: float | None
    values: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        """Return the score as a file stores it: ``how``, ``values`` and ``intervals``."""
        intervals = {} if self.low is None else {self.metric: [self.low, self.high]}
        return {"how": self.how, "values": dict(self.values), "intervals": intervals}

    def __str__(self) -> str:
        return describe_score(self.facts())


def summarize_classification(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, probabilities: npt.ArrayLike | None, classes: Sequence[str]
) -> dict[str, Any]:
    """Compute the metrics of a classification, as JSON values.

    ``balanced_accuracy`` is the mean recall of the classes that occur, and ``macro_f1`` the mean over the classes
    that occur or are predicted. ``roc_auc`` is the mean of one class against the rest, None if a class does not
    occur. ``log_loss`` and ``roc_auc`` are None without probabilities. ``classes`` sets the order of the
    probabilities, of ``per_class``, and of the rows (true) and columns (predicted) of ``confusion``.

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


def summarize_regression(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> dict[str, Any]:
    """Compute the metrics of a regression, as JSON values.

    ``r2`` is None for a single value. ``mape`` is a fraction, and None if a true value is 0.

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
    """Estimate the quality of predictions for left-out images, which ``how`` describes.

    An accuracy has Wilson's interval, and a mean absolute error the normal one.

    Examples
    --------
    >>> from featx.report.metrics import score
    >>> score("four images", ["a", "b", "a", "b"], ["a", "b", "a", "a"], "classification").value
    0.75
    """
    if task == "classification":
        right = np.asarray(y_true) == np.asarray(y_pred)
        accuracy = float(right.mean())
        return Score(how, "accuracy", accuracy, *wilson_interval(accuracy, len(right)), {"accuracy": accuracy})
    summary = summarize_regression(y_true, y_pred)
    mae = summary["mae"]
    values = {name: summary[name] for name in ("mae", "mape", "r2") if summary[name] is not None}
    errors = np.abs(np.asarray(y_true, float) - np.asarray(y_pred, float))
    if len(errors) < 2:
        return Score(how, "mae", mae, None, None, values)
    half = 1.96 * float(errors.std(ddof=1)) / len(errors) ** 0.5
    return Score(how, "mae", mae, max(0.0, mae - half), mae + half, values)


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


def describe_score(facts: Mapping[str, Any]) -> str:
    """Format a score as a file stores it (`Score.facts`) as one line.

    Examples
    --------
    >>> from featx.report.metrics import score
    >>> print(score("held-out images", ["a", "b"] * 50, ["a", "b"] * 49 + ["a", "a"], "classification"))
    held-out images: accuracy 0.990 (95 % interval 0.946 to 0.998)
    """
    parts = []
    for name, value in facts["values"].items():
        text = f"{name} {format_metric(value)}"
        if interval := facts["intervals"].get(name):
            text += f" (95 % interval {' to '.join(map(format_metric, interval))})"
        parts.append(text)
    return f"{facts['how']}: {', '.join(parts)}" if parts else str(facts["how"])
