"""What ``featx embed`` does with a folder as output."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from featx import dataset
from featx.cli.cluster import BACKENDS, open_backend
from featx.cli.options import make_extractor, note
from featx.cli.progress import Progress, format_bytes, format_seconds

__all__ = ["add_job", "job_options", "run_job"]


def _part(text: str) -> tuple[int, int]:
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        i, n = 0, 0
    if not 1 <= i <= n:
        raise argparse.ArgumentTypeError(f"{text}: expected I/N, such as 1/8 to 8/8")
    return i, n


_OPTIONS: tuple[tuple[str, Callable[[str], Any], str | None, str], ...] = (
    ("shard-size", int, "N", "images a shard (default: 10000)"),
    ("check-content", bool, None, "find changed images by content, not size and time"),
    ("retry-failed", bool, None, "try images again that could not be read"),
    ("max-failures", int, "N", "stop when more images than that cannot be read"),
    ("dry-run", bool, None, "embed a sample, and say what the rest will take"),
    ("json-log", str, "FILE", "write what happens as JSON, a line an event; - is standard error"),
    ("shard", _part, "I/N", "do the I-th part of N, as one of a job array"),
    ("cluster", str, "ADDRESS", "where the cluster of --backend is (default: one made here)"),
)


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the options that only a folder as output takes."""
    group = parser.add_argument_group("a folder as output")
    for name, kind, metavar, what in _OPTIONS:
        options: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind, "metavar": metavar}
        group.add_argument(f"--{name}", help=what, **options)
    group.add_argument("--dtype", choices=dataset.DTYPES, help="how vectors are stored (default: float32)")
    group.add_argument("--format", choices=dataset.FORMATS, help="where vectors are stored (default: parquet)")
    group.add_argument("--backend", choices=list(BACKENDS), help="what runs workers (default: loky, processes here)")


def job_options(options: argparse.Namespace) -> list[str]:
    """Name those of them that were given."""
    names = [*(name for name, *_ in _OPTIONS), "dtype", "format", "backend"]
    given = {name: getattr(options, name.replace("-", "_")) for name in names}
    return [f"--{name}" for name, value in given.items() if value is not None and value is not False]


def run_job(options: argparse.Namespace) -> None:
    """Make the dataset, or go on with it."""
    extractor = make_extractor(options).set_params(progress=False)
    columns = {"path_column": options.path_column, "target": options.target}
    if options.dry_run:
        _estimate(options, dataset.estimate(options.source, extractor, dtype=options.dtype or "float32", **columns))
        return
    with Progress(options.json_log) as progress, open_backend(options.backend, options.cluster):
        done = dataset.embed(
            options.source,
            options.output,
            extractor,
            shard_size=options.shard_size,
            dtype=options.dtype or "float32",
            format=options.format,
            check="content" if options.check_content else "stat",
            retry_failed=options.retry_failed,
            max_failures=options.max_failures,
            n_jobs=options.jobs or (-1 if options.backend else 1),
            part=options.shard,
            events=progress,
            **columns,
        )
    if done.n_failed:
        note(f"{done.n_failed} images could not be read; featx dataset info {options.output} lists them")
    if done.n_gone:
        note(f"{done.n_gone} images of the dataset are no longer in the source; their rows stay")
    rest = "" if done.complete else "; shards of other parts are missing"
    replaced = f", {done.n_replaced} of them anew" if done.n_replaced else ""
    device = extractor.open_session().device
    print(
        f"{options.output}: {done.n_images} images, {done.n_embedded} embedded now{replaced}, "
        f"{extractor.backbone} on {device}{rest}"
    )


def _estimate(options: argparse.Namespace, found: dataset.Estimate) -> None:
    there = next(
        path for path in (Path(options.output).absolute(), *Path(options.output).absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(there).free
    if found.n_bytes > free:
        note(f"{there}: has {format_bytes(free)} free, and {format_bytes(found.n_bytes)} are needed")
    failed = f", {found.n_failed} of the {found.n_sampled} tried cannot be read" if found.n_failed else ""
    print(
        f"{options.output}: {found.n_images} images, about {format_seconds(found.seconds)} "
        f"({found.n_images / max(found.seconds, 1e-9):.0f}/s), {format_bytes(found.n_bytes)} of shards, "
        f"{format_bytes(found.n_bytes_read)} to read{failed}; nothing was written"
    )
