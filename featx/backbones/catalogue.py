"""Where backbones are found: bundled with featx, in the user's folder, or at any path."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import platformdirs

from featx.backbones.download import DownloadRecord, fetch, is_reference, list_fetched, pull
from featx.backbones.file import Backbone, read_backbone
from featx.backbones.sandbox import inspect_apart
from featx.errors import BackboneError, InputError

__all__ = [
    "cache_dir",
    "find_by_identity",
    "list_backbones",
    "list_here",
    "models_dir",
    "open_backbone",
    "own_file",
    "pull_backbone",
    "pulled_dir",
    "verdicts_dir",
]


def models_dir() -> Path:
    """Find the bundled files: inside the package when installed, beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def cache_dir() -> Path:
    """Find the user's own backbones: ``$FEATX_BACKBONES``, or ``backbones`` in the user's cache folder."""
    given = os.environ.get("FEATX_BACKBONES")
    return Path(given) if given else platformdirs.user_cache_path("featx") / "backbones"


def own_file(name: str) -> str:
    """Give the path at which a new backbone of the user's can be named; its folder is made."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return str(cache_dir() / f"{name}.onnx")


def pulled_dir() -> Path:
    """Find where backbones from the hub and from addresses are remembered."""
    return cache_dir() / "pulled"


def verdicts_dir() -> Path:
    """Find where files that passed inspection are remembered."""
    return platformdirs.user_cache_path("featx") / "inspected"


def list_backbones(on_error: Callable[[BackboneError], object] | None = None) -> list[Backbone]:
    """Read every backbone that can be opened by its name, the stem of its file.

    Parameters
    ----------
    on_error : callable or None
        Called with the error of a file that cannot be read; None raises it.

    Returns
    -------
    list of Backbone
        Bundled first, then the user's, each sorted by file name.

    Examples
    --------
    >>> from featx.backbones import list_backbones
    >>> list_backbones()[0].name
    'efficientnet_lite0'
    """
    backbones = []
    for path in _files():
        try:
            backbones.append(_read(path))
        except BackboneError as error:
            if on_error is None:
                raise
            on_error(error)
    return backbones


def list_here(on_error: Callable[[BackboneError], object]) -> list[tuple[str, Backbone]]:
    """Read every backbone on this machine with the name that opens it: as `list_backbones`, then the pulled ones."""
    found = [(backbone.path.stem, backbone) for backbone in list_backbones(on_error)]
    for fetched in list_fetched(pulled_dir()):
        try:
            found.append((fetched.reference, open_backbone(fetched.reference, download=False)))
        except BackboneError as error:
            on_error(error)
    return found


def open_backbone(name: str | os.PathLike[str], precision: str | None = None, *, download: bool = True) -> Backbone:
    """Open a backbone by name, by path, or from where it was pulled.

    Parameters
    ----------
    name : str or path
        The stem of a bundled file or of one in the user's folder, the path
        of an ONNX file in featx's format, ``hf:owner/name[@revision]/file.onnx`` or
        an https address.
    precision : {"float32", "int8", "float16"} or None, default=None
        What it shall compute in. A copy in another precision lies beside the file or
        among the named ones, as ``NAME_int8.onnx``; None takes the file as it is.
    download : bool, default=True
        False opens only what is on this machine.

    Returns
    -------
    Backbone

    Raises
    ------
    BackboneError
        When there is none, or the file is not a backbone, or has no copy in this precision.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> open_backbone("efficientnet_lite0").preprocess.resize
    256
    """
    if precision not in (None, *_PRECISIONS):
        raise InputError(f"precision={precision!r}: expected None or one of {', '.join(_PRECISIONS)}")
    backbone = _open(name, download)
    return backbone if precision in (None, backbone.precision) else _open_copy(backbone, precision)


def _open_copy(backbone: Backbone, precision: str) -> Backbone:
    """Find what was made of a float32 backbone, by name and proven by its identity."""
    if backbone.precision == "float32":
        file_name = f"{backbone.path.stem}_{precision}.onnx"
        for path in (backbone.path.with_name(file_name), models_dir() / file_name, cache_dir() / file_name):
            if path.is_file() and (copy := _read(path)).recipe.get("float32_identity") == backbone.identity:
                return copy
    raise BackboneError(
        f"precision={precision!r}: backbone {backbone.name} is {backbone.precision} and has no such copy; "
        f"make one with: featx backbones quantize {backbone.path.stem} --precision {precision} --images FOLDER"
    )


_PRECISIONS = ("float32", "int8", "float16")


def _open(name: str | os.PathLike[str], download: bool) -> Backbone:
    if not isinstance(name, (str, os.PathLike)):
        raise BackboneError(f"backbone={name!r}: expected a name or a path, not {type(name).__name__}")
    text = os.fspath(name)
    if is_reference(text):
        try:
            return _read(fetch(text, pulled_dir(), download=download, look=_look))
        except BackboneError as error:
            raise error if text.partition("#")[0] in str(error) else BackboneError(f"{text}: {error}") from None
    known = {path.stem: path for path in reversed(_files())}
    if text in known:
        return _read(known[text])
    if os.path.isfile(text):
        return _read(Path(text))
    if os.sep in text or text.endswith(".onnx"):
        raise BackboneError(f"backbone {text!r}: no such file")
    raise BackboneError(f"backbone {text!r}: neither a file nor one of: {', '.join(sorted(known))}")


def find_by_identity(identity: str) -> Backbone | None:
    """Look among the named backbones for one that computes the same; None when there is none."""
    for path in [*_files(), *(Path(found.path) for found in list_fetched(pulled_dir()))]:
        with suppress(BackboneError):  # a broken file is not the one
            if (backbone := _read(path)).identity == identity:
                return backbone
    return None


def pull_backbone(reference: str) -> DownloadRecord:
    """Fetch a backbone, or a network to wrap, from the hub or an address; it is looked at before it is kept."""
    return pull(reference, pulled_dir(), _look)


def _look(path: Path) -> None:
    inspect_apart(path, verdicts_dir())


def _files() -> list[Path]:
    try:
        own = sorted(path for path in cache_dir().glob("*.onnx") if not path.name.startswith("."))  # unfinished
    except OSError:  # not this user's to read: then nothing there is this user's
        own = []
    return [*sorted(models_dir().glob("*.onnx")), *own]


def _read(path: Path) -> Backbone:
    try:
        state = path.stat()
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_version(path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))


@lru_cache(maxsize=64)
def _read_version(path: Path, version: tuple[int, ...]) -> Backbone:
    if path.parent != models_dir():
        _look(path)
    return read_backbone(path)
