"""The job: list, plan, make the shards that are missing, write down what is there."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple, cast

from sklearn.base import clone

from featx._events import Events
from featx._optional import import_optional
from featx.dataset.again import changed_keys, failed_keys
from featx.dataset.current import CurrentRows
from featx.dataset.executors import WorkerLostError, run_tasks_apart
from featx.dataset.lance import lance_path, publish
from featx.dataset.lock import hold
from featx.dataset.manifest import (
    FORMAT,
    Features,
    Manifest,
    current_versions,
    read_manifest,
    write_manifest,
)
from featx.dataset.plan import Generation, Plan
from featx.dataset.prepare import (
    PRIVATE,
    check_arguments,
    check_shard_bytes,
    default_shard_size,
    lock_folder,
    make_folder,
)
from featx.dataset.shards import find_shards, read_columns, read_counts, shard_path
from featx.dataset.worker import ShardResult, Task, run_tasks
from featx.errors import DatasetError, InputError, SourceError
from featx.extractor import FeatureExtractor
from featx.sources.opening import Source, open_sources

__all__ = ["Summary", "embed"]


#: How often workers may be lost with no shard done in between.
_IN_VAIN = 3


class Summary(NamedTuple):
    """What a run did.

    Parameters
    ----------
    n_images : int
        In the dataset now, those that failed included.
    n_embedded, n_failed : int
        Images that this run took, and those among them that could not be read.
    n_replaced : int
        Images that had changed, or were tried again.
    n_gone : int
        Images in the dataset that the source has no more.
    complete : bool
        Whether every shard is there; not after one part of several.
    """

    n_images: int
    n_embedded: int
    n_failed: int
    n_replaced: int
    n_gone: int
    complete: bool


def embed(
    source: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    directory: str | os.PathLike[str],
    extractor: FeatureExtractor | None = None,
    *,
    shard_size: int | None = None,
    dtype: str = "float32",
    format: str | None = None,
    path_column: str | None = None,
    target: str | None = None,
    check: str = "stat",
    retry_failed: bool = False,
    max_failures: int | None = None,
    n_jobs: int = 1,
    part: tuple[int, int] | None = None,
    events: Events | None = None,
) -> Summary:
    """Embed every image of a source into a folder of shards; go on where an earlier run ended.

    Whatever ended that run, finished shards are left alone, and the result is the same to the
    byte as if nothing had happened. Images that are new in the source, or have changed, make a
    further generation of shards.

    Parameters
    ----------
    source : str, path or list of them
        Folders, globs, tables (CSV, TSV, Parquet; with paths or bytes), zip and tar archives.
    directory : str or path
        Made when needed.
    extractor : FeatureExtractor or None, default=None
        Which features; None is `FeatureExtractor()`.
    shard_size : int or None, default=None
        Images a shard; None is 10,000, or fewer where they would take more than 128 MB.
    dtype : {"float32", "float16"}, default="float32"
        How vectors are stored.
    format : {"parquet", "npy", "lance"} or None, default=None
        Where vectors are stored: in the Parquet shards, as ``.npy`` beside each, which maps into
        memory aligned, or as a Lance table. None is as the folder has it, or Parquet.
    path_column, target : str or None
        Columns of a table; None takes the obvious ones.
    check : {"stat", "content"}, default="stat"
        Whether an image whose size and time are as they were is believed to be what it was, or
        read and digested.
    retry_failed : bool, default=False
        Try images again that could not be read.
    max_failures : int or None, default=None
        More than so many images that cannot be read end the run.
    n_jobs : int, default=1
        1 is one process with a thread a core, which is as fast as any on one machine's CPU. More
        are so many workers of joblib's backend, each making whole shards: processes, or within
        ``joblib.parallel_config("dask")`` or ``"ray"`` a cluster that reaches source and folder.
    part : (int, int) or None, default=None
        ``(i, n)``, i from 1 to n: make the i-th part of the shards, as one of n runs in a job array.
    events : Events or None
        Told what happens.

    Returns
    -------
    Summary

    Raises
    ------
    SourceError
        When a source cannot be listed, is gone in the middle, or has too many bad images.
    FeaturesChangedError
        When the folder holds other features.
    DatasetError
        When another run is at work there, or a shard cannot be written.

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
    check_arguments(shard_size, dtype, format, check, max_failures, n_jobs, part)
    extractor = clone(extractor if extractor is not None else FeatureExtractor()).fit(None)
    features = Features.of(extractor, dtype)
    sources = open_sources(source, path_column=path_column, target=target)
    folder = make_folder(directory)
    job = _Job(folder, extractor, features, format, sources, max_failures, n_jobs, part, events or Events())
    with lock_folder(folder, part):
        with job.planning():  # another part may be listing
            opened = Plan(folder / PRIVATE / "plan.sqlite")
        with opened as spool:
            return job.run(spool, shard_size, by_state=check == "stat", retry_failed=retry_failed)


