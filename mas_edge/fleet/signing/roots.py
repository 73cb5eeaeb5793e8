"""The newest root of a signing repository, as it is handed to devices that join; needs no package."""

from __future__ import annotations

from pathlib import Path

from mas_edge.protocol.enrolment import MAX_ROOT_BYTES
from mas_edge.protocol.errors import ServerError

_ENDING = ".root.json"


def newest_root(folder: Path) -> bytes:
    """The bytes of the root that was published last in the signing repository in ``folder``.

    Raises:
        ServerError: there is none, or it cannot be read or sent.
    """
    found = [path for path in (folder / "metadata").glob(f"*{_ENDING}") if path.name.split(".")[0].isdecimal()]
    if not found:
        message = f"there is no signing repository in {folder}; make one: mas-edge sign init {folder}"
        raise ServerError(message)
    newest = max(found, key=lambda path: int(path.name.split(".")[0]))
    try:
        data = newest.read_bytes()
    except OSError as error:
        message = f"{newest} cannot be read: {error.strerror}; restore {folder} from a copy"
        raise ServerError(message) from None
    if len(data) > MAX_ROOT_BYTES:
        message = f"{newest} has {len(data)} bytes; devices that join are handed at most {MAX_ROOT_BYTES}"
        raise ServerError(message)
    return data
