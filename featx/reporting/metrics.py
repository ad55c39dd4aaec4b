"""Compute metrics of predictions, as plain values and as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics

from featx._results import format_metric
from featx._text import printable

__all__ = [
    "ClassBalance",
    "Score",
    "describe_balance",
    "describe_score",
    "measure_balance",
    "score",
    "summarize_classification",
    "summarize_regression",
    "wilson_interval",
]


_NORMAL_QUANTILE = 1.959964
#: Text names the worst class if the largest class has at least this many times the images of the smallest class.
_MIN_RATIO = 1.5


@dataclass(frozen=True)
class ClassBalance:
    """The largest class of some images, and the class with the lowest recall.

    Parameters
    ----------
    largest : str
        Class with the most images.
    baseline : float
        Accuracy of always answering ``largest``.
    ratio : float
        Number of images of the largest class per image of the smallest class.
    worst : str
        Class with the lowest recall; among equal classes, the class with the most images.
    worst_recall : float
        Recall of this class.
    worst_count : int
        Number of its images.
    """

    largest: str
    baseline: float
    ratio: float
    worst: str
    worst_recall: float
    worst_count: int

    @property
    def is_even(self) -> bool:
        """True if the classes are of similar size, so accuracy alone does not mislead."""
        return self.ratio < _MIN_RATIO

    def describe(self, noun: str = "image") -> str:
        """Return one line with the lowest recall and the accuracy of always answering the largest class."""
        return (
            f"lowest recall {format_metric(self.worst_recall)} of {printable(self.worst)} "
            f"({self.worst_count} {noun}{'' if self.worst_count == 1 else 's'}); "
            f"always answering {printable(self.largest)}: accuracy {format_metric(self.baseline)}"
        )


@dataclass(frozen=True)
class Score:
    """A metric on left-out images, with its 95 % interval.

    Parameters
    ----------
    how : str
        Description of the images that it was measured on.
    metric : {"accuracy", "mae"}
        Name of the metric.
    value : float
        Its value.
    low, high : float or None
        Ends of the interval; None for a regression on a single image.
    values : dict of str to float
        Every metric: ``accuracy`` and ``balanced_accuracy`` (the mean recall of the classes); or
        ``mae``, ``mape`` (if no target is 0) and ``r2``.
    balance : ClassBalance or None, default=None
        The largest class and the class with the lowest recall; None for a regression.
    """

    how: str
    metric: str
    value: float
    low: float | None
    high: float | None
    values: Mapping[str, float]
    balance: ClassBalance | None = None

    def facts(self) -> dict[str, Any]:
        """Return the score as a file stores it: ``how``, ``values``, ``intervals`` and ``balance``."""
        intervals = {} if self.low is None else {self.metric: [self.low, self.high]}
        balance = {} if self.balance is None else {"balance": vars(self.balance)}
        return {"how": self.how, "values": dict(self.values), "intervals": intervals, **balance}

    def __str__(self) -> str:
        balance = describe_balance(self.facts())
        return describe_score(self.facts()) + (f"; {balance}" if balance else "")


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
    >>> from featx.reporting.metrics import summarize_classification
    >>> summary = summarize_classification(["a", "b"], ["a", "a"], [[0.9, 0.1], [0.6, 0.4]], ["a", "b"])
    >>> summary["accuracy"], summary["roc_auc"], summary["confusion"]
    (0.5, 1.0, [[1, 0], [1, 0]])
    """
    number = {
        label: i for i, label in enumerate(classes)
    }  # scikit-learn sorts labels; numbers keep the order of classes
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
    >>> from featx.reporting.metrics import summarize_regression
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


