"""Publishing what Home Assistant is told: when something changed, and everything after each connect."""

from __future__ import annotations

import logging
import platform

from device_runtime.edge.fragments import room
from device_runtime.edge.mqtt import Link
from device_runtime.home_assistant import HomeAssistant
from device_runtime.host import Host, board_model
from mas_edge.protocol.messages import Plan, Report

log = logging.getLogger(__name__)


class HomeLink:
    """``home`` on the connection ``link``; None: the owner wants Home Assistant to be told nothing, and it is not."""

    def __init__(self, home: HomeAssistant | None, link: Link) -> None:
        self._home, self._link = home, link
        self._said = b""

    def connected(self) -> None:
        """The broker is there (again), and may have forgotten what it retained."""
        if self._home is not None:
            self._said = b""
            self._publish(self._home.config_topic, self._home.config())
            self._say(self._home)

    def began(self, plan: Plan) -> None:
        """As for HomeAssistant."""
        if self._home is not None:
            self._home.began(plan)
            self._say(self._home)

    def ended(self, report: Report) -> None:
        """As for HomeAssistant."""
        if self._home is not None:
            self._home.ended(report)
            self._say(self._home)

    def failed(self, reason: str) -> None:
        """As for HomeAssistant."""
        if self._home is not None:
            self._home.failed(reason)
            self._say(self._home)

    def held_back(self, reason: str) -> None:
        """As for HomeAssistant."""
        if self._home is not None:
            self._home.held_back(reason)
            self._say(self._home)

    def _say(self, home: HomeAssistant) -> None:
        state = home.state()
        if state != self._said:
            self._said = state
            self._publish(home.state_topic, state)

    def _publish(self, topic: str, payload: bytes) -> None:
        limit = self._link.packet_limit
        if limit and len(payload) > room(limit, len(topic)):  # nobody there puts our fragments together
            log.warning("Home Assistant is not told: the broker carries packets of %d bytes only", limit)
        else:
            self._link.publish(topic, payload, retain=True)


def open_home(prefix: str, fleet: str, device: str, runtime: str, host: Host, link: Link) -> HomeLink:
    """What the owner asks for: ``prefix`` "" is nothing; ``runtime`` is the version of this software.

    Raises:
        DeviceError: Home Assistant would not find topics with these names.
    """
    if not prefix:
        return HomeLink(None, link)
    model = board_model(host) or platform.machine()
    return HomeLink(HomeAssistant(prefix, fleet, device, model=model, runtime=runtime), link)
