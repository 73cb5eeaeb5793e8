"""The workshop's process: imports PyTorch, does the steps it is told to, one after the other, and says what came of it.

Started by ``mas_edge.orchestrator.workshop_process``. It ends when the pipe of its orders does, that is with its
orchestrator, however that ended; whatever it has started itself ends with it.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

import msgspec

from device_runtime.child import end_with_parent
from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.job import Job
from mas_edge.orchestrator.steps import Steps
from mas_edge.orchestrator.workshop_wire import (
    Answer,
    Failed,
    Opening,
    Order,
    Provide,
    Said,
    Supplied,
    Take,
    Taken,
    opening_of,
    order_of,
    receive,
    send,
)
from mas_edge.protocol.errors import EdgeError

log = logging.getLogger(__name__)


def main() -> None:
    """Carry out orders until there will be no more."""
    end_with_parent()
    orders, answers = _pipes()
    waiting: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_hear, args=(orders, waiting), daemon=True).start()
    try:
        opening = opening_of(waiting.get())
        _log_to(answers, opening.log_level)
        _import_ahead(opening.job, waiting)
        while True:
            send(answers, _carried_out(order_of(waiting.get()), opening))
    except msgspec.MsgspecError as error:
        message = f"the kit was changed while its orchestrator runs ({error}): start the orchestrator again"
        send(answers, Failed("ServerError", message))


def _pipes() -> tuple[IO[bytes], IO[bytes]]:
    """Orders and answers. What libraries or a user's network print goes where errors go, not between the answers."""
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # nor would what it still holds be written when this process is killed
    return orders, answers


def _hear(orders: IO[bytes], waiting: queue.SimpleQueue[bytes]) -> None:
    """Beside the work, so that its end is heard in the middle of it."""
    with suppress(EOFError, OSError):
        while True:
            waiting.put(receive(orders))
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # this process too: nothing that it writes is there before it is whole
    os._exit(0)


class _Teller(logging.Handler):
    """Hands records to the orchestrator, whose log has the format that its user chose."""

    def __init__(self, answers: IO[bytes]) -> None:
        super().__init__()
        self._answers = answers

    def emit(self, record: logging.LogRecord) -> None:
        send(self._answers, Said(record.name, record.levelno, self.format(record)))


def _log_to(answers: IO[bytes], level: int) -> None:
    root, teller = logging.getLogger(), _Teller(answers)
    root.setLevel(level)
    teller.setLevel(level)  # loggers with a level of their own, as PyTorch has them, do not ask the root's
    root.addHandler(teller)


def _import_ahead(job: Job, waiting: queue.SimpleQueue[bytes]) -> None:
    """What every job needs takes seconds to import. An order imports what it needs itself: none waits for this."""
    for engine in ("torch", *job.engines):
        if waiting.empty():
            with suppress(Exception):  # said again by the step that needs it; some engines have no emitter
                from mas_edge.export.targets import emitter_of
                from mas_edge.orchestrator import workshop  # noqa: F401 - for what it imports

                emitter_of(engine)


def _carried_out(order: Order, opening: Opening) -> Answer:
    steps = Steps(opening.job, ArtifactStore(Path(opening.artifacts)), Path(opening.directory))
    try:
        match order:
            case Take(work, state, records):
                return Taken(*steps.take(work, state, records))
            case Provide(wanted, state):
                return Supplied(steps.provide(wanted, state))
    except EdgeError as error:
        return Failed(type(error).__name__, str(error))
    except Exception as error:  # a fault of ours, of an exporter's package or of a user's network
        what = f"step {order.work.step}" if isinstance(order, Take) else f"making {' '.join(order.wanted)}"
        log.exception("%s failed", what)
        return Failed("ServerError", f"{what} failed: {type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
    sys.exit(0)
