"""An orchestrator's side by hand, for one board, and a small model with what it must answer.

``data/dense.model`` was made by ``mas_edge.export.micro.export_micro`` out of a network of four linear layers with
random weights (24 inputs, width 8, a class of three and a vector of two); ``data/dense.golden`` holds eight inputs and
what the network itself, in float32, says to them.
"""

from __future__ import annotations

import queue
from pathlib import Path
from typing import Any, TypeVar

from device_runtime.edge.mqtt import Arrived, Event, Link
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import (
    Ack,
    Birth,
    HealthCheck,
    Manifest,
    Offer,
    Plan,
    Receipt,
    Refusal,
    Want,
    decode_from_device,
    encode,
)
from mas_edge.protocol.topics import Topics

DATA = Path(__file__).with_name("data")
MODEL, GOLDEN = (DATA / "dense.model").read_bytes(), (DATA / "dense.golden").read_bytes()
NAME = "esp"
PATIENCE_S = 30
_M = TypeVar("_M", Ack, Birth, Offer, Refusal, Want)


class Desk:
    """An orchestrator's side by hand: says plans, sends the chunks that are wanted, hears everything."""

    def __init__(self, url: str, fleet: str) -> None:
        self.topics, self.heard = Topics(fleet), queue.Queue[Any]()
        self.chunks_left = 1000  # after so many it falls silent
        self.wanted: list[tuple[str, int]] = []
        self._held: dict[str, tuple[Manifest, bytes]] = {}
        self._seq = 0
        self._link = Link(url, f"desk-{fleet}", self._on_event, session_expiry_s=0)
        for topic in (self.topics.birth(NAME), self.topics.response(NAME)):
            self._link.subscribe(topic)
        self._link.start()
        self._link.wait_connected(PATIENCE_S)

    def hold(self, data: bytes) -> Manifest:
        """Send the chunks of ``data`` to whoever wants them."""
        manifest = describe(data, 1024)
        self._held[manifest.artifact] = manifest, data
        return manifest

    def deploy(self, round_id: str, model: bytes, tolerance: float = 0.05, group: str = "all") -> None:
        """Tell the board to try a model."""
        health = HealthCheck(golden=self.hold(GOLDEN), tolerance=tolerance, max_latency_s=5)
        self._say(
            Plan(
                **self._sender(), job="j", round_id=round_id, kind="deploy", group=group, tasks=["a", "b"],
                deadline_s=PATIENCE_S, program=self.hold(model), health=health, format="int8",
            )
        )  # fmt: skip

    def undo(self, round_id: str, model: bytes, group: str = "all") -> None:
        """Tell the board to leave a model for the one before it."""
        self._say(
            Plan(
                **self._sender(), job="j", round_id=round_id, kind="deploy", group=group, tasks=["a", "b"],
                deadline_s=PATIENCE_S, program=describe(model, 1024), format="int8", undo=True,
            )
        )  # fmt: skip

    def offer(self) -> Offer:
        """The next offer; it is accepted."""
        offer = self.next(Offer)
        self._say(Receipt(**self._sender(), job=offer.job, round_id=offer.round_id, verdict="accepted"))
        return offer

    def next(self, kind: type[_M]) -> _M:
        """The next message of a kind; what comes between is dropped."""
        while True:
            message = self.heard.get(timeout=PATIENCE_S)
            if isinstance(message, kind):
                return message

    def stop(self) -> None:
        self._link.stop()

    def _say(self, message: Plan | Receipt) -> None:
        self._link.publish(self.topics.command(NAME), encode(message))

    def _sender(self) -> dict[str, Any]:
        self._seq += 1
        return {"sender": "orchestrator", "boot_id": "desk", "seq": self._seq}

    def _on_event(self, event: Event) -> None:
        if not isinstance(event, Arrived):
            return
        message = decode_from_device(event.payload, NAME)
        if isinstance(message, Want):
            self._send(message)
        self.heard.put(message)

    def _send(self, want: Want) -> None:
        manifest, data = self._held[want.artifact]
        for start, stop in want.ranges:
            for index in range(start, stop):
                self.wanted.append((want.artifact, index))
                if self.chunks_left:
                    self.chunks_left -= 1
                    piece = data[index * 1024 : (index + 1) * 1024]
                    self._link.publish(self.topics.chunk(NAME), encode_chunk(manifest, index, piece), qos=0)
