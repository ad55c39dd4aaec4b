"""Write the features in NumPy's format, and the other columns to ``NAME.paths.csv`` beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featx._files import write_together
from featx.errors import InputError
from featx.writers import csv
from featx.writers.base import Columns, Features, Writer

__all__ = ["WRITER"]


def _write(path: Path, columns: Columns, features: Features, names: Sequence[str]) -> None:
    if features is None:
        raise InputError(f"{path}: .npy holds features only, and this table has none")
    with write_together(*_files(path)) as (scratch, paths_scratch):
        with scratch.open("wb") as file:
            np.save(file, features, allow_pickle=False)
        csv.write(paths_scratch, columns, None, ())


def _files(path: Path) -> tuple[Path, Path]:
    return path, path.with_suffix(".paths.csv")


WRITER = Writer(_write, needs_features=True, files=_files)
