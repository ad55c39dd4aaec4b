"""Fit the parts of a guard from features, or from rows of several kinds of columns, and left-out answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard.alignment import Scaling, fit_scaling
from featx.guard.checked import OUTLIER_LEVEL
from featx.guard.conformal import fit_intervals, fit_sets
from featx.guard.inputs import check_features, draw_one, keep_first, merge_folds
from featx.guard.kinds import KindCells, KindOutliers, fit_kinds
from featx.guard.outliers import Outliers, fit_outliers
from featx.guard.parts import GuardParts
from featx.guard.priors import fit_priors
from featx.guard.risk import fit_risk
from featx.guard.shift import fit_baseline
from featx.heads import OutOfFold

__all__ = ["MIN_IMAGES", "arrange", "fit_features", "fit_parts", "fit_rows"]

Floats = npt.NDArray[np.float32]
Booleans = npt.NDArray[np.bool_]
Doubles = npt.NDArray[np.float64]

#: Minimum number of images for a guard. The smallest p-value of 50 images, 1/51, is below OUTLIER_LEVEL.
MIN_IMAGES = 50

#: Takes the class of each left-out image and the number of classes. Returns the outliers, and the coordinates, the
#: distances to classes and the p-values of the left-out images.
FitOutliers = Callable[[npt.NDArray[np.intp], int], tuple[Outliers | KindOutliers, Floats, Floats, Doubles]]


def fit_features(features: npt.ArrayLike, out_of_fold: OutOfFold, groups: Any, log_target: bool) -> GuardParts:
    """Fit the parts for features; parameters as for `featx.Guard.fit`."""
    matrix = check_features(features)
    found, calibrates = arrange(out_of_fold, len(matrix), groups, "images")
    matrix, folds = matrix[found.rows], merge_folds(found.folds)

    def fit(codes: npt.NDArray[np.intp], n_classes: int) -> Any:
        return fit_outliers(matrix, codes, folds, calibrates, n_classes)

    return fit_parts(fit, found, folds, calibrates, fit_scaling(matrix), log_target)


def fit_rows(rows: KindCells, out_of_fold: OutOfFold, groups: Any, log_target: bool) -> GuardParts:
    """Fit the parts for rows of several kinds of columns; parameters as for `featx.Guard.fit_kinds`."""
    n = len(next(iter(rows.cells.values())))
    found, calibrates = arrange(out_of_fold, n, groups, "rows")
    if len(found.rows) < n:
        raise InputError(f"out_of_fold: answers for {len(found.rows)} of {n} rows; expected one for each of them")
    folds = merge_folds(found.folds)
    together = np.arange(n) if groups is None else np.asarray(groups)

    def fit(codes: npt.NDArray[np.intp], n_classes: int) -> Any:
        return fit_kinds(rows, together, codes, folds, calibrates, n_classes)

    return fit_parts(fit, found, folds, calibrates, None, log_target)


def fit_parts(
    fit: FitOutliers,
    found: OutOfFold,
    folds: npt.NDArray[np.intp],
    calibrates: Booleans,
    scaling: Scaling | None,
    log_target: bool,
) -> GuardParts:
    """Fit all parts from left-out answers; ``calibrates`` is True for answers that promises count."""
    n = len(found.rows)
    if found.y.ndim == 2:  # several labels or numbers per image
        outliers, *_ = fit(np.zeros(n, np.intp), 1)
        names = None if found.classes is None else tuple(map(str, found.classes.tolist()))
        task = "regression" if names is None else "multilabel"
        return GuardParts(task, names, outliers, scaling=scaling, is_single=False)
    if found.classes is None:
        outliers, coordinates, *_ = fit(np.zeros(n, np.intp), 1)
        intervals = fit_intervals(coordinates, found.predicted, found.y, folds, calibrates, log_target)
        baseline = fit_baseline(found.predicted[calibrates])
        return GuardParts("regression", None, outliers, intervals=intervals, baseline=baseline, scaling=scaling)
    codes = np.searchsorted(found.classes, found.y)
    classes = tuple(map(str, found.classes.tolist()))
    outliers, _, distances, p_values = fit(codes, len(classes))
    if found.probabilities is None:
        return GuardParts("classification", classes, outliers, scaling=scaling)
    probabilities, right = found.probabilities[calibrates], (found.predicted == found.y)[calibrates]
    return GuardParts(
        "classification",
        classes,
        outliers,
        risk=fit_risk(probabilities.max(axis=1), right, p_values[calibrates] < OUTLIER_LEVEL),
        sets=fit_sets(probabilities, codes[calibrates]),
        priors=fit_priors(probabilities, codes[calibrates]),
        baseline=fit_baseline(probabilities, codes[calibrates], distances[calibrates]),
        scaling=scaling,
    )


def arrange(out_of_fold: OutOfFold, n_rows: int, groups: Any, what: str) -> tuple[OutOfFold, Booleans]:
    """Return the first answer for each row, and a mask of the answers that promises count; refuse too few answers."""
    found = keep_first(out_of_fold)
    if len(found.rows) and not 0 <= int(found.rows.max()) < n_rows:
        raise InputError(
            f"features: {n_rows} rows, and out_of_fold has an answer for row {int(found.rows.max())}; "
            f"expected the features of all {what} of the fit"
        )
    calibrates = np.ones(len(found.rows), bool)
    if groups is not None:
        calibrates = draw_one(np.asarray(groups), n_rows, found.rows)
    n = int(calibrates.sum())
    if n < MIN_IMAGES:
        if groups is None:
            raise InputError(f"{n} {what} are too few for a guard; at least {MIN_IMAGES} are needed")
        raise InputError(
            f"{len(found.rows)} {what} are {n} groups (near-duplicates, or a column of groups), and a guard counts "
            f"each group once; at least {MIN_IMAGES} groups are needed"
        )
    return found, calibrates
