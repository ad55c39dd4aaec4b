"""Embed a source into one file: NumPy, CSV or Parquet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from featx._events import Events
from featx._results import to_plain
from featx.dataset.extractors import make_extractor
from featx.dataset.manifest import Extractor
from featx.errors import Failure, SourceError
from featx.inference.timing import timed
from featx.sources import list_images
from featx.sources.texts import list_texts
from featx.writers import FORMATS, check_names, check_output, write

__all__ = ["FileSummary", "embed_file"]


@dataclass(frozen=True)
class FileSummary:
    """Describe a file of features.

    Parameters
    ----------
    path : str
    n_images, n_features : int
        Number of rows, and of features per row.
    backbone, device : str
        Backbone, and the device that ran it.
    failures : tuple of Failure
        Images that could not be read; their rows are empty.
    kind : {"image", "text"}, default="image"
        Kind of the inputs.

    See Also
    --------
    featx.dataset.embed_file : Makes it; its example shows one.
    """

    path: str
    n_images: int
    n_features: int
    backbone: str
    device: str
    failures: tuple[Failure, ...] = ()
    kind: str = "image"

    def __str__(self) -> str:
        size = f"{self.n_images} {self.kind}s, {self.n_features} features each"
        return f"{self.path}: {size}, {self.backbone} on {self.device}"

    def to_dict(self) -> dict[str, Any]:
        """Convert to dicts, lists, strings and numbers."""
        return to_plain(self)  # type: ignore[no-any-return]


def embed_file(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    extractor: Extractor | None = None,
    *,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | None = None,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    events: Events | None = None,
) -> FileSummary:
    """Embed the images of a source and write their features to one file, as ``featx embed -o FILE`` does.

    For more images than memory holds, and to continue after an interruption, use `embed`.

    Parameters
    ----------
    source, path_column, target, include, exclude
        As for `featx.sources.list_images`.
    path : str or path
        ``.npy`` (with the names beside it in ``NAME.paths.csv``), ``.csv`` or ``.parquet``.
    text_column : str or None, default=None
        Column of a table that holds texts.
    extractor : FeatureExtractor, TextExtractor or None, default=None
        None is an extractor with default parameters.
    events : Events or None, default=None
        Subscriber for notes, progress and times.

    Returns
    -------
    FileSummary

    Raises
    ------
    SourceError, InputError
        If the source cannot be listed, or the file cannot be written; nothing is embedded then.
    ImageError
        If no image can be read.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> extractor = featx.FeatureExtractor(layer="stem", device="cpu")
    >>> print(featx.dataset.embed_file("clothes/test", "features.csv", extractor, include="bag/*"))
    features.csv: 30 images, 16 features each, efficientnet_lite0 on cpu
    """
    output, events = os.fspath(path), events or Events()
    extractor = make_extractor(extractor, text_column, path_column)
    given = [source] if isinstance(source, (str, os.PathLike)) else list(source)
    check_output(output, tuple(FORMATS), [os.fspath(one) for one in given])
    if text_column:
        listing = list_texts(given, text_column=text_column, target=target, include=include, exclude=exclude)
    else:
        listing = list_images(given, path_column=path_column, target=target, include=include, exclude=exclude)
    if listing.question:
        raise SourceError(listing.question)
    check_names(output, listing.names)
    for note in listing.notes:
        events.note(note)
    features, failures = extractor.embed(listing.items, events=events)
    failures = [replace(failure, source=listing.names[failure.index]) for failure in failures]
    columns: dict[str, list[Any]] = {"path": listing.names}
    if listing.targets is not None:
        columns["label"] = listing.targets
    columns["error"] = [None] * len(listing)
    for failure in failures:
        columns["error"][failure.index] = failure.reason
    with timed(events, "write"):
        write(output, columns, np.asarray(features), list(extractor.get_feature_names_out()))
    device = extractor.open_session().device
    n_images, n_features = features.shape
    return FileSummary(output, n_images, n_features, str(extractor.backbone), device, tuple(failures), extractor.kind)
