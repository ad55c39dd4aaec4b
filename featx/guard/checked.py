"""Results of a guard's checks of images, one by one and as a set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from featx.errors import InputError

__all__ = ["MIN_SET_IMAGES", "OUTLIER_LEVEL", "SHIFT_LEVEL", "Checked", "CheckedSet"]

#: An image with a p-value below this is an outlier, which a bound of the error leaves without an answer.
OUTLIER_LEVEL = 0.02
#: Images below which only large shifts of a set show; it is then compared on request alone.
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
        Reason why an image is not answered, or None.
    sets : ndarray of bool, shape (n, n_classes), or None
        Labels that the set of each image holds; None without ``coverage``, and for a regression.
    intervals : ndarray of float64, shape (n, 2), or None
        Lower and upper end for each image; None without ``coverage``, and for classes.
    classes : tuple of str or None
        Labels of the columns of ``sets``; None for a regression.
    kinds : tuple of str or None, or None, default=None
        For rows of several kinds of columns, the kind of the smallest p-value of each outlier, and None for the other
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
        """Return the set of each image as labels.

        Raises
        ------
        InputError
            If the check has no sets.
        """
        if self.sets is None or self.classes is None:
            raise InputError("no sets of labels: check a classifier's images with coverage=0.95, for instance")
        classes = self.classes
        return [tuple(classes[i] for i in np.flatnonzero(row)) for row in self.sets]


@dataclass(frozen=True, eq=False)
class CheckedSet:
    """The comparison of a set of images with those of a fit.

    Parameters
    ----------
    outlier : ndarray of float64, shape (n,)
        P-value of each image, as of `Checked`.
    p_value : float
        Of images of the same kind: the smallest of the next two, times their number (Bonferroni).
    p_images : float
        Of p-values of the images as at the fit, by the test of Kolmogorov and Smirnov.
    p_answers : ndarray of float64, shape (n_columns,)
        Of probabilities as at the fit, class by class, or of predicted numbers (Rabanser et al. 2019).
    p_shares : float or None
        Of shares of the classes as at the fit, if the images of each class look as they did; None for a regression.
    accuracy : float or None
        Accuracy that is expected on these images; None for a regression.
    shares : ndarray of float64, shape (n_classes,), or None
        Shares of the classes that are estimated by EM.
    p_kinds : mapping of str to float, or None, default=None
        ``p_images`` of each kind of columns by itself; ``p_images`` is the smallest of them times their number.

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
