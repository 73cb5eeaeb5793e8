"""What the programs' methods measure, by ordinary modules and ``autograd``: nothing of the functional step is used."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor

from mas_edge.job import Job
from mas_edge.learning import Network, loss_of, usable


def _passed(network: Network, job: Job, feeds: dict[str, Tensor]) -> tuple[Network, Tensor, list[Tensor]]:
    """A copy of the network in train mode, its encoder's output and the losses of its tasks."""
    network = copy.deepcopy(network).train()
    z = network.encoder(feeds["x"])
    losses = []
    for name, head in network.heads.items():
        target, mask = usable(job.task(name), feeds[f"y.{name}"], feeds[f"mask.{name}"])
        losses.append(loss_of(job.task(name))(head(z), target, mask))
    return network, z, losses


def at_features(network: Network, job: Job, feeds: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """dL_i/dz, shape [n, z's size], and the losses [n]."""
    _, z, losses = _passed(network, job, feeds)
    rows = [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses]
    return torch.stack(rows), torch.stack(losses).detach()


def at_weights(network: Network, job: Job, feeds: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """dL_i/dtheta_s, shape [n, E], theta_s [E] and the losses [n]."""
    network, _, losses = _passed(network, job, feeds)
    encoder = list(network.encoder.parameters())
    rows = [torch.cat([g.flatten() for g in torch.autograd.grad(loss, encoder, retain_graph=True)]) for loss in losses]
    theta = torch.cat([parameter.detach().flatten() for parameter in encoder])
    return torch.stack(rows), theta, torch.stack(losses).detach()


def affinity_by_kind(kind: str, network: Network, job: Job, feeds: dict[str, Tensor]) -> Tensor:
    """The affinity [n, n] of kind ``first_order`` or ``features``, entry by entry."""
    if kind == "features":
        sources, losses = at_features(network, job, feeds)
        moves = sources
    else:
        sources, theta, losses = at_weights(network, job, feeds)
        scale = 1 / math.sqrt(len(losses)) if job.optimizer.scale_encoder_gradient else 1.0
        moves = scale * sources + feeds["hyper"][2] * theta
    rows = [[torch.dot(move, g) / loss for g, loss in zip(sources, losses, strict=True)] for move in moves]
    return torch.stack([torch.stack(row) for row in rows])


def norms_by_task(network: Network, job: Job, feeds: dict[str, Tensor]) -> Tensor:
    """|dL_i/dz| [n]."""
    rows, _ = at_features(network, job, feeds)
    return torch.stack([row.norm() for row in rows])
