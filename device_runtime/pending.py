"""Finished work the orchestrator has not acknowledged: one small file a round, so that a power cut loses nothing."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from mas_edge.protocol.errors import DeviceError
from mas_edge.protocol.messages import Manifest, Report


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """A carried-out plan: what an offer says."""

    job: str
    round_id: str
    report: Report
    manifest: Manifest | None = None


class PendingOffers:
    """The finished work of this device, on disk under ``directory``; names of rounds are safe file names."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    def load(self) -> list[Finished]:
        """Everything that is still to be offered; a damaged file (torn by a power cut) is removed."""
        found = []
        for path in sorted(self._directory.glob("*.json")):
            try:
                found.append(msgspec.json.decode(path.read_bytes(), type=Finished))
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
                path.unlink(missing_ok=True)
        return found

    def add(self, finished: Finished) -> None:
        """Remember ``finished`` across a restart.

        Raises:
            DeviceError: the disk is full or not writable.
        """
        path = self._path(finished.round_id)
        temporary = path.with_name(f"{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                file.write(msgspec.json.encode(finished))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            message = f"cannot write down the finished round in {path}: {error.strerror}; free the disk"
            raise DeviceError(message) from None

    def remove(self, round_id: str) -> None:
        """Forget a round: the orchestrator has spoken its last word on it."""
        self._path(round_id).unlink(missing_ok=True)

    def _path(self, round_id: str) -> Path:
        return self._directory / f"{round_id}.json"
