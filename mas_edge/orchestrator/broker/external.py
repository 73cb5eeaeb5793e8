"""A broker that somebody else runs: the production answer. We only check that it lets us in."""

from __future__ import annotations

import logging
import secrets

from device_runtime.edge.address import parse_url
from device_runtime.edge.mqtt import Link

log = logging.getLogger(__name__)

CONNECT_S = 15.0


class ExternalBroker:
    """The broker at ``url``, with the credentials in it.

    Raises:
        BrokerError: the URL is malformed.
    """

    mode = "external"

    def __init__(self, url: str) -> None:
        parse_url(url)
        self.url = url
        self._reached = False

    @property
    def running(self) -> bool:
        """Whether it has let us in."""
        return self._reached

    def start(self) -> None:
        """Check that the broker lets us in.

        Raises:
            BrokerError: it does not; says why and what to do.
        """
        link = Link(self.url, f"mas-edge-probe-{secrets.token_hex(4)}", lambda _: None, session_expiry_s=0)
        link.start()
        try:
            link.wait_connected(CONNECT_S)
        finally:
            link.stop()
        self._reached = True

    def stop(self) -> None:
        """Leave it running: it is not ours."""
        self._reached = False

    def renew(self) -> None:
        """Say what its operator has to do: we have no hand there."""
        log.warning("certificates or revocations have changed: have the broker load the fleet's crl.pem")

    def __enter__(self) -> ExternalBroker:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
