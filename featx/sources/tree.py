"""List images that are named by paths: in folders, in archives and at addresses."""

from __future__ import annotations

import pickle
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import closing
from itertools import islice

from featx.errors import SourceError
from featx.sources.base import Entry, Source
from featx.sources.labels import FolderLabels, LabelFiles

__all__ = ["Tree"]

#: Until all labels are known, entries wait in blocks of this number, and on disk beyond this number of bytes.
_BLOCK, _MAX_BYTES_HELD = 250, 2**18


class Tree(Source):
    """Images with paths as keys; files beside them or their folders label them, as `featx.sources.labels` says."""

    has_classes = True

    @property
    def target_column(self) -> str | None:
        """None: ``target`` is the number of a level of folders."""
        return None

    def _list(self, with_state: bool) -> Iterator[Entry]:
        level = None if self.target is None else int(self.target)
        folders = self._folders()
        rule, n = FolderLabels(folders, level), 0
        with tempfile.SpooledTemporaryFile(_MAX_BYTES_HELD) as file, closing(LabelFiles()) as files:
            members = ((entry, files.archive) for entry in self._members(with_state, files))
            while block := list(islice(members, _BLOCK)):
                for entry, _ in block:
                    rule.add(entry.key, self.patterns is None or self.patterns.matches(entry.key))
                n += len(block)
                pickle.dump([(*entry, archive) for entry, archive in block], file, pickle.HIGHEST_PROTOCOL)
            if not n:
                self._refuse_empty()
            has_files = bool(files) and level is None
            self.label_depth = None if has_files else rule.depth
            self.split_depth = rule.split_depth
            self.question = None if has_files else rule.describe_levels()
            n_unlabelled = 0
            file.seek(0)
            for _ in range(0, n, _BLOCK):
                for key, place, _, state, archive in pickle.load(file):
                    label = files.label(key, archive) if has_files else rule.label(key)
                    n_unlabelled += label is None
                    yield Entry(key, place, label, state)
            if has_files and n_unlabelled:
                images = "1 image has" if n_unlabelled == 1 else f"{n_unlabelled} images have"
                self.notes.append(f"{images} no label: no .cls or .json file with a label is beside them")
            if files.n_lists:
                self.notes.append(
                    f".json files with several labels per image: {files.n_lists}; several labels are not supported"
                )

    @abstractmethod
    def _members(self, with_state: bool, files: LabelFiles) -> Iterator[Entry]:
        """List the images without labels, and add the files beside them that may label them to ``files``."""

    def _folders(self) -> Iterable[str] | None:
        """List the names of the folders directly below the root; None for an archive."""
        return None

    def _refuse_empty(self) -> None:
        """Raise SourceError because there are no images."""
        raise SourceError(f"{self.given}: no images in this archive {self._describe_rest()}")
