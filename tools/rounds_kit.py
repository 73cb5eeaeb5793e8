"""Rounds of this kit without training: the real orchestrator and real devices in processes, through a real mosquitto.

python tools/rounds_kit.py STATE BROKER FLOATS DEVICES ROUNDS

``bench_rounds.py`` starts this and ``rounds_device.py``. A device returns the weights that it got plus a number of its
own; everything else is what runs in production: the agent, both links, the stores with their syncs, the desk, the
reception, the accumulator.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import rounds_meter as meter
from msgspec.structs import replace

from device_runtime.edge.artifacts import ArtifactStore
from mas_edge.federation.flow import GroupState, JobState, Local
from mas_edge.job import Data, Federation, Job, Task, load_job
from mas_edge.orchestrator.broker.managed import ManagedBroker
from mas_edge.orchestrator.service import Orchestrator
from mas_edge.orchestrator.store import Store, open_database
from mas_edge.orchestrator.workshop_process import open_workshop
from mas_edge.protocol import program as program_format
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import ENCODER, Entry, Layout, pack

ROOT = Path(__file__).resolve().parent.parent
TENSORS = 20  # as many as the reference measurement of Flower had
ENGINE = "torch"  # only a name here: no engine is loaded
DEVICE = str(Path(__file__).with_name("rounds_device.py"))
WARM_UP = 2  # rounds before the clock starts: the first one carries the program too


@dataclass(frozen=True)
class Measured:
    """What a run of rounds took: seconds of each round; memory in MB, processor seconds a round."""

    seconds: list[float]
    memory_mb: dict[str, float]
    cpu_s: dict[str, float]

    @property
    def median(self) -> float:
        """Seconds of a typical round."""
        return statistics.median(self.seconds)


def job(devices: int) -> Job:
    """Federated averaging over all devices."""
    federation = Federation(
        rounds=10**6, merge_rounds=1, groups=2, devices_per_round=devices, min_devices=devices, min_reports=devices,
        deadline_s=600.0,
    )  # fmt: skip
    tasks = [Task(name=name, kind="value") for name in ("a", "b")]
    return Job(name="bench", data=Data(input_shape=[1]), tasks=tasks, federation=federation, engines=[ENGINE])


def layout_of(floats: int, part: str = ENCODER) -> Layout:
    """A network of ``floats`` numbers in TENSORS equal tensors of ``part``, the encoder or a head."""
    encoder = [] if part == ENCODER else [Entry("encoder", [1], ENCODER)]
    return Layout([*encoder, *(Entry(f"{part}.{n}", [floats // TENSORS], part) for n in range(TENSORS))])


# ---------------------------------------------------------------------------------------------------- the orchestrator


def serve(
    state: Path, broker: str, floats: int, devices: int, rounds: int, warm_up: int = WARM_UP, encoder: int = 1,
    exported: int = 0,
) -> None:  # fmt: skip
    """Run the orchestrator until ``rounds`` rounds have closed; prints a line when it is warm and one at the end.

    ``encoder`` 0: the numbers are the head of a, which only devices with labels of a send back. ``exported`` 1: this
    process had the programs of a job made before, as every orchestrator has by then.
    """
    if exported:
        _export(load_job(ROOT / "models" / "watch.toml"), state / "exports")
    group, store = prepare_group(state, floats, ENCODER if encoder else "a"), Store(state)
    store.begin(job(devices), JobState(run_id="bench-1", phase="groups", groups=[group]))
    store.close()
    Path("/proc/self/clear_refs").write_text("5")  # what it took to make the weights does not count
    orchestrator, stop = Orchestrator(job(devices), state, broker), threading.Event()

    def watch() -> None:
        for goal, word in ((warm_up, "warm"), (warm_up + rounds, "done")):
            announce(orchestrator, stop, goal, word)
        sys.stdin.readline()  # the memory and the time of this process are read before it goes
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    orchestrator.run(stop)


def _export(real: Job, folder: Path) -> None:
    """As an orchestrator does it that begins a job."""
    folder.mkdir(parents=True)
    workshop = open_workshop(replace(real, engines=[ENGINE]), ArtifactStore(folder / "artifacts"), folder)
    workshop.take(Local("prepare"), JobState(run_id="real-1"), [])
    workshop.close()


def announce(orchestrator: Orchestrator, stop: threading.Event, goal: int, word: str) -> None:
    """Print ``word`` and how many rounds have closed, once ``goal`` have: short rounds run on between two looks."""
    while (closed := orchestrator.state.groups[0].next_round) < goal and not stop.wait(0.02):
        pass
    print(word, closed, flush=True)


def prepare_group(state: Path, floats: int, part: str = ENCODER) -> GroupState:
    """A group that is ready to train, its artifacts below ``state``."""
    layout, artifacts = layout_of(floats, part), ArtifactStore(state / "artifacts")
    program = Program(1, "all", ["a", "b"], 1, [1], {}, layout, {}, engine=ENGINE)
    weights = np.random.default_rng(0).standard_normal(layout.size).astype(np.float32)
    return GroupState(
        name="all", tasks=["a", "b"], programs={ENGINE: artifacts.put(program_format.dump(program))},
        weights=artifacts.put(pack(layout, weights)), next_round=0, end_round=10**6, last_round=10**6,
    )  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- a run


def measure(folder: Path, floats: int, devices: int, rounds: int) -> Measured:
    """Start a broker, an orchestrator and devices of their own below ``folder``; measure ``rounds`` rounds."""
    names = [f"device-{n}" for n in range(devices)]
    state = folder / "server"
    with ExitStack() as stack:
        broker = stack.enter_context(ManagedBroker(folder))
        sizes = [str(n) for n in (floats, devices, rounds)]
        server = stack.enter_context(process(folder, __file__, str(state), broker.url, *sizes))
        pids = {"server": server.pid, "broker": broker.pid or 0}
        for name in names:
            child = stack.enter_context(process(folder, DEVICE, str(folder / name), broker.url, name, "add"))
            pids[name] = child.pid
        first = expect(server, "warm", folder)
        before = {name: meter.taken(pid) for name, pid in pids.items()}
        last = expect(server, "done", folder)
        after = {name: meter.taken(pid) for name, pid in pids.items()}
    cpu = {name: (after[name].cpu_s - before[name].cpu_s) / (last - first) for name in pids}
    memory = {name: after[name].peak_mb for name in pids}
    seconds = round_times(state)[WARM_UP : WARM_UP + rounds]
    return Measured(seconds, _by_role(memory, names, max), _by_role(cpu, names, statistics.mean))


def _by_role(
    values: dict[str, float], devices: list[str], of_devices: Callable[[list[float]], float]
) -> dict[str, float]:
    client = of_devices([values[name] for name in devices])
    return {"server": values["server"], "client": client, "broker": values["broker"]}


def round_times(state: Path) -> list[float]:
    """Seconds from the opening of each round to the opening of the next: averaging and storing are in it."""
    db = open_database(state)
    opened = [row[0] for row in db.execute("SELECT opened FROM rounds ORDER BY number")]
    db.close()
    return [later - sooner for sooner, later in pairwise(opened)]


@contextmanager
def process(folder: Path, script: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Run a script as a child, its log in ``folder``; the end of its standard input tells it to go."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / f"{Path(script).stem}.log").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, script, *arguments],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        if process.stdin:
            process.stdin.close()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def expect(process: subprocess.Popen[str], word: str, folder: Path) -> int:
    """Wait for this line of ``announce``; return its number of rounds. Ends with the log if another line comes."""
    line = process.stdout.readline().strip() if process.stdout else ""
    said, _, closed = line.partition(" ")
    if said != word:
        logs = "\n".join(path.read_text()[-2000:] for path in sorted(folder.glob("*.log")))
        sys.exit(f"the orchestrator said {line!r} instead of {word!r}:\n{logs}")
    return int(closed)


if __name__ == "__main__":
    where, url, *numbers = sys.argv[1:]
    serve(Path(where), url, *(int(number) for number in numbers))
