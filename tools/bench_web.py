#!/usr/bin/env python3
"""What the page's server costs: the time of each read on a large run, and the processor time of open pages.

    nice -n -10 .venv/bin/python tools/bench_web.py --json docs/results/web.json

A run of 200 devices and 1,000 rounds is written by the store itself. A real server process reads it, while this process
stands for the orchestrator: once a second it writes what a busy run writes (a report, a line of the log, a device's
state). Each read is timed beside a bare request to the same server, so that the machine's load is in both.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from mas_edge.federation.flow import JobState
from mas_edge.federation.rounds import RoundSpec
from mas_edge.job import Data, Federation, Job, Task
from mas_edge.orchestrator.broker.supervisor import free_port
from mas_edge.orchestrator.records import DeviceRecord, RoundRecord, Traffic
from mas_edge.orchestrator.store import Store
from mas_edge.protocol.messages import Energy, Report

TASKS = ("activity", "person", "steps", "wrist", "heart")
BARE = "/healthz"
READS = (
    "/api/run", "/api/devices", "/api/devices/device-0007", "/api/rounds?limit=1000", "/api/rounds?after=900&limit=100",
    "/api/rounds/merged-0500", "/api/affinity", "/api/split", "/api/artifacts", "/api/events", "/api/traffic",
    "/api/energy", "/metrics",
)  # fmt: skip
_MORE = itertools.count()
REPORTS = 10  # devices a round, as in the jobs that ship


def main() -> int:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--devices", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--times", type=int, default=20, help="requests of each read")
    parser.add_argument("--pages", type=int, default=5, help="pages that listen")
    parser.add_argument("--seconds", type=float, default=20.0, help="that they listen for, and that nobody does")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="bench-web-"))
    try:
        found = _measure(folder / "state", args)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(found, indent=2))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


def _measure(state: Path, args: argparse.Namespace) -> dict[str, Any]:
    store = write_run(state, args.devices, args.rounds)
    port = free_port()
    command = [sys.executable, "-m", "mas_edge", "web", str(state), "--http", f"127.0.0.1:{port}"]
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait(port)
        began, used = time.perf_counter(), _cpu(server.pid)
        _ask(port, "/api/run")
        first = {"wall_s": time.perf_counter() - began, "cpu_s": _cpu(server.pid) - used}
        return {
            "machine": {"cores": os.cpu_count(), "processor": platform.machine(), "load": os.getloadavg()[0]},
            "run": {"devices": args.devices, "rounds": args.rounds, "reports_a_round": REPORTS,
                    "state_bytes": sum(file.stat().st_size for file in state.glob("state.db*"))},
            "first_look": first,
            "reads": {path: _time(port, path, args.times) for path in READS},
            "after_a_round": {path: _fresh(store, port, server.pid, path, args) for path in READS},
            "live": _live(store, port, server.pid, args),
            "rss_bytes": _rss(server.pid),
        }  # fmt: skip
    finally:
        server.terminate()
        server.wait()
        store.close()


def write_run(state: Path, devices: int, rounds: int) -> Store:
    """A run in its merged rounds, as large as asked; its store is left open, as an orchestrator has it."""
    tasks = [Task(name=name, kind="value") for name in TASKS]
    job = Job(
        name="large",
        data=Data(input_shape=[3]),
        tasks=tasks,
        federation=Federation(rounds=rounds + 2, merge_rounds=rounds + 1),
    )
    store, begun = Store(state), JobState(run_id="large-1", phase="merge")
    store.begin(job, begun)
    names = [f"device-{number:04d}" for number in range(devices)]
    store.save_devices([
        DeviceRecord(name=name, online=True, engine="onnxruntime", machine="aarch64", runtime="0.1.0",
                     last_seen=time.time(), tasks=dict.fromkeys(TASKS, 400))
        for name in names
    ])  # fmt: skip
    store._db.execute("PRAGMA synchronous = OFF")  # it is only to be there
    for number in range(rounds):
        _close_round(store, devices, number)
    store._db.execute("PRAGMA synchronous = FULL")
    return store


def _close_round(store: Store, devices: int, number: int) -> None:
    selected = [f"device-{(number * REPORTS + place) % devices:04d}" for place in range(REPORTS)]
    record = _record(number, selected)
    store.open_round(RoundSpec(record.round_id, "train", "merged", number, tuple(selected), 90.0, 1), "merge")
    store.close_round(record, JobState(run_id="large-1", phase="merge"))
    store.log("info", f"{record.round_id}: complete, {REPORTS} of {REPORTS} reports in 4.0 s")


def _record(number: int, selected: list[str]) -> RoundRecord:
    n = len(TASKS)
    losses = {task: 1.0 / (1 + number / 100) + place / 10 for place, task in enumerate(TASKS)}
    matrix = [[0.01 * (i - j) + 0.0001 * number for j in range(n)] for i in range(n)]
    report = Report(
        samples=dict.fromkeys(TASKS, 400), losses=losses, affinity=[list(row) for row in matrix],
        affinity_measurements=8, steps=40, seconds={"train": 3.1, "affinity": 0.4}, cpu_seconds=3.6,
        received_bytes=20_000, engine="onnxruntime", batch_size=8,
        energy=Energy(quality="measured", joules={"train": 9.5, "affinity": 1.2}, source="ina3221"),
    )  # fmt: skip
    return RoundRecord(
        round_id=f"merged-{number:04d}", kind="train", group="merged", phase="merge", index=number, tasks=list(TASKS),
        outcome="complete", selected=selected, wall_seconds=4.0, losses=losses,
        samples=dict.fromkeys(TASKS, 400 * REPORTS), affinity=matrix, affinity_devices=[[REPORTS] * n] * n,
        joules={"measured": {"train": 95.0, "affinity": 12.0}}, traffic=Traffic(sent_weights=200_000),
        reports=dict.fromkeys(selected, report), report_seconds=dict.fromkeys(selected, 3.5),
    )  # fmt: skip


# ---------------------------------------------------------------------- reads


def _time(port: int, path: str, times: int) -> dict[str, float]:
    """Median milliseconds of a read, of a bare request that follows each, and of a 304; and its bytes."""
    _, etag, size = _ask(port, path)
    reads, bare, held = [], [], []
    for _ in range(times):
        for into, asked, headers in ((reads, path, {}), (bare, BARE, {}), (held, path, {"If-None-Match": etag})):
            began = time.perf_counter()
            _ask(port, asked, headers)
            into.append(1000 * (time.perf_counter() - began))
    medians = {"read_ms": statistics.median(reads), "bare_ms": statistics.median(bare)}
    return {
        **medians,
        "ratio": medians["read_ms"] / medians["bare_ms"],
        "held_ms": statistics.median(held),
        "bytes": size,
    }


def _fresh(store: Store, port: int, pid: int, path: str, args: argparse.Namespace) -> dict[str, float]:
    """A read right after another round has closed, of which nothing is kept ready: medians of wall and processor."""
    walls, used = [], []
    for _ in range(5):
        _close_round(store, args.devices, args.rounds + next(_MORE))
        time.sleep(0.15)  # the server looks at most ten times a second
        began, cpu = time.perf_counter(), _cpu(pid)
        _ask(port, path)
        walls.append(1000 * (time.perf_counter() - began))
        used.append(1000 * (_cpu(pid) - cpu))
    return {"wall_ms": statistics.median(walls), "cpu_ms": statistics.median(used)}


def _ask(port: int, path: str, headers: dict[str, str] | None = None) -> tuple[int, str, int]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.getheader("etag") or "", len(answer.read())
    finally:
        connection.close()


def _wait(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if _ask(port, "/")[0]:
                return
        except OSError:
            time.sleep(0.1)
    message = "the server did not answer within a minute"
    raise SystemExit(message)


# ---------------------------------------------------------------------- live


class Page(threading.Thread):
    """One page that listens; counts what it is sent, and how late."""

    def __init__(self, port: int) -> None:
        super().__init__(daemon=True)
        self.events = 0
        self.bytes = 0
        self.delays: list[float] = []
        self._port = port
        self.stopping = False

    def run(self) -> None:
        """Read until told to stop."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("GET", "/api/live")
        answer = connection.getresponse()
        while not self.stopping:
            line = answer.readline()
            self.bytes += len(line)
            if line.startswith(b"data: "):
                self.events += 1
                self.delays += [time.time() - each["time"] for each in json.loads(line[6:]).get("events", [])]
        connection.close()


