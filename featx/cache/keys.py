"""Derive cache keys from the content of an image and the settings of its features."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from featx._files import user_cache
from featx._optional import installed_version
from featx.images.formats import decoder_versions
from featx.session import Providers, runtime_version

__all__ = ["cache_folder", "digest_content", "digest_setting", "make_key"]

#: Raise this version when decoding or resizing yields other pixels than before.
PREPROCESSING = 2


def cache_folder() -> Path:
    """Return the folder of ``cache=True``: ``$FEATX_CACHE``, or ``features`` in the user's cache folder.

    Raises InputError if the user has neither.
    """
    folder = os.environ.get("FEATX_CACHE")
    return Path(folder) if folder else user_cache("FEATX_CACHE") / "features"


def digest_setting(values: Mapping[str, Any], device: str, providers: Providers) -> bytes:
    """Digest everything that changes the features of an image, including the device: processors round differently.

    Examples
    --------
    >>> from featx.cache.keys import digest_setting
    >>> digest_setting({"pooling": "avg"}, "cuda:0", None) == digest_setting({"pooling": "avg"}, "cuda:1", None)
    True
    """
    setting = {
        "values": dict(values),
        "device": device.partition(":")[0],  # all GPUs of a machine count as one
        "providers": repr(providers),  # with their options, which may change the precision
        "processor": _processor(),
        "preprocessing": PREPROCESSING,
        "versions": {"Pillow": _version("Pillow"), "onnxruntime": runtime_version()},
        "decoders": decoder_versions(),  # one version of Pillow may be linked with several of libjpeg
    }
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).digest()


def digest_content(content: Any) -> bytes | None:
    """Digest bytes or an array; return None for an open image, which has no bytes of its own."""
    if isinstance(content, (bytes, bytearray, memoryview)):
        return hashlib.sha256(b"bytes" + bytes(content)).digest()
    if isinstance(content, np.ndarray):
        layout = f"array {content.dtype.str} {content.shape}".encode()
        return hashlib.sha256(layout + np.ascontiguousarray(content).tobytes()).digest()
    return None


def make_key(setting: bytes, content: bytes) -> bytes:
    """Combine the digests of a setting and of a content into one key."""
    return hashlib.sha256(setting + content).digest()


@lru_cache
def _processor() -> str:
    """Return the name of the processor: it determines kernels, and several machines may share a cache."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line
    return f"{platform.machine()} {platform.processor()}"


_version = lru_cache(installed_version)
