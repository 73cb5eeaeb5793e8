"""The routes that read. Every answer is JSON of ``mas_edge.web.shapes``, with an ETag: ask again with it, and a 304
costs nothing.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, TypeVar, cast

from litestar import MediaType, Request, Response, get
from litestar.datastructures import State
from litestar.params import PathParameter, QueryParameter
from litestar.response import Stream

from mas_edge.orchestrator.records import RoundRecord
from mas_edge.orchestrator.store import MAX_EVENTS
from mas_edge.web import answers, findings, shapes
from mas_edge.web.guard import LOOPBACK
from mas_edge.web.library import Body, Library, is_readable, marked
from mas_edge.web.live import Live
from mas_edge.web.metrics import CONTENT_TYPE, exposition
from mas_edge.web.mirror import PARTS, Known, Part
from mas_edge.web.problems import RefusedError

MAX_LIMIT = 1000  # of one page of a list: half a megabyte of rounds
USUAL_LIMIT = 100
LEAST_CODED = 1400  # bytes: what is shorter fits into one packet as it is
GZIP_LEVEL = 3  # 0.7 MB of rounds to a sixth in 5 ms; level 6 takes four times as long, and gets it to a ninth
MAX_NUMBER = 2**53  # beyond this a browser's numbers are not whole

Cursor = Annotated[int, QueryParameter(ge=0, le=MAX_NUMBER, description="the `next` of the page before")]
OptionalCursor = Annotated[int | None, QueryParameter(ge=0, le=MAX_NUMBER, description="the `next` of the page before")]
Limit = Annotated[int, QueryParameter(ge=1, le=MAX_LIMIT, description="how many at most")]
EventLimit = Annotated[int, QueryParameter(ge=1, le=MAX_EVENTS, description="how many at most")]
Name = Annotated[str, PathParameter(max_length=128)]
Asked = Request[Any, Any, State]
_T = TypeVar("_T")


@get("/api/run", tags=["run"])
async def get_run(request: Asked) -> Response[shapes.RunView]:
    """The run: job, phase, progress, open rounds, newest losses."""
    return await _view(request, "run", ("run", "rounds"), answers.run_view)


@get("/api/devices", tags=["devices"])
async def get_devices(request: Asked) -> Response[shapes.DeviceList]:
    """Every device and what it has done."""
    return await _view(request, "devices", ("devices",), answers.device_list)


@get("/api/devices/{name:str}", tags=["devices"])
async def get_device(request: Asked, name: Name) -> Response[shapes.DeviceView]:
    """One device."""

    def view(known: Known) -> shapes.DeviceView:
        found = answers.device_views(known).get(name)
        return _there(found, f"no device {name!r} in this run; see /api/devices")

    return await _view(request, f"device {name}", ("devices",), view)


@get("/api/rounds", tags=["rounds"])
async def get_rounds(request: Asked, after: Cursor = 0, limit: Limit = USUAL_LIMIT) -> Response[shapes.RoundPage]:
    """Rounds in the order of their opening."""
    key = f"rounds {after} {limit}"
    return await _view(request, key, ("rounds",), lambda known: answers.round_page(known, after, limit))


@get("/api/rounds/{round_id:str}", tags=["rounds"])
async def get_round(request: Asked, round_id: Name) -> Response[RoundRecord]:
    """One round with every device's report."""
    found = await _library(request).record(round_id)
    return conditional(request, marked(_there(found, f"no round {round_id!r} in this run; see /api/rounds")))


@get("/api/affinity", tags=["split"])
async def get_affinity(request: Asked) -> Response[shapes.AffinityView]:
    """Task affinity, round by round and on average."""
    return await _view(request, "affinity", ("affinity",), findings.affinity_view)


@get("/api/split", tags=["split"])
async def get_split(request: Asked) -> Response[shapes.SplitView]:
    """The groups, and why."""
    return await _view(request, "split", ("split",), findings.split_view)


@get("/api/artifacts", tags=["artifacts"])
async def get_artifacts(request: Asked) -> Response[shapes.ArtifactList]:
    """Programs, weights and models of every network."""
    folder = _library(request).directory / "artifacts"
    return await _view(
        request, "artifacts", ("artifacts", "rounds"), lambda known: answers.artifact_list(known, folder)
    )


@get("/api/rollouts", tags=["rollouts"])
async def get_rollouts(request: Asked) -> Response[shapes.RolloutList]:
    """The last rollout: stages, how devices stand, what it can be told."""
    return await _view(request, "rollouts", ("rollouts",), answers.rollout_list)


