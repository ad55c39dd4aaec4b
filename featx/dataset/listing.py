"""List the sources of a run in a table of SQLite, and open them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from featx.dataset.database import Database
from featx.dataset.generation import Row, name_source
from featx.errors import DatasetError
from featx.sources.base import Contents, Entry, Fetch, Source

__all__ = ["Listing", "OpenSources"]

_LISTING = """
DROP TABLE IF EXISTS listing;
CREATE TABLE listing (
    ordinal INTEGER PRIMARY KEY, source INTEGER NOT NULL, key TEXT NOT NULL,
    place BLOB NOT NULL, label TEXT, state TEXT NOT NULL
);
DROP TABLE IF EXISTS requested;
CREATE TABLE requested (key TEXT PRIMARY KEY) WITHOUT ROWID;
DROP TABLE IF EXISTS unchanged;
CREATE TABLE unchanged (key TEXT PRIMARY KEY) WITHOUT ROWID;
DROP TABLE IF EXISTS copies;
CREATE TABLE copies (key TEXT PRIMARY KEY, copy TEXT NOT NULL) WITHOUT ROWID;
"""
_END_LISTING = "".join(f"DROP TABLE IF EXISTS {name};" for name in ("listing", "requested", "unchanged", "copies"))


class OpenSources:
    """Fetch images of several sources, opening each source once, when its first image is needed."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = sources
        self._contents: dict[int, Contents] = {}

    def fetch(self, row: Row) -> Fetch:
        """Return the function that fetches the bytes of an image."""
        if row.source < 0:
            raise DatasetError(
                f"{row.key}: its row can no longer be copied, and its source is not given or was replaced; run again "
                "with all sources of the dataset"
            )
        if row.source not in self._contents:
            self._contents[row.source] = self._sources[row.source].contents()
        return self._contents[row.source](row.key, row.place)


class Listing(Database):
    """Hold the images of all sources of a run, in the order of the sources, each key once."""

    def list_sources(self, sources: Sequence[Source], prefixes: Sequence[str] | None = None) -> int:
        """List sources, in their order and each key once; return the number of images.

        Keys begin with the source's prefix. By default that is its name if there are several sources.
        """
        if prefixes is None:
            prefixes = [f"{name_source(source.given)}/" if len(sources) > 1 else "" for source in sources]
        self._execute_script(_LISTING)
        with self._transaction():
            for number, (source, prefix) in enumerate(zip(sources, prefixes, strict=True)):
                self._insert(number, source, prefix)
        self._number_repeated_keys()
        return self.count_listed()

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
        """Mark listed images to be planned again, even if their state is unchanged."""
        with self._transaction():
            self._many("INSERT OR IGNORE INTO requested VALUES (?)", ((key,) for key in keys))

    def find_listed(self, key: str) -> Row | None:
        """Return the image of a key in the listing; None if there is no such key."""
        self.index_listing()
        rows = self._all("SELECT source, key, place, label FROM listing WHERE key = ?", (key,))
        return Row(*rows[0]) if rows else None

    def listed_at(self, ordinals: Iterable[int]) -> list[Row]:
        """Return the images at these ordinals of the listing, counted from 1."""
        query = "SELECT source, key, place, label FROM listing WHERE ordinal = ?"
        return [Row(*row) for ordinal in ordinals for row in self._all(query, (int(ordinal),))]

    def count_listed(self) -> int:
        """Count the images in the listing."""
        ((n,),) = self._all("SELECT count(*) FROM listing")
        return int(n)

    def index_listing(self) -> None:
        """Create the index of the listing by key."""
        self._execute("CREATE INDEX IF NOT EXISTS listing_by_key ON listing (key)")

    def end_listing(self) -> None:
        """Remove the listing."""
        self._execute_script(_END_LISTING)
