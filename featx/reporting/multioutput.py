"""Compute metrics of several labels or several numbers per image, as plain values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from featx.reporting.metrics import Score, summarize_regression

__all__ = ["average_precisions", "score_labels", "score_numbers", "summarize_labels", "summarize_numbers"]

Floats = npt.NDArray[np.float64]
_N_BOOTSTRAPS = 200
#: Number of elements that a bootstrap processes at a time.
_CHUNK = 2_000_000


def summarize_labels(
    true: npt.NDArray[np.int_], predicted: npt.NDArray[np.int_], probabilities: Any, names: Sequence[str]
) -> dict[str, Any]:
    """Compute the metrics of several labels per image, as JSON values.

    Macro metrics are means over the labels that at least one image has. ``micro_f1`` counts all decisions together.
    ``subset_accuracy`` is the share of images whose labels are all right. ``log_loss`` is the mean over images and
    labels. Arrays have the shape (n_images, n_labels).

    Examples
    --------
    >>> import numpy as np
    >>> from featx.reporting.multioutput import summarize_labels
    >>> true = np.array([[1, 0], [1, 1], [0, 0]])
    >>> summary = summarize_labels(true, true, None, ["cat", "dog"])
    >>> summary["macro_f1"], summary["subset_accuracy"], summary["per_label"]["cat"]["support"]
    (1.0, 1.0, 2)
    """
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        true, predicted, average=None, zero_division=0.0
    )
    occurs = support > 0
    p = None if probabilities is None else np.asarray(probabilities, float)
    precisions = None if p is None else average_precisions(true, p)
    clipped = None if p is None else np.clip(p, 1e-15, 1 - 1e-15)
    log_loss = None if clipped is None else -np.log(np.where(true == 1, clipped, 1 - clipped)).mean()
    per_label = {
        name: {
            "precision": float(precision[i]),
            "recall": float(recall[i]),
            "f1": float(f1[i]),
            "average_precision": None if precisions is None or not occurs[i] else float(precisions[i]),
            "support": int(support[i]),
        }
        for i, name in enumerate(names)
    }
    return {
        "n": len(true),
        "macro_average_precision": None if precisions is None or not occurs.any() else float(precisions[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()) if occurs.any() else None,
        "micro_f1": float(metrics.f1_score(true, predicted, average="micro", zero_division=0.0)),
        "subset_accuracy": float((true == predicted).all(axis=1).mean()),
        "log_loss": None if log_loss is None else float(log_loss),
        "per_label": per_label,
    }


def summarize_numbers(true: Floats, predicted: Floats, names: Sequence[str]) -> dict[str, Any]:
    """Compute the metrics of several numbers per image, as JSON values; ``r2`` is the mean over the numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.reporting.multioutput import summarize_numbers
    >>> true = np.array([[1.0, 10.0], [2.0, 30.0]])
    >>> summarize_numbers(true, true + [0, 1], ["rooms", "price"])["per_target"]["price"]["mae"]
    1.0
    """
    per_target = {}
    for i, name in enumerate(names):
        own = summarize_regression(true[:, i], predicted[:, i])
        per_target[name] = {key: value for key, value in own.items() if key != "n"}
    r2 = [row["r2"] for row in per_target.values() if row["r2"] is not None]
    return {"n": len(true), "r2": float(np.mean(r2)) if r2 else None, "per_target": per_target}


def average_precisions(true: npt.NDArray[Any], scores: Floats, counts: Floats | None = None) -> Floats:
    """Return the average precision of each label, as `sklearn.metrics.average_precision_score` computes it.

    ``counts``, of shape (n_draws, n_images), are weights of the images; the result then has a row per draw. A label
    without positive images is NaN.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.reporting.multioutput import average_precisions
    >>> average_precisions(np.array([[1], [0], [1]]), np.array([[0.9], [0.8], [0.1]])).round(3).tolist()
    [0.833]
    """
    weights = np.ones((1, len(true))) if counts is None else counts
    found = np.empty((len(weights), true.shape[1]))
    for label in range(true.shape[1]):
        order = np.argsort(-scores[:, label], kind="stable")
        own, sorted_scores = weights[:, order], scores[order, label]
        ends = np.flatnonzero(np.r_[np.diff(sorted_scores) != 0, True])  # equal scores are one step
        hits = np.cumsum(own * true[order, label], axis=1)[:, ends]
        total = np.cumsum(own, axis=1)[:, ends]
        gained = np.diff(hits, axis=1, prepend=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            found[:, label] = (gained * np.where(total > 0, hits / total, 0)).sum(axis=1) / hits[:, -1]
    return found[0] if counts is None else found


def score_labels(
    how: str,
    true: npt.NDArray[np.int_],
    predicted: npt.NDArray[np.int_],
    probabilities: Any,
    groups: npt.NDArray[Any] | None = None,
) -> Score:
    """Estimate the quality of several labels per image by the macro average precision.

    Without probabilities it is the macro F1. The interval comes from a bootstrap of the images, or of the groups.
    """
    summary = summarize_labels(true, predicted, probabilities, [str(i) for i in range(true.shape[1])])
    names = ("macro_average_precision", "macro_f1", "micro_f1", "subset_accuracy", "log_loss")
    values = {name: summary[name] for name in names if summary[name] is not None}
    metric = next(iter(values))
    if metric == "macro_average_precision":
        scores = np.asarray(probabilities, float)

        def measure(counts: Floats) -> Floats:
            return np.asarray(_nanmean(average_precisions(true, scores, counts)))
    else:

        def measure(counts: Floats) -> Floats:
            hits, found, total = (counts @ part for part in (true * predicted, predicted, true))
            with np.errstate(invalid="ignore"):
                return np.asarray(_nanmean(np.where(total > 0, 2 * hits / (found + total), np.nan)))

    low, high = _bootstrap(measure, len(true), groups, values[metric])
    return Score(how, metric, values[metric], None if low is None else max(0.0, low), high, values)


def score_numbers(
    how: str, true: Floats, predicted: Floats, names: Sequence[str], groups: npt.NDArray[Any] | None = None
) -> Score:
    """Estimate the quality of several numbers per image by the mean R², with the MAE and R² of each number."""
    summary = summarize_numbers(true, predicted, names)
    values = {"r2": summary["r2"] if summary["r2"] is not None else float("nan")}
    for name, row in summary["per_target"].items():
        values |= {f"{metric} of {name}": row[metric] for metric in ("mae", "r2") if row[metric] is not None}
    squares = (true - predicted) ** 2

    def measure(counts: Floats) -> Floats:
        n = counts.sum(axis=1, keepdims=True)
        mean = counts @ true / n
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray((1 - (counts @ squares / n) / (counts @ true**2 / n - mean**2)).mean(axis=1))

    low, high = _bootstrap(measure, len(true), groups, values["r2"])
    return Score(how, "r2", values["r2"], low, high, values)


def _bootstrap(
    measure: Callable[[Floats], Floats], n: int, groups: npt.NDArray[Any] | None, value: float
) -> tuple[float | None, float | None]:
    """Return the 2.5 and 97.5 percentiles of a metric, at most 1, over draws of images or groups with replacement.

    The percentiles are shifted so that the mean of the draws is ``value``. Draws that repeat the few images of a rare
    label, or lack them, score better than all images: for 289 labels on 60 rows the draws gave 0.105 to 0.144, and all
    rows 0.082.
    """
    units = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    n_units = int(units.max()) + 1
    if n_units < 2:
        return None, None
    rng, found, step = np.random.default_rng(0), [], max(1, _CHUNK // n)
    for start in range(0, _N_BOOTSTRAPS, step):
        drawn = rng.integers(0, n_units, (min(step, _N_BOOTSTRAPS - start), n_units))
        counts = np.stack([np.bincount(row, minlength=n_units) for row in drawn]).astype(float)
        found.append(measure(counts[:, units]))
    values = np.concatenate(found)
    values = values[np.isfinite(values)]
    if not len(values):
        return None, None
    move = value - values.mean() if np.isfinite(value) else 0.0
    low, high = np.quantile(values, (0.025, 0.975)) + move
    return float(low), min(1.0, float(high))


def _nanmean(values: Floats) -> Floats:
    held = ~np.isnan(values)
    n = held.sum(axis=1)
    return np.asarray(np.where(n > 0, np.where(held, values, 0).sum(axis=1) / np.maximum(n, 1), np.nan))
