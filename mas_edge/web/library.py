"""What the API hands out: a run's views as JSON, encoded once for everybody who asks, in one thread beside the server.

SQLite and what is known of the run live in that one thread: nothing is locked, and a long first reading (a thousand
rounds) holds up neither the live stream nor the page's files.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from mas_edge.protocol.errors import ServerError
from mas_edge.web.mirror import PARTS, Known, Mirror, Part

# However often is asked, SQLite is looked at this often: what one client sees no other has to look for.
LOOK_S = 0.1
_CACHED = 64  # bodies: the views, and a few pages of lists
_T = TypeVar("_T")


class Body(NamedTuple):
    """An encoded answer, and what it is recognized by."""

    data: bytes
    etag: str


def marked(data: bytes) -> Body:
    """A body that is recognized by its content."""
    return Body(data, f'"{hashlib.blake2b(data, digest_size=12).hexdigest()}"')


class Library:
    """The run in ``directory``. Every method may raise ServerError: there is no run yet, or it cannot be read."""

    def __init__(self, directory: Path, fleet: Path | None = None) -> None:
        self.directory = directory
        self._mirror = Mirror(directory, fleet)
        self._known: Known | None = None
        self._looked = float("-inf")
        self._bodies: dict[str, tuple[tuple[str, ...], Body]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="library")

    async def close(self) -> None:
        """Let go of the files."""
        await self._run(self._mirror.close)
        self._thread.shutdown()

    async def ask(self, question: Callable[[Known], _T]) -> _T:
        """What ``question`` makes of what is known now."""
        return await self._run(lambda: question(self._look()))

    async def record(self, round_id: str) -> bytes | None:
        """One round with all its reports as JSON; None if there is no such round."""
        return await self._run(lambda: self._record(round_id))

    async def body(self, name: str, parts: tuple[Part, ...], view: Callable[[Known], object]) -> Body:
        """The JSON of a view, or the bytes that it is; made again only when one of ``parts`` has changed.

        ``name`` says which view, and of what.
        """
        return await self._run(lambda: self._body(name, parts, view))

    async def _run(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    # ------------------------------------------------------------------ in the thread

    def _look(self) -> Known:
        now = time.monotonic()
        if self._known is None or now - self._looked >= LOOK_S:
            self._known = None
            self._known = self._mirror.look()
            self._looked = time.monotonic()
        return self._known

    def _body(self, name: str, parts: tuple[Part, ...], view: Callable[[Known], object]) -> Body:
        known = self._look()
        mark = (known.boot, *(str(known.versions[part]) for part in parts))
        kept = self._bodies.get(name)
        if kept is not None and kept[0] == mark:
            return kept[1]
        made = view(known)
        data = made if isinstance(made, bytes) else msgspec.json.encode(made)
        body = marked(data)
        self._bodies.pop(name, None)
        while len(self._bodies) >= _CACHED:
            del self._bodies[next(iter(self._bodies))]
        self._bodies[name] = (mark, body)
        return body

    def _record(self, round_id: str) -> bytes | None:
        known = self._look()
        closed = ((view.round_id, number) for number, view in known.ledger.rounds.items())
        running = ((view.round_id, view.number) for view in known.open_rounds)
        number = next((number for name, number in [*running, *closed] if name == round_id), None)
        found = self._mirror.record(number) if number is not None else None
        if number is None or found is None:
            return None
        spec, record = found
        plain = msgspec.to_builtins(record) if record else {}
        view = known.ledger.rounds.get(number)
        times = {"opened": view.opened, "closed": view.closed} if view else {}
        return msgspec.json.encode({"number": number, **times, "spec": msgspec.to_builtins(spec), **plain})


async def is_readable(library: Library) -> str:
    """Why nothing can be read; empty: it can."""
    try:
        await library.ask(lambda _: None)
    except ServerError as error:
        return str(error)
    return ""


def versions_of(known: Known) -> tuple[str, dict[Part, int]]:
    """What tells one moment of a run from another."""
    return known.boot, {part: known.versions[part] for part in PARTS}
