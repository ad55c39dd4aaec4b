"""Fit a linear classifier with differential privacy: one release of noisy sums, in directions that are public.

The directions do not depend on the images of the fit. The directions of a backbone are the principal directions of the
weights of its own classifier, which its file holds.
"""

from __future__ import annotations

import math
import secrets
from functools import lru_cache
from numbers import Real
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnx
from scipy.optimize import brentq
from scipy.special import log_ndtr, ndtri, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.backbones import open_backbone
from featx.backbones.file import Backbone, load_model
from featx.errors import InputError

__all__ = ["PrivateClassifier", "check_budget", "find_directions", "find_noise", "random_directions"]

Doubles = npt.NDArray[np.float64]

#: Smallest and largest number of directions. Between these, the noise is this share of the length of a class's sum.
_MIN_DIRECTIONS, _MAX_DIRECTIONS, _NOISE_SHARE = 64, 192, 0.35
#: Length of a vector's constant entry relative to its other entries; the sum of the constant entries counts the rows.
_CONSTANT = 0.5
#: Smallest count of a class, as a share of the mean count.
_MIN_SHARE = 0.1
#: Share of independent dimensions among the directions, which are correlated: chosen by log loss on ants/bees and
#: CIFAR-10.
_INDEPENDENT = 0.1
_DEFAULT_BACKBONE = "efficientnet_lite0"


class PrivateClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Nearest class mean with (epsilon, delta)-differential privacy for each row.

    Each row is projected on public directions, gets a constant entry and is scaled to length 1. The rows of each class
    are summed, and Gaussian noise is added to the sums once. All fitted attributes are computed from these noisy sums,
    so there is no further release. Neighbouring data differ in one row that is present or blank: the number of rows and
    the names of the classes count as public.

    The noise comes from the operating system's random source and has no seed: two fits differ, and a fit
    that is repeated spends the budget again. Numbers have 64 bits, and attacks on the last bits of
    floating-point noise (Mironov 2012) are not excluded.

    Parameters
    ----------
    epsilon : float, default=1.0
        Budget above 0. A smaller value promises more privacy.
    delta : float, default=1e-5
        Probability that the promise fails, at most 1 / n_samples.
    directions : array-like of shape (n_directions, n_features), or None, default=None
        Public directions, the most important first. They must not come from the rows. None takes the
        directions of the bundled backbone for its number of features, and otherwise random orthogonal directions.
    n_directions : int or None, default=None
        Number of directions that are used. None is a number from 64 to 192, by epsilon, delta and the numbers of rows
        and classes.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    components_ : ndarray of shape (n_directions, n_features)
        The public directions.
    coef_ : ndarray of shape (n_classes, n_directions), or (1, n_directions) for two classes
        Weights of the projected rows, which `transform` scales to length 1.
    intercept_ : ndarray of shape (n_classes,) or (1,)
    noise_ : float
        Standard deviation of the noise of each entry of the sums, whose sensitivity is 1.
    n_features_in_ : int

    References
    ----------
    Balle and Wang, "Improving the Gaussian Mechanism for Differential Privacy", 2018.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from featx.heads import PrivateClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> head = PrivateClassifier(epsilon=2.0).fit(X[:1500], y[:1500])
    >>> head.score(X[1500:], y[1500:]) > 0.5
    True
    >>> round(head.noise_, 3)
    1.994
    """

    def __init__(
        self, epsilon: float = 1.0, *, delta: float = 1e-5, directions: Any = None, n_directions: int | None = None
    ) -> None:
        self.epsilon = epsilon
        self.delta = delta
        self.directions = directions
        self.n_directions = n_directions

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:
        """Fit on features of shape (n_samples, n_features) and their labels, and spend the budget once.

        Raises InputError if epsilon or delta promises no privacy, or a direction has another length.
        """
        features, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        check_budget(self.epsilon, self.delta, len(labels))
        self.classes_, codes = np.unique(labels, return_inverse=True)
        n_rows, n_classes = len(labels), len(self.classes_)
        if n_classes < 2:
            raise ValueError(f"y: 1 class ({self.classes_[0]}), a classifier needs at least 2 classes")
        self.noise_ = find_noise(self.epsilon, self.delta)
        self.components_ = self._take_directions(n_rows, n_classes)
        unit = math.sqrt(1 + _CONSTANT**2)
        length = _CONSTANT / unit
        projected = self.transform(features)
        # a blank row adds nothing
        rows = np.column_stack([projected / unit, np.where(projected.any(axis=1), length, 0)])
        sums = np.zeros((n_classes, rows.shape[1]))
        _add_rows(sums, codes, rows)
        sums += self.noise_ * _draw_normal(sums.shape)
        # from here on, only the noisy sums and public numbers are used
        counts = np.maximum(sums[:, -1] / length, _MIN_SHARE * n_rows / n_classes)
        counts *= n_rows / counts.sum()
        means = sums[:, :-1] * unit / counts[:, None]
        n_dimensions = means.shape[1]
        error = (self.noise_ * unit / counts) ** 2
        lengths = np.maximum((means**2).sum(axis=1) - n_dimensions * error, 0)
        variance = max(1 - float(np.average(lengths, weights=counts)), 0.05) / n_dimensions + float(error.mean())
        coef = means * (_INDEPENDENT / variance)
        intercept = -0.5 * (coef * means).sum(axis=1)
        self.coef_, self.intercept_ = coef, intercept
        if n_classes == 2:
            self.coef_, self.intercept_ = coef[1:] - coef[:1], intercept[1:] - intercept[:1]
        return self

    def _take_directions(self, n_rows: int, n_classes: int) -> Doubles:
        n_features = self.n_features_in_
        if self.directions is None:
            directions = _default_directions(n_features)
        else:
            directions = np.asarray(self.directions)
            is_real = directions.dtype.kind in "fiu" and directions.ndim == 2 and len(directions) > 0
            is_real = is_real and bool(np.isfinite(directions).all())
            if not is_real or directions.shape[1] != n_features:
                raise InputError(
                    f"directions: of shape {directions.shape} and dtype {directions.dtype}, expected finite numbers of "
                    f"shape (n_directions, {n_features}), one column for each feature"
                )
            directions = directions.astype(np.float64)
        n_directions = self.n_directions
        if n_directions is None:
            fitting = (_NOISE_SHARE * n_rows / (n_classes * self.noise_)) ** 2
            n_directions = int(np.clip(fitting, _MIN_DIRECTIONS, _MAX_DIRECTIONS))
        elif isinstance(n_directions, bool) or not isinstance(n_directions, (int, np.integer)) or n_directions < 1:
            raise InputError(f"n_directions={n_directions!r}: expected an integer of at least 1")
        return directions[:n_directions]

    def transform(self, X: npt.ArrayLike) -> Doubles:
        """Return the rows in the public directions, scaled to length 1, of shape (n_samples, n_directions)."""
        check_is_fitted(self, "components_")
        features = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        projected = features.astype(np.float64) @ self.components_.T
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.asarray(projected / np.where(lengths == 0, 1, lengths))

    def decision_function(self, X: npt.ArrayLike) -> Doubles:
        """Return scores of shape (n_samples, n_classes), or (n_samples,) for two classes."""
        check_is_fitted(self)
        scores = self.transform(X) @ self.coef_.T + self.intercept_
        return np.asarray(scores[:, 0] if scores.shape[1] == 1 else scores)

    def predict_proba(self, X: npt.ArrayLike) -> Doubles:
        """Return probabilities of shape (n_samples, n_classes), in the order of ``classes_``."""
        scores = self.decision_function(X)
        if scores.ndim == 1:
            scores = np.stack([np.zeros_like(scores), scores], axis=1)
        return np.asarray(softmax(scores, axis=1))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the label of each row, of shape (n_samples,)."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_[(scores > 0).astype(int) if scores.ndim == 1 else scores.argmax(axis=1)])

    def __sklearn_tags__(self) -> Any:
        """Return tags which state that two fits differ."""
        tags = super().__sklearn_tags__()
        tags.non_deterministic = True
        tags.classifier_tags.poor_score = True  # noise dominates the sums of a few rows
        return tags


def check_budget(epsilon: Any, delta: Any, n_rows: int | None = None) -> None:
    """Raise InputError unless epsilon and delta promise privacy for this number of rows."""
    for name, value, most in (("epsilon", epsilon, math.inf), ("delta", delta, 1.0)):
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 < float(value) < most:
            raise InputError(f"{name}={value!r}: expected a number above 0{'' if most == math.inf else ' and below 1'}")
    if n_rows and delta > 1 / n_rows:
        raise InputError(
            f"delta={delta:g}: above 1 / {n_rows} rows, so a whole row may be published; "
            f"expected at most {1 / n_rows:.1g}"
        )


@lru_cache
def find_noise(epsilon: float, delta: float) -> float:
    """Return the standard deviation of Gaussian noise for a sensitivity of 1, by Balle and Wang (2018).

    It is the smallest standard deviation with (epsilon, delta)-differential privacy.

    Examples
    --------
    >>> from featx.heads.private import find_noise
    >>> round(find_noise(1.0, 1e-5), 4)
    3.7306
    """

    def excess(log_sigma: float) -> float:
        sigma = math.exp(log_sigma)
        first = log_ndtr(0.5 / sigma - epsilon * sigma)
        second = epsilon + log_ndtr(-0.5 / sigma - epsilon * sigma)
        return float(first + np.log(-np.expm1(min(second - first, -1e-300))) - math.log(delta))

    return math.exp(brentq(excess, math.log(1e-9), math.log(1e15), xtol=1e-14, rtol=1e-14))


def _add_rows(sums: Doubles, codes: npt.NDArray[np.intp], rows: Doubles) -> None:
    """Add each row to the sum of its class. Rows have length 1, so the sensitivity of the sums is 1."""
    np.add.at(sums, codes, rows)


def _draw_normal(shape: tuple[int, ...]) -> Doubles:
    """Draw standard normal numbers from the random source of the operating system."""
    n = math.prod(shape)
    integers = np.frombuffer(secrets.token_bytes(8 * n), np.uint64) >> np.uint64(11)
    return np.asarray(ndtri((integers.astype(np.float64) + 0.5) / 2.0**53)).reshape(shape)


@lru_cache(maxsize=4)
def _default_directions(n_features: int) -> Doubles:
    """Return the directions of the bundled backbone, or random directions for another number of features."""
    found = find_directions(open_backbone(_DEFAULT_BACKBONE), n_features)
    return random_directions(n_features, 0) if found is None else found


def find_directions(backbone: Backbone, n_features: int) -> Doubles | None:
    """Return the principal directions of the weights of a backbone's own classifier, or None without such weights.

    Its file holds them, so they are public. Each direction is divided by its singular value.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> from featx.heads.private import find_directions
    >>> find_directions(open_backbone("efficientnet_lite0"), 1280).shape
    (192, 1280)
    """
    weights = _read_classifier(str(backbone.path), n_features)
    if weights is None:
        return None
    centred = weights - weights.mean(axis=0)
    _, values, directions = np.linalg.svd(centred, full_matrices=False)
    values, directions = values[:_MAX_DIRECTIONS], directions[:_MAX_DIRECTIONS]
    kept = values > 1e-6 * values[0]
    return np.asarray(directions[kept] / values[kept, None])


def _read_classifier(path: str, n_features: int) -> Doubles | None:
    """Read weights of shape (n_classes, n_features) before the output of a graph."""
    graph = load_model(path).graph
    weights = {each.name: each for each in graph.initializer if len(each.dims) == 2 and n_features in each.dims}
    outputs, makers = {each.name for each in graph.output}, {name: node for node in graph.node for name in node.output}
    waiting = [makers[name] for name in outputs if name in makers]
    for node in waiting:
        if node.op_type in ("Gemm", "MatMul") and node.input[1] in weights:
            array = onnx.numpy_helper.to_array(weights[node.input[1]]).astype(np.float64)
            return array if array.shape[1] == n_features else array.T
        if node.op_type in ("Add", "Identity", "Softmax", "Flatten"):
            waiting += [makers[name] for name in node.input if name in makers]
    return None


def random_directions(n_features: int, seed: int) -> Doubles:
    """Return random orthogonal directions of shape (at most 192, n_features); the seed must not come from the rows."""
    normal = np.random.default_rng(seed).standard_normal((n_features, min(n_features, _MAX_DIRECTIONS)))
    return np.asarray(np.linalg.qr(normal)[0].T)
