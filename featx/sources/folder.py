"""Folder trees, globs and single files of this machine."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from functools import partial

from featx.errors import SourceError
from featx.sources.base import Contents, Entry, Source, key_of
from featx.sources.filesystem import Store
from featx.sources.listing import SPLITS, is_image, refuse_unlistable

__all__ = ["Files"]

_SIGNS = "*?["


class Files(Source):
    """Images below a folder, or those that a pattern matches, or one.

    Keys are relative to the folder, or to the part of a pattern before its first sign. The first
    folder of a key is its label; below ``train`` and ``test`` side by side, it is the second.
    """

    in_order = False

    def __init__(self, given: str) -> None:
        super().__init__(given)
        path = os.path.abspath(given)
        self.pattern: str | None = None
        self._alone = False  # a file that was named
        if os.path.isdir(path):
            self.root = path
        elif os.path.lexists(path):
            self.root, self.pattern, self._alone = os.path.dirname(path), glob.escape(os.path.basename(path)), True
        elif any(sign in given for sign in _SIGNS):
            parts = path.split(os.sep)
            first = next(i for i, part in enumerate(parts) if any(sign in part for sign in _SIGNS))
            self.root, self.pattern = os.sep.join(parts[:first]) or os.sep, os.sep.join(parts[first:])
        else:
            raise SourceError(f"{given}: no such file or folder")
        if not os.path.isdir(self.root):
            raise SourceError(f"{given}: no such folder {self.root}")
        self._root_was = Store().identify(self.root)

    def entries(self) -> Iterator[Entry]:
        """List files that are images by their names; a file that was named is taken as it is."""
        self._others = 0
        depth = 0 if self._alone else self._label_depth()
        any_found = False
        for path, state in self._walk(self.root) if self.pattern is None else self._match(self.pattern):
            place = os.path.relpath(path, self.root) if self.root == os.sep else path[len(self.root) + 1 :]
            key = key_of(os.fsencode(place))
            parts = key.split("/")
            any_found = True
            yield Entry(key, os.fsencode(place), parts[depth] if len(parts) > depth + 1 else None, state)
        if not any_found:
            what = "no images in this folder" if self.pattern is None else "no image matches"
            raise SourceError(f"{self.given}: {what} ({self._others} other files)")
        if self._others:
            self.notes = [f"passed over {self._others} other files, no images by their names"]

    def contents(self) -> Contents:
        """Open paths below the folder."""
        store = Store()

        def fetch(key: str, place: bytes) -> partial[bytes]:
            return partial(store.read, os.path.join(self.root, os.fsdecode(place)))

        return fetch

    def check(self) -> None:
        """Say when the folder is gone, or another one is in its place, as under an unplugged disk."""
        if Store().identify(self.root) != self._root_was:
            raise SourceError(f"{self.given}: {self.root} is gone; when it is back, the next run goes on")

    def _label_depth(self) -> int:
        try:
            names = [entry.name.lower() for entry in os.scandir(self.root) if _is_folder(entry)]
        except OSError:
            return 0
        return 1 if sum(name in SPLITS for name in names) > 1 else 0

    def _match(self, pattern: str) -> Iterator[tuple[str, str]]:
        if not self._alone:
            refuse_unlistable(pattern, self.root)
        for name in glob.iglob(pattern, root_dir=self.root, recursive=True):
            path = os.path.join(self.root, name.rstrip(os.sep))
            if os.path.isdir(path):
                if not pattern.endswith("**"):
                    yield from self._walk(path)
            elif is_image(os.path.basename(path)) or glob.escape(name) == pattern:
                yield path, Store().state(path)
            else:
                self._others += 1

    def _walk(self, top: str) -> Iterator[tuple[str, str]]:
        """Walk down in order of names, holding folders only; links are followed once and never upward."""
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
                            yield entry.path, _state(entry)
                        else:
                            self._others += 1
            except OSError as error:
                raise SourceError(f"{folder}: cannot be listed ({error.strerror})") from None
            for path in sorted(inside, reverse=True):
                real = os.path.realpath(path)
                if real not in seen:
                    seen.add(real)
                    stack.append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: no folder, and as an image it fails
        return False


def _state(entry: os.DirEntry[str]) -> str:
    try:
        found = entry.stat()
    except OSError:  # a link to nothing: the image fails, and says why
        return ""
    return f"{found.st_size} {found.st_mtime_ns}"
