"""Where images come from: one file a kind, each a `Source`."""

from __future__ import annotations

import glob
import os
from collections.abc import Sequence

from featx.errors import InputError, SourceError
from featx.sources.base import Contents, Entry, Source, key_of
from featx.sources.compressed_tar import PACKED_SUFFIXES, PackedTar
from featx.sources.filesystem import RemoteStore, is_url
from featx.sources.folder import Files
from featx.sources.huggingface import HuggingFace, is_saved_dataset
from featx.sources.listing import ARCHIVE_SUFFIXES, refuse_unlistable
from featx.sources.remote import RemoteFiles
from featx.sources.table import Table
from featx.sources.tables import TABLE_SUFFIXES
from featx.sources.tar import Tar
from featx.sources.zip import Zip

__all__ = ["Contents", "Entry", "Source", "key_of", "open_source", "open_sources"]


def open_sources(
    given: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    *,
    path_column: str | None = None,
    target: str | None = None,
) -> list[Source]:
    """Tell what each source is.

    Parameters
    ----------
    given : str, path or list of them
        Folders, globs, image files, tables (CSV, TSV, Parquet), zip and tar archives, here or at
        an address that fsspec opens; folders that Hugging Face's `datasets` saved.
    path_column, target : str or None
        Columns of tables; None takes the obvious ones.

    Returns
    -------
    list of Source

    Raises
    ------
    SourceError
        When one does not exist, or is of no kind that is known.
    """
    texts = [os.fspath(one) for one in ([given] if isinstance(given, (str, os.PathLike)) else given)]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise InputError(f"source={given!r}: expected folders, globs, tables or archives")
    expanded = [one for text in texts for one in _expand(text)]
    sources = [open_source(text, path_column, target) for text in expanded]
    if (path_column or target) and not any(isinstance(source, (Table, HuggingFace)) for source in sources):
        raise SourceError(f"{texts[0]}: --path-column and --target are columns of a table, and this is none")
    return sources


def _expand(text: str) -> list[str]:
    """Take a pattern of tables or archives as so many sources."""
    if not text.lower().endswith((*TABLE_SUFFIXES, *ARCHIVE_SUFFIXES)) or os.path.exists(text):
        return [text]
    if is_url(text):
        if "*" not in text:
            return [text]
        store = RemoteStore(text)
        return [str(store.fs.unstrip_protocol(path)) for path in sorted(store.fs.glob(store.path))] or [text]
    refuse_unlistable(text)
    return sorted(glob.glob(text, recursive=True)) or [text]


def open_source(text: str, path_column: str | None = None, target: str | None = None) -> Source:
    """Tell what one source is; columns are those of a table, and of no matter to others."""
    lower = text.lower()
    if os.path.isdir(text):
        return HuggingFace(text, path_column, target) if is_saved_dataset(text) else Files(text)
    if lower.endswith(TABLE_SUFFIXES):
        return Table(text, path_column, target)
    if lower.endswith(".zip"):
        return Zip(text)
    if lower.endswith(".tar"):
        return Tar(text)
    if lower.endswith(PACKED_SUFFIXES):
        return PackedTar(text)
    if lower.endswith((".tar.zst", ".tzst")):
        raise SourceError(f"{text}: zstd is not read here; unpack it first: zstd -d --rm keeps the tar")
    if is_url(text):
        return RemoteFiles(text)
    return Files(text)
