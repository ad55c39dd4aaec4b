"""Read repositories of the Hugging Face hub: their files, licence and ONNX networks, at one commit."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import onnx

from featx.backbones.download import explain_errors, file_digest, is_repository, open_hub
from featx.errors import BackboneError

__all__ = ["VARIANTS", "HubFile", "Repository", "choose_file", "fetch_network", "fetch_repository", "list_parts"]

#: Licences that allow any use. Weights under another licence are fetched only after the user accepts it by name.
FREE_LICENSES = frozenset(
    ["apache-2.0", "mit", "bsd", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "isc", "unlicense", "zlib"]
)
#: Endings of file names by precision, in order of preference.
VARIANTS = {"float32": ("",), "float16": ("_fp16",), "int8": ("_int8", "_quantized", "_uint8")}
_MAX_BYTES = 2**31 - 1
_MAX_JSON_BYTES = 2**22


@dataclass(frozen=True)
class HubFile:
    """A file of a repository.

    Parameters
    ----------
    name : str
        Path inside the repository.
    size : int or None
        Number of bytes, if the hub states it.
    sha256 : str or None
        Digest, if the hub states it, as for large files.
    """

    name: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Repository:
    """A repository of the hub at one commit.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]``.
    name : str
        ``owner/name``.
    revision : str
        The commit.
    files : dict
        Maps the path of each file to its `HubFile`.
    license : str
        Identifier on the model card, or on the card of the model that it was converted from; otherwise ``unknown``.
    license_link : str or None
        Address of the licence, if the card has one.
    license_source : str
        Repository whose card names the licence.
    downloads : int or None
        Number of downloads in the last month.
    languages : tuple of str
        Languages on the model card.
    """

    reference: str
    name: str
    revision: str
    files: Mapping[str, HubFile] = field(repr=False)
    license: str = "unknown"
    license_link: str | None = None
    license_source: str = ""
    downloads: int | None = None
    languages: tuple[str, ...] = ()

    @property
    def is_free(self) -> bool:
        """True if the licence allows any use."""
        return self.license.lower() in FREE_LICENSES

    def fetch(self, name: str, folder: Path) -> Path:
        """Download a file of this commit into a folder and check its length and sha256; see `HubFile`."""
        if name not in self.files:
            raise BackboneError(f"{self.reference}: has no file {name}")
        hub, listed = open_hub(self.reference), self.files[name]
        with explain_errors(f"{self.reference}/{name}"):
            path = Path(
                hub.hf_hub_download(
                    self.name, name, revision=self.revision, local_dir=os.fspath(folder), library_name="featx"
                )
            )
        size = path.stat().st_size
        if listed.size not in (None, size):
            raise BackboneError(
                f"{self.reference}: {name} has {size:,} bytes, the hub lists {listed.size:,}; pull it again"
            )
        if listed.sha256 and (digest := file_digest(path)) != listed.sha256:
            raise BackboneError(
                f"{self.reference}: {name} has sha256 {digest}, the hub lists {listed.sha256}; pull it again"
            )
        return path

    def read_json(self, name: str, folder: Path) -> dict[str, Any]:
        """Download and parse a small JSON file; return {} without the file. Raises BackboneError if it is damaged."""
        if name not in self.files:
            return {}
        path = self.fetch(name, folder)
        try:
            if path.stat().st_size > _MAX_JSON_BYTES:
                raise ValueError(f"more than {_MAX_JSON_BYTES:,} bytes")
            values = json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise BackboneError(f"{self.reference}: {name} cannot be read ({error})") from None
        if not isinstance(values, dict):
            raise BackboneError(f"{self.reference}: {name} holds {type(values).__name__}, expected an object")
        return values


def fetch_repository(reference: str) -> Repository:
    """Ask the hub for a repository's commit, files and licence.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]``.

    Raises
    ------
    BackboneError
        The hub cannot be reached, has no such repository, or this process is offline.

    Examples
    --------
    >>> from featx.recipes.hub_repository import fetch_repository
    >>> fetch_repository("hf:onnx-community/dinov2-small").license  # doctest: +SKIP
    'apache-2.0'
    """
    if not is_repository(reference) or "#" in reference:
        raise BackboneError(f"{reference}: expected hf:owner/name or hf:owner/name@revision")
    hub = open_hub(reference)
    name, _, revision = reference.removeprefix("hf:").partition("@")
    with explain_errors(reference):
        api = hub.HfApi(library_name="featx")
        info = api.model_info(name, revision=revision or None, files_metadata=True)
        license_, link, source = _read_license(info, name)
        base = (info.card_data or {}).get("base_model") if license_ == "unknown" else None
        base = base[0] if isinstance(base, list) and len(base) == 1 else base
        if isinstance(base, str):
            license_, link, source = _read_license(api.model_info(base), base)
    languages = (info.card_data or {}).get("language") or ()
    languages = (languages,) if isinstance(languages, str) else tuple(map(str, languages))
    return Repository(
        reference, name, str(info.sha), _list_files(info), license_, link, source, info.downloads, languages
    )


def _read_license(info: Any, name: str) -> tuple[str, str | None, str]:
    card = info.card_data or {}
    license_ = card.get("license")
    if isinstance(license_, list):
        license_ = license_[0] if len(license_) == 1 else None
    if license_ == "other":  # the card has a name for it
        license_ = card.get("license_name") or "other"
    return str(license_ or "unknown"), card.get("license_link"), name


def _list_files(info: Any) -> dict[str, HubFile]:
    files = {}
    for sibling in info.siblings or ():
        digest = getattr(sibling.lfs, "sha256", None) if sibling.lfs else None
        files[sibling.rfilename] = HubFile(sibling.rfilename, sibling.size, digest)
    return files


def choose_file(repository: Repository, precision: str, stems: Sequence[str]) -> str:
    """Return the path of the ONNX file in a precision."""
    names = [name for name in repository.files if name.endswith(".onnx")]
    for ending in VARIANTS[precision]:
        for stem in stems:
            for folder in ("onnx/", ""):
                if (name := f"{folder}{stem}{ending}.onnx") in names:
                    return name
    example, listed = f"onnx/{stems[-1]}{VARIANTS[precision][0]}.onnx", ", ".join(names[:8]) or "none"
    raise BackboneError(
        f"{repository.reference}: has no ONNX file in {precision}, such as {example}; its ONNX files: {listed}"
    )


def list_parts(repository: Repository, name: str) -> list[str]:
    """List an ONNX file and its external data; raise BackboneError if they are too large for one file."""
    here = str(PurePosixPath(name).parent)
    parts = [
        other
        for other in repository.files
        if str(PurePosixPath(other).parent) == here and PurePosixPath(other).name.startswith(PurePosixPath(name).name)
    ]
    total = sum(repository.files[other].size or 0 for other in parts)
    if total > _MAX_BYTES:
        raise BackboneError(f"{name}: {total:,} bytes with its external data, expected at most {_MAX_BYTES:,}")
    return parts


def fetch_network(repository: Repository, name: str, folder: Path) -> tuple[Path, dict[str, str]]:
    """Download an ONNX file and merge its external data; return the path and the sha256 of each file."""
    paths = {other: repository.fetch(other, folder) for other in list_parts(repository, name)}
    digests = {other: file_digest(path) for other, path in paths.items()}
    path = paths[name]
    if len(paths) > 1:
        _merge(path, {file.name for file in paths.values()})
    return path, digests


def _merge(path: Path, allowed: set[str]) -> None:
    """Merge external data into an ONNX file in place; only files of ``allowed`` are read."""
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf raises errors of its own
        raise BackboneError(f"{path}: cannot be read as an ONNX model ({error})") from None
    for tensor in onnx.external_data_helper._get_all_tensors(model):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            places = [entry.value for entry in tensor.external_data if entry.key == "location"]
            if len(places) != 1 or places[0] not in allowed:
                raise BackboneError(f"{path}: keeps weights in {places}, expected one of {', '.join(sorted(allowed))}")
    try:
        onnx.load_external_data_for_model(model, os.fspath(path.parent))
        for tensor in onnx.external_data_helper._get_all_tensors(model):
            tensor.data_location = onnx.TensorProto.DEFAULT
            del tensor.external_data[:]
        path.write_bytes(model.SerializeToString())
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise BackboneError(f"{path}: its external data cannot be merged ({error})") from None
