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
from urllib.parse import unquote

from featx.errors import SourceError, first_line
from featx.images.decode import UnreadableError
from featx.sources.base import Contents, Entry
from featx.sources.filesystem import RemoteStore, Store, has_glob, is_dataset, state_of
from featx.sources.http import hide_secrets, without_query
from featx.sources.labels import LabelFiles
from featx.sources.names import is_image, is_left_behind, key_of
from featx.sources.tree import Tree

__all__ = ["Files", "RemoteFiles", "refuse_unlistable"]

_MAX_FETCHES = 16  # at the same time


class _Folder(Tree):
    """Images below a folder, images that a glob matches, or one image.

    Keys are relative to the folder, or to the part of the glob before its first sign.
    """

    in_order = False
    pattern: str | None = None
    root: str

    def _list(self, with_state: bool) -> Iterator[Entry]:
        self._first_folders = list(self._list_folders())
        first_parts = set()  # of the keys
        for entry in super()._list(with_state):
            first_parts.add(entry.key.partition("/")[0])
            yield entry
        empty = sorted({key_of(os.fsencode(name)) for name in self._first_folders} - first_parts)
        self._first_folders = []
        if empty and self.pattern is None:
            self.notes.append(f"sub-folders without images, not taken as classes: {', '.join(empty)}")

    def _refuse_empty(self) -> None:
        if is_dataset(self.root):
            raise SourceError(f"{self.given}: a dataset of embeddings; open it with featx.dataset.open")
        reason = "no images in this folder" if self.pattern is None else "no image matches"
        raise SourceError(f"{self.given}: {reason} {self._describe_rest()}")

    def _folders(self) -> Iterable[str]:
        return self._first_folders

    @abstractmethod
    def _list_folders(self) -> Iterable[str]:
        """List the names of the folders directly below the root, without folders that are passed over."""


class Files(_Folder):
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

    def _list_folders(self) -> Iterable[str]:
        if self._is_file:
            return []
        try:
            with os.scandir(self.root) as entries:
                return [entry.name for entry in entries if _is_folder(entry) and not _is_passed_over(entry.name)]
        except OSError:  # `_walk` raises the error with its reason
            return []

    def _members(self, with_state: bool, files: LabelFiles) -> Iterator[Entry]:
        skip = len(self.root) + (self.root != os.sep)
        store = Store()
        for path in self._match() if self.pattern else self._walk(self.root):
            place = os.fsencode(path[skip:])
            key, name = key_of(place), os.path.basename(path)
            if is_image(name) or self._is_file or glob.escape(path[skip:]) == self.pattern:
                yield Entry(key, place, None, store.state(path) if with_state else "")
            elif not (files.takes(key) and self._add_label(files, key, path)):
                self._pass_over(name)

    def _add_label(self, files: LabelFiles, key: str, path: str) -> bool:
        try:
            if os.path.getsize(path) > files.max_bytes or not os.path.isfile(path):
                return False
            with open(path, "rb") as file:
                return files.add(key, file.read())
        except OSError as error:
            raise SourceError(f"{path}: cannot be read ({error.strerror}), and it may label an image") from None

    def _match(self) -> Iterator[str]:
        pattern = self.pattern or ""
        if not self._is_file:
            refuse_unlistable(pattern, self.root)
        for name in glob.iglob(pattern, root_dir=self.root, recursive=True):
            path = os.path.join(self.root, name.rstrip(os.sep))
            if not self._is_file and self._was_left_behind(name.rstrip(os.sep)):
                continue
            if os.path.isdir(path):
                if not pattern.endswith("**"):
                    yield from self._walk(path)
            else:
                yield path

    def _was_left_behind(self, name: str) -> bool:
        """Count a file or a folder that a program left behind, unless the glob names it."""
        parts = name.split(os.sep)
        for i, part in enumerate(parts):
            if is_left_behind(part) and part not in (self.pattern or "").split(os.sep):
                self._leave_behind("/".join(parts[: i + 1]))
                return True
        return False

    def _walk(self, top: str) -> Iterator[str]:
        """Walk down in order of names, and hold only folders in memory; follow each link once and never upward."""
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
                        if is_left_behind(entry.name):
                            self._leave_behind(entry.path.replace(os.sep, "/"))
                        elif entry.name.startswith("."):
                            continue
                        elif _is_folder(entry):
                            inside.append(entry.path)
                        else:
                            yield entry.path
            except OSError as error:
                raise SourceError(f"{folder}: cannot be listed ({error.strerror})") from None
            for path in sorted(inside, reverse=True):
                real = os.path.realpath(path)
                if real not in seen:
                    seen.add(real)
                    stack.append(path)


