"""ZeroShotClassifier: classify the features of images by the names of their classes, and by few images."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from featx.errors import InputError

__all__ = ["ZeroShotClassifier", "embed_classes"]

Doubles = npt.NDArray[np.float64]
#: Weights of a class's text, counted in images, that few labelled images choose among.
_TEXT_WEIGHTS = (0.25, 1.0, 4.0, 16.0, 64.0)


def _unit(rows: npt.ArrayLike) -> Doubles:
    rows = np.asarray(rows, np.float64)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12))


def embed_classes(classes: Any, template: str | list[str], text_extractor: Any) -> Doubles:
    """Embed the names of classes; the unit vectors of several templates are averaged.

    Parameters
    ----------
    classes : sequence of str
        Names of at least two classes.
    template : str or list of str
        Sentences with ``{}`` in the place of the name.
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
    """Classify features of an image tower by the text vectors of the classes; labels are optional.

    Without labels, the score of a class is the cosine of image and text, times ``scale``, after Radford et al.
    (2021). With few labelled images, the weight of a class is its text vector blended with the mean of its
    images; the text counts as many images as make the smallest log loss when each image is left out in turn.
    LP++ (Huang et al. 2024) blends the same two vectors, and learns them by gradient descent.

    The class vectors are stored, so that a saved classifier needs no text tower.

    Parameters
    ----------
    classes : sequence of str
        Names of at least two classes.
    class_vectors : array-like of float, shape (n_classes, n_features)
        Vectors of the text tower, as `embed_classes` computes them.
    scale : float, default=100.0
        Factor of cosines; 100 is that of CLIP.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    coef_ : ndarray of float64, shape (n_classes, n_features)
        Weights of unit-length features.
    text_weight_ : float
        Images that the text of a class counts for; infinite without labels.

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
        """Take the class vectors, and blend them with labelled images.

        Parameters
        ----------
        X : array-like of float, shape (n_samples, n_features)
        y : array-like of shape (n_samples,) or None, default=None
            Names of ``classes``; None ignores X but for its width.
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
        self.text_weight_ = np.inf
        weights = texts
        if y is not None:
            labels = np.asarray(y)
            codes = np.searchsorted(self.classes_, labels)
            if unknown := sorted(
                {str(one) for one in labels[self.classes_[np.minimum(codes, len(names) - 1)] != labels]}
            ):
                raise InputError(f"y: {unknown[0]!r} is not one of classes={self.classes_.tolist()}")
            rows = _unit(rows)
            losses = [self._loss_left_out(rows, codes, texts, weight) for weight in _TEXT_WEIGHTS]
            self.text_weight_ = _TEXT_WEIGHTS[int(np.argmin(losses))]
            weights = _blend(rows, codes, texts, self.text_weight_)
        self.coef_ = self.scale * weights
        self.intercept_ = np.zeros(len(names))
        return self

    def _loss_left_out(self, rows: Doubles, codes: npt.NDArray[np.intp], texts: Doubles, weight: float) -> float:
        sums = _sums(rows, codes, texts, weight)
        scores = self.scale * rows @ _unit(sums).T
        own = _unit(sums[codes] - rows)  # the class of each image without it
        scores[np.arange(len(rows)), codes] = self.scale * np.einsum("ij,ij->i", rows, own)
        shares = scores - scores.max(axis=1, keepdims=True)
        own_scores = shares[np.arange(len(rows)), codes]
        return float(np.mean(np.log(np.exp(shares).sum(axis=1)) - own_scores))

    def decision_function(self, X: npt.ArrayLike) -> Doubles:
        """Return scaled cosines, of shape (n_samples, n_classes); for two classes their difference, (n_samples,)."""
        scores = self._scores(X)
        return scores[:, 1] - scores[:, 0] if scores.shape[1] == 2 else scores

    def predict_proba(self, X: npt.ArrayLike) -> Doubles:
        """Return the softmax of the scaled cosines, of shape (n_samples, n_classes)."""
        scores = self._scores(X)
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:
        """Return the class of the largest cosine for each row."""
        return np.asarray(self.classes_[self._scores(X).argmax(axis=1)])

    def _scores(self, X: npt.ArrayLike) -> Doubles:
        check_is_fitted(self)
        rows = np.asarray(validate_data(self, X, dtype=np.float64, reset=False))
        return np.asarray(_unit(rows) @ self.coef_.T + self.intercept_)


def _sums(rows: Doubles, codes: npt.NDArray[np.intp], texts: Doubles, weight: float) -> Doubles:
    """Add the unit rows of each class to its text, which counts ``weight`` rows."""
    sums = weight * texts
    np.add.at(sums, codes, rows)
    return sums


def _blend(rows: Doubles, codes: npt.NDArray[np.intp], texts: Doubles, weight: float) -> Doubles:
    return _unit(_sums(rows, codes, texts, weight))
