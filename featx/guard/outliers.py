"""Find images that are unlike those of a fit, by a distance of features with a p-value."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigh
from sklearn.covariance import ledoit_wolf

from featx.errors import InputError
from featx.guard.alignment import Scaling, fit_scaling, join_scalings
from featx.guard.counts import condense, stack

__all__ = ["FoldFeatures", "Outliers", "fit_outliers", "fit_tuned_outliers"]

Floats = npt.NDArray[np.float32]

#: Largest number of principal components, and smallest number of images per component.
_MAX_COMPONENTS, _MIN_ROWS = 64, 4
#: Largest number of left-out distances that are kept.
_MAX_SCORES = 2000
#: Number of rows of features that are read at a time.
_CHUNK = 4096


@dataclass(frozen=True, eq=False)
class Outliers:
    """Measure distances of images to the classes of a fit, and compare them with the distances of left-out images.

    Parameters
    ----------
    centre : ndarray of float32, shape (n_features,)
        Mean of the features at unit length.
    basis : ndarray of float32, shape (n_components, n_features)
        Principal components of the features, rounded to float16.
    means : ndarray of float32, shape (1, n_classes, n_components + 1)
        Coordinates of each class. The last coordinate is the length of the part that the components leave out.
    factors : ndarray of float32, shape (1, n_components + 1, n_components + 1)
        Factor of the precision matrix that the classes share: the distance of ``u`` to a class is the squared length
        of ``(u - mean) @ factor``.
    scores : ndarray of float32, shape (1, n_scores)
        Sorted distances of left-out images, each by components and means of the other folds; for a tuned network, by
        the network of the fold and the images that it was tuned on.
    counts : ndarray of int32, shape (1, n_scores)
        Number of images that each distance represents.

    Notes
    -----
    The first axis is for distances of several folds, whose counts are added. The distance is that of Mueller and Hein
    (2025): features of length 1, and one covariance (Ledoit and Wolf 2004) of all classes. The p-values are
    cross-conformal (Vovk 2015).
    """

    centre: Floats
    basis: Floats
    means: Floats
    factors: Floats
    scores: Floats
    counts: npt.NDArray[np.int32]

    @property
    def n_images(self) -> int:
        """Number of left-out images that the p-values come from."""
        return int(self.counts.sum())

    @property
    def n_features(self) -> int:
        """Number of features of an image."""
        return len(self.centre)

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of an image."""
        return len(self.basis) + 1

    def locate(self, features: npt.NDArray[Any]) -> Floats:
        """Return coordinates of shape (n, n_components + 1)."""
        return _locate(self.centre, self.basis, features)

    def measure(self, coordinates: Floats) -> Floats:
        """Return squared distances to the nearest class, of shape (n, 1)."""
        found = [_measure(coordinates, means, factor) for means, factor in zip(self.means, self.factors, strict=True)]
        return np.stack(found, axis=1)

    def measure_classes(self, coordinates: Floats) -> Floats:
        """Return squared distances to each class, of shape (n, 1, n_classes)."""
        parts = zip(self.means, self.factors, strict=True)
        return np.stack([_measure_classes(coordinates, means, factor) for means, factor in parts], axis=1)

    def p_values(self, distances: Floats) -> npt.NDArray[np.float64]:
        """Return the p-value of each image; small values are rare among images like those of the fit."""
        above = np.zeros(len(distances))
        for fold, (scores, counts) in enumerate(zip(self.scores, self.counts, strict=True)):
            above += _count_above(scores, counts, distances[:, fold])
        return np.asarray((1 + above) / (1 + self.n_images))


@dataclass(frozen=True, eq=False)
class FoldFeatures:
    """Features of the images of a fold, by a network that was tuned without the images that the fold leaves out.

    Parameters
    ----------
    rows : ndarray of int, shape (n,)
        Positions of the images that the network was tuned on.
    features : ndarray of shape (n, n_features)
    left_out : ndarray of int, shape (m,)
        Positions of the images that the fold leaves out.
    left_out_features : ndarray of shape (m, n_features)
    """

    rows: npt.NDArray[np.intp]
    features: npt.NDArray[Any]
    left_out: npt.NDArray[np.intp]
    left_out_features: npt.NDArray[Any]


