"""One network of a group of tasks: a shared encoder and a head per task, built from a job.

An encoder of one's own is a function ``encoder(input_shape, **encoder_args) -> nn.Module``; a head is
``head(feature_shape, task, **head_args) -> nn.Module``. Shapes are of one sample, without the batch. Every part is
initialised from the seed and its own name alone, so that a task begins with the same head in any group.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mas_edge.job import Job, Task
from mas_edge.learning.lookup import find_function
from mas_edge.protocol.errors import JobError, WeightsError
from mas_edge.protocol.weights import ENCODER, Entry, Layout, Vector
from mas_edge.zoo import family


class Network(nn.Module):
    """``encoder`` feeds every module of ``heads``; task names are the keys."""

    def __init__(self, encoder: nn.Module, heads: dict[str, nn.Module]) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = nn.ModuleDict(heads)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Map ``x`` [B, *input_shape] to one output [B, ...] per task."""
        features = self.encoder(x)
        return {name: head(features) for name, head in self.heads.items()}


def build(job: Job, tasks: Sequence[str], seed: int | None = None) -> Network:
    """Return the network of the group ``tasks``, initialised from ``seed`` (None = the job's).

    Raises:
        JobError: a function cannot be found or fails, or a part takes or returns the wrong shapes.
    """
    seed = job.seed if seed is None else seed
    sample = torch.zeros(2, *job.data.input_shape)  # two samples: a part that loses the batch is seen
    default = family(job.network.family)
    own = job.network.encoder
    make = find_function(own, "network.encoder") if own else default.encoder
    encoder = _part(make, (tuple(job.data.input_shape),), job.network.encoder_args, "network.encoder", seed, ENCODER)
    features = _output(encoder, sample, "network.encoder")
    heads = {}
    for task in map(job.task, tasks):
        key = f"tasks[{task.name}].head"
        _require_free_name(task.name)
        make = find_function(task.head, key) if task.head else default.head
        heads[task.name] = _part(make, (tuple(features.shape[1:]), task), task.head_args, key, seed, task.name)
        _require_shape(task, _output(heads[task.name], features, key))
    network = Network(encoder, heads)
    _require_float32(network)
    return network


def _part(
    make: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], key: str, seed: int, part: str
) -> nn.Module:
    digest = hashlib.sha256(f"{seed}/{part}".encode()).digest()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int.from_bytes(digest[:7], "little"))
        try:
            module = make(*args, **kwargs)
        except JobError:
            raise
        except Exception as error:
            message = f"{key}: {make.__module__}:{make.__name__} with {kwargs} failed: {type(error).__name__}: {error}"
            raise JobError(message) from error
    if not isinstance(module, nn.Module):
        got = type(module).__name__
        message = f"{key}: {make.__module__}:{make.__name__} returned {got}, expected a torch.nn.Module"
        raise JobError(message)
    return module


def _output(module: nn.Module, x: Tensor, key: str) -> Tensor:
    module.eval()  # so that this look at the shapes leaves statistics alone
    try:
        with torch.no_grad():
            output = module(x)
    except Exception as error:
        message = f"{key}: does not take an input of shape {list(x.shape)}: {type(error).__name__}: {error}"
        raise JobError(message) from error
    finally:
        module.train()
    if not isinstance(output, Tensor) or output.dim() < 1 or output.shape[0] != x.shape[0]:
        got = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        message = f"{key}: expected a tensor of {x.shape[0]} samples for a batch of {x.shape[0]}, got {got}"
        raise JobError(message)
    return output


def _require_shape(task: Task, output: Tensor) -> None:
    classes = [task.classes] if task.target_dtype == "int64" else []
    expected = [output.shape[0], *classes, *task.shape]
    if ":" not in task.loss_name and list(output.shape) != expected:
        message = (
            f"tasks[{task.name}].head gives shape {list(output.shape)} for a batch of {output.shape[0]}; "
            f"the loss {task.loss_name!r} of kind {task.kind!r} needs {expected}"
        )
        raise JobError(message)


def _require_free_name(task: str) -> None:
    if hasattr(nn.ModuleDict(), task):
        message = f"task name {task!r} is an attribute of every torch module and cannot name a head: choose another"
        raise JobError(message)


def _require_float32(network: Network) -> None:
    for name, tensor in _state(network):
        if tensor.dtype != torch.float32:
            message = f"{name} of the network is {tensor.dtype}, expected torch.float32"
            raise JobError(message)


def _state(network: Network) -> Iterator[tuple[str, Tensor]]:
    """Parameters that are trained, then frozen ones, then floating buffers. Integer buffers are constants."""
    parameters = list(network.named_parameters())
    yield from ((name, p) for name, p in parameters if p.requires_grad)
    yield from ((name, p) for name, p in parameters if not p.requires_grad)
    yield from ((name, b) for name, b in network.named_buffers() if b.is_floating_point() or b.is_complex())


def layout_of(network: Network) -> Layout:
    """The layout of the flat vector: encoder, heads in task order, then what is not trained, in the same order."""
    entries = []
    for name, tensor in _state(network):
        part = name.split(".")[1] if name.startswith("heads.") else ENCODER
        trainable = isinstance(tensor, nn.Parameter) and tensor.requires_grad
        entries.append(Entry(name, list(tensor.shape), part, trainable))
    return Layout(entries)


def vector_of(network: Network) -> Vector:
    """The network's weights as one flat float32 vector in the order of ``layout_of``."""
    pieces = [tensor.detach().reshape(-1) for _, tensor in _state(network)]
    vector: Vector = torch.cat(pieces).numpy() if pieces else np.empty(0, np.float32)
    return vector


def load_vector(network: Network, vector: Vector) -> None:
    """Copy ``vector``, in the order of ``layout_of``, into the network.

    Raises:
        WeightsError: its length is not that of the network.
    """
    state = dict(_state(network))
    sizes = [tensor.numel() for tensor in state.values()]
    if vector.shape != (sum(sizes),):
        message = f"the network has {sum(sizes)} weights, the vector has shape {vector.shape}"
        raise WeightsError(message)
    with torch.no_grad():
        for tensor, piece in zip(state.values(), torch.split(torch.tensor(vector), sizes), strict=True):
            tensor.copy_(piece.view(tensor.shape))
