"""Results of a guard's checks of single images, and of a set of images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.errors import InputError

__all__ = ["MIN_SET_IMAGES", "OUTLIER_LEVEL", "SHIFT_LEVEL", "Checked", "CheckedSet"]

#: An image with a p-value below this is an outlier. With a bound of the error it gets no answer.
OUTLIER_LEVEL = 0.02
#: Smallest set that is compared without a request; smaller sets show only large shifts.
MIN_SET_IMAGES = 20
#: A set with a p-value below this is a shift.
SHIFT_LEVEL = 0.05


@dataclass(frozen=True, eq=False)
class Checked:
    """The check of images by a guard.

    Parameters
    ----------
    outlier : ndarray of float64, shape (n,)
        P-value of each image: the share of images like those of the fit that are at least as far from its
        classes.
    answered : ndarray of bool, shape (n,)
        False for an image whose answer would break the bound of the error; all True without one.
    reasons : tuple of str or None
        Reason why an image gets no answer, or None.
    sets : ndarray of bool, shape (n, n_classes), or None
        Labels in the prediction set of each image; None without ``coverage``, and for a regression.
    intervals : ndarray of float64, shape (n, 2), or None
        Lower and upper end for each image; None without ``coverage``, and for classes.
    classes : tuple of str or None
        Labels of the columns of ``sets``; None for a regression.
    kinds : tuple of str or None, or None, default=None
        For rows of several kinds of columns: the kind with the smallest p-value for each outlier, and None for other
        rows.

    See Also
    --------
    featx.Guard : Makes it; its example shows one.
    """

    outlier: npt.NDArray[np.float64]
    answered: npt.NDArray[np.bool_]
    reasons: tuple[str | None, ...]
    sets: npt.NDArray[np.bool_] | None
    intervals: npt.NDArray[np.float64] | None
    classes: tuple[str, ...] | None
    kinds: tuple[str | None, ...] | None = None

    @property
    def is_outlier(self) -> npt.NDArray[np.bool_]:
        """Images whose p-value is below `featx.guard.OUTLIER_LEVEL`, of shape (n,)."""
        return self.outlier < OUTLIER_LEVEL

    def labels(self) -> list[tuple[str, ...]]:
        """Return the labels in the prediction set of each image.

        Raises
        ------
        InputError
            If the check has no sets.
        """
        if self.sets is None or self.classes is None:
            raise InputError(
                "the check has no sets of labels; check a classifier's images with coverage=0.95, for instance"
            )
        classes = self.classes
        return [tuple(classes[i] for i in np.flatnonzero(row)) for row in self.sets]


@dataclass(frozen=True, eq=False)
class CheckedSet:
    """The comparison of a set of images with those of a fit.

    Parameters
    ----------
    outlier : ndarray of float64, shape (n,)
        P-value of each image, as in `Checked`.
    p_value : float
        P-value of the hypothesis that the images are of the same kind as those of the fit: the smallest of the next
        two, times their number (Bonferroni).
    p_images : float
        P-value of the hypothesis that the images' p-values are those of the fit (Kolmogorov-Smirnov test).
    p_answers : ndarray of float64, shape (n_columns,)
        P-value of the hypothesis that the probabilities of each class, or the predicted numbers, are those of the fit
        (Rabanser et al. 2019).
    p_shares : float or None
        P-value of the hypothesis that the classes have the same shares as at the fit, if the images of each class
        look the same. None for a regression.
    accuracy : float or None
        Accuracy that is expected on these images; None for a regression.
    shares : ndarray of float64, shape (n_classes,), or None
        Shares of the classes, estimated by EM. None for a regression.
    p_kinds : mapping of str to float, or None, default=None
        ``p_images`` of each kind of columns. ``p_images`` is the smallest of these times their number.

    See Also
    --------
    featx.Guard : Makes it; its example shows one.
    """

    outlier: npt.NDArray[np.float64]
    p_value: float
    p_images: float
    p_answers: npt.NDArray[np.float64]
    p_shares: float | None
    accuracy: float | None
    shares: npt.NDArray[np.float64] | None
    p_kinds: Mapping[str, float] | None = None
