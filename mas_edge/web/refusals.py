"""From what went wrong to the problem that a client reads: what was expected, what came, what to do."""

from __future__ import annotations

import logging
import re
from typing import Any
from urllib.parse import quote

import msgspec
from litestar import MediaType, Request, Response
from litestar.datastructures import State
from litestar.exceptions import HTTPException, ValidationException

from mas_edge.protocol.errors import ServerError
from mas_edge.web.problems import RefusedError, body_of, problem
from mas_edge.web.reference import sketch

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024  # an order is a few hundred bytes
RETRY_S = "2"
_TICKED = re.compile("`")

Asked = Request[Any, Any, State]


def on_refused(request: Asked, error: RefusedError) -> Response[bytes]:
    """What we refuse."""
    return _problem(request, error.status, error.detail, error.headers)


def on_unavailable(request: Asked, error: ServerError) -> Response[bytes]:
    """What the server cannot do now."""
    return _problem(request, 503, str(error), {"retry-after": RETRY_S})


def on_http(request: Asked, error: HTTPException) -> Response[bytes]:
    """What the framework refuses: no such route or method, a value of the wrong type, a body that is too large."""
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    for name, methods in headers.items():
        headers[name] = methods.replace("GET", "GET, HEAD")
    return _problem(request, error.status_code, _detail(request, error), headers)


def on_depth(request: Asked, _: RecursionError) -> Response[bytes]:
    """A body that no decoder takes."""
    return _problem(request, 400, f"the body is nested too deeply; {_expected(request)}", {})


def on_fault(request: Asked, error: Exception) -> Response[bytes]:
    """What should not happen."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _problem(request, 500, "this is a fault of the server; its log says more", {})


def _detail(request: Asked, error: HTTPException) -> str:
    path = request.url.path
    if error.status_code == 404:
        return f"there is nothing at {path}; /reference says what there is"
    if error.status_code == 405:
        return f"{path} does not take {request.method}; /reference says what it takes"
    if error.status_code == 413:
        return f"expected a body of at most {MAX_BODY} bytes; {_expected(request)}"
    if error.status_code != 400:
        return str(error.detail)
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        wrong = [_wrong(each) for each in error.extra if isinstance(each, dict)]
        in_body = any(each.get("source") == "body" for each in error.extra if isinstance(each, dict))
        return "; ".join([*wrong, _expected(request) if in_body else "see /reference"])
    return f"the body is no JSON: {_TICKED.sub('', str(error.detail))}; {_expected(request)}"


def _wrong(found: dict[str, Any]) -> str:
    """One value that does not fit; the framework calls the body ``data``, and one that is not there too."""
    name, message = str(found.get("key", "data")), _TICKED.sub("", str(found.get("message", "")))
    if name != "data":
        return f"{name}: {message}"
    return "there is no body" if message == "'data'" else f"body: {message}"


def _expected(request: Asked) -> str:
    """What the body of this request should have been."""
    handler = request.scope.get("route_handler")
    field = getattr(handler, "parsed_data_field", None)
    kind = getattr(field, "annotation", None)
    is_shape = isinstance(kind, type) and issubclass(kind, msgspec.Struct)
    return f"expected {sketch(kind)}; see /reference" if is_shape and kind else "see /reference"


def _problem(request: Asked, status: int, detail: str, headers: dict[str, str]) -> Response[bytes]:
    data, own = body_of(problem(status, detail, quote(request.url.path)))
    return Response(data, status_code=status, headers={**own, **headers}, media_type=MediaType.JSON)
