"""Bound the error of the answers above a probability, and find the lowest probability that keeps a bound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import beta

from featx.errors import InputError
from featx.guard.checked import OUTLIER_LEVEL

__all__ = ["CONFIDENCE", "Risk", "answer", "fit_risk"]

#: The error stays below the bound in this share of fits.
CONFIDENCE = 0.9
#: Largest number of probabilities that are kept.
_MAX_SCORES = 2000
#: Largest number of images that a message asks for.
_MAX_IMAGES = 10_000_000


@dataclass(frozen=True, eq=False)
class Risk:
    """Left-out answers in descending order of their probability.

    Parameters
    ----------
    confidence : ndarray of float32, shape (m,)
        Descending top probabilities.
    answered, wrong : ndarray of int32, shape (m,)
        Number of images with at least this probability, and the number of wrong answers among them.
    n_images : int
        Number of left-out images. The outliers among them are never answered.
    """

    confidence: npt.NDArray[np.float32]
    answered: npt.NDArray[np.int32]
    wrong: npt.NDArray[np.int32]
    n_images: int

    def threshold(self, risk: float) -> float:
        """Return the smallest top probability that is answered; see `featx.Guard.threshold`."""
        position = _search(self.answered, self.wrong, self.n_images, risk)
        if position is None:
            raise InputError(self._explain(risk))
        return float(self.confidence[position])

    def _explain(self, risk: float) -> str:
        """Return the reason why a bound cannot be promised, with the number of images that it needs."""
        n = self.n_images
        promise = f"an error below {risk:.3g} with {CONFIDENCE:.0%} confidence"
        text = f"risk={risk:g}: {n} left-out answers cannot promise {promise}: "
        needed = _count_needed(risk, 1.0, 0.0)
        if needed > n:
            return (
                f"{text}even if the answers to all {n} were right, it could be {_bound(n, 0, n):.3g}; "
                f"at least {needed} are needed"
            )
        n_best = _MAX_IMAGES + 1
        for answered, wrong in zip(self.answered.tolist(), self.wrong.tolist(), strict=True):
            if wrong < risk * answered:
                n_best = min(n_best, _count_needed(risk, answered / n, wrong / answered))
        if n_best > _MAX_IMAGES:
            n_surest = int(self.answered[0])
            n_wrong = int(self.wrong[0])
            reason = f"{n_wrong} of the {n_surest} surest answers {'is' if n_wrong == 1 else 'are'} wrong"
            reason = reason if n_surest > 1 else "the surest answer is wrong"
            return f"{text}{reason}; fit a better head, or raise risk"
        n_best = max(n_best, n + 1)  # a bisection does not look at every share of these answers
        return f"{text}with answers as good as these, at least {n_best} are needed"


def fit_risk(confidence: npt.NDArray[Any], right: npt.NDArray[np.bool_], is_outlier: npt.NDArray[np.bool_]) -> Risk:
    """Sort left-out answers by their top probability. Outliers count as images, but are not answered."""
    n = len(confidence)
    confidence, right = np.asarray(confidence, np.float32)[~is_outlier], right[~is_outlier]
    order = np.argsort(-confidence, kind="stable")
    confidence, wrong = confidence[order], np.cumsum(~right[order])
    ends = np.flatnonzero(np.diff(confidence, append=-1) != 0)  # images with equal probabilities are answered together
    if len(ends) > _MAX_SCORES:
        ends = ends[np.ceil(np.arange(1, _MAX_SCORES + 1) * (len(ends) / _MAX_SCORES) - 1e-9).astype(int) - 1]
    return Risk(confidence[ends], (ends + 1).astype(np.int32), wrong[ends].astype(np.int32), n)


def answer(
    certainty: npt.NDArray[np.float64],
    outlier: npt.NDArray[np.float64],
    threshold: float,
    kinds: Sequence[str | None] | None = None,
) -> tuple[npt.NDArray[np.bool_], list[str | None]]:
    """Return a mask of the images that are answered, and the reason for each other image."""
    certainty = certainty.astype(np.float32)  # the dtype of the threshold
    answered = (certainty >= threshold) & (outlier >= OUTLIER_LEVEL)
    reasons: list[str | None] = [None] * len(answered)
    for i in np.flatnonzero(~answered).tolist():
        if outlier[i] < OUTLIER_LEVEL:
            noun = "images" if kinds is None else "rows"
            where = "" if kinds is None else f" in {kinds[i]}"
            reasons[i] = f"unlike the {noun} of the fit{where} (p {outlier[i]:.2g})"
        else:
            reasons[i] = f"probability {certainty[i]:.3g}, below {threshold:.3g}"
    return answered, reasons


def _bound(answered: int, wrong: int, n: int) -> float:
    """Return the Clopper-Pearson upper bound of the error, corrected for the log2(n) steps of a search."""
    steps = max(1, int(np.ceil(np.log2(max(n, 2)))))
    if wrong >= answered:
        return 1.0
    return float(beta.ppf(1 - (1 - CONFIDENCE) / steps, wrong + 1, answered - wrong))


def _search(answered: npt.NDArray[Any], wrong: npt.NDArray[Any], n: int, risk: float) -> int | None:
    """Return the position of the largest share of answers that keeps the bound, or None.

    It is found by bisection (SGR, Geifman and El-Yaniv 2017).
    """
    low, high, best = 0, len(answered) - 1, None
    while low <= high:
        middle = (low + high + 1) // 2
        if _bound(int(answered[middle]), int(wrong[middle]), n) <= risk:
            best, low = middle, middle + 1
        else:
            high = middle - 1
    return best


def _count_needed(risk: float, share: float, error: float) -> int:
    """Return the smallest number of images that keeps the bound if ``share`` of them is answered with ``error``.

    It is ``_MAX_IMAGES + 1`` if even ``_MAX_IMAGES`` images are too few.
    """
    low, high = 1, _MAX_IMAGES + 1
    while low < high:
        n = (low + high) // 2
        answered = int(share * n)
        if answered and _bound(answered, int(np.ceil(error * answered)), n) <= risk:
            high = n
        else:
            low = n + 1
    return low
