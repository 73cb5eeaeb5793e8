"""Brokers that only tests start: one that speaks MQTT 3.1.1 only, and mosquittos with limits or without a memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from mas_edge.orchestrator.broker.managed import find_mosquitto
from mas_edge.orchestrator.broker.supervisor import Supervisor, free_port, open_folder

ROOT = Path(__file__).parents[1]
# Its packages are pinned to versions that others do not want: it lives in an environment of its own (see the Makefile).
AMQTT_PYTHON = Path(os.environ.get("MAS_EDGE_AMQTT_PYTHON") or ROOT / ".venv-amqtt" / "bin" / "python")


class Running(Protocol):
    """What a test may ask of any broker that it was given."""

    @property
    def url(self) -> str:
        """Where clients connect."""

    @property
    def mode(self) -> str:
        """Which broker it is."""

    @property
    def pid(self) -> int | None:
        """The broker's process, None while there is none."""

    def start(self) -> None:
        """Start it again after ``stop``."""

    def stop(self) -> None:
        """End it."""


class _Supervised:
    """A broker process on a free port of the loopback, started again when it dies."""

    mode: str
    credentials = ""

    def __init__(self, name: str, command: list[str], port: int, folder: Path) -> None:
        self._port = port
        self._supervisor = Supervisor(name, command, "127.0.0.1", port, folder)

    @property
    def url(self) -> str:
        return f"mqtt://{self.credentials}127.0.0.1:{self._port}"

    @property
    def pid(self) -> int | None:
        return self._supervisor.pid

    def start(self) -> None:
        self._supervisor.start()

    def stop(self) -> None:
        self._supervisor.stop()

    def __enter__(self) -> Running:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


_AMQTT = """\
listeners:
  default:
    type: tcp
    bind: 127.0.0.1:{port}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin:
    allow_anonymous: false
"""


class AmqttBroker(_Supervised):
    """amqtt: MQTT 3.1.1 and nothing newer, no limits, everything in memory and forgotten at its end.

    Where clients without a user name are let in, it keeps no sessions, whatever was asked for: so it wants a name, any.
    """

    mode = "amqtt"
    credentials = "fleet:secret@"

    def __init__(self, state: Path) -> None:
        folder, port = open_folder(state), free_port()
        configuration = folder / "amqtt.yaml"
        configuration.write_text(_AMQTT.format(port=port))
        program = AMQTT_PYTHON.with_name("amqtt")
        super().__init__("amqtt", [str(program), "-c", str(configuration)], port, folder)


class PlainMosquitto(_Supervised):
    """A mosquitto with nothing on disk: a restart forgets sessions, subscriptions and what it retained.

    ``lines`` are added to its configuration, such as ``max_packet_size 20480``.
    """

    mode = "plain mosquitto"

    def __init__(self, state: Path, *lines: str) -> None:
        folder, port = open_folder(state), free_port()
        configuration = folder / "plain.conf"
        own = [f"listener {port} 127.0.0.1", "allow_anonymous true", "set_tcp_nodelay true"]
        if os.geteuid() == 0:
            own.append("user root")
        configuration.write_text("\n".join([*own, *lines]) + "\n")
        super().__init__("mosquitto", [str(find_mosquitto()), "-c", str(configuration)], port, folder)
