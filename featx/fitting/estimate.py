"""Estimate a head on left-out images, with groups and near-duplicates on one side of each fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import check_cv

from featx._events import Events
from featx._validation import check_integer
from featx.backbones import open_backbone
from featx.errors import InputError
from featx.extractor import FeatureExtractor
from featx.inference.spec import list_backbones
from featx.report.metrics import Score, score
from featx.selection.folds import count_folds, join_groups, make_folds

__all__ = ["check_splitter", "score_left_out", "sees_content"]

Labels = npt.NDArray[Any]
_MAX_FOLDS = 5


def sees_content(extractor: FeatureExtractor) -> bool:
    """Return whether features are as deep as the backbone's own; shallower ones are alike for many images."""
    backbone = open_backbone(list_backbones(extractor.backbone)[0], extractor.precision)
    deepest = backbone.select(None)[0].name
    return deepest in np.ravel(extractor.value_parameters_["layer"]) and extractor.pooling == "avg"


def check_splitter(cv: Any) -> Any:
    """Return ``cv`` if it is None, an integer of at least 2, or a splitter of scikit-learn."""
    if cv is None or hasattr(cv, "split"):
        return cv
    if isinstance(cv, (int, np.integer)):
        return check_integer("cv", cv, 2)
    try:
        return list(cv)
    except TypeError:
        raise InputError(f"cv={cv!r}: expected a number of folds or a splitter of scikit-learn") from None


def score_left_out(
    make: Callable[[int], Any],
    X: npt.NDArray[np.float32],
    y: Labels,
    task: str,
    *,
    duplicates: Labels | None = None,
    groups: Labels | None = None,
    cv: Any = None,
    events: Events,
) -> Score | None:
    """Predict each fold with a head that was fitted on the others, and score the predictions.

    ``make`` takes a number of inner folds and returns an unfitted head. Images of a group always stay on one side,
    and near-duplicates if the classes allow it. None if a fold has too few images of a class to fit on.
    """
    folds, together = _make_folds(X, y, task, duplicates, groups, cv)
    how = f"left-out images, {len(folds)} folds"
    how += ", groups on one side" if groups is not None else ""
    how += ", near-duplicates on one side" if duplicates is not None and together else ""
    inner = _MAX_FOLDS
    if task == "classification":
        classes, codes = np.unique(y, return_inverse=True)
        rarest = (np.bincount(codes[fit], minlength=len(classes)).min() for fit, _ in folds)
        inner = min(_MAX_FOLDS, *map(int, rarest))
    else:
        inner = count_folds(task, y)
    if inner < 2:
        return None
    predicted = []
    events.begin("folds", len(folds), unit="fold")
    for fit, out in folds:
        predicted.append(make(inner).fit(X[fit], y[fit]).predict(X[out]))
        events.advance()
    events.end()
    rows = np.concatenate([out for _, out in folds])
    joined = join_groups(duplicates, groups)
    together_rows = None if joined is None else joined[rows]
    return score(how, y[rows], np.concatenate(predicted), task, groups=together_rows)


def _make_folds(
    X: Any, y: Labels, task: str, duplicates: Labels | None, groups: Labels | None, cv: Any
) -> tuple[list[Any], bool]:
    if cv is not None and not isinstance(cv, int):
        joined = join_groups(duplicates, groups)
        splitter = check_cv(cv, y, classifier=task == "classification")
        try:
            return list(splitter.split(X, y, joined)), False
        except ValueError as error:
            raise InputError(f"cv={cv!r}: cannot divide {len(y)} images ({error})") from None
    n_folds = count_folds(task, y, cv or _MAX_FOLDS)
    folds, together = make_folds(task, y, join_groups(duplicates, groups), n_folds=n_folds)
    if groups is None or together:
        return folds, together
    folds, together = make_folds(
        task, y, join_groups(groups), n_folds=n_folds
    )  # duplicates across groups may be too many
    if not together:
        raise InputError(
            f"groups: {len(np.unique(groups))} groups cannot be divided into {n_folds} folds that each leave enough "
            "images of every class to fit on; use fewer folds or fit without an estimate"
        )
    return folds, False