def fit_outliers(
    features: npt.NDArray[Any],
    codes: npt.NDArray[np.intp],
    folds: npt.NDArray[np.intp],
    calibrates: npt.NDArray[np.bool_],
    n_classes: int = 1,
) -> tuple[Outliers, Floats, Floats, npt.NDArray[np.float64]]:
    """Fit the distances of each fold; return them with coordinates, distances to classes and p-values of the images.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
    codes : ndarray of int, shape (n,)
        Class of each image.
    folds : ndarray of int, shape (n,)
        Fold that leaves out each image, counted from 0.
    calibrates : ndarray of bool, shape (n,)
        Mask of the images whose distances are kept.
    n_classes : int, default=1
    """
    n_components = _count_components(len(features) - int(np.bincount(folds).max()), features.shape[1])
    to_classes = np.empty((len(features), n_classes), np.float32)
    fitted = []
    for fold in range(int(folds.max()) + 1):
        inside, out = np.flatnonzero(folds != fold), folds == fold
        fitted.append(_fit_classes(features, inside, codes[inside], n_classes, n_components))
        to_classes[out] = fitted[-1].measure(features[out])
    # The first fold measures new images. With components and means of all images, the mean p-value over re-splits was
    # 0.45; with those of a fold it was 0.50, as it should be.
    outliers, p_values = _keep_distances(fitted[0], to_classes, calibrates)
    return outliers, outliers.locate(features), to_classes, p_values


def fit_tuned_outliers(
    features: npt.NDArray[Any],
    codes: npt.NDArray[np.intp],
    folds: Iterable[FoldFeatures],
    rows: npt.NDArray[np.intp],
    calibrates: npt.NDArray[np.bool_],
    n_classes: int = 1,
) -> tuple[Outliers, Floats, Floats, npt.NDArray[np.float64], Scaling]:
    """Fit the distances of a tuned network, and measure left-out images by the networks of their folds.

    See `featx.guard.fit_tuned`. The distances of the final network are fitted on the images of the first fold: the mean
    p-value of new images of CIFAR-10 was 0.49 to 0.50, but 0.46 to 0.48 with distances fitted on all 1,000 images.

    Parameters
    ----------
    features : ndarray of shape (n, n_features)
        Features of all images, by the final network.
    codes : ndarray of int, shape (n,)
        Class of each image.
    folds : iterable of FoldFeatures
        The folds. They are read once; the features of one fold are in memory at a time.
    rows : ndarray of int, shape (m,)
        Positions of all images that the folds leave out, in ascending order.
    calibrates : ndarray of bool, shape (m,)
        True for left-out images whose distances are kept.
    n_classes : int, default=1

    Returns
    -------
    tuple
        The result of `fit_outliers` for the left-out images, and the scaling of their features.
    """
    to_classes = np.full((len(rows), n_classes), np.nan, np.float32)
    coordinates = np.empty((0, 0), np.float32)
    scalings, sizes = [], []
    final: _Classes | None = None
    for fold in folds:
        own = codes[fold.rows]
        if final is None:
            n_components = _count_components(len(own), features.shape[1])
            final = _fit_classes(features, fold.rows, own, n_classes, n_components)
            coordinates = np.empty((len(rows), n_components + 1), np.float32)
        network = _fit_classes(fold.features, np.arange(len(own)), own, n_classes, len(final.basis))
        places = np.searchsorted(rows, fold.left_out)
        to_classes[places] = network.measure(fold.left_out_features)
        coordinates[places] = final.locate(fold.left_out_features)
        scalings.append(fit_scaling(fold.left_out_features))
        sizes.append(len(places))
    if final is None or np.isnan(to_classes).any():
        raise InputError("folds: they do not leave out each row that out_of_fold has an answer for")
    outliers, p_values = _keep_distances(final, to_classes, calibrates)
    return outliers, coordinates, to_classes, p_values, join_scalings(scalings, sizes)


@dataclass(frozen=True, eq=False)
class _Classes:
    """Components, class means and precision of images, in the features of a network."""

    centre: Floats
    basis: Floats
    means: Floats
    factor: Floats

    def locate(self, features: npt.NDArray[Any]) -> Floats:
        return _locate(self.centre, self.basis, features)

    def measure(self, features: npt.NDArray[Any]) -> Floats:
        """Return squared distances to each class, (n, n_classes)."""
        return _measure_classes(self.locate(features), self.means, self.factor)


