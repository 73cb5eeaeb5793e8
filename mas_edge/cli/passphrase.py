"""Where passphrases of keys come from: a variable, a file that a variable names, or the terminal."""

from __future__ import annotations

import getpass
import os
from pathlib import Path

from mas_edge.protocol.errors import ServerError

PASSPHRASE = "MAS_EDGE_PASSPHRASE"  # noqa: S105 - the name of a variable, for who signs without a terminal
PASSPHRASE_FILE = "MAS_EDGE_PASSPHRASE_FILE"  # noqa: S105 - a file for a service, as systemd's LoadCredential makes it


def known(name: str) -> bytes:
    """The passphrase of a key that there is.

    Raises:
        ServerError: there is nobody to ask, or the file cannot be read.
    """
    return _from_outside() or _asked(f"passphrase of {name}: ").encode()


def chosen(name: str) -> bytes:
    """The passphrase of a key that is made now.

    Raises:
        ServerError: as ``known``; or what was typed differs the second time, or is empty.
    """
    if given := _from_outside():
        return given
    first = _asked(f"passphrase for {name}: ")
    if not first or first != _asked("the same again: "):
        message = "the passphrases differ, or are empty; nothing was made for this key"
        raise ServerError(message)
    return first.encode()


def _from_outside() -> bytes:
    if given := os.environ.get(PASSPHRASE):
        return given.encode()
    if not (place := os.environ.get(PASSPHRASE_FILE)):
        return b""
    try:
        found = Path(place).read_bytes().rstrip(b"\r\n")
    except OSError as error:
        message = f"the passphrase in {place} ({PASSPHRASE_FILE}) cannot be read: {error.strerror}"
        raise ServerError(message) from None
    if not found:
        message = f"{place} ({PASSPHRASE_FILE}) is empty; expected a passphrase"
        raise ServerError(message)
    return found


def _asked(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except EOFError:
        message = f"a passphrase is needed: type it at a terminal, or set {PASSPHRASE} or {PASSPHRASE_FILE}"
        raise ServerError(message) from None
