"""Find backbones: bundled with featx, in the user's folder, pulled from a hub or an address, or at any path."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from featx._files import user_cache
from featx._validation import check_choice, suggest
from featx.backbones.download import (
    DownloadRecord,
    find_record,
    is_reference,
    is_repository,
    join_repository,
    list_downloads,
    pull,
    split_repository,
)
from featx.backbones.download import download as download_file
from featx.backbones.file import Backbone, read_backbone
from featx.backbones.sandbox import inspect_file
from featx.backbones.tokenization import Tokenization
from featx.backbones.zoo import ZOO, suggest_entry
from featx.errors import BackboneError, InputError

__all__ = [
    "cache_dir",
    "find_by_identity",
    "find_text_tower",
    "list_backbones",
    "list_here",
    "models_dir",
    "make_missing_repositories",
    "open_backbone",
    "own_file",
    "pull_backbone",
    "pulled_dir",
    "verdicts_dir",
]

_PRECISIONS = ("float32", "int8", "float16")

#: Functions that make the backbone of a repository that is not here. Extractors set them, since this package cannot
#: import recipes.
_makers: list[Callable[[str], object]] = []


def make_missing_repositories(maker: Callable[[str], object]) -> None:
    """Let `open_backbone` call ``maker`` with the reference of a repository that is not on this machine."""
    _makers[:] = [maker]


def models_dir() -> Path:
    """Return the folder of bundled files: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "models"
    return inside if inside.is_dir() else package.parent / "models"


def cache_dir() -> Path:
    """Return the folder of the user's backbones: ``$FEATX_BACKBONES``, or ``backbones`` in the cache folder.

    Raises InputError if the user has neither.
    """
    folder = os.environ.get("FEATX_BACKBONES")
    return Path(folder) if folder else user_cache("FEATX_BACKBONES") / "backbones"


def own_file(name: str) -> str:
    """Return the path of a new file that `open_backbone` will open by ``name``, and create its folder."""
    cache_dir().mkdir(parents=True, exist_ok=True)
    return str(cache_dir() / f"{name}.onnx")


def pulled_dir() -> Path:
    """Return the folder of records of downloaded backbones."""
    return cache_dir() / "pulled"


def verdicts_dir() -> Path | None:
    """Return the folder that records files which passed inspection; None for a user without a home folder."""
    with suppress(InputError):
        return user_cache("HOME") / "inspected"
    return None


def list_backbones(on_error: Callable[[BackboneError], object] | None = None) -> list[Backbone]:
    """Read every backbone that opens by the stem of its file: bundled backbones first, then the user's backbones.

    Parameters
    ----------
    on_error : callable or None
        Called with the error of each file that cannot be read; None raises the error.

    Examples
    --------
    >>> from featx.backbones import list_backbones
    >>> list_backbones()[0].name
    'efficientnet_lite0'
    """
    backbones = []
    for path in _list_files():
        try:
            backbones.append(_read(path))
        except BackboneError as error:
            if on_error is None:
                raise
            on_error(error)
    return backbones


def list_here(on_error: Callable[[BackboneError], object]) -> list[tuple[str, Backbone]]:
    """Read every backbone on this machine, pulled backbones last, with the name that opens it; see `list_backbones`."""
    backbones = [(backbone.path.stem, backbone) for backbone in list_backbones(on_error)]
    for record in _list_downloads():
        try:
            backbones.append((record.reference, open_backbone(record.reference, download=False)))
        except BackboneError as error:
            on_error(error)
    return backbones


def open_backbone(
    name: str | os.PathLike[str], precision: str | None = None, *, kind: str | None = None, download: bool = True
) -> Backbone:
    """Open a backbone by name, path, hub name or address.

    Parameters
    ----------
    name : str or path
        The stem of a bundled file or of a file in the user's folder, the path of an ONNX file in featx's
        format, ``hf:owner/name[@revision]`` for a repository of the Hugging Face hub,
        ``hf:owner/name[@revision]/file.onnx`` or an https address.
    precision : {"float32", "int8", "float16"} or None, default=None
        Open the copy in this precision, ``NAME_int8.onnx``, which is beside the file or among the named
        backbones. None opens the file itself.
    kind : {"image", "text"} or None, default=None
        "text" opens the text tower of an image network that was made with one; see `find_text_tower`.
    download : bool, default=True
        False opens only files on this machine.

    Raises
    ------
    BackboneError
        The backbone does not exist, its file is not a backbone, or it has no copy in this precision.
    InputError
        The precision is unknown.

    Examples
    --------
    >>> from featx.backbones import open_backbone
    >>> open_backbone("efficientnet_lite0").preprocess.resize
    256
    """
    if precision is not None:
        check_choice("precision", precision, _PRECISIONS)
    if isinstance(name, str) and is_repository(name):
        backbone = _open_repository(name, precision, download)
    else:
        backbone = _open(name, download)
        backbone = backbone if precision in (None, backbone.precision) else _open_copy(backbone, precision)
    return (find_text_tower(backbone) if kind == "text" else None) or backbone


