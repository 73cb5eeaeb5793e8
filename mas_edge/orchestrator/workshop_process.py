"""The orchestrator's steps in a process of their own, so that PyTorch and the exporters never enter this one.

The process is there while there is work, and a while longer. It may be killed at any moment, by the system where memory
is short: what it was at is done again by another one, and nothing that it writes is there before it is whole.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from device_runtime.child import command
from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import JobState, Local, Provided
from mas_edge.federation.supply import Wanted
from mas_edge.job import Job
from mas_edge.orchestrator.records import RoundRecord, SplitRecord
from mas_edge.orchestrator.steps import Steps
from mas_edge.orchestrator.workshop_wire import (
    Failed,
    Opening,
    Order,
    Provide,
    Said,
    Supplied,
    Take,
    Taken,
    answer_of,
    receive,
    send,
)
from mas_edge.protocol import errors
from mas_edge.protocol.errors import EdgeError, ServerError

log = logging.getLogger(__name__)

CHILD = "mas_edge.orchestrator.workshop_child"
# A process takes 3 s to be ready (on two x86-64 cores; 10 on a Raspberry Pi) and holds 300 to 500 MB. Who comes back
# later than this waits a tenth more; devices of a fleet, and the steps of a small job, follow each other sooner.
WARM_S = 30.0
# A kill by hand or by a full memory need not come again; what kills every process that tries it does.
ATTEMPTS = 3


class WorkshopProcess:
    """Does what ``Steps`` does, in a child process; orders come one at a time, from one thread that outlives them.

    (Linux ends a child with the *thread* that started it.)
    """

    def __init__(self, job: Job, artifacts: Path, directory: Path, warm_s: float = WARM_S) -> None:
        self._job = job
        self._artifacts = artifacts
        self._directory = directory
        self._warm_s = warm_s
        self._ordering = threading.Lock()  # the end of an idle process must not meet an order
        self._changing = threading.Lock()  # nor the start or the end of a process another one
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._rest: threading.Timer | None = None

    @property
    def pid(self) -> int | None:
        """The process, if there is one."""
        process = self._process
        return None if process is None else process.pid

    def warm(self) -> None:
        """Start the process now, because there will be work for it soon."""
        with self._ordering, suppress(OSError, ServerError):  # the order itself will say why it cannot be
            self._started()
            self._rest_later()

    def take(self, work: Local, state: JobState, records: list[RoundRecord]) -> tuple[JobState, SplitRecord | None]:
        """As ``Steps.take``.

        Raises:
            JobError, ServerError: as there; or the process was killed again and again.
        """
        taken = self._ask(Take(work, state, records), f"step {work.step}")
        assert isinstance(taken, Taken)  # noqa: S101 - for the type checker
        return taken.state, taken.split

    def provide(self, wanted: Wanted, state: JobState) -> Provided:
        """As ``Steps.provide``.

        Raises:
            JobError, ServerError: as there; or the process was killed again and again.
        """
        supplied = self._ask(Provide(wanted, state), f"making {' '.join(wanted)}")
        assert isinstance(supplied, Supplied)  # noqa: S101 - for the type checker
        return supplied.made

    def close(self) -> None:
        """End the process at once, whatever it is at; what waits for it raises ServerError. From any thread."""
        with self._changing:
            self._closed = True
        self._end()
        if self._rest is not None:
            self._rest.cancel()

    # ------------------------------------------------------------------ orders

    def _ask(self, order: Order, what: str) -> Taken | Supplied:
        with self._ordering:
            how = ""
            for _ in range(ATTEMPTS):
                try:
                    return self._answer(self._started(), order)
                except (EOFError, OSError):
                    how = self._end()
                    if not self._closed:
                        log.warning("the workshop's process was ended (%s): %s is done again", how, what)
                finally:
                    self._rest_later()
        message = (
            f"{what}: its process was ended {ATTEMPTS} times, at last by {how}; if the system did it, this machine "
            "needs more memory or swap, or the job a smaller batch; else look at what it printed"
        )
        raise ServerError(message)

    def _answer(self, process: subprocess.Popen[bytes], order: Order) -> Taken | Supplied:
        assert process.stdin is not None and process.stdout is not None  # noqa: S101 - for the type checker
        send(process.stdin, order)
        while True:
            try:
                answer = answer_of(receive(process.stdout))
            except msgspec.MsgspecError as error:
                message = f"the kit was changed while its orchestrator runs ({error}): start the orchestrator again"
                raise ServerError(message) from None
            match answer:
                case Said(logger, level, text):
                    logging.getLogger(logger).log(level, "%s", text)
                case Failed(name, reason):
                    raise _error_called(name)(reason)
                case _:
                    return answer

    # ------------------------------------------------------------------ the process

    def _started(self) -> subprocess.Popen[bytes]:
        """The process; a new one if there is none. Raises OSError if it ends at once, ServerError if it cannot be."""
        with self._changing:
            if self._closed:
                message = "the orchestrator is about to end"
                raise ServerError(message)
            if self._process is not None:
                return self._process
            try:
                # A session of its own: Ctrl-C is for us, and we end it with all that it has started.
                self._process = process = subprocess.Popen(  # noqa: S603 - a module of ours
                    command(CHILD), stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
                )
            except OSError as error:
                message = f"the process that exports cannot be started: {error.strerror}; free some memory"
                raise ServerError(message) from None
        assert process.stdin is not None  # noqa: S101 - for the type checker
        level = logging.getLogger().getEffectiveLevel()
        where = {"artifacts": str(self._artifacts.absolute()), "directory": str(self._directory.absolute())}
        send(process.stdin, Opening(job=self._job, log_level=level, **where))
        return process

    def _end(self) -> str:
        """Kill the process and all that it has started, if there is one; says how it ended before that, if it did."""
        with self._changing:
            process, self._process = self._process, None
            if process is None:
                return ""
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError, AttributeError):
                pipe.close()  # type: ignore[union-attr]
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def _rest_later(self) -> None:
        """End the process unless there is an order before ``warm_s`` seconds are over."""
        if self._rest is not None:
            self._rest.cancel()
        if self._closed:
            return
        self._rest = threading.Timer(self._warm_s, self._rest_now)
        self._rest.daemon = True
        self._rest.start()

    def _rest_now(self) -> None:
        if self._ordering.acquire(blocking=False):
            try:
                self._end()
            finally:
                self._ordering.release()


def _error_called(name: str) -> type[EdgeError]:
    found = getattr(errors, name, None)
    return found if isinstance(found, type) and issubclass(found, EdgeError) else ServerError


Workshop: TypeAlias = Steps | WorkshopProcess


def open_workshop(job: Job, artifacts: ArtifactStore, directory: Path) -> Workshop:
    """What does the steps of ``job``: a process of its own, or this one where that would gain nothing, or miss a part.

    A process that holds PyTorch already would only have it held twice; what a script itself defines is only there.
    """
    here = "torch" in sys.modules or any(name.startswith("__main__:") for name in _functions(job))
    return Steps(job, artifacts, directory) if here else WorkshopProcess(job, artifacts.directory, directory)


def _functions(job: Job) -> list[str]:
    return [job.network.encoder, *(name for task in job.tasks for name in (task.head, task.loss, task.metric))]
