"""What a group minimises, and the pieces that its steps are made of: state, forward pass, losses, gradient.

Everything is a pure function on flat vectors and named tensors; nothing is kept and no argument is changed.
Letters: B batch, P weights, T of them trained (the first ones), E of the encoder (the first of those), n tasks, z the
encoder's output.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call

from mas_edge.job import Affinity, Job, Method, Optimizer, Task
from mas_edge.learning.losses import Measure, loss_of, spread
from mas_edge.learning.metrics import metric_of
from mas_edge.learning.network import Network, layout_of
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.weights import ENCODER, Entry, Layout

Tensors = Mapping[str, Tensor]
Label = tuple[Tensor, Tensor]  # target, mask


@dataclass(frozen=True)
class Objective:
    """What is minimised: a network, its tasks in order, their losses and metrics, and how it is trained."""

    network: Network
    layout: Layout
    tasks: tuple[Task, ...]
    losses: tuple[Measure, ...]
    metrics: tuple[Measure, ...]
    optimizer: Optimizer
    affinity: Affinity
    method: Method

    @property
    def trained(self) -> list[Entry]:
        """The tensors that are trained: the encoder's, then the heads'."""
        return [entry for entry in self.layout.entries if entry.trainable]

    @property
    def kept(self) -> list[Entry]:
        """The tensors behind them: buffers, and frozen parameters."""
        return [entry for entry in self.layout.entries if not entry.trainable]

    @property
    def encoder_scale(self) -> float:
        """1/sqrt(n), by which the released code multiplies the encoder's gradient; 1 when that is off."""
        return 1 / math.sqrt(len(self.tasks)) if self.optimizer.scale_encoder_gradient else 1.0

    @property
    def encoder_size(self) -> int:
        """E: how many of the trained weights are the encoder's."""
        return sum(entry.size for entry in self.trained if entry.part == ENCODER)


def objective_of(job: Job, network: Network) -> Objective:
    """The objective of ``network``, whose heads name the tasks. Raises JobError if a loss or metric is not found."""
    tasks = tuple(job.task(name) for name in network.heads)
    losses, metrics = tuple(map(loss_of, tasks)), tuple(map(metric_of, tasks))
    return Objective(network, layout_of(network), tasks, losses, metrics, job.optimizer, job.affinity, job.method)


def usable(task: Task, target: Tensor, mask: Tensor) -> Label:
    """Return target and mask with the places that hold ``ignore_index`` turned into class 0 and masked out."""
    if task.target_dtype != "int64":
        return target, mask
    labelled = target != task.ignore_index
    return torch.where(labelled, target, 0), spread(mask, target) * labelled


def labels_of(objective: Objective, feeds: Tensors) -> list[Label]:
    """Target and mask of every task, as losses take them."""
    return [usable(task, feeds[f"y.{task.name}"], feeds[f"mask.{task.name}"]) for task in objective.tasks]


def halves(objective: Objective, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What is trained [T], and the buffers (and frozen parameters) after it."""
    trained = objective.layout.trainable
    return weights[:trained], weights[trained:]


def views(vector: Tensor, entries: Sequence[Entry]) -> list[Tensor]:
    """The tensors of ``entries`` as views into their flat vector."""
    if not entries:
        return []
    pieces = torch.split(vector, [entry.size for entry in entries])
    return [piece.view(entry.shape) for piece, entry in zip(pieces, entries, strict=True)]


def copies(vector: Tensor, entries: Sequence[Entry]) -> list[Tensor]:
    """The tensors of ``entries``, each in memory of its own: buffers are updated in place.

    In one memory every update would be one of all of them to an engine that has no updates in place.
    """
    return [view.clone() for view in views(vector, entries)]


def leaves_of(objective: Objective, trained: Tensor) -> list[Tensor]:
    """One leaf a parameter: differentiating through the slices would build a full vector per parameter."""
    return [view.detach().requires_grad_() for view in views(trained, objective.trained)]


def forward(objective: Objective, state: Sequence[Tensor], x: Tensor) -> dict[str, Tensor]:
    """What every head makes of ``x`` with ``state``, the tensors of the layout in their order."""
    outputs: dict[str, Tensor] = functional_call(objective.network, _named(objective, state), (x,))
    return outputs


def forward_by_parts(objective: Objective, state: Sequence[Tensor], x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The encoder's output z [B, ...], which losses can be differentiated by, and what every head makes of it."""
    network, named = objective.network, _named(objective, state)
    z = _call(network.encoder, named, "encoder.", x)
    if not z.requires_grad:  # an encoder that is frozen as a whole
        z = z.detach().requires_grad_()
    return z, {name: _call(head, named, f"heads.{name}.", z) for name, head in network.heads.items()}


def _call(part: nn.Module, named: Tensors, prefix: str, x: Tensor) -> Tensor:
    own = {name.removeprefix(prefix): tensor for name, tensor in named.items() if name.startswith(prefix)}
    output: Tensor = functional_call(part, own, (x,))
    return output


def _named(objective: Objective, state: Sequence[Tensor]) -> dict[str, Tensor]:
    named = {entry.name: tensor for entry, tensor in zip(objective.layout.entries, state, strict=True)}
    for name, buffer in objective.network.named_buffers():
        if name not in named:
            named[name] = buffer.clone()  # integers such as num_batches_tracked are counted up in place
    return named


def measured(
    objective: Objective, measures: Sequence[Measure], outputs: Tensors, labels: Sequence[Label]
) -> list[Tensor]:
    """The losses or metrics of the tasks, a number each. Raises JobError for one that does not return one number.

    Not stacked: who differentiates one element of a stack passes zeros back through the heads of all others.
    """
    values = []
    for task, measure, label in zip(objective.tasks, measures, labels, strict=True):
        value = measure(outputs[task.name], *label)
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            message = f"tasks[{task.name}]: the loss or metric {measure.__name__!r} returned {got}, expected one number"
            raise JobError(message)
        values.append(value)
    return values


def gradient_of(result: Tensor, leaves: Sequence[Tensor], pull: Tensor | None = None) -> Tensor:
    """The flat gradient of a loss, or of <result, pull>; the graph is kept, as one result is followed by another."""
    if not leaves:  # a part that is frozen as a whole
        return result.new_zeros(0)
    gradients = torch.autograd.grad(
        result, leaves, pull, retain_graph=True, allow_unused=True, materialize_grads=True
    )  # fmt: skip
    return torch.cat([gradient.reshape(-1) for gradient in gradients])
