"""Define what all sources share: listing entries and reading their bytes."""

from __future__ import annotations

import os
import threading
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from featx.errors import SourceError
from featx.images.decode import Deferred, UnreadableError
from featx.sources.filesystem import open_store
from featx.sources.http import hide_secrets, is_http
from featx.sources.names import describe_formats, describe_passed_over, is_left_behind
from featx.sources.patterns import Patterns

__all__ = [
    "MISSING_WORDS",
    "Contents",
    "Entry",
    "Fetch",
    "FileSource",
    "Listing",
    "Source",
    "SourceImage",
    "fail",
]

#: Fetches the bytes of an image. May be called in any thread, and may raise UnreadableError.
Fetch = Callable[[], bytes]

#: Turns an entry's key and place into a function that fetches its bytes.
Contents = Callable[[str, bytes], Fetch]

#: Words that programs write for a missing value, and that may be classes as well: all that pandas reads so, and two.
MISSING_WORDS = frozenset(
    {"NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "#NA", "#N/A N/A", "-NaN", "-nan"}
    | {"1.#IND", "1.#QNAN", "-1.#IND", "-1.#QNAN", "NAN", "NaT"}
)
_MAX_COPIES = 256  # sources that a process remembers from one task to the next


class Entry(NamedTuple):
    """One image of a source.

    Parameters
    ----------
    key : str
        Name of the image within the source, the same in every run.
    place : bytes
        Where the image is, in the source's own terms.
    label : str or None
        Label, if the source has one.
    state : str
        Changes when the image changes: its size and time, or a checksum. Empty if unknown.
    """

    key: str
    place: bytes
    label: str | None = None
    state: str = ""


@dataclass(frozen=True)
class Listing:
    """Images in an order, with their names and targets.

    Parameters
    ----------
    items : list
        The images as `FeatureExtractor` takes them. A local file is a path that can be opened from the
        working directory. Images in archives, in cells of a table and at addresses are fetched when needed.
    names : list of str
        Name of each image, for messages and tables: its path, its address, or ``ARCHIVE/KEY``.
    targets : list or None
        Label or target value of each image. None if the source has none.
    path_column, target_column : str or None
        Columns of the table that hold the images and the targets.
    notes : tuple of str
        Remarks for the user: files passed over, columns chosen.
    columns : dict of str to list, or None
        For a table, every column but the column of the images, complete and in order.
    has_classes : bool
        True if the targets are names of classes, whatever they look like: names of folders, or of a ``ClassLabel``.
    question : str or None
        Question to the user if two levels of folders may be the targets, which are missing then.
    separator : str or None
        Sign between the labels of each image, if the targets come from a column of lists; `split_labels` reads them.
    target_names : tuple of str or None
        Columns of several targets per image, which are tuples then.
    """

    items: list[Any]
    names: list[str]
    targets: list[Any] | None = None
    path_column: str | None = None
    target_column: str | None = None
    notes: tuple[str, ...] = ()
    columns: dict[str, list[Any]] | None = None
    has_classes: bool = False
    question: str | None = None
    separator: str | None = None
    target_names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def take(self, indices: Sequence[int]) -> Listing:
        """Return the listing of some of the images."""

        def pick(values: list[Any]) -> list[Any]:
            return [values[i] for i in indices]

        return replace(
            self,
            items=pick(self.items),
            names=pick(self.names),
            targets=None if self.targets is None else pick(self.targets),
            columns=None if self.columns is None else {name: pick(values) for name, values in self.columns.items()},
        )


class Source(ABC):
    """Images from one place.

    A source is small and can be pickled. A worker process receives the source and the places of its images, and
    fetches the bytes itself.

    Attributes
    ----------
    given : str
        The source as the user wrote it, without passwords and the values of an address's query.
    in_order : bool
        True if the entries have an order of their own. Otherwise they are sorted by place, and an
        image that was found twice is listed once.
    notes : list of str
        Remarks for the user: files passed over, columns chosen. Complete once `entries` is exhausted.
    patterns : Patterns or None
        Select entries by their keys.
    label_depth : int or None
        Position in a key of the folder that labels the image, once `entries` is exhausted. None if the
        labels do not come from folders.
    split_depth : int or None
        Position in a key of the folder that is a part of a data set, such as train and test, once `entries` is
        exhausted.
    has_classes : bool
        True if the labels are names of classes, whatever they look like.
    label_separator : str or None
        Sign between several labels of an image, if they come from a column of lists.
    question : str or None
        Question to the user, once `entries` is exhausted, if two levels of folders may be the labels.
    path_column : str or None
        The column of a table that holds the images.
    target : str or None
        The column of a table that holds the labels, or the number of the level of folders that the user chose.
    """

    in_order = True
    path_column: str | None = None
    target: str | None = None
    patterns: Patterns | None = None
    label_depth: int | None = None
    split_depth: int | None = None
    has_classes = False
    label_separator: str | None = None
    question: str | None = None

    def __init__(self, given: str) -> None:
        self.given = given
        self.notes: list[str] = []
        self._first_notes: list[str] = []
        self._passed_over: Counter[str] = Counter()
        self._left_behind: set[str] = set()  # folders and files
        self._n_left_behind: Counter[str] = Counter()
        self._token = uuid.uuid4().hex  # the same in every copy
        self._reader: tuple[int, Contents] | None = None  # of the process with this number

    def entries(self, *, with_state: bool = True) -> Iterator[Entry]:
        """List the images that ``include`` and ``exclude`` select; opens no image and keeps no list.

        Parameters
        ----------
        with_state : bool, default=True
            False leaves `Entry.state` empty where a state would cost a system call per image.
        """
        self.notes = [*self._first_notes]
        self._passed_over.clear()
        self._left_behind.clear()
        self._n_left_behind.clear()
        n_left_out = 0
        missing_words: Counter[str] = Counter()
        for entry in self._list(with_state):
            if self.patterns is None or self.patterns.select(entry.key):
                if entry.label in MISSING_WORDS:
                    missing_words[entry.label] += 1
                yield entry
            else:
                n_left_out += 1
        if self.patterns:
            self.patterns.finish(self.given, self._token)
        if n_left_out:
            self.notes.append(f"include and exclude leave out {n_left_out} {'image' if n_left_out == 1 else 'images'}")
        if self._passed_over:
            self.notes.append(describe_passed_over(self._passed_over))
        if self._n_left_behind:
            self.notes.append(self._describe_left_behind())
        self._left_behind.clear()
        if missing_words and not self.has_classes:
            words = ", ".join(f"{word!r} in {n} {'row' if n == 1 else 'rows'}" for word, n in missing_words.items())
            self.notes.append(
                f"column {self.target!r}: {words} is taken as a class; if it means missing, empty the cells"
            )

    @property
    def target_column(self) -> str | None:
        """The column of a table that holds the labels."""
        return self.target

    @abstractmethod
    def _list(self, with_state: bool) -> Iterator[Entry]:
        """List every image of the source."""

    @abstractmethod
    def contents(self) -> Contents:
        """Open the source for one thread that asks for entries in their order."""

    def random_access(self) -> Contents:
        """Open the source for entries in any order, from any thread."""
        return self.contents()

    @abstractmethod
    def check(self) -> None:
        """Raise SourceError if the source as a whole is gone, which is no error of a single image."""

    def state(self) -> str:
        """Return a text that changes when the listed places lose their meaning; empty if they never do."""
        return ""

    def whole_state(self) -> str:
        """Return a text that changes when the source as a whole is replaced; empty if that is unknown."""
        return self.state()

    def item(self, entry: Entry) -> Any:
        """Return the image as a `FeatureExtractor` takes it: a path, or an image that is fetched when needed."""
        return SourceImage(self, entry.key, entry.place)

    def name(self, entry: Entry) -> str:
        """Return the name of an image for messages and tables."""
        return f"{self.given}/{entry.key}"

    def fetch(self, key: str, place: bytes) -> bytes:
        """Fetch the bytes of an image, in any order and from any thread."""
        with _lock:
            if self._reader is None or self._reader[0] != os.getpid():  # a forked child opens its own files
                self.check()
                self._reader = os.getpid(), self.random_access()
            contents = self._reader[1]
        return contents(key, place)()

    def __reduce__(self) -> tuple[Any, ...]:
        state = {**vars(self), "patterns": None, "_reader": None}
        return _restore, (type(self), state)

    def _describe_rest(self) -> str:
        """Return the number of files that are not images, with the formats that are not read, for an error."""
        hint = "".join(
            f"; {text}" for text in (describe_formats(self._passed_over), self._describe_left_behind()) if text
        )
        return f"({self._passed_over.total()} other files{hint})"

    def _describe_left_behind(self) -> str:
        names = ", ".join(f"{name} {n}" for name, n in self._n_left_behind.most_common())
        return (
            f"names that file managers, NAS boxes and notebooks leave behind are passed over: {names}" if names else ""
        )

    def _pass_over(self, name: str) -> None:
        """Count a file that is not an image by its name; a hidden file is not counted."""
        if not name.startswith("."):
            self._passed_over[os.path.splitext(name)[1].lower()] += 1

    def _skips(self, path: str) -> bool:
        """Return True for hidden files, and for files in hidden folders; count names that programs leave behind."""
        parts = path.split("/")
        for i, part in enumerate(parts):
            if is_left_behind(part):
                self._leave_behind("/".join(parts[: i + 1]))
                return True
            if part.startswith(".") and part not in (".", ".."):
                return True
        return False

    def _leave_behind(self, path: str) -> None:
        """Count a file or a folder that a program left behind, a folder once."""
        name = path.rpartition("/")[2]
        if name.startswith("._"):  # beside each file
            self._n_left_behind["._*"] += 1
        elif path not in self._left_behind:
            self._left_behind.add(path)
            self._n_left_behind[name] += 1


class FileSource(Source):
    """Images that one file names or holds."""

    def __init__(self, given: str) -> None:
        super().__init__(hide_secrets(given))
        self.store, self.path = open_store(given)
        self._identity = self.store.identify(self.path)
        if self._identity is None:
            raise SourceError(f"{self.given}: no such file{', or it cannot be reached' if is_http(given) else ''}")
        self._state = self.store.state(self.path)

    def check(self) -> None:
        """Raise SourceError if the file is gone or was replaced, so that places in it have no meaning."""
        if self.store.identify(self.path) != self._identity or self.store.state(self.path) != self._state:
            raise SourceError(f"{self.given}: is gone or was replaced while it was read; the next run continues")

    def state(self) -> str:
        """Return size and time of the file."""
        return self._state


class SourceImage(Deferred):
    """An image of a source, fetched when it is decoded; small and picklable.

    Examples
    --------
    >>> import zipfile
    >>> from featx.images.decode import decode
    >>> from featx.samples import load_fashion_mnist
    >>> from featx.sources import list_images
    >>> with zipfile.ZipFile("clothes.zip", "w") as archive:
    ...     archive.writestr("bag/1.png", load_fashion_mnist("test")[0][0])
    >>> (image,) = list_images("clothes.zip").items
    >>> str(image), decode(image).size
    ('clothes.zip/bag/1.png', (28, 28))
    """

    __slots__ = ("_key", "_place", "_source")

    def __init__(self, source: Source, key: str, place: bytes) -> None:
        self._source, self._key, self._place = source, key, place

    def fetch(self) -> bytes:
        """Return the encoded bytes, or raise UnreadableError."""
        return self._source.fetch(self._key, self._place)

    def __str__(self) -> str:
        return self._source.name(Entry(self._key, self._place))


def fail(reason: str) -> bytes:
    """Raise UnreadableError; stands for the bytes of an image that cannot be read."""
    raise UnreadableError(reason)


#: Sources that other processes sent, by token: images of one source arrive in many tasks and share the files that it
#: opened.
_copies: dict[str, Source] = {}
_lock = threading.Lock()


def _restore(kind: type[Source], state: dict[str, Any]) -> Source:
    """Return the copy that this process has of a source, or make it."""
    with _lock:
        source = _copies.get(state["_token"])
        if source is None:
            source = _copies[state["_token"]] = object.__new__(kind)
            vars(source).update(state)
            if len(_copies) > _MAX_COPIES:
                del _copies[next(iter(_copies))]
        return source


def _unlock() -> None:
    """Make a new lock in a forked child, whose copy of the lock may be locked."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_unlock)
