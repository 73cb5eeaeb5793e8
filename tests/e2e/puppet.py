"""A hand-made device: it speaks the protocol, but does and says only what a test tells it to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from device_runtime.edge.mqtt import Arrived, Connected, Event, Link, Will
from mas_edge.protocol.artifact import describe, encode_chunk
from mas_edge.protocol.messages import (
    Ack,
    AnyMessage,
    Birth,
    Cancel,
    FromOrchestrator,
    Manifest,
    Offer,
    Plan,
    Receipt,
    Refusal,
    Report,
    SampleCount,
    Status,
    Want,
    decode_from_orchestrator,
    encode,
)
from mas_edge.protocol.topics import Topics
from tests.e2e.fleet import INPUT_SHAPE, PATIENCE_S, TASKS

_M = TypeVar("_M", Plan, Receipt, Want, Cancel)


class Puppet:
    """A device under the control of a test; it answers by itself only to wants for what it was told to ``hold``."""

    def __init__(self, url: str, fleet: str, name: str, shape: Sequence[int] = INPUT_SHAPE) -> None:
        self.name = name
        self.topics = Topics(fleet)
        self.messages: list[FromOrchestrator] = []
        self._shape = list(shape)
        self._seq = 0
        self._held: dict[str, tuple[Manifest, bytes]] = {}
        self._changed = threading.Condition()
        will = Will(self.topics.status(name), encode(self._status("connection lost", online=False)))
        self._control = Link(url, name, self._on_event, will=will, session_expiry_s=0)
        self._bulk = Link(url, f"{name}-data", lambda _: None, session_expiry_s=0)
        self._control.subscribe(self.topics.command(name))
        for link in (self._control, self._bulk):
            link.start()
            link.wait_connected(PATIENCE_S)

    def sender(self) -> dict[str, Any]:
        """The fields every message begins with."""
        self._seq += 1
        return {"sender": self.name, "boot_id": f"life-of-{self.name}", "seq": self._seq}

    # ------------------------------------------------------------------ saying

    def say(self, message: AnyMessage) -> None:
        """Send a control message."""
        self.say_raw(encode(message))

    def say_raw(self, payload: bytes) -> None:
        """Send any bytes where control messages are expected."""
        self._control.publish(self.topics.response(self.name), payload)

    def send_raw(self, frame: bytes) -> None:
        """Send any bytes where pieces of an update are expected."""
        self._bulk.send_bulk(self.topics.upload(self.name), frame)

    def ack(self, plan: Plan) -> None:
        self.say(Ack(**self.sender(), job=plan.job, round_id=plan.round_id))

    def refuse(self, plan: Plan, reason: str = "not today") -> None:
        self.say(Refusal(**self.sender(), job=plan.job, round_id=plan.round_id, reason=reason))

    def hold(self, data: bytes, manifest: Manifest | None = None) -> Manifest:
        """Send the pieces of ``data`` to whoever wants the artifact; ``manifest`` may lie about it."""
        manifest = manifest or describe(data)
        self._held[manifest.artifact] = manifest, data
        return manifest

    def offer(self, job: str, round_id: str, report: Report, manifest: Manifest | None = None) -> None:
        self.say(Offer(**self.sender(), job=job, round_id=round_id, report=report, manifest=manifest))

    def leave(self) -> None:
        """Say goodbye and disconnect."""
        self._control.publish(self.topics.status(self.name), encode(self._status("left", online=False)), retain=True)
        self._bulk.stop()
        self._control.stop()

    # ------------------------------------------------------------------ hearing

    def wait(self, kind: type[_M], condition: Callable[[_M], bool], after: int = 0) -> _M:
        """The first message of a kind that fits, from the ``after``-th message on, as soon as it is there."""

        def found() -> _M | None:
            fits = (m for m in self.messages[after:] if isinstance(m, kind) and condition(m))
            return next(fits, None)

        with self._changed:
            message = self._changed.wait_for(found, PATIENCE_S)
            assert message is not None, f"{self.name} waited in vain; it heard {self.messages[after:][-3:]}"
            return message

    def plan(self, round_id: str, after: int = 0) -> Plan:
        """The plan of a round."""
        return self.wait(Plan, lambda plan: plan.round_id == round_id, after)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self._control.publish(self.topics.birth(self.name), encode(self._birth()), retain=True)
            self._control.publish(self.topics.status(self.name), encode(self._status("", online=True)), retain=True)
        if isinstance(event, Arrived):
            message = decode_from_orchestrator(event.payload)
            if isinstance(message, Want) and message.artifact in self._held:
                self._send_pieces(message)
            with self._changed:
                self.messages.append(message)
                self._changed.notify_all()

    def _send_pieces(self, want: Want) -> None:
        manifest, data = self._held[want.artifact]
        for start, stop in want.ranges:
            for index in range(start, stop):
                piece = data[index * manifest.chunk_size : (index + 1) * manifest.chunk_size]
                self.send_raw(encode_chunk(manifest, index, piece))

    def _status(self, reason: str, *, online: bool) -> Status:
        return Status(**self.sender(), online=online, reason=reason)

    def _birth(self) -> Birth:
        return Birth(
            **self.sender(), runtime="0", python="3", machine="puppet", cores=1, memory_bytes=1, engine="torch",
            engines=["torch"], input_shape=self._shape,
            tasks={task: SampleCount(train=32, test=12) for task in TASKS},
        )  # fmt: skip
