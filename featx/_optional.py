"""Import the packages that only an extra installs."""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import Any

from featx.errors import MissingDependencyError

__all__ = ["import_optional", "installed_version"]


def import_optional(module: str, extra: str) -> Any:
    """Import a module, or raise MissingDependencyError with the extra that installs its package.

    An installed package that fails while it is imported raises its own error.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise MissingDependencyError(f'{package} is not installed; run: pip install "featx[{extra}]"') from None


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None if it is not installed."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
