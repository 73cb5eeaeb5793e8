"""Small jobs for the tests of networks, programs and engines."""

from __future__ import annotations

import numpy as np

from device_runtime.engines.base import Arrays
from mas_edge.job import Data, Federation, Job, Network, Optimizer, Task
from mas_edge.protocol.program import Program

OWN = "tests.learning.own_parts"
KINDS = [
    Task(name="label", kind="class", classes=3),
    Task(name="places", kind="dense_class", shape=[16], classes=4, ignore_index=255),
    Task(name="amount", kind="value"),
    Task(name="next", kind="value", shape=[2, 4], element_mask=True),
    Task(name="down", kind="direction", shape=[3]),
]
PIXELS = [
    Task(name="label", kind="class", classes=3),
    Task(name="segments", kind="dense_class", shape=[8, 8], classes=4, ignore_index=0),
    Task(name="depth", kind="value", shape=[8, 8], element_mask=True),
    Task(name="normal", kind="direction", shape=[3, 8, 8], element_mask=True),
]


def job(tasks: list[Task], shape: list[int], network: Network | None = None, optimizer: Optimizer | None = None) -> Job:
    return Job(
        name="test", data=Data(input_shape=shape), tasks=tasks,
        federation=Federation(rounds=2, merge_rounds=1, batch_size=6),
        network=network or Network(encoder_args={"width": 4}),
        optimizer=optimizer or Optimizer(),
    )  # fmt: skip


def series_job(tasks: list[Task] | None = None, optimizer: Optimizer | None = None) -> Job:
    return job(KINDS if tasks is None else tasks, [2, 16], optimizer=optimizer)


def image_job() -> Job:
    return job(PIXELS, [3, 8, 8], Network(family="image", encoder_args={"width": 2}))


def own_job(encoder: str, tasks: list[Task], shape: list[int]) -> Job:
    return job(tasks, shape, Network(encoder=f"{OWN}:{encoder}"))


def feeds_of(program: Program, method: str, seed: int = 0) -> Arrays:
    """Random arrays of the right shapes: indices of class 0 or 1, masks of ones, a usual ``hyper``."""
    random = np.random.default_rng(seed)
    feeds: Arrays = {}
    for value in program.methods[method].inputs:
        if value.dtype == "int64":
            feeds[value.name] = random.integers(0, 2, value.shape)
        elif value.name.startswith("mask."):
            feeds[value.name] = np.ones(value.shape, np.float32)
        else:
            feeds[value.name] = random.normal(0, 0.5, value.shape).astype(np.float32)
    feeds["hyper"] = np.array([0.1, 0.9, 1e-2, 0.0], np.float32)
    return feeds
