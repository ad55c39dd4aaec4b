"""Make shards in worker processes, through joblib's active backend: loky, dask or ray.

A worker gets a task, which holds keys and positions in sources, and writes the shard itself. All workers must
therefore reach the folder and the sources. A worker keeps its session from task to task.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import joblib
from joblib.parallel import get_active_backend

from featx.dataset.manifest import Extractor
from featx.dataset.worker import ShardResult, Task, run_tasks
from featx.errors import WorkerLostError
from featx.sources.base import Source

__all__ = ["WorkerLostError", "run_tasks_in_workers"]

#: Errors of loky, dask (after its own retries) and ray for a lost worker, by name: the packages are optional.
_LOST_WORKER_ERRORS = {"TerminatedWorkerError", "KilledWorker", "RayActorError", "WorkerCrashedError"}
_QUEUED_TASKS_PER_WORKER = 2


def run_tasks_in_workers(
    extractor: Extractor, sources: Sequence[Source], tasks: Iterable[Task], *, n_jobs: int, **options: Any
) -> Iterator[ShardResult]:
    """Make shards in worker processes; yield each shard once it is on the disk, in no particular order.

    Raises WorkerLostError if a worker was lost and the backend does not replace it.
    """
    complete_tasks = (replace(task, rows=list(task.rows)) for task in tasks)
    calls = (joblib.delayed(_run_task)(extractor, sources, task, options) for task in complete_tasks)
    n_queued = _QUEUED_TASKS_PER_WORKER * joblib.effective_n_jobs(n_jobs)
    try:
        if get_active_backend()[0].supports_return_generator:
            parallel = joblib.Parallel(n_jobs, return_as="generator_unordered", batch_size=1, pre_dispatch=n_queued)
            results = parallel(calls)
            try:
                while (result := next(results, None)) is not None:  # a for loop would close it with the warning on
                    yield result
            finally:
                with warnings.catch_warnings():  # joblib warns that it abandons tasks, which is intended
                    warnings.simplefilter("ignore")
                    results.close()
            return
        with joblib.Parallel(n_jobs, batch_size=1, pre_dispatch=n_queued) as parallel:
            while chunk := list(islice(calls, 2 * n_queued)):  # results come when the whole chunk is done
                yield from parallel(chunk)
    except Exception as error:
        if not _LOST_WORKER_ERRORS & {kind.__name__ for kind in type(error).__mro__}:
            raise
        raise WorkerLostError("a worker process was lost, probably because memory ran out") from error


def _run_task(extractor: Extractor, sources: Sequence[Source], task: Task, options: dict[str, Any]) -> ShardResult:
    (result,) = run_tasks(extractor, sources, [task], **options)
    return result
