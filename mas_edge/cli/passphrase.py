"""Where passphrases of keys come from: a file or descriptor, a variable, a file that it names, or the terminal."""

from __future__ import annotations

import argparse
import getpass
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

from mas_edge.protocol.errors import ServerError

PASSPHRASE = "MAS_EDGE_PASSPHRASE"  # noqa: S105 - the name of a variable, for who signs without a terminal
PASSPHRASE_FILE = "MAS_EDGE_PASSPHRASE_FILE"  # noqa: S105 - a file for a service, as systemd's LoadCredential makes it
LONGEST = 1024  # bytes of a passphrase; a file that is longer is another one
_CREDENTIALS = "CREDENTIALS_DIRECTORY"  # systemd lets a service's user read there by more than the mode says


def add_passphrase_file(parser: argparse.ArgumentParser, option: str = "--passphrase-file", of: str = "ca.key") -> None:
    """Add an option that names a file with the passphrase of a key."""
    parser.add_argument(
        option, type=Path, metavar="FILE",
        help=f"take the passphrase of {of} from this file (mode 0600), or from an open descriptor: /dev/fd/3",
    )  # fmt: skip


def known_from(place: Path | None) -> Callable[[str], bytes]:
    """What gives the passphrase of a key that there is: the file ``place``, or as ``known``."""
    return known if place is None else lambda _: _read(place)


def known(name: str) -> bytes:
    """The passphrase of a key that there is.

    Raises:
        ServerError: there is nobody to ask, or the file cannot be read.
    """
    return _from_outside() or _asked(f"passphrase of {name}: ").encode()


def chosen_from(place: Path | None, name: str) -> bytes:
    """The passphrase of a key that is made now: in the file ``place``, or as ``chosen``. Raises ServerError."""
    return chosen(name) if place is None else _read(place)


def chosen(name: str) -> bytes:
    """The passphrase of a key that is made now.

    Raises:
        ServerError: as ``known``; or what was typed differs the second time, or is empty.
    """
    if given := _from_outside():
        return given
    first = _asked(f"passphrase for {name}: ")
    if not first or first != _asked("the same again: "):
        message = "the passphrases differ, or are empty; nothing was made for this key: run this again"
        raise ServerError(message)
    return first.encode()


def _from_outside() -> bytes:
    if given := os.environ.get(PASSPHRASE):
        return given.encode()
    place = os.environ.get(PASSPHRASE_FILE)
    return _read(Path(place)) if place else b""


def _read(place: Path) -> bytes:
    """The first line of a file that nobody else may read, or of a pipe. Its content is in no message."""
    try:
        with place.open("rb") as file:
            _require_private(os.fstat(file.fileno()), place)
            found = file.read(LONGEST + 2).rstrip(b"\r\n")
    except OSError as error:
        message = f"the passphrase in {place} cannot be read: {error.strerror}"
        raise ServerError(message) from None
    if not found or len(found) > LONGEST or b"\n" in found:
        what = "is empty" if not found else f"holds more than one line or {LONGEST} bytes"
        message = f"{place} {what}; expected a passphrase and nothing else"
        raise ServerError(message)
    return found


def _require_private(about: os.stat_result, place: Path) -> None:
    if not stat.S_ISREG(about.st_mode):  # a pipe or terminal: what it brings lies nowhere
        return
    folder = os.environ.get(_CREDENTIALS)
    others = 0o007 if folder and place.resolve().is_relative_to(Path(folder).resolve()) else 0o077
    if about.st_mode & others:
        mode = stat.S_IMODE(about.st_mode)
        message = (
            f"{place} has mode {mode:04o}, others may read the passphrase: chmod 600 {place}, or choose another one"
        )
        raise ServerError(message)


def _asked(prompt: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # no terminal: it would be seen as it is typed
            return getpass.getpass(prompt)
    except (EOFError, getpass.GetPassWarning):
        message = (
            "a passphrase is needed: type it at a terminal, or give --passphrase-file (`fleet` and `serve`), or set "
            f"{PASSPHRASE_FILE} to the path of a file of mode 0600"
        )
        raise ServerError(message) from None
