"""Training programs on LiteRT. Few conversions, as each takes half a minute: many layers share one program."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn import functional as F  # noqa: N812

from device_runtime.engines.base import Arrays, Runner
from mas_edge.export.graph import method_of
from mas_edge.export.litert.training import emit
from mas_edge.export.trace import portable_operators, trace_program
from mas_edge.export.verify import verify
from mas_edge.job import Job, Task
from mas_edge.learning import build
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.program import FORMAT, Method, Program, Value, dump, load
from mas_edge.protocol.weights import Layout
from tests.export.litert.environment import needs_converter, needs_old_runtime, require_converter, run_in_old_runtime
from tests.learning.jobs import OWN, own_job

METHODS = ["train_step", "evaluate", "affinity", "infer"]
TOLERANCE = 1e-5  # of the largest value of each result


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = normal(2, 4, 6, 6)
LAYERS: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
    "conv": (lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [X, normal(6, 4, 3, 3), normal(6)]),
    "depthwise": (lambda x, w: F.conv2d(x, w, padding=1, groups=4), [X, normal(4, 1, 3, 3)]),
    "conv_1d": (lambda x, w: F.conv1d(x, w, stride=2, padding=2), [normal(2, 4, 9), normal(6, 4, 5)]),
    "transposed": (
        lambda x, w: F.conv_transpose2d(x, w, stride=2, padding=1, output_padding=1), [X, normal(4, 3, 3, 3)]
    ),
    "group_norm": (lambda x, w, b: F.group_norm(x, 2, w, b), [X, normal(4), normal(4, seed=1)]),
    "batch_norm": (lambda x, w: F.batch_norm(x, None, None, w, training=True), [X, normal(4)]),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1), [X]),
    "mean_pool": (lambda x: F.avg_pool2d(x, 2) + F.adaptive_avg_pool2d(x, 3), [X]),
    "upsampling": (lambda x: F.interpolate(x, scale_factor=2.0) + F.pixel_shuffle(x, 2), [X]),
    "bilinear": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), [X]),
    "mean_and_conv": (  # whose gradients meet, and go on to a convolution with a stride
        lambda x, v, w: _mean_and_conv(F.conv2d(x, v, stride=2, padding=1), w),
        [X, normal(5, 4, 3, 3), normal(2, 5, 3, 3)],
    ),
    "activations": (lambda x: F.gelu(x) + F.silu(x) + F.hardswish(x) + x.sigmoid() * x.tanh() + F.relu(x), [X]),
    "softmax": (lambda x: x.softmax(1) + x.log_softmax(-1), [X]),
    "losses": (
        lambda x, y: F.cosine_similarity(x, y) + F.huber_loss(x, y) + F.l1_loss(x, y), [X, normal(2, 4, 6, 6, seed=1)]
    ),
    "classes": (lambda x, y: F.cross_entropy(x, y, ignore_index=3), [normal(5, 4), torch.tensor([0, 1, 2, 3, 1])]),
    "chosen": (
        lambda x, i: x[:, i] + x.gather(1, i.reshape(1, 3, 1, 1).expand(2, 3, 6, 6)), [X, torch.tensor([2, 0, 2])]
    ),
    "embedding": (lambda w, i: F.embedding(i, w), [normal(7, 3), torch.tensor([[0, 1, 1], [6, 2, 0]])]),
}  # fmt: skip


def _mean_and_conv(x: Tensor, weight: Tensor) -> Tensor:
    return torch.cat([x.mean((2, 3)).flatten(), F.conv2d(x, weight, padding=1).flatten()])


def with_gradients(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    def step(*arguments: Tensor) -> tuple[Tensor, ...]:
        leaves = [a.detach().requires_grad_(a.is_floating_point()) for a in arguments]
        output = function(*leaves)
        weight = torch.arange(output.numel()).cos().reshape(output.shape)  # uneven: a norm cancels the rest
        learnt = [leaf for leaf in leaves if leaf.requires_grad]
        return output.detach(), *torch.autograd.grad((output * weight).sum(), learnt)

    return step


def method(function: Callable[..., Tensor], tensors: list[Tensor]) -> Method:
    inputs = [Value(f"i{i}", list(t.shape), str(t.dtype).removeprefix("torch.")) for i, t in enumerate(tensors)]
    with portable_operators():
        traced = make_fx(with_gradients(function), tracing_mode="fake", _allow_non_fake_inputs=True)(*tensors)
    results = sum(tensor.is_floating_point() for tensor in tensors) + 1
    return method_of(traced, inputs, [f"r{i}" for i in range(results)])


def program(methods: Mapping[str, Method]) -> Program:
    return Program(
        format=FORMAT, group="g", tasks=[], batch_size=1, input_shape=[1], targets={}, layout=Layout([]),
        methods=dict(methods),
    )  # fmt: skip


@pytest.fixture(scope="module")
def layered() -> bytes:
    require_converter()
    return dump(emit(program({name: method(*layer) for name, layer in LAYERS.items()})))


@pytest.fixture(scope="module")
def layers(layered: bytes) -> Runner:
    from device_runtime.engines.litert_engine import LiteRTEngine

    return LiteRTEngine().load(load(layered))


def feeds(name: str) -> Arrays:
    return {f"i{i}": tensor.numpy() for i, tensor in enumerate(LAYERS[name][1])}


def require_eager(name: str, found: Sequence[NDArray[Any]]) -> None:
    function, tensors = LAYERS[name]
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
    for got, expected in zip(found, with_gradients(function)(*exact), strict=True):
        largest = max(float(expected.abs().max()), 1e-3)
        assert np.abs(got - expected.numpy()).max() <= TOLERANCE * largest, name


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_and_its_gradients_are_those_of_eager(layers: Runner, name: str) -> None:
    require_eager(name, list(layers.run(name, feeds(name)).values()))


@needs_old_runtime
def test_tflite_runtime_gives_the_same_gradients(layered: bytes, tmp_path: Path) -> None:
    (tmp_path / "layers.program").write_bytes(layered)
    (tmp_path / "feeds.pickle").write_bytes(pickle.dumps({name: feeds(name) for name in LAYERS}))
    code = """
