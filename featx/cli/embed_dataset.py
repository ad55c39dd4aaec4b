"""Run ``featx embed`` with a folder as output: make a dataset, or estimate the work."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from featx import dataset
from featx.cli.cluster import BACKENDS, open_backend
from featx.cli.options import make_extractor, make_text_extractor, note
from featx.cli.progress import Progress
from featx.errors import DatasetError, FeatxError

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
    ("shard-size", int, "N", "images per shard (default: 1%% of the images, 1000 to 10000); may change later"),
    ("check-content", bool, None, "detect changed images by content instead of size and time"),
    ("retry-failed", bool, None, "try again to read images that failed"),
    ("prune", bool, None, "drop the rows of images that have left the source"),
    ("max-failures", int, "N", "stop if more than N images cannot be read"),
    ("image-timeout", float, "SECONDS", "time limit for decoding an image (default: 60)"),
    ("dry-run", bool, None, "embed a sample, and estimate time and disk space"),
    ("json-log", str, "FILE", "append each event to FILE as a line of JSON; - is standard error"),
    ("shard", _part, "I/N", "make part I of N, in a job array"),
    ("cluster", str, "ADDRESS", "address of the --backend's cluster (default: start one here)"),
)


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the options that need a folder as output."""
    group = parser.add_argument_group("a folder as output")
    for name, kind, metavar, text in _OPTIONS:
        options: dict[str, Any] = {"action": "store_true"} if kind is bool else {"type": kind, "metavar": metavar}
        group.add_argument(f"--{name}", help=text, **options)
    group.add_argument("--dtype", choices=dataset.DTYPES, help="number type of the vectors (default: float32)")
    group.add_argument("--format", choices=list(dataset.FORMATS), help="format of the vectors (default: parquet)")
    group.add_argument("--backend", choices=list(BACKENDS), help="system that runs workers (default: loky, local ones)")


def job_options(options: argparse.Namespace) -> list[str]:
    """Return the names of the given options that need a folder."""
    names = [*(name for name, *_ in _OPTIONS), "dtype", "format", "backend"]
    values = {name: getattr(options, name.replace("-", "_")) for name in names}
    return [f"--{name}" for name, value in values.items() if value is not None and value is not False]


def run_job(options: argparse.Namespace) -> None:
    """Make or continue the dataset, or estimate the work with ``--dry-run``."""
    make = make_text_extractor if options.text_column else make_extractor
    extractor = make(options).set_params(progress=False)
    common: dict[str, Any] = {
        "dtype": options.dtype or "float32",
        "path_column": options.path_column,
        "text_column": options.text_column,
        "target": options.target,
        "include": options.include,
        "exclude": options.exclude,
    }
    if options.dry_run:
        _print_estimate(options.output, dataset.estimate(options.source, extractor, **common))
        return
    with (
        Progress(options.json_log) as events,
        open_backend(options.backend, options.cluster),
        _noting_kept_images(options.output),
    ):
        summary = dataset.embed(
            options.source,
            options.output,
            extractor,
            shard_size=options.shard_size,
            format=options.format,
            check="content" if options.check_content else "stat",
            retry_failed=options.retry_failed,
            prune=options.prune,
            max_failures=options.max_failures,
            image_timeout=60 if options.image_timeout is None else options.image_timeout,
            n_jobs=options.jobs or (-1 if options.backend else 1),
            part=options.shard,
            events=events,
            **common,
        )
    noun = "text" if options.text_column else "image"
    if summary.complete:
        _check_readable(options.output, summary.n_images, noun)
    if summary.n_failed:
        inputs = f"1 {noun}" if summary.n_failed == 1 else f"{summary.n_failed} {noun}s"
        note(f"{inputs} could not be read; list them with: featx dataset info {options.output}")
    if n := summary.n_relabelled:
        note("1 label has changed in the source" if n == 1 else f"{n} labels have changed in the source")
    if n := summary.n_gone:
        note(f"{_have_left(n, noun)}; kept in the dataset, and dropped with --prune")
    if n := summary.n_pruned:
        note(f"{_have_left(n, noun)}; dropped from the dataset")
    incomplete = "" if summary.complete else "; shards of other parts are missing"
    replaced = f" ({summary.n_replaced} replacing earlier rows)" if summary.n_replaced else ""
    device = extractor.open_session().device
    print(
        f"{options.output}: {summary.n_images} {noun}s, {summary.n_embedded} embedded now{replaced}, "
        f"{extractor.backbone} on {device}{incomplete}"
    )


def _have_left(n: int, noun: str) -> str:
    return f"1 {noun} has left the source" if n == 1 else f"{n} {noun}s have left the source"


@contextmanager
def _noting_kept_images(folder: str) -> Iterator[None]:
    """Print the number of images that are kept after Ctrl-C."""
    try:
        yield
    except KeyboardInterrupt:
        try:
            opened = dataset.open(folder)
            n_planned = sum(generation.n_images for generation in opened.manifest.generations)
            kept = f"{opened.n_kept} of {n_planned} {opened.manifest.features.kind}s"
            note(f"{kept} are kept; run the same command to go on")
        except (FeatxError, OSError):
            pass  # interrupted before anything was planned
        raise


def _check_readable(folder: str, n_images: int, noun: str) -> None:
    """Raise DatasetError if no image or text of a dataset could ever be read."""
    opened = dataset.open(folder)
    n_ok = sum(counts["ok"] for counts in opened.manifest.counts if counts)
    if not n_ok and (first := next(opened.failures(), None)):
        raise DatasetError(
            f"{folder}: none of {n_images} {noun}s could be read; the first: {first.source}: {first.reason}"
            if n_images > 1
            else f"{folder}: the only {noun} could not be read: {first.source}: {first.reason}"
        )


def _print_estimate(folder: str, result: dataset.Estimate) -> None:
    output = Path(folder).absolute()
    existing = next(path for path in (output, *output.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    needed = tqdm.format_sizeof(result.n_bytes, "B")
    if result.n_bytes > free:
        note(f"{existing}: {needed} are needed, but only {tqdm.format_sizeof(free, 'B')} are free")
    failed = f"; {result.n_failed} of {result.n_sampled} sampled images cannot be read" if result.n_failed else ""
    print(
        f"{folder}: {result.n_images} images, about {tqdm.format_interval(result.seconds)} "
        f"({result.n_images / max(result.seconds, 1e-9):.0f}/s), {needed} of shards, "
        f"{tqdm.format_sizeof(result.n_bytes_read, 'B')} to read{failed}; nothing was written"
    )
