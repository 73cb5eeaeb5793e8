"""A group's model for boards without an operating system: made, run on tflite-micro, measured, held to a budget.

One sample a call, int8 in and out: a board that has no floating point unit computes in integers from its sensor to the
answer. q = round(x / scale) + zero_point, x = scale * (q - zero_point); both numbers of every input and output stand in
the header. Axes are in the order of the job, channels first, as everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mas_edge.export.litert.conversion import Calibration
from mas_edge.export.litert.inference import (
    checked_samples,
    converted_network,
    relative_error,
    require_small_losses,
)
from mas_edge.export.micro.board import GRANULARITY, answers_of, arena_bytes, require_tflite_micro
from mas_edge.export.micro.c_source import header_text, source_text
from mas_edge.export.micro.tables import TensorSpec, operators_of, tensors_of
from mas_edge.export.trained import eager_answers, trained_network
from mas_edge.job import Job
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.weights import Vector

SAMPLES = 64  # that the loss is measured on: the reference kernels of tflite-micro are slow


@dataclass(frozen=True)
class MicroReport:
    """What a board needs, and what int8 costs. Kernels, stack and the firmware itself come on top."""

    flash_bytes: int  # of the model
    arena_bytes: int  # of RAM, found by bisection with tflite-micro to ``granularity``
    granularity: int
    operators: dict[str, int]  # that the firmware has to register, and how often each is used
    losses: dict[str, float]  # of each task's output: |board - eager| / |eager| in L2, on tflite-micro itself


@dataclass(frozen=True)
class MicroModel:
    """The files of one model, and its report."""

    model: bytes  # the .tflite, int8
    source: str  # C11: the model as an array, in flash
    header: str  # C and C++: the array, sizes, and scale and zero point of every input and output
    inputs: list[TensorSpec]
    outputs: list[TensorSpec]  # in the interpreter's order
    report: MicroReport


def export_micro(
    job: Job,
    tasks: Sequence[str],
    vector: Vector,
    calibration: NDArray[np.float32] | None,
    flash_bytes: int | None = None,
    ram_bytes: int | None = None,
) -> MicroModel:
    """Make the model of ``tasks`` for a microboard and run it on tflite-micro; a budget of None or 0 is no limit.

    Args:
        job: the job.
        tasks: of the group, in order.
        vector: its weights, shape (P,).
        calibration: samples float32 [n, *input_shape] that set the ranges of the integers.
        flash_bytes: what the model may take of flash.
        ram_bytes: what its arena may take of RAM.

    Raises:
        JobError: the network does not fit a budget, loses too much in int8, has an operator that tflite-micro has not,
            or there are no samples.
        ServerError: the LiteRT build environment is not here, or a runtime does not do what the network does.
    """
    require_tflite_micro()
    samples = checked_samples(calibration, job.data.input_shape)
    network = trained_network(job, tasks, vector)
    model = converted_network(network, job, tasks, Calibration(samples, integers=True)).int8
    _require_room("flash", len(model), flash_bytes, "fewer or narrower layers make the model smaller")
    inputs, outputs = tensors_of(model)
    arena = arena_bytes(model, inputs[0], len(outputs))
    _require_room("RAM", arena, ram_bytes, "smaller inputs, narrower layers or fewer of them need a smaller arena")
    told = samples[np.unique(np.linspace(0, len(samples) - 1, min(SAMPLES, len(samples))).astype(int))]
    got, expected = answers_of(model, inputs[0], outputs, arena, told), eager_answers(network, told)
    losses = {task: relative_error(got[task], expected[task]) for task in tasks}
    require_small_losses(losses)
    report = MicroReport(len(model), arena, GRANULARITY, operators_of(model), losses)
    return MicroModel(
        model, source_text(model), header_text(len(model), arena, inputs, outputs), inputs, outputs, report
    )


def _require_room(what: str, needed: int, budget: int | None, instead: str) -> None:
    if budget and needed > budget:
        message = (
            f"the model does not fit: it needs {needed} bytes of {what} and the budget is {budget} "
            f"({needed - budget} too many): {instead}; nothing was written"
        )
        raise JobError(message)
