"""NumPy's own format for the features; the other columns go to ``NAME.paths.csv`` beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from featx._files import write_together
from featx.errors import InputError
from featx.writers import csv

__all__ = ["paths_file", "write"]


def paths_file(path: Path) -> Path:
    """Name the file that holds the paths of ``path``'s rows."""
    return path.with_suffix(".paths.csv")


def write(
    path: Path, columns: Mapping[str, Sequence[Any]], features: npt.NDArray[np.float32] | None, names: Sequence[str]
) -> None:
    """Write the features as one array, and what they belong to in a second file."""
    if features is None:
        raise InputError(f"{path}: .npy holds features only")
    with write_together(path, paths_file(path)) as (scratch, paths_scratch):
        with scratch.open("wb") as file:
            np.save(file, features, allow_pickle=False)
        csv.write(paths_scratch, columns, None, ())
