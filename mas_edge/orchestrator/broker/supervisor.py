"""A broker process of our own: started, watched, started again when it dies, and never left behind."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mas_edge.orchestrator.child import spawn
from mas_edge.protocol.errors import BrokerError

log = logging.getLogger(__name__)

START_S = 15.0  # a broker answers in 0.1 s; a small board under load takes longer
STOP_S = 5.0  # a broker writes its database first
PORT_FREE_S = 5.0  # the broker of an orchestrator that was killed needs a moment to end
FIRST_DELAY_S, LAST_DELAY_S, STABLE_S = 0.2, 30.0, 60.0  # back-off of restarts, and what counts as recovered
MAX_LOG_BYTES = 5_000_000  # then one older log is kept
_POLL_S = 0.05
# What a connection of anybody is given by itself begins at 32768 on Linux, later elsewhere: such a port would be taken
# by accident between the choice and the start of a broker, or while a broker is started again.
_OWN_PORTS = range(20000, 32000)
_LOOKED_AT = 100  # hardly one of them is taken, unless all are


class Supervisor:
    """Keeps ``command``, a broker that listens on ``host``:``port``, running.

    Its output goes to ``log_file``. ``folder`` is its working directory. ``tls`` makes the context to ask it with.
    ``environment``: variables that it gets beside ours.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        host: str,
        port: int,
        folder: Path,
        tls: Callable[[], ssl.SSLContext] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_file = folder / f"{name}.log"
        self._command = command
        self._host = host
        self._port = port
        self._folder = folder
        self._tls = tls
        self._environment = environment
        self._wanted = threading.Event()  # set while we end it ourselves, to start it again
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()  # a broker is not spawned once we are stopping
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def running(self) -> bool:
        """Whether the process is alive at this moment."""
        return self.pid is not None

    @property
    def pid(self) -> int | None:
        """The broker's process id, or None while there is none."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start the broker and return when it answers an MQTT CONNECT.

        Raises:
            BrokerError: the port is taken, or the process ended or did not answer; with the end of its log.
        """
        wait_until_free(self._host, self._port)
        self._stopping.clear()
        try:
            self._spawn()
            self._wait_until_it_answers()
        except OSError as error:
            message = f"{self.name} cannot be started in {self._folder}: {error}"
            raise BrokerError(message) from None
        except BaseException:
            self._end()
            raise
        self._thread = threading.Thread(target=self._watch, name=f"supervisor of {self.name}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the broker and wait until it is gone."""
        with self._lock:
            self._stopping.set()
        self._end()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def restart(self) -> None:
        """Have it end in order and start again at once; returns before that."""
        with self._lock:
            if self._process is not None and not self._stopping.is_set():
                self._wanted.set()
                self._process.terminate()

    def _spawn(self) -> None:
        with contextlib.suppress(OSError):
            if self.log_file.stat().st_size > MAX_LOG_BYTES:
                self.log_file.replace(self.log_file.with_suffix(".log.1"))
        with self._lock, self.log_file.open("ab") as output:
            if self._stopping.is_set():
                return
            self._process = spawn(self._command, self.name, output, self._folder, self._environment)

    def _wait_until_it_answers(self) -> None:
        process, deadline = self._process, time.monotonic() + START_S
        while True:
            answered = answers(self._host, self._port, self._tls() if self._tls is not None else None)
            code = None if process is None else process.poll()
            if answered and code is None:
                return
            if code is not None or time.monotonic() > deadline:
                what = f"ended with code {code}" if code is not None else f"did not answer within {START_S:g} s"
                message = f"{self.name} {what}; its last words in {self.log_file}: {self._last_words()}"
                raise BrokerError(message)
            time.sleep(_POLL_S)

    def _last_words(self) -> str:
        lines = self.log_file.read_text(errors="replace").split("\n") if self.log_file.exists() else []
        return " | ".join(line.strip() for line in lines[-6:] if line.strip()) or "none"

    def _watch(self) -> None:
        delay = FIRST_DELAY_S
        while not self._stopping.is_set():
            since = time.monotonic()
            code = self._wait()
            if time.monotonic() - since > STABLE_S:
                delay = FIRST_DELAY_S
            if self._stopping.is_set():
                return
            if self._wanted.is_set():
                self._wanted.clear()
                log.info("%s is started again", self.name)
            else:
                log.error("%s ended with code %s; starting it again; its log: %s", self.name, code, self.log_file)
                if self._stopping.wait(delay):
                    return
                delay = min(2 * delay, LAST_DELAY_S)
            try:
                self._spawn()
            except OSError as error:
                log.error("%s cannot be started in %s: %s", self.name, self._folder, error)

    def _wait(self) -> int | None:
        """Wait for the end of the process; return its code."""
        process = self._process
        if process is None:
            return None
        code = process.wait()
        if process.stdin is not None:
            process.stdin.close()  # the watcher of the dead one goes too
        return code

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()  # the watcher sends SIGTERM
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def open_folder(state: Path) -> Path:
    """Make the folder ``state``/broker, where a broker of our own keeps its files.

    Raises:
        BrokerError: it cannot be made or written to.
    """
    folder = (state / "broker").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot make the folder {folder} for the broker: {error.strerror}; choose another state directory"
        raise BrokerError(message) from None
    if not os.access(folder, os.W_OK | os.X_OK):
        message = f"cannot write to the folder {folder} of the broker; correct its permissions"
        raise BrokerError(message)
    return folder


def wait_until_free(host: str, port: int) -> None:
    """Wait up to PORT_FREE_S seconds until a port can be listened on.

    Raises:
        BrokerError: it cannot.
    """
    deadline = time.monotonic() + PORT_FREE_S
    while (problem := _cannot_listen(host, port)) is not None:
        if time.monotonic() > deadline:
            message = f"port {port} on {host} is not free ({problem}); stop what listens there or choose another port"
            raise BrokerError(message)
        time.sleep(_POLL_S)


def _cannot_listen(host: str, port: int) -> str | None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        return error.strerror or str(error)
    return None


def free_port() -> int:
    """A loopback port that nothing listens on at this moment, and that no system hands out by itself.

    Raises:
        BrokerError: none was found.
    """
    for port in random.SystemRandom().sample(_OWN_PORTS, _LOOKED_AT):
        if _cannot_listen("127.0.0.1", port) is None:
            return port
    message = f"found no free port on 127.0.0.1 among {_LOOKED_AT} from {_OWN_PORTS[0]} to {_OWN_PORTS[-1]}; choose one"
    raise BrokerError(message)


def answers(host: str, port: int, tls: ssl.SSLContext | None = None) -> bool:
    """Whether a broker answers an MQTT 5 CONNECT there, over TLS or plain; a refusal is an answer too."""
    client = b"mas-edge-probe"
    # Section 3.1: protocol name, version 5, clean start, keep-alive 5 s, no properties, client identifier.
    body = b"\0\4MQTT\5\2\0\5\0" + struct.pack("!H", len(client)) + client
    try:
        with socket.create_connection((host, port), timeout=1.0) as plain:
            sock = plain if tls is None else tls.wrap_socket(plain, server_hostname=host)
            sock.sendall(bytes([0x10, len(body)]) + body)
            answered = sock.recv(1) == b"\x20"
            sock.sendall(b"\xe0\0")
            sock.close()
    except OSError:
        return False
    return answered
