"""The ASGI application: its routes, its files, and what answers when something is refused."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from litestar import Litestar, Response, get
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.openapi.config import OpenAPIConfig
from litestar.params import FromPath

from mas_edge.protocol.errors import ServerError
from mas_edge.web.demands import demand
from mas_edge.web.guard import Guard, Rules
from mas_edge.web.library import Library
from mas_edge.web.live import Live
from mas_edge.web.ordering import ORDERING
from mas_edge.web.pages import PAGE, PageFiles, type_of
from mas_edge.web.problems import RefusedError
from mas_edge.web.reference import reference_body, schema_body
from mas_edge.web.refusals import MAX_BODY, on_depth, on_fault, on_http, on_refused, on_unavailable
from mas_edge.web.routes import READING, Asked, conditional
from mas_edge.web.tokens import TokenStore
from mas_edge.web.window import Window


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
            RefusedError: on_refused, ServerError: on_unavailable, HTTPException: on_http,
            RecursionError: on_depth, Exception: on_fault,
        },
        before_request=demand,
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
