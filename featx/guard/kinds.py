"""Find rows that are unlike the rows of a fit in one of several kinds of columns, by a p-value per kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.guard.columns import Column, measure_left_out, measure_unknown
from featx.guard.counts import condense, stack
from featx.guard.outliers import Outliers, fit_outliers

__all__ = ["KindCells", "KindOutliers", "Tail", "fit_kinds"]

Floats = npt.NDArray[np.float32]

#: Largest number of left-out scores that are kept.
_MAX_SCORES = 2000


@dataclass(frozen=True, eq=False)
class Tail:
    """Scores of left-out rows: the score of a row is its largest surprise, of one surprise per column.

    ``names`` are the columns. ``scores`` and ``counts`` are those of `Outliers`.
    """

    names: tuple[str, ...]
    scores: Floats
    counts: npt.NDArray[np.int32]

    @property
    def n_features(self) -> int:
        """Number of surprises of a row."""
        return len(self.names)

    n_coordinates = n_features

    def locate(self, features: npt.NDArray[Any]) -> Floats:
        """Return the surprises of shape (n, n_features)."""
        return np.asarray(features, np.float32)

    def measure(self, coordinates: Floats) -> Floats:
        """Return the largest surprise of each row, of shape (n, 1)."""
        return np.asarray(coordinates.max(axis=1, keepdims=True))

    def p_values(self, scores: Floats) -> npt.NDArray[np.float64]:
        """Return the share of left-out rows whose score is at least as large, for each score."""
        return _rank(self.scores[0], self.counts[0], scores[:, 0])


@dataclass(frozen=True, eq=False)
class KindCells:
    """The cells of rows by kind of column, and the features of images and texts.

    ``features`` maps each column of images or texts that an extractor reads to its features. ``vectorizers`` maps
    columns of texts to the vectorizer that counts their words. They are used only if no extractor reads a text.
    """

    cells: Mapping[str, Sequence[Any]]
    kinds: Mapping[str, str]
    features: Mapping[str, npt.NDArray[np.float32]]
    vectorizers: Mapping[str, Any]

    def embedded(self, kind: str) -> npt.NDArray[np.float32] | None:
        """Return the features of a kind's columns side by side, in the order of the names; None without features."""
        names = sorted(name for name, own in self.kinds.items() if own == kind and name in self.features)
        return np.hstack([self.features[name] for name in names]) if names else None

    @property
    def table(self) -> dict[str, str]:
        """Columns of numbers and categories, with their kinds."""
        return {name: kind for name, kind in self.kinds.items() if kind in ("number", "category")}


