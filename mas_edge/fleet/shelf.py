"""What a fleet hands out over HTTPS beside its broker: signing metadata, and the artifacts that they list.

Only what is listed: beside the models in a run's folder lie the updates of devices, which are nobody else's. Needs no
package of cryptography: who asks for a file is checked by the endpoint, and what is in it by whoever asks.
"""

from __future__ import annotations

import threading
from pathlib import Path

import msgspec

from mas_edge.protocol.enrolment import ARTIFACTS_PATH, METADATA_PATH
from mas_edge.protocol.signed import METADATA_FILE, MODELS


class _Target(msgspec.Struct, frozen=True):
    hashes: dict[str, str]


class _Signed(msgspec.Struct, frozen=True):
    targets: dict[str, _Target]


class _Listed(msgspec.Struct, frozen=True):
    """As much of TUF's targets metadata as is looked at here."""

    signed: _Signed


class Shelf:
    """The repository ``signing``, and the artifacts of the run in ``artifacts``; None: metadata alone."""

    def __init__(self, signing: Path, artifacts: Path | None = None) -> None:
        self._metadata = signing / "metadata"
        self._artifacts = artifacts
        self._lock = threading.Lock()  # the endpoint asks on a thread for each device
        self._seen = 0
        self._listed: frozenset[str] = frozenset()

    def find(self, path: str) -> Path | None:
        """The file that a request is for; None if there is none, or it is not for everybody in the fleet."""
        place, name = METADATA_PATH, path.removeprefix(METADATA_PATH)
        if path.startswith(place) and METADATA_FILE.fullmatch(name):
            return _there(self._metadata / name)
        name = path.removeprefix(ARTIFACTS_PATH)
        if self._artifacts and path.startswith(ARTIFACTS_PATH) and name in self._digests():
            return _there(self._artifacts / name)
        return None

    def _digests(self) -> frozenset[str]:
        """The artifacts of the newest list, read again whenever something was published."""
        try:
            changed = (self._metadata / "timestamp.json").stat().st_mtime_ns
            with self._lock:
                if changed != self._seen:
                    self._listed, self._seen = self._read(), changed
                return self._listed
        except (OSError, msgspec.MsgspecError):  # in the middle of being published, or damaged: nothing for now
            return frozenset()

    def _read(self) -> frozenset[str]:
        lists = self._metadata.glob(f"[1-9]*.{MODELS}.json")
        newest = max(lists, key=lambda path: int(path.name.partition(".")[0]), default=None)
        if newest is None:
            return frozenset()
        listed = msgspec.json.decode(newest.read_bytes(), type=_Listed).signed.targets
        return frozenset(target.hashes.get("sha256", "") for target in listed.values())


def _there(path: Path) -> Path | None:
    return path if path.is_file() else None
