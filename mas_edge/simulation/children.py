"""Runs as child processes, a few at a time: each begun, watched, and ended with us."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from mas_edge.orchestrator.child import spawn
from mas_edge.protocol.errors import ServerError
from mas_edge.simulation.plan import Places, PlannedRun

POLL_S = 0.1
PATIENCE_S = 10.0  # for a child that was told to end; what it has closed is on disk, so killing it loses no round
SAID_NOTHING = "it said nothing"


@dataclass(frozen=True)
class Orders:
    """What all runs of a comparison share."""

    job: Path
    data: Path
    device: str
    places: Places

    def command(self, run: PlannedRun) -> list[str]:
        """What simulates the run. One thread each: two runs on two cores must not take turns on them."""
        arguments = [
            "simulate", str(self.job), "--data", str(self.data), "--method", run.method, "--seed", str(run.seed),
            "--device", self.device, "--state", str(self.places.state(run)), "--json", str(self.places.result(run)),
            "--quiet",
        ]  # fmt: skip
        return ["env", "OMP_NUM_THREADS=1", sys.executable, "-m", "mas_edge", *arguments]


@dataclass(frozen=True)
class Failure:
    """A run that did not finish: the exit code of its process and what it said last."""

    run: PlannedRun
    exit_code: int
    reason: str


class Watcher(Protocol):
    """Who is told how it goes."""

    def planned(self, due: int, there: int) -> None:
        """So many runs are to do, and so many are finished from before."""

    def begun(self, run: PlannedRun) -> None:
        """A run is started, or gone on with."""

    def working(self, run: PlannedRun) -> None:
        """It still runs; called several times a second."""

    def ended(self, run: PlannedRun, seconds: float, failure: Failure | None) -> None:
        """It was at work for that long: finished, failed, or (while an exception passes) ended by us."""


class Children:
    """The processes at work. Used as a context, whose end is theirs.

    Raises:
        ServerError: a process cannot be started.
    """

    def __init__(self, orders: Orders, watcher: Watcher) -> None:
        self._orders = orders
        self._watcher = watcher
        self._working: dict[PlannedRun, tuple[subprocess.Popen[bytes], float]] = {}

    def __enter__(self) -> Children:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        for process, _ in self._working.values():
            process.terminate()
        for run in list(self._working):
            process, _ = self._working[run]
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            self._end(run, Failure(run, process.returncode, "it was interrupted; the same command goes on with it"))

    def carry_out(self, runs: Sequence[PlannedRun], workers: int) -> list[Failure]:
        """Run them all, ``workers`` at a time, in their order; returns those that failed."""
        waiting, failures = deque(runs), []
        while waiting or self._working:
            while waiting and len(self._working) < workers:
                self._begin(waiting.popleft())
            time.sleep(POLL_S)
            for run in list(self._working):
                process, _ = self._working[run]
                if process.poll() is None:
                    self._watcher.working(run)
                    continue
                failure = self._failure(run, process.returncode)
                failures += [failure] if failure else []
                self._end(run, failure)
        return failures

    def _begin(self, run: PlannedRun) -> None:
        log, command = self._orders.places.log(run), self._orders.command(run)
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with log.open("wb") as output:
                self._working[run] = (spawn(command, run.name, output), time.monotonic())
        except OSError as error:
            message = f"{run.name} cannot be started: {error}; free some memory or disk, then run this again"
            raise ServerError(message) from None
        self._watcher.begun(run)

    def _end(self, run: PlannedRun, failure: Failure | None) -> None:
        process, started = self._working.pop(run)
        if process.stdin:
            process.stdin.close()  # the pipe by which the child would have noticed our end
        self._watcher.ended(run, time.monotonic() - started, failure)

    def _failure(self, run: PlannedRun, code: int) -> Failure | None:
        if code == 0 and self._orders.places.result(run).exists():
            return None
        if code < 0:
            killed = f"its process was killed by signal {-code}: perhaps there was not enough memory for --workers"
            return Failure(run, ServerError.exit_code, killed)
        log = self._orders.places.log(run)
        lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        last = next((line for line in reversed(lines) if line.startswith("error: ")), lines[-1] if lines else "")
        reason = f"{last.removeprefix('error: ') or SAID_NOTHING} (log: {log})"
        return Failure(run, code or ServerError.exit_code, reason)
