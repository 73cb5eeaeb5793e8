"""The quarantine with its disk: it survives a restart, and the operator's word ends it.

{state}/released/{device}   an empty file, made by ``mas-edge release``: the device may come back
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from pathlib import Path

from msgspec.structs import replace

from mas_edge.federation.quarantine import Quarantine, Standing
from mas_edge.federation.supply import Supply
from mas_edge.orchestrator import view
from mas_edge.orchestrator.limits import Limits
from mas_edge.orchestrator.records import DeviceRecord
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.errors import ServerError

FOLDER = "released"
LOOK_S = 2.0  # until an operator's release is seen: as long as a person waits before asking again
MAX_REASON = 200  # characters of a refusal that are kept: it may quote what the device sent
Log = Callable[[str, str, str, str], None]  # level, text, round, device


class QuarantineDesk:
    """Who is left out of this job, and why."""

    def __init__(self, store: Store, limits: Limits, supply: Supply, log: Log) -> None:
        self._store = store
        self._supply = supply
        self._log = log
        self._quarantine = Quarantine(limits.quarantine_rounds, limits.quarantine_s)
        self._quarantine.restore({record.name: record.standing for record in store.devices()})
        self._look_at = 0.0
        self._restored = list(self._quarantine.inside())  # rounds that were taken up again may wait for them
        self._keep_out()

    def refused(self, device: str, round_id: str, reason: str) -> None:
        """A report was refused, and not for a fault of ours."""
        self._quarantine.on_refused(device, round_id, reason[:MAX_REASON])

    def accepted(self, device: str, round_id: str) -> bool:
        """A report was accepted; returns whether the device stands better for it, and is to be written down anew."""
        return self._quarantine.on_accepted(device, round_id)

    def poll(self, open_rounds: Set[str], now: float) -> list[str]:
        """The devices that stand otherwise than before, which is on the disk; ``now``: of the monotonic clock.

        Raises:
            ServerError: the disk takes no more.
        """
        changed, released = self._restored + self._judge(open_rounds), []
        self._restored = []
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            released = releases_in(self._store.directory)
            changed += self._let_out([path.name for path in released])
        if changed:
            self._write(changed)
            self._keep_out()
        for path in released:  # after it is written down: whoever is killed in between finds the file again
            _remove(path)
        return changed

    def standing(self, device: str) -> Standing:
        """Where a device stands."""
        return self._quarantine.standing(device)

    def why(self, device: str) -> str:
        """Why a device is in quarantine; empty if it is not."""
        return self._quarantine.why(device)

    def _judge(self, open_rounds: Set[str]) -> list[str]:
        struck: list[str] = []
        for round_id in self._quarantine.over(open_rounds):
            record = self._store.record(round_id)
            went_well = record is not None and bool(record.reports)
            struck += self._quarantine.on_closed(round_id, time.time(), went_well=went_well)
        for device in struck:
            if why := self.why(device):
                self._log("warning", f"{device} is in quarantine: {why}", "", device)
        return struck

    def _let_out(self, released: Sequence[str]) -> list[str]:
        out = self._quarantine.poll(time.time())
        for device in out:
            text = f"{device} is out of quarantine, its time is over; the next strike brings it back"
            self._log("info", text, "", device)
        for device in released:
            if self._quarantine.release(device):
                out.append(device)
                self._log("info", f"{device} is released from quarantine by the operator", "", device)
        return out

    def _write(self, devices: Sequence[str]) -> None:
        known = {record.name: record for record in self._store.devices()}
        records = [known.get(device, DeviceRecord(name=device, online=False)) for device in devices]
        self._store.save_devices([replace(record, standing=self.standing(record.name)) for record in records])

    def _keep_out(self) -> None:
        inside = self._quarantine.inside()
        self._supply.kept_out = {device: f"in quarantine: {why}" for device, why in inside.items()}


def release(state: Path, device: str) -> None:
    """Ask the orchestrator of a run, now or when it next starts, to let a device back.

    Raises:
        ServerError: there is no run, it holds no such device in quarantine, or its directory cannot be written to.
    """
    inside = {record.name: record for record in view.read(state).devices if record.standing.strikes}
    if device not in inside:
        held = ", ".join(sorted(inside)) or "nobody"
        message = f"{device} has no strike in the run in {state}; there are strikes against: {held}"
        raise ServerError(message)
    try:
        (state / FOLDER).mkdir(exist_ok=True)
        (state / FOLDER / device).touch()
    except OSError as error:
        message = f"{state / FOLDER} cannot be written to: {error.strerror}; run this as whoever runs serve"
        raise ServerError(message) from None


def releases_in(state: Path) -> list[Path]:
    """The files by which the operator lets devices back."""
    folder = state / FOLDER
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        message = f"{path} cannot be removed: {error.strerror}; until then {path.name} is released again and again"
        raise ServerError(message) from None
