"""Bring a file from the Hugging Face hub or a plain https address, once, and prove it unchanged ever after.

What was fetched is written down beside it: the revision that the hub named and the
file's sha256. From then on the file is read from this machine alone, its sha256
checked, and no network touched, until somebody asks for it again.
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

__all__ = ["DownloadRecord", "fetch", "file_digest", "is_reference", "list_fetched", "pull"]

_HUB = re.compile(r"(?!.*\.\.)hf:(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?/(?P<file>[^@]+)")
_LARGEST = 2**31 - 1
_HOPS = 5
_SECONDS = 30.0


@dataclass(frozen=True)
class DownloadRecord:
    """A file that was brought here.

    Parameters
    ----------
    reference : str
        As it was asked for, without the digest.
    path : str
        Where it lies.
    revision : str or None
        The commit that the hub named.
    sha256 : str
        Of the file, in hex.
    """

    reference: str
    path: str
    revision: str | None
    sha256: str


def is_reference(text: str) -> bool:
    """Tell a hub's name or an address from the name or path of a file."""
    return text.startswith(("hf:", "https://", "http://"))


Look = Callable[[Path], object]


def _see_nothing(path: Path) -> None:
    pass


def fetch(reference: str, folder: Path, *, download: bool = True, look: Look = _see_nothing) -> Path:
    """Give the local path of a reference, unchanged since it was fetched; fetch it if it never was.

    Parameters
    ----------
    reference : str
        ``hf:owner/name[@revision]/path/file`` or ``https://...``, either with
        ``#sha256=HEX`` behind it.
    folder : pathlib.Path
        Where fetched files are remembered.
    download : bool, default=True
        False only looks on this machine.
    look : callable
        As for `pull`.

    Raises
    ------
    BackboneError
        When it is not to be had, or not what it was.
    """
    plain, expected = _split(reference)
    found = _recall(plain, folder)
    if found is None:
        if not download:
            raise BackboneError(f"{plain}: not on this machine; run: featx backbones pull {reference}")
        return Path(pull(reference, folder, look).path)
    if expected not in (None, found.sha256):
        raise BackboneError(f"{plain}: the file here has sha256 {found.sha256}, not {expected}")
    _check_unchanged(found)
    return Path(found.path)


def pull(reference: str, folder: Path, look: Look = _see_nothing) -> DownloadRecord:
    """Fetch a file anew, whether it is here or not; a failure leaves what was there, and nothing else.

    Parameters
    ----------
    reference, folder
        As for `fetch`.
    look : callable
        Given the path of what came, before it is kept; raises to refuse it.

    Raises
    ------
    BackboneError
        Names the reference and says why not.
    """
    plain, expected = _split(reference)
    if _is_offline():
        raise BackboneError(f"{plain}: not fetched, this process is offline (FEATX_OFFLINE or HF_HUB_OFFLINE)")
    hub = import_optional("huggingface_hub", "hub")
    with _explained(plain):
        folder.mkdir(parents=True, exist_ok=True)
        if plain.startswith("hf:"):
            found = _pull_from_hub(hub, plain, expected, look)
        else:
            found = _pull_address(hub, plain, expected, folder / f"{_key(plain)}.onnx", look)
        with write_whole(_record(plain, folder)) as scratch:
            scratch.write_text(json.dumps(asdict(found), indent=1))
    return found


def list_fetched(folder: Path) -> list[DownloadRecord]:
    """List what was fetched, by reference."""
    texts = [_read(path) for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]
    return sorted((found for found in texts if found), key=lambda found: found.reference)


