"""The page and the API in a process beside the orchestrator: started, started again when it dies, never left behind.

What it does wrong stays with it: the orchestrator neither waits for it nor talks to it.
"""

from __future__ import annotations

import logging
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from device_runtime.child import command
from mas_edge.orchestrator.child import spawn
from mas_edge.protocol.errors import ServerError

log = logging.getLogger(__name__)

LOG = "web.log"  # in the state directory
MAX_LOG_BYTES = 5_000_000  # then one older log is kept
FIRST_DELAY_S, LAST_DELAY_S, STABLE_S = 0.5, 60.0, 60.0  # back-off of restarts, and what counts as recovered
STOP_S = 5.0  # it lets live streams go within two


@contextmanager
def beside(state: Path, host: str, port: int, options: Sequence[str]) -> Iterator[None]:
    """Have ``mas-edge web STATE`` with these options run while the block runs.

    Raises:
        ServerError: ``host``:``port`` cannot be listened on; later failures are lines in the log, no run ends for them.
    """
    _require_free(host, port)
    keeper = _Keeper(state, command("mas_edge", "web", str(state), *options))
    keeper.start()
    try:
        yield
    finally:
        keeper.stop()


class _Keeper:
    def __init__(self, state: Path, started: list[str]) -> None:
        self._log_file = state / LOG
        self._command = started
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # nothing is spawned once we are stopping
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep, name="keeper of the page", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        with self._lock:
            self._stopping.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._thread.join()

    def _keep(self) -> None:
        delay = FIRST_DELAY_S
        while not self._stopping.is_set():
            since = time.monotonic()
            try:
                process = self._spawn()
            except OSError as error:
                log.error("the page cannot be started: %s", error)
                process = None
            if process is not None:
                code = process.wait()
                if process.stdin is not None:
                    process.stdin.close()
                if self._stopping.is_set():
                    return
                log.error("the page ended with code %s; starting it again; its log: %s", code, self._log_file)
            delay = FIRST_DELAY_S if time.monotonic() - since > STABLE_S else min(2 * delay, LAST_DELAY_S)
            self._stopping.wait(delay)

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        if self._log_file.exists() and self._log_file.stat().st_size > MAX_LOG_BYTES:
            self._log_file.replace(self._log_file.with_suffix(".log.1"))
        with self._lock, self._log_file.open("ab") as output:
            if self._stopping.is_set():
                return None
            self._process = spawn(self._command, "web", output)
        return self._process


def _require_free(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        message = f"--http {host}:{port} cannot be listened on: {error.strerror or error}; choose another one"
        raise ServerError(message) from None
