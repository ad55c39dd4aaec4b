"""The interface of a format: a function that writes a table, and the requirements of the format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["Columns", "Features", "Writer"]

#: Values of a column by its name, one value per row; None is a missing value.
Columns = Mapping[str, Sequence[Any]]
#: Features of shape (n_rows, n_features).
Features = npt.NDArray[np.float32] | None


@dataclass(frozen=True)
class Writer:
    """One output format."""

    #: Write the columns, then the features under their names.
    write: Callable[[Path, Columns, Features, Sequence[str]], None]
    #: True if the format cannot hold a table without features.
    needs_features: bool = False
    #: Return all files that belong to a path.
    files: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)
    #: Raise MissingDependencyError if a package is missing.
    check_installed: Callable[[], Any] = lambda: None
    #: Raise InputError if the format cannot hold these image names.
    check_names: Callable[[Path, Collection[str]], None] = lambda path, names: None
