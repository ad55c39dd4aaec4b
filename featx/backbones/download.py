"""Download a file from the Hugging Face hub or an https address once, and check on every use that it is unchanged.

A record beside the file holds the revision that the hub named and the file's sha256. After that the file is
read from this machine, its sha256 is checked on every use, and no network is used until the file is pulled again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from featx._files import write_whole
from featx._optional import import_optional
from featx.errors import BackboneError, FeatxError

__all__ = [
    "DownloadRecord",
    "download",
    "explain_errors",
    "file_digest",
    "find_record",
    "is_reference",
    "is_repository",
    "keep_record",
    "list_downloads",
    "open_hub",
    "pull",
    "repository_path",
]

_HUB_REFERENCE = re.compile(r"(?!.*\.\.)hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[^@]+)")
_REPOSITORY = re.compile(r"(?!.*\.\.)hf:[\w.-]+/[\w.-]+(@[\w.-]+)?(#(text|(int8|float16)(-text)?))?")
_MAX_BYTES = 2**31 - 1
_MAX_REDIRECTS = 5
_TIMEOUT_SECONDS = 30.0
_OFFLINE_VARIABLES = ("FEATX_OFFLINE", "HF_HUB_OFFLINE")

#: Called with the path of a downloaded file before it is kept; raises BackboneError to refuse it.
Inspection = Callable[[Path], object]


@dataclass(frozen=True)
class DownloadRecord:
    """A downloaded file.

    Parameters
    ----------
    reference : str
        The hub name or address, without a digest.
    path : str
        The file on this machine.
    revision : str or None
        The commit that the hub named.
    sha256 : str
        Digest of the file, in hex.
    """

    reference: str
    path: str
    revision: str | None
    sha256: str


def is_reference(text: str) -> bool:
    """Return True for a hub name or an address, False for the name or path of a file."""
    return text.startswith(("hf:", "https://", "http://"))


def is_repository(text: str) -> bool:
    """Return True for the name of a repository instead of a file in it; `split_repository` lists its parts."""
    return _REPOSITORY.fullmatch(text) is not None


def split_repository(reference: str) -> tuple[str, str, bool]:
    """Split ``hf:owner/name[@revision][#precision][-text]`` into plain name, precision and True for a text tower.

    The text tower in float32 is ``#text``.
    """
    plain, _, fragment = reference.partition("#")
    precision = fragment.removesuffix("text").removesuffix("-")
    return plain, precision, fragment.endswith("text")


def join_repository(plain: str, precision: str, is_text: bool = False) -> str:
    """Return the name of a repository with a precision, where ``float32`` is left out, or of its text tower."""
    parts = [part for part in (precision, "text" if is_text else "") if part not in ("", "float32")]
    return f"{plain}#{'-'.join(parts)}" if parts else plain


def repository_path(reference: str, folder: Path) -> Path:
    """Return the path of the backbone that is made of a repository."""
    return folder / f"{re.sub(r'[^a-zA-Z0-9._-]+', '--', reference.removeprefix('hf:'))}.onnx"


def find_record(reference: str, folder: Path) -> DownloadRecord | None:
    """Return the record of a reference whose file is here and unchanged, or None if the file is not here."""
    record = _find_record(reference, folder)
    if record is not None:
        _check_unchanged(record)
    return record


def keep_record(record: DownloadRecord, folder: Path) -> None:
    """Write the record of a reference, which then opens the file."""
    with write_whole(_record_path(record.reference, folder)) as scratch:
        scratch.write_text(json.dumps(asdict(record), indent=1))


def open_hub(reference: str) -> Any:
    """Import the client of the hub; raise BackboneError in a process that must stay offline."""
    if any(os.environ.get(name, "").lower() in ("1", "on", "true", "yes") for name in _OFFLINE_VARIABLES):
        raise BackboneError(f"{reference}: not downloaded, this process is offline (FEATX_OFFLINE or HF_HUB_OFFLINE)")
    return import_optional("huggingface_hub", "hub")


def download(reference: str, folder: Path, *, offline: bool = False, inspect: Inspection | None = None) -> Path:
    """Return the local path of a reference; download the file if it is not here, unless ``offline``.

    ``folder`` holds the records of downloads. Raises BackboneError if the file changed since it was downloaded.
    """
    plain, expected = _split_digest(reference)
    record = _find_record(plain, folder)
    if record is None:
        if offline:
            raise BackboneError(f"{plain}: not on this machine; run: featx backbones pull {reference}")
        return Path(pull(reference, folder, inspect).path)
    if expected not in (None, record.sha256):
        raise BackboneError(f"{plain}: the file here has sha256 {record.sha256}, not {expected}")
    _check_unchanged(record)
    return Path(record.path)


def pull(reference: str, folder: Path, inspect: Inspection | None = None) -> DownloadRecord:
    """Download a file, even if it is here already; a failure keeps the earlier file and leaves nothing else."""
    plain, expected = _split_digest(reference)
    hub = open_hub(plain)
    with explain_errors(plain):
        folder.mkdir(parents=True, exist_ok=True)
        if plain.startswith("hf:"):
            record = _pull_from_hub(hub, plain, expected, inspect)
        else:
            record = _pull_from_address(hub, plain, expected, folder / f"{_key(plain)}.onnx", inspect)
        keep_record(record, folder)
    return record


def list_downloads(folder: Path) -> list[DownloadRecord]:
    """List the records of downloads, by reference."""
    records = [_read_record(path) for path in folder.glob("*.json") if not path.name.startswith(".")]
    return sorted((record for record in records if record), key=lambda record: record.reference)


def file_digest(path: str | os.PathLike[str]) -> str:
    """Compute a file's sha256, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split_digest(reference: str) -> tuple[str, str | None]:
    """Split ``#sha256=HEX`` off a reference."""
    plain, _, fragment = reference.partition("#")
    if not fragment:
        return plain, None
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not match:
        raise BackboneError(f"{reference}: expected #sha256= and 64 hex digits at the end")
    return plain, match[1].lower()


def _key(plain: str) -> str:
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def _record_path(plain: str, folder: Path) -> Path:
    return folder / f"{_key(plain)}.json"


def _find_record(plain: str, folder: Path) -> DownloadRecord | None:
    record = _read_record(_record_path(plain, folder))
    return record if record and record.reference == plain and os.path.isfile(record.path) else None


def _read_record(path: Path) -> DownloadRecord | None:
    """Read a record; return None if it is missing or damaged, so that the file is downloaded again."""
    try:
        record = DownloadRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return record if all(isinstance(text, str) for text in (record.reference, record.path, record.sha256)) else None


def _check_unchanged(record: DownloadRecord) -> None:
    try:
        state = os.stat(record.path)
        digest = _digest_version(record.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
    except OSError as error:
        raise BackboneError(f"{record.reference}: {record.path} cannot be read ({error.strerror})") from None
    if digest != record.sha256:
        raise BackboneError(
            f"{record.reference}: {record.path} changed since it was downloaded (sha256 {digest}, "
            f"was {record.sha256}); to download it again: featx backbones pull {record.reference}"
        )


@lru_cache(maxsize=64)
def _digest_version(path: str, version: tuple[int, ...]) -> str:
    return file_digest(path)


def _pull_from_hub(hub: Any, plain: str, expected: str | None, inspect: Inspection | None) -> DownloadRecord:
    match = _HUB_REFERENCE.fullmatch(plain)
    if not match:
        raise BackboneError(f"{plain}: expected hf:owner/name/file.onnx or hf:owner/name@revision/file.onnx")
    repository = Path(hub.constants.HF_HUB_CACHE, f"models--{match['repo'].replace('/', '--')}")
    before = {path for path in repository.rglob("*") if not path.is_dir()}
    try:
        address = hub.hf_hub_url(match["repo"], match["file"], revision=match["revision"])
        metadata = hub.get_hf_file_metadata(address, library_name="featx")
        fetch = partial(
            hub.hf_hub_download, match["repo"], match["file"], revision=metadata.commit_hash, library_name="featx"
        )
        path = Path(fetch())
        # the hub names large files by their sha256; its client checks only the length of a body
        named = metadata.etag if re.fullmatch(r"[0-9a-f]{64}", metadata.etag or "") else None
        if (named or path in before) and file_digest(path) != named:  # the hub's cache may hold a damaged file
            if not path.is_symlink():
                path.unlink()  # on systems without links, the client does not replace it
            path = Path(fetch(force_download=True))
        digest = file_digest(path)
        for wanted in (expected, named):
            _check_digest(plain, digest, wanted)
        _inspect(plain, path, inspect)
    except BaseException:
        for path in {path for path in repository.rglob("*") if not path.is_dir()} - before:
            path.unlink(missing_ok=True)
        for folder in [*sorted(repository.rglob("*"), reverse=True), repository]:
            with suppress(OSError):
                folder.rmdir()  # removes empty folders only
        raise
    snapshots = path.parts.index("snapshots")
    return DownloadRecord(plain, str(path), path.parts[snapshots + 1], digest)


def _pull_from_address(
    hub: Any, plain: str, expected: str | None, target: Path, inspect: Inspection | None
) -> DownloadRecord:
    client = hub.get_session()
    address, digest, size = plain, hashlib.sha256(), 0
    for _ in range(_MAX_REDIRECTS + 1):
        _refuse_unencrypted(plain, address)
        with client.stream("GET", address, follow_redirects=False, timeout=_TIMEOUT_SECONDS) as response:
            if response.has_redirect_location:
                address = urljoin(address, response.headers["Location"])
                continue
            response.raise_for_status()
            with write_whole(target) as scratch:
                with scratch.open("wb") as file:
                    for chunk in response.iter_bytes():
                        size += len(chunk)
                        if size > _MAX_BYTES:
                            raise BackboneError(f"{plain}: more than {_MAX_BYTES:,} bytes; nothing was kept")
                        digest.update(chunk)
                        file.write(chunk)
                if not size:
                    raise BackboneError(f"{plain}: the download is empty; nothing was kept")
                _check_digest(plain, digest.hexdigest(), expected)
                _inspect(plain, scratch, inspect)
            return DownloadRecord(plain, str(target), None, digest.hexdigest())
    raise BackboneError(f"{plain}: redirects more than {_MAX_REDIRECTS} times")


def _check_digest(plain: str, digest: str, expected: str | None) -> None:
    if expected not in (None, digest):
        raise BackboneError(f"{plain}: the download has sha256 {digest}, expected {expected}; nothing was kept")


def _inspect(plain: str, path: Path, inspect: Inspection | None) -> None:
    """Call ``inspect``; if it refuses the file, name the reference instead of the scratch file."""
    try:
        if inspect:
            inspect(path)
    except BackboneError as error:
        raise BackboneError(f"{plain}: {str(error).removeprefix(f'{path}: ')}; nothing was kept") from None


def _refuse_unencrypted(plain: str, address: str) -> None:
    """Raise BackboneError for plain http, which anyone on the way can change, except on this machine."""
    parts = urlsplit(address)
    is_local = all(urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost") for url in (plain, address))
    if parts.scheme != "https" and not (parts.scheme == "http" and is_local):
        redirect = "" if address == plain else f" (redirected to {address})"
        raise BackboneError(f"{plain}: expected an https address{redirect}")


@contextmanager
def explain_errors(plain: str) -> Iterator[None]:
    """Convert errors of huggingface_hub, of its HTTP client and of the system to a BackboneError of one line."""
    try:
        yield
    except (FeatxError, KeyboardInterrupt):
        raise
    except Exception as error:
        lines = [
            line.strip() for line in str(error).splitlines() if line.strip() and "For more information" not in line
        ]
        why = " ".join(lines[:2])[:300] or type(error).__name__
        raise BackboneError(
            f"{plain}: cannot be downloaded ({why}); check the name and the network, then run it again"
        ) from error
