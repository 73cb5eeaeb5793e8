"""A fleet on one machine: an orchestrator and one process a device, as real ones would run, and their end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from device_runtime.engines.choice import FILE, choose
from mas_edge.orchestrator.child import spawn
from mas_edge.protocol.errors import DeviceError, ServerError

# After a polite SIGTERM a process finishes its current batch and says goodbye; then it is killed.
PATIENCE_S = 8.0
THREADS = "1"  # of each device: they share this machine's cores


class LocalFleet:
    """Child processes with their logs under ``logs``; leaving the ``with`` block ends every one of them."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> LocalFleet:
        self._logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start_orchestrator(self, job: Path, state: Path, broker: str) -> None:
        """Run ``mas-edge serve`` as its own process."""
        self._start("orchestrator", ["mas_edge", "serve", str(job), "--state", str(state), "--broker", broker])

    def test_engines(self, engines: Sequence[str], devices: Path, names: Sequence[str]) -> None:
        """Let every engine show that it works here, once for all devices: each finds the result in its state folder.

        Raises:
            DeviceError: one does not work; says why and what to do.
        """
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = THREADS  # a result holds for a number of threads
        try:
            for engine in engines:
                choose(engine, devices)
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]
            else:
                os.environ["OMP_NUM_THREADS"] = before
        for name in names:
            (devices / name).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(devices / FILE, devices / name / FILE)

    def start_device(self, name: str, fleet: str, data: Path, state: Path, broker: str, engine: str = "auto") -> None:
        """Run ``mas-edge-device run`` as its own process, on ``THREADS`` threads."""
        arguments = ["device_runtime", "run", "--verbose", "--threads", THREADS, "--engine", engine]
        arguments += ["--broker", broker, "--name", name, "--fleet", fleet, "--data", str(data), "--state", str(state)]
        self._start(name, arguments)

    def _start(self, name: str, arguments: list[str]) -> None:
        with (self._logs / f"{name}.log").open("ab") as log:
            self._processes[name] = spawn([sys.executable, "-m", *arguments], name, log)

    def orchestrator_ended(self) -> bool:
        """Whether the orchestrator is done.

        Raises:
            ServerError: it ended without having finished the job.
        """
        code = self._processes["orchestrator"].poll()
        if code is None:
            return False
        if code != 0:
            message = f"the orchestrator ended with exit code {code}: {self._last_line('orchestrator')}"
            raise ServerError(message)
        return True

    def check_devices(self) -> None:
        """Raise DeviceError when a device process has ended by itself."""
        for name, process in self._processes.items():
            if name != "orchestrator" and (code := process.poll()) is not None:
                message = f"device {name} ended with exit code {code}: {self._last_line(name)}"
                raise DeviceError(message)

    def stop(self) -> None:
        """End every process: politely, then for good."""
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(timeout=PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()

    def _last_line(self, name: str) -> str:
        path = self._logs / f"{name}.log"
        lines = path.read_text(errors="replace").strip().splitlines()
        return f"{lines[-1] if lines else 'it said nothing'} (log: {path})"
