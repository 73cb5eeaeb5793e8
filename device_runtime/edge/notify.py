"""Telling systemd that the agent is up and alive (sd_notify(3)): one datagram each to the socket it names."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping


class Heartbeat:
    """``beat`` says READY the first time and WATCHDOG from then on, as often as it wants; else does nothing."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # @: an abstract socket
        usec = environment.get("WATCHDOG_USEC", "")
        self._every_s = int(usec) / 1e6 / 4 if usec.isdigit() else float("inf")  # four beats within its patience
        self._next = float("-inf")

    def beat(self) -> None:
        """Say that we live, if it is time."""
        if not self._address or (now := time.monotonic()) < self._next:
            return
        self._send("READY=1\nWATCHDOG=1" if self._next == float("-inf") else "WATCHDOG=1")
        self._next = now + self._every_s

    def _send(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(self._address)
                sock.send(text.encode())
        except OSError:
            return  # nobody listens any more; the manager will do what it thinks right
