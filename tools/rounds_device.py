"""A device that trains nothing: it gives weights back with a number of its own added.

python tools/rounds_device.py STATE BROKER NAME [TASK ...]

A process that imports what a real device process imports, and no more, so that its memory is a device's; see
``bench_rounds.py`` and ``bench_transfer_memory.py``, which start it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import device_runtime.cli.run  # noqa: F401 - what the command of a real device holds
from device_runtime.data import open_data
from device_runtime.outcome import Outcome
from device_runtime.runtime import Runtime, Settings
from device_runtime.work import Bench
from mas_edge.protocol import program as program_format
from mas_edge.protocol.messages import Plan, Report
from mas_edge.protocol.weights import gather, pack, sent_layout, unpack

ENGINE = "torch"  # only a name here: no engine is loaded
TASKS = ("a", "b")
SAMPLES = 3  # of each task


class Echo(Bench):
    """Reads the weights and gives them back with ``step`` added, as training would: every device has its own."""

    step = 1.0

    def carry_out(self, plan: Plan, stop: Callable[[], bool]) -> Outcome:
        """As ``Bench.carry_out``, without an engine: the parts that a device with these labels sends."""
        assert plan.weights is not None
        samples = {task: counted.train for task, counted in self._data.counts().items() if task in plan.tasks}
        layout = sent_layout(program_format.load(self._store.read(plan.program.artifact)).layout, samples)
        with self._store.opened(plan.weights.manifest.artifact) as data:
            vector = gather(layout, unpack(data))
        vector += np.float32(self.step)
        return Outcome(Report(samples=samples, losses=dict.fromkeys(samples, 0.5)), pack(layout, vector))


def main(state: Path, broker: str, name: str, tasks: Sequence[str]) -> None:
    """Run one device until the process is told to end."""
    data = open_data(_data_folder(state / "data", tasks))
    settings = Settings(name, "fleet", broker, state, ENGINE)
    Echo.step = float(name.rpartition("-")[2]) + 1.0  # no two devices train alike: nothing may be sent once for two
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    Runtime(settings, data, Echo).run(stop)


def _data_folder(folder: Path, tasks: Sequence[str]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / "x.npy", np.zeros((SAMPLES + 1, 1), np.float32))
    np.save(folder / "split.npy", np.array([0] * SAMPLES + [1], np.uint8))
    for task in tasks:
        np.save(folder / f"{task}.npy", np.zeros(SAMPLES + 1, np.float32))
    header = "".join(f'[tasks.{task}]\nkind = "value"\n' for task in tasks)
    (folder / "data.toml").write_text(f"format = 1\ninput_shape = [1]\n{header}")
    return folder


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:] or TASKS)