def file_digest(path: str | os.PathLike[str]) -> str:
    """Compute a file's sha256, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _split(reference: str) -> tuple[str, str | None]:
    plain, _, fragment = reference.partition("#")
    if not fragment:
        return plain, None
    match = re.fullmatch(r"sha256=([0-9a-fA-F]{64})", fragment)
    if not match:
        raise BackboneError(f"{reference}: expected #sha256= and 64 hex digits at the end")
    return plain, match[1].lower()


def _key(plain: str) -> str:
    return hashlib.sha256(plain.encode()).hexdigest()[:32]


def _record(plain: str, folder: Path) -> Path:
    return folder / f"{_key(plain)}.json"


def _recall(plain: str, folder: Path) -> DownloadRecord | None:
    found = _read(_record(plain, folder))
    return found if found and found.reference == plain and os.path.isfile(found.path) else None


def _read(path: Path) -> DownloadRecord | None:
    try:
        found = DownloadRecord(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # never fetched, or the note is damaged: then it is fetched again
        return None
    return found if all(isinstance(text, str) for text in (found.reference, found.path, found.sha256)) else None


def _check_unchanged(found: DownloadRecord) -> None:
    try:
        state = os.stat(found.path)
        digest = _digest_version(found.path, (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino))
    except OSError as error:
        raise BackboneError(f"{found.reference}: {found.path} cannot be read ({error.strerror})") from None
    if digest != found.sha256:
        raise BackboneError(
            f"{found.reference}: {found.path} changed since it was fetched (sha256 {digest}, "
            f"was {found.sha256}); to fetch it again: featx backbones pull {found.reference}"
        )


@lru_cache(maxsize=64)
def _digest_version(path: str, version: tuple[int, ...]) -> str:
    return file_digest(path)


def _is_offline() -> bool:
    return any(os.environ.get(name, "").lower() in ("1", "on", "true", "yes") for name in _OFFLINE)


_OFFLINE = ("FEATX_OFFLINE", "HF_HUB_OFFLINE")


def _pull_from_hub(hub: Any, plain: str, expected: str | None, look: Look) -> DownloadRecord:
    match = _HUB.fullmatch(plain)
    if not match:
        raise BackboneError(f"{plain}: expected hf:owner/name/file.onnx or hf:owner/name@revision/file.onnx")
    repository = Path(hub.constants.HF_HUB_CACHE, f"models--{match['repo'].replace('/', '--')}")
    before = {path for path in repository.rglob("*") if not path.is_dir()}
    try:
        address = hub.hf_hub_url(match["repo"], match["file"], revision=match["revision"])
        about = hub.get_hf_file_metadata(address, library_name="featx")
        get = partial(
            hub.hf_hub_download, match["repo"], match["file"], revision=about.commit_hash, library_name="featx"
        )
        path = Path(get())
        # the hub names large files by their sha256; its client takes a body of the right length for the right one
        named = about.etag if re.fullmatch(r"[0-9a-f]{64}", about.etag or "") else None
        if (named or path in before) and file_digest(path) != named:  # what the cache had may be damaged
            if not path.is_symlink():
                path.unlink()  # where there are no links, the client does not replace it
            path = Path(get(force_download=True))
        digest = file_digest(path)
        for wanted in (expected, named):
            if wanted not in (None, digest):
                raise BackboneError(f"{plain}: what came has sha256 {digest}, expected {wanted}; nothing was kept")
        _look_at(plain, path, look)
    except BaseException:
        for path in {path for path in repository.rglob("*") if not path.is_dir()} - before:
            path.unlink(missing_ok=True)
        for folder in [*sorted(repository.rglob("*"), reverse=True), repository]:
            with suppress(OSError):
                folder.rmdir()  # only an empty one goes
        raise
    snapshots = path.parts.index("snapshots")
    return DownloadRecord(plain, str(path), path.parts[snapshots + 1], digest)


def _pull_address(hub: Any, plain: str, expected: str | None, target: Path, look: Look) -> DownloadRecord:
    client = hub.get_session()
    address, digest, size = plain, hashlib.sha256(), 0
    for _ in range(_HOPS + 1):
        _refuse_open(plain, address)
        with client.stream("GET", address, follow_redirects=False, timeout=_SECONDS) as response:
            if response.has_redirect_location:
                address = urljoin(address, response.headers["Location"])
                continue
            response.raise_for_status()
            with write_whole(target) as scratch:
                with scratch.open("wb") as file:
                    for chunk in response.iter_bytes():
                        size += len(chunk)
                        if size > _LARGEST:
                            raise BackboneError(f"{plain}: more than {_LARGEST:,} bytes; nothing was kept")
                        digest.update(chunk)
                        file.write(chunk)
                if not size:
                    raise BackboneError(f"{plain}: what came is empty; nothing was kept")
                if expected not in (None, digest.hexdigest()):
                    raise BackboneError(
                        f"{plain}: what came has sha256 {digest.hexdigest()}, expected {expected}; nothing was kept"
                    )
                _look_at(plain, scratch, look)
            return DownloadRecord(plain, str(target), None, digest.hexdigest())
    raise BackboneError(f"{plain}: redirects more than {_HOPS} times")


def _look_at(plain: str, path: Path, look: Look) -> None:
    try:
        look(path)
    except BackboneError as error:
        raise BackboneError(f"{plain}: {str(error).removeprefix(f'{path}: ')}; nothing was kept") from None


def _refuse_open(plain: str, address: str) -> None:
    """Anybody on the way can change what comes over http, unless there is no way."""
    parts = urlsplit(address)
    within = all(urlsplit(one).hostname in ("127.0.0.1", "::1", "localhost") for one in (plain, address))
    if parts.scheme != "https" and not (parts.scheme == "http" and within):
        led = "" if address == plain else f" (redirected to {address})"
        raise BackboneError(f"{plain}: expected an https address{led}")


@contextmanager
def _explained(plain: str) -> Iterator[None]:
    try:
        yield
    except (FeatxError, KeyboardInterrupt):
        raise
    except Exception as error:  # huggingface_hub's, its HTTP client's and the system's own
        lines = [
            line.strip() for line in str(error).splitlines() if line.strip() and "For more information" not in line
        ]
        why = " ".join(lines[:2])[:300] or type(error).__name__
        raise BackboneError(f"{plain}: cannot be fetched ({why})") from error
