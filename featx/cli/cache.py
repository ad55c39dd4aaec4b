"""``featx cache``: what features are kept on disk, and letting them go."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from featx.cache.keys import cache_folder
from featx.cache.store import FeatureCache
from featx.cli.options import add_command
from featx.errors import InputError

EXAMPLE = """\
  featx cache info
  featx cache prune --unused-days 30
  featx cache prune --max-mb 500 --folder my-cache
  featx cache clear
Features get there by FeatureExtractor(cache=True) or --cache."""


def add(commands: Any) -> argparse.ArgumentParser:
    """Add the command."""
    parser = add_command(commands, "cache", "show the features kept on disk, or let them go", EXAMPLE)
    parser.add_argument("action", choices=["info", "prune", "clear"])
    parser.add_argument("--folder", help="default: where cache=True keeps them")
    parser.add_argument("--unused-days", type=float, metavar="N", help="prune: what was not used for so long")
    parser.add_argument(
        "--max-mb", type=float, metavar="N", help="prune: until no more is left, unused for longest first"
    )
    return parser


def run(options: argparse.Namespace) -> None:
    """Do it, and say what is there now."""
    if options.action != "prune" and (options.unused_days is not None or options.max_mb is not None):
        raise InputError(f"{options.action}: --unused-days and --max-mb belong to prune")
    for name in ("unused_days", "max_mb"):
        value = getattr(options, name)
        if value is not None and not 0 <= value < float("inf"):
            raise InputError(f"--{name.replace('_', '-')} {value}: expected a number of 0 or more")
    folder = Path(options.folder or cache_folder())
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is no folder")
    cache = FeatureCache(folder)
    if options.action != "info" and not cache.path.exists():
        raise InputError(f"{cache.path}: there is no cache")
    if options.action == "clear":
        print(f"{cache.clear()} vectors gone")
    elif options.action == "prune":
        if options.unused_days is None and options.max_mb is None:
            raise InputError("prune: say what may go, with --unused-days or --max-mb")
        most = None if options.max_mb is None else int(options.max_mb * 2**20)
        print(f"{cache.prune(max_bytes=most, unused_days=options.unused_days)} vectors gone")
    if not cache.path.exists():
        print(f"{cache.path}: nothing kept yet")
        return
    info = cache.info()
    print(
        f"{info.path}: {info.n_vectors} vectors, {info.n_files} files known, "
        f"{info.n_bytes / 2**20:.1f} of at most {info.max_bytes / 2**20:.0f} MB"
    )
