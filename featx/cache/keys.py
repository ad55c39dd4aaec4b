"""Which image under which settings is which key in the cache."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import platformdirs

from featx._optional import installed_version
from featx.cache.decoded import DecodedImage, decoded_images
from featx.cache.store import FeatureCache, FileState, Row, file_state
from featx.images.decode import read
from featx.session import Providers, runtime_version

__all__ = ["CachedFeatures", "LoadedImage", "cache_folder"]

#: Raised when decoding or resizing gives other pixels than before.
PREPROCESSING = 1


def cache_folder() -> Path:
    """Find where ``cache=True`` keeps features: ``$FEATX_CACHE``, or ``features`` in the user's cache folder."""
    given = os.environ.get("FEATX_CACHE")
    return Path(given) if given else platformdirs.user_cache_path("featx") / "features"


class LoadedImage(NamedTuple):
    """What `featx.images.decode.decode` takes, its digest, the state of its file, and the image if it is at hand."""

    content: Any
    digest: bytes | None = None
    state: FileState | None = None
    image: Any = None


class CachedFeatures:
    """A cache, seen from one setting: everything that changes a value is part of every key.

    Parameters
    ----------
    cache : FeatureCache
        Where vectors are.
    width : int
        Length of a row; a vector of another length is not taken.
    values : dict
        Identity of the backbone, layers, pooling and the like, in what JSON can hold.
    device, providers
        Where and how it is computed: processors round in their own ways.
    verify : {"stat", "content"}
        Whether size, time and inode of a file are believed, or it is read.
    """

    def __init__(
        self, cache: FeatureCache, width: int, values: dict[str, Any], device: str, providers: Providers, verify: str
    ) -> None:
        self.cache, self.width, self.verify = cache, width, verify
        about = {
            "values": values,
            "device": device.partition(":")[0],  # all cards of a machine count as one
            "providers": repr(providers),  # with their options, which may change the precision
            "processor": _processor(),
            "preprocessing": PREPROCESSING,
            "versions": {"Pillow": _version("Pillow"), "onnxruntime": runtime_version()},
        }
        self._setting = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).digest()

    def known(self, items: Sequence[Any]) -> dict[int, Row]:
        """Find rows of files that have not changed since they were embedded, without opening one."""
        if self.verify == "content":
            return {}
        states = {
            i: state
            for i, item in enumerate(items)
            if isinstance(item, (str, os.PathLike)) and (state := file_state(item)) is not None
        }
        digests = self.cache.digests(list(states.values()))
        keys = {i: self.key(digests[state]) for i, state in states.items() if state in digests}
        rows = self.cache.get(list(set(keys.values())))
        return {i: rows[key] for i, key in keys.items() if key in rows and len(rows[key]) == self.width}

    def digest(self, content: Any) -> bytes | None:
        """Digest bytes or an array; None for what has no bytes of its own, such as an open image."""
        if isinstance(content, (bytes, bytearray, memoryview)):
            return hashlib.sha256(b"bytes" + bytes(content)).digest()
        if isinstance(content, np.ndarray):
            about = f"array {content.dtype.str} {content.shape}".encode()
            return hashlib.sha256(about + np.ascontiguousarray(content).tobytes()).digest()
        return None

    def key(self, digest: bytes) -> bytes:
        """Make the key of a content under this setting."""
        return hashlib.sha256(self._setting + digest).digest()

    def read(self, item: Any, shortest: int | None = None) -> LoadedImage:
        """Read an item, or find it among what was decoded a moment ago.

        The state of a file is that before it was read. ``shortest`` is what `decode` will be told.
        """
        state = file_state(item) if isinstance(item, (str, os.PathLike)) else None
        if state and self.verify == "stat" and (known := decoded_images.get((state, shortest))):
            return LoadedImage(None, known.digest, state, known.image)
        content = read(item)
        digest = self.digest(content)
        if digest and (known := decoded_images.get((digest, shortest))):
            return LoadedImage(content, digest, state, known.image)
        return LoadedImage(content, digest, state)

    def keep(self, source: LoadedImage, image: Any, shortest: int | None = None) -> None:
        """Remember a decoded image for a moment; an array has cost no decoding."""
        if source.digest and not isinstance(source.content, np.ndarray):
            key = source.state if source.state and self.verify == "stat" else source.digest
            decoded_images.put((key, shortest), DecodedImage(image, source.digest))

    def get(self, digest: bytes) -> Row | None:
        """Look up one row."""
        key = self.key(digest)
        row = self.cache.get([key]).get(key)
        return row if row is not None and len(row) == self.width else None

    def put(self, rows: dict[bytes, npt.NDArray[np.float32]], files: dict[FileState, bytes]) -> None:
        """Keep rows by their content's digest, and what is in which file."""
        if rows or files:
            self.cache.put({self.key(digest): row for digest, row in rows.items()}, files)


@lru_cache
def _processor() -> str:
    """Name the processor: kernels are chosen by it, and a cache may lie where several machines reach it."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line
    return f"{platform.machine()} {platform.processor()}"


_version = lru_cache(installed_version)
