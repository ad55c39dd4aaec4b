"""Facts about predictions, ready for JSON; draws and prints nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

__all__ = ["describe_score", "score", "summarize_classification", "summarize_regression", "wilson_interval"]


def summarize_classification(
    y_true: npt.ArrayLike, y_pred: npt.ArrayLike, probabilities: npt.ArrayLike | None, classes: Sequence[str]
) -> dict[str, Any]:
    """Summarise a classification.

    Parameters
    ----------
    y_true, y_pred : array-like of str, shape (n,)
        Labels, all of them among ``classes``.
    probabilities : array-like of float, shape (n, n_classes), or None
        In the order of ``classes``; without them ``log_loss`` and ``roc_auc`` are None.
    classes : sequence of str
        In the head's order.

    Returns
    -------
    dict
        ``n``, ``accuracy``, ``balanced_accuracy`` (mean recall of the classes
        that occur), ``macro_f1``, ``log_loss`` (natural logarithm), ``roc_auc``
        (one against the rest, mean; None where a class does not occur),
        ``per_class`` and ``confusion`` (rows true, columns predicted, both in the
        order of ``per_class``).

    Examples
    --------
    >>> from featx.report.metrics import summarize_classification
    >>> facts = summarize_classification(["a", "b"], ["a", "a"], [[0.9, 0.1], [0.6, 0.4]], ["a", "b"])
    >>> facts["accuracy"], facts["roc_auc"], facts["confusion"]
    (0.5, 1.0, [[1, 0], [1, 0]])
    """
    number = {label: i for i, label in enumerate(classes)}  # scikit-learn sorts labels; numbers keep our order
    y_true, y_pred = (np.array([number[label] for label in np.asarray(y)], dtype=int) for y in (y_true, y_pred))
    labels = list(range(len(classes)))
    p = None if probabilities is None else np.asarray(probabilities, float)
    if p is not None:
        p = p / p.sum(axis=1, keepdims=True)  # float32 rows sum to 1 only nearly
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y_true, y_pred, labels=labels, zero_division=0.0
    )
    occurs = support > 0
    seen = occurs | np.isin(labels, y_pred)
    return {
        "n": len(y_true),
        "accuracy": float(np.mean(y_true == y_pred)),
        "balanced_accuracy": float(recall[occurs].mean()),
        "macro_f1": float(f1[seen].mean()),
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
    """Summarise a regression.

    Parameters
    ----------
    y_true, y_pred : array-like of float, shape (n,)
        In the target's own unit.

    Returns
    -------
    dict
        ``n``; ``mae`` and ``rmse`` in the target's unit; ``r2``, None for fewer than
        two; ``mape``, a fraction, None where a true value is 0.

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


def score(how: str, y_true: npt.ArrayLike, y_pred: npt.ArrayLike, task: str) -> dict[str, Any]:
    """Say how good predictions of left-out images are, and how sure that is.

    Parameters
    ----------
    how : str
        On what it was measured.
    y_true, y_pred : array-like, shape (n,)
        Labels, or numbers in the target's own unit.
    task : {"classification", "regression"}

    Returns
    -------
    dict
        ``how``; ``values``, accuracy, or mae, mape (where no true value is 0) and r2;
        ``intervals``, of 95 %: Wilson's of the accuracy, the normal one of the mae.

    Examples
    --------
    >>> from featx.report.metrics import score
    >>> score("four left-out images", ["a", "b", "a", "b"], ["a", "b", "a", "a"], "classification")["values"]
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
    facts = summarize_regression(y_true, y_pred)
    errors = np.abs(np.asarray(y_true, float) - np.asarray(y_pred, float))
    intervals = {}
    if len(errors) > 1:
        half = 1.96 * float(errors.std(ddof=1)) / len(errors) ** 0.5
        intervals["mae"] = [max(0.0, facts["mae"] - half), facts["mae"] + half]
    values = {name: facts[name] for name in ("mae", "mape", "r2") if facts[name] is not None}
    return {"how": how, "values": values, "intervals": intervals}


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


def describe_score(found: dict[str, Any]) -> str:
    """Say it in a line.

    Examples
    --------
    >>> from featx.report.metrics import describe_score, score
    >>> describe_score(score("left-out images", ["a", "b"] * 50, ["a", "b"] * 49 + ["a", "a"], "classification"))
    'left-out images: accuracy 0.990 (95 % interval 0.946 to 0.998)'
    """
    said = []
    for name, value in found["values"].items():
        text = f"{name} {_short(name, value)}"
        if between := found["intervals"].get(name):
            text += f" (95 % interval {' to '.join(_short(name, end) for end in between)})"
        said.append(text)
    return f"{found['how']}: {', '.join(said)}" if said else str(found["how"])


def _short(name: str, value: float) -> str:
    if name != "mae":
        return f"{value:.3f}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
