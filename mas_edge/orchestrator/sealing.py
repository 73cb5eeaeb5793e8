"""Plans as enrolled devices take them: listed, signed, and with the newest signing metadata to fetch beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.orchestrator.distribution import Distribution
from mas_edge.protocol.artifact import digest_of
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.messages import Manifest, Plan, SignedPlan
from mas_edge.protocol.signed import targets_of

if TYPE_CHECKING:
    from pathlib import Path

    from mas_edge.fleet.signing.publisher import Publisher

# Metadata are the first that a device fetches, before it can say what its broker carries: the least we met is 20 KiB.
CHUNK_BYTES = 16 * 1024


class Sealing:
    """Signs the plans of one orchestrator, and hands out the metadata that they rest on."""

    def __init__(self, publisher: Publisher, fleet: str, artifacts: ArtifactStore, distribution: Distribution) -> None:
        self._publisher = publisher
        self._fleet = fleet
        self._artifacts = artifacts
        self._distribution = distribution
        self._metadata: list[Manifest] = []  # the newest last, and the one before: some are still fetching it

    @property
    def needed(self) -> set[str]:
        """The artifacts that must stay on disk."""
        return {manifest.artifact for manifest in self._metadata}

    def seal(self, plan: Plan, device: str, audience: frozenset[str]) -> SignedPlan:
        """List what ``plan`` needs, unless it is listed, and sign it for ``device``; ``audience``: who gets such plans.

        Raises:
            ServerError: the signing repository cannot be used.
        """
        self._publisher.list_targets(targets_of(plan))
        metadata = self._put(self._publisher.bundle)
        if self._distribution.round_of(metadata.artifact) is None:
            self._distribution.offer(plan.round_id, "metadata", metadata, audience)
        return replace(self._publisher.sign(self._fleet, device, plan), metadata=metadata)

    def _put(self, bundle: bytes) -> Manifest:
        if not self._metadata or self._metadata[-1].artifact != digest_of(bundle):
            self._metadata = [*self._metadata[-1:], self._artifacts.put(bundle, CHUNK_BYTES)]
        return self._metadata[-1]


def open_publisher(folder: Path) -> Publisher:
    """A run of an orchestrator in the signing repository in ``folder``.

    Raises:
        ServerError: there is none, it cannot be used, or a package is missing.
    """
    try:
        from mas_edge.fleet.signing.publisher import Publisher
    except ImportError:
        message = "signing needs the package tuf: pip install 'mas-edge[server,secure]'"
        raise ServerError(message) from None
    return Publisher(folder)
