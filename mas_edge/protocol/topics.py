"""The topics of one fleet, and the names that may stand in them.

fl/v1/{fleet}/dev/{device}/birth    retained  who this device is and what it holds
                          /status   retained  online or not; the last will sets it
                          /cmd                orchestrator -> device, control
                          /rsp                device -> orchestrator, control
                          /chunk              orchestrator -> device, pieces of an artifact
                          /up                 device -> orchestrator, pieces of an update
fl/v1/{fleet}/all/cmd                         orchestrator -> every device
             /all/chunk/{artifact}            pieces broadcast once to whoever misses them
fl/v1/{fleet}/agg/state             retained  the orchestrator's presence
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from mas_edge.protocol.errors import MessageError

VERSION = "v1"
# What may stand in one topic level and in a file name on any disk: no + # / $, no leading dot, no control characters.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def check_name(name: str, what: str) -> str:
    """Return ``name`` unchanged, or raise MessageError if it cannot stand in a topic and in a file name."""
    if not NAME.fullmatch(name):
        message = (
            f"{what} {name!r} is not a valid name: expected 1 to 64 letters, digits, '.', '_' or '-', "
            "beginning with a letter or digit"
        )
        raise MessageError(message)
    return name


@dataclass(frozen=True)
class Topics:
    """Every topic of the fleet ``fleet``; an invalid name cannot get into one."""

    fleet: str

    def __post_init__(self) -> None:
        check_name(self.fleet, "fleet")

    @property
    def root(self) -> str:
        """The common beginning of every topic of this fleet."""
        return f"fl/{VERSION}/{self.fleet}"

    def _device(self, device: str, leaf: str) -> str:
        return f"{self.root}/dev/{check_name(device, 'device')}/{leaf}"

    def birth(self, device: str) -> str:
        """Retained: who the device is."""
        return self._device(device, "birth")

    def status(self, device: str) -> str:
        """Retained, and the last will: online or not."""
        return self._device(device, "status")

    def command(self, device: str) -> str:
        """Control from the orchestrator to one device."""
        return self._device(device, "cmd")

    def response(self, device: str) -> str:
        """Control from one device to the orchestrator."""
        return self._device(device, "rsp")

    def chunk(self, device: str) -> str:
        """Pieces of an artifact for one device."""
        return self._device(device, "chunk")

    def upload(self, device: str) -> str:
        """Pieces of an update from one device."""
        return self._device(device, "up")

    @property
    def command_all(self) -> str:
        """Control from the orchestrator to every device."""
        return f"{self.root}/all/cmd"

    def broadcast(self, artifact: str) -> str:
        """Pieces of ``artifact`` (sha256 in hex), sent once to every device that listens."""
        return f"{self.root}/all/chunk/{artifact[:32]}"

    @property
    def orchestrator(self) -> str:
        """Retained: the orchestrator's presence."""
        return f"{self.root}/agg/state"

    def every(self, leaf: str) -> str:
        """The subscription to one leaf of all devices, such as ``every("rsp")``."""
        return f"{self.root}/dev/+/{leaf}"

    def sender(self, topic: str) -> tuple[str, str]:
        """Return (device, leaf) of a topic below ``dev/``.

        Raises:
            MessageError: the topic is not one of this fleet's device topics.
        """
        head = f"{self.root}/dev/"
        parts = topic[len(head) :].split("/") if topic.startswith(head) else []
        if len(parts) != 2:
            message = f"topic {topic!r} is not a device topic of fleet {self.fleet!r}: expected {head}<device>/<leaf>"
            raise MessageError(message)
        return check_name(parts[0], "device"), parts[1]
