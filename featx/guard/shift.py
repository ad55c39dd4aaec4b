"""Compare a set of images with the images of a fit, by the answers of a head and by the features alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, ndtr, ndtri, softmax
from scipy.stats import chi2, ksone, kstwo, norm, rankdata
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from featx.guard.priors import Priors

__all__ = [
    "Baseline",
    "Separation",
    "compare_answers",
    "compare_outliers",
    "compare_shares",
    "fit_baseline",
    "separate",
]

Doubles = npt.NDArray[np.float64]

#: Probabilities, or shares of the predictions of a regression, at which distributions are compared.
_GRID = np.linspace(0.05, 0.95, 19)
#: Difference of two distributions that does not count as a shift, for any number of images. Left-out answers come from
#: heads that were fitted on fewer images, and so do left-out distances: without a shift, they differ by up to 0.07.
_TOLERANCE = 0.1
#: Shares closer to 0 or 1 than this are clipped on the probit scale.
_LEAST_SHARE = 0.02
_N_FOLDS = 5
#: Inverse of the penalty (scikit-learn's C) of the classifier that separates two sets.
_PENALTY = 1e-3


@dataclass(frozen=True, eq=False)
class Baseline:
    """The distribution of a fit's left-out answers, which answers for a new set are compared with.

    Parameters
    ----------
    limits : ndarray of float32, shape (m,)
        Probabilities, or predictions of a regression, in ascending order.
    below : ndarray of float32, shape (n_columns, m)
        Share of the probabilities of each class, or of the predictions, that are at most as large as each limit.
    accuracy : float
        Share of right answers; NaN for a regression.
    agreement : float
        Share of images whose answer is the class with the nearest mean; NaN for a regression.
    support : float
        Mean probability of the answer by the distances to the class means; NaN for a regression.
    sharpness : float
        Factor that turns distances into logarithms of probabilities.
    """

    limits: npt.NDArray[np.float32]
    below: npt.NDArray[np.float32]
    accuracy: float
    agreement: float
    support: float
    sharpness: float

    def predict_accuracy(self, distances: npt.NDArray[Any], answers: npt.NDArray[np.intp]) -> float:
        """Predict the share of right answers for new images without labels.

        The class means of the guard are a second classifier. The less it agrees with the head on new images, the less
        accurate both are, on a line between probits (Baek et al. 2022). The result is the mean of two estimates: by
        the share of equal answers, and by the probability that the class means assign to the head's answer.

        Parameters
        ----------
        distances : ndarray of shape (n, n_folds, n_classes)
            Squared distances of each image to the class means.
        answers : ndarray of int, shape (n,)
            Classes that the head predicts.
        """
        agreement = float((distances.argmin(axis=2) == answers[:, None]).mean())
        support = _support(distances, answers, self.sharpness)
        line = ndtr(_probit(self.accuracy) + _probit(agreement) - _probit(self.agreement))
        return float(np.clip((line + self.accuracy + support - self.support) / 2, 0, 1))


def fit_baseline(
    answers: npt.NDArray[Any],
    codes: npt.NDArray[np.intp] | None = None,
    distances: npt.NDArray[Any] | None = None,
) -> Baseline:
    """Keep the distributions of left-out answers, and how often they agree with the nearest class mean.

    For classes, ``answers`` are probabilities, ``codes`` the true classes, and ``distances`` the squared distances of
    each image to the class means, of the same shape as ``answers``. For a regression, ``answers`` are numbers.
    """
    if codes is None or distances is None:
        limits = np.unique(np.quantile(answers, _GRID).astype(np.float32))
        return Baseline(limits, _count_below(answers[:, None], limits), np.nan, np.nan, np.nan, 1.0)
    limits = _GRID.astype(np.float32)
    predicted = answers.argmax(axis=1)

    def loss(logarithm: float) -> float:
        return -float(log_softmax(-np.exp(logarithm) * distances, axis=1)[np.arange(len(codes)), codes].mean())

    sharpness = float(np.float32(np.exp(minimize_scalar(loss, bounds=(-7, 1), method="bounded").x)))
    return Baseline(
        limits,
        _count_below(answers, limits),
        accuracy=float((predicted == codes).mean()),
        agreement=float((distances.argmin(axis=1) == predicted).mean()),
        support=_support(distances[:, None], predicted, sharpness),
        sharpness=sharpness,
    )


def _count_below(answers: npt.NDArray[Any], limits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the share of each column of answers that is at most as large as each limit."""
    columns = np.sort(answers.astype(np.float32), axis=0).T
    shares = [np.searchsorted(column, limits, side="right") / len(column) for column in columns]
    return np.array(shares, np.float32)


def _support(distances: npt.NDArray[Any], answers: npt.NDArray[np.intp], sharpness: float) -> float:
    probabilities = softmax(-sharpness * distances.astype(float), axis=2)
    return float(np.take_along_axis(probabilities, answers[:, None, None], axis=2).mean())


def _probit(share: float) -> float:
    return float(ndtri(np.clip(share, _LEAST_SHARE, 1 - _LEAST_SHARE)))