import pathlib, pickle, sys
from device_runtime.engines import open_engine
from mas_edge.protocol.program import load
room = pathlib.Path(sys.argv[1])
runner = open_engine("litert").load(load((room / "layers.program").read_bytes()))
feeds = pickle.loads((room / "feeds.pickle").read_bytes())
found = {name: list(runner.run(name, each).values()) for name, each in feeds.items()}
(room / "found.pickle").write_bytes(pickle.dumps(found))
"""
    run_in_old_runtime(code, str(tmp_path))
    found = pickle.loads((tmp_path / "found.pickle").read_bytes())
    for name in LAYERS:
        require_eager(name, found[name])


def small_job(encoder: str = "depthwise") -> Job:
    """A depthwise convolution, a batch norm with statistics of its own, and a head."""
    return own_job(encoder, [Task(name="label", kind="class", classes=3, head=f"{OWN}:flat_head")], [3, 4, 4])


@pytest.fixture(scope="module")
def emitted() -> Program:
    require_converter()
    return emit(trace_program(small_job(), "g", ["label"], METHODS))


def test_a_program_trains_to_parity_and_does_all_else_as_its_network_does(emitted: Program) -> None:
    found = verify(emitted, build(small_job(), ["label"]), small_job())
    assert {comparison.method for comparison in found} == set(METHODS)


def test_a_program_of_another_network_is_not_released(emitted: Program) -> None:
    other = build(small_job(), ["label"])
    other.encoder.norm.eps = 0.5  # type: ignore[union-attr]
    with pytest.raises(ServerError, match="program 'g' does not do what its network does"):
        verify(emitted, other, small_job())


def test_only_the_file_and_the_engine_change(emitted: Program) -> None:
    traced = trace_program(small_job(), "g", ["label"], METHODS)
    assert (emitted.engine, emitted.layout, emitted.targets) == ("litert", traced.layout, traced.targets)
    for name, bare in emitted.methods.items():
        assert (bare.inputs, bare.outputs) == (traced.methods[name].inputs, traced.methods[name].outputs)
        assert not (bare.nodes or bare.constants or bare.results or bare.graph)


@needs_converter
def test_dropout_is_refused_with_its_module_and_a_way_out() -> None:
    with pytest.raises(JobError, match=r"uses aten\.\w+\.\w+, which cannot train on LiteRT: dropout .* the rate to 0"):
        emit(trace_program(small_job("dropping"), "g", ["label"], METHODS[:1]))
