"""The inference models of a small network, each exported once for all tests: an export takes ten seconds of CPU."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.engines.base import Arrays
from mas_edge.export.executorch.inference import export_inference
from mas_edge.learning import build, vector_of
from mas_edge.learning.network import load_vector
from mas_edge.protocol.weights import Vector
from tests.learning.jobs import KINDS, series_job

TASKS = ["label", "amount"]
TOLERANCES = {"fp32": 1e-5, "int8": 0.2}  # of int8 0.11 was measured; a wrong operator is off by 1
JOB = series_job([task for task in KINDS if task.name in TASKS])


def samples(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, 2, 16), np.float32)


@cache
def vector() -> Vector:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return vector_of(build(JOB, TASKS))


@cache
def exported(precision: str) -> bytes:
    return export_inference(JOB, TASKS, vector(), precision, samples(16) if precision == "int8" else None)


def off_by(got: Arrays, x: NDArray[np.float32]) -> float:
    """How far outputs are from eager's, of the largest of all: a scale of int8 is a share of a range."""
    expected = eager(x)
    largest = max(float(np.abs(y).max()) for y in expected.values())
    return max(float(np.abs(got[task] - y).max()) for task, y in expected.items()) / largest


def eager(x: NDArray[np.float32]) -> Arrays:
    network = build(JOB, TASKS)
    load_vector(network, vector())
    with torch.no_grad():
        return {task: y.numpy() for task, y in network.eval()(torch.from_numpy(x)).items()}
