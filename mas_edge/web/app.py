"""The ASGI application: its routes, its files, and what answers when something is refused."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar, MediaType, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath

from mas_edge.protocol.errors import ServerError
from mas_edge.web.guard import Guard, Rules
from mas_edge.web.library import Library
from mas_edge.web.live import Live
from mas_edge.web.ordering import ORDERING
from mas_edge.web.pages import PAGE, PageFiles, type_of
from mas_edge.web.problems import RefusedError, body_of, problem
from mas_edge.web.reference import reference_body, schema_body
from mas_edge.web.routes import READING, Asked, conditional
from mas_edge.web.tokens import TokenStore
from mas_edge.web.window import Window

log = logging.getLogger(__name__)

MAX_BODY = 64 * 1024  # an order is a few hundred bytes
RETRY_S = "2"


def make_app(directory: Path, rules: Rules | None = None, fleet: Path | None = None, page: Path = PAGE) -> Guard:
    """The API on the run in ``directory``, behind its guard. ``fleet``: the folder of the fleet that is served."""
    library, files, tokens = Library(directory, fleet), PageFiles(page), TokenStore(directory)
    live = Live(library)

    @asynccontextmanager
    async def opened(_: Litestar) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await library.close()
            tokens.close()

    app = Litestar(
        route_handlers=[*READING, *ORDERING, get_schema, get_reference, get_page],
        lifespan=[opened],
        state=State({"library": library, "live": live, "window": Window(directory, fleet), "files": files}),
        exception_handlers={
            RefusedError: _on_refused, ServerError: _on_unavailable, HTTPException: _on_http,
            RecursionError: _on_depth, Exception: _on_fault,
        },
        openapi_config=OpenAPIConfig(
            title="mas-edge", version="1", path="/reference-of-the-framework", render_plugins=[],
            use_handler_docstrings=True,
            description="One run of mas-edge: read it, follow it, and give it orders.",
        ),
        request_max_body_size=MAX_BODY,
        logging_config=None,
        debug=False,
    )  # fmt: skip
    return Guard(app, rules or Rules(), tokens.find, lambda path: files.find(path) is not None)


@get("/openapi.json", include_in_schema=False)
async def get_schema(request: Asked) -> Response[Any]:
    """The description of this API."""
    return conditional(request, schema_body(request.app))


@get("/reference", include_in_schema=False)
async def get_reference(request: Asked) -> Response[Any]:
    """The same for people, without any script."""
    return conditional(request, reference_body(request.app), "text/html")


@get(["/", "/{path:path}"], include_in_schema=False)
async def get_page(request: Asked, path: FromPath[str] = "/") -> Response[Any]:
    """A file of the page."""
    files: PageFiles = request.app.state.files
    file = files.find(path)
    if file is None:
        message = f"there is nothing at {path}; /reference says what there is"
        raise RefusedError(404, message)
    return conditional(request, files.body(file), type_of(file))


# ---------------------------------------------------------------------- refusals


def _on_refused(request: Asked, error: RefusedError) -> Response[bytes]:
    return _problem(request, error.status, error.detail, error.headers)


def _on_unavailable(request: Asked, error: ServerError) -> Response[bytes]:
    return _problem(request, 503, str(error), {"retry-after": RETRY_S})


def _on_http(request: Asked, error: HTTPException) -> Response[bytes]:
    """What the framework refuses: no such route or method, a value of the wrong type, a body that is too large."""
    detail = str(error.detail)
    if isinstance(error, ValidationException) and isinstance(error.extra, list):
        wrong = [
            f"{each.get('key', 'body')}: {each.get('message', '')}" for each in error.extra if isinstance(each, dict)
        ]
        detail = "; ".join(wrong) or detail
    elif error.status_code in (404, 405):  # the framework only says so
        detail = f"there is nothing at {request.url.path} for {request.method}; /reference says what there is"
    headers = {name: value for name, value in (error.headers or {}).items() if name.lower() == "allow"}
    return _problem(request, error.status_code, detail, headers)


def _on_depth(request: Asked, _: RecursionError) -> Response[bytes]:
    return _problem(request, 400, "the body is nested too deeply; see /reference for what is expected", {})


def _on_fault(request: Asked, error: Exception) -> Response[bytes]:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _problem(request, 500, "this is a fault of the server; its log says more", {})


def _problem(request: Asked, status: int, detail: str, headers: dict[str, str]) -> Response[bytes]:
    data, own = body_of(problem(status, detail, request.url.path))
    return Response(data, status_code=status, headers={**own, **headers}, media_type=MediaType.JSON)
