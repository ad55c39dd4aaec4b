"""Write CSV: the columns, then one column per feature; missing values are empty."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from featx._files import write_whole
from featx.writers.base import Columns, Features, Writer

__all__ = ["WRITER", "write"]


def write(path: Path, columns: Columns, features: Features, names: Sequence[str]) -> None:
    """Write UTF-8 CSV, with as many digits as restore each float32."""
    with (
        write_whole(path) as scratch,
        scratch.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*columns, *names])
        for i, row in enumerate(zip(*columns.values(), strict=True)):
            numbers = [] if features is None else ["" if x != x else str(x) for x in features[i]]
            writer.writerow(["" if x is None else x for x in row] + numbers)


WRITER = Writer(write)
