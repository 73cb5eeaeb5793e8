"""Processes that begin in milliseconds: forked from one that has imported everything, so that they can be killed often.

An orchestrator takes 2 s to import PyTorch and as long to be ready for its first export; a soak test starts hundreds.
The nursery is a process of its own that runs one thread: it reads a line of JSON for each child to start, forks, and
runs the command line's ``main`` in the child. It answers with the child's pid, and says when one ends. A child shares
nothing with the nursery but imported modules and what libraries prepare once; it ends when the nursery does, and that
when we do.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from mas_edge.job import load_job
from mas_edge.mas.merge import MERGED
from mas_edge.protocol import errors
from mas_edge.protocol.errors import EdgeError, ServerError

PATIENCE_S = 120.0  # to fork takes milliseconds, also on a loaded board
# What the command lines import only when they need it.
PRELOADED = (
    "mas_edge.cli.serve", "mas_edge.orchestrator.service", "mas_edge.orchestrator.workshop", "mas_edge.zoo.series",
    "mas_edge.zoo.image", "device_runtime.cli.run",
    "device_runtime.engines.onnx_engine", "device_runtime.engines.torch_engine",
)  # fmt: skip
_MAINS = {"mas-edge": "mas_edge.cli", "mas-edge-device": "device_runtime.cli"}
_OVER = "the process that starts the others has ended; look at what it printed"
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of Linux; elsewhere children see their broker go, and nothing more


class Child:
    """A process that the nursery started."""

    def __init__(self, name: str, pid: int) -> None:
        self.name = name
        self.pid = pid
        self._code: int | None = None
        self._ended = threading.Event()

    @property
    def code(self) -> int | None:
        """What it ended with, minus the signal's number if one killed it; None while it runs."""
        return self._code

    def kill(self) -> None:
        """As the power going: no goodbye; returns when it is gone."""
        self.signal(signal.SIGKILL)
        self.wait()

    def signal(self, number: int) -> None:
        """Send it a signal; nothing happens if it has ended."""
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_s: float = PATIENCE_S) -> int:
        """Wait for its end and return its code.

        Raises:
            ServerError: it still runs after ``timeout_s`` seconds.
        """
        if not self._ended.wait(timeout_s) or self._code is None:
            message = f"{self.name} (process {self.pid}) still runs after {timeout_s:g} s; look into its log"
            raise ServerError(message)
        return self._code

    def on_end(self, code: int) -> None:
        """It has ended."""
        self._code = code
        self._ended.set()


