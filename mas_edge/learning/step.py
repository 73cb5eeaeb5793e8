"""The train step, the evaluation and the lookahead affinity as pure functions on flat vectors.

Each takes an Objective and named tensors and returns named tensors; nothing is kept and no argument is changed, so that
tracing one of them gives a graph of the whole step (see ``mas_edge.export.trace``, which lists names and shapes).
Letters: B batch, P weights, T of them trained (the first ones), E of the encoder (the first of those), n tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from mas_edge.job import Job, Optimizer, Task
from mas_edge.learning.losses import Measure, loss_of, spread
from mas_edge.learning.metrics import metric_of
from mas_edge.learning.network import Network, layout_of
from mas_edge.protocol.errors import JobError
from mas_edge.protocol.weights import ENCODER, Entry, Layout

Tensors = Mapping[str, Tensor]
Label = tuple[Tensor, Tensor]  # target, mask


@dataclass(frozen=True)
class Objective:
    """What is minimised: a network, its tasks in order, their losses and metrics, the optimiser's options."""

    network: Network
    layout: Layout
    tasks: tuple[Task, ...]
    losses: tuple[Measure, ...]
    metrics: tuple[Measure, ...]
    optimizer: Optimizer

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
    return Objective(network, layout_of(network), tasks, losses, metrics, job.optimizer)


