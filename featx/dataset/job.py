"""Embed sources into a dataset: check the arguments, open the sources and the plan, and run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featx._events import Events
from featx._optional import import_optional
from featx.dataset.extractors import make_extractor
from featx.dataset.follow import distinct_sources
from featx.dataset.generation import identify
from featx.dataset.layout import ShardLayout
from featx.dataset.lock import PRIVATE, hold_plan, hold_run
from featx.dataset.manifest import MANIFEST, Extractor, Features
from featx.dataset.plan import Plan
from featx.dataset.run import JobOptions, Run, Summary
from featx.errors import InputError
from featx.sources.base import Source
from featx.sources.listing import shared_column
from featx.sources.opening import open_sources
from featx.sources.texts import open_texts

__all__ = ["embed"]


def embed(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    extractor: Extractor | None = None,
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    shard_size: int | None = None,
    dtype: str = "float32",
    format: str | None = None,
    path_column: str | None = None,
    text_column: str | None = None,
    target: str | None = None,
    check: str = "stat",
    retry_failed: bool = False,
    prune: bool = False,
    max_failures: int | None = None,
    image_timeout: float | None = 60,
    n_jobs: int = 1,
    part: tuple[int, int] | None = None,
    events: Events | None = None,
) -> Summary:
    """Embed every image of a source, or every text of a column, into a folder of shards; continue an earlier run.

    An earlier run may have ended in any way: all of its work except the last half minute is kept, and the result has
    the same bytes as an undisturbed run. Images that are new in the source, or have changed, make another generation of
    shards. Labels follow the source: if a label is corrected there, it is changed in the image's row without embedding
    the image again.

    Parameters
    ----------
    source : str, path or list of them
        Folders, globs, tables (CSV, TSV, Parquet; with paths or bytes), zip and tar archives.
    directory : str or path
        The dataset's folder; created if needed.
    extractor : FeatureExtractor, TextExtractor or None, default=None
        Extractor of the features; None is `FeatureExtractor()`, or `TextExtractor()` with ``text_column``.
    include, exclude : str or sequence of str, default=()
        Glob patterns: take an image if it matches one of ``include`` (if there is any) and none of
        ``exclude``.
    shard_size : int or None, default=None
        Images per shard. None is the size of an earlier run. Without an earlier run it is 1% of the images, at least
        1,000, at most 10,000 and at most 128 MB.
    dtype : {"float32", "float16"}, default="float32"
        Number type of the stored vectors.
    format : {"parquet", "npy"} or None, default=None
        Store the vectors inside the Parquet shards, or in a ``.npy`` file beside each shard, which
        maps into memory aligned. None is the format of the existing dataset, or Parquet.
    path_column, target : str or None
        Columns of a table with the paths and the labels; None takes the columns of an earlier run over the
        same sources, or columns with a common name. ``target="2"`` labels images by the
        second level of folders of folders.
    text_column : str or None, default=None
        Column of a table that holds texts. The key of a text is its row's ``id``, if the table has
        such a column and its values differ, or the number of its row from 1.
    check : {"stat", "content"}, default="stat"
        Detect changed images by size and time, or by reading and digesting every image. If size and time
        do not tell, because a table or a saved dataset that holds its images was replaced, or an image
        has another time or name and the same size, these images are read and compared in any case.
    retry_failed : bool, default=False
        Try again to read images that failed.
    prune : bool, default=False
        Drop the rows of images that have left the source.
    max_failures : int or None, default=None
        Stop if more images than this cannot be read.
    image_timeout : float or None, default=60
        Time limit in seconds for decoding one image. An image that takes longer counts as unreadable. None is no limit.
    n_jobs : int, default=1
        Number of worker processes. 1 is this process, with a thread per core, which is as fast as
        any number on one machine's CPU. More are workers of joblib's active backend, each making
        whole shards: processes, or within ``joblib.parallel_config("dask")`` or ``"ray"`` a
        cluster that reaches source and folder.
    part : (int, int) or None, default=None
        ``(i, n)``, i from 1 to n: make the i-th of n parts of the shards, in a job array of n runs.
    events : Events or None, default=None
        Subscriber to progress and notes.

    Returns
    -------
    Summary

    Raises
    ------
    SourceError
        If a source cannot be listed, disappears during the run, or has too many bad images.
    FeaturesChangedError
        If the folder holds other features.
    DatasetError
        If another run is at work in the folder, or a shard cannot be written.

    See Also
    --------
    estimate : Measure the time and disk space that embedding will take.
    open_dataset : Open the result.

    Examples
    --------
    >>> import featx
    >>> from featx.samples import extract_fashion_mnist
    >>> extract_fashion_mnist("clothes")
    >>> featx.dataset.embed("clothes/test/bag", "vectors").n_embedded
    30
    >>> featx.dataset.embed("clothes/test/bag", "vectors").n_embedded
    0
    """
    import_optional("pyarrow.parquet", "parquet")
    layout = ShardLayout(format, dtype, shard_size)
    options = JobOptions(check, retry_failed, prune, max_failures, image_timeout, n_jobs, part)
    extractor = make_extractor(extractor, text_column, path_column)
    features = Features.of(extractor, dtype)
    layout.check_bytes(features.n_features)
    events = events or Events()

    def open_with(source: Any, path_column: str | None, target: str | None) -> list[Source]:
        if text_column:
            return open_texts(source, text_column=text_column, target=target, include=include, exclude=exclude)
        return open_sources(source, path_column=path_column, target=target, include=include, exclude=exclude)

    sources = open_with(source, path_column, target)
    if len(distinct := distinct_sources(sources)) < len(sources):
        events.note("a source is given twice, and taken once")
        sources = open_with([one.given for one in distinct], path_column, target)
    folder = _make_folder(Path(directory))
    with hold_run(folder, part):
        with hold_plan(folder):  # another part may be listing
            opened = Plan(folder / PRIVATE / "plan.sqlite")
        with opened as plan:
            columns = text_column or path_column, target
            if (earlier := _find_columns(plan, sources, columns)) != columns:
                sources = open_with([one.given for one in sources], *earlier)
                names = [f"{name}={value!r}" for name, value in zip(("path_column", "target"), earlier, strict=True)]
                given = [text for text, old, new in zip(names, columns, earlier, strict=True) if old != new]
                events.note(f"{' and '.join(given)}, as in earlier runs")
            return Run(folder, extractor, features, layout, sources, options, events).execute(plan)


def _find_columns(
    plan: Plan, sources: Sequence[Source], given: tuple[str | None, str | None]
) -> tuple[str | None, str | None]:
    """Return the columns to use: the given columns, or the columns of the last run over the same sources."""
    identities = {identify(source.given) for source in sources}
    for i, generation in reversed(list(enumerate(plan.generations()))):
        if set(plan.identities(i)) == identities:
            chosen = [shared_column(sources, name) for name in ("path_column", "target")]
            earlier = generation.path_column, generation.target
            path_column, target = (
                old if name is None and old is not None and old != now else name
                for name, old, now in zip(given, earlier, chosen, strict=True)
            )
            return path_column, target
    return given


def _make_folder(folder: Path) -> Path:
    """Create the dataset's folder; refuse a folder with other content."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder for the shards")
    if folder.is_dir() and any(folder.iterdir()) and not ({MANIFEST, PRIVATE} & set(os.listdir(folder))):
        raise InputError(f"{folder}: is not empty and not a dataset; choose a new folder")
    (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    return folder
