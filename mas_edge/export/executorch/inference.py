"""The deployed form of one group as .pte: one method ``forward``, one sample a call, on XNNPACK, in float32 or int8.

Weights are constants here, so that XNNPACK can pack them for the processor: a training program's ``infer`` takes them
as input and was 20 times as slow. Made the official way, from the exported network through ExecuTorch's partitioner;
int8 by its quantiser with one scale a channel, ranges from real samples. Input and outputs are float32 in both.
"""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.engines.executorch_engine import inference_model
from mas_edge.export.quiet import quiet
from mas_edge.export.trained import InOrder, eager_answers, random_samples, require_answers, trained_network
from mas_edge.export.verify import one_thread
from mas_edge.job import Job
from mas_edge.learning.network import Network
from mas_edge.protocol.errors import EdgeError, JobError, ServerError
from mas_edge.protocol.weights import Vector

FP32, INT8 = "fp32", "int8"
SAMPLES = 5  # a file is verified on
LOGGERS = ("executorch", "torch", "torchao")  # of the packages that take part in an export
INSTALL = "pip install 'mas-edge[executorch-export]'"


def export_inference(
    job: Job,
    tasks: Sequence[str],
    vector: Vector,
    precision: str = FP32,
    calibration: NDArray[np.float32] | None = None,
) -> bytes:
    """Return the .pte of the network of ``tasks`` with the weights ``vector``, shape (P,).

    ``forward`` takes float32 [1, *input_shape] and gives one output for each task, in the order of ``tasks``. For
    ``precision`` "int8" ``calibration`` holds samples [n, *input_shape] that set the ranges of the integers.

    Raises:
        JobError: the network cannot be written as .pte, or there are no samples for int8.
        ServerError: ExecuTorch does not give eager's outputs, or a package is missing.
    """
    if precision not in (FP32, INT8):
        message = f"precision is {precision!r}; ExecuTorch models are exported in {FP32} or {INT8}"
        raise JobError(message)
    network = trained_network(job, tasks, vector)
    samples = _samples(job, calibration) if precision == INT8 else None
    try:
        with _quiet(), one_thread():
            data = _lowered(InOrder(network, tasks).eval(), job, samples)
    except ImportError as error:
        message = f"exporting to ExecuTorch needs a package that is not here ({error}): {INSTALL}"
        raise ServerError(message) from None
    except Exception as error:  # tracing, partitioning and the backend share no error type
        cause = next((line for line in str(error).splitlines() if line.strip()), "")
        message = (
            f"the network of {', '.join(tasks)} cannot be written for ExecuTorch: {type(error).__name__}: {cause}; "
            "use operators of the core ATen set, and no Python branch on values"
        )
        raise JobError(message) from None
    _verify(data, network, job, tasks, exact=samples is None)
    return data


def _samples(job: Job, calibration: NDArray[np.float32] | None) -> torch.Tensor:
    if calibration is None or list(calibration.shape[1:]) != list(job.data.input_shape) or not len(calibration):
        found = "none" if calibration is None else f"an array of shape {list(calibration.shape)}"
        message = (
            f"int8 needs samples of shape [n, {', '.join(map(str, job.data.input_shape))}] to set its ranges by, got "
            f"{found}: give the folder of a device that holds data of this job, or export in fp32"
        )
        raise JobError(message)
    return torch.from_numpy(np.ascontiguousarray(calibration, np.float32))


def _lowered(network: InOrder, job: Job, samples: torch.Tensor | None) -> bytes:
    """Export, quantise if there are samples, hand what XNNPACK can do to it, and serialise."""
    exir: Any = importlib.import_module("executorch.exir")
    xnnpack: Any = importlib.import_module("executorch.backends.xnnpack.partition.xnnpack_partitioner")
    example = (torch.zeros(1, *job.data.input_shape),)
    if samples is not None:
        network = _quantised(network, example, samples)
    exported = torch.export.export(network, example, strict=False)
    edge = exir.to_edge_transform_and_lower(exported, partitioner=[xnnpack.XnnpackPartitioner()])
    return bytes(edge.to_executorch().buffer)


def _quantised(network: InOrder, example: tuple[torch.Tensor], samples: torch.Tensor) -> Any:
    quantizer: Any = importlib.import_module("executorch.backends.xnnpack.quantizer.xnnpack_quantizer")
    pt2e: Any = importlib.import_module("torchao.quantization.pt2e.quantize_pt2e")
    options = quantizer.get_symmetric_quantization_config(is_per_channel=True)
    graph = torch.export.export(network, example, strict=False).module()
    prepared = pt2e.prepare_pt2e(graph, quantizer.XNNPACKQuantizer().set_global(options))
    with torch.no_grad():
        for sample in samples:
            prepared(sample.unsqueeze(0))
    return pt2e.convert_pt2e(prepared)


def _verify(data: bytes, network: Network, job: Job, tasks: Sequence[str], *, exact: bool) -> None:
    """Run the file; in float32 it must give eager's outputs. What int8 loses is measured on real samples elsewhere."""
    x = random_samples(job, seed=SAMPLES, batch=SAMPLES)
    try:
        got = inference_model(data, tasks).run(x)
    except EdgeError as error:
        message = f"ExecuTorch does not run the exported model: {error}; it was not released"
        raise ServerError(message) from None
    require_answers(got, eager_answers(network, x), exact=exact)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter prints, warns and logs while it works."""
    nowhere = io.StringIO()
    with quiet(*LOGGERS), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        yield
