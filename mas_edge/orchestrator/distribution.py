"""Handing out artifacts: each broadcast once to the devices that miss it, then pulled piece by piece. No I/O."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mas_edge.orchestrator.records import ArtifactKind
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.messages import Manifest
from mas_edge.protocol.transfer import Outgoing, Send


@dataclass(frozen=True)
class Shipment:
    """Chunks that are to be sent: to one device, or (None) broadcast."""

    round_id: str
    kind: ArtifactKind
    manifest: Manifest
    receiver: str | None
    indices: tuple[int, ...]


@dataclass
class _Offered:
    round_id: str
    kind: ArtifactKind
    manifest: Manifest
    outgoing: Outgoing

    def shipments(self, sends: Sequence[Send]) -> list[Shipment]:
        return [Shipment(self.round_id, self.kind, self.manifest, send.receiver, send.indices) for send in sends]


class Distribution:
    """The artifacts of the open rounds."""

    def __init__(self) -> None:
        self._offered: dict[str, _Offered] = {}

    def offer(self, round_id: str, kind: ArtifactKind, manifest: Manifest, audience: frozenset[str]) -> None:
        """Have an artifact ready for the devices of a round."""
        outgoing = Outgoing(manifest, audience=audience)
        self._offered[manifest.artifact] = _Offered(round_id, kind, manifest, outgoing)

    def withdraw(self, round_id: str) -> None:
        """The round is over: nobody needs its artifacts through it any more."""
        self._offered = {a: offered for a, offered in self._offered.items() if offered.round_id != round_id}

    def on_want(
        self, device: str, artifact: str, ranges: list[tuple[int, int]], broadcast: bool, now: float
    ) -> list[Shipment]:
        """A device says what it is missing.

        Raises:
            TransferError: the artifact is not handed out, or the ranges do not fit it.
        """
        offered = self._offered.get(artifact)
        if offered is None:
            message = f"device {device!r} wants the artifact {artifact[:12]}, which no open round uses"
            raise TransferError(message)
        return offered.shipments(offered.outgoing.on_want(device, ranges, broadcast, now))

    def round_of(self, artifact: str) -> str | None:
        """The round an artifact is handed out for."""
        offered = self._offered.get(artifact)
        return offered.round_id if offered else None

    def manifest_of(self, artifact: str) -> Manifest | None:
        """The description of an artifact that is handed out."""
        offered = self._offered.get(artifact)
        return offered.manifest if offered else None

    def poll(self, now: float) -> list[Shipment]:
        """Broadcasts whose audience has spoken, or whose patience is over."""
        return [s for offered in self._offered.values() for s in offered.shipments(offered.outgoing.poll(now))]

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        return min((offered.outgoing.next_poll for offered in self._offered.values()), default=float("inf"))