def _open_repository(name: str, precision: str | None, download: bool) -> Backbone:
    """Open the backbone that was made of a repository in a precision; make it if it is not here."""
    plain, named, is_text = split_repository(name)
    if named and precision not in (None, named):
        raise BackboneError(f"precision={precision!r}: the backbone {name} is {named}")
    wanted = precision or named
    reference = join_repository(plain, wanted, is_text)
    for attempt in (download and bool(_makers), False):
        if record := find_record(reference, pulled_dir()):
            return _read(Path(record.path))
        if attempt:
            _makers[0](join_repository(plain, wanted))
    option = f" --precision {wanted}" if wanted not in ("", "float32") else ""
    if is_text and find_record(join_repository(plain, wanted), pulled_dir()):
        raise BackboneError(f"{reference}: not on this machine, {plain} was made without a text tower")
    raise BackboneError(f"{reference}: not on this machine; run: featx backbones pull {plain}{option}")


def _open_copy(backbone: Backbone, precision: str) -> Backbone:
    """Open the copy of a float32 backbone in another precision; it is found by name and checked by identity."""
    if backbone.precision == "float32":
        file_name = f"{backbone.path.stem}_{precision}.onnx"
        named = [path for path in _list_files() if path.name == file_name]
        for path in (backbone.path.with_name(file_name), *named):
            if path.is_file() and (copy := _read(path)).recipe.get("float32_identity") == backbone.identity:
                return copy
    raise BackboneError(
        f"precision={precision!r}: backbone {backbone.name} is {backbone.precision} and has no such copy; "
        f"make it with: featx backbones quantize {backbone.path.stem} --precision {precision} --images FOLDER"
    )


def _open(name: str | os.PathLike[str], download: bool) -> Backbone:
    if not isinstance(name, (str, os.PathLike)):
        raise BackboneError(f"backbone={name!r}: expected a name or a path, not {type(name).__name__}")
    text = os.fspath(name)
    if is_reference(text):
        try:
            return _read(download_file(text, pulled_dir(), offline=not download, inspect=_inspect))
        except BackboneError as error:
            raise error if text.partition("#")[0] in str(error) else BackboneError(f"{text}: {error}") from None
    paths = {path.stem: path for path in reversed(_list_files())}
    if text in paths:
        return _read(paths[text])
    if os.path.isfile(text):
        return _read(Path(text))
    if os.sep in text or text.endswith(".onnx"):
        raise BackboneError(f"backbone={text!r}: no such file")
    if entry := suggest_entry(text):
        raise BackboneError(
            f"backbone={text!r}: not on this machine; make it with: featx backbones make timm:{entry.name} "
            f'(in Python: featx.recipes.make_backbone("timm:{entry.name}"))'
        )
    in_zoo = {name for entry in ZOO for name in (entry.name, entry.name.partition(".")[0])}
    hint = suggest(text, [*paths, *sorted(in_zoo)])
    raise BackboneError(f"backbone={text!r}: {hint}expected a file or one of: {', '.join(sorted(paths))}")


def find_by_identity(identity: str) -> Backbone | None:
    """Return the backbone on this machine that has an identity, or None."""
    for path in [*_list_files(), *(Path(record.path) for record in _list_downloads())]:
        with suppress(BackboneError):  # skips broken files
            if (backbone := _read(path)).identity == identity:
                return backbone
    return None


def find_text_tower(backbone: Backbone) -> Backbone | None:
    """Return the text encoder that was trained with an image network, by the ``pair`` in their recipes.

    Returns None for a text encoder, and for a network without a pair. Raises BackboneError if the text tower is
    not on this machine.
    """
    pair = backbone.recipe.get("pair")
    if pair is None or isinstance(backbone.preprocess, Tokenization):
        return None
    for path in [*_list_files(), *(Path(record.path) for record in _list_downloads())]:
        with suppress(BackboneError):  # skips broken files
            other = _read(path)
            if isinstance(other.preprocess, Tokenization) and other.recipe.get("pair") == pair:
                return other
    raise BackboneError(
        f"{backbone.name}: its text tower is not on this machine; run: featx backbones pull hf:{pair.partition('#')[0]}"
    )


def pull_backbone(reference: str) -> DownloadRecord:
    """Download a backbone, or a network to wrap, from the Hugging Face hub or an https address.

    The file is inspected in a separate process before it is kept. Afterwards its reference opens it without network
    access. Raises BackboneError if it cannot be downloaded or is refused.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]/file.onnx`` or ``https://...``; either may end in ``#sha256=HEX``.
    """
    return pull(reference, pulled_dir(), _inspect)


def _inspect(path: Path) -> None:
    inspect_file(path, verdicts_dir())


def _list_files() -> list[Path]:
    try:
        own = sorted(path for path in cache_dir().glob("*.onnx") if not path.name.startswith("."))  # scratch files
    except (OSError, InputError):  # the user cannot read the folder, or has no home folder
        own = []
    return [*sorted(models_dir().glob("*.onnx")), *own]


def _list_downloads() -> list[DownloadRecord]:
    with suppress(InputError):  # a user without a home folder has none
        return list_downloads(pulled_dir())
    return []


def _read(path: Path) -> Backbone:
    try:
        state = path.stat()
    except OSError as error:
        raise BackboneError(f"{path}: cannot be read ({error.strerror})") from None
    return _read_version(path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))


@lru_cache(maxsize=64)
def _read_version(path: Path, version: tuple[int, ...]) -> Backbone:
    if path.parent != models_dir():
        _inspect(path)
    return read_backbone(path)
