"""A tiny job on learnable data, and what carries it out: orchestrators and devices as threads or as processes."""

from __future__ import annotations

import atexit
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from device_runtime.data import open_data
from device_runtime.runtime import Runtime, Settings
from mas_edge.job import Job, parse_job
from mas_edge.orchestrator import view
from mas_edge.orchestrator.limits import Limits
from mas_edge.orchestrator.service import Orchestrator
from mas_edge.orchestrator.store import open_database
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.errors import ServerError

PATIENCE_S = 240.0  # how long a test waits for what must happen: a machine that does six other things is slow
TASKS = ("sign", "mean", "way")
INPUT_SHAPE = (3, 16)
HEADERS = {
    "sign": '[tasks.sign]\nkind = "class"\nclasses = 2\n',
    "mean": '[tasks.mean]\nkind = "value"\n',
    "way": '[tasks.way]\nkind = "direction"\nshape = [3]\n',
}
JOB = """\
name = "tiny"
fleet = "{fleet}"

[data]
input_shape = [3, 16]

[network]
family = "series"
encoder_args = {{ width = 8 }}

[federation]
rounds = {rounds}
merge_rounds = {merge_rounds}
groups = 2
devices_per_round = {per_round}
over_selection = 1.0 # weights are compared bit by bit: they must not depend on who is faster
local_epochs = 3
batch_size = 8
min_devices = {min_devices}
deadline_s = {deadline_s}
deadline_factor = 0 # this machine has other work: it may be slow from one moment to the next

[optimizer]
learning_rate = 0.02

[affinity]
period = 2

[[tasks]]
name = "sign"
kind = "class"
classes = 2

[[tasks]]
name = "mean"
kind = "value"

[[tasks]]
name = "way"
kind = "direction"
shape = [3]
"""


def job_text(
    fleet: str = "",
    *,
    rounds: int = 3,
    merge_rounds: int = 2,
    per_round: int = 2,
    min_devices: int = 3,
    deadline_s: float = 90.0,
) -> str:
    """The job file; a fleet of its own for each job, so that jobs can share a broker."""
    return JOB.format(
        fleet=fleet or f"f-{secrets.token_hex(4)}", rounds=rounds, merge_rounds=merge_rounds, per_round=per_round,
        min_devices=min_devices, deadline_s=deadline_s,
    )  # fmt: skip


def tiny_job(**changed: int | float | str) -> Job:
    """The job of ``job_text``."""
    return parse_job(job_text(**changed))  # type: ignore[arg-type]


def write_folder(directory: Path, tasks: Sequence[str] = TASKS, train: int = 32, test: int = 12, seed: int = 0) -> Path:
    """A data folder in which every task can be read off the means of the three signals."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    level = rng.normal(size=(train + test, 3, 1))
    x = (level + 0.1 * rng.normal(size=(train + test, *INPUT_SHAPE))).astype(np.float32)
    means = x.mean(axis=2)
    targets = {
        "sign": (means[:, 0] > 0).astype(np.int64),
        "mean": means.mean(axis=1),
        "way": means / np.linalg.norm(means, axis=1, keepdims=True),
    }
    np.save(directory / "x.npy", x)
    np.save(directory / "split.npy", np.repeat(np.array([0, 1], np.uint8), [train, test]))
    for task in tasks:
        np.save(directory / f"{task}.npy", targets[task])
    header = f"format = 1\ninput_shape = {list(INPUT_SHAPE)}\n" + "".join(HEADERS[task] for task in tasks)
    (directory / "data.toml").write_text(header)
    return directory


def until(condition: Callable[[], bool], what: str, timeout_s: float = PATIENCE_S) -> None:
    """Wait until a condition holds; fail the test if it does not come true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:g} s in vain for: {what}"
        time.sleep(0.05)


def snapshot(state: Path) -> Snapshot | None:
    """The run in a state directory, None while there is none."""
    try:
        return view.read(state, last_events=1000)
    except ServerError:
        return None


class Actor:
    """Something that runs in a thread of its own until it is done or stopped; an exception in it comes out of join."""

    def __init__(self, work: Callable[[threading.Event], object], name: str) -> None:
        self.result: object = None
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def ended(self) -> bool:
        return not self._thread.is_alive()

    def join(self, timeout_s: float = PATIENCE_S) -> object:
        """Wait for the end; return what the work returned, or raise what it raised."""
        self._thread.join(timeout_s)
        assert self.ended, f"{self._thread.name} is still at it after {timeout_s:g} s"
        if self.error is not None:
            raise self.error
        return self.result

    def stop(self) -> object:
        """Ask it to stop, and wait."""
        self._stop.set()
        return self.join()

    def _run(self) -> None:
        try:
            self.result = self._work(self._stop)
        except BaseException as error:  # raised again in join
            self.error = error