def score(
    how: str, y_true: npt.ArrayLike, y_pred: npt.ArrayLike, task: str, *, groups: npt.ArrayLike | None = None
) -> Score:
    """Estimate the quality of predictions for left-out images, which ``how`` describes.

    The interval of an accuracy is Wilson's, and that of a mean absolute error is normal. With ``groups``, the group of
    each image, the groups are the independent draws: images of one patient tend to be right or wrong together, so the
    interval is wider.

    Examples
    --------
    >>> from featx.reporting.metrics import score
    >>> score("four images", ["a", "b", "a", "b"], ["a", "b", "a", "a"], "classification").value
    0.75
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    if task == "classification":
        right = (true == predicted).astype(float)
        accuracy, balance = float(right.mean()), measure_balance(true, predicted)
        values = {"accuracy": accuracy, "balanced_accuracy": _balanced_accuracy(true, right)}
        interval = wilson_interval(accuracy, *_effective_draws(right, groups))
        return Score(how, "accuracy", accuracy, *interval, values, balance)
    summary = summarize_regression(true, predicted)
    mae = summary["mae"]
    values = {name: summary[name] for name in ("mae", "mape", "r2") if summary[name] is not None}
    errors = np.abs(true.astype(float) - predicted.astype(float))
    if len(errors) < 2:
        return Score(how, "mae", mae, None, None, values)
    n_draws, quantile = _effective_draws(errors, groups)
    half = quantile * float(errors.std(ddof=1)) / n_draws**0.5
    return Score(how, "mae", mae, max(0.0, mae - half), mae + half, values)


def _balanced_accuracy(true: npt.NDArray[Any], right: npt.NDArray[np.float64]) -> float:
    codes = np.unique(true, return_inverse=True)[1]
    return float((np.bincount(codes, weights=right) / np.bincount(codes)).mean())


def _effective_draws(values: npt.NDArray[np.float64], groups: npt.ArrayLike | None) -> tuple[float, float]:
    """Return the effective number of independent draws of the values, and the quantile of a 95 % interval.

    The variance of the mean comes from the groups' sums, with the usual correction for few clusters. The quantile is
    Student's. If values vary between groups as much as within groups, the effective number is the number of values.
    """
    n = len(values)
    codes = np.arange(n) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    n_groups = int(codes.max()) + 1
    if n_groups in (1, n):
        return float(n), _NORMAL_QUANTILE
    deviations = values - values.mean()
    sums = np.bincount(codes, weights=deviations)
    variance = n_groups / (n_groups - 1) * float((sums**2).sum()) / n**2
    quantile = float(stats.t.ppf(0.975, n_groups - 1))
    if variance == 0:  # all images are right, or all are equally wrong
        return float(n_groups), quantile
    return min(float(n), float(values.var()) / variance), quantile


def measure_balance(y_true: npt.ArrayLike, y_pred: npt.ArrayLike) -> ClassBalance:
    """Find the largest class, and the class with the lowest recall.

    Examples
    --------
    >>> from featx.reporting.metrics import measure_balance
    >>> measure_balance(["a", "a", "a", "b"], ["a", "a", "a", "a"]).describe()
    'lowest recall 0.000 of b (1 image); always answering a: accuracy 0.750'
    """
    true, predicted = np.asarray(y_true), np.asarray(y_pred)
    classes, codes, counts = np.unique(true, return_inverse=True, return_counts=True)
    recalls = np.bincount(codes, weights=true == predicted) / counts
    largest, worst = int(counts.argmax()), int(np.lexsort((-counts, recalls))[0])
    return ClassBalance(
        largest=str(classes[largest]),
        baseline=float(counts[largest] / len(true)),
        ratio=float(counts[largest] / counts.min()),
        worst=str(classes[worst]),
        worst_recall=float(recalls[worst]),
        worst_count=int(counts[worst]),
    )


def wilson_interval(share: float, n: float, quantile: float = _NORMAL_QUANTILE) -> tuple[float, float]:
    """Return Wilson's 95 % confidence interval of a share of n draws; n may be an effective number.

    ``quantile`` is the normal quantile, or Student's larger quantile if the variance was estimated from few draws.

    Examples
    --------
    >>> from featx.reporting.metrics import wilson_interval
    >>> tuple(round(end, 3) for end in wilson_interval(0.9, 100))
    (0.826, 0.945)
    """
    z = quantile**2 / n
    middle, half = (share + z / 2) / (1 + z), (z * share * (1 - share) + z**2 / 4) ** 0.5 / (1 + z)
    return max(0.0, middle - half), min(1.0, middle + half)


def describe_score(facts: Mapping[str, Any]) -> str:
    """Return a score in its stored form (`Score.facts`) as one line of text.

    Examples
    --------
    >>> from featx.reporting.metrics import score
    >>> print(score("held-out images", ["a", "b"] * 50, ["a", "b"] * 49 + ["a", "a"], "classification"))
    held-out images: accuracy 0.990 (95 % interval 0.946 to 0.998)
    """
    parts = []
    for name, value in facts["values"].items():
        if name == "balanced_accuracy" and not describe_balance(facts):
            continue  # for classes of equal size it is the accuracy
        text = f"{name.replace('_', ' ')} {format_metric(value)}"
        if interval := facts["intervals"].get(name):
            text += f" (95 % interval {' to '.join(map(format_metric, interval))})"
        parts.append(text)
    return f"{facts['how']}: {', '.join(parts)}" if parts else str(facts["how"])


def describe_balance(facts: Mapping[str, Any]) -> str:
    """Return the lowest recall and the largest class of a stored score; an empty string for classes of similar size.

    ``how`` of the score states if it was measured on images, texts or rows.

    Examples
    --------
    >>> from featx.reporting.metrics import describe_balance, score
    >>> rare = score("held-out images", ["a", "a", "a", "b"], ["a"] * 4, "classification")
    >>> describe_balance(rare.facts())
    'lowest recall 0.000 of b (1 image); always answering a: accuracy 0.750'
    """
    if not (stored := facts.get("balance")):
        return ""
    balance = ClassBalance(**{field.name: stored[field.name] for field in fields(ClassBalance)})
    noun = next((noun for noun in ("text", "row") if f"left-out {noun}s" in facts["how"]), "image")
    return "" if balance.is_even else balance.describe(noun)
