"""A job of three tasks small enough to train in milliseconds, and data folders for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from device_runtime.data import DataFolder, open_data
from mas_edge.job import Data, Federation, Job, Network, Optimizer, Task

TASKS = ["sign", "mean", "way"]


def encoder(input_shape: tuple[int, ...]) -> nn.Module:
    """Eight features of the flattened sample; the normalization brings buffers along."""
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(input_shape)), 8), nn.BatchNorm1d(8), nn.Tanh())


def head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    """One linear layer; a scalar value has no axis beside the batch."""
    if task.kind == "value":
        return nn.Sequential(nn.Linear(feature_shape[0], 1), nn.Flatten(0))
    return nn.Linear(feature_shape[0], task.classes or task.shape[0])


def tiny_job(batch_size: int = 4, proximal_mu: float = 0.0) -> Job:
    """A class, a scalar and a direction of a sample of shape [2, 3]."""
    where = f"{__name__}:head"
    return Job(
        name="tiny",
        data=Data(input_shape=[2, 3]),
        tasks=[
            Task(name="sign", kind="class", classes=2, head=where),
            Task(name="mean", kind="value", head=where, loss="l2"),
            Task(name="way", kind="direction", shape=[3], head=where),
        ],
        network=Network(encoder=f"{__name__}:encoder"),
        federation=Federation(rounds=2, merge_rounds=1, batch_size=batch_size),
        optimizer=Optimizer(scale_encoder_gradient=False, proximal_mu=proximal_mu),
    )


HEADER = """format = 1
input_shape = [2, 3]
[tasks.sign]
kind = "class"
classes = 2
[tasks.mean]
kind = "value"
"""
WAY = """[tasks.way]
kind = "direction"
shape = [3]
"""


def tiny_data(directory: Path, train: int = 10, test: int = 6, *, holds_way: bool = True) -> DataFolder:
    """Samples of N(0, 1) whose targets can be learned; every third sample has no label of ``sign``."""
    directory.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((train + test, 2, 3), np.float32)
    arrays: dict[str, NDArray[np.generic]] = {
        "x": x,
        "split": np.repeat(np.array([0, 1], np.uint8), [train, test]),
        "sign": (x[:, 0, 0] > 0).astype(np.int64),
        "sign.mask": (np.arange(train + test) % 3 != 0).astype(np.uint8),
        "mean": x.mean(axis=(1, 2)),
    }
    if holds_way:
        arrays["way"] = x[:, 1]
    for name, array in arrays.items():
        np.save(directory / f"{name}.npy", array)
    (directory / "data.toml").write_text(HEADER + (WAY if holds_way else ""))
    return open_data(directory)
