"""Read names of files: which are images, which are left behind by other programs, and the key of each."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from featx.images.containers import heif_available

__all__ = ["describe_formats", "describe_passed_over", "is_image", "is_left_behind", "key_of", "names_image"]

_IMAGE_SUFFIXES = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".jp2", ".j2k", ".png", ".apng", ".webp", ".avif", ".gif"),
        *(".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico"),
    }
)
_HEIF_SUFFIXES = frozenset({".heic", ".heif", ".hif", ".heics", ".heifs"})
#: Raw formats of cameras, which are not read.
_RAW_SUFFIXES = frozenset(
    {
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc"),
        *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf"),
        *(".srw", ".x3f"),
    }
)
#: Folders and files that file managers, NAS boxes, operating systems and notebooks leave behind, in lower case.
_LEFT_BEHIND = frozenset(
    {
        *("@eadir", "@tmp", "@__thumb", ".@__thumb", "#recycle", "@recycle", "#snapshot", "@recently-snapshot"),
        *("__macosx", ".appledouble", ".appledb", ".appledesktop", ".temporaryitems", ".spotlight-v100", ".fseventsd"),
        *(".documentrevisions-v100", "network trash folder", "temporary items", "lost+found", "$recycle.bin"),
        *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini", ".thumbnails", ".picasaoriginals"),
        *(".ipynb_checkpoints", "__pycache__", ".stversions", ".stfolder", ".dropbox.cache", ".sync"),
    }
)
_MAX_SUFFIXES = 5  # named in a note


def is_image(name: str) -> bool:
    """Return True if a file is an image that can be read, by its name; False for a hidden file."""
    suffix = os.path.splitext(name)[1].lower()
    if name.startswith("."):
        return False
    return suffix in _IMAGE_SUFFIXES or (suffix in _HEIF_SUFFIXES and heif_available())


def names_image(value: Any) -> bool:
    """Return True for a path or an address of an image by its suffix, even of a format that is not read."""
    if not isinstance(value, str):
        return False
    text = value.strip().partition("?")[0] if "://" in value else value.strip()
    suffix = os.path.splitext(text.replace("\\", "/").rpartition("/")[2])[1].lower()
    return suffix in _IMAGE_SUFFIXES or suffix in _HEIF_SUFFIXES or suffix in _RAW_SUFFIXES


def is_left_behind(name: str) -> bool:
    """Return True for a folder or a file that file managers, NAS boxes or notebooks leave behind.

    Examples
    --------
    >>> from featx.sources.names import is_left_behind
    >>> [is_left_behind(name) for name in ("@eaDir", "._1.png", ".Trash-1000", "1.png")]
    [True, True, True, False]
    """
    lower = name.lower()
    return lower in _LEFT_BEHIND or lower.startswith(("._", ".trash"))


def key_of(path: bytes) -> str:
    r"""Return a path as a key: UTF-8 with slashes, and bytes that are not UTF-8 as ``\xNN``.

    Examples
    --------
    >>> from featx.sources.names import key_of
    >>> key_of("été/1.jpg".encode()), key_of(b"caf\xe9.jpg")
    ('été/1.jpg', 'caf\\xe9.jpg')
    """
    text = path.decode("utf-8", "backslashreplace")
    return text if os.sep == "/" else text.replace(os.sep, "/")


def describe_passed_over(counts: Counter[str]) -> str:
    """Count files by suffix, the most frequent first."""
    n = counts.total()
    suffixes = [f"{suffix or 'no suffix'} {count}" for suffix, count in counts.most_common(_MAX_SUFFIXES)]
    if len(counts) > _MAX_SUFFIXES:
        suffixes.append("...")
    formats = describe_formats(counts)
    hint = f" ({formats})" if formats else ""
    what = "1 file is not an image by its name" if n == 1 else f"{n} files are not images by their names"
    return f"{what}: {', '.join(suffixes)}{hint}"


def describe_formats(counts: Counter[str]) -> str:
    """Return the advice for suffixes of formats that are not read; empty if there are none."""
    hints = []
    if not _HEIF_SUFFIXES.isdisjoint(counts):
        hints.append("HEIC is read with the extra heif: pip install 'featx[heif]'")
    if not _RAW_SUFFIXES.isdisjoint(counts):
        hints.append("RAW is not read, convert it to JPEG or TIFF first")
    return "; ".join(hints)
