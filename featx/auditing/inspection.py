"""Embed images and measure their files and looks, with each image read and decoded once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone

from featx._events import Events
from featx.dataset.images import fetch_originals
from featx.errors import Failure
from featx.extractor import FeatureExtractor
from featx.fitting.labelled import Inputs
from featx.images.decode import Deferred, UnreadableError, describe
from featx.images.statistics import Measured, measure_image

__all__ = ["Inspected", "inspect"]

#: Number of images that are measured between two reports of progress.
_CHUNK = 256


@dataclass(frozen=True, eq=False)
class Inspected:
    """Readable images: their names, features and measurements, in the same order.

    ``measured`` is None if no image could be reached, as for a dataset whose images have moved. An entry is None if
    only that image could not be reached. ``positions`` are the images' positions in the inputs. ``items`` are the
    images, for pages.
    """

    inputs: Inputs
    names: list[str]
    positions: npt.NDArray[np.intp]
    features: npt.NDArray[np.float32]
    measured: list[Measured | None] | None
    failures: list[Failure]
    items: list[Any] | None
    note: str = ""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def thumbnails(self) -> npt.NDArray[np.uint8] | None:
        """Grey thumbnails, shape (n_images, 32, 32); zeros for an image that was not measured."""
        if self.measured is None:
            return None
        blank = np.zeros((32, 32), np.uint8)
        return np.stack([blank if one is None else one.thumbnail for one in self.measured])

    @property
    def looks(self) -> npt.NDArray[np.float32] | None:
        """Numbers of `featx.images.statistics.LOOKS`, shape (n_images, n_looks); NaN if not measured."""
        if self.measured is None:
            return None
        n = next((len(one.looks) for one in self.measured if one is not None), 0)
        return np.stack([np.full(n, np.nan, np.float32) if one is None else one.looks for one in self.measured])


class _Watched(Deferred):
    """An image that is measured by the thread that decodes it."""

    __slots__ = ("_into", "_item", "_row")

    def __init__(self, item: Any, row: int, into: list[Measured | None]) -> None:
        self._item, self._row, self._into = item, row, into

    def fetch(self) -> Any:
        """Return the pixels."""
        measured, pixels = measure_image(self._item)
        self._into[self._row] = measured
        return pixels

    def __str__(self) -> str:
        return describe(self._item)


def inspect(inputs: Inputs, extractor: FeatureExtractor, events: Events) -> Inspected:
    """Embed the images and measure them.

    With a cache, the features of an image may be known without decoding it, and fast decoding does not read all pixels.
    In these two cases, and for a dataset of embeddings, the images are measured in a separate pass.
    """
    everything = np.arange(len(inputs))
    measured: list[Measured | None] = [None] * len(inputs)
    note = ""
    if inputs.dataset is None and extractor.cache is False and extractor.decode == "exact":
        watched = [_Watched(item, i, measured) for i, item in enumerate(inputs.items)]
        alone = clone(extractor).set_params(n_jobs=None).fit(None)
        embeddings = replace(inputs, items=watched).embed(everything, alone, events)
        items: Sequence[Any] | None = inputs.items
    else:
        embeddings = inputs.embed(everything, extractor, events)
        items, note = _measure_again(inputs, measured, events)
    kept = embeddings.positions
    own = [measured[i] for i in kept]
    n_lost = sum(one is None for one in own)
    if n_lost and not note:
        note = f"{n_lost} images could not be measured; the checks of files and looks leave them out"
    return Inspected(
        inputs=inputs,
        names=inputs.names(kept),
        positions=kept,
        features=embeddings.take(),
        measured=None if n_lost == len(own) else own,
        failures=embeddings.failures,
        items=None if items is None else [items[i] for i in kept],
        note=note,
    )


class _Original(Deferred):
    """The image of a row of a dataset, fetched when it is shown."""

    __slots__ = ("_dataset", "_row")

    def __init__(self, dataset: Any, row: int) -> None:
        self._dataset, self._row = dataset, row

    def fetch(self) -> bytes:
        """Return the encoded bytes."""
        (content,) = fetch_originals(self._dataset, [self._row])
        if isinstance(content, str):
            raise UnreadableError(content)
        return content


@dataclass(frozen=True)
class _Missing:
    """Represent an image of a dataset that cannot be fetched."""

    reason: str


def _measure_again(inputs: Inputs, into: list[Measured | None], events: Events) -> tuple[Sequence[Any] | None, str]:
    """Measure the images in a separate pass; return the images, and a note if they cannot be reached."""
    dataset = inputs.dataset
    n, first_reason = len(inputs), ""
    events.begin("measure", n)
    with ThreadPoolExecutor() as pool:
        try:
            for start in range(0, n, _CHUNK):
                rows = range(start, min(start + _CHUNK, n))
                if dataset is None:
                    items = inputs.items[start : rows.stop]
                else:
                    originals = fetch_originals(dataset, list(rows))
                    items = [_Missing(one) if isinstance(one, str) else one for one in originals]
                    if start == 0 and all(isinstance(item, _Missing) for item in items):
                        why = f"the images of the dataset cannot be reached ({items[0].reason})"
                        return None, f"{why}: files, looks and containers were not checked"
                for row, (found, reason) in zip(rows, pool.map(_try_measure, items), strict=True):
                    into[row] = found
                    first_reason = first_reason or reason
                events.advance(len(rows))
        finally:
            events.end()
    if dataset is None:
        return inputs.items, ""
    lost = sum(one is None for one in islice(into, n))
    note = f"{lost} images of the dataset could not be measured, the first: {first_reason}" if lost else ""
    return [_Original(dataset, row) for row in range(n)], note


def _try_measure(item: Any) -> tuple[Measured | None, str]:
    """Measure an image, or return the reason why it cannot be measured."""
    if isinstance(item, _Missing):
        return None, item.reason
    try:
        return measure_image(item)[0], ""
    except UnreadableError as error:
        return None, str(error)