class RemoteFiles(_Folder):
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
        """Begin to fetch an image as soon as the engine asks for it, which it does some images ahead."""
        pool = ThreadPoolExecutor(_MAX_FETCHES, thread_name_prefix="featx-fetch")

        def fetch(key: str, place: bytes) -> Callable[[], bytes]:
            future: Future[bytes] = pool.submit(self.store.read, place.decode())
            return future.result

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

    def _members(self, with_state: bool, files: LabelFiles) -> Iterator[Entry]:
        beside: list[tuple[str, str]] = []  # keys and addresses of files that may label images
        for path, info in self._infos():
            name = path[len(self.root) :].lstrip("/")
            is_named = not name  # the address names an image itself
            name = self._unquote(posixpath.basename(without_query(path)) if is_named else name)
            base = posixpath.basename(name)
            if not is_named and self._skips(name):
                continue
            if is_named or is_image(base.partition("?")[0]):
                key = key_of(name.encode("utf-8", "surrogateescape"))
                yield Entry(key, path.encode(), None, state_of(info))
            elif files.takes(name) and (info.get("size") or 0) <= files.max_bytes:
                beside.append((name, path))
            else:
                self._pass_over(base)
        with ThreadPoolExecutor(_MAX_FETCHES, thread_name_prefix="featx-fetch") as pool:
            for start in range(0, len(beside), _MAX_FETCHES):
                block = beside[start : start + _MAX_FETCHES]
                contents = pool.map(self._read_label, [path for _, path in block])
                for (name, _), content in zip(block, contents, strict=True):
                    if not files.add(name, content):
                        self._pass_over(posixpath.basename(name))

    def _read_label(self, path: str) -> bytes:
        try:
            return self.store.read(path)
        except UnreadableError as error:
            raise SourceError(f"{path}: {error}, and it may label an image") from None

    def _unquote(self, name: str) -> str:
        """Return a name as it is on the server's disk; addresses of web servers are percent-encoded."""
        return unquote(name) if "http" in str(self.store.fs.protocol) else name

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

    def _list_folders(self) -> Iterable[str]:
        try:
            infos = self.store.fs.ls(self.root, detail=True)
            names = [posixpath.basename(str(info["name"]).rstrip("/")) for info in infos if not _is_file(info)]
        except Exception:  # a single file
            return []
        return [name for name in map(self._unquote, names) if not _is_passed_over(name)]


def refuse_unlistable(pattern: str, root: str | None = None) -> None:
    """Raise SourceError if a folder on a glob's way cannot be listed; `glob` would skip it silently."""
    folder = pattern if pattern.endswith("**") else os.path.dirname(pattern)
    while True:
        for name in glob.iglob(os.path.join(folder or os.curdir, ""), root_dir=root, recursive=True):  # only folders
            path = os.path.join(root or "", name.rstrip(os.sep) or os.sep)
            try:
                os.scandir(path).close()
            except OSError as error:
                raise SourceError(f"{path}: cannot be listed ({error.strerror})") from None
        if not has_glob(folder):
            return
        folder = os.path.dirname(folder)


def _split_at_glob(path: str, separator: str) -> tuple[str, str]:
    """Split a path into the folder before the first sign of a glob, and the pattern."""
    parts = path.split(separator)
    first = next(i for i, part in enumerate(parts) if has_glob(part))
    return separator.join(parts[:first]), separator.join(parts[first:])


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or is_left_behind(name)


def _is_file(info: dict[str, Any]) -> bool:
    return info.get("type") != "directory"


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself is not a folder, and fails as an image
        return False
