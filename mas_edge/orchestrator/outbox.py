"""What the orchestrator's desks need of the broker's side; the links behind it are ``mas_edge.orchestrator.post``'s."""

from __future__ import annotations

from typing import Any, Protocol

from mas_edge.orchestrator.distribution import Shipment
from mas_edge.protocol.messages import AnyMessage


class Outbox(Protocol):
    """What carries the orchestrator's words and artifacts; ``mas_edge.orchestrator.post.Post`` does it by a broker."""

    def sender(self) -> dict[str, Any]:
        """The fields every message begins with."""
        ...

    def tell(self, device: str, message: AnyMessage) -> int:
        """Send a control message to one device; returns its bytes."""
        ...

    def ship(self, shipment: Shipment) -> None:
        """Send chunks of an artifact."""
        ...
