"""Finished work the orchestrator has not acknowledged: one small file a round, so that a power cut loses nothing."""

from __future__ import annotations

from pathlib import Path

import msgspec

from device_runtime.edge.files import disk, sync, write_whole
from mas_edge.protocol.artifact import MAX_CHUNK, MAX_CHUNKS, check_manifest
from mas_edge.protocol.errors import DeviceError, ProtocolError
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
        """Everything that is still to be offered; a damaged file (torn by a power cut) is removed.

        Raises:
            DeviceError: a file cannot be read or removed.
        """
        found = []
        for path in sorted(self._directory.glob("*.json")):
            finished = _read(path)
            # Its name is what it is forgotten by: a file that speaks of another round would be offered for ever.
            if finished is not None and path == self._path(finished.round_id):
                found.append(finished)
            else:
                _remove(path)
        return found

    def add(self, finished: Finished) -> None:
        """Remember ``finished`` across a restart of the process; across a power loss after ``sync``.

        Raises:
            DeviceError: the disk is full or not writable.
        """
        write_whole(self._path(finished.round_id), msgspec.json.encode(finished), durable=False)

    def sync(self, round_id: str) -> None:
        """Return when a power loss could no longer take what is remembered of a round.

        Raises:
            DeviceError: it is not here, or the disk reports a fault.
        """
        sync(self._path(round_id))

    def remove(self, round_id: str) -> None:
        """Forget a round: the orchestrator has spoken its last word on it.

        Raises:
            DeviceError: its file cannot be removed.
        """
        _remove(self._path(round_id))

    def _path(self, round_id: str) -> Path:
        return self._directory / f"{round_id}.json"


def _read(path: Path) -> Finished | None:
    """What a file holds; None if it is damaged."""
    try:
        finished = msgspec.json.decode(path.read_bytes(), type=Finished)
        if finished.manifest is not None:
            check_manifest(finished.manifest, MAX_CHUNKS * MAX_CHUNK, whole_only=True)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError, ProtocolError):
        return None
    except OSError as error:
        message = f"the finished round in {path} cannot be read: {error.strerror}; remove it"
        raise DeviceError(message) from None
    return finished


def _remove(path: Path) -> None:
    with disk("remove", path):
        path.unlink(missing_ok=True)
