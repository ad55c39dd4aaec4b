"""What the tests of datasets share."""

from pathlib import Path

import pyarrow.parquet as pq

from featx.dataset.prepare import PRIVATE


def contents(folder):
    """Every file of a dataset but what only the job needs, as bytes."""
    files = (path for path in Path(folder).rglob("*") if path.is_file() and PRIVATE not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rows(folder):
    """All rows of all shards, in order, without the vectors."""
    paths = sorted(Path(folder).glob("part-*.parquet"))
    columns = ["key", "label", "width", "height", "sha256", "status", "reason"]
    return [row for path in paths for row in pq.read_table(path, columns=columns).to_pylist()]
