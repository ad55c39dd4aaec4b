"""Split the scores of decoded images among the cells of their maps."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.errors import InputError
from featx.explanation.cells import Box, MapReader, join_boxes
from featx.explanation.scores import Affine, Scores, find_linear, find_mean, find_scores, is_multilabel
from featx.explanation.shapley import shapley_values
from featx.extractor import FeatureExtractor
from featx.images.heat import cover_cells

__all__ = ["METHODS", "Explainer", "Parts"]

#: Ways to explain, each with a description for people.
METHODS = {
    "auto": "cells if the head is linear, shapley otherwise",
    "cells": "the exact share of each cell in a linear head's score",
    "shapley": "Shapley values of the cells, for every head; they add up exactly",
    "occlusion": "the fall of the score if a cell is covered; runs the network once per cell, for comparison",
}
_MAX_CELLS_PER_SIDE = 8  # for shapley and occlusion


@dataclass(frozen=True, eq=False)
class Parts:
    """Scores of some images, and their parts: ``base + maps.sum((2, 3))`` is ``scores``, except for occlusion."""

    features: npt.NDArray[np.float64]
    predicted: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    base: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float64]
    boxes: list[Box]


class Explainer:
    """Split the scores of one extractor and head among cells. Thread-safe.

    Parameters
    ----------
    extractor, head
        As `featx.pipelines.split_pipeline` returns them.
    method : str, default="auto"
        Key of `METHODS`. "auto" becomes "cells" or "shapley" with the first images.
    random_state : int or None, default=0
        Seed of the random orders of cells in "shapley".
    """

    def __init__(
        self, extractor: FeatureExtractor, head: Any, method: str = "auto", random_state: int | None = 0
    ) -> None:
        self.method = method
        self._extractor, self._head, self._random_state = extractor, head, random_state
        self._reader = MapReader(extractor)
        self._scores = find_scores(head)
        self._mean = find_mean(head, self._reader.n_features)
        self._affine: Affine | None = None
        self._is_ready = method in ("shapley", "occlusion")
        self._lock = threading.Lock()

    @property
    def classes(self) -> tuple[Any, ...] | None:
        """Labels of the scores; None for a regression."""
        return self._scores.classes

    @property
    def quantity(self) -> str:
        """Kind of the scores."""
        return self._scores.quantity

    def split(self, images: Sequence[Any]) -> Parts:
        """Split the scores of at least one decoded image.

        Raises InputError if ``method`` is "cells" and the head is not linear.
        """
        boxes = [self._reader.find_boxes(image.size) for image in images]
        cells, _ = self._reader.read(images)
        with self._lock:
            self._prepare(cells.features)
        scores = self._scores.compute(cells.features)
        if self._affine is not None:
            base = self._affine.intercept + self._affine.coef @ self._mean
            maps = self._reader.spread(cells, self._affine, self._mean, boxes)
        else:
            base = self._scores.compute(self._mean[None])[0]
            grid = _coarsen(self._reader.grid)
            maps = np.empty((len(images), scores.shape[1], *grid))
            for i, (image, image_boxes) in enumerate(zip(images, boxes, strict=True)):
                if self.method == "occlusion":
                    values = scores[i] - self._cover(image, image_boxes, grid)
                else:
                    rng = np.random.default_rng(self._random_state)
                    shares = self._reader.split(cells, i, image_boxes, grid)
                    values = shapley_values(self._scores.compute, shares, self._mean, rng)
                maps[i] = values.T.reshape(-1, *grid)
        joined = [join_boxes(one) for one in boxes]
        predicted = np.asarray(self._head.predict(cells.features))
        if self.classes is not None and is_multilabel(self._head):  # the most probable label of each image
            predicted = np.array(self.classes)[scores.argmax(axis=1)]
        return Parts(cells.features, predicted, scores, base, maps, joined)

    def _prepare(self, features: npt.NDArray[np.float64]) -> None:
        """Choose the method with the first images, by whether the head is linear."""
        if self._is_ready:
            return
        found: tuple[Scores, Affine | None] = find_linear(self._head, features)
        scores, affine = found
        if affine is None and self.method == "cells":
            raise InputError(
                f'method="cells": the scores of {type(self._head).__name__} are not linear; '
                'expected method="shapley" or "occlusion"'
            )
        if affine is not None:
            self._mean = find_mean(self._head, self._reader.n_features, of_roots=affine.of_roots)
        self._scores, self._affine = scores, affine
        self.method = "shapley" if affine is None else "cells"
        self._is_ready = True

    def _cover(self, image: Any, boxes: list[Box], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Return the scores with one cell after the other covered."""
        covered = list(cover_cells(image, join_boxes(boxes), grid))
        return self._scores.compute(self._extractor.embed(covered).features.astype(np.float64))


def _coarsen(grid: tuple[int, int]) -> tuple[int, int]:
    """Return a grid of at most 8 x 8 cells, since each cell is taken away in turn."""
    rows, columns = (-(-side // -(-side // _MAX_CELLS_PER_SIDE)) for side in grid)
    return rows, columns
