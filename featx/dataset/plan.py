"""Plan which image goes into which shard.

The plan is an SQLite file, so ten million keys need no memory, and a killed run leaves it intact. Each generation of
shards is a range of consecutive positions, fixed before its first image is read. The content of a shard therefore
depends only on the source. Only `Plan.cut` and `Plan.prune` remove rows, and they plan the affected shards again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from featx._files import scratch_folder
from featx.dataset.generation import Generation, KnownSource, Row, identify, read_generation
from featx.dataset.listing import Listing
from featx.sources.base import Source
from featx.sources.listing import shared_column

__all__ = ["Plan"]

_ADD = "INSERT INTO generations (number, about, states, identities) VALUES (?, ?, ?, ?)"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS plan (
    position INTEGER PRIMARY KEY, source INTEGER NOT NULL, key TEXT NOT NULL,
    place BLOB NOT NULL, label TEXT, state TEXT, copy TEXT
);
CREATE TABLE IF NOT EXISTS generations (
    number INTEGER PRIMARY KEY, about TEXT NOT NULL, states TEXT NOT NULL, identities TEXT
);
CREATE TABLE IF NOT EXISTS sources (
    identity TEXT PRIMARY KEY, given TEXT NOT NULL, prefix TEXT NOT NULL, state TEXT
);
CREATE TABLE IF NOT EXISTS dropped (shard INTEGER PRIMARY KEY);
"""
#: Columns that plans of earlier versions lack.
_ADDED_COLUMNS = {"copy": "plan", "identities": "generations"}
#: The last row of a key in the plan.
_LAST = "(SELECT {column} FROM plan WHERE plan.key = listing.key ORDER BY position DESC LIMIT 1)"
_IS_NEW = "NOT EXISTS (SELECT 1 FROM plan WHERE plan.key = listing.key)"
#: A state of NULL equals every state: a plan that was restored from shards has no states.
_CHANGED = f"""
    {_IS_NEW}
    OR (:by_state AND {_LAST.format(column="state")} <> state AND key NOT IN (SELECT key FROM unchanged))
    OR key IN (SELECT key FROM requested)
"""
#: A state begins with the size of the image, if it is known.
_SIZE = "substr({state}, 1, instr({state} || ' ', ' '))"


class _Described(NamedTuple):
    """A generation, and the states and identities of its sources as JSON."""

    generation: Generation
    states: str
    identities: str | None


