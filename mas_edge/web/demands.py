"""What is asked of every request once its route is known, before its handler: JSON, and no unknown parameters."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response
from litestar.datastructures import State

from mas_edge.web.problems import RefusedError

_NOT_ASKED = {"request", "data"}  # of a handler's arguments: they are no parameters


def demand(request: Request[Any, Any, State]) -> Response[None] | None:
    """Let a request pass, or answer OPTIONS.

    Raises:
        RefusedError: 415: a body that is not plain JSON; 400: a parameter that there is none of, or twice.
    """
    if request.method == "OPTIONS":
        return Response(None, status_code=204, headers={"allow": allowed(request)})
    if request.method not in ("GET", "HEAD"):
        _demand_json(request)
    if request.url.path.startswith("/api/"):
        _demand_known(request)
    return None


def allowed(request: Request[Any, Any, State]) -> str:
    """The methods of the route. The framework's own list lacks HEAD, and what was added to a path later."""
    template = request.scope["path_template"]
    routes = [route for route in request.app.routes if route.path_format == template]
    methods = {method for route in routes for method in getattr(route, "methods", ())}
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _demand_json(request: Request[Any, Any, State]) -> None:
    """A page of another site can make a browser send forms and text, but no JSON without asking first."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, f"expected the content type application/json, got {kind or 'none'!r}")
    coding = request.headers.get("content-encoding", "identity").lower()
    if coding != "identity":
        raise RefusedError(415, f"expected a body without content encoding, got {coding!r}: send it as it is")


def _demand_known(request: Request[Any, Any, State]) -> None:
    """A misspelled parameter that is passed over gives an answer to another question."""
    handler = request.scope["route_handler"]
    known = set(handler.parsed_fn_signature.parameters) - _NOT_ASKED - set(request.path_params)
    given = [name for name, _ in request.query_params.multi_items()]
    for name in given:
        if name not in known:
            there_are = f"expected {', '.join(sorted(known))}" if known else "there are none"
            raise RefusedError(400, f"there is no parameter {name!r} here; {there_are}")
        if given.count(name) > 1:
            raise RefusedError(400, f"the parameter {name!r} is given {given.count(name)} times; expected once")
