"""The broker behind one handle: somebody else's, a private mosquitto, or one from pip for a first look."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from device_runtime.edge.address import parse_url
from mas_edge.orchestrator.broker.embedded import EmbeddedBroker, is_installed
from mas_edge.orchestrator.broker.external import ExternalBroker
from mas_edge.orchestrator.broker.managed import ManagedBroker, find_mosquitto
from mas_edge.protocol.errors import BrokerError

if TYPE_CHECKING:  # what a fleet is made with need not be installed where none is served
    from mas_edge.fleet.folder import Fleet

__all__ = ["Broker", "EmbeddedBroker", "ExternalBroker", "ManagedBroker", "open_broker"]

log = logging.getLogger(__name__)


class Broker(Protocol):
    """What the orchestrator needs of a broker. ``with`` starts and stops it."""

    @property
    def url(self) -> str:
        """Where clients of this machine connect."""

    @property
    def mode(self) -> str:
        """One of external, managed, embedded."""

    @property
    def running(self) -> bool:
        """Whether it is there, as far as we know."""

    def start(self) -> None:
        """Return when it answers.

        Raises:
            BrokerError: it does not; says why and what to do.
        """

    def stop(self) -> None:
        """End it, if it is ours."""

    def renew(self) -> None:
        """The fleet's certificates or revocations have changed: act on them, if it is ours."""

    def __enter__(self) -> Broker:
        """Start it."""

    def __exit__(self, *_: object) -> None:
        """Stop it."""


def open_broker(
    spec: str,
    state: Path,
    listen: str = "",
    fleet: Fleet | None = None,
    *,
    insecure: bool = False,
    home_assistant: str = "",
) -> Broker:
    """Return the broker that ``spec`` asks for, not yet started; its files go below ``state``.

    Args:
        spec: "managed", "embedded", "auto" (managed if mosquitto is installed, else embedded) or the URL of a broker.
        state: the orchestrator's state directory.
        listen: HOST or HOST:PORT for the managed broker, which is for this machine only unless this asks for more.
        fleet: whose members alone get in, by certificates; it says the port, and all interfaces are listened on.
        insecure: let the managed broker serve a network without a fleet: no TLS, one password for all.
        home_assistant: the prefix below which members may show themselves to Home Assistant; "" = they may not.

    Raises:
        BrokerError: it is not installed, ``spec`` is none of these, or another argument does not fit it.
    """
    if spec == "auto":
        spec = _best_installed()
        log.info("broker: %s", spec)
    if listen and spec != "managed":
        message = f"an address to listen on is for the managed broker (mosquitto), not for {spec!r}"
        raise BrokerError(message)
    if home_assistant and spec != "managed":
        message = (
            "--home-assistant adds rules to the managed broker (mosquitto); a broker of your own gets those of "
            "broker/mosquitto-home-assistant.acl.template from you"
        )
        raise BrokerError(message)
    if spec == "managed":
        host, port = _address(listen) if listen else ("127.0.0.1", 0)
        if fleet is not None:
            host, port = host if listen else "0.0.0.0", port or fleet.settings.port  # noqa: S104 - members only
        return ManagedBroker(state, host, port, fleet=fleet, insecure=insecure, home_assistant=home_assistant)
    if spec == "embedded" and fleet is None:
        return EmbeddedBroker(state)
    if spec == "embedded":
        message = "the embedded broker has no access rules; a fleet needs mosquitto, or a broker of your own"
        raise BrokerError(message)
    if "://" in spec:
        return ExternalBroker(spec if fleet is None else _as_orchestrator(spec, fleet))
    message = f"broker {spec!r} is not known: expected managed, embedded, auto or a URL such as mqtt://host:1883"
    raise BrokerError(message)


def _as_orchestrator(url: str, fleet: Fleet) -> str:
    """The URL with the orchestrator's certificate, unless it names one itself."""
    address = parse_url(url)
    if not address.tls:
        message = f"the fleet's devices speak TLS only; give the broker as mqtts://, not {address}"
        raise BrokerError(message)
    return url if address.cert else fleet.url_at(url)


def _address(listen: str) -> tuple[str, int]:
    """HOST or HOST:PORT, an IPv6 host in brackets; port 0 = a free one that is kept."""
    match = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(\d{1,5}))?", listen)
    if match is None or int(match[2] or 0) > 65535:
        message = f"cannot listen on {listen!r}: expected HOST or HOST:PORT, such as 0.0.0.0:1883 or [::]:1883"
        raise BrokerError(message)
    return match[1].strip("[]"), int(match[2] or 0)


def _best_installed() -> str:
    if find_mosquitto() is not None:
        return "managed"
    if is_installed():
        return "embedded"
    message = (
        "no broker is installed; install mosquitto (Debian: apt install mosquitto), or for a first look "
        "pip install 'mas-edge[broker]', or give the URL of a broker"
    )
    raise BrokerError(message)
