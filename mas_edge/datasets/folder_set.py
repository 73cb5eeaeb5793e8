"""A set of device folders that is made once: elsewhere, then renamed into place, and known again by its digests.

A half-written set is never seen, a whole one is never made twice, and what someone else put there is never touched.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mas_edge.protocol.errors import DataError


class FolderSet(NamedTuple):
    """What a directory is to hold."""

    what: str  # such as "watch"; the marker is WHAT.json
    recipe: Mapping[str, Any]  # what the contents follow from, as JSON; it is kept in the marker
    write: Callable[[Path], None]  # fills an empty directory; each folder below it is part of the set


def make_once(directory: Path, wanted: FolderSet) -> bool:
    """Make the folders below ``directory``: True if they were made now, False if they were there, whole.

    Raises:
        DataError: ``directory`` holds something else, other or changed folders, or cannot be written.
    """
    if _is_complete(directory, wanted):
        return False
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        parent = Path(tempfile.mkdtemp(prefix=f".{directory.name}-", dir=directory.parent))
    except OSError as error:
        message = f"{directory} cannot be made: {error.strerror}: choose another --out"
        raise DataError(message) from None
    try:
        made = parent / "whole"
        made.mkdir()
        wanted.write(made)
        _mark(made, wanted)
        made.rename(directory)  # takes the place of an empty folder, never of a full one
    except OSError as error:
        if _is_complete(directory, wanted):  # another process was faster
            return False
        message = f"{directory} cannot be written: {error.strerror}; free some space, or choose another --out"
        raise DataError(message) from None
    finally:
        shutil.rmtree(parent, ignore_errors=True)
    return True


def _mark(directory: Path, wanted: FolderSet) -> None:
    digests = {path.relative_to(directory).as_posix(): _sha256(path) for path in sorted(directory.glob("*/*"))}
    marker = json.dumps({**wanted.recipe, "files": digests}, indent=1)
    (directory / f"{wanted.what}.json").write_text(marker + "\n", encoding="utf-8", newline="\n")


def _is_complete(directory: Path, wanted: FolderSet) -> bool:
    """True if the folders are there and whole, False if there is nothing. Raises DataError for anything else."""
    what = wanted.what
    try:
        if not directory.exists() or not any(directory.iterdir()):
            return False
        marker = json.loads((directory / f"{what}.json").read_text(encoding="utf-8"))
        files = dict(marker.pop("files"))
        _same_arguments(directory, wanted, marker)
        same = marker == wanted.recipe and bool(files)
        whole = same and all(_sha256(directory / name) == digest for name, digest in files.items())
    except (FileNotFoundError, NotADirectoryError):
        message = f"{directory} holds something else than whole {what} folders: choose an empty or new folder as --out"
        raise DataError(message) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        message = f"{directory} holds {what} folders that were changed or made by another version: delete it, run again"
        raise DataError(message)
    return True


def _same_arguments(directory: Path, wanted: FolderSet, marker: dict[str, Any]) -> None:
    """Raise DataError if the folders are of this version but were made with other ``arguments``."""
    there, asked = marker.get("arguments", {}), wanted.recipe.get("arguments", {})
    if {**marker, "arguments": asked} == {**wanted.recipe, "arguments": asked} and there != asked:
        differ = [f"{key} {there.get(key)}, not {value}" for key, value in asked.items() if there.get(key) != value]
        message = f"{directory} holds {wanted.what} folders with {'; '.join(differ)}: choose another --out or delete it"
        raise DataError(message)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
