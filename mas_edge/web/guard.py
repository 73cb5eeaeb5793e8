"""Who may ask: before any route, on every request.

On loopback nobody needs a token, because whoever can connect there can read the state directory's owner's screen; but
a browser on the same machine carries other people's pages. So the Host must be one that this server is known by (a
name that was made to point here, DNS rebinding, is none), and what a page of another origin sends is refused. Off
loopback a token is required, and its role says whether orders may be placed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal
from urllib.parse import urlsplit

from mas_edge.web.problems import body_of, problem

Role = Literal["read", "operate"]
Scope = dict[str, Any]
App = Callable[[Any, Any, Any], Any]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
# Longer targets are none of ours: the longest name of a device or a round has 64 characters.
MAX_TARGET = 2048
# What a browser shows before it can ask for a token, and what a load balancer asks.
_OPEN = ("/healthz",)
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


class Guard:
    """ASGI: lets a request through to ``app``, or answers with a problem.

    ``hosts``: the names that this server answers to. ``role_of``: the role that a token stands for; None: no such
    token. ``open_role``: that of requests without a token; None: they need one. ``is_page``: whether a path is one of
    the page's own files, which hold nothing of the run.
    """

    def __init__(
        self, app: App, hosts: Collection[str], role_of: Callable[[str], Role | None], open_role: Role | None,
        is_page: Callable[[str], bool],
    ) -> None:  # fmt: skip
        self._app = app
        self._hosts = {host.lower() for host in hosts}
        self._role_of = role_of
        self._open_role = open_role
        self._is_page = is_page

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """One connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
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
        else:
            await self._app(scope, receive, with_headers)

    def _why_not(self, scope: Scope) -> tuple[int, str] | None:
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        path, method = scope["path"], scope["method"]
        if len(scope.get("raw_path") or b"") + len(scope.get("query_string") or b"") > MAX_TARGET:
            return 414, f"the address is longer than {MAX_TARGET} bytes"
        host = _name_of(headers.get("host", ""))
        if host not in self._hosts:
            return 421, f"this server is not {host!r}; give the names that it is reached by with --host-name"
        if path in _OPEN or (method == "GET" and self._is_page(path)):
            return None
        if not _same_origin(headers):
            return 403, "this comes from a page of another site, and is refused"
        return self._why_no_role(headers, scope)

    def _why_no_role(self, headers: dict[str, str], scope: Scope) -> tuple[int, str] | None:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        role = self._open_role
        if scheme:
            role = self._role_of(token.strip()) if scheme.lower() == "bearer" else None
            if role is None:
                return 401, "this token is not known here, or was revoked; make one: mas-edge token STATE new NAME"
        if role is None:
            return 401, "a token is required: Authorization: Bearer TOKEN (mas-edge token STATE new NAME)"
        if scope["method"] not in _SAFE and role != "operate":
            return 403, "this token may read only; an order needs one with --role operate"
        return None


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(headers: dict[str, str]) -> bool:
    """Whether no other site's page has made a browser send this."""
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return False
    origin = headers.get("origin")
    return origin is None or (origin != "null" and urlsplit(origin).netloc.lower() == headers.get("host", "").lower())


async def _refuse(send: Any, scope: Scope, status: int, detail: str) -> None:
    data, headers = body_of(problem(status, detail, scope["path"]))
    if status == 401:
        headers["www-authenticate"] = 'Bearer realm="mas-edge"'
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": pairs})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})