class _Job:
    def __init__(
        self,
        folder: Path,
        extractor: FeatureExtractor,
        features: Features,
        format: str | None,
        sources: list[Source],
        max_failures: int | None,
        n_jobs: int,
        part: tuple[int, int] | None,
        events: Events,
    ) -> None:
        self.folder, self.extractor, self.features, self.sources = folder, extractor, features, sources
        self.format = format
        self.max_failures, self.n_jobs, self.part, self.events = max_failures, n_jobs, part, events
        self.done: Counter[str] = Counter()
        self.told: set[int] = set()  # shards of this run

    def run(self, spool: Plan, shard_size: int | None, *, by_state: bool, retry_failed: bool) -> Summary:
        n_gone = n_replaced = 0
        with self.planning():
            self._read(spool)
            resumed = bool(self._missing(spool))
            if resumed and shard_size not in (None, spool.generations()[-1].shard_size):
                size = spool.generations()[-1].shard_size
                raise InputError(f"shard_size={shard_size}: the run that is to be finished has {size}; leave it out")
            if resumed:
                self._write(spool)  # that a shard is missing; what it will hold may be another thing
            else:
                n_gone, n_replaced = self._plan(spool, shard_size, by_state, retry_failed)
        self._make_all(spool)
        if resumed and not self.part:  # and now what has come since
            n_gone, n_replaced = self._plan(spool, shard_size, by_state, retry_failed)
            self._make_all(spool)
        with self.planning():
            manifest = self._write(spool)
            if manifest.format == "lance":
                publish(self.folder, list(find_shards(self.folder).values()))
        self.events.end()
        n_images = sum(one.n_images - one.n_replaced for one in manifest.generations)
        complete = all(counts is not None for counts in manifest.counts)
        taken = self.done.total()
        return Summary(n_images, taken, self.done["failed"], n_replaced, n_gone, complete)

    def planning(self) -> Any:
        """Hold the lock under which the plan and the manifest are changed."""
        return hold(self.folder / PRIVATE / "plan.lock", wait=True)

    def _read(self, spool: Plan) -> None:
        """Look at what is there, and refuse to mix it with something else."""
        manifest = read_manifest(self.folder)
        if manifest:
            manifest.features.check_same(self.features, self.folder)
            if self.format not in (None, manifest.format):
                raise InputError(f"format={self.format!r}: {self.folder} has {manifest.format!r}; leave it out")
            self.format = manifest.format
        if self.format == "lance":
            import_optional("lance", "lance")
        if not self.part:
            for folder in (self.folder, lance_path(self.folder / "any").parent):
                for scratch in folder.glob(".featx-*.part*"):  # of a run that was killed
                    scratch.unlink(missing_ok=True)
        if spool.generations() or not manifest or not manifest.generations:
            return
        there = find_shards(self.folder)
        if lost := [n for one in manifest.generations for n in one.shards if n not in there]:
            raise DatasetError(
                f"{self.folder}: {shard_path(self.folder, lost[0]).name} is missing, and so is the plan by which it "
                f"could be made ({PRIVATE}/plan.sqlite); featx dataset merge takes what is there into a new folder"
            )
        paths = [there[n] for one in manifest.generations for n in one.shards]
        keys = (key for path in paths for key in read_columns(path, ["key"])["key"].to_pylist())
        spool.adopt(manifest.generations, keys)

    def _missing(self, spool: Plan) -> list[tuple[int, int]]:
        """Give generation and number of each shard that is planned and not there."""
        there = find_shards(self.folder)
        return [(i, n) for i, one in enumerate(spool.generations()) for n in one.shards if n not in there]

    def _plan(self, spool: Plan, shard_size: int | None, by_state: bool, retry_failed: bool) -> tuple[int, int]:
        """List the sources, and plan what is new; give how many are gone and how many replaced."""
        known = spool.generations()
        size = int(shard_size or (known[-1].shard_size if known else default_shard_size(self.features)))
        check_shard_bytes(size, self.features)
        spool.list_sources(self.sources)
        for source in self.sources:
            for text in source.notes:
                self.events.note(f"{source.given}: {text}" if len(self.sources) > 1 else text)
        n_gone = spool.n_gone() if known else 0
        current = CurrentRows(known, find_shards(self.folder))
        if known and retry_failed:
            spool.ask_again(failed_keys(current))
        if known and not by_state:
            spool.ask_again(changed_keys(current, spool, self.sources))
        planned = spool.plan(size, self.sources, current_versions(self.format), by_state=by_state)
        self._write(spool)
        return n_gone, spool.generations()[-1].n_replaced if planned else 0

    def _make_all(self, spool: Plan) -> None:
        """Make what is missing; again, where a worker was lost, as long as that gets on."""
        in_vain = 0
        while True:
            missing = {n for _, n in self._missing(spool)}
            try:
                self._make_missing(spool)
                return
            except WorkerLostError as error:
                made = missing - {n for _, n in self._missing(spool)}
                in_vain = 0 if made else in_vain + 1
                if in_vain == _IN_VAIN:
                    raise DatasetError(
                        f"{error}, {in_vain} times before a shard was done; give fewer n_jobs"
                    ) from error
                for n in made - self.told:  # by workers whose answers were lost with the other
                    self._tell(ShardResult(n, read_counts(shard_path(self.folder, n)), 0))
                self.events.note(f"{error}; its shard is made again")

    def _tell(self, done: ShardResult) -> None:
        self.told.add(done.number)
        self.done.update(done.counts)
        if self.n_jobs != 1:
            self.events.advance(sum(done.counts.values()), n_failed=done.counts["failed"], n_bytes=done.n_bytes)
        self.events.shard(done.number, done.counts)

    def _make_missing(self, spool: Plan) -> None:
        generations, missing = spool.generations(), self._missing(spool)
        tasks = [(n, *generations[i].rows_of(n)) for i, n in missing if self._is_mine(n)]
        there = sum(one.n_images for one in generations) - sum(generations[i].rows_of(n)[1] for i, n in missing)
        self.events.begin("embed", there + sum(n for _, _, n in tasks), there)
        for i in sorted({i for i, n in missing if self._is_mine(n)}):
            self._check_sources(generations[i], spool.states(i))
        rows = (
            Task(number, n, spool.rows(first, n), shard_path(self.folder.absolute(), number))
            for number, first, n in tasks
        )
        options: dict[str, Any] = {
            "dtype": self.features.dtype,
            "format": self.format or "parquet",
            "about": {"format": FORMAT, "identity": self.features.identity, "values": self.features.values},
            "max_failures": self.max_failures,
        }
        if self.n_jobs == 1:
            made = run_tasks(self.extractor, self.sources, rows, on_images=self.events.advance, **options)
        else:
            made = run_tasks_apart(self.extractor, self.sources, rows, n_jobs=self.n_jobs, **options)
        with closing(cast("Any", made)):
            for done in made:
                self._tell(done)
                self._limit_failures()

    def _limit_failures(self) -> None:
        if self.max_failures is not None and self.done["failed"] > self.max_failures:
            raise SourceError(
                f"{self.done['failed']} images could not be read, more than --max-failures {self.max_failures}; "
                "shards that were done stay"
            )

    def _is_mine(self, shard: int) -> bool:
        return self.part is None or shard % self.part[1] == self.part[0] - 1

    def _check_sources(self, planned: Generation, states: list[str]) -> None:
        """Refuse to finish a plan with other sources than it was made for."""
        given = [source.given for source in self.sources]
        if given != planned.sources:
            raise DatasetError(
                f"{self.folder}: is not finished; run it once more with what it was begun with "
                f"({' '.join(planned.sources)}), then with {' '.join(given)}"
            )
        for source, state in zip(self.sources, states, strict=False):
            if source.state() != state:
                raise DatasetError(
                    f"{self.folder}: is not finished, and {source.given} was replaced since it was begun; put the old "
                    "one back, or give another folder"
                )

    def _write(self, spool: Plan) -> Manifest:
        """Write down what is planned, and count what is done."""
        before, there = read_manifest(self.folder), find_shards(self.folder)
        features = before.features if before else self.features  # under the name that the backbone had first
        counted = before.counts if before else []
        manifest = Manifest(features, spool.generations(), format=self.format or "parquet")
        for i, one in enumerate(manifest.generations):
            if not all(n in there for n in one.shards):
                manifest.counts.append(None)
            elif i < len(counted) and counted[i] is not None:
                manifest.counts.append(counted[i])
            else:
                total = Counter({"ok": 0, "failed": 0})
                for n in one.shards:
                    total.update(read_counts(there[n]))
                manifest.counts.append(dict(total))
        write_manifest(self.folder, manifest)
        return manifest
