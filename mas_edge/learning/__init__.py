"""Networks, losses, metrics and the functional train step (torch)."""

from mas_edge.learning.lookup import find_function
from mas_edge.learning.losses import LOSSES, Measure, loss_of, masked_mean
from mas_edge.learning.metrics import METRICS, metric_of
from mas_edge.learning.network import Network, build, layout_of, load_vector, vector_of
from mas_edge.learning.step import Objective, affinity, evaluate, objective_of, train_step, usable

__all__ = [
    "LOSSES",
    "METRICS",
    "Measure",
    "Network",
    "Objective",
    "affinity",
    "build",
    "evaluate",
    "find_function",
    "layout_of",
    "load_vector",
    "loss_of",
    "masked_mean",
    "metric_of",
    "objective_of",
    "train_step",
    "usable",
    "vector_of",
]
