"""The heartbeat, against a real socket of the kind that systemd listens on."""

from __future__ import annotations

import socket
import time
from pathlib import Path

from device_runtime.edge.notify import Heartbeat


def test_it_says_ready_once_and_then_that_it_lives(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        heartbeat = Heartbeat({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "40000"})
        heartbeat.beat()
        heartbeat.beat()  # too soon for another
        assert manager.recv(99) == b"READY=1\nWATCHDOG=1"
        time.sleep(0.02)
        heartbeat.beat()
        assert manager.recv(99) == b"WATCHDOG=1"


def test_without_a_watchdog_it_speaks_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.setblocking(False)
        heartbeat = Heartbeat({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        for _ in range(3):
            heartbeat.beat()
        assert manager.recv(99).startswith(b"READY=1")
        try:
            more = manager.recv(99)
        except BlockingIOError:
            more = b""
        assert more == b""


def test_outside_of_systemd_and_after_it_has_gone_nothing_happens(tmp_path: Path) -> None:
    Heartbeat({}).beat()
    Heartbeat({"NOTIFY_SOCKET": str(tmp_path / "gone")}).beat()
