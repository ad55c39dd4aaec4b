"""Compute sets of labels and intervals of numbers with a coverage, from left-out answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard.counts import condense, find_quantile, stack

__all__ = ["Intervals", "Sets", "fit_intervals", "fit_sets"]

Floats = npt.NDArray[np.float32]

#: Scores that are kept: of all classes together, and of one class or a regression.
_MAX_SCORES, _MAX_OF_CLASS = 10_000, 1000
#: Penalty of the regression that estimates the error of an image, per image. Of 0.1 to 30, it gives about the narrowest
#: intervals for scikit-learn's diabetes and for brightness and saturation of photos (benchmarks/guard.py).
_PENALTY = 3.0


@dataclass(frozen=True, eq=False)
class Sets:
    """Scores of left-out images: 1 minus the probability of the true label.

    Parameters
    ----------
    scores : ndarray of float32, shape (n_classes, m)
        Sorted scores of each class; -1 pads a shorter row.
    counts : ndarray of int32, shape (n_classes, m)
        Number of images that each score represents.
    """

    scores: Floats
    counts: npt.NDArray[np.int32]

    def limits(self, coverage: float, per_class: bool, classes: tuple[str, ...]) -> npt.NDArray[np.float64]:
        """Return the largest score with which a label is in the set, of shape (n_classes,)."""
        needed = count_needed(coverage)
        if not per_class:
            limit = find_quantile(self.scores, self.counts, coverage)
            if limit is None:
                raise InputError(_explain(coverage, f"{int(self.counts.sum())} left-out answers", needed))
            return np.full(len(self.scores), limit)
        limits_of_classes = [find_quantile(*row, coverage) for row in zip(self.scores, self.counts, strict=True)]
        limits = [limit for limit in limits_of_classes if limit is not None]
        if len(limits) < len(limits_of_classes):
            rarest = int(self.counts.sum(axis=1).argmin())
            n = int(self.counts[rarest].sum())
            what = f"per_class=True: {n} left-out answers of {classes[rarest]!r}"
            raise InputError(f"{_explain(coverage, what, needed)} of each class; or use sets for all classes together")
        return np.asarray(limits)


@dataclass(frozen=True, eq=False)
class Intervals:
    """Errors of left-out images, each divided by its expected error.

    Parameters
    ----------
    weights : ndarray of float32, shape (n_inputs + 1,)
        Linear model of the logarithm of the error, the constant last.
    scale : ndarray of float32, shape (2, n_inputs)
        Mean and deviation of its inputs: the coordinates of an image and its prediction.
    limits : ndarray of float32, shape (2,)
        Smallest and largest expected error.
    scores : ndarray of float32, shape (1, m)
        Sorted quotients.
    counts : ndarray of int32, shape (1, m)
    is_logarithm : bool, default=False
        True if predictions and errors are logarithms of the target, as in a fit with ``log_target``.
    """

    weights: Floats
    scale: Floats
    limits: Floats
    scores: Floats
    counts: npt.NDArray[np.int32]
    is_logarithm: bool = False

    def expect(self, coordinates: Floats, predicted: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return the expected error of each image."""
        return _expect(self.weights, self.scale, self.limits, _join(coordinates, predicted))

    def ends(self, coordinates: Floats, predicted: npt.NDArray[Any], coverage: float) -> npt.NDArray[np.float64]:
        """Return both ends of the interval of each image, of shape (n, 2)."""
        middle = self._scale(predicted)
        width = self.factor(coverage) * self.expect(coordinates, middle)
        found: npt.NDArray[np.float64] = np.stack([middle - width, middle + width], axis=1)
        return np.asarray(np.exp(found)) if self.is_logarithm else found

    def _scale(self, predicted: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        """Return predictions on the scale of the fit."""
        values = np.asarray(predicted, float)
        if not self.is_logarithm:
            return values
        if (values <= 0).any():
            raise InputError(
                f"answers: {values.min():g} has no logarithm, and the guard is of a fit with log_target=True; "
                "expected positive numbers"
            )
        return np.asarray(np.log(values))

    def factor(self, coverage: float) -> float:
        """Return half the width of an interval per expected error."""
        factor = find_quantile(self.scores, self.counts, coverage)
        if factor is None:
            raise InputError(_explain(coverage, f"{int(self.counts.sum())} left-out answers", count_needed(coverage)))
        return factor


def count_needed(coverage: float) -> int:
    """Return the smallest number of images with which the coverage can be promised."""
    return int(np.ceil(coverage / (1 - coverage) - 1e-9))


def _explain(coverage: float, what: str, needed: int) -> str:
    return f"coverage={coverage:g}: {what} cannot promise it; at least {needed} are needed"


def fit_sets(probabilities: npt.NDArray[Any], codes: npt.NDArray[np.intp]) -> Sets:
    """Keep the scores of the true labels, class by class (LAC, Sadinle et al. 2019)."""
    n_classes = probabilities.shape[1]
    scores = 1 - np.asarray(probabilities, np.float64)[np.arange(len(codes)), codes]
    max_scores = max(1, min(_MAX_OF_CLASS, _MAX_SCORES // n_classes))
    return Sets(*stack([condense(scores[codes == code], max_scores) for code in range(n_classes)]))


def fit_intervals(
    coordinates: Floats,
    predicted: npt.NDArray[Any],
    y: npt.NDArray[Any],
    folds: npt.NDArray[np.intp],
    calibrates: npt.NDArray[np.bool_],
    is_logarithm: bool = False,
) -> Intervals:
    """Fit the expected error, and keep the quotients of images whose fold was not used for it.

    The intervals are those of normalised conformal prediction (Papadopoulos et al. 2002). They are computed on the
    scale of the fit: an interval around the logarithm of a price holds positive prices only.
    """
    if is_logarithm:
        predicted, y = np.log(np.asarray(predicted, float)), np.log(np.asarray(y, float))
    inputs, errors = _join(coordinates, predicted), np.abs(np.asarray(y, float) - predicted)
    quotients = np.empty(len(errors))
    for fold in range(int(folds.max()) + 1):
        out = folds == fold
        quotients[out] = errors[out] / _expect(*_fit_difficulty(inputs[~out], errors[~out]), inputs[out])
    scores = stack([condense(quotients[calibrates], _MAX_OF_CLASS)])
    return Intervals(*_fit_difficulty(inputs, errors), *scores, is_logarithm)


def _join(coordinates: Floats, predicted: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return np.column_stack([coordinates, np.asarray(predicted, float)])


def _fit_difficulty(inputs: npt.NDArray[np.float64], errors: npt.NDArray[np.float64]) -> tuple[Floats, Floats, Floats]:
    """Fit a ridge regression of the logarithm of the error on standardised inputs."""
    floor = max(float(np.quantile(errors, 0.05)), float(errors.max()) * 1e-6, float(np.finfo(np.float32).tiny))
    target = np.log(np.maximum(errors, floor))
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    deviation = np.where(deviation > 0, deviation, 1.0)
    scaled = (inputs - mean) / deviation
    products = scaled.T @ scaled + _PENALTY * len(scaled) * np.eye(scaled.shape[1])
    weights = np.linalg.solve(products, scaled.T @ (target - target.mean()))
    limits = np.exp(np.quantile(target.mean() + scaled @ weights, [0.01, 0.99]))
    return (
        np.append(weights, target.mean()).astype(np.float32),
        np.stack([mean, deviation]).astype(np.float32),
        limits.astype(np.float32),
    )


def _expect(weights: Floats, scale: Floats, limits: Floats, inputs: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    logarithms = (inputs - scale[0]) / scale[1] @ weights[:-1].astype(float) + float(weights[-1])
    return np.asarray(np.exp(np.clip(logarithms, *np.log(limits.astype(float)))))
