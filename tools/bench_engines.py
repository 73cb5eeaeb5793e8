"""What a train step costs on each installed engine, against eager PyTorch in the same run.

python tools/bench_engines.py --batch 8 16 --threads 1 2 --python executorch=.venv-312/bin/python --json engines.json

Every engine runs in processes of its own, in turn, so that a busy machine is busy for all of them. ``step`` is CPU
time and the ratio that of CPU time, ``wall`` the time that passed; ``ready`` is CPU time from the start of Python to a
loaded program. Peak memory is that of the process. ``--python`` measures an engine in another environment too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from device_runtime.engines import available, open_engine
from mas_edge.protocol import program as program_format

ROOT = Path(__file__).resolve().parents[1]
NETS = ("watch", "three-heads")
EAGER = "eager"
WARM_UP = 3  # steps before the clock starts: kernels and memory are prepared in the first ones

# The 64x64 net: seven convolutions, three dense heads, about 0.9 million weights.
CONVOLUTIONS = [(3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 128, 2), (128, 128, 1)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description="Compare the engines' train step with eager PyTorch.")
    parser.add_argument("--net", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--batch", nargs="+", type=int, default=[8])
    parser.add_argument("--threads", nargs="+", type=int, default=[1])
    parser.add_argument("--steps", type=int, default=20, help="timed steps of one process")
    parser.add_argument("--repeats", type=int, default=3, help="processes of each engine")
    parser.add_argument("--python", nargs="+", default=[], metavar="ENGINE=PATH", help="another Python for an engine")
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)  # engine, folder
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(measure(options.child[0], Path(options.child[1]), options.steps)))
        return 0
    rows = [row for net in options.net for batch in options.batch for row in compare(net, batch, options)]
    rows.sort(key=lambda row: (row["net"], row["batch"], row["threads"]))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    return 0


def compare(net: str, batch: int, options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for eager, each engine, and each engine in another environment, for each number of threads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sizes = prepare(net, batch, folder)
        kinds = [(engine, sys.executable) for engine in sizes]
        kinds += [(engine, python) for engine, _, python in (each.partition("=") for each in options.python)]
        found: dict[tuple[str, str, int], list[dict[str, Any]]] = {
            (*kind, threads): [] for threads in options.threads for kind in kinds
        }
        for _ in range(options.repeats):
            for (engine, python, threads), results in found.items():
                results.append(_run_child(engine, python, threads, folder, options.steps))
    rows = []
    for (engine, python, threads), results in found.items():
        median = {key: statistics.median(r[key] for r in results) for key in ("ready_s", "peak_mb")}
        times = {key: statistics.median(t for r in results for t in r[key]) for key in ("steps_s", "walls_s")}
        rows.append({
            "net": net, "batch": batch, "threads": threads, "program_kb": sizes[engine] / 1000,
            "engine": engine if python == sys.executable else f"{engine} *",
            "step_ms": 1000 * times["steps_s"], "wall_ms": 1000 * times["walls_s"], **median,
        })  # fmt: skip
    eager = {row["threads"]: row["step_ms"] for row in rows if row["engine"] == EAGER}
    for row in rows:
        row["ratio"] = row["step_ms"] / eager[row["threads"]]
    return rows


def prepare(net: str, batch: int, folder: Path) -> dict[str, int]:
    """Write one program for each engine and the arrays to feed; return the programs' sizes in bytes."""
    from mas_edge.export.targets import emitter_of
    from mas_edge.export.trace import trace_program

    job = job_of(net, batch)
    traced = trace_program(job, "bench", [task.name for task in job.tasks], ["train_step"])
    sizes = {EAGER: 0}
    for engine in available():
        data = program_format.dump(emitter_of(engine)(traced))
        (folder / engine).write_bytes(data)
        sizes[engine] = len(data)
    arrays = _arrays(traced.methods["train_step"].inputs)
    np.savez(folder / "feeds.npz", allow_pickle=False, **arrays)
    (folder / "net.json").write_text(json.dumps([net, batch]), encoding="utf-8")
    return sizes


def _arrays(inputs: Sequence[program_format.Value]) -> dict[str, NDArray[Any]]:
    """Random weights and samples, all of them labelled."""
    random = np.random.default_rng(0)
    found: dict[str, NDArray[Any]] = {}
    for value in inputs:
        if value.dtype == "int64":
            found[value.name] = random.integers(0, 2, value.shape)
        elif value.name.startswith(("mask.", "task_weights")):
            found[value.name] = np.ones(value.shape, np.float32)
        else:
            found[value.name] = random.normal(0, 0.05, value.shape).astype(np.float32)
    return found | {"hyper": np.array([0.01, 0.9, 1e-4, 0.0], np.float32)}


