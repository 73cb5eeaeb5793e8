"""What it costs to try a model in a process of its own.

python tools/bench_trial.py MODEL.onnx GOLDEN DATA --runs 9

MODEL and GOLDEN: `model.onnx` and `golden` of an export or of a device's artifacts; DATA: a data folder. Both ways are
taken by turns; shown are medians: milliseconds, and the processor's.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from device_runtime.data import open_data
from device_runtime.deployed import Bounds
from device_runtime.memory import in_units, resident_bytes
from device_runtime.trial import Apart, Examiner, Here, Question


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the trial of a model.")
    parser.add_argument("model", type=Path)
    parser.add_argument("golden", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    data = open_data(options.data)
    question = Question(str(options.model), str(options.golden), Bounds(1e-3, 60.0))
    ways: dict[str, Examiner] = {"here": Here(), "apart": Apart("apart")}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    processor: list[float] = []
    ways["here"].answer(question, data)  # the agent's engine is loaded once in its life
    for _ in range(options.runs):
        for way, examiner in ways.items():
            began = time.perf_counter()
            answer = examiner.answer(question, data)
            seconds[way].append(time.perf_counter() - began)
            if answer.health is None or not answer.health.healthy:
                print(f"not healthy: {answer}")
                return 1
            if way == "apart":
                processor.append(answer.cpu_seconds)
    for way, each in seconds.items():
        print(f"{way:<6} {1000 * statistics.median(each):.0f} ms")
    print(f"apart: {1000 * statistics.median(processor):.0f} ms of the processor")
    print(f"this process holds {in_units(resident_bytes())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
