"""List folder trees, globs and single files, of this machine or at an fsspec address."""

from __future__ import annotations

import glob
import os
import posixpath
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

from featx.errors import SourceError, first_line
from featx.sources.base import Contents, Entry, Source, is_image, key_of
from featx.sources.filesystem import RemoteStore, Store, has_glob, is_dataset, state_of
from featx.sources.http import hide_secrets, without_query
from featx.sources.labels import FolderLabels

__all__ = ["Files", "RemoteFiles", "refuse_unlistable"]

_MAX_FETCHES = 16  # at the same time


class _Tree(Source):
    """Images below a folder, images that a glob matches, or one image.

    Keys are relative to the folder, or to the part of the glob before its first sign.
    `featx.sources.labels.FolderLabels` labels them.
    """

    in_order = False
    pattern: str | None = None
    root: str

    def _list(self, with_state: bool) -> Iterator[Entry]:
        folders = list(self._folders())
        labels = FolderLabels(folders)
        self.label_depth, self.has_splits = labels.depth, labels.has_splits
        first_parts = set()  # of the keys
        for name, place, state in self._files(with_state):
            key = key_of(name)
            first_parts.add(key.partition("/")[0] if "/" in key else "")
            yield Entry(key, place, labels.label(key), state)
        if not first_parts:
            if is_dataset(self.root):
                raise SourceError(f"{self.given}: a dataset of embeddings; open it with featx.dataset.open")
            reason = "no images in this folder" if self.pattern is None else "no image matches"
            raise SourceError(f"{self.given}: {reason} ({self._passed_over.total()} other files)")
        empty = sorted({key_of(os.fsencode(name)) for name in folders} - first_parts)
        if empty and self.pattern is None:
            self.notes.append(f"sub-folders without images, not taken as classes: {', '.join(empty)}")

    @abstractmethod
    def _folders(self) -> Iterable[str]:
        """List the names of the folders directly below the root."""

    @abstractmethod
    def _files(self, with_state: bool) -> Iterator[tuple[bytes, bytes, str]]:
        """List the images: path from the root, place and state."""


class Files(_Tree):
    """Images of this machine."""

    def __init__(self, given: str) -> None:
        super().__init__(given)
        path = os.path.abspath(given)
        self._is_file = False  # a file that was named is an image, whatever its suffix
        self._shown_root = given  # the root as the user spelled it
        if os.path.isdir(path):
            self.root = path
        elif os.path.lexists(path):
            self.root, self.pattern, self._is_file = os.path.dirname(path), glob.escape(os.path.basename(path)), True
        elif has_glob(given):
            root, self.pattern = _split_at_glob(path, os.sep)
            shown_root, _ = _split_at_glob(given.replace("/", os.sep), os.sep)
            self.root = root or os.sep
            self._shown_root = shown_root or (os.sep if os.path.isabs(given) else "")
        else:
            raise SourceError(f"{given}: no such file or folder")
        if not os.path.isdir(self.root):
            raise SourceError(f"{given}: no such folder {self.root}")
        self._root_identity = Store().identify(self.root)

    def contents(self) -> Contents:
        """Open paths below the folder."""
        store = Store()

        def fetch(key: str, place: bytes) -> partial[bytes]:
            return partial(store.read, os.path.join(self.root, os.fsdecode(place)))

        return fetch

    def check(self) -> None:
        """Raise SourceError if the folder is gone or another folder is in its place, as after unmounting a disk."""
        if Store().identify(self.root) != self._root_identity:
            raise SourceError(f"{self.given}: {self.root} is gone; when it is back, the next run continues")

    def item(self, entry: Entry) -> Any:
        """Return the path, spelled as the user spelled the folder."""
        return self.name(entry)

    def name(self, entry: Entry) -> str:
        """Return the path, spelled as the user spelled the folder."""
        return self.given if self._is_file else os.path.join(self._shown_root, os.fsdecode(entry.place))

    def _folders(self) -> Iterable[str]:
        if self._is_file:
            return []
        try:
            with os.scandir(self.root) as entries:
                return [entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith(".")]
        except OSError:  # _walk says why
            return []

    def _files(self, with_state: bool) -> Iterator[tuple[bytes, bytes, str]]:
        skip = len(self.root) + (self.root != os.sep)
        for path, state in self._match(with_state) if self.pattern else self._walk(self.root, with_state):
            place = os.fsencode(path[skip:])
            yield place, place, state

    def _match(self, with_state: bool) -> Iterator[tuple[str, str]]:
        pattern = self.pattern or ""
        if not self._is_file:
            refuse_unlistable(pattern, self.root)
        for name in glob.iglob(pattern, root_dir=self.root, recursive=True):
            path = os.path.join(self.root, name.rstrip(os.sep))
            if os.path.isdir(path):
                if not pattern.endswith("**"):
                    yield from self._walk(path, with_state)
            elif is_image(os.path.basename(path)) or glob.escape(name) == pattern:
                yield path, Store().state(path) if with_state else ""
            else:
                self._pass_over(os.path.basename(path))

    def _walk(self, top: str, with_state: bool) -> Iterator[tuple[str, str]]:
        """Walk down in order of names and hold folders only; follow each link once and never upward."""
        here = os.path.realpath(top)
        seen = {here}
        while os.path.dirname(here) != here:
            here = os.path.dirname(here)
            seen.add(here)
        stack = [top]
        while stack:
            folder = stack.pop()
            inside = []
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        if _is_folder(entry):
                            inside.append(entry.path)
                        elif is_image(entry.name):
                            yield entry.path, Store().state(entry.path) if with_state else ""
                        else:
                            self._pass_over(entry.name)
            except OSError as error:
                raise SourceError(f"{folder}: cannot be listed ({error.strerror})") from None
            for path in sorted(inside, reverse=True):
                real = os.path.realpath(path)
                if real not in seen:
                    seen.add(real)
                    stack.append(path)


