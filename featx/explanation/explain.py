"""Explain the answers of a pipeline: split each score among the cells of the map that the features were pooled from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._events import Events
from featx._files import write_whole
from featx._results import format_html, to_plain
from featx._text import printable
from featx._validation import check_choice
from featx.errors import Failure, ImageError, InputError
from featx.explanation.cells import Box
from featx.explanation.explainer import METHODS, Explainer, Parts
from featx.explanation.scores import find_class
from featx.images.containers import list_items
from featx.images.decode import UnreadableError, decode, describe, read
from featx.images.heat import draw_heat, to_png
from featx.persistence.archive import load
from featx.pipelines import split_pipeline
from featx.similarity import NearestRows
from featx.sources import is_dataset, list_images
from featx.sources.names import is_image

__all__ = ["METHODS", "Explanation", "explain"]

_BATCH = 16
_N_SIMILAR, _ROWS = 3, 8192


@dataclass(frozen=True, repr=False, eq=False)
class Explanation:
    """Scores of images, split among the cells of their maps.

    Parameters
    ----------
    names : tuple of str
        Name of each image that could be read.
    classes : tuple or None
        Labels of the scores; None for a regression.
    predicted : ndarray, shape (n_images,)
        Predicted class or number of each image.
    scores : ndarray of float64, shape (n_images, n_scores)
        Scores of the head; one per class, or one for a regression.
    base : ndarray of float64, shape (n_scores,)
        Score of the mean features of the fit: the score before the image is known.
    maps : ndarray of float64, shape (n_images, n_scores, rows, columns)
        Contribution of each cell. ``base + maps.sum((2, 3))`` is ``scores``, except for occlusion.
    boxes : tuple of (left, upper, right, lower)
        Part of each image that the maps cover, in pixels. It may reach beyond the image.
    quantity : str
        Kind of the scores: ``"decision"``, ``"log-probability"``, ``"probability"`` or ``"value"``.
    method : str
        ``"cells"``, ``"shapley"`` or ``"occlusion"``.
    error : float
        Largest difference between ``base + maps.sum((2, 3))`` and ``scores``, relative to the largest score.
    similar : tuple of list of (str, float), or None
        The training images that are most similar to each image, with their cosine similarity.
    failures : tuple of Failure
        Images that could not be read.
    items : tuple
        The images that could be read, as they were given.

    See Also
    --------
    featx.explain : Makes it; its example shows one.
    """

    names: tuple[str, ...]
    classes: tuple[Any, ...] | None
    predicted: npt.NDArray[Any]
    scores: npt.NDArray[np.float64]
    base: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float64]
    boxes: tuple[Box, ...]
    quantity: str
    method: str
    error: float
    similar: tuple[list[tuple[str, float]], ...] | None
    failures: tuple[Failure, ...]
    items: tuple[Any, ...]

    @property
    def limit(self) -> float:
        """Largest contribution of a cell: the end of the colour scale that all images share."""
        return float(np.abs(self.maps).max(initial=0.0))

    def select(self, i: int, label: Any = None, against: Any = None) -> npt.NDArray[np.float64]:
        """Return the map of one image for a label, by default the predicted one.

        Parameters
        ----------
        i : int
            Number of the image.
        label : label or None, default=None
            Class whose score is shown. None is the predicted class, and with several labels per image the likeliest.
        against : label or None, default=None
            Class whose map is subtracted: why ``label`` and not this one.

        Returns
        -------
        ndarray of float64, shape (rows, columns)
        """
        own = self.maps[i, find_class(self.classes, self.predicted[i] if label is None else label, "label")]
        return own if against is None else np.asarray(own - self.maps[i, find_class(self.classes, against, "against")])

    def draw(self, i: int, label: Any = None, against: Any = None, *, limit: float | None = None) -> Any:
        """Draw the map on the image: red speaks for the label, blue against it; hatched parts were not seen.

        Parameters
        ----------
        i, label, against
            As for `select`.
        limit : float or None, default=None
            Contribution at the end of the colour scale; None takes `limit`.

        Returns
        -------
        PIL.Image.Image
        """
        limit = self.limit if limit is None else limit
        return draw_heat(decode(read(self.items[i])), self.select(i, label, against), self.boxes[i], limit)

    def save(self, folder: str | os.PathLike[str], label: Any = None, against: Any = None) -> list[str]:
        """Write a PNG per image and ``why.json`` into a folder.

        Parameters
        ----------
        folder : str or path
            Folder, which is made if it does not exist.
        label, against
            As for `select`.

        Returns
        -------
        list of str
            Paths of the images.
        """
        self.select(0, label, against)  # raises before a file is written, if there is no such class
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        paths = []
        for i, name in enumerate(self._file_names()):
            with write_whole(target / name) as scratch:
                scratch.write_bytes(to_png(self.draw(i, label, against)))
            paths.append(str(target / name))
        with write_whole(target / "why.json") as scratch:
            scratch.write_text(json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return paths

    def to_dict(self) -> dict[str, Any]:
        """Return the explanation as plain values, which JSON can hold."""
        files = self._file_names()
        images = []
        for i, name in enumerate(self.names):
            images.append(
                {
                    "name": name,
                    "file": files[i],
                    "predicted": self.predicted[i],
                    "scores": self.scores[i],
                    "box": self.boxes[i],
                    "maps": self.maps[i],
                    **({} if self.similar is None else {"similar": self.similar[i]}),
                }
            )
        return dict(
            to_plain(
                {
                    "method": self.method,
                    "quantity": self.quantity,
                    "classes": self.classes,
                    "base": self.base,
                    "error": self.error,
                    "limit": self.limit,
                    "images": images,
                    "failures": self.failures,
                }
            )
        )

    def _file_names(self) -> list[str]:
        """Return a file name for each image: its own name, and a number that makes it unique."""
        used: set[str] = set()
        files = []
        for name in self.names:
            stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in Path(name).stem)[:80].strip(".") or "image"
            number, file = 1, f"{stem}.png"
            while file.lower() in used:
                number += 1
                file = f"{stem}-{number}.png"
            used.add(file.lower())
            files.append(file)
        return files

    def __repr__(self) -> str:
        failed = f", {len(self.failures)} could not be read" if self.failures else ""
        n = len(self.names)
        return f"Explanation({n} image{'' if n == 1 else 's'}, {self.method}{failed})"

    def __str__(self) -> str:
        check = (
            "" if self.method == "occlusion" else f"; base + cells = score, error {self.error:.1e} of the largest score"
        )
        return f"{self!r}: {self.quantity} per cell{check}"

    def _repr_html_(self) -> str:
        rows = [
            {"image": name, "predicted": printable(self.predicted[i]), "score": float(self.scores[i].max())}
            for i, name in enumerate(self.names[:20])
        ]
        return format_html(str(self), rows)


def explain(
    pipeline: Any,
    X: Any,
    *,
    method: str = "auto",
    train: Any = None,
    random_state: int | None = 0,
    events: Events | None = None,
) -> Explanation:
    """Split the scores of images among the cells of the maps that the network saw.

    The features of an image are pooled from a map, so each feature can be split among the cells of its map. The score
    of a linear head is then exactly a base plus one number per cell, after a single run of the network. For other
    heads, the numbers are Shapley values of the cells, with the same exact sum.

    A cell depends on more of the image than its square, because the network also looks at its surroundings.

    Parameters
    ----------
    pipeline : estimator, FitResult, str or path
        A fitted pipeline that begins with a `FeatureExtractor`, or the path of its file.
    X : source, sequence or ndarray
        A source as for `featx.fit`, or images as for `FeatureExtractor.transform`.
    method : {"auto", "cells", "shapley", "occlusion"}, default="auto"
        ``"cells"`` raises if the head is not linear. ``"auto"`` uses ``"cells"`` if it is, and ``"shapley"``
        otherwise. ``"occlusion"`` covers one cell after the other with the image's mean colour, and runs the
        network once per cell.
    train : source, sequence, Dataset or None, default=None
        Training images, or an open dataset of their features. The three most similar are found for each image.
    random_state : int or None, default=0
        Seed of the random orders of cells in ``"shapley"``.
    events : Events or None, default=None
        Receives progress.

    Returns
    -------
    Explanation

    Raises
    ------
    InputError
        If the pipeline, the method or X cannot be used.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> X, y = featx.samples.load_fashion_mnist("test")
    >>> result = featx.fit(X[::5], y[::5], head="ridge", extractor=featx.FeatureExtractor(), estimate=False)
    >>> explanation = featx.explain(result, X[1:3])
    >>> explanation.method, explanation.maps.shape
    ('cells', (2, 10, 7, 7))
    >>> explanation.error < 1e-4
    True
    """
    check_choice("method", method, METHODS)
    extractor, head = split_pipeline(_open(pipeline))
    if extractor.kind == "text":
        raise InputError("the pipeline takes texts, expected a pipeline of images: a text has no map of cells")
    events = events or Events()
    items, names = _list(X)
    explainer = Explainer(extractor, head, method, random_state)
    parts: list[Parts] = []
    positions: list[int] = []
    failures: list[Failure] = []
    events.begin("explain", len(items))
    try:
        for start in range(0, len(items), _BATCH):
            stop = min(start + _BATCH, len(items))
            images, decoded = _decode(items, names, range(start, stop), failures)
            events.advance(stop - start, n_failed=stop - start - len(images))
            if images:
                parts.append(explainer.split(images))
                positions += decoded
    finally:
        events.end()
    if not parts:
        raise ImageError(
            failures[0], "" if len(items) == 1 else f"not one of {len(items)} images could be read; the first: "
        )
    all_scores, all_maps = (np.concatenate([getattr(part, name) for part in parts]) for name in ("scores", "maps"))
    base = parts[0].base
    deviation = np.abs(base + all_maps.sum((2, 3)) - all_scores).max()
    similar = None
    if train is not None:
        similar = _find_similar(extractor, np.concatenate([part.features for part in parts]), train, events)
    return Explanation(
        names=tuple(names[i] for i in positions),
        classes=explainer.classes,
        predicted=np.concatenate([part.predicted for part in parts]),
        scores=all_scores,
        base=base,
        maps=all_maps,
        boxes=tuple(box for part in parts for box in part.boxes),
        quantity=explainer.quantity,
        method=explainer.method,
        error=float(deviation / max(np.abs(all_scores).max(), 1e-30)),
        similar=similar,
        failures=tuple(failures),
        items=tuple(items[i] for i in positions),
    )


def _open(pipeline: Any) -> Any:
    if isinstance(pipeline, (str, os.PathLike)):
        return load(pipeline)
    return getattr(pipeline, "pipeline", pipeline)  # a FitResult holds one


def _list(X: Any) -> tuple[Sequence[Any], list[str]]:
    """Return images and their names, from a source or from images."""
    is_source = isinstance(X, (str, os.PathLike))
    if isinstance(X, (list, tuple)) and X and all(isinstance(x, (str, os.PathLike)) for x in X):
        is_source = not all(is_image(os.path.basename(x)) and os.path.isfile(x) for x in X)
    if is_source:
        listing = list_images(X)
        return listing.items, list(listing.names)
    items = list_items(X)
    return items, [
        describe(item) if isinstance(item, (str, os.PathLike)) else f"image {i}" for i, item in enumerate(items)
    ]


def _decode(
    items: Sequence[Any], names: Sequence[str], positions: range, failures: list[Failure]
) -> tuple[list[Any], list[int]]:
    images, kept = [], []
    for i in positions:
        try:
            images.append(decode(read(items[i])))
            kept.append(i)
        except UnreadableError as error:
            failures.append(Failure(i, names[i], str(error)))
    return images, kept


def _find_similar(
    extractor: Any, X: npt.NDArray[np.float64], train: Any, events: Events
) -> tuple[list[tuple[str, float]], ...]:
    """Find the most similar images among training images, or in a dataset of their features."""
    if isinstance(train, (str, os.PathLike)) and is_dataset(train):
        raise InputError(f"train={os.fspath(train)!r}: is a dataset; pass featx.dataset.open({os.fspath(train)!r})")
    if hasattr(train, "take"):
        of_dataset = train.extractor()
        for name in ("backbone_identity_", "value_parameters_"):
            if getattr(of_dataset, name) != getattr(extractor, name):
                raise InputError(f"train: {train} holds other features than those of the pipeline; pass the images")
        names: Sequence[str] = train.keys
        rows = np.arange(len(train))
        blocks: Iterator[Any] = (train.take(rows[start : start + _ROWS]) for start in range(0, len(rows), _ROWS))
    else:
        items, all_names = _list(train)
        embedded = extractor.embed(items, events=events)
        names = [all_names[i] for i in embedded.kept]
        blocks = iter([embedded.features[embedded.kept]])
    nearest = NearestRows(X.astype(np.float32), min(_N_SIMILAR, len(names)))
    start_row = 0
    for block in blocks:
        nearest.add(start_row, np.asarray(block, np.float32))
        start_row += len(block)
    return tuple(
        [(str(names[row]), float(cosine)) for row, cosine in zip(rows, cosines, strict=True)]
        for rows, cosines in zip(nearest.rows, nearest.similarities, strict=True)
    )
