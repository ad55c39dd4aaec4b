"""Read the answers of a fitted head: labels, probabilities or decisions, or numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Response", "find_output", "respond"]


@dataclass(frozen=True, eq=False)
class Response:
    """The output of a fitted head.

    Parameters
    ----------
    name : {"probabilities", "scores", "label", "value"}
        Name of the numbers; ``"label"`` for a classifier without numbers.
    numbers : ndarray of shape (n_samples, ...)
        Probabilities, decisions (one per image for two classes) or values; empty for ``"label"``.
    labels : ndarray of shape (n_samples,), or None
        Predicted classes; None for a regressor. For several labels per row, 0 and 1 of shape (n_samples, n_labels).
    """

    name: str
    numbers: npt.NDArray[Any]
    labels: npt.NDArray[Any] | None


def find_output(head: Any) -> tuple[str, str]:
    """Return the name of the numbers that a fitted head returns, as in `Response`, and its method for them.

    Examples
    --------
    >>> from sklearn.svm import LinearSVC
    >>> from featx.heads import find_output, make_head
    >>> X, y = [[0.0, 1.0], [1.0, 0.0]] * 5, ["ant", "bee"] * 5
    >>> [find_output(head.fit(X, y))[0] for head in (make_head("knn"), LinearSVC())]
    ['probabilities', 'scores']
    """
    if not hasattr(head, "classes_"):
        return "value", "predict"
    methods = (("probabilities", "predict_proba"), ("scores", "decision_function"))
    return next((output for output in methods if hasattr(head, output[1])), ("label", "predict"))


def respond(head: Any, X: npt.NDArray[Any]) -> Response:
    """Predict with a fitted head: classes, with probabilities or else decisions, or values.

    Examples
    --------
    >>> from sklearn.svm import LinearSVC
    >>> from featx.heads import respond
    >>> response = respond(LinearSVC().fit([[0.0], [1.0]], ["ant", "bee"]), [[0.0], [1.0]])
    >>> response.labels.tolist(), response.name, response.numbers.shape
    (['ant', 'bee'], 'scores', (2,))
    """
    predicted = head.predict(X)
    predicted = np.asarray(predicted.toarray() if hasattr(predicted, "toarray") else predicted)
    name, method = find_output(head)
    if name == "value":
        return Response(name, predicted, None)
    numbers: Any = np.empty((len(predicted), 0)) if name == "label" else getattr(head, method)(X)
    if predicted.ndim == 2:
        return Response(name, _join_labels(numbers, predicted, name), predicted.astype(int))
    return Response(name, np.asarray(numbers), predicted)


def _join_labels(numbers: Any, predicted: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """Return one number per label; some heads return a list of arrays of two columns, or of one for a constant."""
    if not isinstance(numbers, list):
        return np.asarray(numbers)
    if name == "probabilities":
        columns = [part[:, 1] if part.shape[1] > 1 else predicted[:, i] for i, part in enumerate(numbers)]
        return np.stack(columns, axis=1).astype(float)
    return np.stack(numbers, axis=1)
