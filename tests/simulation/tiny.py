"""A job and two device folders so small that a simulation of them takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np

JOB = """\
name = "tiny"
seed = 0

[data]
input_shape = [2, 16]

[network]
family = "series"
encoder_args = { width = 4 }

[federation]
rounds = 2
merge_rounds = 1
groups = 2
devices_per_round = 2
batch_size = 4
min_devices = 2

[affinity]
period = 1

[[tasks]]
name = "level"
kind = "value"
unit = 2.0

[[tasks]]
name = "side"
kind = "class"
classes = 2

[[tasks]]
name = "spread"
kind = "value"
"""
HEADER = """\
format = 1
input_shape = [2, 16]

[tasks.level]
kind = "value"

[tasks.side]
kind = "class"
classes = 2

[tasks.spread]
kind = "value"
"""


def write_job(directory: Path, *changes: tuple[str, str]) -> Path:
    """Write ``job.toml``, some of its text replaced."""
    text = JOB
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path = directory / "job.toml"
    path.write_text(text, encoding="utf-8")
    return path


def write_data(directory: Path, devices: int = 2, seed: int = 0) -> Path:
    """Write a folder a device, of 8 training and 8 test samples."""
    for number in range(devices):
        rng = np.random.default_rng([seed, number])
        folder = directory / f"device-{number}"
        folder.mkdir(parents=True)
        (folder / "data.toml").write_text(HEADER, encoding="utf-8")
        x = rng.normal(size=(16, 2, 16)).astype(np.float32)
        np.save(folder / "x.npy", x)
        np.save(folder / "split.npy", np.repeat(np.array([0, 1], np.uint8), 8))
        np.save(folder / "level.npy", x[:, 0].mean(axis=1).astype(np.float32))
        np.save(folder / "spread.npy", x[:, 0].std(axis=1).astype(np.float32))
        np.save(folder / "side.npy", (x[:, 1].mean(axis=1) > 0).astype(np.int64))
    return directory
