"""Where metadata come from: files that came as an artifact through the broker, or a web server. Neither is trusted.

A web server may be any that serves the folder ``metadata`` of a signing repository.
"""

from __future__ import annotations

import http.client
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

BLOCK_BYTES = 64 * 1024
SILENCE_S = 20.0  # without a byte: the link is dead
PATIENCE_S = 120.0  # for one file: 100 KB at 1 KB/s; a server that trickles on is an attack
RETRIES = 4  # of a file whose connection ended early; each goes on where the last one ended
_VERSION = re.compile(r"^\d+\.(?!root\.json$)")


class FilesFetcher(FetcherInterface):
    """Metadata that are here already, by file name; whether with a version before it or without is all the same."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = {_VERSION.sub("", name): data for name, data in files.items()}

    def _fetch(self, url: str) -> Iterator[bytes]:
        name = _VERSION.sub("", url.rpartition("/")[2])
        if name not in self._files:
            message = f"there is no {name}"
            raise DownloadHTTPError(message, http.client.NOT_FOUND)
        return iter([self._files[name]])


class HttpFetcher(FetcherInterface):
    """Files from an HTTP or HTTPS server; goes on with a Range request where a connection ended early."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    def _fetch(self, url: str) -> Iterator[bytes]:
        first = self._open(url, 0)  # here, not in the generator: what is not found is said before the first block
        return self._blocks(url, *first)

    def _blocks(
        self, url: str, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> Iterator[bytes]:
        came, retries, end = 0, RETRIES, time.monotonic() + PATIENCE_S
        while True:
            try:
                while block := answer.read1(BLOCK_BYTES):
                    came += len(block)
                    if time.monotonic() > end:
                        message = f"{url} takes longer than {PATIENCE_S:g} s"
                        raise SlowRetrievalError(message)
                    yield block
                if not answer.length:  # what was announced has come
                    return
            except (OSError, http.client.HTTPException):
                pass  # it ended early: go on from here
            finally:
                connection.close()
            if retries == 0:
                message = f"{url} ended early {RETRIES + 1} times"
                raise DownloadError(message)
            retries -= 1
            connection, answer = self._open(url, came)

    def _open(self, url: str, begin: int) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        place = urlsplit(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}.get(place.scheme)
        if kind is None or not place.hostname:
            message = f"{url} is no address of a web server: expected http:// or https://"
            raise DownloadError(message)
        options = {"context": self._context} if place.scheme == "https" and self._context else {}
        connection = kind(place.hostname, place.port, timeout=SILENCE_S, **options)
        try:
            connection.request("GET", place.path, headers={"Range": f"bytes={begin}-"} if begin else {})
            answer = connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            message = f"{url} cannot be fetched: {error}"
            raise DownloadError(message) from None
        if answer.status != (http.client.PARTIAL_CONTENT if begin else http.client.OK):
            connection.close()
            message = f"{url}: the server answers {answer.status} {answer.reason}"
            raise DownloadHTTPError(message, answer.status)
        return connection, answer
