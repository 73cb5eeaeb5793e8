"""Files that a command leaves for its user: there whole or not at all, and an error that says what to do."""

from __future__ import annotations

from pathlib import Path

from device_runtime.edge.files import disk, write_whole
from mas_edge.protocol.errors import DeviceError, ServerError


def write_text(target: Path, text: str) -> None:
    """Replace a file by ``text`` in UTF-8; a power cut leaves the old one or the new one. Its folder is made.

    What is there and is no file, such as a pipe or ``/dev/stdout``, is written into and stays what it is; of a link
    the file that it leads to is replaced.

    Raises:
        ServerError: the disk is full or not writable; the old file stays.
    """
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            with disk("write", target):
                target.write_text(text, encoding="utf-8")
        else:
            write_whole(target.resolve(), text.encode())
    except DeviceError as error:  # devices write in the same way; here it is this machine's disk
        raise ServerError(str(error)) from None
