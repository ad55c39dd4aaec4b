"""Write CSV: the columns, then one column per feature; missing values are empty."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from featx._files import write_whole
from featx.writers.base import Columns, Features, Writer

__all__ = ["WRITER", "write"]


def write(path: Path, columns: Columns, features: Features, names: Sequence[str]) -> None:
    r"""Write UTF-8 CSV, with enough digits to restore each float32.

    All cells of a row are quoted if one of them holds a carriage return, which `csv` leaves bare before Python 3.13.
    """
    with (
        write_whole(path) as scratch,
        scratch.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        plain = csv.writer(file, lineterminator="\n")
        quoted = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)

        def write_row(cells: Sequence[Any]) -> None:
            (quoted if any("\r" in cell for cell in cells if isinstance(cell, str)) else plain).writerow(cells)

        write_row([*columns, *names])
        for i, row in enumerate(zip(*columns.values(), strict=True)):
            numbers = [] if features is None else ["" if x != x else str(x) for x in features[i]]
            write_row(["" if x is None else x for x in row] + numbers)


WRITER = Writer(write)