class Plan(Listing):
    """Hold the plan of all runs and the listing of the current run in an SQLite file, which is created if needed.

    Examples
    --------
    >>> from featx.dataset.plan import Plan
    >>> with Plan.temporary() as plan:
    ...     plan.generations()
    []
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _SCHEMA, _ADDED_COLUMNS)

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

    def identities(self, generation: int) -> list[str]:
        """Return the identities of a generation's sources."""
        query = "SELECT about, identities FROM generations WHERE number = ?"
        ((about, identities),) = self._all(query, (generation + 1,))
        return list(json.loads(identities)) if identities else list(map(identify, json.loads(about)["sources"]))

    def known_sources(self) -> list[KnownSource]:
        """Return the sources of all generations."""
        known = {row[0]: KnownSource(*row) for row in self._all("SELECT * FROM sources ORDER BY rowid")}
        for i, generation in enumerate(self.generations()):
            identities = self.identities(i)
            states: Sequence[str | None] = self.states(i) or [None] * len(identities)
            named = zip(identities, generation.sources, generation.key_prefixes, states, strict=True)
            for identity, given, prefix, state in named:
                known.setdefault(identity, KnownSource(identity, given, prefix, state))
        return list(known.values())

    def move_source(self, old: str, source: Source) -> None:
        """Record that a source has moved to another place."""
        new = identify(source.given)
        with self._transaction():
            for i in range(len(self.generations())):
                identities = [new if identity == old else identity for identity in self.identities(i)]
                self._execute("UPDATE generations SET identities = ? WHERE number = ?", (json.dumps(identities), i + 1))
            self._execute(
                "UPDATE OR REPLACE sources SET identity = ?, given = ? WHERE identity = ?", (new, source.given, old)
            )

    def rows(self, first: int, n: int) -> Iterator[Row]:
        """Read n rows of the plan, from position ``first`` on."""
        query = (
            "SELECT source, key, place, label, copy FROM plan WHERE position > ? AND position <= ? ORDER BY position"
        )
        return map(Row._make, self._execute(query, (first, first + n)))

    def find_planned(self, key: str) -> tuple[int, Row] | None:
        """Return the last position of a key in the plan, counted from 1, and its image; None if it is not planned."""
        query = "SELECT position, source, key, place, label FROM plan WHERE key = ? ORDER BY position DESC LIMIT 1"
        rows = self._all(query, (key,))
        return (rows[0][0], Row(*rows[0][1:])) if rows else None

    def count_stateless(self, number: int) -> int:
        """Count the listed images of a source whose keys are planned, but whose size and time are unknown."""
        ((n,),) = self._all(
            f"SELECT count(*) FROM listing WHERE source = ? AND state = '' AND NOT {_IS_NEW}", (number,)
        )
        return int(n)

    def is_copied(self, generation: Generation) -> bool:
        """Return True if all images of a generation are copies of rows of other shards."""
        query = "SELECT 1 FROM plan WHERE position > ? AND position <= ? AND copy IS NULL LIMIT 1"
        return not self._all(query, (generation.first, generation.first + generation.n_images))

    def find_gone(self, sources: Sequence[Source], prefixes: Sequence[str]) -> int:
        """Find the images in the plan that have left these sources; return their number.

        An image that ``include`` and ``exclude`` leave out has not left its source.
        """
        listed = {identify(source.given): source.patterns for source in sources}
        self._execute_script("DROP TABLE IF EXISTS gone; CREATE TEMP TABLE gone (key TEXT PRIMARY KEY) WITHOUT ROWID")
        self.index_listing()
        # a plan that was restored from shards of several sources may not know the source of an image
        source_of = "CASE WHEN :several AND place = x'' THEN -1 ELSE source END"
        for i, generation in enumerate(self.generations()):
            identities = self.identities(i)
            numbers = [number for number, identity in enumerate(identities) if identity in listed]
            numbers += [-1] if len(numbers) == len(identities) else []
            self._execute(
                "INSERT OR IGNORE INTO gone SELECT key FROM plan WHERE position > :first AND position <= :last "
                f"AND {source_of} IN ({', '.join(map(str, numbers))}) AND key NOT IN (SELECT key FROM listing)",
                {
                    "several": len(identities) > 1,
                    "first": generation.first,
                    "last": generation.first + generation.n_images,
                },
            )
        patterns = [(prefix, source.patterns) for source, prefix in zip(sources, prefixes, strict=True)]
        left_out = [
            (key,)
            for (key,) in (self._all("SELECT key FROM gone") if any(one for _, one in patterns) else ())
            if any(one and key.startswith(prefix) and not one.select(key[len(prefix) :]) for prefix, one in patterns)
        ]
        self._many("DELETE FROM gone WHERE key = ?", left_out)
        ((n,),) = self._all("SELECT count(*) FROM gone")
        return int(n)

    def count_known(self, number: int) -> tuple[int, int]:
        """Count the listed images of a source whose keys are planned, and how many of them have the same state."""
        last_state = _LAST.format(column="state")
        query = f"SELECT count(*), count(*) FILTER (WHERE coalesce({last_state}, state) = state AND state <> '') "
        ((n, n_same),) = self._all(f"{query} FROM listing WHERE source = ? AND NOT {_IS_NEW}", (number,))
        return int(n), int(n_same)

    def other_states(self, number: int) -> Iterator[Row]:
        """Read the listed images of a source whose keys are planned with another state, or without a state."""
        last_state = _LAST.format(column="state")
        query = f"SELECT source, key, place, label FROM listing WHERE source = ? AND NOT {_IS_NEW} "
        query += f"AND NOT (coalesce({last_state}, state) = state AND state <> '')"
        return (Row(*row) for row in self._execute(query, (number,)))

    def unsure(self, *, every_image: bool, replaced: Iterable[int]) -> Iterator[tuple[bool, Row]]:
        """Iterate over the listed images that must be read to compare them with the images in the dataset.

        Parameters
        ----------
        every_image : bool
            True for all images whose keys are planned.
        replaced : iterable of int
            Numbers of the sources that were replaced.

        Yields
        ------
        bool, Row
            True for a new image that may have had another key until now. False for an image of a planned key, if
            its time has changed and its size has not, or if its source was replaced and has no state per image.
        """
        last_state, size = _LAST.format(column="state"), _SIZE.format(state="listing.state")
        self._execute_script("DROP TABLE IF EXISTS gone_sizes; CREATE TEMP TABLE gone_sizes (size TEXT)")
        gone_size = _SIZE.format(state="plan.state")
        self._execute(
            f"INSERT INTO gone_sizes SELECT DISTINCT {gone_size} FROM plan WHERE key IN (SELECT key FROM gone)"
        )
        query = f"""
            SELECT ordinal, {_IS_NEW} AS is_new, source, key, place, label FROM listing WHERE ordinal > :after AND
            CASE WHEN {_IS_NEW} THEN {size} IN (SELECT size FROM gone_sizes WHERE size IS NOT NULL)
                                     OR EXISTS (SELECT 1 FROM gone_sizes WHERE size IS NULL)
            ELSE :every OR (state = '' AND source IN ({", ".join(map(str, replaced))}))
                 OR (state <> {last_state} AND state <> '' AND {size} = {_SIZE.format(state=last_state)})
            END ORDER BY ordinal LIMIT 1000"""
        after = 0
        while rows := self._all(query, {"after": after, "every": every_image}):
            after = rows[-1][0]
            yield from ((bool(is_new), Row(*row)) for _, is_new, *row in rows)

    def add_stored(self, rows: Iterable[tuple[str, str | None, str, bool]]) -> None:
        """Record the rows in the shards: key, digest, shard and row, and True if the image has an embedding."""
        self._execute_script(
            "DROP TABLE IF EXISTS stored; CREATE TEMP TABLE stored (key TEXT PRIMARY KEY, digest TEXT, at TEXT, ok INT)"
        )
        with self._transaction():
            self._many("INSERT OR REPLACE INTO stored VALUES (?, ?, ?, ?)", rows)
            self._execute("CREATE INDEX stored_by_digest ON stored (digest)")

    def stored_digest(self, key: str) -> str | None:
        """Return the digest of a key that `add_stored` recorded."""
        rows = self._all("SELECT digest FROM stored WHERE key = ?", (key,))
        return rows[0][0] if rows else None

    def find_copy(self, digest: str) -> str | None:
        """Return the place of an embedding of an image with this digest, as in `Row.copy`; None if there is none."""
        rows = self._all("SELECT at FROM stored WHERE digest = ? AND ok ORDER BY rowid LIMIT 1", (digest,))
        return f"{rows[0][0]} {digest}" if rows else None

    def note_compared(self, unchanged: Iterable[str], copies: Iterable[tuple[str, str]]) -> None:
        """Record listed images whose content is unchanged, and images whose embeddings can be copied."""
        with self._transaction():
            self._many("INSERT OR IGNORE INTO unchanged VALUES (?)", ((key,) for key in unchanged))
            self._many("INSERT OR REPLACE INTO copies VALUES (?, ?)", copies)

    def changed_labels(self) -> Iterator[tuple[int, int, str | None]]:
        """Iterate in order over the rows whose label differs in the listing: shard, row in the shard, and new label."""
        self.index_listing()
        self._execute_script(
            "DROP TABLE IF EXISTS relabelled; CREATE TEMP TABLE relabelled (position INTEGER PRIMARY KEY, label TEXT)"
        )
        last = _LAST.format(column="position")
        self._execute(
            "INSERT INTO relabelled SELECT plan.position, found.label FROM "
            f"(SELECT {last} AS position, label FROM listing) AS found JOIN plan ON plan.position = found.position "
            "WHERE plan.label IS NOT found.label"
        )
        for generation in self.generations():
            query = "SELECT position, label FROM relabelled WHERE position > ? AND position <= ? ORDER BY position"
            for position, label in self._all(query, (generation.first, generation.first + generation.n_images)):
                shard, row = divmod(position - 1 - generation.first, generation.shard_size)
                yield generation.first_shard + shard, row, label

    def set_labels(self) -> None:
        """Change the labels that `changed_labels` found."""
        query = "UPDATE plan SET label = (SELECT label FROM relabelled WHERE relabelled.position = plan.position) "
        self._execute(f"{query} WHERE position IN (SELECT position FROM relabelled)")

    def plan(
        self,
        shard_size: int,
        sources: Sequence[Source],
        prefixes: Sequence[str],
        versions: dict[str, str],
        *,
        by_state: bool,
    ) -> bool:
        """Add new, changed and requested images as a generation, in one transaction; return False if there are none."""
        known = self.generations()
        identities = [identify(source.given) for source in sources]
        with self._transaction():
            if not known:
                self._execute("DROP INDEX IF EXISTS plan_by_key")  # rebuilt at the end, which is quicker
                self._execute("DELETE FROM plan")
            first = self._last_position()
            self.index_listing()
            self._execute(
                "UPDATE plan SET state = (SELECT state FROM listing WHERE listing.key = plan.key) "
                "WHERE state IS NULL OR key IN (SELECT key FROM unchanged)"
            )
            self._execute(
                "INSERT INTO plan (source, key, place, label, state, copy) SELECT source, key, place, label, state, "
                "(SELECT copy FROM copies WHERE copies.key = listing.key) "
                f"FROM listing {f'WHERE {_CHANGED}' if known else ''} ORDER BY ordinal",
                {"by_state": by_state} if known else {},
            )
            self._execute("CREATE INDEX IF NOT EXISTS plan_by_key ON plan (key)")
            n = self._last_position() - first
            columns: dict[str, Any] = {name: shared_column(sources, name) for name in ("path_column", "target")}
            columns["has_classes"] = all(source.has_classes for source in sources)
            for i, generation in enumerate(known):
                if set(self.identities(i)) == set(identities):
                    about = json.dumps({**generation._asdict(), **columns})
                    self._execute("UPDATE generations SET about = ? WHERE number = ?", (about, i + 1))
            if n:
                new = Generation(
                    first=first,
                    n_images=n,
                    first_shard=self._next_shard(),
                    shard_size=shard_size,
                    n_replaced=self._count_replaced(first, n) if known else 0,
                    sources=[source.given for source in sources],
                    versions=versions,
                    **columns,
                    prefixes=None if list(prefixes) == [""] else list(prefixes),
                )
                states = json.dumps([source.state() for source in sources])
                self._execute(_ADD, (len(known) + 1, json.dumps(new._asdict()), states, json.dumps(identities)))
            for one in self.known_sources():  # of plans of earlier versions
                self._execute("INSERT OR IGNORE INTO sources VALUES (?, ?, ?, ?)", one)
            for identity, source, prefix in zip(identities, sources, prefixes, strict=True):
                row = (identity, source.given, prefix, source.whole_state())
                self._execute("INSERT OR REPLACE INTO sources VALUES (?, ?, ?, ?)", row)
        self.end_listing()
        return bool(n)

    def cut(self, shards: Container[int], n_kept: Mapping[int, int]) -> None:
        """Remove images from the plan that are not in the existing shards, so that they can be planned again.

        ``n_kept`` maps an unfinished shard to the number of images that an interrupted run kept. These images are
        planned as a separate shard.
        """
        with self._transaction():
            kept: list[_Described] = []
            for one in self._described():
                planned = one.generation
                n_rows = {shard: planned.rows_of(shard)[1] for shard in planned.shards}
                finished = {shard for shard in planned.shards if shard in shards or n_kept.get(shard) == n_rows[shard]}
                kept += [one._replace(generation=run) for run in _runs(planned, finished)]
                for shard in sorted(set(planned.shards) - finished):
                    (first, n), m = planned.rows_of(shard), n_kept.get(shard, 0)
                    self._execute("DELETE FROM plan WHERE position > ? AND position <= ?", (first + m, first + n))
                    if m:
                        short = planned._replace(first=first, n_images=m, first_shard=shard)
                        kept.append(one._replace(generation=short))
            self._replace_generations(kept)

    def prune(self, shard_size: int, read_digests: Callable[[int], Sequence[str | None]]) -> int:
        """Plan shards again without the images that `find_gone` found; return the number of these shards.

        All other images of these shards are planned as copies. `dropped` lists the old shards, whose files are
        needed until the copies are made.
        """
        with self._transaction():
            end, next_shard = self._last_position(), self._next_shard()
            kept: list[_Described] = []
            old: list[tuple[int, int]] = []  # first and last position of each dropped shard
            for one in self._described():
                planned, start = one.generation, self._last_position()
                affected = self._shards_of_gone(planned)
                kept += [one._replace(generation=run) for run in _runs(planned, set(planned.shards) - set(affected))]
                for shard in affected:
                    first, n = planned.rows_of(shard)
                    self._copy_rows(shard, first, n, end, read_digests(shard))
                    self._execute("INSERT OR IGNORE INTO dropped VALUES (?)", (shard,))
                    old.append((first, first + n))
                if n := self._last_position() - start:
                    new = planned._replace(first=start, n_images=n, first_shard=next_shard, shard_size=shard_size)
                    kept.append(one._replace(generation=new))
                    next_shard += new.n_shards
            self._many("DELETE FROM plan WHERE position > ? AND position <= ?", old)
            self._replace_generations(kept)
        return len(old)

    def _shards_of_gone(self, planned: Generation) -> list[int]:
        """Return the shards of a generation with images that have left the source."""
        query = "SELECT DISTINCT (position - 1 - ?) / ? FROM plan WHERE position > ? AND position <= ? "
        values = (planned.first, planned.shard_size, planned.first, planned.first + planned.n_images)
        rows = self._all(f"{query} AND key IN (SELECT key FROM gone)", values)
        return sorted(planned.first_shard + number for (number,) in rows)

    def _copy_rows(self, shard: int, first: int, n: int, end: int, digests: Sequence[str | None]) -> None:
        """Plan the current images of a shard once more, as copies, without those that have left the source."""
        rows = self._all(
            "SELECT position, source, key, place, label, state FROM plan AS p WHERE position > ? AND position <= ? "
            "AND key NOT IN (SELECT key FROM gone) AND NOT EXISTS "
            "(SELECT 1 FROM plan AS q WHERE q.key = p.key AND q.position > p.position AND q.position <= ?)",
            (first, first + n, end),
        )
        numbered = ((position - 1 - first, values) for position, *values in rows)
        self._many(
            "INSERT INTO plan (source, key, place, label, state, copy) VALUES (?, ?, ?, ?, ?, ?)",
            [(*values, f"{shard} {row} {digests[row] or '-'}") for row, values in numbered],
        )

    def dropped(self) -> list[int]:
        """Return the numbers of shards that `prune` removed from the plan."""
        return [number for (number,) in self._all("SELECT shard FROM dropped ORDER BY shard")]

    def forget_dropped(self) -> None:
        """Forget the dropped shards, after their files were removed."""
        self._execute("DELETE FROM dropped")

    def restore(
        self, generations: Sequence[Generation], read_shard: Callable[[int], Iterable[tuple[str, str]]]
    ) -> None:
        """Restore a lost plan from its complete shards; ``read_shard`` reads the keys and labels of a shard."""
        with self._transaction():
            for i, generation in enumerate(generations):
                prefixes = generation.key_prefixes
                for shard in generation.shards:
                    first, _ = generation.rows_of(shard)
                    self._many(
                        "INSERT INTO plan (position, source, key, place, label, state) VALUES (?, ?, ?, x'', ?, NULL)",
                        (
                            (first + 1 + row, _find_prefix(prefixes, key), key, label)
                            for row, (key, label) in enumerate(read_shard(shard))
                        ),
                    )
                self._execute(_ADD, (i + 1, json.dumps(generation._asdict()), "[]", None))
            self._execute("CREATE INDEX IF NOT EXISTS plan_by_key ON plan (key)")

    def _described(self) -> list[_Described]:
        rows = self._all("SELECT about, states, identities FROM generations ORDER BY number")
        return [_Described(read_generation(json.loads(about)), *rest) for about, *rest in rows]

    def _replace_generations(self, described: Iterable[_Described]) -> None:
        """Write generations in the order of their positions, and count their replaced images again."""
        self._execute("DELETE FROM generations")
        for i, (generation, *rest) in enumerate(sorted(described, key=lambda one: one.generation.first)):
            n_replaced = self._count_replaced(generation.first, generation.n_images)
            about = json.dumps(generation._replace(n_replaced=n_replaced)._asdict())
            self._execute(_ADD, (i + 1, about, *rest))

    def _count_replaced(self, first: int, n: int) -> int:
        query = "SELECT count(*) FROM plan p WHERE position > ? AND position <= ? AND EXISTS "
        query += "(SELECT 1 FROM plan q WHERE q.key = p.key AND q.position <= ?)"
        return int(self._all(query, (first, first + n, first))[0][0])

    def _last_position(self) -> int:
        return int(self._all("SELECT coalesce(max(position), 0) FROM plan")[0][0])

    def _next_shard(self) -> int:
        """Return a number above those of all shards whose files may exist."""
        ends = [generation.first_shard + generation.n_shards for generation in self.generations()]
        return max([0, *ends, *(number + 1 for number in self.dropped())])


def _runs(generation: Generation, chosen: Container[int]) -> Iterator[Generation]:
    """Yield a generation for each run of consecutive chosen shards."""
    for is_chosen, numbers in groupby(generation.shards, lambda shard: shard in chosen):
        if is_chosen:
            shards = list(numbers)
            first, (last, n) = generation.rows_of(shards[0])[0], generation.rows_of(shards[-1])
            yield generation._replace(first=first, n_images=last + n - first, first_shard=shards[0])


def _find_prefix(prefixes: Sequence[str], key: str) -> int:
    """Return the number of the longest prefix that a key begins with, or -1."""
    found = [(len(prefix), i) for i, prefix in enumerate(prefixes) if key.startswith(prefix)]
    return max(found)[1] if found else -1
