"""A small SQLite file that several processes use: its version, transactions, errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mas_edge.protocol.errors import ServerError

_BUSY_S = 10.0  # another process holds the file for milliseconds; a slow card for longer


class SideFile:
    """The file ``path`` with the tables of ``schema``; ``create`` makes it where there is none.

    Of a ``private`` one only its owner may read. Without ``same_thread`` the caller sees to it that there is one
    transaction at a time.

    Raises:
        ServerError: from every method: the file cannot be used, or is of another ``version``.
    """

    def __init__(
        self, path: Path, schema: str, version: int, *, create: bool = True, private: bool = False,
        same_thread: bool = True,
    ) -> None:  # fmt: skip
        self.path = path
        if private:
            self._touch()
        with self._telling():
            where = path if create else f"{path.resolve().as_uri()}?mode=rw"
            self._db = sqlite3.connect(
                where, isolation_level=None, timeout=_BUSY_S, uri=not create, check_same_thread=same_thread
            )
            try:
                self._prepare(schema, version)
            except (sqlite3.Error, ServerError):
                self._db.close()
                raise

    def _touch(self) -> None:
        """SQLite would make it readable by everybody whom the umask lets."""
        try:
            if not self.path.exists():
                self.path.touch(mode=0o600)
        except OSError as error:
            raise ServerError(self._unusable(error)) from None

    def _prepare(self, schema: str, version: int) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")  # what was taken, refused or revoked stays so
        self._db.execute("BEGIN IMMEDIATE")  # two processes may be the first
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found == 0:
            for statement in schema.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {version}")
        self._db.execute("COMMIT")
        if found not in (0, version):
            message = f"{self.path} was written by version {found} of the store, this is version {version}"
            raise ServerError(message)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @property
    def changes(self) -> int:
        """A number that changes when another process has written."""
        found: int = self.rows("PRAGMA data_version")[0][0]
        return found

    def rows(self, query: str, *values: str | float | bytes | None) -> list[tuple[Any, ...]]:
        """What a statement finds."""
        with self._telling():
            return self._db.execute(query, values).fetchall()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nobody else writes meanwhile."""
        with self._telling(), self._db:
            self._db.execute("BEGIN IMMEDIATE")
            yield

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise ServerError(self._unusable(error)) from None

    def _unusable(self, error: Exception) -> str:
        return f"{self.path} cannot be used: {error}; check disk and permissions"
