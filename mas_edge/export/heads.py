"""The program of a board: a network as a short list of layers, of which it trains the last linear one of each head.

A board has neither the memory for a gradient of the encoder nor an engine for ATen. Its program says forward layers by
name (docs/protocol, Programs for boards), read off the traced inference; its agent computes them as they are, and the
gradient of a last layer is known from the loss. What is no such layer is refused by name.
"""

from __future__ import annotations

import copy
import math
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from device_runtime.micro import head, network
from mas_edge.export.trace import trace_program
from mas_edge.job import Job
from mas_edge.learning.losses import loss_of
from mas_edge.learning.network import Network, vector_of
from mas_edge.learning.objective import usable
from mas_edge.protocol.errors import JobError, ServerError
from mas_edge.protocol.program import Method, Node, Program
from mas_edge.protocol.weights import Layout, Vector

MICRO = "micro"
_TRAINER: Any = head  # written for MicroPython, which has no types
_NETWORK: Any = network
TOLERANCE = 1e-5  # of a trained layer, relative to its largest number: float32 sums in another order
STEP = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 1e-2, "proximal_mu": 0.0}  # each shows in the result


@dataclass(frozen=True)
class _Piece:
    """A part of the flat vector: a tensor of the layout, or still several of them."""

    start: int
    stop: int
    transposed: bool = False


@dataclass(frozen=True)
class _Place:
    """What a layer gives for one sample: its node, and its sizes."""

    name: str
    shape: tuple[int, ...]


def emit(traced: Program, job: Job) -> Program:
    """``traced`` for boards.

    Raises:
        JobError: an operator, a loss, a metric or a target is none that a board computes; the message names it.
    """
    infer = trace_program(job, traced.group, traced.tasks, ["infer"]).methods["infer"]
    reader = _Reader(traced.layout, tuple(traced.input_shape))
    for node in infer.nodes:
        reader.take(node)
    outputs = {task: reader.value(result) for task, result in zip(traced.tasks, infer.results, strict=True)}
    nodes = [*reader.layers, *_measures(job, traced.tasks, outputs, reader.layers)]
    # Inputs and outputs are those of every program, and would take a tenth of a board's memory to be said again
    method = Method([], [], ["losses", "metrics"], nodes)
    return Program(
        format=traced.format, group=traced.group, tasks=traced.tasks, batch_size=traced.batch_size,
        input_shape=traced.input_shape, targets=traced.targets, layout=traced.layout,
        methods={"evaluate": method}, engine=MICRO,
    )  # fmt: skip


def _measures(job: Job, tasks: list[str], outputs: Mapping[str, _Place], layers: list[Node]) -> list[Node]:
    linear = {node.name for node in layers if node.op == "linear"}
    losses, metrics = [], []
    for task in map(job.task, tasks):
        place = outputs[task.name]
        for what, name, known in (
            ("loss", task.loss_name, _NETWORK.LOSSES),
            ("metric", task.metric_name, _NETWORK.METRICS),
        ):
            if name not in known:
                _refuse(f"the {what} {name!r} of task {task.name!r}", f"it has {', '.join(sorted(known))}")
        if place.name not in linear or task.kind == "dense_class" or task.element_mask:
            _refuse(f"the head of task {task.name!r}", "it trains heads that end in a linear layer, whole targets only")
        reference = {"ref": place.name}
        scale = 1 / task.unit if task.target_dtype == "int64" else 1.0
        told = {"task": task.name, "scale": scale}
        losses.append(Node(f"loss.{task.name}", task.loss_name, [reference], told))
        metrics.append(Node(f"metric.{task.name}", task.metric_name, [reference], {"task": task.name}))
    clip = {"clip_norm": job.optimizer.clip_norm}
    stacks = [
        Node("losses", "stack", [[{"ref": node.name} for node in losses]], clip),
        Node("metrics", "stack", [[{"ref": node.name} for node in metrics]]),
    ]
    return [*losses, *metrics, *stacks]


def _refuse(what: str, instead: str) -> None:
    message = f"a microboard cannot train {what}: {instead}"
    raise JobError(message)


