"""Takes the finished work of devices off them, one artifact each, and counts it: an orchestrator's reception alone."""

from __future__ import annotations

import queue
import time

from device_runtime.edge.mqtt import Arrived, Event, Frame, Link
from mas_edge.protocol.artifact import decode_chunk
from mas_edge.protocol.messages import Offer, Want, decode_from_device, encode
from mas_edge.protocol.topics import Topics
from mas_edge.protocol.transfer import Incoming

NAME = "orchestrator"


class Collector:
    """Asks for what the devices of a fleet offer, as an orchestrator would; nothing is kept. A context manager."""

    def __init__(self, broker: str, fleet: str) -> None:
        self._topics = Topics(fleet)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._link = Link(broker, NAME, self._events.put, session_expiry_s=0)
        self._bulk = Link(broker, f"{NAME}-data", self._events.put, bulk=True)
        self._link.subscribe(self._topics.every("rsp"))
        self._bulk.subscribe(self._topics.every("up"), qos=0)
        self._coming: dict[str, Incoming] = {}
        self._seq = 0

    def __enter__(self) -> Collector:
        self._link.start()
        self._bulk.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()
        self._bulk.stop()

    def collect(self, count: int, patience_s: float) -> int:
        """Return the bytes of ``count`` whole artifacts, of as many devices; raises TimeoutError."""
        until = time.monotonic() + patience_s
        while sum(each.complete for each in self._coming.values()) < count:
            if time.monotonic() > until:
                message = f"of {count} devices {len(self._coming)} have offered, and not all of it came"
                raise TimeoutError(message)
            self._step()
        return sum(each.manifest.size for each in self._coming.values())

    def _step(self) -> None:
        try:
            event = self._events.get(timeout=0.1)
        except queue.Empty:
            event = None
        now = time.monotonic()
        match event:
            case Frame(topic, data):
                self._coming[self._topics.sender(topic)[0]].on_chunk(decode_chunk(data), now)
            case Arrived(topic, data):
                device, _ = self._topics.sender(topic)
                message = decode_from_device(data, device)
                if isinstance(message, Offer) and message.manifest:
                    self._coming.setdefault(device, Incoming(message.manifest))
        for device, incoming in self._coming.items():
            if ranges := incoming.poll(now):
                self._want(device, incoming.manifest.artifact, ranges)

    def _want(self, device: str, artifact: str, ranges: list[tuple[int, int]]) -> None:
        self._seq += 1
        want = Want(sender=NAME, boot_id="collector", seq=self._seq, artifact=artifact, ranges=ranges)
        self._link.publish(self._topics.command(device), encode(want), qos=0)
