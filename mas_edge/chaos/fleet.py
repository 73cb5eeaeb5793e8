"""An orchestrator and devices as processes of their own, each of which can be killed and started again.

Everything of one run is below one folder:

    state/            the orchestrator's
    devices/NAME/     each device's
    NAME.log          what a process said, over all its lives
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from device_runtime.engines.choice import FILE
from mas_edge.chaos.nursery import Child, Nursery
from mas_edge.demo.fleet import THREADS, LocalFleet
from mas_edge.job import Job, load_job
from mas_edge.orchestrator import view
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.errors import DataError, ServerError
from mas_edge.simulation.fleet import device_folders

ORCHESTRATOR = "orchestrator"


class Ground:
    """What all runs of a soak test share: the job, the data, and what need not be made again for every run.

    ``prepared`` holds the verified exports and the result of the engines' self-test, so that a run is not mostly that.

    Raises:
        DataError: ``data`` holds no folder, or has none for a device of ``devices``.
        JobError: the job file is wrong.
    """

    def __init__(self, job_file: Path, data: Path, prepared: Path, devices: Sequence[str] = ()) -> None:
        self.job_file = job_file
        self.job: Job = load_job(job_file)
        found = {path.name: path for path in device_folders(data)}
        lacking = sorted(set(devices) - set(found))
        if lacking:
            message = f"{data}: expected a data folder for each device, found none for {', '.join(lacking)}"
            raise DataError(message)
        taking_part, least = len(devices or found), self.job.federation.min_devices
        if taking_part < least:
            message = (
                f"the job waits for {least} devices (federation.min_devices), here are {taking_part}: "
                "take more of the data folders, or try a job with fewer"
            )
            raise DataError(message)
        self.folders: Mapping[str, Path] = {name: found[name] for name in devices or found}
        self.engine = self.job.engines[-1]  # of those a job asks for by default, the one that starts faster
        self._prepared = prepared

    def prepare(self) -> None:
        """Let the engine show that it works here, once for all devices and runs."""
        self._prepared.mkdir(parents=True, exist_ok=True)
        LocalFleet(self._prepared).test_engines([self.engine], self._prepared, [])

    def furnish(self, directory: Path) -> None:
        """Lay out the folder of one run."""
        for name in self.folders:
            (directory / "devices" / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._prepared / FILE, directory / "devices" / name / FILE)
        if (self._prepared / "exports").is_dir():
            shutil.copytree(self._prepared / "exports", directory / "state" / "exports", dirs_exist_ok=True)

    def keep_exports(self, directory: Path) -> None:
        """Let later runs find what this one exported and verified."""
        exports = directory / "state" / "exports"
        if exports.is_dir():
            shutil.copytree(exports, self._prepared / "exports", dirs_exist_ok=True)


class MortalFleet:
    """The processes of one run; ``brokers`` says by which URL each reaches the broker (the key "" for all others).

    ``first_started``: by process, when it was started for the first time (monotonic seconds).
    """

    def __init__(self, ground: Ground, nursery: Nursery, directory: Path, brokers: Mapping[str, str]) -> None:
        self.ground = ground
        self.directory = directory
        self.state = directory / "state"
        self.names = (ORCHESTRATOR, *ground.folders)
        self._nursery = nursery
        self._brokers = brokers
        self._children: dict[str, Child] = {}
        self.first_started: dict[str, float] = {}

    def __enter__(self) -> MortalFleet:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_all()

    def start(self, name: str) -> None:
        """Start the orchestrator or a device, for the first time or again."""
        broker = self._brokers.get(name) or self._brokers[""]
        if name == ORCHESTRATOR:
            program = "mas-edge"
            arguments = ["serve", str(self.ground.job_file), "--state", str(self.state), "--broker", broker]
        else:
            program = "mas-edge-device"
            arguments = ["run", "--verbose", "--threads", THREADS, "--engine", self.ground.engine, "--broker", broker]
            arguments += ["--name", name, "--fleet", self.ground.job.fleet, "--data", str(self.ground.folders[name])]
            arguments += ["--state", str(self.device_state(name))]
        self._children[name] = self._nursery.start(name, program, arguments, self.log_file(name))
        self.first_started.setdefault(name, time.monotonic())

    def start_all(self) -> None:
        """Start everything."""
        for name in self.names:
            self.start(name)

    def kill(self, name: str) -> None:
        """SIGKILL; nothing happens if it does not run."""
        if name in self._children:
            self._children[name].kill()

    def signal(self, name: str, number: int) -> None:
        """Send a signal to a process, such as SIGSTOP."""
        self._children[name].signal(number)

    def kill_all(self) -> None:
        """Leave nothing behind."""
        for child in self._children.values():
            child.kill()

    def alive(self, name: str) -> bool:
        """Whether the process runs."""
        return name in self._children and self._children[name].code is None

    def code(self, name: str) -> int | None:
        """What a process ended with; None while it runs."""
        return self._children[name].code

    def device_state(self, name: str) -> Path:
        """The state directory of a device."""
        return self.directory / "devices" / name

    def log_file(self, name: str) -> Path:
        """The log of a process."""
        return self.directory / f"{name}.log"

    def last_line(self, name: str) -> str:
        """What a process said last."""
        path = self.log_file(name)
        lines = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        return lines[-1] if lines else "it said nothing"

    def snapshot(self) -> Snapshot | None:
        """The run as it stands; None before it has begun."""
        try:
            return view.read(self.state, last_events=1000)
        except ServerError:
            return None

    def check(self, killed: set[str]) -> None:
        """Make sure that nobody has ended whom we did not kill.

        Raises:
            ServerError: a process has ended by itself; with its last words.
        """
        for name, child in self._children.items():
            finished = name == ORCHESTRATOR and child.code == 0
            if child.code is not None and name not in killed and not finished:
                message = f"{name} ended with code {child.code}: {self.last_line(name)} (log: {self.log_file(name)})"
                raise ServerError(message)
