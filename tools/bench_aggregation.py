"""How long making new weights takes by the rule, to a plain mean: folding and closing, updates on the disk.

python tools/bench_aggregation.py --devices 8 64 --megabytes 10

Processor time of one thread, the median of several turns in which the rules follow one another; the updates are in the
page cache, as they are when they have just come.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.robust import Rule
from mas_edge.orchestrator.folding import Folding
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector, flatten, pack

RULES = {
    "mean": Rule(), "clipped to a number": Rule(clip_norm=1.0), "clipped to the median": Rule(clip_norm="auto"),
    "median": Rule(robust="median"), "trimmed": Rule(robust="trimmed", trim=0.2),
}  # fmt: skip
SAMPLES = {"a": 10}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Measure the aggregation rules.")
    parser.add_argument("--devices", nargs="+", type=int, default=[8, 64])
    parser.add_argument("--megabytes", type=float, default=10.0, help="of one update")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args(arguments)
    size = round(options.megabytes * 1e6 / 4)
    layout, rng = Layout([Entry("w", [size], ENCODER)]), np.random.default_rng(0)
    print("| devices | rule | CPU s | to the mean |\n|---|---|---|---|")
    for devices in options.devices:
        with tempfile.TemporaryDirectory() as folder:
            artifacts = ArtifactStore(Path(folder))
            now = np.zeros(size, np.float32)
            base = artifacts.put(pack(layout, now)).artifact
            updates = [
                artifacts.put(pack(layout, rng.standard_normal(size, np.float32)), durable=False).artifact
                for _ in range(devices)
            ]
            taken: dict[str, list[float]] = {name: [] for name in RULES}
            for _ in range(options.turns):
                for name, rule in RULES.items():
                    taken[name].append(seconds(Folding(layout, rule, artifacts, base), layout, artifacts, updates, now))
        found = {name: statistics.median(times) for name, times in taken.items()}
        for name, taken_s in found.items():
            print(f"| {devices} | {name} | {taken_s:.2f} | {taken_s / found['mean']:.1f} |", flush=True)
    print(f"peak memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")
    return 0


def seconds(
    folding: Folding, layout: Layout, artifacts: ArtifactStore, updates: Sequence[str], now: Vector
) -> float:  # fmt: skip
    """Processor time of one round's aggregation."""
    began = time.process_time()
    for number, artifact in enumerate(updates):
        with artifacts.opened(artifact) as data:
            folding.fold(f"device-{number}", artifact, flatten(layout, data), SAMPLES)
    for _ in folding.means(now):
        pass
    return time.process_time() - began


if __name__ == "__main__":
    raise SystemExit(main())
