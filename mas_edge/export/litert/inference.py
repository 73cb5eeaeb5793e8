"""The deployed form of one group as .tflite: one signature ``infer``, one sample a call, in float32 or int8.

The batch is fixed at one: microboards need it, and a device answers for one sample at a time. Input ``x`` and outputs
(named by task) are float32 in both precisions; int8 quantizes and dequantizes inside, so that a device need not know.

A float32 file leaves here only after LiteRT has given eager's outputs. An int8 file rounds: what it loses is measured
on the samples it was calibrated with, and beyond ``LOSS_BOUND`` it does not leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.engines.litert_engine import INPUT, SIGNATURE, inference_model
from mas_edge.export.litert.conversion import Calibration, Converted, Signature, convert, require_converter
from mas_edge.export.trained import Answers, InOrder, eager_answers, random_samples, require_answers, trained_network
from mas_edge.job import Job
from mas_edge.learning.network import Network
from mas_edge.protocol.errors import EdgeError, JobError, ServerError
from mas_edge.protocol.weights import Vector

FP32, INT8 = "fp32", "int8"
# Of an output's length (relative L2). Usual are 0.005 to 0.08; a range set wrongly gives about 1.
LOSS_BOUND = 0.25
SAMPLES = 5  # a float32 file is verified on


def export_inference(
    job: Job,
    tasks: Sequence[str],
    vector: Vector,
    precision: str = FP32,
    calibration: NDArray[np.float32] | None = None,
) -> bytes:
    """Return the .tflite of the network of ``tasks`` with the weights ``vector``, shape (P,).

    ``x`` float32 [1, *input_shape]; for each task an output under its name. For ``precision`` "int8" ``calibration``
    holds samples [n, *input_shape] that set the ranges of the integers.

    Raises:
        JobError: the network cannot be written as .tflite, there are no samples for int8, or int8 loses too much.
        ServerError: LiteRT does not give eager's outputs, or the LiteRT build environment is not here.
    """
    if precision not in (FP32, INT8):
        message = f"precision is {precision!r}; LiteRT models are exported in {FP32} or {INT8}"
        raise JobError(message)
    samples = checked_samples(calibration, job.data.input_shape) if precision == INT8 else None
    network = trained_network(job, tasks, vector)
    converted = converted_network(network, job, tasks, None if samples is None else Calibration(samples))
    if samples is None:
        return converted.data
    require_small_losses(losses(converted.int8, network, samples))
    return converted.int8


def checked_samples(calibration: NDArray[np.float32] | None, input_shape: Sequence[int]) -> NDArray[np.float32]:
    """The samples for int8 as float32 [n, *input_shape].

    Raises:
        JobError: there are none, they have another shape, or one is not finite.
    """
    if calibration is None or len(calibration) == 0:
        message = (
            "int8 needs real samples to set its ranges by: give the folder of a device that holds data of this job "
            "(--data DEVICE_FOLDER), or export in fp32"
        )
        raise JobError(message)
    samples = np.asarray(calibration, np.float32)
    if list(samples.shape[1:]) != list(input_shape) or not np.isfinite(samples).all():
        message = (
            f"the samples for int8 are {samples.dtype} of shape {list(samples.shape)}; expected finite numbers of "
            f"shape [n, {', '.join(map(str, input_shape))}], as the job's data.input_shape says"
        )
        raise JobError(message)
    return samples


def converted_network(
    network: Network, job: Job, tasks: Sequence[str], calibration: Calibration | None = None
) -> Converted:
    """The network in float32, verified against eager, and in int8 if samples [n, *input_shape] are given."""
    require_converter()
    example = torch.zeros(1, *job.data.input_shape)
    signature = Signature(SIGNATURE, InOrder(network, tasks).eval(), (example,), [INPUT], list(tasks))
    converted = convert([signature], f"the network of {', '.join(tasks)}", calibration)
    _verify(converted.data, network, job)
    return converted


def losses(data: bytes, network: Network, samples: NDArray[np.float32]) -> dict[str, float]:
    """What the model ``data`` loses of each task's output on ``samples``: |model - eager| / |eager|, in L2."""
    expected, got = eager_answers(network, samples), _run(data, samples)
    return {task: relative_error(got[task], output) for task, output in expected.items()}


def require_small_losses(found: Mapping[str, float]) -> None:
    """Raise JobError if int8 loses more than LOSS_BOUND of an output."""
    task = max(found, key=lambda name: found[name])
    if not found[task] <= LOSS_BOUND:  # NaN must not pass
        message = (
            f"in int8 the output of {task!r} is off by {found[task]:.2g} of its length (relative L2, allowed "
            f"{LOSS_BOUND:g}): give more samples of what the devices see, or export in fp32"
        )
        raise JobError(message)


def _run(data: bytes, x: NDArray[np.float32]) -> Answers:
    try:
        return inference_model(data).run(x)
    except (EdgeError, ImportError) as error:
        message = f"LiteRT does not run the exported model: {error}; it was not released"
        raise ServerError(message) from None


def relative_error(got: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """|got - expected| / |expected| in L2 over everything; infinite if the shapes differ."""
    if got.shape != expected.shape:
        return float("inf")
    size, off = (float(np.linalg.norm(part.astype(np.float64))) for part in (expected, got - expected))
    return off / size if size > 0 else float("inf") if off > 0 else 0.0


def _verify(data: bytes, network: Network, job: Job) -> None:
    x = random_samples(job, seed=SAMPLES, batch=SAMPLES)
    require_answers(_run(data, x), eager_answers(network, x))
