"""Who is there: devices by their birth messages and last wills, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from mas_edge.protocol.messages import Birth, Status


@dataclass
class Registry:
    """The devices of a fleet as the broker tells of them."""

    births: dict[str, Birth] = field(default_factory=dict)
    _statuses: dict[str, Status] = field(default_factory=dict)
    _online: dict[str, Birth] = field(default_factory=dict)  # kept: it is asked for after every event
    _smallest: int = 0

    def on_birth(self, birth: Birth, *, retained: bool) -> bool:
        """Take in a birth; returns whether the device has (again) come to life.

        A retained birth may be older than the device's death; a fresh one proves that it is there.
        """
        known = self.births.get(birth.sender)
        self.births[birth.sender] = birth
        if birth.max_packet:
            self._smallest = min(self._smallest or birth.max_packet, birth.max_packet)
        if not retained:
            self._statuses[birth.sender] = Status(
                sender=birth.sender, boot_id=birth.boot_id, seq=birth.seq, online=True
            )
        self._note(birth.sender)
        return not retained or known is None or known.boot_id != birth.boot_id

    def on_status(self, status: Status) -> bool:
        """Take in a status or a last will; returns whether it changed what we believe.

        The will of an earlier life may arrive after the birth of the next one: it does not count.
        """
        birth = self.births.get(status.sender)
        if birth is not None and birth.boot_id != status.boot_id and not status.online:
            return False
        before = self.is_online(status.sender)
        self._statuses[status.sender] = status
        self._note(status.sender)
        return before != self.is_online(status.sender)

    def is_online(self, device: str) -> bool:
        """Whether the device is there, as far as the broker knows."""
        return device in self._online

    def online(self) -> dict[str, Birth]:
        """The births of the devices that are there."""
        return dict(self._online)

    def _note(self, device: str) -> None:
        birth, status = self.births.get(device), self._statuses.get(device)
        if birth is not None and status is not None and status.online:
            self._online[device] = birth
        else:
            self._online.pop(device, None)

    def packet_limit(self, device: str | None) -> int:
        """The largest packet that a device takes, or (None) that every device that was ever here takes; 0 = any."""
        birth = self.births.get(device) if device else None
        return birth.max_packet if birth else 0 if device else self._smallest
