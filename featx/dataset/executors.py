"""Shards made by other processes, through whichever of joblib's backends is active: loky, dask, ray.

A worker gets a task, which is keys and places, and writes its shard by itself; so all workers
must reach the folder and the sources. It keeps its session from task to task.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import joblib
from joblib.parallel import get_active_backend

from featx.dataset.worker import ShardResult, Task, run_tasks
from featx.errors import WorkerLostError
from featx.extractor import FeatureExtractor
from featx.sources.opening import Source

__all__ = ["WorkerLostError", "run_tasks_apart"]

#: What loky, dask (after attempts of its own) and ray call it, by name: they need not be there.
_LOST = {"TerminatedWorkerError", "KilledWorker", "RayActorError", "WorkerCrashedError"}
_AHEAD = 2  # tasks a worker that wait to be taken


def run_tasks_apart(
    extractor: FeatureExtractor, sources: Sequence[Source], tasks: Iterable[Task], *, n_jobs: int, **options: Any
) -> Iterator[ShardResult]:
    """Make shards in worker processes.

    Parameters
    ----------
    extractor, sources, tasks, **options
        As for `featx.dataset.worker.run_tasks`.
    n_jobs : int
        As joblib counts.

    Yields
    ------
    ShardResult
        Each shard once it is on the disk, in no order.

    Raises
    ------
    WorkerLostError
        When a worker was lost and the backend does not make up for it.
    """
    whole = (replace(task, rows=list(task.rows)) for task in tasks)
    calls = (joblib.delayed(_make)(extractor, sources, task, options) for task in whole)
    ahead = _AHEAD * joblib.effective_n_jobs(n_jobs)
    streams = get_active_backend()[0].supports_return_generator
    try:
        if streams:
            parallel = joblib.Parallel(n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=ahead)
            made = parallel(calls)
            try:
                while (done := next(made, None)) is not None:  # closing must not reach joblib before the warning is off
                    yield done
            finally:
                with warnings.catch_warnings():  # that tasks under way are given up is meant
                    warnings.simplefilter("ignore")
                    made.close()
            return
        with joblib.Parallel(n_jobs, batch_size=1, pre_dispatch=ahead) as parallel:
            while some := list(islice(calls, 2 * ahead)):  # answers come when all of these are done
                yield from parallel(some)
    except Exception as error:
        if not _LOST & {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise WorkerLostError("a worker process was lost, most often for want of memory") from error


def _make(extractor: FeatureExtractor, sources: Sequence[Source], task: Task, options: dict[str, Any]) -> ShardResult:
    (done,) = run_tasks(extractor, sources, [task], **options)
    return done