@cache
def _kept() -> Path:
    """Programs that a job of this process's tests has exported and verified; they are named by all they follow from."""
    folder = tempfile.mkdtemp(prefix="mas-edge-tests-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


class Fleet:
    """Everything that a test starts; leaving the ``with`` block ends all of it. Its files are below ``directory``.

    ``anew``: its orchestrators export every program themselves, also one that was exported for an earlier test.
    """

    def __init__(self, url: str, directory: Path, job: str, *, anew: bool = False) -> None:
        self.url = url
        self._anew = anew
        self.directory = directory
        self.job = parse_job(job)
        self.job_file = directory / "job.toml"
        self.job_file.write_text(job)
        self.state = directory / "state"
        self._actors: list[Actor] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            kill(process)
        for actor in self._actors:
            actor.stop()

    # ------------------------------------------------------------------ orchestrators

    def orchestrate(
        self, signing: Path | None = None, limits: Limits | None = None, *, stay: bool = False, hold: bool = False
    ) -> Actor:
        """Run the orchestrator as a thread; the actor's result is whether the job is done."""
        self._furnish()
        run = partial(Orchestrator, self.job, self.state, self.url, limits, signing, stay=stay, hold=hold)
        return self._act(lambda stop: run().run(stop), "orchestrator")

    def serve(self, *more: str) -> subprocess.Popen[bytes]:
        """Run ``mas-edge serve`` as a process; its log is ``serve.log``."""
        self._furnish()
        arguments = ["serve", str(self.job_file), "--state", str(self.state), "--broker", self.url, *more]
        return self.start("mas_edge", arguments, "serve.log")

    def _furnish(self) -> None:
        """Let the next orchestrator find what others exported."""
        if not self._anew and not self.state.exists():
            self.state.mkdir(parents=True)
            (self.state / "exports").symlink_to(_kept())

    def finish(self) -> Snapshot:
        """Wait until the job is done, whoever works on it."""
        until(lambda: self.snapshot().phase == "done", f"the end of the job in {self.state}")
        return self.snapshot()

    def snapshot(self) -> Snapshot:
        """The run as ``mas-edge status`` sees it; waits for its beginning."""
        until(lambda: snapshot(self.state) is not None, f"a run in {self.state}")
        found = snapshot(self.state)
        assert found is not None
        return found

    def round_times(self, phase: str) -> tuple[list[float], list[float]]:
        """When the rounds of a phase were opened and closed, in the order of their opening."""
        db = open_database(self.state)
        try:
            rows = db.execute("SELECT opened, closed FROM rounds WHERE phase = ? ORDER BY number", (phase,)).fetchall()
        finally:
            db.close()
        return [row[0] for row in rows], [row[1] for row in rows]

    # ------------------------------------------------------------------ devices

    def data(self, name: str, tasks: Sequence[str] = TASKS, train: int = 32) -> Path:
        """The data folder of a device, made when it is first asked for."""
        folder = self.directory / "data" / name
        return folder if folder.exists() else write_folder(folder, tasks, train, seed=sum(name.encode()))

    def device_state(self, name: str) -> Path:
        """Where a device keeps its artifacts and models."""
        return self.directory / "devices" / name

    def device(self, name: str, tasks: Sequence[str] = TASKS) -> Actor:
        """Run a device as a thread: cheap, because torch is here already."""
        torch.set_num_threads(1)
        settings = Settings(name, self.job.fleet, self.url, self.device_state(name), "torch")
        data = open_data(self.data(name, tasks))
        return self._act(lambda stop: Runtime(settings, data).run(stop), name)

    def device_process(self, name: str, train: int = 32, engine: str = "auto") -> subprocess.Popen[bytes]:
        """Run a device as a process, as on a real board; its log is ``NAME.log``."""
        arguments = ["run", "--verbose", "--threads", "1", "--broker", self.url, "--name", name]
        arguments += ["--fleet", self.job.fleet, "--data", str(self.data(name, train=train))]
        arguments += ["--state", str(self.device_state(name)), "--engine", engine]
        return self.start("device_runtime", arguments, f"{name}.log")

    # ------------------------------------------------------------------ processes

    def start(self, module: str, arguments: Sequence[str], log: str) -> subprocess.Popen[bytes]:
        """Run ``python -m module`` with its output in a log file."""
        with (self.directory / log).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )  # fmt: skip
        self._processes.append(process)
        return process

    def log(self, name: str) -> str:
        """What a process said so far."""
        return (self.directory / name).read_text()

    def _act(self, work: Callable[[threading.Event], object], name: str) -> Actor:
        actor = Actor(work, name)
        self._actors.append(actor)
        return actor


def kill(process: subprocess.Popen[bytes]) -> None:
    """As the power going: no goodbye."""
    process.send_signal(signal.SIGKILL)
    process.wait()
