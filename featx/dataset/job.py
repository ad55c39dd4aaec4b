"""Embed sources into a dataset: list, plan, make the missing shards, write the manifest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from sklearn.base import clone

from featx._events import Events
from featx._optional import import_optional
from featx._results import to_plain
from featx._validation import check_choice, check_integer, check_jobs, check_seconds
from featx.dataset.current import CurrentRows, changed_keys, failed_keys
from featx.dataset.executors import WorkerLostError, run_tasks_in_workers
from featx.dataset.layout import ShardLayout
from featx.dataset.lock import PRIVATE, hold_plan, hold_run
from featx.dataset.manifest import MANIFEST, Features, Manifest, current_versions, read_manifest, write_manifest
from featx.dataset.plan import Generation, Plan
from featx.dataset.shards import find_shards, read_columns, read_counts, shard_path
from featx.dataset.worker import ShardResult, Task, check_failures, run_tasks
from featx.errors import DatasetError, InputError
from featx.extractor import FeatureExtractor
from featx.sources.base import Source
from featx.sources.listing import refuse_question
from featx.sources.opening import open_sources

__all__ = ["JobOptions", "Summary", "embed"]

_MAX_LOSSES = 3  # of workers in a row with no finished shard in between


@dataclass(frozen=True)
class JobOptions:
    """Options of a job that change no vector; see `embed`."""

    check: str = "stat"
    retry_failed: bool = False
    max_failures: int | None = None
    image_timeout: float | None = 60
    n_jobs: int = 1
    part: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        check_choice("check", self.check, ("stat", "content"))
        if self.max_failures is not None:
            check_integer("max_failures", self.max_failures, 0)
        check_seconds("image_timeout", self.image_timeout)
        check_jobs(self.n_jobs)
        if self.part is not None and not 1 <= self.part[0] <= self.part[1]:
            raise InputError(f"part={self.part!r}: expected (i, n), with i from 1 to n")


@dataclass(frozen=True)
class Summary:
    """Result of `embed`.

    Parameters
    ----------
    n_images : int
        Images in the dataset now, including those that could not be read.
    n_embedded, n_failed : int
        Images that this run processed, and those among them that could not be read.
    n_replaced : int
        Images that replace an earlier row, because they changed or were tried again.
    n_gone : int
        Images in the dataset that are no longer in the source.
    complete : bool
        True if every shard exists; False after a part of a job array while others are missing.
    """

    n_images: int
    n_embedded: int
    n_failed: int
    n_replaced: int
    n_gone: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values."""
        return cast("dict[str, Any]", to_plain(self))


def embed(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    extractor: FeatureExtractor | None = None,
    *,
    include: str | Sequence[str] = (),
    exclude: str | Sequence[str] = (),
    shard_size: int | None = None,
    dtype: str = "float32",
    format: str | None = None,
    path_column: str | None = None,
    target: str | None = None,
    check: str = "stat",
    retry_failed: bool = False,
    max_failures: int | None = None,
    image_timeout: float | None = 60,
    n_jobs: int = 1,
    part: tuple[int, int] | None = None,
    events: Events | None = None,
) -> Summary:
    """Embed every image of a source into a folder of shards; continue an earlier run.

    However an earlier run ended, its finished shards are kept, and the result has the same bytes
    as an undisturbed run. Images that are new in the source, or have changed, make another
    generation of shards.

    Parameters
    ----------
    source : str, path or list of them
        Folders, globs, tables (CSV, TSV, Parquet; with paths or bytes), zip and tar archives.
    directory : str or path
        The dataset's folder; created if needed.
    extractor : FeatureExtractor or None, default=None
        Extractor of the features; None is `FeatureExtractor()`.
    include, exclude : str or sequence of str, default=()
        Glob patterns: take an image if it matches one of ``include`` (if there is any) and none of
        ``exclude``.
    shard_size : int or None, default=None
        Images per shard; None is 1% of the images, at least 1,000, at most 10,000 and at most 128 MB.
    dtype : {"float32", "float16"}, default="float32"
        Number type of the stored vectors.
    format : {"parquet", "npy"} or None, default=None
        Store the vectors inside the Parquet shards, or in a ``.npy`` file beside each shard, which
        maps into memory aligned. None is the format of the existing dataset, or Parquet.
    path_column, target : str or None
        Columns of a table with the paths and the labels; None looks for columns of a common name.
        ``target="2"`` labels images by the second level of folders of folders.
    check : {"stat", "content"}, default="stat"
        Detect changed images by size and time, or by reading and digesting every image.
    retry_failed : bool, default=False
        Try images again that could not be read.
    max_failures : int or None, default=None
        Stop if more images than this cannot be read.
    image_timeout : float or None, default=60
        Seconds that decoding one image may take; an image that takes longer cannot be read. None is no limit.
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
    options = JobOptions(check, retry_failed, max_failures, image_timeout, n_jobs, part)
    extractor = clone(extractor if extractor is not None else FeatureExtractor()).fit(None)
    features = Features.of(extractor, dtype)
    layout.check_bytes(features.n_features)
    sources = open_sources(source, path_column=path_column, target=target, include=include, exclude=exclude)
    folder = _make_folder(Path(directory))
    job = _Job(folder, extractor, features, layout, sources, options, events or Events())
    with hold_run(folder, part):
        with hold_plan(folder):  # another part may be listing
            opened = Plan(folder / PRIVATE / "plan.sqlite")
        with opened as plan:
            return job.run(plan)


def _make_folder(folder: Path) -> Path:
    """Create the dataset's folder; refuse a folder with other content."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; choose a folder for the shards")
    if folder.is_dir() and any(folder.iterdir()) and not ({MANIFEST, PRIVATE} & set(os.listdir(folder))):
        raise InputError(f"{folder}: is not empty and not a dataset; choose a new folder")
    (folder / PRIVATE).mkdir(parents=True, exist_ok=True)
    return folder


