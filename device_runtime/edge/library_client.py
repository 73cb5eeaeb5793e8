"""The MQTT library's client as a link wants it; with ``mqtt`` the only module that knows the library."""

from __future__ import annotations

import socket
import ssl
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from device_runtime.edge.address import Address
from device_runtime.edge.events import Will


def new_client(
    address: Address,
    name: str,
    *,
    five: bool,
    keepalive_s: int,
    session_expiry_s: int,
    most_queued: int,
    will: Will | None,
    tls: ssl.SSLContext | None,
) -> paho.Client:
    """A client that is set up and not connected yet; its callbacks are the link's to set.

    ``five``: it speaks MQTT 5, else 3.1.1.
    """
    client = paho.Client(
        CallbackAPIVersion.VERSION2,
        name,
        # In 3.1.1 a session never expires, and one that is taken up again makes amqtt 0.12 deaf (measured).
        clean_session=None if five else True,
        protocol=MQTTProtocolVersion.MQTTv5 if five else MQTTProtocolVersion.MQTTv311,
        reconnect_on_failure=False,
    )
    client.max_queued_messages_set(most_queued)
    client.on_socket_open = _no_delay
    if address.user is not None:
        client.username_pw_set(address.user, address.password)
    if tls is not None:
        client.tls_set_context(tls)
    if will is not None:
        client.will_set(will.topic, will.payload, qos=1, retain=True)
    session: dict[str, Any] = {}
    if five:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = session_expiry_s
        session = {"clean_start": session_expiry_s == 0, "properties": properties}
    client.connect_async(address.host, address.port, keepalive_s, **session)
    return client


def _no_delay(_client: object, _data: object, sock: Any) -> None:
    """Without it a small packet waits up to 40 ms for the other side's delayed acknowledgement."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
