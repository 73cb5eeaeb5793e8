"""A job so small that its processes are mostly waiting: two tasks, three devices, an engine that starts at once."""

from __future__ import annotations

import secrets
import sys
from pathlib import Path

import numpy as np

from mas_edge.chaos.fleet import Ground

DEVICES = ("ada", "bob", "cyd")
JOB = """\
name = "tiny"
fleet = "{fleet}"
engines = ["onnxruntime"]

[data]
input_shape = [3, 16]

[network]
encoder = "plain:{encoder}"

[federation]
rounds = {rounds}
merge_rounds = {merge_rounds}
groups = 2
devices_per_round = {per_round}
local_epochs = 2
batch_size = 8
min_devices = {min_devices}
deadline_s = {deadline_s}
{more}

[optimizer]
learning_rate = 0.02

[[tasks]]
name = "sign"
head = "plain:head"
kind = "class"
classes = 2

[[tasks]]
name = "mean"
head = "plain:head"
kind = "value"
"""
NETWORK = '''\
"""One linear layer and one a head: a network that is traced and exported in no time."""

from torch import Size, nn

from mas_edge.job import Task


def encoder(input_shape: tuple[int, ...], width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(Size(input_shape).numel(), width))


def wide(input_shape: tuple[int, ...]) -> nn.Module:
    """9 MB of weights, above the 8 MiB from which on pieces are as large as they get: 512 KiB."""
    return encoder(input_shape, 44_000)


def head(feature_shape: tuple[int, ...], task: Task) -> nn.Module:
    linear = nn.Linear(feature_shape[0], task.classes or 1)
    return linear if task.classes else nn.Sequential(linear, nn.Flatten(0))
'''
HEADER = 'format = 1\ninput_shape = [3, 16]\n[tasks.sign]\nkind = "class"\nclasses = 2\n[tasks.mean]\nkind = "value"\n'


def write_job(
    path: Path, *, rounds: int = 4, merge_rounds: int = 2, per_round: int = 2, min_devices: int = 3,
    deadline_s: float = 30.0, encoder: str = "encoder", more: str = "",
) -> Path:  # fmt: skip
    """``more``: further lines of the table ``federation``."""
    text = JOB.format(
        fleet=f"f-{secrets.token_hex(4)}", rounds=rounds, merge_rounds=merge_rounds, per_round=per_round,
        min_devices=min_devices, deadline_s=deadline_s, encoder=encoder, more=more,
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    (path.parent / "plain.py").write_text(NETWORK)
    return path


def write_folder(directory: Path, seed: int, train: int = 32, test: int = 8) -> Path:
    """Both tasks can be read off the means of the three signals."""
    directory.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(train + test, 3, 16)).astype(np.float32) + rng.normal(size=(train + test, 3, 1))
    means = x.mean(axis=2)
    np.save(directory / "x.npy", x.astype(np.float32))
    np.save(directory / "split.npy", np.repeat(np.array([0, 1], np.uint8), [train, test]))
    np.save(directory / "sign.npy", (means[:, 0] > 0).astype(np.int64))
    np.save(directory / "mean.npy", means.mean(axis=1).astype(np.float32))
    (directory / "data.toml").write_text(HEADER)
    return directory


def make_ground(directory: Path, **changed: float | str) -> Ground:
    """Job, data and engines of a run below ``directory``."""
    job = write_job(directory / "job.toml", **changed)  # type: ignore[arg-type]
    for seed, name in enumerate(DEVICES):
        write_folder(directory / "data" / name, seed)
    ground = Ground(job, directory / "data", directory / "prepared")
    ground.prepare()
    return ground


if __name__ == "__main__":  # python -m tests.faults.tiny DIR: a job to try `mas-edge chaos` on
    make_ground(Path(sys.argv[1]))
