"""Reference images of an export, with the pipeline's features and predictions for them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from featx.backbones import Backbone
from featx.backbones.file import require_images
from featx.errors import ExportError, Failure
from featx.extractor import FeatureExtractor
from featx.heads import Response, respond
from featx.images.containers import list_items
from featx.images.decode import decode
from featx.images.preprocess import to_canvas
from featx.images.reference import list_real_images
from featx.sources.listing import list_images

__all__ = ["Reference", "make_reference"]


@dataclass(frozen=True)
class Reference:
    """Images that an exported graph is compared on, and the pipeline's results for them."""

    items: list[Any]  # the images that could be read, as an extractor takes them
    canvases: npt.NDArray[np.uint8]  # resized and cropped by Pillow
    features: npt.NDArray[np.float32]
    expected: Response
    failures: list[Failure]
    notes: list[str]  # remarks on the source, such as files that were skipped

    def read_images(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Read the images in full size, one at a time."""
        return (np.asarray(decode(item)) for item in self.items)


def make_reference(
    images: Any, extractor: FeatureExtractor, head: Any, backbone: Backbone, max_images: int
) -> Reference:
    """Embed and predict the images that an exported graph will be compared on.

    ``images`` is as for `featx.deploy.export`; of a source, at most ``max_images`` are taken from the whole of it.
    """
    notes: list[str] = []
    if images is None:
        items = list_real_images()
    elif isinstance(images, (str, os.PathLike)):
        listing = list_images(images)
        n = min(len(listing.items), max_images)
        items, notes = [listing.items[i * len(listing.items) // n] for i in range(n)], list(listing.notes)
    else:
        items = list_items(images)
    embedded = extractor.embed(items)
    items, features = [items[i] for i in embedded.kept], embedded.features[embedded.kept]
    if not items:
        raise ExportError("no image to compare with: images is empty")
    canvases = _make_canvases(items, extractor, backbone)
    return Reference(items, canvases, features, respond(head, features), embedded.failures, notes)


def _make_canvases(items: list[Any], extractor: FeatureExtractor, backbone: Backbone) -> npt.NDArray[np.uint8]:
    """Decode, resize and crop images apart from the extractor, so that the graph's input is checked as well."""
    rules, fast = require_images(backbone), extractor.decode == "fast"
    pixels = np.empty((len(items), 3, rules.height, rules.width), np.uint8)
    for item, out in zip(items, pixels, strict=True):
        to_canvas(decode(item, rules.resize if fast else None), rules, out, crop=extractor.crop, fast=fast)
    return pixels
