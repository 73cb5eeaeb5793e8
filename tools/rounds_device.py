"""A device that trains nothing: it gives weights back.

python tools/rounds_device.py STATE BROKER NAME HOW [TASK ...]

HOW: ``add`` adds a number of its own, as training would; ``carry`` gives back what came, but for one number, and needs
no NumPy: the process is an agent without an engine then. It imports what a real device process imports, and no more, so
that its memory is a device's; see ``bench_rounds.py`` and ``bench_transfer_memory.py``, which start it.
"""

from __future__ import annotations

import struct
import sys
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import device_runtime.cli.run  # noqa: F401 - what the command of a real device holds
from device_runtime.holdings import look
from device_runtime.outcome import Outcome
from device_runtime.runtime import Runtime, Settings
from device_runtime.work import Bench
from mas_edge.protocol import program as program_format
from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.layout import Layout, derive, header_of, sent_layout
from mas_edge.protocol.messages import Plan, Report

ENGINE = "torch"  # only a name here: no engine is loaded
TASKS = ("a", "b")
SAMPLES = 3  # of each task


class Idle(Bench):
    """Carries out a plan without an engine: the parts that a device with these labels sends."""

    step = 1.0  # of this device: no two train alike, and nothing may be sent once for two

    def carry_out(self, plan: Plan, stop: Callable[[], bool]) -> Outcome:
        """As ``Bench.carry_out``."""
        assert plan.weights is not None
        samples = {task: counted.train for task, counted in self._data.counts().items() if task in plan.tasks}
        layout = sent_layout(program_format.load(self._store.read(plan.program.artifact)).layout, samples)
        with self._store.opened(plan.weights.manifest.artifact) as weights:
            update = self.update(layout, weights)
        return Outcome(Report(samples=samples, losses=dict.fromkeys(samples, 0.5)), update)

    @abstractmethod
    def update(self, layout: Layout, weights: Buffer) -> bytes:
        """What is sent back."""


class Adds(Idle):
    """``step`` is added to every number."""

    def update(self, layout: Layout, weights: Buffer) -> bytes:
        """With NumPy, as training does it."""
        import numpy as np

        from mas_edge.protocol.weights import flatten, pack

        return pack(layout, flatten(layout, weights) + np.float32(self.step))


class Carries(Idle):
    """``step`` takes the place of the first number."""

    def update(self, layout: Layout, weights: Buffer) -> bytes:
        """As bytes."""
        update = bytearray(derive(weights, layout))
        struct.pack_into("<f", update, len(header_of(layout)), self.step)
        return bytes(update)


BENCHES: dict[str, type[Idle]] = {"add": Adds, "carry": Carries}


def main(state: Path, broker: str, name: str, how: str, tasks: Sequence[str]) -> None:
    """Run one device until the process is told to end."""
    data = look(data_folder(state / "data", tasks))
    Idle.step = float(name.rpartition("-")[2]) + 1.0
    stop = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
    Runtime(Settings(name, "fleet", broker, state, ENGINE), data, BENCHES[how]).run(stop)


def data_folder(folder: Path, tasks: Sequence[str]) -> Path:
    """Make a data folder with labels of ``tasks``, written without NumPy."""
    folder.mkdir(parents=True, exist_ok=True)
    _save(folder / "x.npy", "<f4", (SAMPLES + 1, 1), bytes(4 * (SAMPLES + 1)))
    _save(folder / "split.npy", "|u1", (SAMPLES + 1,), bytes([0] * SAMPLES + [1]))
    for task in tasks:
        _save(folder / f"{task}.npy", "<f4", (SAMPLES + 1,), bytes(4 * (SAMPLES + 1)))
    header = "".join(f'[tasks.{task}]\nkind = "value"\n' for task in tasks)
    (folder / "data.toml").write_text(f"format = 1\ninput_shape = [1]\n{header}")
    return folder


def _save(path: Path, dtype: str, shape: tuple[int, ...], numbers: bytes) -> None:
    head = repr({"descr": dtype, "fortran_order": False, "shape": shape}).encode()
    head += b" " * (-(len(head) + 11) % 64) + b"\n"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + numbers)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4], sys.argv[5:] or TASKS)
