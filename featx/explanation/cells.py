"""Split the features of images among the cells of the maps that they were pooled from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx.backbones.file import require_images
from featx.backbones.pooling import POOLINGS
from featx.errors import Failure, FeaturesChangedError
from featx.explanation.scores import Affine
from featx.extractor import FeatureExtractor
from featx.images.preprocess import Preprocess, find_box
from featx.inference.spec import make_spec

__all__ = ["Box", "CellMaps", "LayerPlace", "MapReader"]

Floats = npt.NDArray[np.float32]
#: Left, upper, right and lower edge, in pixels of the image; the box may reach beyond the image.
Box = tuple[float, float, float, float]

_MIN_NORM = 1e-12  # as in the graph


@dataclass(frozen=True)
class LayerPlace:
    """The position of a layer in a row of whole maps and in a row of features."""

    backbone: int
    tensor: str
    size: tuple[int, int, int]
    start: int  # in the row of maps
    first: int  # in the row of features
    n_features: int
    preprocess: Preprocess

    @property
    def maps(self) -> slice:
        """Positions of the layer in the row of maps."""
        return slice(self.start, self.start + int(np.prod(self.size)))

    @property
    def features(self) -> slice:
        """Positions of the layer in the row of features."""
        return slice(self.first, self.first + self.n_features)


@dataclass(frozen=True, eq=False)
class CellMaps:
    """The maps of some images (one array per layer), their features, and the norm of each backbone's features."""

    maps: list[Floats]
    features: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]  # (n, n_backbones); 1 without l2_normalize


