"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from mas_edge.protocol.errors import ServerError

MARKER = "card.toml"  # what makes a folder an export of ours, so that --force replaces nothing else


def check_place(place: Path, *, force: bool) -> None:
    """Make the folder around ``place``, and make sure that ``place`` can be written there later.

    Raises:
        ServerError: something is there already, and may not be replaced; or the disk refuses.
    """
    if place.exists() or place.is_symlink():
        if not force:
            message = f"{place} exists: choose another --out, or --force to replace it"
            raise ServerError(message)
        if not (place / MARKER).is_file() or place.is_symlink():
            message = (
                f"{place} is no export (it holds no {MARKER}), so --force does not replace it: choose another --out"
            )
            raise ServerError(message)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent)).rmdir()
    except OSError as error:
        message = f"{place} cannot be written: {error.strerror}: choose another --out"
        raise ServerError(message) from None


def write_whole(place: Path, contents: Mapping[str, bytes], *, force: bool = False) -> None:
    """Write the files ``contents`` (by their path below ``place``) elsewhere, and rename their folder to ``place``.

    Raises:
        ServerError: as for ``check_place``.
    """
    check_place(place, force=force)
    try:
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as made:
            whole = Path(made) / "whole"
            for name, data in contents.items():
                _write(whole / name, data)
            if force and place.exists():
                place.rename(Path(made) / "replaced")  # goes with the temporary folder
            whole.rename(place)
    except OSError as error:
        message = f"{place} cannot be written: {error.strerror}: free some space, or choose another --out"
        raise ServerError(message) from None


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def remove_empty(directories: Iterable[Path]) -> None:
    """Remove those of ``directories`` that hold nothing: what an export that failed had made for itself."""
    for directory in directories:
        with contextlib.suppress(OSError):
            directory.rmdir()
