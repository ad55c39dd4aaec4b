"""Recognise the kind of a source and open it."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from featx.errors import InputError, SourceError
from featx.sources.base import Source
from featx.sources.compressed_tar import PACKED_SUFFIXES, PackedTar
from featx.sources.filesystem import RemoteStore, is_url
from featx.sources.folder import Files, RemoteFiles, refuse_unlistable
from featx.sources.http import without_query
from featx.sources.huggingface import HuggingFace, is_saved_dataset
from featx.sources.patterns import Patterns
from featx.sources.table import TABLE_SUFFIXES, Table
from featx.sources.tar import Tar
from featx.sources.zip import Zip

__all__ = ["open_source", "open_sources"]

_ZSTD_SUFFIXES = (".tar.zst", ".tzst")
_FILE_SUFFIXES = (*TABLE_SUFFIXES, ".zip", ".tar", *PACKED_SUFFIXES, *_ZSTD_SUFFIXES)


def open_sources(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    need_target: bool = False,
) -> list[Source]:
    """Open one or more sources of images.

    Parameters
    ----------
    source, path_column, target, include, exclude
        As for `list_images`. A glob of tables or archives opens each of them.
    need_target : bool, default=False
        True if tables must have a target column.

    Returns
    -------
    list of Source

    Raises
    ------
    SourceError
        If a source does not exist or is of no known kind.
    InputError
        If no source is given.

    Examples
    --------
    >>> from featx.samples import extract_fashion_mnist
    >>> from featx.sources import open_sources
    >>> extract_fashion_mnist("clothes")
    >>> (source,) = open_sources("clothes/test", include="bag/*")
    >>> sum(1 for entry in source.entries())
    30
    """
    target = str(target) if isinstance(target, int) else target
    given = [source] if isinstance(source, (str, os.PathLike)) else source
    texts = [os.fspath(one) for one in given]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"source={source!r}: expected folders, globs, tables or archives")
    sources = [
        open_source(text, path_column, target, need_target=need_target) for text in texts for text in _expand(text)
    ]
    if not any(isinstance(opened, (Table, HuggingFace)) for opened in sources):
        if path_column:
            raise SourceError(
                f"{texts[0]}: path_column={path_column!r} names a column of a table, and this is not a table"
            )
        if target and not _is_level(target):
            raise SourceError(
                f"{texts[0]}: target={target!r} names a column of a table, and this is not a table; "
                'for folders, set target="1" for the first folder of the path, target="2" for the second'
            )
    patterns = Patterns(include, exclude, len(sources))
    for opened in sources:
        opened.patterns = patterns if patterns else None
    return sources


def _expand(text: str) -> list[str]:
    """Expand a glob of tables or archives."""
    path = without_query(text)
    if not path.lower().endswith(_FILE_SUFFIXES) or os.path.exists(text):
        return [text]
    if is_url(text):
        if "*" not in path:
            return [text]
        store = RemoteStore(text)
        return [str(store.fs.unstrip_protocol(path)) for path in sorted(store.fs.glob(store.path))] or [text]
    refuse_unlistable(text)
    return sorted(glob.glob(text, recursive=True)) or [text]


def open_source(
    text: str, path_column: str | None = None, target: str | None = None, *, need_target: bool = False
) -> Source:
    """Open a source; tables take the columns, and folders take a ``target`` that is the number of a level."""
    if os.path.isdir(text) and is_saved_dataset(text):
        return HuggingFace(text, path_column, target, need_target=need_target)
    if without_query(text).lower().endswith(TABLE_SUFFIXES) and not os.path.isdir(text):
        return Table(text, path_column, target, need_target=need_target)
    source = _open_tree(text)
    source.target = target if target and _is_level(target) else None
    return source


def _open_tree(text: str) -> Source:
    lower = without_query(text).lower()
    if os.path.isdir(text):
        return Files(text)
    if lower.endswith(".zip"):
        return Zip(text)
    if lower.endswith(".tar"):
        return Tar(text)
    if lower.endswith(PACKED_SUFFIXES):
        return PackedTar(text)
    if lower.endswith(_ZSTD_SUFFIXES):
        raise SourceError(f"{text}: zstd is not supported; unpack it first: zstd -d --rm keeps the tar")
    return RemoteFiles(text) if is_url(text) else Files(text)


def _is_level(target: str) -> bool:
    return target.isdecimal()
