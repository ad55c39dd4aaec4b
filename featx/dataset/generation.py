"""Describe the rows, the generations and the sources of a plan."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from typing import Any, NamedTuple

from featx.sources.filesystem import is_url

__all__ = ["Generation", "KnownSource", "Row", "identify", "name_source", "read_generation"]


class Row(NamedTuple):
    """One image of the plan."""

    source: int  # number of its source
    key: str
    place: bytes  # its position in the source, in the source's own form
    label: str | None
    copy: str | None = None  # shard, row and digest of an equal image in the dataset, whose embedding is copied


class Generation(NamedTuple):
    """Images that were planned together and are stored in shards of one size.

    Parameters
    ----------
    first : int
        Position of its first image in the plan.
    n_images : int
        Number of images in all its shards.
    first_shard, shard_size : int
        Number of its first shard, and number of images in each shard except the last.
    n_replaced : int
        Number of its images that replace images of earlier generations.
    sources : list of str
        Sources as the user wrote them.
    versions : dict
        Versions of the packages that compute the features.
    path_column, target : str or None
        Columns of a table with the paths and the labels. ``target`` may be the level of the folders that are labels.
    has_classes : bool
        True if the labels are names of classes, even if they look like numbers.
    prefixes : list of str or None
        Prefix of the keys of each source. None means the rule of datasets until 2026-11-27: the source and
        a slash if there are several sources, nothing for a single source.
    """

    first: int
    n_images: int
    first_shard: int
    shard_size: int
    n_replaced: int
    sources: list[str]
    versions: dict[str, str]
    path_column: str | None = None
    target: str | None = None
    has_classes: bool = False
    prefixes: list[str] | None = None

    @property
    def key_prefixes(self) -> list[str]:
        """Prefix of the keys of each source."""
        several = len(self.sources) > 1
        return self.prefixes or [f"{source}/" if several else "" for source in self.sources]

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_images // self.shard_size)

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(self.first_shard, self.first_shard + self.n_shards)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """Return the first position and the number of images of a shard."""
        offset = (shard - self.first_shard) * self.shard_size
        return self.first + offset, min(self.shard_size, self.n_images - offset)


def read_generation(about: Mapping[str, Any]) -> Generation:
    """Read a generation from JSON; until 2026-11-27 its `n_images` was called `n_pictures`."""
    return Generation(**{"n_images" if name == "n_pictures" else name: value for name, value in about.items()})


class KnownSource(NamedTuple):
    """A source whose images are in a dataset.

    Parameters
    ----------
    identity : str
        Result of `identify`.
    given : str
        The source as the user wrote it.
    prefix : str
        Prefix of its keys.
    state : str or None
        Its `Source.whole_state` when its images were last compared; None if unknown.
    """

    identity: str
    given: str
    prefix: str
    state: str | None


def identify(given: str) -> str:
    """Return the identity of a source, which is equal for every spelling: its absolute path, or its address.

    Examples
    --------
    >>> from featx.dataset.generation import identify
    >>> identify("photos/") == identify("./photos")
    True
    """
    return given.rstrip("/") if is_url(given) else os.path.abspath(given)


def name_source(given: str) -> str:
    """Return the name of a source, which is the prefix of its keys.

    Examples
    --------
    >>> from featx.dataset.generation import name_source
    >>> name_source("./photos/"), name_source("s3://bucket/photos/")
    ('photos', 's3://bucket/photos')
    """
    return given.rstrip("/") if is_url(given) else posixpath.normpath(given.replace(os.sep, "/"))
