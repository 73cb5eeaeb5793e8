"""Where metadata come from: files that came as an artifact through the broker, or a web server. Neither is trusted.

A web server may be any that serves the folder ``metadata`` of a signing repository; the fleet's own endpoint does.
"""

from __future__ import annotations

import http.client
import re
import ssl
from collections.abc import Iterator, Mapping

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient import FetcherInterface

from device_runtime.edge.web import WebError, pieces

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
    """Files from an HTTP or HTTPS server."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        self._context = context

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            found = pieces(url, self._context)
        except WebError as error:
            raise _told(error) from None
        return _telling(found)


def _telling(blocks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from blocks
    except WebError as error:
        raise _told(error) from None


def _told(error: WebError) -> DownloadError:
    """The same, as the TUF client knows it."""
    if error.status:
        return DownloadHTTPError(str(error), error.status)
    return SlowRetrievalError(str(error)) if error.slow else DownloadError(str(error))
