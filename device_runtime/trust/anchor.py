"""The root a device was handed, in a file of its own that no message changes: ``trust/root.json`` below the state."""

from __future__ import annotations

import logging
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from device_runtime.edge.files import write_whole
from mas_edge.protocol.errors import DeviceError

if TYPE_CHECKING:
    from device_runtime.trust.verifier import Verifier

log = logging.getLogger(__name__)

ROOT = "root.json"
MAX_ROOT_BYTES = 64 * 1024  # ten keyholders are 5 KB


def has_trust(state: Path) -> bool:
    """Whether this device takes signed plans only."""
    return (state / "trust").exists()


def holds_root(state: Path) -> bool:
    """Whether this device was handed a root."""
    return (state / "trust" / ROOT).exists()


def install(state: Path, root: bytes) -> None:
    """Trust ``root`` (the JSON of a TUF root, got from somebody who is to be believed) from now on.

    Raises:
        DeviceError: it is no root, this device trusts another one already, or the disk fails. One that is damaged on
            disk is no other one.
    """
    path = state / "trust" / ROOT
    held = path.read_bytes() if path.exists() else None
    if held == root:
        return
    if held is not None and _is_root(held):
        message = (
            f"this device trusts another root already; delete {path.parent} to trust this one, or give another --state"
        )
        raise DeviceError(message)
    _client().check_root(root)
    write_whole(path, root)


def _is_root(data: bytes) -> bool:
    try:
        _client().check_root(data)
    except DeviceError:
        return False
    return True


def take_root(state: Path, verifier: Verifier | None, root: bytes) -> None:
    """Make use of the root that came with a renewed certificate; empty: the fleet does not sign its plans.

    Who trusts a root takes only one that its keys have signed. Who trusts none begins to, with the next start.

    Raises:
        TrustError: it is refused; what was believed before is believed on.
        DeviceError: it is no root, a package is missing, or the disk fails.
    """
    if root and verifier is not None:
        verifier.learn_root(root)
    elif root and not has_trust(state):
        install(state, root)
        log.warning("the fleet signs its plans now: from the next start on this device takes no others")


def read_root(place: Path) -> bytes:
    """The root in a file, or in a folder: ``root.json`` or the first root of a signing repository.

    Raises:
        DeviceError: there is none.
    """
    names = (ROOT, "1.root.json", "metadata/1.root.json")
    found = [place] if place.is_file() else [place / name for name in names if (place / name).is_file()]
    try:
        data = found[0].read_bytes() if found else b""
    except OSError as error:
        message = f"{found[0]} cannot be read: {error.strerror}; give the user that runs this the right to"
        raise DeviceError(message) from None
    if not 0 < len(data) <= MAX_ROOT_BYTES:
        message = f"there is no root to trust at {place}: expected the file root.json of `mas-edge sign init`"
        raise DeviceError(message)
    return data


def open_verifier(state: Path, fleet: str, name: str) -> Verifier | None:
    """What opens signed plans for device ``name``; None where there is no trust.

    Raises:
        DeviceError: the trust directory cannot be used, or a package is missing.
    """
    if not has_trust(state):
        return None
    _client()
    from device_runtime.trust.verifier import Verifier

    return Verifier(state / "trust", fleet, name)


def _client() -> ModuleType:
    """The TUF client, imported where there is trust: it costs memory (see the guide)."""
    try:
        from device_runtime.trust import client
    except ImportError:
        message = (
            "trusting signed plans needs the package tuf: pip install 'mas-edge[secure]' "
            "(Termux: pkg install python-cryptography first)"
        )
        raise DeviceError(message) from None
    return client
