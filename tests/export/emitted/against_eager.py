"""Hold what the emitter makes of a torch function, and of its gradient, against eager.

Eager computes in float64 here: its own rounding would say nothing about ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx

from device_runtime.engines import open_engine
from mas_edge.export import executorch, onnx_training
from mas_edge.export.graph import method_of
from mas_edge.export.trace import portable_operators
from mas_edge.protocol.program import FORMAT, Program, Value, dump, load
from mas_edge.protocol.weights import Layout

EMITTERS = {"onnxruntime": onnx_training.emit, "executorch": executorch.emit}
TOLERANCE = 1e-5  # of the largest value of each result
Function = Callable[..., Tensor]


def differences(engine: str, function: Function, *tensors: Tensor) -> dict[str, float]:
    """How far an engine is off, relative to each result's largest value: the output and every gradient."""

    def step(*arguments: Tensor) -> tuple[Tensor, ...]:
        leaves = [a.detach().requires_grad_(a.is_floating_point()) for a in arguments]
        output = function(*leaves)
        if not output.requires_grad:
            return (output,)
        weight = torch.arange(output.numel()).cos().reshape(output.shape)  # uneven: a norm cancels the rest
        learnt = [leaf for leaf in leaves if leaf.requires_grad]
        loss = (output * weight).sum()
        return output.detach(), *torch.autograd.grad(loss, learnt, allow_unused=True, materialize_grads=True)

    expected = step(*[tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors])
    inputs = [Value(f"i{i}", list(t.shape), str(t.dtype).removeprefix("torch.")) for i, t in enumerate(tensors)]
    names = [f"r{i}" for i in range(len(expected))]
    with portable_operators():
        traced = make_fx(step, tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    program = Program(
        format=FORMAT, group="g", tasks=[], batch_size=1, input_shape=[1], targets={}, layout=Layout([]),
        methods={"m": method_of(traced, inputs, names)},
    )  # fmt: skip
    feeds = {value.name: tensor.numpy() for value, tensor in zip(inputs, tensors, strict=True)}
    got = open_engine(engine).load(load(dump(EMITTERS[engine](program)))).run("m", feeds)
    return {name: _relative(got[name], tensor.numpy()) for name, tensor in zip(names, expected, strict=True)}


def _relative(got: np.ndarray[Any, Any], expected: np.ndarray[Any, Any]) -> float:
    assert got.shape == expected.shape
    difference = np.abs(got.astype(np.float64) - expected).max(initial=0)
    return float(difference / max(np.abs(expected).max(initial=0), 1e-3))


def require_same(engine: str, function: Function, *tensors: Tensor) -> None:
    found = differences(engine, function, *tensors)
    assert max(found.values()) <= TOLERANCE, found


def require_module_same(engine: str, module: nn.Module, x: Tensor) -> None:
    """Output, and gradients of the input and of every parameter."""
    names = [name for name, _ in module.named_parameters()]

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        buffers = {name: _like(buffer, x) for name, buffer in module.named_buffers()}
        output: Tensor = functional_call(module, dict(zip(names, parameters, strict=True)) | buffers, (x,))
        return output

    require_same(engine, run, x, *[parameter.detach() for parameter in module.parameters()])


def _like(buffer: Tensor, x: Tensor) -> Tensor:
    """A copy, as statistics are changed in place, in the precision of ``x``."""
    return buffer.to(x.dtype, copy=True) if buffer.is_floating_point() else buffer.clone()


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
