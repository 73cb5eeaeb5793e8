"""Taking in updates: offer, want, chunks, whole; each resumes from its bitmap on disk."""

from __future__ import annotations

from dataclasses import dataclass

from device_runtime.edge.artifacts import ArtifactStore, PartFile
from mas_edge.protocol.artifact import Chunk, check_manifest
from mas_edge.protocol.errors import DamagedChunksError, TransferError
from mas_edge.protocol.messages import Manifest, Offer
from mas_edge.protocol.transfer import Incoming

# The connection delivers what was sent: a piece or two may be broken by faulty memory, more come from a false manifest.
MAX_CORRUPT = 5


# Uploads that are asked for at a time, of those whose pieces come one upon the other. What is under way lies in the
# broker's memory while we are busy: three windows of 2 MiB, however many devices are done at the same moment.
MAX_ACTIVE = 3
# Without a piece for this long an upload is on a slow link: its pieces wait in the device, and it keeps nobody waiting.
SLOW_S = 0.25
SILENT_S = 2.0  # ... and for this long: another device that has the same weights is asked instead

Want = tuple[str, str, list[tuple[int, int]], str]


@dataclass
class _Upload:
    offers: list[Offer]  # that come with this artifact; the first one's device is asked for it
    manifest: Manifest
    part: PartFile
    incoming: Incoming
    corrupt: int = 0

    def take(self, chunk: Chunk, now: float) -> bool:
        """Take in a piece; returns whether that made the update whole, and it is in the store."""
        try:
            data = self.incoming.on_chunk(chunk, now)
        except TransferError:
            self.corrupt += 1
            raise
        if data is not None:
            self.part.write(chunk.index, data)
        if not self.incoming.complete:
            return False
        try:
            self.part.finish()
        except DamagedChunksError as error:
            self.corrupt += len(error.indices)
            self.incoming.take_back(error.indices, now)
            raise
        except TransferError:  # every piece is as the manifest says: it would end the same way again
            self.corrupt = MAX_CORRUPT
            raise
        return True

    def is_without_pieces(self, now: float, seconds: float) -> bool:
        return self.incoming.begun and now - self.incoming.stalled_since >= seconds


class Collection:
    """The uploads under way. Devices that came to the same weights share one: it is fetched from one of them."""

    def __init__(self, artifacts: ArtifactStore) -> None:
        self._artifacts = artifacts
        self._uploads: dict[str, _Upload] = {}  # by the first half of the artifact's name, as chunks have it
        self._now = 0.0

    def begin(self, offer: Offer, manifest: Manifest, max_bytes: int) -> bool:
        """Start, or go on, to fetch the artifact of an offer; a newer offer of the same device replaces its older one.

        Returns whether it is in the store: then there is nothing to fetch.

        Raises:
            TransferError: the manifest is wrong or larger than ``max_bytes``.
            DeviceError: our disk is full or not writable.
        """
        check_manifest(manifest, max_bytes)
        if self._artifacts.has(manifest.artifact):
            return True
        upload = self._uploads.get(_key(manifest))
        if upload and any(_same_work(each, offer) for each in upload.offers):
            return False
        self._replace_older(offer)
        if upload := self._uploads.get(_key(manifest)):
            if upload.manifest == manifest:
                upload.offers.append(offer)
            return False  # the same weights in other chunks: when they are whole, the offer comes again
        part = self._artifacts.partial(manifest)
        if part.held.complete:  # it is empty, or we were killed between its last piece and its name
            part.finish()
            return True
        self._uploads[_key(manifest)] = _Upload([offer], manifest, part, Incoming(manifest, part.held, verify=False))
        return False

    def _replace_older(self, offer: Offer) -> None:
        """A device has one part on our disk, however often it offers."""
        for key, upload in list(self._uploads.items()):
            upload.offers = [each for each in upload.offers if not _same_work(each, offer)]
            if not upload.offers:
                self._uploads.pop(key).part.remove()

    def on_chunk(self, device: str, chunk: Chunk, now: float) -> list[Offer]:
        """Take in a piece; returns the offers whose artifact is whole and in the store with it.

        Raises:
            TransferError: a piece is damaged (it will be asked for again, up to MAX_CORRUPT times), or the whole has
                another digest.
        """
        upload = self._find(device, chunk)
        if upload is None:
            return []
        try:
            whole = upload.take(chunk, now)
        except TransferError:
            if upload.corrupt >= MAX_CORRUPT:
                del self._uploads[_key(upload.manifest)]
            raise
        if not whole:
            return []
        del self._uploads[_key(upload.manifest)]
        return upload.offers

    def offer_of(self, device: str, chunk: Chunk) -> Offer | None:
        """The offer whose upload a piece belongs to; None if nobody waits for it.

        Raises:
            TransferError: it belongs to another device's upload.
        """
        upload = self._find(device, chunk)
        return next(offer for offer in upload.offers if offer.sender == device) if upload else None

    def poll(self, now: float) -> list[Want]:
        """What to ask for now: (device, artifact, ranges, round)."""
        self._now = now
        wants = []
        for upload in self._asked(now):
            if len(upload.offers) > 1 and upload.is_without_pieces(now, SILENT_S):
                upload.offers.append(upload.offers.pop(0))
                upload.incoming.restart()
            if ranges := upload.incoming.poll(now):
                offer = upload.offers[0]
                wants.append((offer.sender, upload.manifest.artifact, ranges, offer.round_id))
        return wants

    def keep_rounds(self, open_rounds: set[str]) -> None:
        """Stop fetching for rounds that are over."""
        for upload in self._uploads.values():
            upload.offers = [offer for offer in upload.offers if offer.round_id in open_rounds]
        self._uploads = {key: upload for key, upload in self._uploads.items() if upload.offers}

    @property
    def next_poll(self) -> float:
        """When ``poll`` may have something."""
        asked = self._asked(self._now)
        times = [upload.incoming.next_poll for upload in asked]
        if len(asked) < len(self._uploads):  # then a turn comes when one of these turns out to be slow
            slow = [upload.incoming.stalled_since + SLOW_S for upload in asked]
            times += [each for each in slow if each > self._now]
        return min(times, default=float("inf"))

    def _asked(self, now: float) -> list[_Upload]:
        """The uploads whose turn it is: those that began, and of the others, in order, as many as there is room for."""
        begun = [upload for upload in self._uploads.values() if upload.incoming.begun]
        room = MAX_ACTIVE - sum(not upload.is_without_pieces(now, SLOW_S) for upload in begun)
        waiting = (upload for upload in self._uploads.values() if not upload.incoming.begun)
        return begun + [upload for upload, _ in zip(waiting, range(room), strict=False)]

    def _find(self, device: str, chunk: Chunk) -> _Upload | None:
        upload = self._uploads.get(chunk.artifact_prefix.hex())
        if upload and all(offer.sender != device for offer in upload.offers):
            message = f"{device} sent a piece of {upload.offers[0].sender}'s update"
            raise TransferError(message)
        return upload


def _key(manifest: Manifest) -> str:
    return manifest.artifact[:32]


def _same_work(one: Offer, other: Offer) -> bool:
    return (one.sender, one.round_id) == (other.sender, other.round_id)