@dataclass
class _Job:
    """Run one call of `embed`, with the dataset's locks held."""

    folder: Path
    extractor: FeatureExtractor
    features: Features
    layout: ShardLayout
    sources: list[Source]
    options: JobOptions
    events: Events
    counts: Counter[str] = field(default_factory=Counter)  # rows by status, of this run's shards
    reported: set[int] = field(default_factory=set)  # this run's shards

    def run(self, plan: Plan) -> Summary:
        n_gone = n_replaced = 0
        with hold_plan(self.folder):
            self._read_existing(plan)
            resumed = bool(self._missing(plan))
            if resumed:
                size = plan.generations()[-1].shard_size
                if self.layout.size not in (None, size):
                    raise InputError(
                        f"shard_size={self.layout.size}: the unfinished run has shard_size={size}; "
                        "leave it out to finish that run"
                    )
                self._write_manifest(plan)  # a generation with a missing shard has no counts
            else:
                n_gone, n_replaced = self._plan(plan)
        self._make_all(plan)
        if resumed and not self.options.part:  # then add what is new in the source
            with hold_plan(self.folder):
                n_gone, n_replaced = self._plan(plan)
            self._make_all(plan)
        with hold_plan(self.folder):
            manifest = self._write_manifest(plan)
        self.events.end()
        return Summary(
            manifest.n_images, self.counts.total(), self.counts["failed"], n_replaced, n_gone, manifest.complete
        )

    def _read_existing(self, plan: Plan) -> None:
        """Compare the existing dataset with this job, and restore a lost plan."""
        manifest = read_manifest(self.folder)
        if manifest:
            manifest.features.check_same(self.features, self.folder)
            if self.layout.format not in (None, manifest.format):
                raise InputError(f"format={self.layout.format!r}: {self.folder} has {manifest.format!r}; leave it out")
        self.layout = replace(self.layout, format=manifest.format if manifest else self.layout.format or "parquet")
        if not self.options.part:
            for scratch in self.folder.glob(".featx-*.part*"):  # of a run that was killed
                scratch.unlink(missing_ok=True)
        if plan.generations() or not manifest or not manifest.generations:
            return
        shards = find_shards(self.folder)
        numbers = [n for generation in manifest.generations for n in generation.shards]
        if lost := [n for n in numbers if n not in shards]:
            raise DatasetError(
                f"{self.folder}: {shard_path(self.folder, lost[0]).name} is missing, and so is the plan to make it "
                f"again ({PRIVATE}/plan.sqlite); copy the existing rows into a new folder with: featx dataset merge"
            )
        keys = (key for n in numbers for key in read_columns(shards[n], ["key"])["key"].to_pylist())
        plan.restore(manifest.generations, keys)

    def _missing(self, plan: Plan) -> list[tuple[int, int]]:
        """Return generation and number of each planned shard that does not exist."""
        shards = find_shards(self.folder)
        return [(i, n) for i, planned in enumerate(plan.generations()) for n in planned.shards if n not in shards]

    def _plan(self, plan: Plan) -> tuple[int, int]:
        """List the sources, plan new and changed images; return the number of gone and of replaced images."""
        generations = plan.generations()
        n_listed = plan.list_sources(self.sources)
        for source in self.sources:
            refuse_question(source)
            for text in source.notes:
                self.events.note(f"{source.given}: {text}" if len(self.sources) > 1 else text)
        layout = self.layout
        if generations and layout.size is None:
            layout = replace(layout, size=generations[-1].shard_size)
        n_gone = plan.count_gone() if generations else 0
        current = CurrentRows(generations, find_shards(self.folder))
        by_state = self.options.check == "stat"
        if generations and self.options.retry_failed:
            plan.request(failed_keys(current))
        if generations and not by_state:
            plan.request(changed_keys(current, plan, self.sources))
        size = layout.choose_size(self.features.n_features, n_listed)
        added = plan.plan(size, self.sources, current_versions(), by_state=by_state)
        self._write_manifest(plan)
        return n_gone, plan.generations()[-1].n_replaced if added else 0

    def _make_all(self, plan: Plan) -> None:
        """Make the missing shards; after a lost worker try again, as long as shards get finished."""
        n_losses = 0
        while True:
            missing = {n for _, n in self._missing(plan)}
            try:
                self._make_missing(plan)
                return
            except WorkerLostError as error:
                made = missing - {n for _, n in self._missing(plan)}
                n_losses = 0 if made else n_losses + 1
                if n_losses == _MAX_LOSSES:
                    raise DatasetError(f"{error}, {n_losses} times before a shard was done; reduce n_jobs") from error
                for n in made - self.reported:  # finished, but their results were lost with the worker
                    self._report(ShardResult(n, read_counts(shard_path(self.folder, n)), 0))
                self.events.note(f"{error}; its shard is made again")

    def _report(self, result: ShardResult) -> None:
        self.reported.add(result.number)
        self.counts.update(result.counts)
        if self.options.n_jobs != 1:
            n_failed = result.counts["failed"]
            self.events.advance(sum(result.counts.values()), n_failed=n_failed, n_bytes=result.n_bytes)
        self.events.shard(result.number, result.counts)

    def _make_missing(self, plan: Plan) -> None:
        generations, missing = plan.generations(), self._missing(plan)
        ranges = [(n, *generations[i].rows_of(n)) for i, n in missing if self._is_mine(n)]
        n_planned = sum(one.n_images - one.n_replaced for one in generations)
        n_done = n_planned - sum(generations[i].rows_of(n)[1] for i, n in missing)
        self.events.begin("embed", n_done + sum(n for _, _, n in ranges), n_done)
        for i in sorted({i for i, n in missing if self._is_mine(n)}):
            self._check_sources(generations[i], plan.states(i))
        tasks = (
            Task(number, n, plan.rows(first, n), shard_path(self.folder.absolute(), number))
            for number, first, n in ranges
        )
        options: dict[str, Any] = {
            "features": self.features,
            "format": self.layout.format,
            "max_failures": self.options.max_failures,
            "image_timeout": self.options.image_timeout,
        }
        n_jobs = self.options.n_jobs
        if n_jobs == 1:
            results = run_tasks(self.extractor, self.sources, tasks, on_images=self.events.advance, **options)
        else:
            results = run_tasks_in_workers(self.extractor, self.sources, tasks, n_jobs=n_jobs, **options)
        with closing(cast("Any", results)):
            for result in results:
                self._report(result)
                check_failures(self.counts["failed"], self.options.max_failures)

    def _is_mine(self, shard: int) -> bool:
        part = self.options.part
        return part is None or shard % part[1] == part[0] - 1

    def _check_sources(self, planned: Generation, states: list[str]) -> None:
        """Refuse to finish a generation with sources other than it was planned for."""
        given = [source.given for source in self.sources]
        if given != planned.sources:
            raise DatasetError(
                f"{self.folder}: is not finished; finish it with its own sources ({' '.join(planned.sources)}), "
                f"then embed {' '.join(given)}"
            )
        for source, state in zip(self.sources, states, strict=False):
            if source.state() != state:
                raise DatasetError(
                    f"{self.folder}: is not finished, and {source.given} was replaced since it was begun; restore the "
                    "old source, or embed into another folder"
                )

    def _write_manifest(self, plan: Plan) -> Manifest:
        previous = read_manifest(self.folder)
        features = previous.features if previous else self.features  # keeps the backbone's first name
        manifest = Manifest(features, plan.generations(), format=self.layout.format or "parquet")
        manifest.count_rows(find_shards(self.folder), previous)
        write_manifest(self.folder, manifest)
        return manifest
