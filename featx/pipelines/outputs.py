"""Find the several labels or numbers that a fitted estimator predicts."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.compose import TransformedTargetRegressor
from sklearn.multioutput import MultiOutputRegressor
from sklearn.pipeline import Pipeline

from featx.errors import InputError

__all__ = ["count_outputs", "find_several"]


def find_several(estimator: Any, n_features: int | None = None) -> tuple[str, tuple[str, ...]] | None:
    """Return the task and the names of an estimator that predicts several labels or numbers per row, else None.

    Labels and numbers without names are numbered.

    Parameters
    ----------
    estimator : estimator
        Fitted.
    n_features : int or None, default=None
        Number of features: the outputs are counted by a prediction. None is an estimator of data frames, whose
        attributes count them.

    Raises
    ------
    InputError
        If it predicts several classes per row.

    Examples
    --------
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> from featx.pipelines import find_several
    >>> head = KNeighborsClassifier(1).fit([[0.0], [1.0]], [[0, 1], [1, 1]])
    >>> find_several(head, 1)
    ('multilabel', ('0', '1'))
    """
    n = None
    if n_features is not None:
        try:
            n = count_outputs(estimator, np.zeros((1, n_features), np.float32))
        except Exception:  # such as a head that is not fitted: the first prediction of an image raises the error
            return None
    last = estimator
    while isinstance(last, (Pipeline, TransformedTargetRegressor)):
        last = last[-1] if isinstance(last, Pipeline) else last.regressor_
    n = _read_count(last) if n is None else n
    classes, is_multilabel = getattr(last, "classes_", None), getattr(last, "multilabel_", False)
    if n == 1 and not is_multilabel and not isinstance(classes, list):
        return None
    if classes is None:
        return "regression", tuple(map(str, range(n)))
    if isinstance(classes, list) and any(not set(np.asarray(each).tolist()) <= {0, 1} for each in classes):
        raise InputError(
            f"{type(last).__name__} predicts {n} classes per {'row' if n_features is None else 'image'}, expected one "
            "class, one number, or labels of 0 and 1; fit one pipeline for each of them, or call predict of the loaded "
            "pipeline in Python"
        )
    is_named = isinstance(classes, np.ndarray) and classes.dtype.kind in "UO"
    return "multilabel", tuple(map(str, classes if is_named else range(n)))


def _read_count(estimator: Any) -> int:
    """Return the number of labels or numbers that an estimator predicts, by its fitted attributes."""
    classes = getattr(estimator, "classes_", None)
    if classes is not None:
        return len(classes) if isinstance(classes, list) or getattr(estimator, "multilabel_", False) else 1
    if isinstance(estimator, MultiOutputRegressor):
        return len(estimator.estimators_)
    # forests and networks count their outputs, and linear models have a row for each
    coef = np.shape(getattr(estimator, "coef_", ()))
    return int(getattr(estimator, "n_outputs_", coef[0] if len(coef) == 2 else 1))


def count_outputs(estimator: Any, X: npt.NDArray[Any]) -> int:
    """Count the labels or numbers that a fitted estimator predicts per row."""
    predicted = estimator.predict(X)  # several labels may be a sparse matrix
    shape = predicted.shape if hasattr(predicted, "shape") else np.shape(predicted)
    return int(shape[1]) if len(shape) > 1 else 1
