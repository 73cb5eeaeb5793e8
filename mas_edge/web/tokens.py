"""Who may use the API from elsewhere: tokens with a name and a role. Only their digests are kept, in ``tokens.db``."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.topics import check_name
from mas_edge.side_file import SideFile

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
        self._file: SideFile | None = None
        if create:
            self._file = self._opened()
        self._open()

    def _open(self) -> SideFile | None:
        if self._file is None and self._path.is_file():
            self._file = self._opened()
        return self._file

    def _opened(self) -> SideFile:
        return SideFile(self._path, _SCHEMA, _VERSION, private=True, same_thread=False)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

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
        file = self._open()
        return [] if file is None else file.rows(query, *values)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()
