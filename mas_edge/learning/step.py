"""The methods of a program as pure functions on flat vectors: train step, evaluation, affinity, inference.

Each takes an Objective and named tensors and returns named tensors; nothing is kept and no argument is changed, so that
tracing one of them gives a graph of the whole step (see ``mas_edge.export.trace``, which lists names and shapes).
Letters as in ``objective``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mas_edge.learning.affinities import affinity
from mas_edge.learning.objective import (
    Objective,
    Tensors,
    copies,
    forward,
    forward_by_parts,
    gradient_of,
    halves,
    labels_of,
    leaves_of,
    measured,
    objective_of,
    usable,
    views,
)
from mas_edge.protocol.weights import ENCODER

__all__ = ["METHODS", "Objective", "affinity", "evaluate", "infer", "objective_of", "train_step", "usable"]


def train_step(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """One step of SGD on sum_i task_weights_i * L_i.

    g = gradient, the encoder's part times 1/sqrt(n), clipped as a whole; d = g + wd*w + mu*(w - anchor) (FedProx, Li et
    al. 2020, arXiv 1812.06127); m = momentum*m + d; w = w - lr*m. Buffers come back updated inside ``weights``. For
    GradNorm (Chen et al. 2018, arXiv 1711.02257) there is ``norms`` [n] beside: |dL_i/dz|, unweighted.
    """
    trained, kept = halves(objective, feeds["weights"])
    leaves, buffers = leaves_of(objective, trained), copies(kept, objective.kept)
    objective.network.train()
    differentiate = _through_features if objective.method.balance == "gradnorm" else _directly
    losses, gradient, norms = differentiate(objective, leaves, buffers, feeds)
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
        **norms,
    }


def evaluate(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """Losses and metrics [n] of one batch, the network in evaluation mode."""
    with torch.no_grad():
        objective.network.eval()
        trained, kept = halves(objective, feeds["weights"])
        state = [*views(trained, objective.trained), *copies(kept, objective.kept)]
        outputs, labels = forward(objective, state, feeds["x"]), labels_of(objective, feeds)
        return {
            "losses": torch.stack(measured(objective, objective.losses, outputs, labels)),
            "metrics": torch.stack(measured(objective, objective.metrics, outputs, labels)),
        }


def infer(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """What the network says of one batch in evaluation mode: ``out.<task>`` [B, ...], as its heads give it."""
    with torch.no_grad():
        objective.network.eval()
        trained, kept = halves(objective, feeds["weights"])
        state = [*views(trained, objective.trained), *copies(kept, objective.kept)]
        return {f"out.{task}": output for task, output in forward(objective, state, feeds["x"]).items()}


METHODS: dict[str, Callable[[Objective, Tensors], dict[str, Tensor]]] = {
    "train_step": train_step, "evaluate": evaluate, "affinity": affinity, "infer": infer,
}  # fmt: skip

_Found = tuple[Tensor, Tensor, dict[str, Tensor]]  # losses [n], gradient [T], and the norms if they are wanted


def _directly(objective: Objective, leaves: Sequence[Tensor], buffers: Sequence[Tensor], feeds: Tensors) -> _Found:
    """One pass back from the weighted sum of the losses."""
    outputs = forward(objective, [*leaves, *buffers], feeds["x"])
    losses = torch.stack(measured(objective, objective.losses, outputs, labels_of(objective, feeds)))
    return losses, gradient_of(torch.dot(feeds["task_weights"], losses), leaves), {}


def _through_features(
    objective: Objective, leaves: Sequence[Tensor], buffers: Sequence[Tensor], feeds: Tensors
) -> _Found:
    """The same gradient by parts: f_i = dL_i/dz through each head, then sum_i w_i f_i through the encoder once.

    No dearer than ``_directly``, which passes back through every head and once through the encoder as well.
    """
    z, outputs = forward_by_parts(objective, [*leaves, *buffers], feeds["x"])
    losses = measured(objective, objective.losses, outputs, labels_of(objective, feeds))
    own: dict[str, list[Tensor]] = {}
    for entry, leaf in zip(objective.trained, leaves, strict=True):
        own.setdefault(entry.part, []).append(leaf)
    pull, of_heads, norms = torch.zeros_like(z), [], []
    for task, weight, loss in zip(objective.tasks, feeds["task_weights"].unbind(), losses, strict=True):
        found = gradient_of(loss, [z, *own.get(task.name, [])])
        at_z = found[: z.numel()]
        pull = pull + weight * at_z.view_as(z)
        of_heads.append(weight * found[z.numel() :])
        norms.append(at_z.norm())
    gradient = torch.cat([gradient_of(z, own.get(ENCODER, []), pull), *of_heads])
    return torch.stack(losses), gradient, {"norms": torch.stack(norms)}


def _scaled(objective: Objective, gradient: Tensor) -> Tensor:
    size, scale = objective.encoder_size, objective.encoder_scale
    return gradient if scale == 1 else torch.cat([gradient[:size] * scale, gradient[size:]])


def _clipped(gradient: Tensor, norm: float) -> Tensor:
    """Shrink ``gradient`` to length ``norm`` if it is longer; 0 leaves it. 1e-6 as in torch's clip_grad_norm_."""
    return gradient * (norm / (gradient.norm() + 1e-6)).clamp(max=1) if norm > 0 else gradient
