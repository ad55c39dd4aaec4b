"""``featx dataset info``: which features, of what, how many, and what could not be read."""

from __future__ import annotations

import argparse
import json
from itertools import islice
from typing import Any

from featx import dataset
from featx._text import printable
from featx.cli.options import add_command
from featx.cli.progress import format_bytes
from featx.dataset.shards import beside

EXAMPLE = """\
  featx dataset info vectors
  featx dataset info vectors --failures 1000
  featx dataset info vectors --json"""


def add(actions: Any) -> argparse.ArgumentParser:
    """Add the action."""
    parser = add_command(actions, "info", "show what a dataset holds, and what could not be read", EXAMPLE)
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("--failures", type=int, default=10, metavar="N", help="how many to list (default: 10)")
    parser.add_argument("--json", action="store_true", help="print one JSON object, with every failure")
    return parser


def run(options: argparse.Namespace) -> None:
    """Print it."""
    found = dataset.open(options.dataset)
    about = facts(found)
    failures = found.failures()
    if options.json:
        print(json.dumps(about | {"failures": [{"key": f.source, "reason": f.reason} for f in failures]}, indent=1))
        return
    values = ", ".join(f"{name} {value}" for name, value in about["values"].items())
    print(f"{options.dataset}: {about['images']} images, {about['ok']} ok, {about['failed']} failed")
    print(f"  {about['n_features']} features of {about['dtype']}: {about['backbone']} ({about['identity']}), {values}")
    print(f"  {about['shards']} of {about['planned_shards']} shards, {format_bytes(about['bytes'])}")
    for i, one in enumerate(found.manifest.generations):
        what = f", {one.n_replaced} of them anew" if one.n_replaced else ""
        print(printable(f"  generation {i}: {one.n_images} images{what} of {' '.join(one.sources)}"))
    for failure in islice(failures, max(options.failures, 0)):
        print(printable(f"  failed: {failure.source}: {failure.reason}"))
    if about["failed"] > options.failures:
        print(f"  and {about['failed'] - options.failures} more; --failures N lists them")


def facts(found: dataset.Dataset) -> dict[str, Any]:
    """Describe a dataset in what JSON can hold."""
    features = found.manifest.features
    paths = found.current_rows().shards.values()
    failed = sum(1 for _ in found.failures())
    return {
        "path": str(found.folder),
        "images": len(found) + failed,
        "ok": len(found),
        "failed": failed,
        "backbone": features.backbone,
        "identity": features.identity[:12] if isinstance(features.identity, str) else features.identity,
        "values": features.values,
        "n_features": features.n_features,
        "dtype": features.dtype,
        "shards": len(paths),
        "planned_shards": sum(one.n_shards for one in found.manifest.generations),
        "bytes": sum(one.stat().st_size for path in paths for one in (path, *beside(path))),
        "generations": [one._asdict() for one in found.manifest.generations],
    }
