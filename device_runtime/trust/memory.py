"""What a device remembers of whom it trusts. Each file is replaced in one rename: power may go at any moment.

    metadata.json   the newest verified metadata, all of it: there is no half of an update
    seen.json       the time that signed metadata spoke of, and the last plan taken of each key

No artifact can overwrite them: artifacts are files named by a digest, in another folder.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from device_runtime.edge.files import write_whole
from mas_edge.protocol.errors import DeviceError, TrustError
from mas_edge.protocol.signed import pack_metadata, unpack_metadata

log = logging.getLogger(__name__)


class Seen(msgspec.Struct, frozen=True):
    """``issued``: when the newest timestamp was signed, by ``clock_keys``; ``plans``: (life, seq) by key."""

    issued: float = 0.0
    clock_keys: tuple[str, ...] = ()
    plans: dict[str, tuple[int, int]] = {}


class Memory:
    """The files in ``folder``. A damaged one counts as none: the device goes on from the root that it was handed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: Mapping[str, bytes] = {}  # metadata, by the names that the TUF client gives them
        self.seen = Seen()
        try:
            if data := self._read("metadata.json"):
                self.files = unpack_metadata(data)
            if data := self._read("seen.json"):
                self.seen = msgspec.json.decode(data, type=Seen)
        except (TrustError, msgspec.MsgspecError) as error:
            log.warning("what was remembered in %s is damaged and begins anew: %s", folder, error)

    def keep_files(self, files: Mapping[str, bytes]) -> None:
        """Remember verified metadata."""
        if files != self.files:
            write_whole(self._folder / "metadata.json", pack_metadata(files))
            self.files = files

    def keep_time(self, issued: float, keys: Iterable[str]) -> None:
        """Remember when the newest timestamp was signed. With other keys the count begins anew: see ``verifier``."""
        clock_keys = tuple(sorted(keys))
        if clock_keys == self.seen.clock_keys:
            issued = max(issued, self.seen.issued)
        self._keep(msgspec.structs.replace(self.seen, issued=issued, clock_keys=clock_keys))

    def keep_plan(self, key: str, number: tuple[int, int], known: Iterable[str]) -> None:
        """Remember the last plan of ``key``; those of keys that are no longer ``known`` are forgotten."""
        plans = {each: self.seen.plans[each] for each in known if each in self.seen.plans}
        self._keep(msgspec.structs.replace(self.seen, plans={**plans, key: number}))

    def _keep(self, seen: Seen) -> None:
        if seen != self.seen:
            write_whole(self._folder / "seen.json", msgspec.json.encode(seen))
            self.seen = seen

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        try:
            return path.read_bytes() if path.exists() else b""
        except OSError as error:
            message = f"{path} cannot be read: {error.strerror}; make the state directory readable"
            raise DeviceError(message) from None
