"""The memory of each process while large artifacts move: the broker, the orchestrator, a device without an engine.

python tools/bench_transfer_memory.py distribute --megabytes 100 --devices 32 --json memory.json
python tools/bench_transfer_memory.py collect --megabytes 10 --devices 32 --updates 256

Rounds without training, as in ``bench_rounds.py``, every device a process of its own. ``distribute``: the model goes
down to all of them, and the part that each sends back is small. ``collect``: the whole model goes down and an update as
large comes up from each, round after round until there were so many; what a device needs to make its update is not its
agent's, so only the two others have a limit then. Linux only.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rounds_kit as kit
import rounds_meter as meter

from mas_edge.orchestrator.broker.managed import ManagedBroker

FLOAT_BYTES = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code: 1 if a process held more than it may."""
    parser = argparse.ArgumentParser(description="Measure the memory of processes while large artifacts move.")
    parser.add_argument("what", choices=["distribute", "collect"])
    parser.add_argument("--megabytes", type=float, default=100.0, help="of the model")
    parser.add_argument("--devices", type=int, default=32)
    parser.add_argument("--updates", type=int, default=0, help="to take in, in whole rounds; 0: one of each device")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args(arguments)
    floats = round(options.megabytes * 1e6) // FLOAT_BYTES // kit.TENSORS * kit.TENSORS
    rounds = max(1, -(-options.updates // options.devices))
    rows = measure(floats, options.devices, rounds, collect=options.what == "collect")
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"what": options.what, "megabytes": options.megabytes, "rows": rows}) + "\n")
    return 0 if all(row["peak_mb"] <= row["limit_mb"] for row in rows) else 1


def measure(floats: int, devices: int, rounds: int, *, collect: bool) -> list[dict[str, Any]]:
    """One row for each role; of the devices the one that held most."""
    model_mb = FLOAT_BYTES * floats / 1e6
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        broker = stack.enter_context(ManagedBroker(folder))
        more = [str(n) for n in (floats, devices, rounds, 0, int(collect))]
        server = stack.enter_context(kit.process(folder, kit.__file__, str(folder / "server"), broker.url, *more))
        kit.expect(server, "warm", folder)
        pids = {"orchestrator": server.pid, "broker": broker.pid or 0}
        idle = {role: meter.resident_mb(pid) for role, pid in pids.items()}
        tasks = () if collect else ("b",)  # without labels of a, a device does not send the large head
        for number in range(devices):
            where = str(folder / f"device-{number}")
            how = [f"device-{number}", "add" if collect else "carry", *tasks]
            child = stack.enter_context(kit.process(folder, kit.DEVICE, where, broker.url, *how))
            pids[f"device-{number}"] = child.pid
        kit.expect(server, "done", folder)
        peaks = {role: meter.taken(pid).peak_mb for role, pid in pids.items()}
    rows = [
        {"what": "orchestrator", "idle_mb": idle["orchestrator"], "limit_mb": 100 + 2 * model_mb},
        {"what": "broker", "idle_mb": idle["broker"], "limit_mb": 16.0},
    ]
    for row in rows:
        row["peak_mb"] = peaks[row["what"]]
    if not collect:
        largest = max(peak for role, peak in peaks.items() if role.startswith("device"))
        rows.append({"what": "device", "idle_mb": None, "peak_mb": largest, "limit_mb": 40.0})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'process':14} {'idle MB':>8} {'most MB':>8} {'limit MB':>9}"]
    for row in rows:
        idle = "-" if row["idle_mb"] is None else f"{row['idle_mb']:.1f}"
        lines.append(f"{row['what']:14} {idle:>8} {row['peak_mb']:8.1f} {row['limit_mb']:9.1f}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
