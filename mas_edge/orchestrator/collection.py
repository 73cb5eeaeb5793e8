"""Taking in updates: offer, want, chunks, whole; each resumes from its bitmap on disk.

What is due, and when, is decided here, in the orchestrator's loop. A clerk syncs what is whole; ``filed`` says what
came of it.
"""

from __future__ import annotations

import contextlib
import queue
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.edge.part_file import PartFile
from mas_edge.orchestrator.filing import AtOnce, Clerk
from mas_edge.protocol.artifact import Chunk, check_manifest
from mas_edge.protocol.errors import DamagedChunksError, EdgeError, TransferError
from mas_edge.protocol.messages import Manifest, Offer
from mas_edge.protocol.transfer import Incoming

# The connection delivers what was sent: pieces may be broken by faulty memory now and then, and after so many attempts
# they come from a false manifest.
MAX_CORRUPT = 5


# Uploads that are asked for at a time, of those whose pieces come one upon the other. What is under way lies in the
# broker's memory while we are busy: three windows of 2 MiB, however many devices are done at the same moment.
MAX_ACTIVE = 3
# Without a piece for this long an upload is on a slow link: its pieces wait in the device, and it keeps nobody waiting.
SLOW_S = 0.25
SILENT_S = 2.0  # ... and for this long: another device that has the same weights is asked instead

Want = tuple[str, str, list[tuple[int, int]], str]


class Filed(NamedTuple):
    """An upload whose last piece was written: it is whole and in the store, or there is a ``problem``."""

    offers: list[Offer]
    problem: TransferError | None = None
    again: bool = False  # its damaged pieces are asked for again; else it is given up


class _Finished(NamedTuple):
    upload: _Upload
    error: EdgeError | None


@dataclass(eq=False)
class _Upload:
    offers: list[Offer]  # that come with this artifact; the first one's device is asked for it
    manifest: Manifest
    part: PartFile
    incoming: Incoming
    corrupt: int = 0

    def is_without_pieces(self, now: float, seconds: float) -> bool:
        return self.incoming.begun and now - self.incoming.stalled_since >= seconds


class Collection:
    """The uploads under way. Devices that came to the same weights share one: it is fetched from one of them.

    ``on_filed`` is called by the ``clerk`` when ``filed`` has something.
    """

    def __init__(
        self,
        artifacts: ArtifactStore,
        clerk: Clerk | None = None,
        on_filed: Callable[[], None] = lambda: None,
    ) -> None:
        self._artifacts = artifacts
        self._clerk = clerk or AtOnce()
        self._on_filed = on_filed
        self._finished: queue.SimpleQueue[_Finished] = queue.SimpleQueue()
        self._uploads: dict[str, _Upload] = {}  # by the first half of the artifact's name, as chunks have it
        self._now = 0.0

    def begin(self, offer: Offer, manifest: Manifest, max_bytes: int) -> bool:
        """Start, or go on, to fetch the artifact of an offer; a newer offer of the same device replaces its older one.

        Returns whether it is in the store: then there is nothing to fetch.

        Raises:
            TransferError: the manifest is wrong or larger than ``max_bytes``.
            DeviceError: our disk is full or not writable.
        """
        check_manifest(manifest, max_bytes, whole_only=True)
        upload = self._uploads.get(_key(manifest))
        if upload is None and self._artifacts.has(manifest.artifact):
            return True
        if upload and any(_same_work(each, offer) for each in upload.offers):
            return False
        self._replace_older(offer)
        if upload := self._uploads.get(_key(manifest)):
            if upload.manifest == manifest:
                upload.offers.append(offer)
            return False  # the same weights in other chunks: when they are whole, the offer comes again
        part = self._artifacts.partial(manifest)
        if part.held.complete:  # it is empty, or we were killed between its last piece and its name
            with contextlib.suppress(DamagedChunksError):  # by a power cut: those pieces are missing again
                part.finish()
                return True
        incoming = Incoming(manifest, part.held, verify=False)
        self._uploads[_key(manifest)] = _Upload([offer], manifest, part, incoming)
        return False

    def _replace_older(self, offer: Offer) -> None:
        """A device has one part on our disk, however often it offers."""
        for key, upload in list(self._uploads.items()):
            upload.offers = [each for each in upload.offers if not _same_work(each, offer)]
            if not upload.offers:
                self._uploads.pop(key).part.remove()

    def on_chunk(self, device: str, chunk: Chunk, now: float) -> None:
        """Take in a piece: see ``filed`` for what comes of the last one.

        Raises:
            TransferError: the piece does not fit (it will be asked for again, up to MAX_CORRUPT times).
            DeviceError: our disk is full or not writable.
        """
        upload = self._find(device, chunk)
        if upload is None:
            return
        try:
            data = upload.incoming.on_chunk(chunk, now)
        except TransferError:
            self._count_corrupt(upload)
            raise
        if data is not None:
            upload.part.write(chunk.index, data)
            if upload.incoming.complete:
                self._clerk.hand(partial(self._finish, upload))

    def _finish(self, upload: _Upload) -> None:
        """The clerk's."""
        error = None
        try:
            upload.part.finish()
        except EdgeError as problem:
            error = problem
        self._finished.put(_Finished(upload, error))
        self._on_filed()

    @property
    def has_filed(self) -> bool:
        """Whether ``filed`` has something: tell ``keep_rounds`` before which rounds are open."""
        return not self._finished.empty()

    def filed(self, now: float) -> Iterator[Filed]:
        """The uploads that were finished, or turned out to be damaged, since it was last asked.

        Raises:
            DeviceError: our disk is full or not writable.
        """
        with contextlib.suppress(queue.Empty):
            while True:
                upload, error = self._finished.get_nowait()
                if self._uploads.get(_key(upload.manifest)) is upload:  # else it was given up meanwhile
                    yield self._judge(upload, error, now)

    def _judge(self, upload: _Upload, error: EdgeError | None, now: float) -> Filed:
        match error:
            case None:
                del self._uploads[_key(upload.manifest)]
                return Filed(upload.offers)
            case DamagedChunksError():
                upload.incoming.take_back(error.indices, now)
                return Filed(upload.offers, error, again=self._count_corrupt(upload))
            case TransferError():  # every piece is as the manifest says: it would end the same way again
                del self._uploads[_key(upload.manifest)]
                return Filed(upload.offers, error)
        raise error

    def _count_corrupt(self, upload: _Upload) -> bool:
        """Returns whether to go on with it."""
        upload.corrupt += 1
        if upload.corrupt >= MAX_CORRUPT:
            del self._uploads[_key(upload.manifest)]
        return upload.corrupt < MAX_CORRUPT

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
        begun = [each for each in self._uploads.values() if each.incoming.begun and not each.incoming.complete]
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
