"""What the pages of operators find: a job so small that nobody waits, its data, and a run of it that is done."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.docs.reader import PATIENCE_S
from tests.faults.tiny import write_folder, write_job
from tests.simulation import tiny

SMALL = {"rounds": 2, "merge_rounds": 1, "per_round": 1, "min_devices": 1}


def make_workshop(folder: Path, broker: str) -> Path:
    """Everything that a page of an operator may name, below ``folder``; the run has really been run."""
    for path, fleet in (("models/watch.toml", "watch"), ("job.toml", "fleet"), ("load.toml", "load")):
        _name(write_job(folder / path, **SMALL), fleet)  # type: ignore[arg-type]
    for seed, name in enumerate(("data", "recordings")):
        write_folder(folder / name, seed)
    (folder / "rooms").mkdir()  # not the real ones: what is simulated here shows that it is
    tiny.write_job(folder / "rooms")
    tiny.write_data(folder / "rooms")
    _finish(folder, broker)
    shutil.copytree(folder / "runs" / "watch", folder / "demo-out" / "state")
    return folder


def begin_anew(folder: Path) -> None:
    """No run has begun here yet. What was exported stays: all jobs of the workshop have the same network."""
    exports = folder / "demo-out" / "state" / "exports"
    shutil.rmtree(folder / "runs")
    for state in ("runs/watch", "run", "load"):
        shutil.copytree(exports, folder / state / "exports")


def _name(job: Path, fleet: str) -> None:
    job.write_text(re.sub(r'fleet = ".*"', f'fleet = "{fleet}"', job.read_text()))


def _finish(folder: Path, broker: str) -> None:
    """The run ``runs/watch``, by an orchestrator and a device, each a process as it is anywhere."""
    device = ["device_runtime", "run", "--broker", broker, "--fleet", "watch", "--name", "pi-kitchen"]
    device += ["--data", "data", "--state", "home/mas-edge/pi-kitchen", "--engine", "onnxruntime"]
    server = ["mas_edge", "serve", "models/watch.toml", "--state", "runs/watch", "--broker", broker, "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-m", *device], env=environment, cwd=folder)
    try:
        subprocess.run([sys.executable, "-m", *server], env=environment, cwd=folder, check=True, timeout=PATIENCE_S)
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_S)
