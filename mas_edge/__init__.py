"""mas-edge: federated multi-task learning on edge devices over MQTT (Merge and Split).

The few public names build a job and run it from Python; the command line does the same from a job file.

    from mas_edge import Data, Federation, Job, Task, run_job

    schedule = Federation(rounds=20, merge_rounds=8, groups=2)
    job = Job(name="demo", data=Data(input_shape=[6, 64]), tasks=[...], federation=schedule)
    result = run_job(job, state="runs/demo", broker="mqtt://127.0.0.1:1883")

They are looked up when first used: a device imports ``mas_edge.protocol`` and must not pay for anything else.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mas_edge.job import Affinity, Card, Data, Federation, Job, Network, Optimizer, Task, load_job
    from mas_edge.mas.affinity import AffinityMatrix
    from mas_edge.mas.split import Split, best_split
    from mas_edge.orchestrator.service import run_job
    from mas_edge.protocol.errors import BrokerError, DataError, DeviceError, EdgeError, JobError, ServerError

__all__ = [
    "Affinity",
    "AffinityMatrix",
    "best_split",
    "BrokerError",
    "Card",
    "Data",
    "DataError",
    "DeviceError",
    "EdgeError",
    "Federation",
    "Job",
    "JobError",
    "load_job",
    "Network",
    "Optimizer",
    "run_job",
    "ServerError",
    "Split",
    "Task",
]

_HOMES = {
    "mas_edge.job": ("Affinity", "Card", "Data", "Federation", "Job", "Network", "Optimizer", "Task", "load_job"),
    "mas_edge.mas.affinity": ("AffinityMatrix",),
    "mas_edge.mas.split": ("Split", "best_split"),
    "mas_edge.orchestrator.service": ("run_job",),
    "mas_edge.protocol.errors": ("BrokerError", "DataError", "DeviceError", "EdgeError", "JobError", "ServerError"),
}


def __getattr__(name: str) -> object:
    """Find a public name in its home when it is first used."""
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(home), name)
    message = f"module 'mas_edge' has no attribute {name!r}"
    raise AttributeError(message)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
