"""A second way beside the broker: the fleet's own endpoint, by HTTPS, for signing metadata and what they list.

The broker may be down, may withhold, or may carry nothing large. What comes this way is handed to the agent as the same
chunks, and is checked as they are: the way that bytes took says nothing about them.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from device_runtime.edge.web import Site, pieces
from device_runtime.effects import Fetch
from mas_edge.protocol.artifact import check_data, chunk_header, chunk_span, to_ranges
from mas_edge.protocol.enrolment import ARTIFACTS_PATH, METADATA_PATH
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.messages import Manifest

if TYPE_CHECKING:
    from device_runtime.trust.verifier import Verifier

log = logging.getLogger(__name__)

REQUEST_BYTES = 2 * 1024 * 1024  # so many for one handshake; a link that is slower than 18 KB/s gets fewer of them
ROOM = 8  # chunks that wait for the agent: as many as a window of the largest ones has on the broker's way
# Between two looks at the signing metadata: a timestamp holds for a day, and a thousand devices make one request a
# second of it. A broker that keeps news from a device is found out within this time.
ASK_S = 3600.0


@dataclass(frozen=True)
class Fetched:
    """A chunk came, as a frame."""

    frame: bytes


@dataclass(frozen=True)
class TrustRenewed:
    """Newer signing metadata came, and hold."""


class Elsewhere:
    """What ``site`` has for this device; ``arrived`` is told of it, on a thread of its own."""

    def __init__(
        self, site: Site, verifier: Verifier | None, arrived: Callable[[Fetched | TrustRenewed], None]
    ) -> None:
        self._site = site
        self._verifier = verifier
        self._arrived = arrived
        self._wanted: queue.SimpleQueue[Fetch | None] = queue.SimpleQueue()
        self._under_way: set[str] = set()
        self._room = threading.Semaphore(ROOM)
        self._stop = threading.Event()

    def start(self) -> None:
        """Wait for what is wanted."""
        threading.Thread(target=self._work, name="elsewhere", daemon=True).start()
        if self._verifier is not None:
            threading.Thread(target=self._keep_trust, name="metadata", daemon=True).start()

    def stop(self) -> None:
        """Fetch nothing more."""
        self._stop.set()
        self._wanted.put(None)
        self._room.release()

    def fetch(self, wanted: Fetch) -> None:
        """Fetch chunks; those of an artifact that is being fetched already are not asked for twice."""
        if wanted.manifest.artifact not in self._under_way:
            self._under_way.add(wanted.manifest.artifact)
            self._wanted.put(wanted)

    def taken(self) -> None:
        """The agent has taken in a chunk."""
        self._room.release()

    def _work(self) -> None:
        while (wanted := self._wanted.get()) is not None and not self._stop.is_set():
            try:
                if wanted.metadata:
                    self._renew_trust()
                else:
                    self._fetch(wanted)
            except EdgeError as error:
                log.warning("%s is not fetched elsewhere: %s", wanted.manifest.artifact[:12], error)
            finally:
                self._under_way.discard(wanted.manifest.artifact)

    def _fetch(self, wanted: Fetch) -> None:
        log.info("%s does not come through the broker: asking %s", wanted.manifest.artifact[:12], self._site.address)
        for frame in frames(self._site, wanted.manifest, wanted.indices):
            self._room.acquire()
            if self._stop.is_set():
                return
            self._arrived(Fetched(frame))

    def _renew_trust(self) -> None:
        from device_runtime.trust.fetchers import HttpFetcher  # there is trust, so that tuf is loaded

        if self._verifier is not None:
            self._verifier.learn_from(f"{self._site.address}{METADATA_PATH}", HttpFetcher(self._site.context()))
            self._arrived(TrustRenewed())

    def _keep_trust(self) -> None:
        while not self._stop.wait(ASK_S):
            try:
                self._renew_trust()
            except EdgeError as error:  # the broker brings them as well
                log.info("no signing metadata from %s: %s", self._site.address, error)


def frames(site: Site, manifest: Manifest, indices: tuple[int, ...]) -> Iterator[bytes]:
    """These chunks of an artifact, checked where they have digests, and framed as they come through the broker.

    Raises:
        WebError: the rest cannot be had.
        TransferError: a chunk is not the manifest's.
    """
    url, context = f"{site.address}{ARTIFACTS_PATH}{manifest.artifact}", site.context()
    for first, last in _requests(manifest, indices):
        begin, end = chunk_span(manifest, first).start, chunk_span(manifest, last - 1).stop
        index, buffer = first, bytearray()
        for piece in pieces(url, context, begin, end):
            buffer += piece
            while index < last and len(buffer) >= (length := _length(manifest, index)):
                data = bytes(buffer[:length])
                del buffer[:length]
                check_data(manifest, index, data)
                yield chunk_header(manifest, index) + data
                index += 1


def _requests(manifest: Manifest, indices: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """The ranges of chunks to ask for, each of at most REQUEST_BYTES."""
    most = max(1, REQUEST_BYTES // manifest.chunk_size)
    for first, last in to_ranges(indices):
        for start in range(first, last, most):
            yield start, min(start + most, last)


def _length(manifest: Manifest, index: int) -> int:
    span = chunk_span(manifest, index)
    return int(span.stop - span.start)
