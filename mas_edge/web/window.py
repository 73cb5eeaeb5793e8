"""Where orders are handed in: what operators ask of the job, of its rollout and of the fleet.

The first two are written down for the orchestrator (``orders.db``, ``rollouts.db``), whose word on them comes later.
The fleet's registry is changed here, and what serves the fleet acts on it within a second. The authority's key is read
for that one moment: a process that strangers talk to does not hold it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from mas_edge.federation.control import JobVerb
from mas_edge.federation.rollout import check_spec
from mas_edge.fleet.registry import Member, Registry
from mas_edge.orchestrator.orders import MAX_WAITING, JobOrder, OrderStore
from mas_edge.orchestrator.rollout_store import RolloutOrder, RolloutStore, Wish
from mas_edge.protocol.errors import ServerError
from mas_edge.web.problems import RefusedError
from mas_edge.web.shapes import MemberView, OrderState, OrderView

if TYPE_CHECKING:
    from mas_edge.fleet.enrolment import Enrolment

_ID = re.compile(r"(job|rollout)-([1-9]\d{0,15})")
SHOWN = 20  # of the newest orders
_STORES: dict[str, type[OrderStore | RolloutStore]] = {"job": OrderStore, "rollout": RolloutStore}
_T = TypeVar("_T")


class Window:
    """The orders on the run in ``directory`` and on the fleet in ``fleet``; None: no fleet is served.

    Raises:
        ServerError: from every method: a file cannot be used.
    """

    def __init__(self, directory: Path, fleet: Path | None = None) -> None:
        self._directory = directory
        self._fleet = fleet

    # ------------------------------------------------------------------ the job and its rollout

    def place_job(self, verb: JobVerb, who: str) -> OrderView:
        """Ask something of the job."""
        with closing(OrderStore(self._directory)) as store:
            if len(store.waiting()) >= MAX_WAITING:
                raise _too_many()
            return _view("job", _there(store.order(store.place(verb, who))))

    def place_rollout(self, wish: Wish, who: str) -> OrderView:
        """Begin a rollout, or ask something of the one that is under way. Raises RefusedError if it cannot be."""
        if wish.spec is not None:
            try:
                check_spec(wish.spec)
            except ServerError as error:
                raise RefusedError(400, str(error)) from None
        with closing(RolloutStore(self._directory)) as store:
            if len(store.wishes()) >= MAX_WAITING:
                raise _too_many()
            return _view("rollout", _there(store.order(store.place(replace(wish, who=who)))))

    def order(self, name: str) -> OrderView:
        """What became of an order. Raises RefusedError if there is none of this id."""
        found = _ID.fullmatch(name)
        if found is None:
            raise _unknown(name)
        number = int(found[2])
        with closing(_STORES[found[1]](self._directory)) as store:
            order = store.order(number)
        if order is None:
            raise _unknown(name)
        return _view(found[1], order)

    def latest(self) -> list[OrderView]:
        """The newest orders on the job and on its rollouts, newest first."""
        with closing(OrderStore(self._directory)) as jobs, closing(RolloutStore(self._directory)) as rollouts:
            found = [_view("job", order) for order in jobs.latest(SHOWN)]
            found += [_view("rollout", order) for order in rollouts.orders(SHOWN)]
        return sorted(found, key=lambda order: order.placed, reverse=True)[:SHOWN]

    # ------------------------------------------------------------------ the fleet

    def members(self) -> list[MemberView]:
        """Everybody who is invited, waits, is enrolled or revoked. Raises RefusedError if no fleet is served."""
        with closing(Registry(self._folder / "fleet.db")) as registry, registry.transaction():
            return [_member_view(member) for member in registry.members(time.time())]

    def approve(self, name: str, key: str) -> MemberView:
        """Let in the device that waits under this name, if its key begins with ``key``."""
        with self._enrolment() as enrolment, _conflicting():
            enrolment.approve(name, key)
            return self._member(enrolment, name)

    def revoke(self, name: str) -> MemberView:
        """Shut a device out. Raises RefusedError if that takes a passphrase, which nobody types into a page."""
        with self._enrolment() as enrolment, _conflicting():
            if enrolment.is_locked:
                where = f"mas-edge fleet revoke {self._folder} {name}"
                raise RefusedError(409, f"the fleet's ca.key has a passphrase; on the orchestrator's machine: {where}")
            enrolment.revoke(name)
            return self._member(enrolment, name)

    @property
    def _folder(self) -> Path:
        if self._fleet is None:
            raise RefusedError(404, "no fleet is served here; start with --fleet DIR")
        return self._fleet

    @contextmanager
    def _enrolment(self) -> Iterator[Enrolment]:
        from mas_edge.fleet.enrolment import Enrolment  # needs cryptography, which only fleets need
        from mas_edge.fleet.folder import Fleet

        with closing(Fleet(self._folder)) as fleet:
            yield Enrolment(fleet)

    def _member(self, enrolment: Enrolment, name: str) -> MemberView:
        found = [member for member in enrolment.members() if member.name == name]
        return _member_view(found[0]) if found else MemberView(name=name, state="revoked", key="", expires=0.0)


@contextmanager
def _conflicting() -> Iterator[None]:
    """The fleet's rules say no: it is the request that does not fit, not the server that fails."""
    try:
        yield
    except ServerError as error:
        raise RefusedError(409, str(error)) from None


def _there(order: _T | None) -> _T:
    if order is None:
        message = "an order that was just written is gone; check the disk"
        raise ServerError(message)
    return order


def _view(kind: str, order: JobOrder | RolloutOrder) -> OrderView:
    answer = order.answer
    state: OrderState = "waiting" if answer is None else "refused" if answer else "done"
    return OrderView(
        id=f"{kind}-{order.number}", verb=order.verb, who=order.who, placed=order.placed,
        taken=order.taken if isinstance(order, JobOrder) else None, state=state, answer=answer or "",
    )  # fmt: skip


def _member_view(member: Member) -> MemberView:
    return MemberView(name=member.name, state=member.state, key=member.key, expires=member.expires)


def _unknown(name: str) -> RefusedError:
    return RefusedError(404, f"there is no order {name!r}; see /api/orders")


def _too_many() -> RefusedError:
    message = f"{MAX_WAITING} orders wait already; start the run (mas-edge serve): it takes them"
    return RefusedError(429, message, {"retry-after": "10"})
