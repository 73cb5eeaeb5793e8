"""One demo from start to end: data, broker, processes, live picture, result."""

from __future__ import annotations

import json
import shutil
import signal
import time
from itertools import cycle
from pathlib import Path

from rich.console import Console
from rich.live import Live

from mas_edge.bundle import bundled
from mas_edge.datasets.constant import constant_losses
from mas_edge.datasets.watch import make_watch
from mas_edge.demo.fleet import LocalFleet
from mas_edge.demo.live import picture_of
from mas_edge.demo.plots import plot_affinity, plot_losses
from mas_edge.demo.summary import print_summary
from mas_edge.federation.flow import OVER
from mas_edge.job import Job, load_job
from mas_edge.orchestrator import view
from mas_edge.orchestrator.broker import open_broker
from mas_edge.orchestrator.result import result_of
from mas_edge.orchestrator.store import MAX_EVENTS
from mas_edge.orchestrator.view import Snapshot
from mas_edge.protocol.errors import ServerError
from mas_edge.whole_file import write_text

REFRESH_S = 0.5
MAX_ABANDONED = 3


def run_demo(out: Path, target: Path, broker_spec: str, job_file: Path | None, *, fresh: bool) -> None:
    """Run the job of ``job_file`` (default: the watch job) on ten device processes; everything lies below ``out``.

    Ctrl-C ends every process and leaves a state from which the same call goes on.

    Raises:
        EdgeError: any part of the run cannot go on.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # either ends the fleet in order; a shell's & ignores SIGINT
        signal.signal(number, signal.default_int_handler)
    console = Console()
    job_file = job_file or bundled("models", "watch.toml")
    job, state = load_job(job_file), out / "state"
    _clear_finished(state, fresh=fresh)
    console.print(f"data: {out / 'data'}")
    folders = make_watch(out / "data").folders
    try:
        with open_broker(broker_spec, out) as broker:
            console.print(f"broker: {broker.mode} at {broker.url}; logs: {out / 'logs'}")
            with LocalFleet(out / "logs") as fleet:
                fleet.start_orchestrator(job_file, state, broker.url)
                devices = out / "devices"
                fleet.test_engines(job.engines, devices, [folder.name for folder in folders])
                console.print(f"engines, each tested here: {', '.join(job.engines)}")
                for folder, engine in zip(folders, cycle(job.engines)):  # a mixed fleet
                    fleet.start_device(folder.name, job.fleet, folder, devices / folder.name, broker.url, engine)
                _watch(console, fleet, state)
    except KeyboardInterrupt:
        console.print(f"\ninterrupted; the same command goes on, or: mas-edge serve {job_file} --state {state}")
        raise
    _show_result(console, out, job, folders, target)


def _clear_finished(state: Path, *, fresh: bool) -> None:
    """A finished run makes room for a new one; an interrupted one is gone on with."""
    if not state.exists():
        return
    try:
        finished = view.read(state).phase in OVER
    except ServerError:
        finished = True  # it never began
    if finished or fresh:
        shutil.rmtree(state)


def _watch(console: Console, fleet: LocalFleet, state: Path) -> None:
    told = 0
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while not fleet.orchestrator_ended():
            fleet.check_devices()
            time.sleep(REFRESH_S)
            try:
                snapshot = view.read(state, last_events=MAX_EVENTS)
            except ServerError:
                continue  # the orchestrator has not begun to write yet
            if console.is_terminal:
                live.update(picture_of(snapshot))
            else:  # into a file or a pipe: a line for each thing that happened
                for event in snapshot.events[told:]:
                    console.print(f"{event.level}: {event.text}", markup=False, soft_wrap=True)
                told = len(snapshot.events)
            _check_progress(snapshot)


def _check_progress(snapshot: Snapshot) -> None:
    """A real fleet is waited for; a demo in which a round fails again and again says so and ends."""
    failed = [record for record in snapshot.rounds[-MAX_ABANDONED:] if record.outcome == "abandoned"]
    if len(failed) == MAX_ABANDONED:
        reasons = "; ".join(sorted(set(failed[-1].refused.values()))) or "no device answered in time"
        message = f"round {failed[-1].round_id} failed {MAX_ABANDONED} times: {reasons}; the folder logs says more"
        raise ServerError(message)


def _show_result(console: Console, out: Path, job: Job, folders: list[Path], target: Path) -> None:
    state = out / "state"
    result = result_of(view.read(state), constant_losses(job, folders))
    write_text(target, json.dumps(result, indent=2) + "\n")
    pictures = [out / name for name in ("losses.png", "affinity.png")]
    plot_losses(result, pictures[0])
    plot_affinity(result, pictures[1])
    print_summary(console, result)
    console.print(f"written: {target}, {pictures[0]}, {pictures[1]}, models in {state / 'models'}")
