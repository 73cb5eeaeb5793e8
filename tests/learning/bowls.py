"""Quadratic losses of one encoder vector, whose steps, gradients and affinities have a closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from msgspec.structs import replace
from numpy.typing import NDArray
from torch import Tensor

from mas_edge.job import Affinity, Method, Optimizer, Task
from mas_edge.learning import Objective, build, objective_of, vector_of
from tests.learning.jobs import OWN, job, own_job

SIZE, BATCH = 4, 6
RATE, DECAY = 0.1, 0.01
CENTRES = {"a": [0.5, 0.0, 0.0, -1.0], "b": [1.0, 1.0, 0.0, 0.0], "c": [-1.0, 0.2, 0.3, 2.0]}
THETA = np.linspace(-1, 1, SIZE)
LOSSES = np.array([np.sum((THETA - centre) ** 2) / SIZE for centre in CENTRES.values()])
GRADIENTS = np.array([2 * (THETA - centre) / SIZE for centre in CENTRES.values()])  # [n, SIZE]
CURVATURE = 2 / SIZE  # the Hessian of each is this times the identity


@dataclass(frozen=True)
class Bowls:
    """Three losses L_i = |theta - c_i|^2 / SIZE; the encoder is theta itself, the same for every sample."""

    objective: Objective
    feeds: dict[str, Tensor]


def bowls(optimizer: Optimizer | None = None, affinity: Affinity | None = None, method: Method | None = None) -> Bowls:
    tasks = [Task(name=name, kind="value", shape=[SIZE], loss="l2", head=f"{OWN}:nothing") for name in CENTRES]
    plain = job(tasks, [SIZE], own_job("point", tasks, [SIZE]).network, optimizer)
    made = replace(plain, affinity=affinity or Affinity(), method=method or Method())
    objective = objective_of(made, build(made, list(CENTRES)))
    weights = torch.tensor(vector_of(objective.network))
    feeds = {"weights": weights, "momentum": torch.zeros_like(weights), "x": torch.zeros(BATCH, SIZE)}
    feeds |= {f"y.{name}": torch.tensor(centre).expand(BATCH, SIZE) for name, centre in CENTRES.items()}
    feeds |= {f"mask.{name}": torch.ones(BATCH) for name in CENTRES}
    feeds |= {"task_weights": torch.tensor([1.0, 2.0, 0.5]), "hyper": torch.tensor([RATE, 0.9, DECAY, 0.0])}
    return Bowls(objective, feeds)


def bowl(theta: NDArray[np.float64], name: str) -> float:
    """The loss of the task ``name`` at ``theta``."""
    return float(np.sum((theta - CENTRES[name]) ** 2) / SIZE)
