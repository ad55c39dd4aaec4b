"""What is to be embedded, on disk and in order: the listing of a run, and the plan of all runs so far.

SQLite, so that ten million keys need no memory and a killed run leaves the plan whole. The plan
only grows: each generation of shards is a stretch of consecutive positions, fixed before its
first image is read. That makes every shard's content a matter of the source alone.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from featx.errors import DatasetError
from featx.sources.opening import Entry, Source

__all__ = ["Generation", "Row", "Plan"]

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
DROP TABLE IF EXISTS asked;
CREATE TABLE asked (key TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_ADD = "INSERT INTO generations (about, states) VALUES (?, ?)"
#: The last row of a key in the plan.
_LAST = "(SELECT {column} FROM plan WHERE plan.key = listing.key ORDER BY position DESC LIMIT 1)"
#: States are not compared where one is NULL: a plan that was made anew from shards knows none.
_CHANGED = f"""
    NOT EXISTS (SELECT 1 FROM plan WHERE plan.key = listing.key)
    OR (:by_state AND {_LAST.format(column="state")} <> state)
    OR key IN (SELECT key FROM asked)
"""


class Row(NamedTuple):
    """One image of the plan."""

    source: int
    key: str
    place: bytes
    label: str | None


class Generation(NamedTuple):
    """Images that were planned together, and are cut into shards of one size.

    Parameters
    ----------
    first : int
        Position of its first image in the plan.
    n_images : int
        In all its shards.
    first_shard, shard_size : int
        Number of its first shard, and images in each but the last.
    n_replaced : int
        Images of earlier generations in the place of which these are.
    sources : list of str
        As they were given.
    versions : dict
        Of what computes the features.
    path_column, target : str or None
        Columns of a table that were taken.
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

    @property
    def n_shards(self) -> int:
        """How many files."""
        return -(-self.n_images // self.shard_size)

    @property
    def shards(self) -> range:
        """Their numbers."""
        return range(self.first_shard, self.first_shard + self.n_shards)

    def rows_of(self, shard: int) -> tuple[int, int]:
        """Give first position and number of images of a shard."""
        offset = (shard - self.first_shard) * self.shard_size
        return self.first + offset, min(self.shard_size, self.n_images - offset)


def read_generation(about: Mapping[str, Any]) -> Generation:
    """Read a generation from JSON; those of before 2026-11-27 count `n_pictures`."""
    return Generation(**{"n_images" if name == "n_pictures" else name: value for name, value in about.items()})


class Plan:
    """The file that holds listing and plan.

    Parameters
    ----------
    path : pathlib.Path
        Made when needed; its folder must be there.

    Examples
    --------
    >>> import pathlib
    >>> from featx.dataset.plan import Plan
    >>> with Plan(pathlib.Path("plan.sqlite")) as spool:
    ...     spool.generations()
    []
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # joblib takes tasks, and with them rows, in threads of its own, one at a time
            self._database = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA cache_size = -64000")  # 64 MB; what is larger goes to disk
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def __enter__(self) -> Plan:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    def generations(self) -> list[Generation]:
        """Give what was planned so far."""
        found = self._all("SELECT about FROM generations ORDER BY number")
        return [read_generation(json.loads(about)) for (about,) in found]

    def states(self, generation: int) -> list[str]:
        """Give the states that a generation's sources had when it was planned."""
        ((states,),) = self._all("SELECT states FROM generations WHERE number = ?", (generation + 1,))
        return list(json.loads(states))

    def rows(self, first: int, n: int) -> Iterator[Row]:
        """Read a stretch of the plan."""
        query = "SELECT source, key, place, label FROM plan WHERE position > ? AND position <= ? ORDER BY position"
        return map(Row._make, self._execute(query, (first, first + n)))

    def list_sources(self, sources: Sequence[Source]) -> int:
        """List sources anew, in their order, every key once; give the number of images."""
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
        # sorted by their bytes, and each file once, however many patterns it matches
        self._execute("CREATE TEMP TABLE found (place BLOB, key TEXT, label TEXT, state TEXT)")
        values = ((row.place, prefix + row.key, row.label, row.state) for row in rows)
        self._many("INSERT INTO found VALUES (?, ?, ?, ?)", values)
        columns = "source, key, place, label, state"
        query = f"SELECT {number}, min(key), place, min(label), min(state) FROM found GROUP BY place ORDER BY place"
        self._execute(f"INSERT INTO listing ({columns}) {query}")
        self._execute("DROP TABLE found")

    def _number_repeated_keys(self) -> None:
        """Call the second row of a key ``KEY#2``: each row is an image of its own."""
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

    def ask_again(self, keys: Iterable[str]) -> None:
        """Plan images again that are in the listing, whatever their state."""
        with self._transaction():
            self._many("INSERT OR IGNORE INTO asked VALUES (?)", ((key,) for key in keys))

    def find(self, key: str) -> Row | None:
        """Look a key up in the listing."""
        self._execute("CREATE INDEX IF NOT EXISTS listing_by_key ON listing (key)")
        found = self._all("SELECT source, key, place, label FROM listing WHERE key = ?", (key,))
        return Row(*found[0]) if found else None

    def planned(self, key: str) -> tuple[int, Row] | None:
        """Look a key up in the plan: the position, counted from 1, and the image of its last row."""
        query = "SELECT position, source, key, place, label FROM plan WHERE key = ? ORDER BY position DESC LIMIT 1"
        found = self._all(query, (key,))
        return (found[0][0], Row(*found[0][1:])) if found else None

    def listed(self, ordinal: int) -> Row | None:
        """Look up the so-manieth image of the listing, counted from 1."""
        found = self._all("SELECT source, key, place, label FROM listing WHERE ordinal = ?", (ordinal,))
        return Row(*found[0]) if found else None

    def n_gone(self) -> int:
        """Count images of the plan that the listing has no more."""
        self._execute("CREATE INDEX IF NOT EXISTS listing_by_key ON listing (key)")
        query = "SELECT count(DISTINCT key) FROM plan WHERE key NOT IN (SELECT key FROM listing)"
        ((n,),) = self._all(query)
        return int(n)

    def plan(self, shard_size: int, sources: Sequence[Source], versions: dict[str, str], *, by_state: bool) -> bool:
        """Add what is new, changed or asked for as a further generation; False when that is nothing.

        All of it is there afterwards, or none.
        """
        known = self.generations()
        last = known[-1] if known else None
        first = last.first + last.n_images if last else 0
        with self._transaction():
            if not last:
                self._execute("DROP INDEX IF EXISTS plan_by_key")  # made anew when all is in, which is quicker
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
            ((n,),) = self._all("SELECT count(*) FROM plan WHERE position > ?", (first,))  # counted from 1 there
            replaced = "SELECT count(*) FROM plan p WHERE position > ? AND EXISTS "
            replaced += "(SELECT 1 FROM plan q WHERE q.key = p.key AND q.position <= ?)"
            n_replaced = self._all(replaced, (first, first))[0][0] if last else 0
            if n:
                start = last.first_shard + last.n_shards if last else 0
                given = [source.given for source in sources]
                columns = [_only(getattr(source, name) for source in sources) for name in ("path_column", "target")]
                about = Generation(first, n, start, shard_size, n_replaced, given, versions, *columns)
                states = json.dumps([source.state() for source in sources])
                self._execute(_ADD, (json.dumps(about._asdict()), states))
        self._execute_script("DROP TABLE IF EXISTS listing; DROP TABLE IF EXISTS asked;")
        return bool(n)

    def adopt(self, generations: Sequence[Generation], keys: Iterable[str]) -> None:
        """Begin a plan anew from shards that are all there."""
        with self._transaction():
            self._many(
                "INSERT INTO plan (source, key, place, label, state) VALUES (0, ?, x'', NULL, NULL)",
                ((key,) for key in keys),
            )
            self._execute("CREATE INDEX IF NOT EXISTS plan_by_key ON plan (key)")
            for about in generations:
                self._execute(_ADD, (json.dumps(about._asdict()), "[]"))

    def _transaction(self) -> _Transaction:
        return _Transaction(self)

    def _execute(self, query: str, values: Any = ()) -> Iterator[Any]:
        try:
            return self._database.execute(query, values)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _execute_script(self, script: str) -> None:
        try:
            self._database.executescript(script)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _many(self, query: str, rows: Iterable[Any]) -> None:
        try:
            self._database.executemany(query, rows)
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _all(self, query: str, values: Any = ()) -> list[Any]:
        return list(self._execute(query, values))

    def _broken(self, error: sqlite3.Error) -> DatasetError:
        return DatasetError(f"{self.path}: cannot be used ({error}); free some space, or move it away and run again")


def _only(values: Iterable[str | None]) -> str | None:
    """Give what all sources agree on."""
    found = set(values)
    return found.pop() if len(found) == 1 else None


class _Transaction:
    def __init__(self, spool: Plan) -> None:
        self.spool = spool

    def __enter__(self) -> None:
        self.spool._execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        self.spool._execute("ROLLBACK" if kind else "COMMIT")
