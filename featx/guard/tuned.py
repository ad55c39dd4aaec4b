"""Fit a guard for a network that was tuned on the images of the fit."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard.fit import arrange, fit_parts
from featx.guard.guard import Guard
from featx.guard.inputs import check_features, deal_groups
from featx.guard.outliers import FoldFeatures, fit_tuned_outliers
from featx.heads import OutOfFold

__all__ = ["fit_tuned"]


def fit_tuned(
    features: npt.ArrayLike,
    y: npt.ArrayLike,
    folds: Iterable[FoldFeatures],
    out_of_fold: OutOfFold,
    *,
    groups: npt.ArrayLike | None = None,
    log_target: bool = False,
) -> Guard:
    """Fit a guard for a network that was tuned on all images, and once without the left-out images of each fold.

    Tuning draws the images that a network is tuned on to their classes, and no other images. So each fold treats its
    left-out images as new images: they are measured with the components, means and covariance of the images that the
    network of the fold was tuned on. For the final network, these are computed on the images of the first fold.

    Parameters
    ----------
    features : array-like of shape (n, n_features)
        Features of all images by the final network.
    y : array-like of shape (n,)
        Their classes or numbers.
    folds : iterable of FoldFeatures
        Some or all folds. They are read once, and the features of one fold are in memory at a time.
    out_of_fold : OutOfFold
        Answers for the images that these folds leave out.
    groups, log_target
        As for `featx.Guard.fit`.

    Returns
    -------
    Guard

    Raises
    ------
    InputError
        If there are fewer than 50 left-out images or groups, or if the arrays do not fit together.

    See Also
    --------
    featx.Guard.fit : For features that have not seen the labels.
    """
    matrix = check_features(features)
    found, calibrates = arrange(out_of_fold, len(matrix), groups, "images")
    values = np.asarray(y)
    if values.shape != (len(matrix),):
        raise InputError(f"y of shape {values.shape}: expected one class or number for each of {len(matrix)} images")
    n_classes = 1 if found.classes is None else len(found.classes)
    codes = np.zeros(len(values), np.intp) if found.classes is None else np.searchsorted(found.classes, values)
    *outliers, scaling = fit_tuned_outliers(matrix, codes, folds, found.rows, calibrates, n_classes)
    # left-out images of other groups predict the error of a prediction, even if all images are of one fold
    dealt = deal_groups(np.arange(len(matrix)) if groups is None else np.asarray(groups), found.rows)
    return Guard(**vars(fit_parts(lambda *_: tuple(outliers), found, dealt, calibrates, scaling, log_target)))
