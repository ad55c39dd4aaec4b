"""Run Pillow with featx's settings, independent of the program around it, and without warnings.

Decoding must give the same image in a notebook, in a worker process and under ``python -W error``. So while
featx decodes, Pillow's module globals have their default values, and Pillow's warnings are dropped in
the decoding thread. Other threads keep their warning filters.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from typing import Any

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    IcoImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TgaImagePlugin,
    TiffImagePlugin,
)

__all__ = ["MAX_PIXELS", "isolated", "silence_libtiff"]

#: Largest image in pixels. Pillow by default raises above this number, and warns above half of it.
MAX_PIXELS = 178_956_970

#: Globals that change what is read, and their values while featx decodes.
_SETTINGS: tuple[tuple[Any, str, Any], ...] = (
    (Image, "MAX_IMAGE_PIXELS", MAX_PIXELS // 2),
    (ImageFile, "LOAD_TRUNCATED_IMAGES", False),
    (ImageFile, "MAXBLOCK", 65536),
    (ImageFile, "SAFEBLOCK", 1 << 20),
    (AvifImagePlugin, "DECODE_CODEC_CHOICE", "auto"),
    (BmpImagePlugin, "USE_RAW_ALPHA", False),
    (GifImagePlugin, "LOADING_STRATEGY", GifImagePlugin.LoadingStrategy.RGB_AFTER_FIRST),
    (PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 20),
    (PngImagePlugin, "MAX_TEXT_MEMORY", 64 << 20),
    (TiffImagePlugin, "READ_LIBTIFF", False),
)
_WARNING_MODULES = (*(Image, IcoImagePlugin, JpegImagePlugin, PngImagePlugin, TgaImagePlugin, TiffImagePlugin),)


class _State:
    """The decodes under way in this process, and the program's own values of the settings."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.thread = threading.local()
        self.n_inside = 0
        self.saved: dict[int, Any] = {}


_state = _State()
if hasattr(os, "register_at_fork"):  # a forked child has one thread, and no decode under way

    def _after_fork() -> None:
        _restore()
        _state.__init__()  # type: ignore[misc]

    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def isolated() -> Iterator[None]:
    """Decode with featx's own settings in this thread; restore the program's once no decode is under way.

    Examples
    --------
    >>> from PIL import ImageFile
    >>> from featx.images.isolation import isolated
    >>> ImageFile.LOAD_TRUNCATED_IMAGES = True
    >>> with isolated():
    ...     ImageFile.LOAD_TRUNCATED_IMAGES
    False
    >>> ImageFile.LOAD_TRUNCATED_IMAGES
    True
    >>> ImageFile.LOAD_TRUNCATED_IMAGES = False
    """
    depth = getattr(_state.thread, "depth", 0)
    with _state.lock:
        for i, (module, name, value) in enumerate(_SETTINGS):
            if (current := getattr(module, name)) != value:
                _state.saved[i] = current
                setattr(module, name, value)
        _state.n_inside += 1
    _state.thread.depth = depth + 1
    try:
        yield
    finally:
        _state.thread.depth = depth
        with _state.lock:
            _state.n_inside -= 1
            if _state.saved and not _state.n_inside:
                _restore()


def _restore() -> None:
    for i, own in _state.saved.items():
        module, name, value = _SETTINGS[i]
        if getattr(module, name) == value:  # the program may have set it meanwhile
            setattr(module, name, own)
    _state.saved.clear()


def _is_inside(*_: object) -> bool:
    """Return True if this thread decodes for featx."""
    return getattr(_state.thread, "depth", 0) > 0


class _Warnings:
    """Replace the module `warnings` in Pillow's modules, and drop warnings during a decode.

    `warnings.catch_warnings` would change the filters of all threads, and lose changes that others make.
    """

    def __getattr__(self, name: str) -> Any:
        return getattr(warnings, name)

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, source: Any = None) -> None:
        if not _is_inside():
            warnings.warn(message, category, stacklevel + 1, source)


for _module in _WARNING_MODULES:
    if hasattr(_module, "warnings"):
        _module.warnings = _Warnings()  # type: ignore[attr-defined]
for _name in ("PIL.TiffImagePlugin", "PIL.PngImagePlugin", "PIL.Image"):
    logging.getLogger(_name).addFilter(lambda record: not _is_inside())


@cache
def silence_libtiff() -> None:
    """Keep libtiff from writing lines to stderr that name no image; its errors still reach Python.

    The library has one handler per process. Where Pillow is linked with it statically, it cannot be reached.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(import_module("PIL._imaging").__file__)
        for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
            function = getattr(library, name)
            function.restype, function.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
            function(None)
