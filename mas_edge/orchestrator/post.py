"""What the orchestrator sends: control words at once, chunks through a thread that may wait for the network."""

from __future__ import annotations

import logging
import queue
import threading
import uuid
from collections.abc import Callable
from typing import Any

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.mqtt import Event, Frame, Link, Will
from mas_edge.orchestrator.distribution import Shipment
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import AnyMessage, OrchestratorState, Want, encode
from mas_edge.protocol.topics import Topics

log = logging.getLogger(__name__)

NAME = "orchestrator"
# Incomplete messages of all devices together: a manifest of 1 GiB in the offers of 256 devices.
ASSEMBLY_BYTES = 48 * 1024 * 1024


class Post:
    """Two connections of the orchestrator: ``on_event`` hears everything that comes in, on the network's threads.

    ``limit_of`` says the largest packet that a device takes, or that all take (None); 0 = no limit is known.
    """

    def __init__(
        self,
        broker_url: str,
        topics: Topics,
        artifacts: ArtifactStore,
        on_event: Callable[[Event], None],
        on_shipped: Callable[[Shipment, int], None],
        limit_of: Callable[[str | None], int] = lambda device: 0,
    ) -> None:
        self._topics = topics
        self._artifacts = artifacts
        self._on_event = on_event
        self._on_shipped = on_shipped
        self._limit_of = limit_of
        self._boot_id, self._seq = uuid.uuid4().hex, 0
        self._outbox: queue.SimpleQueue[Shipment | None] = queue.SimpleQueue()
        gone = encode(OrchestratorState(**self.sender(), online=False))
        name = f"{NAME}-{topics.fleet}"
        self._control = Link(
            broker_url, name, on_event, will=Will(topics.orchestrator, gone), assembly_bytes=ASSEMBLY_BYTES
        )
        self._bulk = Link(broker_url, f"{name}-data", self._on_bulk_event, bulk=True, assembly_bytes=ASSEMBLY_BYTES)
        self._thread = threading.Thread(target=self._ship_all, daemon=True, name="post")

    def start(self, connect_timeout_s: float) -> None:
        """Connect. Raises BrokerError if the broker is not there within ``connect_timeout_s``."""
        for leaf in ("birth", "status", "rsp"):
            self._control.subscribe(self._topics.every(leaf))
        self._bulk.subscribe(self._topics.every("up"), qos=0)
        self._thread.start()
        self._control.start()
        self._bulk.start()
        self._control.wait_connected(connect_timeout_s)
        self._bulk.wait_connected(connect_timeout_s)

    def stop(self) -> None:
        """Send what waits, and disconnect."""
        self._outbox.put(None)
        self._bulk.stop()
        self._control.stop()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def sender(self) -> dict[str, Any]:
        """The fields every message of ours begins with."""
        self._seq += 1
        return {"sender": NAME, "boot_id": self._boot_id, "seq": self._seq}

    def tell(self, device: str, message: AnyMessage) -> int:
        """Send a control message to one device; returns its bytes."""
        return self._publish(self._topics.command(device), message, max_packet=self._limit_of(device))

    def tell_all(self, message: AnyMessage) -> int:
        """Send a control message to every device; returns its bytes."""
        return self._publish(self._topics.command_all, message, max_packet=self._limit_of(None))

    def show(self, state: OrchestratorState) -> None:
        """Publish the orchestrator's presence, retained."""
        if self._control.connected:
            self._publish(self._topics.orchestrator, state, retain=True)

    def ship(self, shipment: Shipment) -> None:
        """Queue chunks to be sent."""
        self._outbox.put(shipment)

    def _publish(self, topic: str, message: AnyMessage, *, retain: bool = False, max_packet: int = 0) -> int:
        payload = encode(message)
        # A want needs no acknowledgement: unanswered it is repeated, and there are many of them.
        qos = 0 if isinstance(message, Want) else 1
        self._control.publish(topic, payload, qos=qos, retain=retain, max_packet=max_packet)
        return len(payload) + len(topic)

    def _on_bulk_event(self, event: Event) -> None:
        # Both connections come and go together; only the control one speaks of it.
        if isinstance(event, Frame):
            self._on_event(event)

    def _ship_all(self) -> None:
        while (shipment := self._outbox.get()) is not None:
            try:
                self._ship(shipment)
            except EdgeError as error:  # a device went away, or an artifact was pruned: it will ask again
                log.warning("not sent: %s", error)

    def _ship(self, shipment: Shipment) -> None:
        receiver, manifest = shipment.receiver, shipment.manifest
        topic = self._topics.chunk(receiver) if receiver else self._topics.broadcast(manifest.artifact)
        for index in shipment.indices:
            frame = self._artifacts.read_frame(manifest, index)
            self._bulk.send_bulk(topic, frame, max_packet=self._limit_of(receiver))
            self._on_shipped(shipment, len(frame) + len(topic))
