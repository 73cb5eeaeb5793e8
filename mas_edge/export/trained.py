"""The network that an inference model is made from: built for its tasks, with trained weights, in evaluation mode."""

from __future__ import annotations

from collections.abc import Sequence

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
