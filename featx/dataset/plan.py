"""Plan which image goes into which shard; list the sources of a run.

The plan is an SQLite file, so ten million keys need no memory and a killed run leaves it whole.
It only grows: each generation of shards is a range of consecutive positions, fixed before its
first image is read. The content of a shard therefore depends on the source alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from featx._files import scratch_folder
from featx.errors import DatasetError
from featx.sources.base import Contents, Entry, Fetch, Source

__all__ = ["Generation", "OpenSources", "Plan", "Row", "read_generation"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (
    position INTEGER PRIMARY KEY, source INTEGER NOT NULL, key TEXT NOT NULL,
    place BLOB NOT NULL, label TEXT, state TEXT
);
CREATE TABLE IF NOT EXISTS generations (number INTEGER PRIMARY KEY, about TEXT NOT NULL, states TEXT NOT NULL);
"""
_LISTING = """
DROP TABLE IF EXISTS listing;
CREATE TABLE listing (
    ordinal INTEGER PRIMARY KEY, source INTEGER NOT NULL, key TEXT NOT NULL,
    place BLOB NOT NULL, label TEXT, state TEXT NOT NULL
);
DROP TABLE IF EXISTS requested;
CREATE TABLE requested (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_ADD = "INSERT INTO generations (about, states) VALUES (?, ?)"
#: The last row of a key in the plan.
_LAST = "(SELECT {column} FROM plan WHERE plan.key = listing.key ORDER BY position DESC LIMIT 1)"
#: A state of NULL equals every state: a plan that was restored from shards has no states.
_CHANGED = f"""
    NOT EXISTS (SELECT 1 FROM plan WHERE plan.key = listing.key)
    OR (:by_state AND {_LAST.format(column="state")} <> state)
    OR key IN (SELECT key FROM requested)
"""


class Row(NamedTuple):
    """One image of the plan."""

    source: int  # its index
    key: str
    place: bytes  # in the source's own terms
    label: str | None


class Generation(NamedTuple):
    """Images that were planned together and are stored in shards of one size.

    Parameters
    ----------
    first : int
        Position of its first image in the plan.
    n_images : int
        Number of images in all its shards.
    first_shard, shard_size : int
        Number of its first shard, and of images in each shard but the last.
    n_replaced : int
        Number of its images that replace an image of an earlier generation.
    sources : list of str
        Sources as the user wrote them.
    versions : dict
        Versions of the packages that compute the features.
    path_column, target : str or None
        Columns of a table with the paths and the labels; ``target`` may be the level of the folders that are labels.
    has_classes : bool
        True if the labels are names of classes, whatever they look like.
    """

    first: int
    n_images: int
    first_shard: int
    shard_size: int
    n_replaced: int
    sources: list[str]
    versions: dict[str, str]
    path_column: str | None = None
    target: str | None = None
    has_classes: bool = False

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        return -(-self.n_images // self.shard_size)

    @property
    def shards(self) -> range:
        """Numbers of the shards."""
        return range(self.first_shard, self.first_shard + self.n_shards)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """Return the first position and the number of images of a shard."""
        offset = (shard - self.first_shard) * self.shard_size
        return self.first + offset, min(self.shard_size, self.n_images - offset)


def read_generation(about: Mapping[str, Any]) -> Generation:
    """Read a generation from JSON; until 2026-11-27 its `n_images` was called `n_pictures`."""
    return Generation(**{"n_images" if name == "n_pictures" else name: value for name, value in about.items()})


class OpenSources:
    """Fetch images of several sources, opening each source once, when its first image is needed."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._contents: dict[int, Contents] = {}

    def fetch(self, row: Row) -> Fetch:
        """Return the function that fetches the bytes of an image."""
        if row.source not in self._contents:
            self._contents[row.source] = self._sources[row.source].contents()
        return self._contents[row.source](row.key, row.place)