class _Reader:
    """Reads the layers off a traced inference, node by node."""

    def __init__(self, layout: Layout, input_shape: tuple[int, ...]) -> None:
        self.layers: list[Node] = []
        self._names = {(place.start, place.stop): name for name, place in layout.slices().items()}
        self._shapes = {entry.name: entry.shape for entry in layout.entries}
        self._values: dict[str, Any] = {"weights": _Piece(0, layout.size), "x": _Place("x", input_shape)}

    def value(self, name: str) -> _Place:
        """The activation called ``name`` in the traced program."""
        found = self._values[name]
        return found if isinstance(found, _Place) else _Place("", ())

    def take(self, node: Node) -> None:
        """Understand one operator call."""
        name = node.op.removeprefix("aten.").partition(".")[0]
        step = getattr(self, f"_{name}", None)
        made = step(node, *(self._of(arg) for arg in node.args)) if step else None
        if made is None:
            where = f" of {node.module}" if node.module else ""
            _refuse(f"the operator {node.op}{where}", "leave 'micro' out of `engines`, or build it of other layers")
        self._values[node.name] = made

    def _of(self, arg: Any) -> Any:
        return self._values[arg["ref"]] if isinstance(arg, dict) and "ref" in arg else arg

    def _named(self, piece: Any) -> str:
        """The tensor of the layout that a piece of the vector is; empty if it is none."""
        return self._names.get((piece.start, piece.stop), "") if isinstance(piece, _Piece) else ""

    def _layer(self, node: Node, op: str, source: _Place, shape: tuple[int, ...], **told: Any) -> _Place:
        self.layers.append(Node(node.name, op, [{"ref": source.name}], told))
        return _Place(node.name, shape)

    # ------------------------------------------------------------------ the vector and its tensors

    def _slice(self, _node: Node, source: Any, _axis: int, start: int, stop: int) -> Any:
        return _Piece(source.start + start, source.start + stop) if isinstance(source, _Piece) else None

    def _split_with_sizes(self, _node: Node, source: Any, sizes: list[int], *_: Any) -> Any:
        if not isinstance(source, _Piece):
            return None
        ends = np.cumsum([source.start, *sizes]).tolist()
        return [_Piece(start, stop) for start, stop in pairwise(ends)]

    def _getitem(self, _node: Node, source: Any, index: int) -> Any:
        return source[index] if isinstance(source, list) else None

    def _clone(self, _node: Node, source: Any, *_: Any) -> Any:
        return source

    def _t(self, _node: Node, source: Any) -> Any:
        return _Piece(source.start, source.stop, True) if isinstance(source, _Piece) else None

    def _view(self, _node: Node, source: Any, shape: list[int]) -> Any:
        if isinstance(source, _Place):  # a sample's numbers stay in their order
            sizes = list(shape[1:])
            if -1 in sizes:
                sizes[sizes.index(-1)] = math.prod(source.shape) // -math.prod(sizes)
            return _Place(source.name, tuple(sizes)) if math.prod(sizes) == math.prod(source.shape) else None
        return source if isinstance(source, _Piece) else None

    _reshape = __unsafe_view = _view

    # ------------------------------------------------------------------ layers

    def _relu(self, node: Node, source: Any) -> Any:
        return self._layer(node, "relu", source, source.shape) if isinstance(source, _Place) else None

    def _addmm(self, node: Node, bias: Any, source: Any, weight: Any, **_: Any) -> Any:
        return self._linear_layer(node, source, weight, self._named(bias))

    def _mm(self, node: Node, source: Any, weight: Any) -> Any:
        return self._linear_layer(node, source, weight, "")

    def _linear_layer(self, node: Node, source: Any, weight: Any, bias: str) -> Any:
        name = self._named(weight)
        if not isinstance(source, _Place) or len(source.shape) != 1 or not name or not weight.transposed:
            return None
        told = {"weight": name} | ({"bias": bias} if bias else {})
        return self._layer(node, "linear", source, (self._shapes[name][0],), **told)

    def _convolution(
        self, node: Node, source: Any, weight: Any, bias: Any, stride: list[int], padding: list[int],
        dilation: list[int], transposed: bool, _padding: list[int], groups: int,
    ) -> Any:  # fmt: skip
        name = self._named(weight)
        if not name or len(stride) != 1 or dilation != [1] or transposed or groups != 1:
            return None
        kernels, _, width = self._shapes[name]
        length = source.shape[1]
        told = {"weight": name} | ({"bias": self._named(bias)} if bias is not None else {})
        places = (length + 2 * padding[0] - width) // stride[0] + 1
        return self._layer(
            node, "conv1d", source, (kernels, places), **told,
            width=width, stride=stride[0], padding=padding[0], length=length,
        )  # fmt: skip

    def _native_group_norm(
        self, node: Node, source: Any, weight: Any, bias: Any, _n: int, _c: int, _size: int, groups: int, epsilon: float
    ) -> Any:
        names = {"weight": self._named(weight), "bias": self._named(bias)}
        if not all(names.values()):
            return None
        made = self._layer(node, "group_norm", source, source.shape, **names, groups=groups, epsilon=epsilon)
        return [made]

    def _mean(self, node: Node, source: Any, axes: list[int], keep: bool = False) -> Any:
        if not isinstance(source, _Place) or len(source.shape) != 2 or axes not in ([-1], [2]) or keep:
            return None
        return self._layer(node, "mean", source, (source.shape[0],), length=source.shape[1])


# ---------------------------------------------------------------------- held against eager


class Board:
    """What a board computes, by the code that runs on it: a runner for ``mas_edge.export.verify``."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def run(self, method: str, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run ``evaluate``, the only ``method``; a task without labels has 0."""
        tasks = self._program.tasks
        report: dict[str, Any] = {}
        network = _layers(self._program, feeds["weights"])
        for _ in _TRAINER.evaluate(network, _Samples(self._program, feeds), {"tasks": tasks}, report):
            pass
        return {
            name: np.array([report[name].get(task, 0.0) for task in tasks], np.float32)
            for name in ("losses", "metrics")
        }