@dataclass(frozen=True, eq=False)
class KindOutliers:
    """A measure of outlyingness per kind of columns, and the largest surprises of left-out rows to compare with.

    Parameters
    ----------
    names : tuple of str
        Kinds: ``"images"``, ``"texts"``, ``"words"`` and ``"columns"``.
    parts : tuple of Outliers or Tail
        The measure of each kind: distances of the features of images and of texts, the share of unknown words, or the
        surprise of numbers and categories.
    columns : tuple of Number or Category
        Columns of the kind ``"columns"``.
    scales : ndarray of float32, shape (n_kinds,)
        Beyond the largest score of a left-out row, the surprise grows by 1 per this difference of scores.
    scores : ndarray of float32, shape (1, n_scores)
        Surprises of left-out rows in the kind of their largest surprise, sorted.
    counts : ndarray of int32, shape (1, n_scores)
        Number of rows that each of these scores represents.

    Notes
    -----
    The interface is that of `Outliers`. The surprise of a row in a kind is minus the logarithm of its p-value there. It
    grows further beyond the left-out row with the largest score. The largest surprise of a row is ranked among those of
    left-out rows. So its p-value is uniform for any number of kinds, and for kinds that depend on each other.
    """

    names: tuple[str, ...]
    parts: tuple[Outliers | Tail, ...]
    columns: tuple[Column, ...]
    scales: Floats
    scores: Floats
    counts: npt.NDArray[np.int32]

    @property
    def n_images(self) -> int:
        """Number of left-out rows that the p-values come from."""
        return int(self.counts.sum())

    @property
    def n_features(self) -> int:
        """Number of values of a row, as `read` returns them."""
        return sum(part.n_features for part in self.parts)

    @property
    def n_coordinates(self) -> int:
        """Number of coordinates of a row, as `locate` returns them."""
        return sum(part.n_coordinates for part in self.parts)

    def read(self, rows: KindCells) -> npt.NDArray[np.float32]:
        """Return the features, word shares and surprises of rows side by side, of shape (n, n_features)."""
        found: list[npt.NDArray[Any]] = []
        for name in self.names:
            if name == "columns":
                if missing := [column.name for column in self.columns if column.name not in rows.cells]:
                    raise InputError(
                        f"guard: it was fitted with the column {missing[0]!r}, which these rows lack; add it"
                    )
                found.append(np.column_stack([column.measure(rows.cells[column.name]) for column in self.columns]))
            elif name == "words":
                found.append(measure_unknown(rows.cells, rows.vectorizers)[:, None])
            else:
                part = rows.embedded(name[:-1])
                if part is None:
                    raise InputError(f"guard: it was fitted with {name}, which these rows lack; add them")
                found.append(part)
        return np.hstack(found).astype(np.float32)

    def locate(self, features: npt.NDArray[Any]) -> Floats:
        """Return coordinates of shape (n, n_coordinates)."""
        ends = np.cumsum([0, *(part.n_features for part in self.parts)])
        pairs = zip(self.parts, ends[:-1], ends[1:], strict=True)
        return np.hstack([part.locate(features[:, start:stop]) for part, start, stop in pairs])

    def measure(self, coordinates: Floats) -> Floats:
        """Return the score of each kind, of shape (n, n_kinds)."""
        return np.hstack([part.measure(own) for part, own in self._divide(coordinates)])

    def measure_classes(self, coordinates: Floats) -> Floats | None:
        """Return distances to each class in the first kind with features, (n, 1, n_classes); None without features."""
        for part, own in self._divide(coordinates):
            if isinstance(part, Outliers):
                return part.measure_classes(own)
        return None

    def p_kinds(self, distances: Floats) -> npt.NDArray[np.float64]:
        """Return the p-value of each kind, of shape (n, n_kinds)."""
        return np.column_stack([part.p_values(distances[:, i : i + 1]) for i, part in enumerate(self.parts)])

    def p_values(self, distances: Floats) -> npt.NDArray[np.float64]:
        """Return the p-value of each row."""
        return _rank(self.scores[0], self.counts[0], self._surprise(distances).max(axis=1))

    def _surprise(self, distances: Floats) -> npt.NDArray[np.float64]:
        """Return the surprise of each kind, of shape (n, n_kinds)."""
        largest = np.array([part.scores[0][part.counts[0] > 0].max() for part in self.parts])
        return _extend(self.p_kinds(distances), distances, largest, self.scales)

    def name_kinds(self, coordinates: Floats, distances: Floats) -> tuple[str, ...]:
        """Return the kind of each row's largest surprise; for numbers and categories, with the name of the column."""
        least = self._surprise(distances).argmax(axis=1)
        labels = {}
        for name, (part, values) in zip(self.names, self._divide(coordinates), strict=True):
            if name == "columns" and isinstance(part, Tail):
                labels[name] = [f"{name}: {part.names[i]}" for i in values.argmax(axis=1).tolist()]
        return tuple(
            labels[self.names[k]][i] if self.names[k] in labels else self.names[k] for i, k in enumerate(least.tolist())
        )

    def _divide(self, coordinates: Floats) -> list[tuple[Outliers | Tail, Floats]]:
        ends = np.cumsum([0, *(part.n_coordinates for part in self.parts)])
        pairs = zip(self.parts, ends[:-1], ends[1:], strict=True)
        return [(part, coordinates[:, start:stop]) for part, start, stop in pairs]


