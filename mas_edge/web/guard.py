"""Who may ask: before any route, on every request.

On loopback no token is needed. But a browser on the same machine carries other people's pages: so the Host must be a
name that this server is known by (one that was made to point here, DNS rebinding, is none) or an address (which nobody
can make point elsewhere), what another origin's page sends is refused, and a write must be JSON, which no form can
send (``demands``). Off loopback a token is required, and its role says whether orders may be placed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from mas_edge.protocol.errors import ServerError
from mas_edge.web.problems import body_of, problem
from mas_edge.web.tokens import Token

log = logging.getLogger(__name__)

Scope = dict[str, Any]
App = Callable[[Any, Any, Any], Any]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Longer targets are none of ours: the longest name of a device or a round has 64 characters.
MAX_TARGET = 2048
_ALWAYS = ("/healthz",)  # what a load balancer asks
_SAFE = ("GET", "HEAD", "OPTIONS")
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
        b"connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
)


@dataclass(frozen=True)
class Rules:
    """``hosts``: the names that this server answers to. ``tokens``: whether one is required."""

    hosts: frozenset[str] = frozenset(LOOPBACK)
    tokens: bool = False


class Guard:
    """ASGI: lets a request through to ``app``, or answers with a problem.

    ``find``: the token that a text is; None: none of ours. ``is_page``: whether a path is one of the page's own files,
    which hold nothing of the run: a browser shows them before it can ask for a token.
    """

    def __init__(
        self, app: App, rules: Rules, find: Callable[[str], Token | None], is_page: Callable[[str], bool]
    ) -> None:  # fmt: skip
        self.app = app
        self._rules = rules
        self._find = find
        self._is_page = is_page

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no WebSockets here
            await send({"type": "websocket.close", "code": 1008})
            return

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
            await send(message)

        if refused := self._why_not(scope):
            await _refuse(with_headers, scope, *refused)
        elif scope["method"] == "HEAD":  # whatever can be read has a head
            await self.app({**scope, "method": "GET"}, receive, _head_only(with_headers))
        else:
            await self.app(scope, receive, with_headers)

    def _why_not(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") > MAX_TARGET:
            return 414, f"the address is longer than {MAX_TARGET} bytes"
        host = _name_of(headers.get("host", ""))
        if host not in self._rules.hosts and not _is_address(host):
            return 421, f"this server is not known as {host!r}; give the names that it is reached by with --host-name"
        if path in _ALWAYS or (method in ("GET", "HEAD") and self._is_page(path)):
            return None
        if not _is_same_origin(headers):
            return 403, "this comes from a page of another site, and is refused"
        return self._why_no_role(headers, scope)

    def _why_no_role(self, headers: dict[str, str], scope: Scope) -> tuple[int, str] | None:
        scheme, _, text = headers.get("authorization", "").partition(" ")
        if not scheme and not self._rules.tokens:
            scope["mas_edge_who"] = "this machine"
            return None
        if scheme.lower() != "bearer":
            return 401, "a token is required: Authorization: Bearer TOKEN (make one: mas-edge token RUN new NAME)"
        try:
            token = self._find(text.strip())
        except ServerError as error:
            log.error("tokens cannot be read: %s", error)
            return 503, "tokens cannot be read now; the server's log says why"
        if token is None:
            return 401, "this token is not known here, or was revoked (make one: mas-edge token RUN new NAME)"
        if scope["method"] not in _SAFE and token.role != "operate":
            return 403, f"token {token.name!r} may read only; an order needs one that was made with --role operate"
        scope["mas_edge_who"] = token.name
        scope["mas_edge_may"] = lambda: self._is_known(text.strip())  # a stream outlives the moment in which it began
        return None

    def _is_known(self, text: str) -> bool:
        try:
            return self._find(text) is not None
        except ServerError:
            return False


def _head_only(send: Any) -> Any:
    """The answer without its body; a stream, too, is at its end with that."""
    ended = False

    async def without_body(message: Any) -> None:
        nonlocal ended
        if message["type"] == "http.response.start":
            await send(message)
        elif not ended:
            ended = True
            await send({"type": "http.response.body", "body": b""})

    return without_body


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _is_same_origin(headers: dict[str, str]) -> bool:
    """Whether no other site's page has made a browser send this."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower()
    except ValueError:
        return False


async def _refuse(send: Any, scope: Scope, status: int, detail: str) -> None:
    data, headers = body_of(problem(status, detail, quote(scope["path"])))
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="mas-edge"'
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})
