"""Calibrate probabilities, and adapt them to other shares of the classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

__all__ = ["Adapted", "Priors", "fit_priors"]

Doubles = npt.NDArray[np.float64]

#: Smallest probability before the logarithm.
_FLOOR = 1e-6
#: Largest number of left-out images for the fit of the calibration.
_MAX_ROWS = 20_000
_MAX_STEPS, _TOLERANCE = 1000, 1e-6


@dataclass(frozen=True, eq=False)
class Adapted:
    """Probabilities for images whose classes have other shares than at the fit.

    Parameters
    ----------
    probabilities : ndarray of float64, shape (n, n_classes)
        Probabilities under the estimated shares.
    shares : ndarray of float64, shape (n_classes,)
        Estimated shares of the classes.
    fitted_shares : ndarray of float64, shape (n_classes,)
        Shares of the classes at the fit.
    classes : tuple of str
        Labels of the columns.

    See Also
    --------
    featx.Guard : Makes it; its example shows one.
    """

    probabilities: Doubles
    shares: Doubles
    fitted_shares: Doubles
    classes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Priors:
    """Calibration of probabilities, and the shares of the classes at the fit.

    Parameters
    ----------
    sharpness : float
        Factor of the logarithms of the probabilities: 1 / temperature.
    biases : ndarray of float32, shape (n_classes,)
        Added to these logarithms.
    shares : ndarray of float32, shape (n_classes,)
        Shares of the classes at the fit.
    """

    sharpness: float
    biases: npt.NDArray[np.float32]
    shares: npt.NDArray[np.float32]

    def calibrate(self, probabilities: npt.NDArray[Any]) -> Doubles:
        """Return calibrated probabilities."""
        return np.asarray(softmax(self.sharpness * _logits(probabilities) + self.biases, axis=1), float)

    def adapt(self, probabilities: npt.NDArray[Any]) -> tuple[Doubles, Doubles]:
        """Return probabilities under the most likely shares of the classes, and these shares (Saerens et al. 2002)."""
        calibrated = self.calibrate(probabilities)
        before = np.maximum(self.shares.astype(float), _FLOOR)
        shares = before / before.sum()
        before = shares
        for _ in range(_MAX_STEPS):
            adapted = calibrated * (shares / before)
            adapted /= adapted.sum(axis=1, keepdims=True)
            found = adapted.mean(axis=0)
            moved = float(np.abs(found - shares).sum())
            shares = found
            if moved < _TOLERANCE:
                break
        adapted = calibrated * (shares / before)
        return adapted / adapted.sum(axis=1, keepdims=True), shares


def fit_priors(probabilities: npt.NDArray[Any], codes: npt.NDArray[np.intp]) -> Priors:
    """Fit one temperature and one bias per class on left-out answers (BCTS, Alexandari et al. 2020)."""
    n_classes = probabilities.shape[1]
    shares = np.bincount(codes, minlength=n_classes) / len(codes)
    step = -(-len(codes) // _MAX_ROWS)
    logits, codes = _logits(probabilities[::step]), codes[::step]
    target = np.zeros_like(logits)
    target[np.arange(len(codes)), codes] = 1
    # the penalty acts as one more left-out image of each class with equal probabilities: rare classes keep small biases
    target += 1 / len(codes)
    target /= target.sum(axis=1, keepdims=True)

    def loss(parameters: Doubles) -> tuple[float, Doubles]:
        scores = np.exp(parameters[0]) * logits + parameters[1:]
        logs = log_softmax(scores, axis=1)
        slopes = (np.exp(logs) - target) / len(codes)
        steepness = np.append(np.exp(parameters[0]) * (slopes * logits).sum(), slopes.sum(axis=0))
        penalty = parameters[1:] / len(codes)
        steepness[1:] += penalty
        return float(-(target * logs).sum() / len(codes) + (parameters[1:] @ penalty) / 2), steepness

    found = minimize(
        loss, np.zeros(1 + n_classes), jac=True, method="L-BFGS-B", bounds=[(-3, 3)] + [(-10, 10)] * n_classes
    )
    return Priors(float(np.float32(np.exp(found.x[0]))), found.x[1:].astype(np.float32), shares.astype(np.float32))


def _logits(probabilities: npt.NDArray[Any]) -> Doubles:
    return np.asarray(np.log(np.maximum(np.asarray(probabilities, float), _FLOOR)))