def job_of(net: str, batch: int) -> Any:
    """The demo's job, or the three dense tasks on 64x64 images."""
    from mas_edge.job import Data, Federation, Job, Network, Task, load_job

    if net == "watch":
        import msgspec

        job = load_job(ROOT / "models" / "watch.toml")
        return msgspec.structs.replace(job, federation=msgspec.structs.replace(job.federation, batch_size=batch))
    head = f"{__name__}:head"
    tasks = [
        Task(name="segments", kind="dense_class", shape=[64, 64], classes=6, head=head),
        Task(name="depth", kind="value", shape=[1, 64, 64], head=head),
        Task(name="normal", kind="value", shape=[3, 64, 64], head=head),
    ]
    federation = Federation(rounds=2, merge_rounds=1, batch_size=batch)
    network = Network(encoder=f"{__name__}:encoder")
    return Job(name="bench", data=Data(input_shape=[3, 64, 64]), tasks=tasks, federation=federation, network=network)


def encoder(_input_shape: tuple[int, ...]) -> Any:
    """[B, 3, 64, 64] to [B, 128, 16, 16]."""
    from torch import nn

    return nn.Sequential(*(_block(*sizes) for sizes in CONVOLUTIONS), nn.Upsample(scale_factor=2))


def head(feature_shape: tuple[int, ...], task: Any) -> Any:
    """[B, 128, 16, 16] to [B, numbers, 64, 64]."""
    from torch import nn

    numbers = task.classes or task.shape[0]
    return nn.Sequential(_block(feature_shape[0], 96, 1), nn.Conv2d(96, 16 * numbers, 1), nn.PixelShuffle(4))


def _block(channels: int, width: int, stride: int) -> Any:
    from torch import nn

    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.GroupNorm(8, width), nn.ReLU())


def _run_child(engine: str, python: str, threads: int, folder: Path, steps: int) -> dict[str, Any]:
    command = [python, __file__, "--child", engine, str(folder), "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(engine: str, folder: Path, steps: int) -> dict[str, Any]:
    """Run the train step in this process."""
    with np.load(folder / "feeds.npz") as stored:
        feeds = dict(stored)
    step = eager_step(folder, feeds) if engine == EAGER else engine_step(engine, folder, feeds)
    ready = time.process_time()
    for _ in range(WARM_UP):
        step()
    times, walls = [], []
    for _ in range(steps):
        start, began = time.process_time(), time.perf_counter()
        step()
        times.append(time.process_time() - start)
        walls.append(time.perf_counter() - began)
    return {"ready_s": ready, "steps_s": times, "walls_s": walls, "peak_mb": _peak_mb()}


def engine_step(engine: str, folder: Path, feeds: dict[str, Any]) -> Callable[[], object]:
    """The program's train step, its weights and momentum handed on as a device does."""
    runner = open_engine(engine).load(program_format.load((folder / engine).read_bytes()))
    return lambda: feeds.update({name: a for name, a in runner.run("train_step", feeds).items() if name != "losses"})


def eager_step(folder: Path, feeds: dict[str, Any]) -> Callable[[], object]:
    """Modules, ``backward()`` and ``torch.optim.SGD``."""
    import torch

    from mas_edge.learning.losses import loss_of
    from mas_edge.learning.network import build
    from mas_edge.learning.step import usable

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    net, batch = json.loads((folder / "net.json").read_text(encoding="utf-8"))
    job = job_of(net, batch)
    network = build(job, [task.name for task in job.tasks]).train()
    tensors = {name: torch.from_numpy(array) for name, array in feeds.items()}
    rate, momentum, decay, _ = feeds["hyper"].tolist()
    sgd = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum, weight_decay=decay)
    losses = [(task, loss_of(task)) for task in job.tasks]

    def step() -> None:
        sgd.zero_grad()
        outputs = network(tensors["x"])
        values = [
            loss(outputs[task.name], *usable(task, tensors[f"y.{task.name}"], tensors[f"mask.{task.name}"]))
            for task, loss in losses
        ]
        torch.dot(tensors["task_weights"], torch.stack(values)).backward()
        if job.optimizer.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(network.parameters(), job.optimizer.clip_norm)
        sgd.step()

    return step


def _peak_mb() -> float:
    """Of this program alone: what getrusage reports includes the process it was forked from."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1000


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows for people."""
    head = ("net", "batch", "threads", "engine", "step ms", "wall ms", "ratio", "ready s", "peak MB", "KB")
    lines = ["{:12} {:>5} {:>7} {:12} {:>8} {:>8} {:>6} {:>8} {:>8} {:>6}".format(*head)]
    for row in rows:
        lines.append(
            f"{row['net']:12} {row['batch']:5} {row['threads']:7} {row['engine']:12} {row['step_ms']:8.1f} "
            f"{row['wall_ms']:8.1f} {row['ratio']:6.2f} {row['ready_s']:8.2f} {row['peak_mb']:8.0f} "
            f"{row['program_kb']:6.0f}"
        )
    if any(row["engine"].endswith("*") for row in rows):
        lines.append("* in the environment named with --python")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
