"""The affinity of tasks on one batch, [n, n] with row = source i and column = recipient j, measured in three ways.

* ``lookahead``: the relative loss drop after an encoder step on one task alone (MAS, arXiv 2307.11285), divided by the
  step size. n encoder gradients and n further forward passes.
* ``first_order``: its limit for a small step, from one Gram matrix of the n encoder gradients.
* ``features``: the same Gram matrix of the gradients at the encoder's output; no pass back through the encoder.

The batch and the train mode are those of the step; no buffer update is kept. A task without a loss here (no labels) has
0 in its row and in its column. Letters as in ``objective``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

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
    views,
)
from mas_edge.protocol.weights import ENCODER, Entry


def affinity(objective: Objective, feeds: Tensors) -> dict[str, Tensor]:
    """Losses [n] and affinity [n, n] of one batch, measured as ``objective.affinity.kind`` says."""
    objective.network.train()
    before, matrix = KINDS[objective.affinity.kind](objective, feeds)
    lossy = before != 0
    known = torch.where(lossy.unsqueeze(0), torch.where(lossy.unsqueeze(1), matrix, 0.0), 0.0)
    return {"losses": before, "affinity": known}


def lookahead(objective: Objective, feeds: Tensors) -> tuple[Tensor, Tensor]:
    """S_ij = (1 - L_j(after) / L_j(before)) / lr, theta_s|i = theta_s - lr*((1/sqrt n) g_i + wd*theta_s).

    Only the encoder moves, on plain SGD.
    """
    trained, kept = halves(objective, feeds["weights"])
    leaves, labels, parts = leaves_of(objective, trained), labels_of(objective, feeds), _encoder(objective)
    rate, _, decay, _ = feeds["hyper"].unbind()
    encoder, heads = leaves[: len(parts)], leaves[len(parts) :]

    def losses(moving: Sequence[Tensor]) -> list[Tensor]:
        state = [*moving, *heads, *copies(kept, objective.kept)]
        return measured(objective, objective.losses, forward(objective, state, feeds["x"]), labels)

    found = losses(encoder)
    gradients = [gradient_of(loss, encoder) for loss in found]
    before, start = torch.stack(found).detach(), trained[: objective.encoder_size]
    rows = []
    with torch.no_grad():
        for gradient in gradients:
            moved = start - rate * (objective.encoder_scale * gradient + decay * start)
            rows.append((1 - torch.stack(losses(views(moved, parts))) / _divisor(before)) / rate)
    return before, torch.stack(rows)


def first_order(objective: Objective, feeds: Tensors) -> tuple[Tensor, Tensor]:
    """A_ij = <(1/sqrt n) g_i + wd*theta_s, g_j> / L_j: the first term of the lookahead's Taylor series in lr.

    It lacks -(lr/2) d_i^T H_j d_i / L_j, d_i the step's direction and H_j the curvature of L_j.
    """
    trained, kept = halves(objective, feeds["weights"])
    leaves, parts = leaves_of(objective, trained), _encoder(objective)
    outputs = forward(objective, [*leaves, *copies(kept, objective.kept)], feeds["x"])
    losses = measured(objective, objective.losses, outputs, labels_of(objective, feeds))
    gradients = torch.stack([gradient_of(loss, leaves[: len(parts)]) for loss in losses])
    theta, decay, before = trained[: objective.encoder_size], feeds["hyper"][2], torch.stack(losses).detach()
    pulled = torch.mm(theta.unsqueeze(0), gradients.t())  # [1, n]: what weight decay does to each recipient
    return before, (objective.encoder_scale * _gram(gradients) + decay * pulled) / _divisor(before)


def features(objective: Objective, feeds: Tensors) -> tuple[Tensor, Tensor]:
    """A_ij = <f_i, f_j> / L_j with f_i = dL_i/dz, flat over the batch."""
    trained, kept = halves(objective, feeds["weights"])
    state = [*leaves_of(objective, trained), *copies(kept, objective.kept)]
    z, outputs = forward_by_parts(objective, state, feeds["x"])
    losses = measured(objective, objective.losses, outputs, labels_of(objective, feeds))
    gradients = torch.stack([gradient_of(loss, [z]) for loss in losses])
    before = torch.stack(losses).detach()
    return before, _gram(gradients) / _divisor(before)


GRAM_BLOCKS = 32

KINDS: dict[str, Callable[[Objective, Tensors], tuple[Tensor, Tensor]]] = {
    "lookahead": lookahead, "first_order": first_order, "features": features,
}  # fmt: skip


def _encoder(objective: Objective) -> list[Entry]:
    return [entry for entry in objective.trained if entry.part == ENCODER]


def _gram(gradients: Tensor) -> Tensor:
    """<g_i, g_j> of n gradients, [n, P] to [n, n], summed block by block.

    A product of matrices adds up its P terms one after the other: with the squares of the diagonal, all above 0, its
    rounding error grows with P (1.1e-5 of the result for 88,000 parameters; a 32nd of that in blocks).
    """
    blocks = torch.split(gradients, -(-gradients.shape[1] // GRAM_BLOCKS), dim=1)
    return torch.stack([torch.mm(block, block.t()) for block in blocks]).sum(0)


def _divisor(before: Tensor) -> Tensor:
    """The losses, or 1 where there is none: what is divided by it is set to 0 in the end."""
    return torch.where(before != 0, before, 1.0)
