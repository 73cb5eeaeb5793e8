"""A bell that wakes a thread out of its selector, from any other thread."""

from __future__ import annotations

import socket


class Wakeup:
    """``fileno`` becomes readable at ``ring``, until ``heard``; both ends are closed by ``close``."""

    def __init__(self) -> None:
        self._out, self._in = socket.socketpair()
        self._out.setblocking(False)
        self._in.setblocking(False)

    def fileno(self) -> int:
        """What a selector waits for."""
        return self._out.fileno()

    def ring(self) -> None:
        """Wake the thread."""
        try:
            self._in.send(b"\0")
        except OSError:
            return  # full: the thread is awake already; closed: it has ended

    def heard(self) -> None:
        """The thread is awake."""
        self._out.recv(4096)

    def close(self) -> None:
        """Nobody waits any more."""
        self._out.close()
        self._in.close()