def _live(store: Store, port: int, pid: int, args: argparse.Namespace) -> dict[str, Any]:
    """Processor time of the server and of the writer, without listeners, with one, and with several."""
    found = {}
    for pages in (0, 1, args.pages):
        listening = [Page(port) for _ in range(pages)]
        for page in listening:
            page.start()
        time.sleep(2.0)  # what they read first is not meant
        server, own, began = _cpu(pid), time.process_time(), time.monotonic()
        number = args.rounds
        while time.monotonic() - began < args.seconds:
            _write(store, number)
            time.sleep(1.0)
            number += 1
        passed = time.monotonic() - began
        used = _cpu(pid) - server
        for page in listening:
            page.stopping = True
        delays = [delay for page in listening for delay in page.delays]
        found[str(pages)] = {
            "pages": pages, "seconds": passed, "server_cpu_share": used / passed,
            "writer_cpu_share": (time.process_time() - own) / passed,
            "events": sum(page.events for page in listening), "bytes": sum(page.bytes for page in listening),
            "delay_s_median": statistics.median(delays) if delays else None,
            "delay_s_most": max(delays) if delays else None,
        }  # fmt: skip
    base, most = found["0"], found[str(args.pages)]
    found["per_page_cpu_share"] = (most["server_cpu_share"] - base["server_cpu_share"]) / args.pages
    return found


def _write(store: Store, number: int) -> None:
    """What a busy second of a run writes."""
    store.save_devices([DeviceRecord(name=f"device-{number % 200:04d}", online=number % 2 == 0, last_seen=time.time())])
    store.log("info", f"round {number}: a device has reported")


def _cpu(pid: int) -> float:
    """Seconds of processor time of a process's threads so far, to the nanosecond."""
    return sum(int(file.read_text().split()[0]) for file in Path(f"/proc/{pid}/task").glob("*/schedstat")) / 1e9


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/status").read_text().partition("VmRSS:")[2].split()[0]) * 1024


if __name__ == "__main__":
    sys.exit(main())
