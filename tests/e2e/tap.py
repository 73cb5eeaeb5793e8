"""A listener on everything a fleet says, as anybody with a broker tool could be."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable

from device_runtime.edge.mqtt import Arrived, Event, Link
from mas_edge.protocol.artifact import decode_chunk, digest_of
from mas_edge.protocol.errors import MessageError
from mas_edge.protocol.messages import (
    FromDevice,
    FromOrchestrator,
    Offer,
    Plan,
    decode_from_device,
    decode_from_orchestrator,
)
from mas_edge.protocol.topics import Topics
from tests.e2e.fleet import PATIENCE_S


class Tap:
    """Hears every topic of a fleet. Use as a context manager."""

    def __init__(self, url: str, fleet: str) -> None:
        self.topics = Topics(fleet)
        self._heard: list[Arrived] = []
        self._changed = threading.Condition()
        self._link = Link(url, f"tap-{secrets.token_hex(4)}", self._on_event, session_expiry_s=0)
        self._link.subscribe(f"{self.topics.root}/#")

    def __enter__(self) -> Tap:
        self._link.start()
        self._link.wait_connected(PATIENCE_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Arrived):
            with self._changed:
                self._heard.append(event)
                self._changed.notify_all()

    def heard(self) -> list[Arrived]:
        """Everything so far, in order."""
        with self._changed:
            return list(self._heard)

    def wait_for(self, device: str, condition: Callable[[FromDevice], bool]) -> FromDevice:
        """What a device said that fits, as soon as it is there."""

        def found() -> FromDevice | None:
            return next((m for m in self._said_by(device) if condition(m)), None)

        with self._changed:
            message = self._changed.wait_for(found, PATIENCE_S)
        assert message is not None, f"{device} did not say what was waited for"
        return message

    def _said_by(self, device: str) -> list[FromDevice]:
        said = []
        for arrived in self._heard:
            if arrived.topic == self.topics.response(device):
                said.append(decode_from_device(arrived.payload, device))
        return said

    def offers(self, device: str) -> dict[str, Offer]:
        """The last offer of a device for each round."""
        return {message.round_id: message for message in self._said_by(device) if isinstance(message, Offer)}

    def plans(self) -> list[tuple[str, Plan]]:
        """(device, plan) of every plan."""
        return [
            (arrived.topic.split("/")[-2], message)
            for arrived in self.heard()
            if arrived.topic.endswith("/cmd") and isinstance(message := _decoded(arrived), Plan)
        ]

    def update(self, device: str, offer: Offer) -> bytes:
        """The bytes of an update, put together from the pieces that passed by."""
        assert offer.manifest is not None
        topic, prefix = self.topics.upload(device), bytes.fromhex(offer.manifest.artifact)[:16]
        chunks = [decode_chunk(arrived.payload) for arrived in self.heard() if arrived.topic == topic]
        pieces = {chunk.index: bytes(chunk.data) for chunk in chunks if chunk.artifact_prefix == prefix}
        data = b"".join(pieces[index] for index in sorted(pieces))
        assert digest_of(data) == offer.manifest.artifact
        return data

    def chunk_bytes(self) -> int:
        """Bytes of payload and topic of every piece that the orchestrator sent, each broadcast counted once."""
        return sum(
            len(arrived.payload) + len(arrived.topic)
            for arrived in self.heard()
            if arrived.topic.endswith("/chunk") or "/all/chunk/" in arrived.topic
        )


def _decoded(arrived: Arrived) -> FromOrchestrator | None:
    try:
        return decode_from_orchestrator(arrived.payload)
    except MessageError:
        return None
