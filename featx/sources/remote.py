"""Folders, globs and single files anywhere that fsspec opens, fetched a few at a time."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from featx.errors import SourceError, first_line
from featx.sources.base import Contents, Entry, Source, key_of
from featx.sources.filesystem import RemoteStore, state_of
from featx.sources.listing import SPLITS, is_image

__all__ = ["RemoteFiles"]

_SIGNS = "*?["
_AT_ONCE = 16  # images that are fetched side by side


class RemoteFiles(Source):
    """Images below an address, or those that a pattern matches, or one; as `Files` on this machine."""

    in_order = False

    def __init__(self, given: str) -> None:
        super().__init__(given)
        self.store = RemoteStore(given)
        path = self.store.path.rstrip("/")
        self.pattern: str | None = None
        if any(sign in path for sign in _SIGNS):
            parts = path.split("/")
            first = next(i for i, part in enumerate(parts) if any(sign in part for sign in _SIGNS))
            self.root, self.pattern = "/".join(parts[:first]), path
        else:
            self.root = path
        if self.store.identify(self.root) is None and self._nothing_below():
            raise SourceError(f"{given}: nothing is there, or it cannot be reached")

    def entries(self) -> Iterator[Entry]:
        """List what are images by their names, one folder at a time."""
        others, found, depth = 0, False, self._label_depth()
        for path, info in self._listing():
            name = path[len(self.root) :].lstrip("/")
            if not name:  # the address is that of one image
                name = posixpath.basename(path)
            elif any(part.startswith(".") for part in name.split("/")):
                continue
            elif not is_image(posixpath.basename(name.partition("?")[0])):
                others += 1
                continue
            found = True
            parts = name.split("/")
            label = parts[depth] if len(parts) > depth + 1 else None
            yield Entry(key_of(name.encode("utf-8", "surrogateescape")), path.encode(), label, state_of(info))
        if not found:
            raise SourceError(f"{self.given}: no images there ({others} other files)")
        self.notes = [f"passed over {others} other files, no images by their names"] if others else []

    def contents(self) -> Contents:
        """Begin to fetch an image when its turn is near: the engine takes rows ahead."""
        pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="featx-fetch")

        def fetch(key: str, place: bytes) -> Callable[[], bytes]:
            under_way: Future[bytes] = pool.submit(self.store.read, place.decode())
            return under_way.result

        return fetch

    def check(self) -> None:
        """Say when the address can no longer be reached."""
        if self.store.identify(self.root) is None and self._nothing_below():
            raise SourceError(f"{self.given}: cannot be reached; when it can, the next run goes on")

    def _nothing_below(self) -> bool:
        """Look below: a bucket's prefix is no thing of its own, and may hold something all the same."""
        try:
            return not self.store.fs.ls(self.root)
        except Exception:  # each file system has its own
            return True

    def _listing(self) -> Iterator[tuple[str, dict[str, Any]]]:
        fs = self.store.fs
        try:
            if self.pattern is not None:
                yield from ((path, info) for path, info in fs.glob(self.pattern, detail=True).items() if _is_file(info))
            elif not fs.isdir(self.root):
                yield self.root, fs.info(self.root)
            else:
                for _, _, files in fs.walk(self.root, detail=True, on_error="raise"):
                    yield from ((str(info["name"]), info) for info in files.values())
        except Exception as error:
            raise SourceError(f"{self.given}: cannot be listed ({first_line(error)})") from None

    def _label_depth(self) -> int:
        try:
            names = [
                posixpath.basename(str(info["name"]).rstrip("/")).lower()
                for info in self.store.fs.ls(self.root, detail=True)
                if not _is_file(info)
            ]
        except Exception:  # then it is a single file
            return 0
        return 1 if sum(name in SPLITS for name in names) > 1 else 0


def _is_file(info: dict[str, Any]) -> bool:
    return info.get("type") != "directory"
