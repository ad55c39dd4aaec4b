"""The interface of a format: a function that writes a table, and what the format requires."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

__all__ = ["Writer"]


class _Write(Protocol):
    def __call__(
        self,
        path: Path,
        columns: Mapping[str, Sequence[Any]],
        features: npt.NDArray[np.float32] | None,
        names: Sequence[str],
    ) -> None: ...


@dataclass(frozen=True)
class Writer:
    """One output format.

    Parameters
    ----------
    write : callable
        Write a table to a path. ``columns`` maps a name to a list with one value per row.
        ``features`` is None or a float array with as many rows, and ``names`` are its columns.
    needs_features : bool, default=False
        True if the format cannot hold a table without features.
    files : callable, optional
        Return all files that belong to a path; by default only the path.
    check_installed : callable, optional
        Raise MissingDependencyError if a package is missing.
    check_names : callable, optional
        Raise InputError if the format cannot hold these image names.
    """

    write: _Write
    needs_features: bool = False
    files: Callable[[Path], tuple[Path, ...]] = lambda path: (path,)
    check_installed: Callable[[], Any] = lambda: None
    check_names: Callable[[Path, Collection[str]], None] = lambda path, names: None
