"""The memory of each process while large artifacts move: the broker, the orchestrator, a device without an engine.

python tools/bench_transfer_memory.py distribute --megabytes 100 --devices 32 --json memory.json
python tools/bench_transfer_memory.py upload --megabytes 100 --devices 1
python tools/bench_transfer_memory.py collect --megabytes 10 --devices 32 --updates 256

Rounds without training, as in ``bench_rounds.py``, every device a process of its own. ``distribute``: the model goes
down to all of them, and the part that each sends back is small. ``upload``: an update as large as the model lies in the
state directory of each, as after a power cut, and the command ``mas-edge-device run`` sends it to whoever asks for it:
here that is no orchestrator. ``collect``: the whole model goes down and an update as large comes up from each, round
after round until there were so many; what a device needs to make its update is not its agent's, so only the two others
have a limit then. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rounds_kit as kit
import rounds_meter as meter
from rounds_collector import Collector
from rounds_device import data_folder as write_data

from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.pending import Finished, PendingOffers
from mas_edge.orchestrator.broker.managed import ManagedBroker
from mas_edge.protocol.messages import Report

FLOAT_BYTES = 4
BLOCK_BYTES = 1024 * 1024
FLEET = "fleet"
LIMITS_MB = {"broker": 16.0, "device": 40.0}
WHAT = ("distribute", "upload", "collect")
PATIENCE_S = 600.0
ENGINE = "onnxruntime"  # for `upload`: the quickest to test; nothing is trained


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code: 1 if a process held more than it may."""
    parser = argparse.ArgumentParser(description="Measure the memory of processes while large artifacts move.")
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--megabytes", type=float, default=100.0, help="of the model")
    parser.add_argument("--devices", type=int, default=32)
    parser.add_argument("--updates", type=int, default=0, help="to take in, in whole rounds; 0: one of each device")
    parser.add_argument("--exported", action="store_true", help="the orchestrator has exported a job's programs before")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args(arguments)
    floats = round(options.megabytes * 1e6) // FLOAT_BYTES // kit.TENSORS * kit.TENSORS
    rounds = max(1, -(-options.updates // options.devices))
    if options.what == "upload":
        rows = measure_upload(round(options.megabytes * 1e6), options.devices)
    else:
        collect = options.what == "collect"
        rows = measure(floats, options.devices, rounds, collect=collect, exported=options.exported)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"what": options.what, "megabytes": options.megabytes, "rows": rows}) + "\n")
    return 0 if all(row["peak_mb"] <= row["limit_mb"] for row in rows) else 1


def measure(floats: int, devices: int, rounds: int, *, collect: bool, exported: bool) -> list[dict[str, Any]]:
    """One row for each role; of the devices the one that held most."""
    model_mb = FLOAT_BYTES * floats / 1e6
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(ManagedBroker(folder))
        more = [str(n) for n in (floats, devices, rounds, 0, int(collect), int(exported))]
        server = stack.enter_context(kit.process(folder, kit.__file__, str(folder / "server"), broker.url, *more))
        kit.expect(server, "warm", folder)
        pids = {"orchestrator": server.pid, "broker": broker.pid or 0}
        idle = {role: meter.resident_mb(pid) for role, pid in pids.items()}
        tasks = () if collect else ("b",)  # without labels of a, a device does not send the large head
        for number in range(devices):
            where, how = str(folder / f"device-{number}"), "add" if collect else "carry"
            more = [where, broker.url, f"device-{number}", how, *tasks]
            pids[f"device-{number}"] = stack.enter_context(kit.process(folder, kit.DEVICE, *more)).pid
        kit.expect(server, "done", folder)
        peaks = {role: meter.taken(pid).peak_mb for role, pid in pids.items()}
    rows = [
        _row("orchestrator", peaks, idle["orchestrator"], 100 + 2 * model_mb),
        _row("broker", peaks, idle["broker"]),
    ]
    return rows if collect else [*rows, _row("device", peaks)]


def measure_upload(size: int, devices: int) -> list[dict[str, Any]]:
    """The same for updates of ``size`` bytes that exist."""
    names = [f"device-{number}" for number in range(devices)]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(ManagedBroker(folder))
        pids, idle = {"broker": broker.pid or 0}, meter.resident_mb(broker.pid or 0)
        for number, device in enumerate(names):
            _leave_work(folder / device, size, number)
            where = ["--broker", broker.url, "--name", device, "--fleet", FLEET, "--state", str(folder / device)]
            data = str(write_data(folder / device / "data", ("a", "b")))
            command = ["device_runtime", "run", *where, "--data", data, "--engine", ENGINE]
            pids[device] = stack.enter_context(kit.process(folder, "-m", *command)).pid
        with Collector(broker.url, FLEET) as collector:
            came = collector.collect(devices, PATIENCE_S)
        assert came == devices * size
        peaks = {role: meter.taken(pid).peak_mb for role, pid in pids.items()}
        for device in names:
            os.kill(pids[device], signal.SIGTERM)  # a real agent does not look at its standard input
    return [_row("broker", peaks, idle), _row("device", peaks)]


def _leave_work(state: Path, size: int, number: int) -> None:
    """What a device has on disk that lost its power before it could offer its update: every one has its own."""
    block = bytes([number % 256]) * BLOCK_BYTES
    blocks = (block[: min(BLOCK_BYTES, size - start)] for start in range(0, size, BLOCK_BYTES))
    manifest = ArtifactStore(state / "artifacts").put_pieces(blocks)
    finished = Finished(job="bench", round_id="all-0000", report=Report(samples={}, losses={}), manifest=manifest)
    PendingOffers(state / "pending").add(finished)


def _row(role: str, peaks: dict[str, float], idle: float | None = None, limit: float | None = None) -> dict[str, Any]:
    """Of the devices the one that held most."""
    peak = max(peak for name, peak in peaks.items() if name.startswith(role))
    return {"what": role, "idle_mb": idle, "peak_mb": peak, "limit_mb": LIMITS_MB[role] if limit is None else limit}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'process':14} {'idle MB':>8} {'most MB':>8} {'limit MB':>9}"]
    for row in rows:
        idle = "-" if row["idle_mb"] is None else f"{row['idle_mb']:.1f}"
        lines.append(f"{row['what']:14} {idle:>8} {row['peak_mb']:8.1f} {row['limit_mb']:9.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
