"""Provide real images from scikit-learn and featx to compare backbones on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.datasets import load_sample_images

from featx.images.decode import decode
from featx.images.preprocess import Preprocess, to_canvas
from featx.samples import load_fashion_mnist

__all__ = ["list_real_images", "real_images"]


def list_real_images() -> list[Any]:
    """Return two photographs, their quarters and two pieces of clothing, as items of an extractor."""
    items: list[Any] = []
    for photo in load_sample_images().images:
        y, x = photo.shape[0] // 2, photo.shape[1] // 2
        items += [photo, photo[:y, :x], photo[:y, x:], photo[y:, :x], photo[y:, x:]]
    return items + list(load_fashion_mnist("test")[0][:300:150])


def real_images(preprocess: Preprocess) -> npt.NDArray[np.uint8]:
    """Return the images of `list_real_images` on the canvas of a backbone, as (12, 3, height, width)."""
    items = list_real_images()
    pixels = np.empty((len(items), 3, preprocess.height, preprocess.width), np.uint8)
    for item, out in zip(items, pixels, strict=True):
        to_canvas(decode(item), preprocess, out)
    return pixels