class Nursery:
    """Starts children; leaving the ``with`` block kills those that are left.

    ``job_file``: the job that they will work on. Its first export is made once in the nursery, so that children find
    what PyTorch prepares for exports.
    """

    def __init__(self, job_file: Path | None = None) -> None:
        self._job_file = job_file
        self._ordering = threading.Lock()  # two orders must not mix
        self._process: subprocess.Popen[bytes] | None = None
        self._children: dict[int, Child] = {}
        self._started: dict[str, int] = {}  # by ticket, the pid of a child that nobody has asked for yet
        self._changed = threading.Condition()
        self._tickets = 0
        self._ready = False
        self._problem: EdgeError | None = None
        self._over = False

    def __enter__(self) -> Nursery:
        command = [sys.executable, "-m", "mas_edge.chaos.nursery", *([str(self._job_file)] if self._job_file else [])]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        threading.Thread(target=self._listen, name="nursery", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        process = self._process
        if process is not None and process.stdin is not None and process.stdout is not None:
            process.stdin.close()
            process.wait()
            process.stdout.close()

    def wait_ready(self) -> None:
        """Wait until children can be started, for as long as it works on that: an export of a large network takes long.

        Raises:
            EdgeError: the job cannot be exported.
            ServerError: the nursery is gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._ready or self._over)
        if self._problem is not None:
            raise self._problem
        if self._over:
            raise ServerError(_OVER)

    def start(self, name: str, program: str, arguments: Sequence[str], log: Path) -> Child:
        """Run ``program`` (``mas-edge`` or ``mas-edge-device``) with its output added to ``log``.

        Raises:
            ServerError: the nursery is gone, or does not answer.
        """
        self.wait_ready()
        with self._changed:
            self._tickets += 1
            ticket = str(self._tickets)
        order = {"ticket": ticket, "program": program, "arguments": list(arguments), "log": str(log)}
        try:
            with self._ordering:
                _write(self._pipe(), order)
        except OSError:
            raise ServerError(_OVER) from None
        with self._changed:
            if not self._changed.wait_for(lambda: ticket in self._started or self._over, PATIENCE_S):
                message = f"{name} was not started within {PATIENCE_S:g} s; is this machine overloaded?"
                raise ServerError(message)
            if ticket not in self._started:
                raise ServerError(_OVER)
            child = self._child(self._started.pop(ticket))
            child.name = name
            return child

    def _pipe(self) -> IO[bytes]:
        if self._process is None or self._process.stdin is None:
            message = "a nursery starts children only inside its with block"
            raise ServerError(message)
        return self._process.stdin

    def _child(self, pid: int) -> Child:
        return self._children.setdefault(pid, Child(f"process {pid}", pid))

    def _listen(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: S101 - for the type checker
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            with self._changed:
                if "ready" in said:
                    self._ready = True
                elif "problem" in said:
                    self._problem = getattr(errors, said["kind"])(said["problem"])
                elif "ticket" in said:
                    self._children.pop(said["pid"], None)  # a pid that an earlier child had
                    self._child(said["pid"])
                    self._started[said["ticket"]] = said["pid"]
                else:
                    self._child(said["pid"]).on_end(said["code"])
                self._changed.notify_all()
        with self._changed:
            self._over = True
            self._changed.notify_all()
            for child in self._children.values():
                if child.code is None:
                    child.on_end(-signal.SIGKILL)


def _write(pipe: IO[bytes], message: dict[str, Any]) -> None:
    pipe.write(json.dumps(message).encode() + b"\n")
    pipe.flush()


# ---------------------------------------------------------------------- in the nursery's process


def main() -> None:
    """Serve orders from stdin until it closes."""
    for name in PRELOADED:
        importlib.import_module(name)
    try:
        if sys.argv[1:]:
            _rehearse(Path(sys.argv[1]))
    except EdgeError as error:
        _write(sys.stdout.buffer, {"problem": str(error), "kind": type(error).__name__})
        return
    _write(sys.stdout.buffer, {"ready": True})
    wake_out, wake_in = os.pipe()
    os.set_blocking(wake_in, False)
    os.set_blocking(wake_out, False)
    signal.set_wakeup_fd(wake_in)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    orders, alive = open(0, "rb", buffering=0), set[int]()  # noqa: SIM115 - until the end
    pending = b""
    with selectors.DefaultSelector() as selector:
        selector.register(orders, selectors.EVENT_READ)
        selector.register(wake_out, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if wake_out in ready:
                os.read(wake_out, 4096)
                _bury(alive)
            if orders.fileno() in ready:
                data = orders.read(65536)
                if not data:
                    break
                *lines, pending = (pending + data).split(b"\n")
                for line in lines:
                    alive.add(_fork(json.loads(line)))
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _rehearse(job_file: Path) -> None:
    """Make what an orchestrator makes, and throw it away."""
    from mas_edge.orchestrator import workshop

    job = load_job(job_file)
    sys.path.insert(0, str(job_file.resolve().parent))
    tasks = [task.name for task in job.tasks]
    workshop.make_programs(job, MERGED, tasks)
    workshop.make_model(job, tasks[:1], workshop.first_weights(job, tasks[:1]), "onnx")
    gc.collect()
    gc.freeze()  # children do not walk through what they share


def _bury(alive: set[int]) -> None:
    """Say which children have ended."""
    while alive:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            return
        alive.discard(pid)
        _write(sys.stdout.buffer, {"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def _fork(order: dict[str, Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(order, parent)
    _write(sys.stdout.buffer, {"ticket": order["ticket"], "pid": pid})
    return pid


def _become(order: dict[str, Any], parent: int) -> NoReturn:
    """In the child: be what was ordered."""
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.setsid()
    nothing, log = os.open(os.devnull, os.O_RDONLY), os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for source, target in ((nothing, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    code = 1
    try:
        code = importlib.import_module(_MAINS[order["program"]]).main(order["arguments"])
    except SystemExit as error:  # argparse
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError):  # a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
