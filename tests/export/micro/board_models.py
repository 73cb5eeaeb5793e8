"""Models for a board's own interpreter, with what LiteRT's reference kernels answer: they stand in tests/micro/data.

    .venv-litert/bin/python -m tests.export.micro.board_models [NAME ..]

writes them anew. A name with ``.model`` is a .tflite as the kit's converter makes it, of random weights; ``.answers``
is SAMPLES inputs, then for each output, in the model's order, SAMPLES answers: all int8.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mas_edge.export.litert.conversion import Calibration, Signature, convert
from mas_edge.export.litert.inference import converted_network
from mas_edge.export.trained import trained_network
from mas_edge.job import Job, Network
from mas_edge.learning import build, vector_of
from tests.export.litert.environment import reference_answers
from tests.learning.jobs import KINDS, image_job, series_job

DATA = Path(__file__).parents[2] / "micro" / "data"
SAMPLES = 3  # that a model is tried on: one of zeros, one of noise, one beyond what it was calibrated for


class Layers(nn.Module):
    """What the kit's families have not: pooling, groups, one channel by itself, dilation, a bound of six, softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(4, 8, 3, stride=2, padding=1, groups=2), nn.ReLU6(), nn.Conv2d(8, 8, 3, padding=1, groups=8),
            nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3, padding=2, dilation=2), nn.AvgPool2d(2),
        )  # fmt: skip
        self.last = nn.Linear(6 * 2 * 2, 5)

    def forward(self, x: Tensor) -> Tensor:
        """Map [1, 4, 16, 16] to shares [1, 5]."""
        shares: Tensor = self.last(self.body(x).flatten(1)).softmax(-1)
        return shares


def samples(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """What the ranges of the integers are set by."""
    return np.random.default_rng(3).standard_normal((32, *shape), np.float32)


def of_job(job: Job) -> bytes:
    """The int8 model of all tasks of a job with fresh weights."""
    tasks = [task.name for task in job.tasks]
    network = trained_network(job, tasks, vector_of(build(job, tasks)))
    return converted_network(network, job, tasks, Calibration(samples(tuple(job.data.input_shape)), integers=True)).int8


def of_layers() -> bytes:
    """The int8 model of ``Layers``."""
    torch.manual_seed(0)
    shape = (4, 16, 16)
    signature = Signature("infer", Layers().eval(), (torch.zeros(1, *shape),), ["x"], ["shares"])
    return convert([signature], "layers", Calibration(samples(shape), integers=True)).int8


def pair_job(network: Network) -> Job:
    """A job of two tasks, which a board gets a small model of and then a large one."""
    return msgspec.structs.replace(image_job(), tasks=[KINDS[0], KINDS[4]], network=network)


def of_dense() -> bytes:
    """Its model of two layers a task."""
    parts = "tests.micro.dense"
    job = pair_job(Network(encoder=f"{parts}:encoder", encoder_args={"width": 4}))
    tasks = [msgspec.structs.replace(task, head=f"{parts}:head") for task in job.tasks]
    return of_job(msgspec.structs.replace(job, tasks=tasks))


MODELS: Mapping[str, Callable[[], bytes]] = {
    "series": lambda: of_job(series_job()),
    "image": lambda: of_job(image_job()),
    "layers": of_layers,
    "small": of_dense,
    "large": lambda: of_job(pair_job(Network(family="image", encoder_args={"width": 2}))),
}


def inputs(size: int) -> NDArray[np.int8]:
    """SAMPLES inputs of ``size`` integers."""
    drawn = np.random.default_rng(size).standard_normal((SAMPLES, size)) * [[0], [30], [90]]
    return np.clip(np.round(drawn), -128, 127).astype(np.int8)


def main() -> None:
    """Write them all."""
    for name in sys.argv[1:] or MODELS:
        model = MODELS[name]()
        x = inputs(reference_answers(model, []).size)
        answers = [answer.tobytes() for answer in reference_answers(model, x).outputs]
        (DATA / f"{name}.model").write_bytes(model)
        (DATA / f"{name}.answers").write_bytes(x.tobytes() + b"".join(answers))


if __name__ == "__main__":
    main()
