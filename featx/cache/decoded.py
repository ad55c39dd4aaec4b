"""Images that were decoded a moment ago, within a bound: the next backbone may ask for the same ones.

A `FeatureUnion` or a search goes through all images once for each extractor. What was
decoded is kept as long as there is room; then an image drawn by lot goes, since in such a
round the one that was used longest ago would be the very next to be asked for.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Hashable
from typing import Any, NamedTuple

__all__ = ["DecodedImage", "DecodedImageCache", "decoded_images"]

#: Bytes of pixels kept in a process: some 280 photos of 500x375.
ROOM = 160 << 20


class DecodedImage(NamedTuple):
    """A decoded image (a Pillow image), and the digest of what it was decoded from."""

    image: Any
    digest: bytes


class DecodedImageCache:
    """A bounded store of decoded images; threads may share it.

    Parameters
    ----------
    room : int
        Bytes of pixels.

    Examples
    --------
    >>> from PIL import Image
    >>> from featx.cache.decoded import DecodedImage, DecodedImageCache
    >>> images = DecodedImageCache(room=10_000)
    >>> images.put("a.png", DecodedImage(Image.new("RGB", (10, 10)), b"..."))
    >>> images.get("a.png").image.size, images.get("b.png")
    ((10, 10), None)
    """

    def __init__(self, room: int = ROOM) -> None:
        self.room = room
        self.forget()

    def forget(self) -> None:
        """Drop everything."""
        self._lock = threading.Lock()  # a new one, since a fork may have copied a locked one
        self._images: dict[Hashable, DecodedImage] = {}
        self._keys: list[Hashable] = []
        self._used = 0
        self._lots = random.Random(0)  # decides what is kept, and no value

    def get(self, key: Hashable) -> DecodedImage | None:
        """Find an image."""
        return self._images.get(key)

    def put(self, key: Hashable, image: DecodedImage) -> None:
        """Keep an image; one that would take more than an eighth of the room is not kept."""
        size = _size(image)
        if size > self.room // 8:
            return
        with self._lock:
            if key in self._images:
                return
            while self._used + size > self.room:
                place = self._lots.randrange(len(self._keys))
                last, self._keys[place] = self._keys[place], self._keys[-1]
                self._keys.pop()
                self._used -= _size(self._images.pop(last))
            self._images[key] = image
            self._keys.append(key)
            self._used += size


def _size(image: DecodedImage) -> int:
    return int(image.image.width * image.image.height * 4)  # Pillow spends four bytes on an RGB pixel


#: The process's own.
decoded_images = DecodedImageCache()

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=decoded_images.forget)
