"""The one way to reach a package that only an extra brings."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

from featx.errors import MissingDependencyError

__all__ = ["import_optional", "installed_version"]


def import_optional(module: str, extra: str) -> Any:
    """Import ``module`` or say which extra brings it.

    Parameters
    ----------
    module : str
        Dotted module name, ``"matplotlib.pyplot"``.
    extra : str
        The featx extra that installs it, ``"plot"``.

    Returns
    -------
    module
        The imported module.

    Raises
    ------
    MissingDependencyError
        When the package is not installed. A package that is there but fails
        while importing raises its own error.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingDependencyError(f'{package} is not installed; run: pip install "featx[{extra}]"') from None


def installed_version(distribution: str) -> str | None:
    """Give the version of an installed distribution; None when it is not."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
