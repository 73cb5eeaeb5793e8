"""Who was invited, who is in, and whose certificates are revoked: one SQLite file, one transaction a step.

Of a token only the digest is kept. The command line and a running orchestrator may use the file at the same time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from mas_edge.side_file import SideFile

_VERSION = 1  # of files that were written before they had one, too: IF NOT EXISTS
_SCHEMA = """
CREATE TABLE IF NOT EXISTS invitations (name TEXT PRIMARY KEY, secret_digest BLOB NOT NULL, expires REAL NOT NULL,
                                        approved INTEGER NOT NULL, key TEXT);
CREATE TABLE IF NOT EXISTS certificates (serial TEXT PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL,
                                         pem TEXT NOT NULL, issued REAL NOT NULL, expires REAL NOT NULL, revoked REAL);
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""

State = Literal["invited", "waiting", "enrolled", "expired", "revoked"]


class Invited(NamedTuple):
    """An open invitation. ``key``: the fingerprint of the one key that may use it, once it was used."""

    secret_digest: bytes
    expires: float  # seconds since 1970
    approved: bool
    key: str | None


class Certified(NamedTuple):
    """A certificate that was given out, with when (seconds since 1970)."""

    serial: int
    name: str
    key: str
    pem: str
    issued: float
    expires: float
    revoked: float | None


class Member(NamedTuple):
    """One name of the fleet as the operator sees it; ``expires`` is the certificate's or the invitation's."""

    name: str
    state: State
    key: str
    expires: float


class Registry:
    """The file ``path``.

    Raises:
        ServerError: it cannot be read or written; from any method.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()  # the endpoint asks on a thread for each device
        self._file = SideFile(path, _SCHEMA, _VERSION, private=True, same_thread=False)
        self._rows = self._file.rows

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nobody else writes meanwhile. Methods are called inside of one."""
        with self._lock, self._file.transaction():
            yield

    def invite(self, name: str, secret_digest: bytes, expires: float, *, approved: bool) -> None:
        """Open an invitation for ``name`` in place of an earlier one."""
        values = (name, secret_digest, expires, int(approved), None)
        self._rows("INSERT OR REPLACE INTO invitations VALUES (?, ?, ?, ?, ?)", *values)

    def invitation(self, name: str) -> Invited | None:
        """The invitation of ``name``, if there is one, used or not, expired or not."""
        rows = self._rows("SELECT secret_digest, expires, approved, key FROM invitations WHERE name = ?", name)
        return Invited(rows[0][0], rows[0][1], bool(rows[0][2]), rows[0][3]) if rows else None

    def bind(self, name: str, key: str) -> None:
        """From now on only this key may use the invitation."""
        self._rows("UPDATE invitations SET key = ? WHERE name = ?", key, name)

    def approve(self, name: str) -> None:
        """The operator has compared the key."""
        self._rows("UPDATE invitations SET approved = 1 WHERE name = ?", name)

    def withdraw(self, name: str) -> None:
        """The invitation of ``name`` is worth nothing any more."""
        self._rows("DELETE FROM invitations WHERE name = ?", name)

    def add(self, certified: Certified) -> None:
        """Write down a certificate before it is given out."""
        self._rows("INSERT INTO certificates VALUES (?, ?, ?, ?, ?, ?, ?)", str(certified.serial), *certified[1:])

    def certificate(self, serial: int) -> Certified | None:
        """The certificate with this number, if it is one of ours."""
        rows = self._rows("SELECT * FROM certificates WHERE serial = ?", str(serial))
        return _certified(rows[0]) if rows else None

    def certificates(self, name: str) -> list[Certified]:
        """All of ``name``, the newest first."""
        rows = self._rows("SELECT * FROM certificates WHERE name = ? ORDER BY issued DESC, rowid DESC", name)
        return [_certified(row) for row in rows]

    def revoke(self, name: str, now: float) -> int:
        """Revoke what ``name`` holds; returns how many certificates that were."""
        query = "UPDATE certificates SET revoked = ? WHERE name = ? AND revoked IS NULL AND expires > ? RETURNING 1"
        return len(self._rows(query, now, name, now))

    def revoke_serial(self, serial: int, when: float) -> None:
        """Revoke one certificate, if it is here and not revoked yet."""
        self._rows("UPDATE certificates SET revoked = ? WHERE serial = ? AND revoked IS NULL", when, str(serial))

    def revoked(self, now: float) -> list[Certified]:
        """The revoked certificates that have not expired by themselves."""
        query = "SELECT * FROM certificates WHERE revoked IS NOT NULL AND expires > ? ORDER BY serial"
        return [_certified(row) for row in self._rows(query, now)]

    def forget_expired(self, name: str, before: float) -> None:
        """Drop the certificates of ``name`` that expired before, except the newest: it says what became of it."""
        query = (
            "DELETE FROM certificates WHERE name = ? AND expires < ? AND rowid NOT IN "
            "(SELECT rowid FROM certificates WHERE name = ? ORDER BY issued DESC, rowid DESC LIMIT 1)"
        )
        self._rows(query, name, before, name)

    def next_number(self, counter: str) -> int:
        """1, 2, 3, ... also across restarts."""
        query = "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value"
        value: int = self._rows(query, counter)[0][0]
        return value

    def members(self, now: float) -> list[Member]:
        """Every name, in order."""
        names = self._rows("SELECT name FROM invitations UNION SELECT name FROM certificates ORDER BY name")
        return [self._member(name, now) for (name,) in names]

    def _member(self, name: str, now: float) -> Member:
        invited, held = self.invitation(name), self.certificates(name)
        if invited is not None and invited.key is not None and not invited.approved:
            return Member(name, "waiting", invited.key, invited.expires)
        if invited is not None and invited.key is None and (not held or held[0].revoked is not None):
            return Member(name, "invited" if invited.expires > now else "expired", "", invited.expires)
        if not held:  # used, but the certificate was not given out: the device asks again
            return Member(name, "invited", invited.key or "" if invited else "", invited.expires if invited else now)
        newest = held[0]
        state: State = "revoked" if newest.revoked is not None else "enrolled" if newest.expires > now else "expired"
        return Member(name, state, newest.key, newest.expires)


def _certified(row: tuple[Any, ...]) -> Certified:
    return Certified(int(row[0]), *row[1:])
