"""Turn a pipeline into the content of pipeline.skops, and refuse the types that featx does not trust."""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from sklearn.base import BaseEstimator
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads

from featx.errors import PipelineFileError, UntrustedTypeError, first_line
from featx.persistence.soundness import check_schema, check_sizes, find_parts
from featx.persistence.trust import TRUSTED, list_trusted

__all__ = ["check_trusted", "dump", "find_types", "import_skops", "list_running_parameters"]

#: Parameters that say where and how fast a machine computes. They stay on the machine that saved the file.
_RUNNING_PARAMETERS = (
    *("cache", "cache_verify", "device", "memory", "n_jobs", "n_threads", "progress", "providers", "verbose"),
)


def import_skops() -> Any:
    """Import skops, which imports all of scikit-learn, when it is needed."""
    import skops.io

    return skops.io


def dump(path: str, pipeline: Any) -> bytes:
    """Return the content of pipeline.skops, without running parameters; raise if `load` would refuse it."""
    changed = [(owner, name, getattr(owner, name)) for owner, name, _ in list_running_parameters(pipeline)]
    try:
        for owner, name, default in list(list_running_parameters(pipeline)):
            setattr(owner, name, default)
        content = bytes(import_skops().dumps(pipeline, compression=zipfile.ZIP_DEFLATED))
        try:
            check_sizes(content)
        except ValueError:  # constant arrays, which `load` must not take for an attack
            content = bytes(import_skops().dumps(pipeline))
    except Exception as error:  # skops raises any exception on an object that it does not know
        reason = f"{path}: cannot be saved ({type(error).__name__}: {first_line(error)})"
        raise PipelineFileError(f"{reason}; {_advise(pipeline)}") from error
    finally:
        for owner, name, value in changed:
            setattr(owner, name, value)
    try:
        check_trusted(path, content)
    except UntrustedTypeError as error:
        raise UntrustedTypeError(
            path, error.types, f"{_locate_types(pipeline, error.types)}; {_advise(pipeline)}"
        ) from None
    return content


def list_running_parameters(pipeline: Any) -> Iterator[tuple[Any, str, Any]]:
    """Yield each estimator with the name and default of each running parameter that is not at its default."""
    for part in find_parts(pipeline):
        if isinstance(part, BaseEstimator):
            parameters = inspect.signature(type(part).__init__).parameters
            for name in _RUNNING_PARAMETERS:
                if name in parameters and name in vars(part) and vars(part)[name] is not parameters[name].default:
                    yield part, name, parameters[name].default
            if "_n_threads" in vars(part):  # clusterings keep the number of cores of the machine that fitted them
                yield part, "_n_threads", _openmp_effective_n_threads()


def _locate_types(pipeline: Any, types: list[str]) -> str:
    """Return the parameter or attribute that holds the first object of a type, for a message."""
    for part in reversed(list(find_parts(pipeline))):  # the innermost estimator first
        for name, value in vars(part).items() if isinstance(part, BaseEstimator) else ():
            held = [] if isinstance(value, BaseEstimator) else find_parts(value)
            for each in held:
                names = (
                    f"{getattr(of, '__module__', None)}.{getattr(of, '__name__', None)}" for of in (each, type(each))
                )
                if any(name in types for name in names):
                    return f" ({name} of {type(part).__name__})"
    return ""


def _advise(pipeline: Any) -> str:
    """Return the next step for a pipeline that cannot be saved."""
    for part in find_parts(pipeline):
        if hasattr(part, "best_estimator_"):
            with suppress(PipelineFileError):
                dump("", part.best_estimator_)
                kept = "save its" if part is pipeline else f"in place of {type(part).__name__}, save its"
                return f"{kept} best_estimator_ instead"
    return (
        "a file holds no code: use a named function of NumPy or scikit-learn, set a parameter that only fit needs to "
        "None before saving, or save the steps before this one"
    )


def check_trusted(path: str, content: bytes, advice: str = "") -> list[str]:
    """Return the types in a pipeline that skops must be told to trust; raise UntrustedTypeError if featx does not."""
    types = find_types(path, content)
    if refused := sorted(types - TRUSTED):
        refused = sorted(set(refused) - list_trusted())
    if refused:
        raise UntrustedTypeError(path, refused, advice)
    return list(types)


def find_types(path: str, content: bytes) -> set[str]:
    """Find the types in the content of pipeline.skops that skops does not trust by itself."""
    try:
        called = check_schema(content)
        types = set(import_skops().get_untrusted_types(data=content))
    except Exception as error:  # a damaged schema
        raise PipelineFileError(f"{path}: damaged pipeline ({type(error).__name__}: {error})") from None
    if called:
        raise UntrustedTypeError(path, called, "; the file would call them")
    return types
