"""How much memory a program takes on a device, beside the process that has its engine loaded and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from mas_edge.protocol.program import Program

AFFINITY = "affinity"


class Cost(NamedTuple):
    """What an engine takes: ``base`` bytes, and a multiple of a method's ``memory_bytes``."""

    base: int  # the loaded program, and what the engine prepares in its first runs
    step: float
    affinity: float  # its many independent parts are run in an order that keeps more alive


# Upper bounds over two networks (18 thousand and 0.9 million weights) at batches of 1 to 32, merged and split, measured
# as the peak of the resident memory: docs/results/memory.md. Beside the values of the graph an engine holds copies in
# other layouts, the columns of its convolutions, and pools that it does not give back.
COSTS = {
    "torch": Cost(64_000_000, 1.4, 1.4),
    "onnxruntime": Cost(36_000_000, 2.4, 5.4),
    "executorch": Cost(36_000_000, 1.7, 2.5),
    "litert": Cost(36_000_000, 4.0, 4.0),  # not measured: held well above the others
}


def memory_needed(program: Program) -> int:
    """The bytes that ``program`` takes at most on its engine; 0 if it does not say what its methods hold."""
    cost = COSTS.get(program.engine, max(COSTS.values()))
    shares = [
        method.memory_bytes * (cost.affinity if name == AFFINITY else cost.step)
        for name, method in program.methods.items()
    ]
    return cost.base + round(max(shares)) if any(shares) else 0


def fitting_batch(needs: Mapping[int, int], allowed: int) -> int | None:
    """The largest batch size whose program takes at most ``allowed`` bytes (0 = no limit); None if none does.

    ``needs``: the bytes by batch size; not empty.
    """
    fitting = [batch for batch, need in needs.items() if allowed == 0 or need <= allowed]
    return max(fitting, default=None)
