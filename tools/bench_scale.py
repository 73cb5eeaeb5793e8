"""Rounds with 10, 100 and 1,000 connected virtual devices on one machine: seconds, processor time and memory.

python tools/bench_scale.py [--devices 10,100,1000] [--selected 100] [--floats 262144] [--rounds 5] [--json OUT]

The real orchestrator, a real mosquitto and ``mas_edge.simulation.swarm`` in processes of their own; at most
``--selected`` of the devices train in a round. The devices' files are on /dev/shm where there is one: a thousand
devices do not share one disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import rounds_kit as kit
import rounds_meter as meter
from msgspec.structs import replace

from mas_edge.federation.flow import JobState
from mas_edge.job import Job
from mas_edge.orchestrator.broker.managed import ManagedBroker
from mas_edge.orchestrator.service import Orchestrator
from mas_edge.orchestrator.store import Store
from mas_edge.simulation.swarm import Swarm

SWARMS = 2  # processes that share the devices: the machine of reference has two processors
MEMORY = Path("/dev/shm")


def job(devices: int, selected: int) -> Job:
    """Federated averaging of ``selected`` of ``devices``, exactly; a round begins when all are there."""
    plain = kit.job(min(devices, selected))
    return replace(plain, federation=replace(plain.federation, min_devices=devices, over_selection=1.0))


def serve(state: Path, broker: str, devices: int, selected: int, floats: int, rounds: int) -> None:
    """Run the orchestrator until ``rounds`` rounds have closed after the first ones."""
    the_job = job(devices, selected)
    prepared, store = kit.prepare_group(state, floats), Store(state)
    store.begin(the_job, JobState(run_id="bench-1", phase="groups", groups=[prepared]))
    store.close()
    orchestrator, stop = Orchestrator(the_job, state, broker), threading.Event()
    threading.Thread(target=_watch, args=(orchestrator, stop, rounds), daemon=True).start()
    orchestrator.run(stop)


def _watch(orchestrator: Orchestrator, stop: threading.Event, rounds: int) -> None:
    for goal, word in ((kit.WARM_UP, "warm"), (kit.WARM_UP + rounds, "done")):
        kit.announce(orchestrator, stop, goal, word)
    sys.stdin.readline()  # the memory and the time of this process are read before it goes
    stop.set()


def swarm(directory: Path, broker: str, first: int, count: int) -> None:
    """Run devices until the standard input ends."""
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    Swarm(broker, "fleet", count, directory, tasks=["a", "b"], input_shape=[1], first=first).run(over.is_set)


def measure(devices: int, selected: int, floats: int, rounds: int) -> dict[str, Any]:
    """One run with so many devices; a row of the table."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = stack.enter_context(tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None))
        broker = stack.enter_context(ManagedBroker(folder))
        sizes = [str(n) for n in (devices, selected, floats, rounds)]
        began = time.monotonic()
        server = stack.enter_context(kit.process(folder, __file__, "server", str(folder / "state"), broker.url, *sizes))
        share = -(-devices // SWARMS)
        swarms = [
            stack.enter_context(
                kit.process(folder, __file__, "swarm", files, broker.url, str(first), str(min(share, devices - first)))
            )
            for first in range(0, devices, share)
        ]
        pids = {"orchestrator": server.pid, "broker": broker.pid or 0}
        pids |= {f"swarm{number}": child.pid for number, child in enumerate(swarms)}
        warm = kit.expect(server, "warm", folder)
        ready = time.monotonic() - began
        before = {name: meter.taken(pid) for name, pid in pids.items()}
        with meter.Peaks(pids) as peaks:
            done = kit.expect(server, "done", folder)
        after = {name: meter.taken(pid) for name, pid in pids.items()}
        cpu = {name: (after[name].cpu_s - before[name].cpu_s) / (done - warm) for name in pids}
        seconds = kit.round_times(folder / "state")[kit.WARM_UP : kit.WARM_UP + rounds]
    return {
        "devices": devices, "selected": min(devices, selected), "ready_s": ready,
        "round_s": statistics.median(seconds), "rounds_s": seconds,
        "orchestrator_cpu_s": cpu["orchestrator"], "orchestrator_mb": peaks.mb["orchestrator"],
        "broker_cpu_s": cpu["broker"], "broker_mb": peaks.mb["broker"],
        "swarm_cpu_s": sum(value for name, value in cpu.items() if name.startswith("swarm")),
        "swarm_mb": sum(value for name, value in peaks.mb.items() if name.startswith("swarm")),
    }  # fmt: skip


COLUMNS = {
    "devices": "devices", "selected": "selected", "ready_s": "warm after s", "round_s": "s a round",
    "orchestrator_cpu_s": "orchestrator CPU s", "orchestrator_mb": "its MB", "broker_cpu_s": "broker CPU s",
    "broker_mb": "its MB", "swarm_cpu_s": "devices CPU s", "swarm_mb": "their MB",
}  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown; CPU seconds are of one round, memory is the peak in it."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " ---: |" * len(COLUMNS)]
    for row in rows:
        cells = [f"{row[key]:,.2f}" if key.endswith("_s") else f"{row[key]:,.0f}" for key in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", default="10,100,1000", help="how many are connected, one run each")
    parser.add_argument("--selected", type=int, default=100, help="how many train in a round, at most")
    parser.add_argument("--floats", type=int, default=262_140, help="of an update: 1 MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = [measure(int(n), args.selected, args.floats, args.rounds) for n in args.devices.split(",")]
    print(table(rows))
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", where, url, *numbers]:
            serve(Path(where), url, *(int(number) for number in numbers))
        case ["swarm", where, url, *numbers]:
            swarm(Path(where), url, *(int(number) for number in numbers))
        case _:
            main()
