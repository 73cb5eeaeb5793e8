"""A private mosquitto: configured by us, supervised, reachable from this machine only unless asked otherwise."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import logging
import os
import secrets
import shutil
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from device_runtime.edge.address import parse_url
from device_runtime.edge.tls import context_for
from device_runtime.home_assistant import topics_of
from mas_edge.bundle import bundled
from mas_edge.orchestrator.broker.secured import access_lines
from mas_edge.orchestrator.broker.supervisor import Supervisor, free_port, open_folder
from mas_edge.protocol.errors import BrokerError

if TYPE_CHECKING:
    from mas_edge.fleet.folder import Fleet

log = logging.getLogger(__name__)

# Where systems put it; the sbin folders are not on every user's PATH.
_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/sbin")
_USER = "fleet"
# The C library gives memory back to the system after each large message and takes it again for the next, 34,000 page
# faults a round of 8 devices and 10 MB: half of the broker's processor time (measured, docs/results/rounds.md). It may
# keep 4 MiB. Other C libraries do not know these variables.
_KEEP_MEMORY = {
    "MALLOC_TRIM_THRESHOLD_": str(4 * 1024 * 1024),
    "MALLOC_MMAP_THRESHOLD_": str(1024 * 1024),
    "MALLOC_TOP_PAD_": str(1024 * 1024),
}


def find_mosquitto() -> Path | None:
    """Return the mosquitto program of this machine, if there is one."""
    found = shutil.which("mosquitto", path=os.pathsep.join([os.environ.get("PATH", ""), *_FOLDERS]))
    return None if found is None else Path(found)


class ManagedBroker:
    """A mosquitto whose configuration, database and log are in ``state``/broker.

    With ``port`` 0 it takes a free port once and keeps it: devices know its URL across restarts. With a ``fleet`` only
    its members get in, by TLS and certificates, each to its own topics. Without one, on a ``host`` other than this
    machine's loopback, it wants ``insecure`` and asks every client for the password that is in ``url``. The members of
    a ``fleet`` may show themselves to Home Assistant below the prefix ``home_assistant``, if there is one.

    Raises:
        BrokerError: mosquitto is not installed, or ``host`` needs a ``fleet`` or ``insecure``.
        DeviceError: ``home_assistant`` is no prefix, or Home Assistant would not find devices of this fleet.
    """

    mode = "managed"

    def __init__(
        self,
        state: Path,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        fleet: Fleet | None = None,
        insecure: bool = False,
        home_assistant: str = "",
    ) -> None:
        binary = find_mosquitto()
        if binary is None:
            message = (
                "mosquitto is not installed; install it (Debian: apt install mosquitto) or give the URL of a broker"
            )
            raise BrokerError(message)
        self._loopback = _is_loopback(host)
        if not self._loopback and fleet is None and not insecure:
            message = (
                f"on {host} the broker would be reachable from the network without TLS; give --fleet DIR "
                "(made by: mas-edge fleet init DIR), or spell out --insecure"
            )
            raise BrokerError(message)
        if home_assistant and fleet is not None:
            topics_of(home_assistant, fleet.settings.name, "any")
        self._fleet = fleet
        self._home_assistant = home_assistant
        self._folder = open_folder(state)
        self._host = host
        self._port = port or self._remembered_port()
        # Wildcard addresses are for listening; we ourselves reach the broker by the loopback.
        self._reach = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
        self._password = "" if self._loopback or fleet is not None else self._remembered_password()
        self._configuration = self._folder / "mosquitto.conf"
        self._supervisor = Supervisor(
            "mosquitto",
            [str(binary), "-c", str(self._configuration)],
            self._reach,
            self._port,
            self._folder,
            None if fleet is None else lambda: context_for(parse_url(self.url)),
            _KEEP_MEMORY,
        )

    @property
    def url(self) -> str:
        """Where clients connect; holds the password if there is one. With a fleet, for the orchestrator alone."""
        host = f"[{self._reach}]" if ":" in self._reach else self._reach
        if self._fleet is not None:
            return self._fleet.url_at(f"mqtts://{host}:{self._port}")
        user = f"{_USER}:{self._password}@" if self._password else ""
        return f"mqtt://{user}{host}:{self._port}"

    @property
    def running(self) -> bool:
        """Whether the process is alive at this moment."""
        return self._supervisor.running

    @property
    def pid(self) -> int | None:
        """The process id of mosquitto, or None while there is none."""
        return self._supervisor.pid

    def start(self) -> None:
        """Start mosquitto and return when it answers.

        Raises:
            BrokerError: the port is taken, or mosquitto does not come up; with the end of its log.
        """
        self._write_configuration()
        if self._password:
            log.warning("the broker listens on %s without TLS: anybody on that network can read along", self._host)
        self._supervisor.start()
        (self._folder / "port").write_text(f"{self._port}\n")
        log.info("mosquitto listens on %s:%d; its files are in %s", self._host, self._port, self._folder)

    def stop(self) -> None:
        """End mosquitto; what it retained is on disk."""
        self._supervisor.stop()

    def renew(self) -> None:
        """Start mosquitto again with the fleet's present files.

        It reads revocations and certificates at a signal too, but leaves those connected who are: this ends them all,
        and who may comes back within a second, to the session that is on disk.
        """
        self._supervisor.restart()

    def __enter__(self) -> ManagedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _remembered_port(self) -> int:
        path = self._folder / "port"
        if not path.exists():
            return free_port()
        text = path.read_text().strip()
        if not text.isdecimal() or not 0 < int(text) < 65536:
            message = f"{path} holds {text!r}, expected a port number; delete the file to get a new port"
            raise BrokerError(message)
        return int(text)

    def _remembered_password(self) -> str:
        path = self._folder / "password"
        if not path.exists():
            _write_private(path, secrets.token_urlsafe(18))
        return path.read_text().strip()

    def _write_configuration(self) -> None:
        lines = ["allow_anonymous true"]
        if self._fleet is not None:
            lines = access_lines(self._fleet, self._folder, self._home_assistant)
        elif self._password:
            hashed = self._folder / "passwords"
            _write_private(hashed, f"{_USER}:{_hash(self._password)}\n")
            lines = ["allow_anonymous false", f"password_file {hashed}"]
        if os.geteuid() == 0:
            lines.append("user root")  # otherwise it becomes the user mosquitto, who cannot write to our folder
        template = Template(bundled("broker", "mosquitto.conf.template").read_text())
        text = template.substitute(host=self._host, port=self._port, folder=self._folder, access="\n".join(lines))
        self._configuration.write_text(text)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def _hash(password: str) -> str:
    """The format of mosquitto_passwd: PBKDF2 with SHA-512; the salt is 12 bytes, the iterations are in the text."""
    salt, iterations = secrets.token_bytes(12), 20_000
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, iterations)
    return f"$7${iterations}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"