def fit_kinds(
    rows: KindCells,
    groups: npt.NDArray[Any],
    codes: npt.NDArray[np.intp],
    folds: npt.NDArray[np.intp],
    calibrates: npt.NDArray[np.bool_],
    n_classes: int = 1,
) -> tuple[KindOutliers, Floats, Floats, npt.NDArray[np.float64]]:
    """Fit the measure of each kind; the other results are those of `featx.guard.outliers.fit_outliers`.

    ``groups`` holds the group of each row. The other parameters are those of `fit_outliers`.
    """
    names: list[str] = []
    parts: list[Outliers | Tail] = []
    coordinates, scores = [], []
    to_classes: Floats | None = None
    columns: tuple[Column, ...] = ()
    for kind in ("image", "text"):
        features = rows.embedded(kind)
        if features is not None:
            outliers, kind_coordinates, distances, _ = fit_outliers(features, codes, folds, calibrates, n_classes)
            names.append(f"{kind}s")
            parts.append(outliers)
            coordinates.append(kind_coordinates)
            scores.append(distances.min(axis=1))
            to_classes = distances if to_classes is None else to_classes
    measures: list[tuple[str, tuple[str, ...], npt.NDArray[np.float64]]] = []
    if "texts" not in names and rows.vectorizers:
        measures.append(("words", ("words",), measure_unknown(rows.cells, rows.vectorizers, groups)[:, None]))
    if rows.table:
        columns, surprises = measure_left_out(rows.cells, rows.table, folds)
        measures.append(("columns", tuple(column.name for column in columns), surprises))
    for name, numbers, values in measures:
        coordinates.append(values.astype(np.float32))
        scores.append(coordinates[-1].max(axis=1))
        names.append(name)
        parts.append(Tail(numbers, *stack([condense(scores[-1][calibrates], _MAX_SCORES)])))
    if not parts:
        raise InputError("got no column of a kind that a guard knows; expected images, texts, numbers or categories")
    if to_classes is None:
        to_classes = np.zeros((len(codes), n_classes), np.float32)
    all_scores = np.column_stack(scores)
    scales = np.array([_find_scale(kind_scores[calibrates]) for kind_scores in all_scores.T], np.float32)
    surprise = np.column_stack(
        [
            _compare_left_out(kind_scores, calibrates, scale)
            for kind_scores, scale in zip(all_scores.T, scales, strict=True)
        ]
    )
    largest = surprise.max(axis=1).astype(np.float32)
    row = condense(largest[calibrates], _MAX_SCORES)
    outliers_of_kinds = KindOutliers(tuple(names), tuple(parts), columns, scales, *stack([row]))
    return outliers_of_kinds, np.hstack(coordinates), to_classes, _rank(*row, largest)


def _find_scale(scores: npt.NDArray[Any]) -> float:
    """Return a unit of the scores: their 0.95 quantile less their median, divided by log(10)."""
    median, high = np.quantile(scores, [0.5, 0.95])
    return max(float((high - median) / np.log(10)), float(np.ptp(scores)) / 100, 1e-6)


def _compare_left_out(
    scores: npt.NDArray[Any], calibrates: npt.NDArray[np.bool_], scale: float
) -> npt.NDArray[np.float64]:
    """Return the surprise of each left-out row among the other left-out rows."""
    ordered = np.sort(scores[calibrates])
    n = len(ordered) - calibrates.astype(int)  # without the row itself
    above = len(ordered) - np.searchsorted(ordered, scores, side="left") - calibrates
    second = np.where(calibrates & (scores >= ordered[-1]), ordered[-2], ordered[-1])
    return _extend((1 + above) / (1 + n), scores, second, scale)


def _extend(p_values: npt.NDArray[Any], scores: Any, largest: Any, scale: Any) -> npt.NDArray[np.float64]:
    """Return minus the logarithm of p-values, plus (score - largest) / scale for scores above ``largest``."""
    return np.asarray(-np.log(p_values) + np.maximum(scores - largest, 0) / scale, np.float64)


def _rank(scores: Floats, counts: npt.NDArray[np.int32], values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    is_used = counts > 0
    cumulative = np.concatenate([[0], np.cumsum(counts[is_used], dtype=np.int64)])
    above = cumulative[-1] - cumulative[np.searchsorted(scores[is_used], values.astype(np.float32), side="left")]
    return np.asarray((1 + above) / (1 + cumulative[-1]), np.float64)
