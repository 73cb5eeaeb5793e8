"""The broker from pip, for a first look: loopback only, nothing on disk, no access rules."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path
from string import Template

from mas_edge.bundle import bundled
from mas_edge.orchestrator.broker.supervisor import Supervisor, free_port, open_folder, wait_until_free
from mas_edge.protocol.errors import BrokerError

log = logging.getLogger(__name__)


def is_installed() -> bool:
    """Whether the package with the broker is installed."""
    return importlib.util.find_spec("iotcore") is not None


class EmbeddedBroker:
    """The broker of the package iotcore, with its configuration and log in ``state``/broker.

    ``url`` is for MQTT 5, ``url_v311`` for clients that speak only 3.1.1. With ``port`` 0 it takes a free one.

    Raises:
        BrokerError: the package is not installed.
    """

    mode = "embedded"

    def __init__(self, state: Path, port: int = 0) -> None:
        if not is_installed():
            message = "the embedded broker is not installed; pip install 'mas-edge[broker]', or install mosquitto"
            raise BrokerError(message)
        self._folder = open_folder(state)
        self._port = port or free_port()
        self._port_v311 = free_port()
        self._configuration = self._folder / "iotcore.toml"
        # Critical only: at any other level it logs a line for every packet.
        command = ["-m", "iotcore", "--config", str(self._configuration), "--log-level", "CRITICAL"]
        self._supervisor = Supervisor("iotcore", [sys.executable, *command], "127.0.0.1", self._port, self._folder)

    @property
    def url(self) -> str:
        """Where MQTT 5 clients connect."""
        return f"mqtt://127.0.0.1:{self._port}"

    @property
    def url_v311(self) -> str:
        """Where MQTT 3.1.1 clients connect; the messages are the same."""
        return f"mqtt://127.0.0.1:{self._port_v311}"

    @property
    def running(self) -> bool:
        """Whether the process is alive at this moment."""
        return self._supervisor.running

    @property
    def pid(self) -> int | None:
        """The process id of the broker, or None while there is none."""
        return self._supervisor.pid

    def start(self) -> None:
        """Start the broker and return when it answers.

        Raises:
            BrokerError: a port is taken, or the broker does not come up; with the end of its log.
        """
        wait_until_free("127.0.0.1", self._port_v311)
        template = Template(bundled("broker", "iotcore.toml.template").read_text())
        self._configuration.write_text(template.substitute(port=self._port, port_v311=self._port_v311))
        self._supervisor.start()
        log.info("the embedded broker on %s is for a first look: this machine only, nothing on disk", self.url)

    def stop(self) -> None:
        """End the broker; what it retained is gone."""
        self._supervisor.stop()

    def renew(self) -> None:
        """It knows no certificates."""

    def __enter__(self) -> EmbeddedBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
