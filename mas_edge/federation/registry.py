"""Who is there: devices by their birth messages and last wills, without I/O."""

from __future__ import annotations

from dataclasses import dataclass, field

from mas_edge.protocol.messages import Birth, Status


@dataclass
class Registry:
    """The devices of a fleet as the broker tells of them."""

    births: dict[str, Birth] = field(default_factory=dict)
    _statuses: dict[str, Status] = field(default_factory=dict)
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
        return before != self.is_online(status.sender)

    def is_online(self, device: str) -> bool:
        """Whether the device is there, as far as the broker knows."""
        status = self._statuses.get(device)
        return device in self.births and status is not None and status.online

    def online(self) -> dict[str, Birth]:
        """The births of the devices that are there."""
        return {name: birth for name, birth in self.births.items() if self.is_online(name)}

    def packet_limit(self, device: str | None) -> int:
        """The largest packet that a device takes, or (None) that every device that was ever here takes; 0 = any."""
        birth = self.births.get(device) if device else None
        return birth.max_packet if birth else 0 if device else self._smallest
