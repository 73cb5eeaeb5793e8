"""How fast rooms are rendered, with all nine targets, on one core.

python tools/bench_rooms.py --size 32 64 128
python tools/bench_rooms.py --units        # measures the table of mas_edge/datasets/rooms/units.py anew (a minute)
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from mas_edge.datasets.rooms.scene import building
from mas_edge.datasets.rooms.targets import TASKS, targets_of, views
from mas_edge.datasets.rooms.units import SCALES, calibrate

LETTERS = "".join(kind.letter for kind in TASKS)
PIXELS = 400_000  # rendered of each size: a second or so


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Images a second of CPU time, with all nine targets.")
    parser.add_argument("--size", nargs="+", type=int, choices=list(SCALES), default=list(SCALES))
    parser.add_argument("--units", action="store_true", help="print the scales of the targets instead")
    options = parser.parse_args(arguments)
    for size in options.size:
        print(table(size) if options.units else f"{size:4d} x {size:<4d} {images_per_second(size):6.0f} images/s")
    return 0


def images_per_second(size: int) -> float:
    """Rendered images of three buildings by the CPU seconds they took."""
    each = max(2, PIXELS // (3 * size * size))
    started = time.process_time()
    for number in range(1, 4):
        for seen in views(building(0, number), 0, each, size):
            targets_of(seen, LETTERS)
    return 3 * each / (time.process_time() - started)


def table(size: int) -> str:
    """The entry of one size, as it stands in the module."""
    lines = [f'        "{name}": Scale({scale.centre}, {scale.unit}),' for name, scale in calibrate(size).items()]
    return "\n".join([f"    {size}: {{", *lines, "    },"])


if __name__ == "__main__":
    sys.exit(main())