def _count_components(n: int, n_features: int) -> int:
    return max(1, min(_MAX_COMPONENTS, n // _MIN_ROWS, n_features))


def _fit_classes(
    features: npt.NDArray[Any],
    rows: npt.NDArray[np.intp],
    codes: npt.NDArray[np.intp],
    n_classes: int,
    n_components: int,
) -> _Classes:
    """Fit components, means and precision on some rows of features; ``codes`` are the classes of these rows."""
    centre, basis = _find_basis(features, rows, n_components)
    return _Classes(centre, basis, *_fit_means(_locate(centre, basis, features[rows]), codes, n_classes))


def _keep_distances(
    judge: _Classes, to_classes: Floats, calibrates: npt.NDArray[np.bool_]
) -> tuple[Outliers, npt.NDArray[np.float64]]:
    """Return outliers that compare distances by ``judge`` with left-out distances, and the left-out p-values."""
    row = condense(to_classes[calibrates].min(axis=1), _MAX_SCORES)
    p_values = (1 + _count_above(*row, to_classes.min(axis=1))) / (1 + int(row[1].sum()))
    return Outliers(judge.centre, judge.basis, judge.means[None], judge.factor[None], *stack([row])), p_values


def _find_basis(features: npt.NDArray[Any], rows: npt.NDArray[np.intp], n_components: int) -> tuple[Floats, Floats]:
    """Return the mean of rows at unit length, and their principal components."""
    n, n_features = len(rows), features.shape[1]
    total = np.zeros(n_features)
    for part in _chunks(n):
        total += _normalize(features[rows[part]]).sum(axis=0, dtype=float)
    centre: Floats = (total / n).astype(np.float32)
    if n <= n_features:
        centred = _normalize(features[rows]) - centre
        leading = _find_largest(centred @ centred.T, n_components).T @ centred
        leading /= np.maximum(np.linalg.norm(leading, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    else:
        products = np.zeros((n_features, n_features))
        for part in _chunks(n):
            centred = _normalize(features[rows[part]]) - centre
            products += centred.T @ centred
        leading = _find_largest(products, n_components).T
    return centre, leading.astype(np.float16).astype(np.float32)


def _find_largest(matrix: npt.NDArray[Any], n: int) -> npt.NDArray[Any]:
    """Return the eigenvectors of the n largest eigenvalues as columns, the largest first."""
    size = len(matrix)
    return np.asarray(eigh(matrix, subset_by_index=[size - n, size - 1])[1][:, ::-1])


def _chunks(n: int) -> Sequence[slice]:
    return [slice(start, start + _CHUNK) for start in range(0, n, _CHUNK)]


def _normalize(features: npt.NDArray[Any]) -> Floats:
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.maximum(lengths, np.finfo(np.float32).tiny), np.float32)


def _locate(centre: Floats, basis: Floats, features: npt.NDArray[Any]) -> Floats:
    parts = []
    for rows in _chunks(len(features)):
        centred = _normalize(features[rows]) - centre
        projected = centred @ basis.T
        residuals = np.einsum("nd,nd->n", centred, centred) - np.einsum("nk,nk->n", projected, projected)
        parts.append(np.column_stack([projected, np.sqrt(np.maximum(residuals, 0))]))
    return np.concatenate([np.empty((0, len(basis) + 1), np.float32), *parts]).astype(np.float32)


def _fit_means(coordinates: Floats, codes: npt.NDArray[np.intp], n_classes: int) -> tuple[Floats, Floats]:
    """Return the means of the classes, and a factor of the precision matrix that they share."""
    counts = np.bincount(codes, minlength=n_classes)
    sums = np.zeros((n_classes, coordinates.shape[1]))
    np.add.at(sums, codes, coordinates)
    means = sums / np.maximum(counts, 1)[:, None]
    means[counts == 0] = means[counts.argmax()]  # a class that is in only one fold is not nearer than other classes
    covariance, _ = ledoit_wolf(coordinates - means[codes], assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    floor = max(float(values.max()) * 1e-6, float(np.finfo(np.float32).tiny))
    return means.astype(np.float32), (vectors / np.sqrt(np.maximum(values, floor))).astype(np.float32)


def _measure(coordinates: Floats, means: Floats, factor: Floats) -> Floats:
    return np.asarray(_measure_classes(coordinates, means, factor).min(axis=1))


def _measure_classes(coordinates: Floats, means: Floats, factor: Floats) -> Floats:
    own, classes = coordinates @ factor, means @ factor
    squares = np.einsum("nk,nk->n", own, own)[:, None] - 2 * own @ classes.T + np.einsum("ck,ck->c", classes, classes)
    return np.asarray(np.maximum(squares, 0), np.float32)


def _count_above(scores: Floats, counts: npt.NDArray[np.int32], distances: Floats) -> npt.NDArray[np.int64]:
    """Count the left-out images that are at least as far away as each distance; scores are sorted, padding excepted."""
    held = counts > 0
    reached = np.concatenate([[0], np.cumsum(counts[held], dtype=np.int64)])
    return np.asarray(reached[-1] - reached[np.searchsorted(scores[held], distances, side="left")])
