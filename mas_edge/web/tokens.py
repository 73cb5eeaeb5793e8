"""Who may use the API from elsewhere: tokens with a name and a role. Only their digests are kept, in ``tokens.db``."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.topics import check_name

FILE = "tokens.db"
TOKEN_BYTES = 24  # 192 bits: nobody can try them all, so that the digest needs no slow hash
_PREFIX = "mas_"  # a token that got into a repository or a log is found by it
_MAX_TOKEN = 200  # characters; what is longer is not looked at
_VERSION = 1
_SCHEMA = "CREATE TABLE tokens (name TEXT PRIMARY KEY, role TEXT NOT NULL, digest BLOB NOT NULL, made REAL NOT NULL)"

Role = Literal["read", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)


class Token(NamedTuple):
    """What is remembered of a token."""

    name: str
    role: Role
    made: float  # seconds since the epoch


class TokenStore:
    """The tokens of the run in ``directory``; ``create`` makes the file, without it there are simply none.

    Raises:
        ServerError: from every method: the file cannot be used.
    """

    def __init__(self, directory: Path, *, create: bool = False) -> None:
        self._path = directory / FILE
        self._db: sqlite3.Connection | None = None
        if create:
            with self._telling():
                self._path.touch(mode=0o600)
        self._open()

    def _open(self) -> sqlite3.Connection | None:
        if self._db is None and self._path.is_file():
            with self._telling():
                self._db = sqlite3.connect(self._path, isolation_level=None, timeout=10, check_same_thread=False)
                self._prepare(self._db)
        return self._db

    def _prepare(self, db: sqlite3.Connection) -> None:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")  # a token that was revoked must stay so
        db.execute("BEGIN IMMEDIATE")
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            db.execute(_SCHEMA)
            db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
        if version not in (0, _VERSION):
            message = f"{self._path} was written by version {version} of the store, this is version {_VERSION}"
            raise ServerError(message)

    def close(self) -> None:
        """Let go of the file."""
        if self._db is not None:
            self._db.close()
            self._db = None

    def new(self, name: str, role: Role) -> str:
        """Make a token; what is returned is shown once, and cannot be asked for again.

        Raises:
            MessageError: the name has characters that a name may not have.
            ServerError: there is a token of this name.
        """
        check_name(name, "token")
        text = _PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        values = (name, role, _digest(text), time.time())
        if not self._rows("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?) RETURNING name", *values):
            message = f"there is a token {name!r} already; revoke it first, or choose another name"
            raise ServerError(message)
        return text

    def revoke(self, name: str) -> None:
        """Take a token back, at once. Raises ServerError if there is none of this name."""
        if not self._rows("DELETE FROM tokens WHERE name = ? RETURNING name", name):
            message = f"there is no token {name!r}; see: mas-edge token RUN list"
            raise ServerError(message)

    def all(self) -> list[Token]:
        """Every token, by name."""
        return [Token(*row) for row in self._rows("SELECT name, role, made FROM tokens ORDER BY name")]

    def find(self, text: str) -> Token | None:
        """The token that this is; None: none of ours. It is compared with every one, in constant time."""
        if len(text) > _MAX_TOKEN:
            return None
        digest, found = _digest(text), None
        for name, role, held, made in self._rows("SELECT name, role, digest, made FROM tokens"):
            if hmac.compare_digest(held, digest):
                found = Token(name, role, made)
        return found

    def _rows(self, query: str, *values: str | float | bytes) -> list[tuple[Any, ...]]:
        db = self._open()
        if db is None:
            return []
        with self._telling():
            return db.execute(query, values).fetchall()

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            message = f"{self._path} cannot be used: {error}; check disk and permissions"
            raise ServerError(message) from None


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