@get("/api/events", tags=["events"])
async def get_events(
    request: Asked, after: OptionalCursor = None, limit: EventLimit = USUAL_LIMIT
) -> Response[shapes.EventPage]:
    """The event log; without `after` its last lines."""
    key = f"events {after} {limit}"
    return await _view(request, key, ("events",), lambda known: answers.event_page(known, after, limit))


@get("/api/traffic", tags=["cost"])
async def get_traffic(request: Asked) -> Response[shapes.TrafficView]:
    """Bytes over the broker, by phase and kind."""
    return await _view(request, "traffic", ("rounds",), answers.traffic_view)


@get("/api/energy", tags=["cost"])
async def get_energy(request: Asked) -> Response[shapes.EnergyView]:
    """Joules by phase, group and activity, and who measured them."""
    return await _view(request, "energy", ("rounds",), answers.energy_view)


@get("/api/live", tags=["run"], media_type="text/event-stream")
async def get_live(request: Asked) -> Stream:
    """Server-sent events: what has changed, at most once a second."""
    live: Live = request.app.state.live
    if live.is_full:
        message = f"{live.listeners} listen already; close a page, or ask /api/run from time to time"
        raise RefusedError(503, message, {"retry-after": "30"})
    last = request.headers.get("last-event-id", "")
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    may = cast(Callable[[], bool], request.scope.get("mas_edge_may", lambda: True))  # the guard has put it there
    return Stream(live.listen(last, may), media_type="text/event-stream", headers=headers)


@get("/metrics", tags=["operation"], media_type=MediaType.TEXT)
async def get_metrics(request: Asked) -> Response[bytes]:
    """Prometheus metrics."""
    body = await _library(request).body("metrics", PARTS, exposition)
    return conditional(request, body, CONTENT_TYPE)


@get("/healthz", tags=["operation"])
async def get_health(request: Asked) -> Response[shapes.Health]:
    """Whether this process can read the run."""
    why_not = await is_readable(_library(request))
    health = shapes.Health(status="unavailable" if why_not else "ok")
    return Response(health, status_code=503 if why_not else 200, headers={"cache-control": "no-store"})


READING = [
    get_run, get_devices, get_device, get_rounds, get_round, get_affinity, get_split, get_artifacts, get_rollouts,
    get_events, get_traffic, get_energy, get_live, get_metrics, get_health,
]  # fmt: skip


def _library(request: Asked) -> Library:
    library: Library = request.app.state.library
    return library


def _there(found: _T | None, otherwise: str) -> _T:
    if found is None:
        raise RefusedError(404, otherwise)
    return found


async def _view(request: Asked, name: str, parts: tuple[Part, ...], view: Callable[[Known], object]) -> Response[Any]:
    body = await _library(request).body(name, parts, view)
    return conditional(request, body)


def conditional(request: Asked, body: Body, media_type: str = MediaType.JSON, cache: str = "no-cache") -> Response[Any]:
    """The body, or a 304 if the client holds it; ``no-cache`` lets it keep the body but makes it ask."""
    data, etag = body
    if coded := _is_worth_coding(request, body):
        etag = f'{etag[:-1]}-gzip"'  # other bytes, another mark
    headers = {"etag": etag, "cache-control": cache, "vary": "accept-encoding"}
    held = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if held & {etag, "*"}:
        return Response(None, status_code=304, headers=headers)
    if coded:
        data, headers["content-encoding"] = _gzipped(data), "gzip"
    return Response(data, media_type=media_type, headers=headers)


def _is_worth_coding(request: Asked, body: Body) -> bool:
    """Not for this machine itself: there it takes more time than it saves; a proxy in front of us does it better."""
    client = request.client
    if len(body.data) < LEAST_CODED or client is None or client.host in LOOPBACK:
        return False
    return any(_takes_gzip(each) for each in request.headers.get("accept-encoding", "").split(","))


def _takes_gzip(accepted: str) -> bool:
    coding, _, weight = accepted.strip().lower().partition(";")
    return coding.strip() == "gzip" and weight.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")


@lru_cache(maxsize=8)  # each may be half a megabyte
def _gzipped(data: bytes) -> bytes:
    """Once for everybody who asks; without a time in it, so that the same bytes are the same again."""
    return gzip.compress(data, compresslevel=GZIP_LEVEL, mtime=0)