class Plan:
    """Hold the plan of all runs, and the listing of the current run, in an SQLite file that is created if needed.

    Examples
    --------
    >>> from featx.dataset.plan import Plan
    >>> with Plan.temporary() as plan:
    ...     plan.generations()
    []
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._naming_file():
            # joblib takes tasks, and thereby rows, in its own threads, one at a time
            self._database = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA cache_size = -64000")  # 64 MB
            self._database.executescript(_SCHEMA)

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    @classmethod
    @contextmanager
    def temporary(cls) -> Iterator[Plan]:
        """Open a plan in a temporary folder, for a listing."""
        with scratch_folder() as folder, cls(folder / "plan.sqlite") as plan:
            yield plan

    def generations(self) -> list[Generation]:
        """Return all generations."""
        rows = self._all("SELECT about FROM generations ORDER BY number")
        return [read_generation(json.loads(text)) for (text,) in rows]

    def states(self, generation: int) -> list[str]:
        """Return the states of a generation's sources at the time of planning."""
        ((states,),) = self._all("SELECT states FROM generations WHERE number = ?", (generation + 1,))
        return list(json.loads(states))

    def rows(self, first: int, n: int) -> Iterator[Row]:
        """Read n rows of the plan, from position ``first`` on."""
        query = "SELECT source, key, place, label FROM plan WHERE position > ? AND position <= ? ORDER BY position"
        return map(Row._make, self._execute(query, (first, first + n)))

    def list_sources(self, sources: Sequence[Source]) -> int:
        """List sources, in their order and each key once; return the number of images."""
        self._execute_script(_LISTING)
        with self._transaction():
            for number, source in enumerate(sources):
                self._insert(number, source, f"{source.given}/" if len(sources) > 1 else "")
        self._number_repeated_keys()
        ((n,),) = self._all("SELECT count(*) FROM listing")
        return int(n)

    def _insert(self, number: int, source: Source, prefix: str) -> None:
        insert = "INSERT INTO listing (source, key, place, label, state) VALUES (?, ?, ?, ?, ?)"
        rows: Iterable[Entry] = source.entries()
        if source.in_order:
            self._many(insert, ((number, prefix + row.key, *row[1:]) for row in rows))
            return
        # sorted by bytes; a file that several patterns match is listed once
        self._execute("CREATE TEMP TABLE unsorted (place BLOB, key TEXT, label TEXT, state TEXT)")
        values = ((row.place, prefix + row.key, row.label, row.state) for row in rows)
        self._many("INSERT INTO unsorted VALUES (?, ?, ?, ?)", values)
        columns = "source, key, place, label, state"
        query = f"SELECT {number}, min(key), place, min(label), min(state) FROM unsorted GROUP BY place ORDER BY place"
        self._execute(f"INSERT INTO listing ({columns}) {query}")
        self._execute("DROP TABLE unsorted")

    def _number_repeated_keys(self) -> None:
        """Rename the second row of a key to ``KEY#2``, the third to ``KEY#3``: each row is an image of its own."""
        repeated = self._all("SELECT key FROM listing GROUP BY key HAVING count(*) > 1 ORDER BY min(ordinal)")
        if not repeated:
            return
        self._execute("CREATE INDEX listing_by_key ON listing (key)")
        with self._transaction():
            for (key,) in repeated:
                rows = self._all("SELECT ordinal FROM listing WHERE key = ? ORDER BY ordinal", (key,))
                n = 1
                for (ordinal,) in rows[1:]:
                    n += 1
                    while self._all("SELECT 1 FROM listing WHERE key = ?", (f"{key}#{n}",)):
                        n += 1
                    self._execute("UPDATE listing SET key = ? WHERE ordinal = ?", (f"{key}#{n}", ordinal))

    def request(self, keys: Iterable[str]) -> None:
        """Request that listed images are planned again, even if their state is the same."""
        with self._transaction():
            self._many("INSERT OR IGNORE INTO requested VALUES (?)", ((key,) for key in keys))

    def find_listed(self, key: str) -> Row | None:
        """Return the image of a key in the listing; None if there is no such key."""
        self._execute("CREATE INDEX IF NOT EXISTS listing_by_key ON listing (key)")
        rows = self._all("SELECT source, key, place, label FROM listing WHERE key = ?", (key,))
        return Row(*rows[0]) if rows else None

    def find_planned(self, key: str) -> tuple[int, Row] | None:
        """Return the last position of a key in the plan, counted from 1, and its image; None if it is not planned."""
        query = "SELECT position, source, key, place, label FROM plan WHERE key = ? ORDER BY position DESC LIMIT 1"
        rows = self._all(query, (key,))
        return (rows[0][0], Row(*rows[0][1:])) if rows else None

    def listed_at(self, ordinals: Iterable[int]) -> list[Row]:
        """Return the images at places of the listing, counted from 1."""
        query = "SELECT source, key, place, label FROM listing WHERE ordinal = ?"
        return [Row(*row) for ordinal in ordinals for row in self._all(query, (int(ordinal),))]

    def count_gone(self) -> int:
        """Count images of the plan that are no longer in the listing."""
        self._execute("CREATE INDEX IF NOT EXISTS listing_by_key ON listing (key)")
        query = "SELECT count(DISTINCT key) FROM plan WHERE key NOT IN (SELECT key FROM listing)"
        ((n,),) = self._all(query)
        return int(n)

    def plan(self, shard_size: int, sources: Sequence[Source], versions: dict[str, str], *, by_state: bool) -> bool:
        """Add new, changed and requested images as another generation, in one transaction; return False if none are."""
        known = self.generations()
        last = known[-1] if known else None
        first = last.first + last.n_images if last else 0
        with self._transaction():
            if not last:
                self._execute("DROP INDEX IF EXISTS plan_by_key")  # rebuilt at the end, which is quicker
                self._execute("DELETE FROM plan")
            self._execute(
                "UPDATE plan SET state = (SELECT state FROM listing WHERE listing.key = plan.key) WHERE state IS NULL"
            )
            self._execute(
                "INSERT INTO plan (source, key, place, label, state) "
                f"SELECT source, key, place, label, state FROM listing {f'WHERE {_CHANGED}' if last else ''} "
                "ORDER BY ordinal",
                {"by_state": by_state} if last else {},
            )
            self._execute("CREATE INDEX IF NOT EXISTS plan_by_key ON plan (key)")
            ((n,),) = self._all("SELECT count(*) FROM plan WHERE position > ?", (first,))  # positions count from 1
            replaced = "SELECT count(*) FROM plan p WHERE position > ? AND EXISTS "
            replaced += "(SELECT 1 FROM plan q WHERE q.key = p.key AND q.position <= ?)"
            n_replaced = self._all(replaced, (first, first))[0][0] if last else 0
            if n:
                start = last.first_shard + last.n_shards if last else 0
                given = [source.given for source in sources]
                columns = [_only(getattr(source, name) for source in sources) for name in ("path_column", "target")]
                has_classes = all(source.has_classes for source in sources)
                generation = Generation(
                    first, n, start, shard_size, n_replaced, given, versions, columns[0], columns[1], has_classes
                )
                states = json.dumps([source.state() for source in sources])
                self._execute(_ADD, (json.dumps(generation._asdict()), states))
        self._execute_script("DROP TABLE IF EXISTS listing; DROP TABLE IF EXISTS requested;")
        return bool(n)

    def restore(self, generations: Sequence[Generation], keys: Iterable[str]) -> None:
        """Restore a lost plan from shards that are all there."""
        with self._transaction():
            self._many(
                "INSERT INTO plan (source, key, place, label, state) VALUES (0, ?, x'', NULL, NULL)",
                ((key,) for key in keys),
            )
            self._execute("CREATE INDEX IF NOT EXISTS plan_by_key ON plan (key)")
            for generation in generations:
                self._execute(_ADD, (json.dumps(generation._asdict()), "[]"))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._execute("ROLLBACK")
            raise
        self._execute("COMMIT")

    def _execute(self, query: str, values: Any = ()) -> Iterator[Any]:
        with self._naming_file():
            return self._database.execute(query, values)

    def _execute_script(self, script: str) -> None:
        with self._naming_file():
            self._database.executescript(script)

    def _many(self, query: str, rows: Iterable[Any]) -> None:
        with self._naming_file():
            self._database.executemany(query, rows)

    def _all(self, query: str, values: Any = ()) -> list[Any]:
        return list(self._execute(query, values))

    @contextmanager
    def _naming_file(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DatasetError(
                f"{self.path}: SQLite failed ({error}); free some space, or move the file away and run again"
            ) from error


def _only(values: Iterable[str | None]) -> str | None:
    """Return the value that all sources share; None if they differ."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None