class MapReader:
    """Read the maps that an extractor pools, with one run of each backbone per image.

    Parameters
    ----------
    extractor : FeatureExtractor
        Its backbones, layers, pooling, crop and normalisation are used.
    """

    def __init__(self, extractor: FeatureExtractor) -> None:
        spec = make_spec(extractor.get_params(deep=False))
        fitted = getattr(extractor, "backbone_identity_", None)
        if fitted and (changed := spec.changes(fitted, extractor.value_parameters_)):
            raise FeaturesChangedError(
                f"{'; '.join(changed)}: the features would differ from those of fit; call fit again"
            )
        self.pooling = POOLINGS[extractor.pooling]
        self.normalizes = bool(extractor.l2_normalize)
        self.crop = extractor.crop
        self.layers: list[LayerPlace] = []
        start = first = 0
        for number, part in enumerate(spec.parts):
            for layer in part.backbone.select(list(part.widths)):
                n = self.pooling.n_features(layer.size)
                self.layers.append(
                    LayerPlace(number, layer.tensor, layer.size, start, first, n, require_images(part.backbone))
                )
                start, first = start + int(np.prod(layer.size)), first + n
        self.n_features = first
        self.n_backbones = len(spec.parts)
        finest = max(self.layers, key=lambda layer: layer.size[1] * layer.size[2])
        #: Number of rows and columns of an explanation's cells.
        self.grid: tuple[int, int] = (finest.size[1], finest.size[2])
        whole = {"pooling": "flatten", "l2_normalize": False, "cache": False, "n_jobs": None, "progress": False}
        self._extractor = clone(extractor).set_params(**whole)

    def read(self, images: Sequence[Any]) -> tuple[CellMaps, list[Failure]]:
        """Run the backbones on decoded images; return the maps, and failures."""
        rows, failures = self._extractor.embed(images)
        maps = [rows[:, layer.maps].reshape(len(rows), *layer.size) for layer in self.layers]
        features = np.concatenate([self.pooling.array(part) for part in maps], axis=1).astype(np.float64)
        norms = np.ones((len(rows), self.n_backbones))
        if self.normalizes:
            for layer in self._first_layers():
                own = slice(layer.first, self._end_of(layer.backbone))
                norms[:, layer.backbone] = np.maximum(np.linalg.norm(features[:, own], axis=1), _MIN_NORM)
                features[:, own] /= norms[:, layer.backbone, None]
        return CellMaps(maps, features, norms), failures

    def _first_layers(self) -> Iterator[LayerPlace]:
        return (layer for i, layer in enumerate(self.layers) if not i or self.layers[i - 1].backbone != layer.backbone)

    def _end_of(self, backbone: int) -> int:
        return max(layer.first + layer.n_features for layer in self.layers if layer.backbone == backbone)

    def find_boxes(self, size: tuple[int, int]) -> list[Box]:
        """Return the part that each backbone sees of an image of this width and height, in pixels."""
        boxes: dict[int, Box] = {}
        for layer in self.layers:
            boxes.setdefault(layer.backbone, find_box(size, layer.preprocess, self.crop))
        return [boxes[i] for i in range(self.n_backbones)]

    def spread(
        self, cells: CellMaps, affine: Affine, mean: npt.NDArray[np.float64], boxes: Sequence[list[Box]]
    ) -> npt.NDArray[np.float64]:
        """Split ``coef @ (features - mean)`` of a linear map, or of the roots of the features, among the cells.

        Returns
        -------
        ndarray of float64, shape (n_images, n_scores, rows, columns)
            The sum over the cells is ``coef @ (features - mean)``, to rounding.
        """
        coef, scale = affine.coef, affine.scale(cells.features)
        total = np.zeros((len(cells.features), len(coef), *self.grid))
        for layer, maps in zip(self.layers, cells.maps, strict=True):
            weights, factors = coef[:, layer.features], scale[:, layer.features]
            own = np.zeros((len(maps), len(coef), *layer.size[1:]))
            for share in self.pooling.shares(maps):
                height, width = share.values.shape[2:]
                part = own[:, :, share.top : share.top + height, share.left : share.left + width]
                values = share.values * factors[:, share.features, None, None]
                part += np.einsum("kc,nchw->nkhw", weights[:, share.features], values, optimize=True)
            own /= cells.norms[:, layer.backbone, None, None, None]
            own -= (weights @ mean[layer.features] / own[0, 0].size)[None, :, None, None]
            for i, image_boxes in enumerate(boxes):
                down, across = self.overlaps(layer, image_boxes, self.grid)
                total[i] += down @ own[i] @ across.T
        return total

    def split(self, cells: CellMaps, i: int, image_boxes: list[Box], grid: tuple[int, int]) -> npt.NDArray[np.float64]:
        """Return the share of each cell of a grid in each feature of one image.

        Returns
        -------
        ndarray of float64, shape (n_cells, n_features)
            The sum over the cells is the row of features, to rounding.
        """
        shares = np.zeros((*grid, self.n_features))
        for layer, maps in zip(self.layers, cells.maps, strict=True):
            down, across = self.overlaps(layer, image_boxes, grid)
            for share in self.pooling.shares(maps[i : i + 1]):
                height, width = share.values.shape[2:]
                rows = down[:, share.top : share.top + height]
                columns = across[:, share.left : share.left + width]
                part = np.einsum("yh,chw,xw->yxc", rows, share.values[0], columns, optimize=True)
                shares[:, :, layer.features][:, :, share.features] += part / cells.norms[i, layer.backbone]
        return shares.reshape(-1, self.n_features)

    def overlaps(
        self, layer: LayerPlace, boxes: list[Box], grid: tuple[int, int]
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return the matrices that map a layer's rows and columns of cells to those of a grid."""
        box, whole = boxes[layer.backbone], join_boxes(boxes)
        down = _overlap(layer.size[1], box[1::2], grid[0], whole[1::2])
        across = _overlap(layer.size[2], box[0::2], grid[1], whole[0::2])
        return down, across


def join_boxes(boxes: Sequence[Box]) -> Box:
    """Return the smallest box that holds all boxes."""
    left, upper, right, lower = zip(*boxes, strict=True)
    return min(left), min(upper), max(right), max(lower)


def _overlap(
    n_cells: int, span: tuple[float, ...], n_targets: int, whole: tuple[float, ...]
) -> npt.NDArray[np.float64]:
    """Return the fraction of each cell that lies in each target cell, shape (n_targets, n_cells)."""
    cells, targets = np.linspace(span[0], span[1], n_cells + 1), np.linspace(whole[0], whole[1], n_targets + 1)
    upper = np.minimum(cells[None, 1:], targets[1:, None])
    lower = np.maximum(cells[None, :-1], targets[:-1, None])
    fractions = np.maximum(upper - lower, 0)
    return np.asarray(fractions / fractions.sum(axis=0, keepdims=True))
