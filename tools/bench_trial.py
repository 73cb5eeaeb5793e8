"""What it costs to try models in a process of their own: a process for each, or one for all.

python tools/bench_trial.py demo-out/devices/watch-01 demo-out/data/watch-01 --runs 9

STATE: the state folder of a device with deployed models of one engine; DATA: its data folder. The ways are taken by
turns, each with all models; shown are medians of milliseconds, of the processor's, and of the memory that the last
model added.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from device_runtime.data import DataFolder, open_data
from device_runtime.deployed import OUTPUT_PREFIX, Bounds
from device_runtime.memory import in_units
from device_runtime.slots import Slots
from device_runtime.trial import Answer, Check, Here
from device_runtime.trial_process import Apart
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.weights import unpack


class Model(NamedTuple):
    """A deployed model and the golden samples that it gives again."""

    file: Path
    golden: Path

    @property
    def question(self) -> Check:
        """Is it healthy?"""
        return Check(str(self.file), str(self.golden), Bounds(1e-3, 60.0))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the trial of models.")
    parser.add_argument("state", type=Path)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=9)
    options = parser.parse_args(arguments)
    data = open_data(options.data)
    models = deployed_in(options.state, data)
    if not models:
        print(f"{options.state} holds no deployed models with their golden samples", file=sys.stderr)
        return 1
    here = Here()  # has loaded the engine, as an agent has once in its life
    ways: dict[str, Callable[[], list[Answer]]] = {
        "in the agent's process": lambda: [here.answer(model.question, data) for model in models],
        "in a process each": lambda: [answer for model in models for answer in in_children([model], data)],
        "in one process": lambda: in_children(models, data),
    }
    found: dict[str, list[tuple[float, list[Answer]]]] = {way: [] for way in ways}
    for _ in range(options.runs):
        for way, tried in ways.items():
            began = time.perf_counter()
            answers = tried()
            found[way].append((time.perf_counter() - began, answers))
    print(f"{len(models)} models, {options.runs} runs")
    for way, runs in found.items():
        print(f"{way:<23} {shown(runs)}")
    return 0


def deployed_in(state: Path, data: DataFolder) -> list[Model]:
    """The models in use of each group, with those artifacts that are their golden samples."""
    goldens = [path for path in (state / "artifacts").iterdir() if is_golden(path)]
    found = []
    for folder in sorted((state / "deployed").iterdir()):
        if active := Slots(folder).active:
            pairs = [Model(active, golden) for golden in goldens]
            found += [pair for pair in pairs if is_healthy(Here().answer(pair.question, data))][:1]
    return found


def is_golden(path: Path) -> bool:
    """Whether a file holds golden samples."""
    try:
        return path.is_file() and any(name.startswith(OUTPUT_PREFIX) for name in unpack(path.read_bytes()))
    except EdgeError:
        return False


def is_healthy(answer: Answer) -> bool:
    """Whether that was said of a model."""
    return answer.health is not None and answer.health.healthy


def in_children(models: Sequence[Model], data: DataFolder) -> list[Answer]:
    """What one process says of all of them; it is started and ended."""
    apart = Apart("apart")
    try:
        return [apart.answer(model.question, data) for model in models]
    finally:
        apart.close()


def shown(runs: Sequence[tuple[float, list[Answer]]]) -> str:
    """A line: medians."""
    wall = statistics.median(seconds for seconds, _ in runs)
    processor = statistics.median(sum(answer.cpu_seconds for answer in answers) for _, answers in runs)
    last = [answers[-1].health.memory_bytes for _, answers in runs if answers[-1].health]
    return (
        f"{1000 * wall:6.0f} ms, the processor's {1000 * processor:6.0f} ms, "
        f"memory of the last model {in_units(int(statistics.median(last)))}"
    )


if __name__ == "__main__":
    raise SystemExit(main())
