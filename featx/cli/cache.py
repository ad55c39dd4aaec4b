"""``featx cache``: show or prune the features that are kept on disk."""

from __future__ import annotations

import argparse
from pathlib import Path

from featx.errors import InputError

EXAMPLE = """\
  featx cache info
  featx cache prune --unused-days 30
  featx cache prune --max-mb 500 --cache-folder my-cache
  featx cache clear
Features are added by FeatureExtractor(cache=True) and by --cache."""


def add(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("action", choices=["info", "prune", "clear"])
    parser.add_argument(
        *("--cache-folder", "--folder"),
        metavar="FOLDER",
        help="folder of the cache (default: the folder of --cache); --folder is its earlier name",
    )
    parser.add_argument("--unused-days", type=float, metavar="N", help="prune features that were unused for N days")
    parser.add_argument(
        "--max-mb", type=float, metavar="N", help="prune the features that were unused longest, down to N megabytes"
    )


def run(options: argparse.Namespace) -> None:
    """Run the action, and print the size of the cache."""
    from featx.cache.keys import cache_folder
    from featx.cache.store import FeatureCache

    if options.action != "prune" and (options.unused_days is not None or options.max_mb is not None):
        raise InputError(f"{options.action}: unused_days and max_mb are options of prune")
    for name in ("unused_days", "max_mb"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"{name}={value}: expected a number of 0 or more")
    folder = Path(options.cache_folder or cache_folder())
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; expected the folder of a cache")
    cache = FeatureCache(folder)
    if options.action != "info" and not cache.path.exists():
        raise InputError(f"{cache.path}: no such cache")
    if options.action == "clear":
        print(f"{cache.clear()} vectors removed")
    elif options.action == "prune":
        if options.unused_days is None and options.max_mb is None:
            raise InputError("prune: add unused_days or max_mb to choose what to remove")
        max_bytes = None if options.max_mb is None else int(options.max_mb * 2**20)
        print(f"{cache.prune(max_bytes=max_bytes, unused_days=options.unused_days)} vectors removed")
    if not cache.path.exists():
        print(f"{cache.path}: empty")
        return
    info = cache.info()
    print(
        f"{info.path}: {info.n_vectors} vectors of {info.n_files} files, "
        f"{info.n_bytes / 2**20:.1f} of at most {info.max_bytes / 2**20:.0f} MB"
    )