def compare_outliers(outlier: npt.NDArray[np.float64], n_fitted: int) -> float:
    """Return the p-value of a one-sided Kolmogorov-Smirnov test that outlier p-values are not smaller than uniform.

    The p-values were computed with ``n_fitted`` images, so the test compares two samples.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.guard.shift import compare_outliers
    >>> compare_outliers(np.linspace(0.01, 1, 50), 200) > 0.9, compare_outliers(np.linspace(0.01, 0.3, 50), 200) < 1e-6
    (True, True)
    """
    ordered = np.sort(outlier)
    above = float((np.arange(1, len(ordered) + 1) / len(ordered) - ordered).max())
    return float(ksone.sf(max(above - _TOLERANCE, 0.0), _effective(n_fitted, len(ordered))))


def compare_answers(baseline: Baseline, answers: npt.NDArray[Any], n_fitted: int) -> Doubles:
    """Return the p-value of a Kolmogorov-Smirnov test of each column of answers against the left-out answers.

    Two classes have one column, since one probability is 1 minus the other.
    """
    below = _count_below(answers.reshape(len(answers), -1), baseline.limits)
    differences = np.abs(below.astype(float) - baseline.below).max(axis=1)
    if len(differences) == 2:
        differences = differences[1:]
    n = _effective(n_fitted, len(answers))
    return np.array([float(kstwo.sf(max(one - _TOLERANCE, 0.0), n)) for one in differences])


def _effective(n_fitted: int, n: int) -> int:
    return max(1, round(n_fitted * n / (n_fitted + n)))


def compare_shares(priors: Priors, probabilities: npt.NDArray[Any], n_fitted: int) -> tuple[Doubles, float]:
    """Return the shares of the classes among new images, and the p-value of the hypothesis of the fit's shares.

    It is a likelihood ratio test of the shares that EM estimates (Saerens et al. 2002). The test allows for the chance
    in the shares of the fit, which come from ``n_fitted`` images.
    """
    _, shares = priors.adapt(probabilities)
    before = np.maximum(priors.shares.astype(float), 1e-6)
    before /= before.sum()
    ratios = priors.calibrate(probabilities) / before
    gain = 2 * float((np.log(ratios @ shares) - np.log(ratios @ before)).sum())
    return shares, float(chi2.sf(max(gain, 0.0) / (1 + len(probabilities) / n_fitted), len(shares) - 1))


@dataclass(frozen=True, eq=False)
class Separation:
    """The separation of two sets of images by a classifier.

    Parameters
    ----------
    auc : float
        Share of pairs of a new and an old image in which the new image has the higher score: 0.5 by chance.
    p_value : float
        P-value of the hypothesis that both sets are of the same kind (Mann-Whitney test within folds).
    scores : ndarray of float64, shape (n,)
        Score of each new image by a classifier that was fitted without it: high for images unlike the old images.
    """

    auc: float
    p_value: float
    scores: Doubles


def separate(old: npt.NDArray[Any], new: npt.NDArray[Any], random_state: int = 0) -> Separation:
    """Separate two sets by logistic regressions of their features; each image is scored by a model fitted without it.

    It is a classifier two-sample test (Lopez-Paz and Oquab 2017) with ranks instead of the accuracy. The scores
    of a fold are compared only with each other, since scores of different folds have different offsets.

    Parameters
    ----------
    old, new : ndarray of shape (n, n_features)
        Features of the two sets, with at least two rows each.
    random_state : int, default=0
        Seed of the folds.

    Examples
    --------
    >>> import numpy as np
    >>> from featx.guard.shift import separate
    >>> rng = np.random.default_rng(0)
    >>> old, new = rng.normal(size=(60, 5)), rng.normal(1, size=(40, 5))
    >>> found = separate(old, new)
    >>> found.auc > 0.8, found.p_value < 0.001
    (True, True)
    """
    X = np.concatenate([old, new])
    is_new = np.arange(len(X)) >= len(old)
    scores = np.empty(len(X))
    surplus = variance = n_pairs = 0.0
    n_folds = min(_N_FOLDS, len(old), len(new))
    for fitted, out in StratifiedKFold(n_folds, shuffle=True, random_state=random_state).split(X, is_new):
        model = make_pipeline(
            StandardScaler(), LogisticRegression(C=_PENALTY, class_weight="balanced", max_iter=300, tol=1e-3)
        )
        found = model.fit(X[fitted], is_new[fitted]).decision_function(X[out])
        ranks, n_new = rankdata(found), int(is_new[out].sum())
        n_old = len(out) - n_new
        surplus += float(ranks[is_new[out]].sum()) - n_new * (n_new + 1) / 2 - n_new * n_old / 2
        variance += n_new * n_old * (len(out) + 1) / 12
        n_pairs += n_new * n_old
        scores[out] = (found - np.median(found)) / max(float(found.std()), 1e-12)
    # folds share most of what they were fitted on (Nadeau and Bengio 2003); without it, 12 % of tests at 5 % fired
    variance *= 1 + n_folds / (n_folds - 1)
    p_value = float(norm.sf(surplus / np.sqrt(max(variance, 1e-12))))
    return Separation(0.5 + surplus / max(n_pairs, 1.0), p_value, scores[is_new])
