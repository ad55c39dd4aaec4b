"""Embed sources into a dataset: list, plan, make the missing shards, write the manifest."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from featx._events import Events
from featx._optional import import_optional
from featx._results import to_plain
from featx._validation import check_choice, check_integer, check_jobs, check_seconds
from featx.dataset.current import CurrentRows, failed_keys
from featx.dataset.executors import WorkerLostError, run_tasks_in_workers
from featx.dataset.extractors import make_extractor
from featx.dataset.follow import adopt_sources, compare_images, distinct_sources, list_known_sources
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Row, identify
from featx.dataset.layout import ShardLayout
from featx.dataset.lock import PRIVATE, hold_plan, hold_run
from featx.dataset.manifest import (
    MANIFEST,
    Extractor,
    Features,
    Manifest,
    current_versions,
    read_manifest,
    write_manifest,
)
from featx.dataset.plan import Plan, shared_column
from featx.dataset.ready import count_kept, read_block
from featx.dataset.shards import find_shards, read_columns, read_counts, read_footer, shard_path
from featx.dataset.worker import ShardResult, Task, check_failures, run_tasks
from featx.errors import DatasetError, InputError
from featx.sources.base import Source
from featx.sources.listing import refuse_question
from featx.sources.opening import open_sources
from featx.sources.texts import open_texts

__all__ = ["JobOptions", "Summary", "embed"]

_MAX_LOSSES = 3  # of workers in a row with no finished shard in between


@dataclass(frozen=True)
class JobOptions:
    """Options of a job that change no vector; see `embed`."""

    check: str = "stat"
    retry_failed: bool = False
    prune: bool = False
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
        if self.part is not None and self.prune:
            raise InputError("prune=True: other parts may be at work; prune in a run without part")


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
        Images of the dataset that have left the source.
    complete : bool
        True if every shard exists; False after a part of a job array while others are missing.
    n_relabelled : int
        Images whose label has changed in the source, and was changed in their rows.
    n_pruned : int
        Images whose rows were dropped, because they have left the source; 0 without ``prune``.
    """

    n_images: int
    n_embedded: int
    n_failed: int
    n_replaced: int
    n_gone: int
    complete: bool
    n_relabelled: int = 0
    n_pruned: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a dict of plain Python values."""
        return cast("dict[str, Any]", to_plain(self))


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
            return _Job(folder, extractor, features, layout, sources, options, events).run(plan)


@dataclass(frozen=True)
class _Changes:
    """Count the changes of a dataset that a run has planned."""

    n_replaced: int = 0
    n_gone: int = 0
    n_relabelled: int = 0
    n_pruned: int = 0


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


@dataclass
class _Job:
    """Run one call of `embed`, with the dataset's locks held."""

    folder: Path
    extractor: Extractor
    features: Features
    layout: ShardLayout
    sources: list[Source]
    options: JobOptions
    events: Events
    counts: Counter[str] = field(default_factory=Counter)  # rows by status that this run embedded
    reported: set[int] = field(default_factory=set)  # this run's shards

    def run(self, plan: Plan) -> Summary:
        changes = _Changes()
        with hold_plan(self.folder):
            self._read_existing(plan)
            if self._missing(plan):
                adopt_sources(plan, self.sources)
            if not self.options.part:
                self._plan_unfinished_anew(plan)
            resumed = bool(self._missing(plan))
            if self.options.part and resumed and self.layout.size not in (None, plan.generations()[-1].shard_size):
                raise InputError(
                    f"shard_size={self.layout.size}: the unfinished run has "
                    f"shard_size={plan.generations()[-1].shard_size}; leave it out to finish a part of that run"
                )
            if not resumed:
                changes = self._follow(plan)
            elif not plan.dropped():
                self._write_manifest(plan)  # a generation with a missing shard has no counts
        self._make_all(plan)
        if resumed and not self.options.part:  # then add what is new in the source
            with hold_plan(self.folder):
                changes = self._follow(plan)
            self._make_all(plan)
        with hold_plan(self.folder):
            manifest = self._write_manifest(plan)
            if not self.options.part:
                self._remove_old_files(plan)
        self.events.end()
        n_embedded, n_failed = self.counts.total(), self.counts["failed"]
        return Summary(manifest.n_images, n_embedded, n_failed, complete=manifest.complete, **vars(changes))

    def _read_existing(self, plan: Plan) -> None:
        """Compare the existing dataset with this job, and restore a lost plan."""
        manifest = read_manifest(self.folder)
        if manifest:
            manifest.features.check_same(self.features, self.folder)
            if self.layout.format not in (None, manifest.format):
                raise InputError(f"format={self.layout.format!r}: {self.folder} has {manifest.format!r}; leave it out")
        self.layout = replace(self.layout, format=manifest.format if manifest else self.layout.format or "parquet")
        if not self.options.part:
            for folder in (self.folder, self.folder / PRIVATE):
                for scratch in folder.glob(".featx-*.part*"):  # of a run that was killed
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

        def read_shard(number: int) -> Iterable[tuple[str, str]]:
            table = read_columns(shards[number], ["key", "label"])
            return zip(table["key"].to_pylist(), table["label"].to_pylist(), strict=True)

        plan.restore(manifest.generations, read_shard)

    def _plan_unfinished_anew(self, plan: Plan) -> None:
        """Let the images of an unfinished run be planned anew if shard_size or a source is another now."""
        generations, sources = plan.generations(), self._identities()
        unfinished = {i for i, _ in self._missing(plan)}
        if plan.dropped() or any(set(plan.identities(i)) != set(sources) for i in unfinished):
            return  # copies have to be made first, or the run is refused
        other_size = any(self.layout.size not in (None, generations[i].shard_size) for i in unfinished)
        if other_size or any(self._replaced(plan, i) for i in unfinished):
            plan.cut(find_shards(self.folder), count_kept(self.folder))

    def _identities(self) -> dict[str, Source]:
        return {identify(source.given): source for source in self.sources}

    def _replaced(self, plan: Plan, generation: int) -> list[Source]:
        """Return the sources of a generation that were replaced since it was planned."""
        sources, states = self._identities(), plan.states(generation)
        planned = zip(plan.identities(generation), states, strict=False)  # a plan that was restored has no states
        return [sources[name] for name, state in planned if name in sources and sources[name].state() != state]

    def _missing(self, plan: Plan) -> list[tuple[int, int]]:
        """Return generation and number of each planned shard that does not exist."""
        shards = find_shards(self.folder)
        return [(i, n) for i, planned in enumerate(plan.generations()) for n in planned.shards if n not in shards]

    def _follow(self, plan: Plan) -> _Changes:
        """List the sources, change labels, and plan new, changed and requested images."""
        generations = plan.generations()
        current = CurrentRows(generations, find_shards(self.folder))
        prefixes = list_known_sources(plan, self.sources, current, self.events)
        for source in self.sources:
            refuse_question(source)
            for text in source.notes:
                self.events.note(f"{source.given}: {text}" if len(self.sources) > 1 else text)
        size = self.layout.size
        if size is None:
            size = generations[-1].shard_size if generations else self._choose_size(plan)
        by_state = self.options.check == "stat"
        n_gone = n_relabelled = n_pruned = 0
        if generations:
            n_gone = plan.find_gone(self.sources, prefixes)
            if self.options.retry_failed:
                plan.request(failed_keys(current))
            compare_images(plan, self.sources, current, every_image=not by_state, events=self.events)
            n_relabelled = self._change_labels(plan)
            if self.options.prune and n_gone:
                plan.prune(size, lambda number: read_columns(current.shards[number], ["sha256"])["sha256"].to_pylist())
                n_pruned, n_gone = n_gone, 0
        added = plan.plan(size, self.sources, prefixes, current_versions(), by_state=by_state)
        if not plan.dropped():
            self._write_manifest(plan)
        n_replaced = plan.generations()[-1].n_replaced if added else 0
        return _Changes(n_replaced, n_gone, n_relabelled, n_pruned)

    def _choose_size(self, plan: Plan) -> int:
        return self.layout.choose_size(self.features.n_features, plan.count_listed())

    def _change_labels(self, plan: Plan) -> int:
        """Change labels in shards as in the listing, one shard after the other; return their number.

        A run that is killed in between leaves some shards with new labels, and the next run goes on.
        """
        shards, n = find_shards(self.folder), 0
        for number, changes in groupby(plan.changed_labels(), key=itemgetter(0)):
            labels = {row: label for _, row, label in changes}
            if number not in shards:
                continue  # it gets the labels of the plan when it is made
            block = read_block(shards[number], self.layout.format or "parquet")
            before = block.columns["label"]
            after = [labels.get(row, label) for row, label in enumerate(before)]
            if after == before:  # a plan that was restored by an earlier version has no labels
                continue
            n += sum(old != new for old, new in zip(before, after, strict=True))
            block.columns["label"] = after
            FORMATS[self.layout.format or "parquet"].write(shards[number], block, read_footer(shards[number]))
        plan.set_labels()
        return n

    def _remove_old_files(self, plan: Plan) -> None:
        """Remove the files of shards that were planned anew, and rows that were kept of unfinished shards."""
        if self._missing(plan):
            return
        for number in plan.dropped():
            for path in FORMATS[self.layout.format or "parquet"].files(shard_path(self.folder, number)):
                path.unlink(missing_ok=True)
        plan.forget_dropped()
        for path in find_shards(self.folder / PRIVATE).values():
            path.unlink(missing_ok=True)

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
                    counts = read_counts(shard_path(self.folder, n))
                    self._report(ShardResult(n, counts, counts, 0))
                self.events.note(f"{error}; its shard is made again")

    def _report(self, result: ShardResult) -> None:
        self.reported.add(result.number)
        self.counts.update(result.embedded)
        if self.options.n_jobs != 1:
            n_failed = result.counts["failed"]
            self.events.advance(sum(result.counts.values()), n_failed=n_failed, n_bytes=result.n_bytes)
        self.events.shard(result.number, result.counts)

    def _make_missing(self, plan: Plan) -> None:
        generations, missing = plan.generations(), self._missing(plan)
        mine = [(i, n) for i, n in missing if self._is_mine(n)]
        n_planned = sum(one.n_images - one.n_replaced for one in generations)
        n_done = n_planned - sum(generations[i].rows_of(n)[1] for i, n in missing)
        self.events.begin("embed", n_done + sum(generations[i].rows_of(n)[1] for i, n in mine), n_done)
        kept = count_kept(self.folder)
        for i in sorted({i for i, n in mine if kept.get(n) != generations[i].rows_of(n)[1]}):
            if not plan.is_copied(generations[i]):
                self._check_sources(plan, i)
        tasks = (
            Task(n, generations[i].rows_of(n)[1], self._rows(plan, i, n), shard_path(self.folder.absolute(), n))
            for i, n in mine
        )
        options: dict[str, Any] = {
            "features": self.features,
            "format": self.layout.format,
            "max_failures": self.options.max_failures,
            "image_timeout": self.options.image_timeout,
        }
        n_jobs = self.options.n_jobs
        if n_jobs == 1:
            results = run_tasks(
                self.extractor, self.sources, tasks, on_images=self.events.advance, events=self.events, **options
            )
        else:
            results = run_tasks_in_workers(self.extractor, self.sources, tasks, n_jobs=n_jobs, **options)
        with closing(cast("Any", results)):
            for result in results:
                self._report(result)
                check_failures(self.counts["failed"], self.options.max_failures)

    def _is_mine(self, shard: int) -> bool:
        part = self.options.part
        return part is None or shard % part[1] == part[0] - 1

    def _check_sources(self, plan: Plan, generation: int) -> None:
        """Refuse to finish a generation with sources other than it was planned for."""
        if set(self._identities()) != set(plan.identities(generation)):
            raise DatasetError(
                f"{self.folder}: is not finished; finish it with its own sources "
                f"({' '.join(plan.generations()[generation].sources)}), "
                f"then embed {' '.join(source.given for source in self.sources)}"
            )
        if replaced := self._replaced(plan, generation):
            raise DatasetError(
                f"{self.folder}: is not finished, and {replaced[0].given} was replaced since it was begun; restore the "
                "old source, or finish in a run without part"
            )

    def _rows(self, plan: Plan, generation: int, shard: int) -> Iterator[Row]:
        """Read the rows of a shard, with the numbers that their sources have in this run; -1 for a missing source."""
        usable = [source for source in self.sources if source not in self._replaced(plan, generation)]
        numbers = {identify(source.given): self.sources.index(source) for source in usable}
        planned = [numbers.get(identity, -1) for identity in plan.identities(generation)]
        rows = plan.rows(*plan.generations()[generation].rows_of(shard))
        return (row._replace(source=planned[row.source] if row.source >= 0 else -1) for row in rows)

    def _write_manifest(self, plan: Plan) -> Manifest:
        previous = read_manifest(self.folder)
        features = previous.features if previous else self.features  # keeps the backbone's first name
        manifest = Manifest(features, plan.generations(), format=self.layout.format or "parquet")
        manifest.count_rows(find_shards(self.folder), previous)
        write_manifest(self.folder, manifest)
        return manifest
