"""Make the self-test of the engines: one small training program for each, and the answer of eager PyTorch.

python tools/make_selftest.py --engine torch onnxruntime

An engine whose emitter or library is not installed here is left as it is, and said; the engines may need environments
of their own. Every program is held against eager (``mas_edge.export.verify``) before it is written.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from device_runtime.engines import ENGINES
from device_runtime.engines.base import Arrays
from device_runtime.engines.selftest import ANSWER, DATA, HYPER, METHOD, feeds_of
from mas_edge.export.reference import Reference
from mas_edge.export.targets import emitter_of
from mas_edge.export.trace import trace_program
from mas_edge.export.verify import verify
from mas_edge.job import Data, Federation, Job, Network, Optimizer, Task
from mas_edge.learning.network import build, load_vector
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import EdgeError, ServerError
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Entry, Layout, pack

TASKS = ["kind", "size"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the files; return the exit code."""
    parser = argparse.ArgumentParser(description="Make the programs that devices test their engines with.")
    parser.add_argument("--engine", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--out", type=Path, default=DATA, help="the folder to write to (default: %(default)s)")
    options = parser.parse_args(arguments)
    traced = trace_program(job(), "selftest", TASKS, [METHOD])
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / ANSWER).write_bytes(answer(traced))
    for engine in options.engine:
        try:
            data = program_format.dump(emitted(traced, engine))
        except ServerError as error:
            print(f"{engine}: left as it is: {error}", file=sys.stderr)
            continue
        except EdgeError as error:
            print(f"error: {engine}: {error}", file=sys.stderr)
            return error.exit_code
        (options.out / f"{engine}.program").write_bytes(data)
        print(f"{engine}: {len(data)} bytes")
    return 0


def emitted(traced: Program, engine: str) -> Program:
    """The program for ``engine``, which does what the network does."""
    program = emitter_of(engine)(traced)
    verify(program, build(job(), TASKS), job())
    return program


def answer(traced: Program) -> bytes:
    """What eager PyTorch gives for the feeds of the test, as safetensors bytes."""
    outputs = eager(feeds_of(traced))
    layout = Layout([Entry(name, list(array.shape), "answer") for name, array in outputs.items()])
    return pack(layout, np.concatenate([array.reshape(-1) for array in outputs.values()]))


def eager(feeds: Arrays) -> Arrays:
    """The train step as modules, ``backward()`` and ``torch.optim.SGD``."""
    network = build(job(), TASKS)
    load_vector(network, feeds["weights"])
    return Reference(network, job(), *HYPER[:3]).run(METHOD, feeds)


def job() -> Job:
    """A class and a value of 8 images of 32x32. Everything is smooth: no last bit of a sum decides anything."""
    where = f"{__name__}:head"
    return Job(
        name="selftest", data=Data(input_shape=[3, 32, 32]), network=Network(encoder=f"{__name__}:encoder"),
        tasks=[
            Task(name="kind", kind="class", classes=4, head=where),
            Task(name="size", kind="value", shape=[2], loss="l2", head=where),
        ],
        federation=Federation(rounds=2, merge_rounds=1, batch_size=8), optimizer=Optimizer(),
    )  # fmt: skip


def encoder(_input_shape: tuple[int, ...]) -> nn.Module:
    """[B, 3, 32, 32] to [B, 16]."""
    return nn.Sequential(_block(3, 8, 1), _block(8, 8, 1), _block(8, 16, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def head(feature_shape: tuple[int, ...], task: Any) -> nn.Module:
    """[B, 16] to [B, numbers]."""
    return nn.Linear(feature_shape[0], task.classes or task.shape[0])


def _block(channels: int, width: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1), nn.GroupNorm(2, width), nn.Tanh())


if __name__ == "__main__":
    raise SystemExit(main())