def verify_training(program: Program, network: Network, job: Job, seed: int = 0) -> None:
    """Train the last layers for two steps on a board's code and by autograd, and compare what they are then.

    Raises:
        ServerError: they differ by more than TOLERANCE.
    """
    network = copy.deepcopy(network).eval()
    vector, rng = vector_of(network), np.random.default_rng(seed)
    feeds = _random_feeds(program, rng)
    settings = {
        **STEP, "local_epochs": 2, "seed": 0, "balance": None,
        "task_weights": {task: float(rng.uniform(0.5, 1.5)) for task in program.tasks},
    }  # fmt: skip
    board = _layers(program, vector)
    trained = _done(_TRAINER.train(board, _Samples(program, feeds), {
        "training": settings, "tasks": program.tasks}, {}))  # fmt: skip
    expected = _by_autograd(network, job, board, feeds, settings)
    for layer in trained.values():
        for name, values in zip(layer.names, layer.values, strict=True):
            error = float(np.abs(np.array(values) - expected[name]).max() / np.abs(expected[name]).max())
            if not error <= TOLERANCE:
                message = (
                    f"program {program.group!r} for boards does not train {name} as its network does: it differs by "
                    f"{error:.3g} (allowed: {TOLERANCE:g}); it was not released"
                )
                raise ServerError(message)


def _done(steps: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def _by_autograd(
    network: Network, job: Job, board: Any, feeds: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    state = dict(network.named_parameters())
    names = [name for head in board.heads.values() for name in (head.weight, head.bias) if name]
    leaves = [state[name] for name in names]
    optimizer = torch.optim.SGD(
        leaves, settings["learning_rate"], settings["momentum"], weight_decay=settings["weight_decay"]
    )
    tensors = {name: torch.tensor(array) for name, array in feeds.items()}
    for _ in range(settings["local_epochs"]):
        optimizer.zero_grad()
        outputs = network(tensors["x"])
        total = torch.zeros(())
        for task in map(job.task, network.heads):
            target, mask = usable(task, tensors[f"y.{task.name}"], tensors[f"mask.{task.name}"])
            total = total + settings["task_weights"][task.name] * loss_of(task)(outputs[task.name], target, mask)
        total.backward()
        if board.clip_norm > 0:
            torch.nn.utils.clip_grad_norm_(leaves, board.clip_norm)
        optimizer.step()
    return {name: leaf.detach().numpy().reshape(-1) for name, leaf in zip(names, leaves, strict=True)}


def _random_feeds(program: Program, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """One batch; every sample but the first may lack a label."""
    batch = program.batch_size
    feeds: dict[str, NDArray[Any]] = {"x": rng.normal(size=(batch, *program.input_shape)).astype(np.float32)}
    for task, spec in program.targets.items():
        shape = (batch, *spec.shape)
        classes = rng.integers(0, max(spec.classes, 1), shape)
        feeds[f"y.{task}"] = classes if spec.dtype == "int64" else rng.normal(size=shape).astype(np.float32)
        mask = (rng.random(batch) > 0.25).astype(np.float32)
        mask[0] = 1
        feeds[f"mask.{task}"] = mask
    return feeds


def _layers(program: Program, vector: Vector) -> Any:
    """The network of a board with these weights, by the code that runs on it."""
    return _NETWORK.Network(msgspec.to_builtins(program), _Weights(program, vector))


class _Weights:
    """A flat vector as a board's weights, on a board whose memory has no end."""

    def __init__(self, program: Program, vector: Vector) -> None:
        self._places, self._vector = program.layout.slices(), vector

    def tensor(self, name: str) -> array[float]:
        return array("f", self._vector[self._places[name]].tobytes())

    def size(self, name: str) -> int:
        return len(self.tensor(name))

    def fill(self, name: str, buffer: array[float]) -> None:
        buffer[:] = self.tensor(name)

    def reserve(self, width: int) -> None:
        pass

    def take(self, count: int) -> array[float]:
        return array("f", bytes(4 * count))

    def rest(self) -> list[float]:
        return []

    def rows(self, name: str, width: int) -> Iterator[array[float]]:
        tensor = self.tensor(name)
        for start in range(0, len(tensor), width):
            yield tensor[start : start + width]


class _Samples:
    """A batch of feeds as a board's samples."""

    def __init__(self, program: Program, feeds: Mapping[str, NDArray[Any]]) -> None:
        self.input_shape = program.input_shape
        self._program, self._feeds = program, feeds

    def indices(self, _split: int) -> list[int]:
        """All of them."""
        return list(range(self._program.batch_size))

    def count(self, task: str, _split: int) -> int:
        """How many are labelled."""
        return sum(self.target(task, index) is not None for index in self.indices(0))

    def x(self, index: int) -> list[float]:
        """The input, flat."""
        return [float(each) for each in self._feeds["x"][index].reshape(-1)]

    def target(self, task: str, index: int) -> Any:
        """The label; None where it does not count."""
        spec = self._program.targets[task]
        target = self._feeds[f"y.{task}"][index]
        if not self._feeds[f"mask.{task}"][index] > 0 or (spec.dtype == "int64" and target == spec.ignore_index):
            return None
        return int(target) if spec.dtype == "int64" else [float(each) for each in target.reshape(-1)]
