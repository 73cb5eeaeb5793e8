"""What it costs to start the agent: processor seconds from the start of its process until it is registered.

python tools/bench_start.py --engine onnxruntime --starts 4 --json start.json

Registered means that its birth has come through the broker. The command ``mas-edge-device run`` is started several
times with one state directory: the first time it tests its engine, later ones find the result there. Children (the
test, the counting of the data folder) are counted. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rounds_kit as kit
import rounds_meter as meter
from rounds_device import data_folder

from device_runtime.edge.mqtt import Arrived, Event, Link
from device_runtime.engines import available
from mas_edge.orchestrator.broker.managed import ManagedBroker
from mas_edge.protocol.topics import Topics

NAME, FLEET = "pi", "fleet"
LIMIT_S = 1.0  # of a start that finds its engine tested
PATIENCE_S = 300.0  # a slow board tests an engine for minutes
_TICKS = os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code: 1 if a later start took more than LIMIT_S."""
    parser = argparse.ArgumentParser(description="Measure what it costs to start the agent.")
    parser.add_argument("--engine", default=available()[-1] if available() else "auto")
    parser.add_argument("--starts", type=int, default=4)
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    options = parser.parse_args(arguments)
    rows = measure(options.engine, options.starts)
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps({"engine": options.engine, "rows": rows}) + "\n")
    return 0 if all(row["own_s"] + row["children_s"] <= LIMIT_S for row in rows[1:]) else 1


def measure(engine: str, starts: int) -> list[dict[str, float]]:
    """One row for each start."""
    with tempfile.TemporaryDirectory() as name, ManagedBroker(Path(name)) as broker:
        folder = Path(name)
        data = data_folder(folder / "data", ("a", "b"))
        where = ["--broker", broker.url, "--name", NAME, "--fleet", FLEET, "--state", str(folder / "state")]
        command = ["device_runtime", "run", *where, "--data", str(data), "--engine", engine]
        with _births(broker.url) as births:
            return [_start(folder, command, births) for _ in range(starts)]


def _start(folder: Path, command: list[str], births: queue.SimpleQueue[Arrived]) -> dict[str, float]:
    began = time.monotonic()
    with kit.process(folder, "-m", *command) as agent:
        while births.get(timeout=PATIENCE_S).retained:  # of the life before
            pass
        wall_s = time.monotonic() - began
        own_s, children_s = _processor_seconds(agent.pid)
        peak_mb = meter.taken(agent.pid).peak_mb
        agent.terminate()
    return {"own_s": own_s, "children_s": children_s, "wall_s": wall_s, "peak_mb": peak_mb}


@contextmanager
def _births(broker: str) -> Iterator[queue.SimpleQueue[Arrived]]:
    """The births of the fleet's devices, as they come."""
    heard: queue.SimpleQueue[Arrived] = queue.SimpleQueue()

    def on_event(event: Event) -> None:
        if isinstance(event, Arrived):
            heard.put(event)

    link = Link(broker, "listener", on_event, session_expiry_s=0)
    link.subscribe(Topics(FLEET).birth(NAME))
    link.start()
    try:
        link.wait_connected(PATIENCE_S)
        yield heard
    finally:
        link.stop()


def _processor_seconds(pid: int) -> tuple[float, float]:
    """Of the process itself, and of its children that have ended."""
    fields = [int(field) for field in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]]
    return (fields[0] + fields[1]) / _TICKS, (fields[2] + fields[3]) / _TICKS


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [f"{'start':>5} {'own CPU s':>10} {'children CPU s':>15} {'wall s':>7} {'most MB':>8}"]
    for number, row in enumerate(rows, 1):
        numbers = f"{row['own_s']:10.2f} {row['children_s']:15.2f} {row['wall_s']:7.2f} {row['peak_mb']:8.1f}"
        lines.append(f"{number:5} {numbers}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
