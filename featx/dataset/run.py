"""Run a job on a dataset: follow the sources, make the missing shards, and write the manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

from featx._events import Events
from featx._results import to_plain
from featx._validation import check_choice, check_integer, check_jobs, check_seconds
from featx.dataset.current import CurrentRows, failed_keys
from featx.dataset.executors import WorkerLostError, run_tasks_in_workers
from featx.dataset.follow import adopt_sources, compare_images, list_known_sources
from featx.dataset.formats import FORMATS
from featx.dataset.generation import Row, identify
from featx.dataset.layout import ShardLayout
from featx.dataset.lock import PRIVATE, hold_plan
from featx.dataset.manifest import Extractor, Features, Manifest, current_versions, read_manifest, write_manifest
from featx.dataset.plan import Plan
from featx.dataset.ready import count_kept, read_block
from featx.dataset.shards import find_shards, read_columns, read_counts, read_footer, shard_path
from featx.dataset.worker import ShardResult, Task, check_failures, run_tasks
from featx.errors import DatasetError, InputError
from featx.sources.base import Source
from featx.sources.listing import refuse_question

__all__ = ["JobOptions", "Run", "Summary"]

_MAX_LOSSES = 3  # successive lost workers without a finished shard in between


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
        Number of images in the dataset, including images that could not be read.
    n_embedded, n_failed : int
        Number of images that this run processed, and of images among them that could not be read.
    n_replaced : int
        Number of images that replace an earlier row, because they changed or were tried again.
    n_gone : int
        Number of images of the dataset that have left the source.
    complete : bool
        True if every shard exists; False after a part of a job array while others are missing.
    n_relabelled : int
        Number of images whose label has changed in the source, and was changed in their rows.
    n_pruned : int
        Number of images whose rows were dropped, because they have left the source; 0 without ``prune``.
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


@dataclass(frozen=True)
class _Changes:
    """Count the changes of a dataset that a run has planned."""

    n_replaced: int = 0
    n_gone: int = 0
    n_relabelled: int = 0
    n_pruned: int = 0


@dataclass
class Run:
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

    def execute(self, plan: Plan) -> Summary:
        """Make the missing shards, follow the sources, and write the manifest."""
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
        if resumed and not self.options.part:  # then add new images of the source
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
        """Let the images of an unfinished run be planned again if shard_size or a source has changed."""
        generations, sources = plan.generations(), self._identities()
        unfinished = {i for i, _ in self._missing(plan)}
        if plan.dropped() or any(set(plan.identities(i)) != set(sources) for i in unfinished):
            return  # copies must be made first, or the run is refused
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
        """Change labels in shards to those of the listing, one shard after the other; return their number.

        If the run is killed in between, some shards have new labels, and the next run goes on.
        """
        shards, n = find_shards(self.folder), 0
        for number, changes in groupby(plan.changed_labels(), key=itemgetter(0)):
            labels = {row: label for _, row, label in changes}
            if number not in shards:
                continue  # a missing shard gets the labels of the plan later
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
        """Remove the files of shards that were planned again, and kept rows of unfinished shards."""
        if self._missing(plan):
            return
        for number in plan.dropped():
            for path in FORMATS[self.layout.format or "parquet"].files(shard_path(self.folder, number)):
                path.unlink(missing_ok=True)
        plan.forget_dropped()
        for path in find_shards(self.folder / PRIVATE).values():
            path.unlink(missing_ok=True)

    def _make_all(self, plan: Plan) -> None:
        """Make the missing shards; after a lost worker try again, as long as shards are finished in between."""
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
                for n in made - self.reported:  # finished shards, whose results were lost with the worker
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
        """Raise DatasetError if a generation would be finished with other sources than it was planned for."""
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