class RemoteFiles(_Tree):
    """Images at an address that fsspec opens."""

    def __init__(self, given: str) -> None:
        super().__init__(hide_secrets(given))
        self.store = RemoteStore(given)
        self.root = self.store.path.rstrip("/")
        self._shown_root = self.given.rstrip("/")
        if has_glob(without_query(self.root)):
            self.pattern = self.root
            self.root, self._shown_root = (_split_at_glob(path, "/")[0] for path in (self.root, self._shown_root))
        if self.store.identify(self.root) is None and self._is_empty():
            raise SourceError(f"{self.given}: nothing is there, or it cannot be reached")

    def contents(self) -> Contents:
        """Begin to fetch an image as soon as it is asked for; the engine asks some images ahead."""
        pool = ThreadPoolExecutor(_MAX_FETCHES, thread_name_prefix="featx-fetch")

        def fetch(key: str, place: bytes) -> Callable[[], bytes]:
            under_way: Future[bytes] = pool.submit(self.store.read, place.decode())
            return under_way.result

        return fetch

    def random_access(self) -> Contents:
        """Fetch each image in the thread that decodes it."""
        return lambda key, place: partial(self.store.read, place.decode())

    def check(self) -> None:
        """Raise SourceError if the address can no longer be reached."""
        if self.store.identify(self.root) is None and self._is_empty():
            raise SourceError(f"{self.given}: cannot be reached; when it can, the next run continues")

    def name(self, entry: Entry) -> str:
        """Return the address of an image."""
        below = entry.place.decode()[len(self.root) :].lstrip("/")
        return f"{self._shown_root}/{below}" if below else self.given

    def _is_empty(self) -> bool:
        """Look below the root: the prefix of a bucket does not exist by itself, and may still hold images."""
        try:
            return not self.store.fs.ls(self.root)
        except Exception:  # each file system raises its own
            return True

    def _files(self, with_state: bool) -> Iterator[tuple[bytes, bytes, str]]:
        for path, info in self._infos():
            name = path[len(self.root) :].lstrip("/")
            if not name:  # the address is that of one image
                name = posixpath.basename(without_query(path))
            elif any(part.startswith(".") for part in name.split("/")):
                continue
            elif not is_image(posixpath.basename(name.partition("?")[0])):
                self._pass_over(posixpath.basename(name))
                continue
            yield name.encode("utf-8", "surrogateescape"), path.encode(), state_of(info)

    def _infos(self) -> Iterator[tuple[str, dict[str, Any]]]:
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
            raise SourceError(f"{self.given}: cannot be listed ({hide_secrets(first_line(error))})") from None

    def _folders(self) -> Iterable[str]:
        try:
            infos = self.store.fs.ls(self.root, detail=True)
            names = [posixpath.basename(str(info["name"]).rstrip("/")) for info in infos if not _is_file(info)]
        except Exception:  # a single file
            return []
        return [name for name in names if not name.startswith(".")]


def refuse_unlistable(pattern: str, root: str | None = None) -> None:
    """Raise SourceError if a folder on a glob's way cannot be listed; `glob` would skip it silently."""
    folder = pattern if pattern.endswith("**") else os.path.dirname(pattern)
    while True:
        for name in glob.iglob(os.path.join(folder or os.curdir, ""), root_dir=root, recursive=True):  # folders alone
            path = os.path.join(root or "", name.rstrip(os.sep) or os.sep)
            try:
                os.scandir(path).close()
            except OSError as error:
                raise SourceError(f"{path}: cannot be listed ({error.strerror})") from None
        if not has_glob(folder):
            return
        folder = os.path.dirname(folder)


def _split_at_glob(path: str, separator: str) -> tuple[str, str]:
    """Split a path into the folder before the first sign of a glob, and the rest."""
    parts = path.split(separator)
    first = next(i for i, part in enumerate(parts) if has_glob(part))
    return separator.join(parts[:first]), separator.join(parts[first:])


def _is_file(info: dict[str, Any]) -> bool:
    return info.get("type") != "directory"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is not a folder, and fails as an image
        return False
