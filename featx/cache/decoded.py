"""Keep recently decoded images in memory, since the next backbone may need the same images.

A `FeatureUnion` or a search goes through all images once per extractor. When the memory is full, a random image is
dropped: in such a cycle, the least recently used image would be the next that is needed.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Hashable
from typing import Any, NamedTuple

__all__ = ["DecodedImage", "DecodedImageCache", "decoded_images"]

#: Bytes of pixels kept per process: about 280 photos of 500x375.
MAX_BYTES = 160 << 20


class DecodedImage(NamedTuple):
    """A decoded Pillow image, and the digest of the content it was decoded from."""

    image: Any
    digest: bytes


class DecodedImageCache:
    """Hold decoded images up to a limit of bytes of pixels. Thread-safe.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.cache.decoded import DecodedImage, DecodedImageCache
    >>> images = DecodedImageCache(max_bytes=10_000)
    >>> images.put("a.png", DecodedImage(Image.new("RGB", (10, 10)), b"..."))
    >>> images.get("a.png").image.size, images.get("b.png")
    ((10, 10), None)
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.max_bytes = max_bytes
        self.clear()

    def clear(self) -> None:
        """Drop all images."""
        self._lock = threading.Lock()  # a new one, since a fork may have copied a locked one
        self._images: dict[Hashable, DecodedImage] = {}
        self._keys: list[Hashable] = []
        self.n_bytes = 0
        self._random = random.Random(0)  # chooses the image that is dropped, and changes no feature

    def get(self, key: Hashable) -> DecodedImage | None:
        """Return the image of a key, or None."""
        return self._images.get(key)

    def put(self, key: Hashable, image: DecodedImage) -> None:
        """Keep an image, unless it would take more than an eighth of the memory."""
        size = _size(image)
        if size > self.max_bytes // 8:
            return
        with self._lock:
            if key in self._images:
                return
            while self.n_bytes + size > self.max_bytes:
                place = self._random.randrange(len(self._keys))
                dropped, self._keys[place] = self._keys[place], self._keys[-1]
                self._keys.pop()
                self.n_bytes -= _size(self._images.pop(dropped))
            self._images[key] = image
            self._keys.append(key)
            self.n_bytes += size


def _size(image: DecodedImage) -> int:
    return int(image.image.width * image.image.height * 4)  # Pillow spends four bytes on an RGB pixel


#: Shared by all extractors of this process.
decoded_images = DecodedImageCache()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoded_images.clear)
