"""What ``featx embed`` does with a folder as output."""

from __future__ import annotations

import argparse

from featx import dataset
from featx.cli.console import make_extractor, note
from featx.errors import InputError

__all__ = ["add_job", "job_options", "run_job"]


def add_job(parser: argparse.ArgumentParser) -> None:
    """Add the options that only a folder as output takes."""
    group = parser.add_argument_group("a folder as output")
    group.add_argument("--shard-size", type=int, metavar="N", help="pictures a shard (default: 10000)")
    group.add_argument("--dtype", choices=dataset.DTYPES, help="how vectors are stored (default: float32)")
    group.add_argument(
        "--check-content", action="store_true", help="find changed pictures by content, not size and time"
    )
    group.add_argument("--retry-failed", action="store_true", help="try pictures again that could not be read")
    group.add_argument("--max-failures", type=int, metavar="N", help="stop when more pictures than that cannot be read")
    group.add_argument("--shard", type=_part, metavar="I/N", help="do the I-th part of N, as one of a job array")


def job_options(options: argparse.Namespace) -> list[str]:
    """Name those of them that were given."""
    names = ("shard_size", "dtype", "check_content", "retry_failed", "max_failures", "shard")
    return [f"--{name.replace('_', '-')}" for name in names if getattr(options, name) not in (None, False)]


def run_job(options: argparse.Namespace) -> None:
    """Make the dataset, or go on with it."""
    extractor = make_extractor(options)
    done = dataset.embed(
        options.source,
        options.output,
        extractor.set_params(progress=False),
        shard_size=options.shard_size,
        dtype=options.dtype or "float32",
        path_column=options.path_column,
        target=options.target,
        check="content" if options.check_content else "stat",
        retry_failed=options.retry_failed,
        max_failures=options.max_failures,
        part=options.shard,
    )
    if done.n_failed:
        note(f"{done.n_failed} pictures could not be read; featx dataset info {options.output} lists them")
    if done.n_gone:
        note(f"{done.n_gone} pictures of the dataset are no longer in the source; their rows stay")
    rest = "" if done.complete else "; shards of other parts are missing"
    replaced = f", {done.n_replaced} of them anew" if done.n_replaced else ""
    device = extractor.open_session().device
    print(
        f"{options.output}: {done.n_pictures} pictures, {done.n_embedded} embedded now{replaced}, "
        f"{extractor.backbone} on {device}{rest}"
    )


def _part(text: str) -> tuple[int, int]:
    try:
        i, n = map(int, text.split("/"))
    except ValueError:
        i, n = 0, 0
    if not 1 <= i <= n:
        raise InputError(f"--shard {text}: expected I/N, such as 1/8 to 8/8")
    return i, n
