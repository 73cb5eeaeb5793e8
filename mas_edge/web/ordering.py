"""The routes that write: every body is JSON, and what is asked of the orchestrator is answered with 202 and an id."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import msgspec
from litestar import Response, get, post
from litestar.datastructures import State
from litestar.params import JSONBody, PathParameter
from msgspec import Meta

from mas_edge.federation.control import JobVerb
from mas_edge.federation.flow import OVER
from mas_edge.federation.rollout import RolloutSpec, Verb
from mas_edge.orchestrator.rollout_store import Wish
from mas_edge.web.problems import RefusedError
from mas_edge.web.routes import Asked, Name
from mas_edge.web.shapes import MemberList, MemberView, OrderList, OrderView
from mas_edge.web.window import Window

log = logging.getLogger(__name__)

Key = Annotated[str, Meta(min_length=16, max_length=64, pattern="^[0-9a-fA-F]+$")]
_NO_STORE = {"cache-control": "no-store"}
_T = TypeVar("_T")


class JobWord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of the job."""

    verb: JobVerb


class RolloutWord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked of the rollout that is under way."""

    verb: Verb


class Approval(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``key``: the digits that the device itself shows, 16 at least: so that nobody else is let in under its name."""

    key: Key


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An empty object."""


@post("/api/job/orders", tags=["run"], status_code=202)
async def order_job(request: Asked, data: JSONBody[JobWord]) -> Response[OrderView]:
    """Start, pause, resume or abort the job; one that is over takes no order."""
    phase = await request.app.state.library.ask(lambda known: known.state.phase)
    if phase in OVER:  # nobody might ever take it
        raise RefusedError(409, f"the job is {phase}: there is nothing to {data.verb}")
    return await _placed(request, lambda window: window.place_job(data.verb, _who(request)))


@post("/api/rollouts", tags=["rollouts"], status_code=202)
async def begin_rollout(request: Asked, data: JSONBody[RolloutSpec]) -> Response[OrderView]:
    """Begin a rollout of the run's models."""
    return await _placed(request, lambda window: window.place_rollout(Wish(spec=data), _who(request)))


@post("/api/rollouts/orders", tags=["rollouts"], status_code=202)
async def order_rollout(request: Asked, data: JSONBody[RolloutWord]) -> Response[OrderView]:
    """Pause, resume, abort or roll back the rollout that is under way."""
    return await _placed(request, lambda window: window.place_rollout(Wish(verb=data.verb), _who(request)))


@get("/api/orders", tags=["run"])
async def get_orders(request: Asked) -> Response[OrderList]:
    """The newest orders on the job and on its rollouts, and what became of them."""
    orders = await _ask(request, lambda window: window.latest())
    return Response(OrderList(items=orders), headers=_NO_STORE)


@get("/api/orders/{order_id:str}", tags=["run"])
async def get_order(request: Asked, order_id: Name) -> Response[OrderView]:
    """What became of an order."""
    return Response(await _ask(request, lambda window: window.order(order_id)), headers=_NO_STORE)


@get("/api/fleet", tags=["devices"])
async def get_members(request: Asked) -> Response[MemberList]:
    """Who is invited, waits for approval, is enrolled or revoked."""
    members = await _ask(request, lambda window: window.members())
    return Response(MemberList(items=members), headers=_NO_STORE)


@post("/api/fleet/{name:str}/approve", tags=["devices"], status_code=200)
async def approve_device(
    request: Asked, name: Annotated[str, PathParameter(max_length=128)], data: JSONBody[Approval]
) -> Response[MemberView]:
    """Let a device in that waits, after comparing its key."""
    return await _settled(request, f"approve {name}", lambda window: window.approve(name, data.key))


@post("/api/fleet/{name:str}/revoke", tags=["devices"], status_code=200)
async def revoke_device(
    request: Asked, name: Annotated[str, PathParameter(max_length=128)], data: JSONBody[Nothing]
) -> Response[MemberView]:
    """Shut a device out; a serving broker drops it within seconds."""
    del data
    return await _settled(request, f"revoke {name}", lambda window: window.revoke(name))


ORDERING = [
    order_job, begin_rollout, order_rollout, get_orders, get_order, get_members, approve_device, revoke_device,
]  # fmt: skip


def _who(request: Asked) -> str:
    return str(request.scope.get("mas_edge_who", ""))


async def _ask(request: Asked, question: Callable[[Window], _T]) -> _T:
    """In the library's thread, and only where there is a run."""
    answer, _ = await _asked(request, question)
    return answer


async def _asked(request: Asked, question: Callable[[Window], _T]) -> tuple[_T, str]:
    """The same, and the run's name."""
    state: State = request.app.state
    window: Window = state.window
    found: tuple[_T, str] = await state.library.ask(lambda known: (question(window), known.state.run_id))
    return found


async def _placed(request: Asked, order: Callable[[Window], OrderView]) -> Response[Any]:
    placed, run = await _asked(request, order)
    _note(request, f"order {placed.id}: {placed.verb}", run)
    return Response(placed, status_code=202, headers={**_NO_STORE, "location": f"/api/orders/{placed.id}"})


async def _settled(request: Asked, what: str, change: Callable[[Window], MemberView]) -> Response[MemberView]:
    member, run = await _asked(request, change)
    _note(request, what, run, member.name)
    return Response(member, headers=_NO_STORE)


def _note(request: Asked, what: str, run: str, device: str = "") -> None:
    """Who has changed something, and from where, is in the log of the server that let them."""
    client = request.client
    where = client.host if client else "elsewhere"
    log.info("%s (%s, from %s)", what, _who(request), where, extra={"job": run, "device": device})
