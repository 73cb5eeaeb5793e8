"""What an inference model is made from and held to: the trained network in evaluation mode, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mas_edge.job import Job
from mas_edge.learning.network import Network, build, load_vector
from mas_edge.protocol.errors import ServerError
from mas_edge.protocol.weights import Vector

# Relative to max(1, |eager|). A float32 sum of n products is off by about sqrt(n) * 6e-8; two runtimes that add in
# another order and fold BatchNorm into the convolution before it differ by a few 1e-6 in deep networks. A wrong
# operator, axis or weight is off by far more than 1e-4.
TOLERANCE = 1e-4

Answers = dict[str, NDArray[np.float32]]


def trained_network(job: Job, tasks: Sequence[str], vector: Vector) -> Network:
    """The network of ``tasks`` with the weights ``vector``, shape (P,).

    Raises:
        JobError: the network cannot be built.
        WeightsError: ``vector`` is that of another network.
    """
    network = build(job, tasks)
    load_vector(network, vector)
    return network.eval()


class InOrder(nn.Module):
    """The network with its outputs as a tuple in the order of ``tasks``: files have an order, dicts leave it open."""

    def __init__(self, network: Network, tasks: Sequence[str]) -> None:
        super().__init__()
        self.network, self.tasks = network, tuple(tasks)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """``x`` [B, *input_shape] to each task's output."""
        outputs = self.network(x)
        return tuple(outputs[task] for task in self.tasks)


def random_samples(job: Job, seed: int, batch: int) -> NDArray[np.float32]:
    """Inputs from N(0, 1), float32 [batch, *input_shape]."""
    return np.random.default_rng(seed).standard_normal((batch, *job.data.input_shape), np.float32)


def eager_answers(network: Network, x: NDArray[np.float32]) -> Answers:
    """What PyTorch says to ``x`` [n, *input_shape], by task."""
    with torch.no_grad():
        return {task: y.numpy() for task, y in network(torch.from_numpy(x)).items()}


def require_answers(
    got: Mapping[str, NDArray[np.float32]], expected: Answers, when: str = "", *, exact: bool = True
) -> None:
    """Hold a model's answers to eager's; not ``exact``: they only have to be finite and of the right shape.

    Raises:
        ServerError: they are not; ``when`` says on what input.
    """
    for task, wanted in expected.items():
        if got[task].shape != wanted.shape:
            message = f"exported model: output {task!r} has shape {got[task].shape}{when}, not {wanted.shape}"
            raise ServerError(message)
        difference = float(np.max(np.abs(got[task] - wanted) / np.maximum(1.0, np.abs(wanted)), initial=0.0))
        if not np.isfinite(difference) or (exact and difference > TOLERANCE):
            message = (
                f"exported model: output {task!r} differs from eager by {difference:.2g}{when}; allowed is "
                f"{TOLERANCE:g} of max(1, |eager|): this model must not be deployed"
            )
            raise ServerError(message)
