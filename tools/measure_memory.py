"""How much memory a program takes on each installed engine, against what the server reckons with.

python tools/measure_memory.py --batch 1 4 16 --json memory.json

Each program runs in a process of its own: the peak of its resident memory while it runs every method, less what it held
with the engine loaded and nothing else. ``graph`` is what the values of the program's graph take, ``needed`` what the
server reckons with (mas_edge.protocol.memory): it must not be less than what was taken. Linux only.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bench_engines as bench

from device_runtime.engines import available, open_engine
from device_runtime.memory import resident_bytes
from mas_edge.protocol import program as program_format
from mas_edge.protocol.memory import memory_needed

MERGED, SPLIT = ("train_step", "evaluate", "affinity"), ("train_step", "evaluate")
RUNS = 3  # of each method: pools grow in the first ones


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare the memory that programs take with what is reckoned with.")
    parser.add_argument("--net", nargs="+", choices=bench.NETS, default=list(bench.NETS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--engine", nargs="+", default=[name for name in available() if name != "litert"])
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # engine, program
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(taken(options.child[0], Path(options.child[1]))))
        return 0
    rows = [
        row for net in options.net for batch in options.batch for methods in (MERGED, SPLIT)
        for row in compare(net, batch, methods, options.engine)
    ]  # fmt: skip
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0 if all(row["taken_mb"] <= row["needed_mb"] for row in rows) else 1


def compare(net: str, batch: int, methods: Sequence[str], engines: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each engine."""
    from mas_edge.export.cost import with_costs
    from mas_edge.export.targets import emitter_of
    from mas_edge.export.trace import trace_program

    job = bench.job_of(net, batch)
    traced = trace_program(job, "bench", [task.name for task in job.tasks], methods)
    rows = []
    for engine in engines:
        program = with_costs(emitter_of(engine)(traced), traced)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "program"
            path.write_bytes(program_format.dump(program))
            bytes_taken = _run_child(engine, path)
        graph = max(method.memory_bytes for method in program.methods.values())
        rows.append({
            "net": net, "batch": batch, "methods": len(methods), "engine": engine, "graph_mb": graph / 1e6,
            "taken_mb": bytes_taken / 1e6, "needed_mb": memory_needed(program) / 1e6,
        })  # fmt: skip
    return rows


def _run_child(engine: str, program: Path) -> int:
    environment = os.environ | {"PYTHONPATH": str(bench.ROOT)}
    command = [sys.executable, __file__, "--child", engine, str(program)]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


def taken(engine_name: str, path: Path) -> int:
    """The bytes that a program takes in this process."""
    data = path.read_bytes()
    engine = open_engine(engine_name)
    before = resident_bytes()
    program = program_format.load(data)
    runner = engine.load(program)
    for name, method in program.methods.items():
        feeds = bench._arrays(method.inputs)
        for _ in range(RUNS):
            runner.run(name, feeds)
    return round(1e6 * bench._peak_mb()) - before


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [
        f"{'net':12} {'batch':>5} {'methods':>7} {'engine':12} {'graph MB':>9} {'taken MB':>9} {'needed / taken':>15}"
    ]
    for row in rows:
        lines.append(
            f"{row['net']:12} {row['batch']:5} {row['methods']:7} {row['engine']:12} {row['graph_mb']:9.1f} "
            f"{row['taken_mb']:9.1f} {row['needed_mb'] / row['taken_mb']:15.2f}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
