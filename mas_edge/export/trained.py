"""The network that an inference model is made from: built for its tasks, with trained weights, in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mas_edge.job import Job
from mas_edge.learning.network import Network, build, load_vector
from mas_edge.protocol.weights import Vector


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
