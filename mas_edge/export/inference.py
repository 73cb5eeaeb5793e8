"""The deployed form of one group: a plain ONNX file with a free batch size, and golden samples to check it by.

An exported file leaves here only after onnxruntime has given eager's outputs at two batch sizes. The file holds the
graph and the weights and nothing else: the exporter's notes (paths and source lines of this machine) are taken out,
so the same job and weights give the same bytes, and the digest names the model.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mas_edge.export.quantized_onnx import quantized
from mas_edge.export.quiet import quiet
from mas_edge.export.trained import InOrder, eager_answers, random_samples, require_answers, trained_network
from mas_edge.job import Job
from mas_edge.learning.network import Network
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.weights import Entry, Layout, Vector, pack

INPUT = "x"
OUTPUT_PREFIX = "out."  # of the outputs in a golden file; a task name has no dot, so this is no task's own name
OPSET = 18  # what onnxruntime reads since 1.14, so also on the older Jetsons that are bound to an old Python
BATCHES = (1, 5)  # neither is the batch that the graph is traced with, so a batch size that was baked in shows up
TRACED_BATCH = 2  # torch.export takes sizes 0 and 1 for constants


def export_inference(
    job: Job,
    tasks: Sequence[str],
    vector: Vector,
    precision: str = "fp32",
    calibration: NDArray[np.float32] | None = None,
) -> bytes:
    """Return the ONNX file of the network of ``tasks`` with the weights ``vector``, shape (P,).

    Input ``x`` float32 [batch, *input_shape]; one output for each task, under its name, in the order of ``tasks``.
    With ``precision`` "int8" its layers compute in integers, their ranges set by ``calibration`` [n, *input_shape];
    verified is then the float32 model that it is made from.

    Raises:
        JobError: the network cannot be written as ONNX with a free batch size.
        ServerError: onnxruntime does not give eager's outputs, a package is missing, or int8 lacks its samples.
    """
    network = trained_network(job, tasks, vector)
    data = _convert(network, job, tasks)
    _verify(data, network, job, tasks)
    if precision == "fp32":
        return data
    if calibration is None or not len(calibration):
        message = "int8 needs samples to set its ranges by: give the exporter some of the training data"
        raise ServerError(message)
    return quantized(data, calibration, INPUT)


def golden_of(job: Job, tasks: Sequence[str], vector: Vector, seed: int, batch: int = 4) -> bytes:
    """Return the golden samples of a deployed model: safetensors of ``x`` and ``out.<task>``.

    ``x`` float32 [batch, *input_shape] is drawn from N(0, 1) with ``seed``; ``out.<task>`` is eager's output for it.
    """
    x = random_samples(job, seed, batch)
    tensors = {INPUT: x}
    tensors.update(
        {OUTPUT_PREFIX + task: y for task, y in eager_answers(trained_network(job, tasks, vector), x).items()}
    )
    layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in tensors.items()])
    return pack(layout, np.concatenate([tensor.reshape(-1) for tensor in tensors.values()]))


def _convert(network: Network, job: Job, tasks: Sequence[str]) -> bytes:
    example = torch.zeros(TRACED_BATCH, *job.data.input_shape)
    try:
        with quiet("torch.onnx", "onnxscript", "onnx_ir"):
            program = torch.onnx.export(
                InOrder(network, tasks).eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=[OUTPUT_PREFIX + task for task in tasks],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
                verbose=False,
            )
    except ImportError as error:
        message = f"exporting ONNX needs a package that is not here ({error}): pip install 'mas-edge[server]'"
        raise ServerError(message) from None
    except Exception as error:  # the exporter has no error type that covers tracing, conversion and the optimiser
        message = (
            f"the network of {', '.join(tasks)} cannot be written as ONNX: {_cause(error)}; "
            "use operators that have an ONNX form, and no Python branch on values or on the batch size"
        )
        raise JobError(message) from None
    if program is None:
        message = "the ONNX exporter returned nothing"
        raise ServerError(message)
    model: Any = program.model
    if isinstance(model.graph.inputs[0].shape[0], int):
        message = (
            f"the network of {', '.join(tasks)} cannot be written as ONNX: it fixes the batch size it is traced with; "
            "use operators on the whole batch, and no Python loop or branch over its samples"
        )
        raise JobError(message)
    _name_values(model, tasks)
    return _without_notes(program.model_proto)


def _name_values(model: Any, tasks: Sequence[str]) -> None:
    """Call each output by its task. The exporter names values by operator, and a task may be called ``linear``."""
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if value.name in tasks:
                value.name = f"value.{value.name}"
    for value, task in zip(model.graph.outputs, tasks, strict=True):
        value.name = task


def _without_notes(proto: Any) -> bytes:
    """Serialise without stack traces, source lines and names of classes: they tell of this machine and change."""
    for graph_part in (proto.graph.node, proto.graph.initializer, proto.graph.input, proto.graph.output):
        for item in graph_part:
            item.ClearField("metadata_props")
            item.ClearField("doc_string")
    proto.ClearField("metadata_props")
    proto.graph.ClearField("metadata_props")
    proto.graph.ClearField("value_info")  # a runtime infers the shapes itself
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def _cause(error: BaseException) -> str:
    """The first line of the innermost cause; the exporter wraps it in advice on reporting bugs to its authors."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


def _verify(data: bytes, network: Network, job: Job, tasks: Sequence[str]) -> None:
    try:
        onnxruntime: Any = importlib.import_module("onnxruntime")
    except ImportError:
        message = "verifying an exported model needs onnxruntime: pip install 'mas-edge[onnx]'"
        raise ServerError(message) from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal only: what goes wrong becomes one message of ours
    for batch in BATCHES:
        x = random_samples(job, seed=batch, batch=batch)
        try:
            session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            outputs: dict[str, NDArray[Any]] = dict(zip(tasks, session.run(list(tasks), {INPUT: x}), strict=True))
        except Exception as error:  # onnxruntime's errors share no base class
            message = f"onnxruntime does not run the exported model at batch size {batch}: {_cause(error)}"
            raise ServerError(message) from None
        require_answers(outputs, eager_answers(network, x), f" at batch size {batch}")
