"""Open an SQLite file; name it in every error."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from featx.errors import DatasetError

__all__ = ["Database"]


class Database:
    """Hold a connection to an SQLite file that is created if needed.

    Parameters
    ----------
    path : Path
        The file.
    schema : str
        Statements that create its tables.
    added_columns : dict of str to str
        Maps each column that files of earlier versions lack to its table.
    """

    def __init__(self, path: Path, schema: str, added_columns: Mapping[str, str]) -> None:
        self.path = path
        with self._naming_file():
            # joblib reads tasks, and so rows, in its own threads, one at a time
            self._database = sqlite3.connect(path, isolation_level=None, timeout=60, check_same_thread=False)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA cache_size = -64000")  # 64 MB
            self._database.executescript(schema)
            for column, table in added_columns.items():
                if column not in [row[1] for row in self._database.execute(f"PRAGMA table_info({table})")]:
                    self._database.execute(f"ALTER TABLE {table} ADD COLUMN {column} TEXT")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

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
                f"{self.path}: SQLite failed ({error}); free some disk space, or move the file away and run again"
            ) from error
