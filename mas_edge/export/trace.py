"""Trace the steps of one group into a program: the network's author writes modules, the device gets operator calls.

Tracing runs each method once on fake tensors (shapes without numbers) and records every ATen operator, those of the
gradient included. The graph is then cleaned and written as the nodes of ``mas_edge.protocol.program``.

inputs, in this order (B batch, P weights, T of them trained, n tasks):
  weights [P]   momentum [T]   anchor [T] (with FedProx)   x [B, *input_shape]
  y.<task> [B, *shape]   mask.<task> [B] or [B, *shape]   task_weights [n]
  hyper [4] = learning rate, momentum, weight decay, proximal mu
methods:
  train_step (all of them)                        -> weights [P], momentum [T], losses [n], norms [n] (with GradNorm)
  evaluate (weights, x, y.*, mask.*)              -> losses [n], metrics [n]
  affinity (weights, x, y.*, mask.*, hyper)       -> losses [n], affinity [n, n]; of kind ``features`` without hyper
  infer (weights, x)                              -> out.<task> [B, ...] for every task
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import get_proxy_mode, make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from mas_edge.export.graph import method_of
from mas_edge.job import Job, Task
from mas_edge.learning.network import build
from mas_edge.learning.step import METHODS, Objective, objective_of
from mas_edge.protocol.errors import EdgeError, JobError
from mas_edge.protocol.program import FORMAT, Method, Program, TargetSpec, Value

DTYPES = {"float32": torch.float32, "int64": torch.int64}


def trace_program(job: Job, group: str, tasks: Sequence[str], methods: Sequence[str] = tuple(METHODS)) -> Program:
    """Return the program of the group called ``group`` with ``tasks``; a method that nobody will call may be left out.

    Raises:
        JobError: the network, a loss or a metric cannot be built or traced, or needs an operator outside ATen.
    """
    objective = objective_of(job, build(job, tasks))
    targets = {task.name: _target(task) for task in objective.tasks}
    program = Program(
        format=FORMAT, group=group, tasks=list(tasks), batch_size=job.federation.batch_size,
        input_shape=list(job.data.input_shape), targets=targets, layout=objective.layout, methods={},
    )  # fmt: skip
    for method in methods:
        program.methods[method] = _trace(objective, method, inputs_of(program, method, job))
    return program


def _target(task: Task) -> TargetSpec:
    mask = list(task.shape) if task.element_mask else []
    return TargetSpec(list(task.shape), task.target_dtype, mask, task.classes, task.ignore_index)


def inputs_of(program: Program, method: str, job: Job) -> list[Value]:
    """What ``method`` takes, in order; the table is in the module's docstring."""
    batch, layout = program.batch_size, program.layout
    trained = [layout.trainable]
    values = [Value("weights", [layout.size], "float32")]
    if method == "train_step":
        values.append(Value("momentum", trained, "float32"))
        if job.optimizer.proximal_mu > 0:
            values.append(Value("anchor", trained, "float32"))
    values.append(Value("x", [batch, *program.input_shape], "float32"))
    if method == "infer":
        return values
    for task, target in program.targets.items():
        values.append(Value(f"y.{task}", [batch, *target.shape], target.dtype))
    for task, target in program.targets.items():
        values.append(Value(f"mask.{task}", [batch, *target.mask_shape], "float32"))
    if method == "train_step":
        values.append(Value("task_weights", [len(program.tasks)], "float32"))
    # Gradients at the encoder's output know no learning rate: an input that nothing uses may be dropped by a converter.
    if method == "train_step" or (method == "affinity" and job.affinity.kind != "features"):
        values.append(Value("hyper", [4], "float32"))
    return values


def _trace(objective: Objective, method: str, inputs: list[Value]) -> Method:
    examples = [torch.zeros(value.shape, dtype=DTYPES[value.dtype]) for value in inputs]
    names: list[str] = []

    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        feeds = {value.name: tensor for value, tensor in zip(inputs, tensors, strict=True)}
        results = METHODS[method](objective, feeds)
        names.extend(results)
        return tuple(results.values())

    with portable_operators(), _labelled(objective.network) as path:
        try:
            traced = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*examples)
        except EdgeError:
            raise
        except Exception as error:
            where = f"in the module {path[-1]!r}" if path[-1] else "outside the network's modules (a loss or a metric?)"
            message = f"tracing {method!r} failed {where}: {type(error).__name__}: {_short(error)}"
            raise JobError(message) from error
    return method_of(traced, inputs, names)


@contextmanager
def portable_operators() -> Iterator[None]:
    """While it holds, attention and recurrent layers are recorded as the plain operators that every engine has.

    Otherwise a kernel of the processor that traces would be written into the program.
    """
    fast, fused = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch._C._set_mkldnn_enabled(False)  # the public ``backends.mkldnn.flags`` warns of a graphics card
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        torch._C._set_mkldnn_enabled(fused)


def _short(error: Exception) -> str:
    """The first line of torch's message: what follows is a stack or a list of kernels."""
    return str(error).strip().partition("\n")[0]


@contextmanager
def _labelled(network: nn.Module) -> Iterator[list[str]]:
    """While it holds, every node that is recorded learns the path of the module in whose forward pass it is.

    Yields that path, innermost last; after an error its end is the module that failed.
    """
    path = [""]

    def label() -> None:
        mode = get_proxy_mode()
        graph: fx.Graph | None = getattr(getattr(mode, "tracer", None), "graph", None)
        for node in reversed(graph.nodes) if graph is not None else ():
            if "module" in node.meta:
                break
            node.meta["module"] = path[-1]

    def enter(name: str) -> Any:
        def hook(_module: nn.Module, _args: Any) -> None:
            label()
            path.append(name)

        return hook

    def leave(_module: nn.Module, _args: Any, _output: Any) -> None:
        label()
        path.pop()

    handles = []
    for name, module in network.named_modules():
        handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    try:
        yield path
    finally:
        for handle in handles:
            handle.remove()
