"""One HTTP connection, by uvicorn: what it adds is that nobody holds it without speaking, and problems for bad HTTP."""

from __future__ import annotations

import asyncio
import time
from typing import Any
from urllib.parse import quote

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from mas_edge.web.problems import body_of, problem

MAX_CONNECTIONS = 256  # the live streams, and a browser's six for each of them
PATIENCE_S = 15.0  # for a whole request, 64 KiB at most: a phone on a bad link takes seconds
RETRY_S = "5"  # uvicorn's own patience with a connection that is idle between two requests
_NO_HTTP = "this is no HTTP request that can be understood here; expected HTTP/1.1 with a Host"
_CROWDED = f"{MAX_CONNECTIONS} connections are open already; close some, or ask again in a few seconds"


class Connection(H11Protocol):
    """From the first byte of a client to its last."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Let it in; one too many is told so, whatever it asks."""
        super().connection_made(transport)
        self._waiting_since = time.monotonic()
        if len(self.connections) > MAX_CONNECTIONS:
            self.app = _crowded

    def on_response_complete(self) -> None:
        """The next request may come."""
        self._waiting_since = time.monotonic()
        super().on_response_complete()

    def end_if_silent(self, now: float) -> None:
        """Close it if it has not sent a whole request for too long; an answer under way, or a stream, stays."""
        waits = self.cycle is None or self.cycle.response_complete or self.cycle.more_body
        if waits and now - self._waiting_since > PATIENCE_S:
            self.transport.abort()

    def send_400_response(self, msg: str) -> None:
        """To what is no HTTP."""
        del msg  # uvicorn's own words, without what to do
        data, headers = body_of(problem(400, _NO_HTTP))
        pairs = [*headers.items(), ("content-length", str(len(data))), ("connection", "close")]
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):  # else an answer has begun, and nothing can be added
            begin = h11.Response(status_code=400, headers=pairs, reason=b"Bad Request")
            for event in (begin, h11.Data(data=data), h11.EndOfMessage()):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


async def _crowded(scope: dict[str, Any], _receive: Any, send: Any) -> None:
    data, headers = body_of(problem(503, _CROWDED, quote(scope["path"])))
    pairs = [*headers.items(), ("retry-after", RETRY_S), ("connection", "close"), ("content-length", str(len(data)))]
    encoded = [(name.encode(), value.encode()) for name, value in pairs]
    await send({"type": "http.response.start", "status": 503, "headers": encoded})
    await send({"type": "http.response.body", "body": data})