def train_step(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """One step of SGD on sum_i task_weights_i * L_i.

    g = gradient, the encoder's part times 1/sqrt(n), clipped as a whole; d = g + wd*w + mu*(w - anchor) (FedProx, Li et
    al. 2020, arXiv 1812.06127); m = momentum*m + d; w = w - lr*m. Buffers come back updated inside ``weights``.
    """
    trained, kept = _halves(objective, feeds["weights"])
    leaves, buffers = _leaves(objective, trained), _copies(kept, objective.kept)
    objective.network.train()
    outputs = _forward(objective, [*leaves, *buffers], feeds["x"])
    losses = _apply(objective, objective.losses, outputs, _labels(objective, feeds))
    gradient = _gradient(torch.dot(feeds["task_weights"], losses), leaves)
    gradient = _clipped(_scaled(objective, gradient), objective.optimizer.clip_norm)
    rate, momentum, decay, mu = feeds["hyper"].unbind()
    change = gradient + decay * trained
    if objective.optimizer.proximal_mu > 0:
        change = change + mu * (trained - feeds["anchor"])
    velocity = momentum * feeds["momentum"] + change
    weights = trained - rate * velocity
    return {
        "weights": torch.cat([weights, *(buffer.reshape(-1) for buffer in buffers)]) if buffers else weights,
        "momentum": velocity,
        "losses": losses.detach(),
    }


def evaluate(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """Losses and metrics [n] of one batch, the network in evaluation mode."""
    with torch.no_grad():
        objective.network.eval()
        trained, kept = _halves(objective, feeds["weights"])
        state = [*_views(trained, objective.trained), *_copies(kept, objective.kept)]
        outputs, labels = _forward(objective, state, feeds["x"]), _labels(objective, feeds)
        return {
            "losses": _apply(objective, objective.losses, outputs, labels),
            "metrics": _apply(objective, objective.metrics, outputs, labels),
        }


def affinity(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """The lookahead affinity S [n, n] of one batch, row = source i, column = recipient j (MAS, arXiv 2307.11285).

    S_ij = (1 - L_j(after) / L_j(before)) / lr, theta_s|i = theta_s - lr*((1/sqrt n) g_i + wd*theta_s).
    Only the encoder moves, on plain SGD; the batch and the train mode are those of the step; no buffer update is kept.
    A task without a loss here (no labels) has S_ij = 0.
    """
    trained, kept = _halves(objective, feeds["weights"])
    leaves, labels = _leaves(objective, trained), _labels(objective, feeds)
    rate, _, decay, _ = feeds["hyper"].unbind()
    parts = [entry for entry in objective.trained if entry.part == ENCODER]
    encoder, heads = leaves[: len(parts)], leaves[len(parts) :]

    def losses(moving: Sequence[Tensor]) -> Tensor:
        state = [*moving, *heads, *_copies(kept, objective.kept)]
        return _apply(objective, objective.losses, _forward(objective, state, feeds["x"]), labels)

    objective.network.train()
    found = losses(encoder)
    gradients = [_gradient(loss, encoder) for loss in found.unbind()]
    before, start = found.detach(), trained[: objective.encoder_size]
    divisor = torch.where(before != 0, before, 1.0)
    rows = []
    with torch.no_grad():
        for gradient in gradients:
            moved = start - rate * (objective.encoder_scale * gradient + decay * start)
            change = 1 - losses(_views(moved, parts)) / divisor
            rows.append(torch.where(before != 0, change, 0.0) / rate)
    return {"losses": before, "affinity": torch.stack(rows)}


def infer(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """What the network says of one batch in evaluation mode: ``out.<task>`` [B, ...], as its heads give it."""
    with torch.no_grad():
        objective.network.eval()
        trained, kept = _halves(objective, feeds["weights"])
        state = [*_views(trained, objective.trained), *_copies(kept, objective.kept)]
        return {f"out.{task}": output for task, output in _forward(objective, state, feeds["x"]).items()}


METHODS: dict[str, Callable[[Objective, Tensors], dict[str, Tensor]]] = {
    "train_step": train_step, "evaluate": evaluate, "affinity": affinity, "infer": infer,
}  # fmt: skip


def usable(task: Task, target: Tensor, mask: Tensor) -> Label:
    """Return target and mask with the places that hold ``ignore_index`` turned into class 0 and masked out."""
    if task.target_dtype != "int64":
        return target, mask
    labelled = target != task.ignore_index
    return torch.where(labelled, target, 0), spread(mask, target) * labelled


def _labels(objective: Objective, feeds: Tensors) -> list[Label]:
    return [usable(task, feeds[f"y.{task.name}"], feeds[f"mask.{task.name}"]) for task in objective.tasks]


def _halves(objective: Objective, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What is trained, and the buffers (and frozen parameters) after it."""
    trained = objective.layout.trainable
    return weights[:trained], weights[trained:]


def _views(vector: Tensor, entries: Sequence[Entry]) -> list[Tensor]:
    """The tensors of ``entries`` as views into their flat vector."""
    if not entries:
        return []
    pieces = torch.split(vector, [entry.size for entry in entries])
    return [piece.view(entry.shape) for piece, entry in zip(pieces, entries, strict=True)]


def _copies(vector: Tensor, entries: Sequence[Entry]) -> list[Tensor]:
    """The tensors of ``entries``, each in memory of its own: buffers are updated in place.

    In one memory every update would be one of all of them to an engine that has no updates in place.
    """
    return [view.clone() for view in _views(vector, entries)]


def _leaves(objective: Objective, trained: Tensor) -> list[Tensor]:
    """One leaf a parameter: differentiating through the slices would build a full vector per parameter."""
    return [view.detach().requires_grad_() for view in _views(trained, objective.trained)]


def _forward(objective: Objective, state: Sequence[Tensor], x: Tensor) -> dict[str, Tensor]:
    named = {entry.name: tensor for entry, tensor in zip(objective.layout.entries, state, strict=True)}
    for name, buffer in objective.network.named_buffers():
        if name not in named:
            named[name] = buffer.clone()  # integers such as num_batches_tracked are counted up in place
    outputs: dict[str, Tensor] = functional_call(objective.network, named, (x,))
    return outputs


def _apply(objective: Objective, measures: Sequence[Measure], outputs: Tensors, labels: Sequence[Label]) -> Tensor:
    values = []
    for task, measure, label in zip(objective.tasks, measures, labels, strict=True):
        value = measure(outputs[task.name], *label)
        if not isinstance(value, Tensor) or value.dim() != 0:
            got = f"shape {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
            message = f"tasks[{task.name}]: the loss or metric {measure.__name__!r} returned {got}, expected one number"
            raise JobError(message)
        values.append(value)
    return torch.stack(values)


def _gradient(loss: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The flat gradient of ``loss``; the graph is kept, as every task's loss is differentiated in turn."""
    if not leaves:  # an encoder that is frozen as a whole
        return loss.new_zeros(0)
    gradients = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True, materialize_grads=True)
    return torch.cat([gradient.reshape(-1) for gradient in gradients])


def _scaled(objective: Objective, gradient: Tensor) -> Tensor:
    size, scale = objective.encoder_size, objective.encoder_scale
    return gradient if scale == 1 else torch.cat([gradient[:size] * scale, gradient[size:]])


def _clipped(gradient: Tensor, norm: float) -> Tensor:
    """Shrink ``gradient`` to length ``norm`` if it is longer; 0 leaves it. 1e-6 as in torch's clip_grad_norm_."""
    return gradient * (norm / (gradient.norm() + 1e-6)).clamp(max=1) if norm > 0 else gradient
