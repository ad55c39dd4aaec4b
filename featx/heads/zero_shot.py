"""ZeroShotClassifier: classify features of images by the names of the classes, with or without labelled images."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import StratifiedKFold
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.errors import InputError

__all__ = ["ZeroShotClassifier", "embed_classes"]

Doubles = npt.NDArray[np.float64]
Codes = npt.NDArray[np.intp]
#: Candidates for the weight of a class's text, in number of images.
_TEXT_WEIGHTS = (0.25, 1.0, 4.0, 16.0, 64.0)
#: Largest number of steps of the probe, and number of folds that choose it.
_MAX_STEPS, _N_FOLDS = 300, 5


def _unit(rows: npt.ArrayLike) -> Doubles:
    rows = np.asarray(rows, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))


def embed_classes(classes: Any, template: str | list[str], text_extractor: Any) -> Doubles:
    """Embed the names of classes; the unit embeddings of several templates are averaged.

    Parameters
    ----------
    classes : sequence of str
        Names of at least two classes.
    template : str or list of str
        Sentences with ``{}`` instead of the name.
    text_extractor : transformer
        The text tower, such as `featx.TextExtractor`.

    Returns
    -------
    ndarray of float64, shape (n_classes, n_features)
        Rows of unit length.
    """
    templates = [template] if isinstance(template, str) else list(template)
    if not templates or not all(isinstance(one, str) and "{}" in one for one in templates):
        raise InputError(f"template={template!r}: expected a sentence with {{}}, such as 'a photo of a {{}}'")
    rows = [_unit(text_extractor.transform([one.replace("{}", str(name)) for name in classes])) for one in templates]
    return _unit(np.mean(rows, axis=0))


class ZeroShotClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify features of an image tower by the text embeddings of the classes; labels are optional.

    Without labels, the score of a class is the cosine of image and text, times ``scale``, after Radford et al.
    (2021). With few labelled images, the weights of a class are ``w + alpha * text``, as in LP++ (Huang et al. 2024):
    ``w`` and the multiplier ``alpha`` of each class are learned with the cross-entropy. They start from the weighted
    mean of the text and the class's images. The weight of the text, in number of images, is the candidate with the
    smallest log loss when each image is left out in turn. Each step minimises a quadratic bound of the loss, so the
    images determine its length. Left-out images choose the number of steps, which may be 0.

    The class vectors are stored, so a saved classifier needs no text tower.

    Parameters
    ----------
    classes : sequence of str
        Names of at least two classes.
    class_vectors : array-like of float, shape (n_classes, n_features)
        Embeddings by the text tower, as `embed_classes` computes them.
    scale : float, default=100.0
        Factor of the cosines; 100 is CLIP's factor.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (n_classes, n_features)
        Weights of features of unit length.
    alpha_ : ndarray of float64, shape (n_classes,)
        Multiplier of each class's text.
    text_weight_ : float
        Number of images that the text of a class counts for at the start; infinite without labels.
    n_steps_ : int
        Number of steps from the start; 0 without labels.

    Examples
    --------
    >>> from featx.heads import ZeroShotClassifier
    >>> head = ZeroShotClassifier(["cat", "dog"], [[1.0, 0.0], [0.0, 1.0]]).fit([[2.0, 1.0]])
    >>> head.predict([[2.0, 1.0], [0.0, 3.0]]).tolist()
    ['cat', 'dog']
    """

    def __init__(self, classes: Any, class_vectors: npt.ArrayLike, *, scale: float = 100.0) -> None:
        self.classes = classes
        self.class_vectors = class_vectors
        self.scale = scale

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike | None = None) -> Self:
        """Store the class vectors, and combine them with labelled images.

        Parameters
        ----------
        X : array-like of float, shape (n_samples, n_features)
            Features of the image tower.
        y : array-like of shape (n_samples,) or None, default=None
            Names of ``classes``. With None, only the number of features of X is used.

        Raises
        ------
        InputError
            If the classes and their vectors do not fit together or to X, or y has a name that is no class.
        """
        rows = np.asarray(validate_data(self, X, dtype=np.float64))
        names, texts = np.asarray(self.classes), _unit(self.class_vectors)
        if len(names) < 2 or len(set(names.tolist())) < len(names) or texts.shape != (len(names), rows.shape[1]):
            raise InputError(
                f"classes and class_vectors: {len(names)} names and vectors of shape {texts.shape}; expected at least "
                f"two names, all different, each with a vector of {rows.shape[1]} features from the paired text tower"
            )
        order = np.argsort(names)
        self.classes_, texts = names[order], texts[order]
        self.text_weight_, self.n_steps_ = np.inf, 0
        images, alpha = np.zeros_like(texts), np.full(len(names), float(self.scale))
        if y is not None:
            labels = np.asarray(y)
            codes = np.searchsorted(self.classes_, labels)
            if unknown := sorted(
                {str(one) for one in labels[self.classes_[np.minimum(codes, len(names) - 1)] != labels]}
            ):
                raise InputError(f"y: {unknown[0]!r} is not one of classes={self.classes_.tolist()}")
            rows = _unit(rows)
            self.text_weight_ = self._choose_text_weight(rows, codes, texts)
            self.n_steps_ = self._choose_steps(rows, codes, texts)
            *_, (images, alpha) = self._learn(rows, codes, texts, self.n_steps_)
        self.alpha_ = alpha
        self.coef_ = images + alpha[:, None] * texts
        self.intercept_ = np.zeros(len(names))
        return self

    def _choose_text_weight(self, rows: Doubles, codes: Codes, texts: Doubles) -> float:
        """Return the weight with the smallest log loss of left-out images; the middle one if classes have one image."""
        if np.bincount(codes).max() < 2:  # only the text would be left of a left-out image's class
            return _TEXT_WEIGHTS[len(_TEXT_WEIGHTS) // 2]
        losses = [self._losses_left_out(rows, codes, texts, weight).mean() for weight in _TEXT_WEIGHTS]
        return _TEXT_WEIGHTS[int(np.argmin(losses))]

    def _choose_steps(self, rows: Doubles, codes: Codes, texts: Doubles) -> int:
        """Return the number of steps with the smallest log loss of left-out images; 0 with fewer than two per class."""
        n_folds = min(_N_FOLDS, int(np.bincount(codes).max()))
        if n_folds < 2:
            return 0
        losses = np.zeros(_MAX_STEPS + 1)
        folds = StratifiedKFold(n_folds, shuffle=True, random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
            divided = list(folds.split(rows, codes))
        for train, test in divided:
            steps = self._learn(rows[train], codes[train], texts, _MAX_STEPS)
            for i, (images, alpha) in enumerate(steps):
                scores = rows[test] @ (images + alpha[:, None] * texts).T
                losses[i] += _log_losses(scores, codes[test]).sum()
        return int(np.argmin(losses))

    def _learn(self, rows: Doubles, codes: Codes, texts: Doubles, n_steps: int) -> Iterator[tuple[Doubles, Doubles]]:
        """Yield the weights of images and the multipliers of texts, before the first step and after each.

        The Hessian of the softmax is at most one half (Boehning 1992), which bounds the Hessian of each block.
        """
        sums = _sums(rows, codes, texts, self.text_weight_)
        lengths = np.maximum(np.linalg.norm(sums, axis=1), 1e-12)
        alpha = self.scale * self.text_weight_ / lengths
        images = self.scale * (sums - self.text_weight_ * texts) / lengths[:, None]
        yield images, alpha
        cosines = rows @ texts.T
        bound = np.linalg.norm(rows, 2) ** 2 / (2 * len(rows))
        bound_of_texts = float((cosines**2).mean(axis=0).max()) / 2
        hits = np.eye(len(texts))[codes]
        for _ in range(n_steps):
            errors = (_softmax(rows @ images.T + alpha * cosines) - hits) / len(rows)
            images = images - errors.T @ rows / bound
            errors = (_softmax(rows @ images.T + alpha * cosines) - hits) / len(rows)
            alpha = alpha - (errors * cosines).sum(axis=0) / max(bound_of_texts, 1e-12)
            yield images, alpha

    def _losses_left_out(self, rows: Doubles, codes: Codes, texts: Doubles, weight: float) -> Doubles:
        sums = _sums(rows, codes, texts, weight)
        scores = self.scale * rows @ _unit(sums).T
        own = _unit(sums[codes] - rows)  # the class of each image without it
        scores[np.arange(len(rows)), codes] = self.scale * np.einsum("ij,ij->i", rows, own)
        return _log_losses(scores, codes)

    def decision_function(self, X: npt.ArrayLike) -> Doubles:
        """Return scaled cosines of shape (n_samples, n_classes), or their difference (n_samples,) for two classes."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: npt.ArrayLike) -> Doubles:
        """Return the softmax of the scaled cosines, of shape (n_samples, n_classes)."""
        return _softmax(self._scores(X))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the class of the largest cosine for each row."""
        return np.asarray(self.classes_[self._scores(X).argmax(axis=1)])

    def _scores(self, X: npt.ArrayLike) -> Doubles:
        check_is_fitted(self)
        rows = np.asarray(validate_data(self, X, dtype=np.float64, reset=False))
        return np.asarray(_unit(rows) @ self.coef_.T + self.intercept_)


def _sums(rows: Doubles, codes: Codes, texts: Doubles, weight: float) -> Doubles:
    """Add the unit rows of each class to its text, which counts ``weight`` rows."""
    sums = weight * texts
    np.add.at(sums, codes, rows)
    return sums


def _softmax(scores: Doubles) -> Doubles:
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(shares / shares.sum(axis=1, keepdims=True))


def _log_losses(scores: Doubles, codes: Codes) -> Doubles:
    shares = scores - scores.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(shares).sum(axis=1)) - shares[np.arange(len(codes)), codes])
