"""What a comparison's folder was begun with, and what its results do not say themselves: wall time, machine, data."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from mas_edge.job import Job
from mas_edge.protocol.errors import DataError, JobError, ServerError
from mas_edge.whole_file import write_text

FILE = "ledger.json"
CHUNK = 1 << 20


class Ledger(msgspec.Struct, kw_only=True):
    """One folder's."""

    job: Job
    data: str  # the digest of all data folders
    device: str
    machines: list[str] = []  # that have run parts of it, in order
    wall_seconds: dict[str, float] = {}  # by run, over all its starts


def open_ledger(out: Path, job: Job, folders: Sequence[Path], device: str) -> Ledger:
    """Return the folder's ledger, or a new one if there is none.

    Raises:
        JobError: the folder holds a comparison of another job, of other data or on another kind of device.
        DataError: a data folder cannot be read.
        ServerError: the ledger cannot be read.
    """
    fresh = Ledger(job=job, data=digest(folders), device=device)
    path = out / FILE
    if not path.exists():
        return fresh
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Ledger)
    except (OSError, msgspec.DecodeError) as error:
        message = f"{path} cannot be read: {error}; choose another --out"
        raise ServerError(message) from None
    for what, same in (
        ("of another job", found.job == job),
        ("on other data", found.data == fresh.data),
        (f"with --device {found.device}", found.device == device),
    ):
        if not same:
            message = f"{out} holds a comparison {what}: go on with the same, or choose another --out"
            raise JobError(message)
    return found


def save_ledger(out: Path, ledger: Ledger) -> None:
    """Write it so that it is there whole or not at all. Raises ServerError if it cannot be written."""
    write_text(out / FILE, msgspec.json.format(msgspec.json.encode(ledger)).decode() + "\n")


def digest(folders: Sequence[Path]) -> str:
    """Return the sha256 over names and bytes of all files in the data folders. Raises DataError."""
    whole = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.is_file():
                whole.update(f"{folder.name}/{path.name}\n".encode())
                _add(whole, path)
    return whole.hexdigest()


def _add(whole: hashlib._Hash, path: Path) -> None:
    try:
        with path.open("rb") as file:
            while block := file.read(CHUNK):
                whole.update(block)
    except OSError as error:
        message = f"{path} cannot be read: {error}; give the user that runs this the right to"
        raise DataError(message) from None


def this_machine(device: str) -> str:
    """Return processor, cores and versions in one line."""
    where = f"{_processor()}, {os.cpu_count()} cores"
    if device == "cuda":
        import torch

        where += f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ", no GPU"
    return f"{where}; {platform.system()}, Python {platform.python_version()}, torch {version('torch')}"


def _processor() -> str:
    """As Linux names it; elsewhere the architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = dict(line.split(":", 1) for line in lines if ":" in line)
    models: Mapping[str, str] = {key.strip(): value.strip() for key, value in named.items()}
    return models.get("model name") or models.get("Model") or platform.machine()
