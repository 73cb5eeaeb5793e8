"""Taking in updates: offer, want, chunks, whole; each resumes from its bitmap on disk."""

from __future__ import annotations

from dataclasses import dataclass

from device_runtime.edge.artifacts import ArtifactStore, PartFile
from mas_edge.protocol.artifact import Chunk, check_manifest
from mas_edge.protocol.errors import TransferError
from mas_edge.protocol.messages import Manifest, Offer
from mas_edge.protocol.transfer import Incoming

# The connection delivers what was sent: a piece or two may be broken by faulty memory, more come from a false manifest.
MAX_CORRUPT = 5


@dataclass
class _Upload:
    offer: Offer
    manifest: Manifest
    part: PartFile
    incoming: Incoming
    corrupt: int = 0


class Collection:
    """The uploads under way, by the artifact they will be."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._uploads: dict[str, _Upload] = {}

    def begin(self, offer: Offer, manifest: Manifest, max_bytes: int) -> bool:
        """Start, or go on, to fetch the artifact of an offer; a newer offer of the same device replaces its older one.

        Returns whether it is in the store: then there is nothing to fetch.

        Raises:
            TransferError: the manifest is wrong or larger than ``max_bytes``.
        """
        if manifest.artifact in self._uploads:
            return False
        check_manifest(manifest, max_bytes)
        if self._artifacts.has(manifest.artifact):
            return True
        for artifact in [a for a, u in self._uploads.items() if _same_work(u.offer, offer)]:
            self._uploads.pop(artifact).part.remove()  # a device has one part on our disk, however often it offers
        part = self._artifacts.partial(manifest)
        if part.held.complete:  # it is empty, or we were killed between its last piece and its name
            part.finish()
            return True
        self._uploads[manifest.artifact] = _Upload(offer, manifest, part, Incoming(manifest, part.held))
        return False

    def on_chunk(self, device: str, chunk: Chunk, now: float) -> Offer | None:
        """Take in a piece; returns the offer when its artifact is whole and in the store.

        Raises:
            TransferError: the piece is damaged (it will be asked for again, up to MAX_CORRUPT times), or the whole has
                another digest.
        """
        upload = self._find(device, chunk)
        if upload is None:
            return None
        try:
            data = upload.incoming.on_chunk(chunk, now)
        except TransferError:
            upload.corrupt += 1
            if upload.corrupt >= MAX_CORRUPT:
                del self._uploads[upload.manifest.artifact]
            raise
        if data is not None:
            upload.part.write(chunk.index, data)
        if not upload.incoming.complete:
            return None
        del self._uploads[upload.manifest.artifact]
        upload.part.finish()
        return upload.offer

    def offer_of(self, device: str, chunk: Chunk) -> Offer | None:
        """The offer whose upload a piece belongs to; None if nobody waits for it.

        Raises:
            TransferError: it belongs to another device's upload.
        """
        upload = self._find(device, chunk)
        return upload.offer if upload else None

    def poll(self, now: float) -> list[tuple[str, str, list[tuple[int, int]], str]]:
        """What to ask for now: (device, artifact, ranges, round)."""
        wants = []
        for artifact, upload in self._uploads.items():
            if ranges := upload.incoming.poll(now):
                wants.append((upload.offer.sender, artifact, ranges, upload.offer.round_id))
        return wants

    def keep_rounds(self, open_rounds: set[str]) -> None:
        """Stop fetching for rounds that are over."""
        self._uploads = {a: upload for a, upload in self._uploads.items() if upload.offer.round_id in open_rounds}

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        return min((upload.incoming.next_poll for upload in self._uploads.values()), default=float("inf"))

    def _find(self, device: str, chunk: Chunk) -> _Upload | None:
        for artifact, upload in self._uploads.items():
            if bytes.fromhex(artifact[:32]) == chunk.artifact_prefix:
                if upload.offer.sender != device:
                    message = f"{device} sent a piece of {upload.offer.sender}'s update"
                    raise TransferError(message)
                return upload
        return None


def _same_work(one: Offer, other: Offer) -> bool:
    return (one.sender, one.round_id) == (other.sender, other.round_id)
