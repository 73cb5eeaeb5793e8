"""The reference that programs are held against: ordinary modules, ``backward()`` and ``torch.optim.SGD``.

Nothing of the functional step is used here, only the network, its losses and its metrics, so that an error of the step
and an error of an engine both show.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mas_edge.job import Job
from mas_edge.learning.losses import Measure, loss_of
from mas_edge.learning.metrics import metric_of
from mas_edge.learning.network import Network, vector_of
from mas_edge.learning.step import usable

Arrays = dict[str, NDArray[Any]]


class Reference:
    """A copy of ``network`` that is trained the ordinary way; unlike a program it keeps its state."""

    def __init__(self, network: Network, job: Job, learning_rate: float, momentum: float, weight_decay: float) -> None:
        self._network, self._options = copy.deepcopy(network), job.optimizer
        self._kind, self._balanced = job.affinity.kind, job.method.balance == "gradnorm"
        self._z = torch.zeros(0)  # what the encoder last gave
        self._network.encoder.register_forward_hook(self._keep)
        self._tasks = [job.task(name) for name in network.heads]
        self._losses, self._metrics = list(map(loss_of, self._tasks)), list(map(metric_of, self._tasks))
        self._scale = 1 / math.sqrt(len(self._tasks)) if job.optimizer.scale_encoder_gradient else 1.0
        self._trained = [p for p in self._network.parameters() if p.requires_grad]
        self._encoder = [p for p in self._network.encoder.parameters() if p.requires_grad]
        self._sgd = torch.optim.SGD(self._trained, lr=learning_rate, momentum=momentum, weight_decay=weight_decay)

    def run(self, method: str, feeds: Arrays) -> Arrays:
        """Do what ``method`` of a program does with ``feeds``, from this network's own state; inputs by their names."""
        methods = {
            "train_step": self._train_step,
            "evaluate": self._evaluate,
            "affinity": self._affinity,
            "infer": self._infer,
        }
        results = methods[method]({name: torch.tensor(array) for name, array in feeds.items()})
        return {name: tensor.detach().numpy() for name, tensor in results.items()}

    def _keep(self, _encoder: nn.Module, _inputs: Any, z: Tensor) -> None:
        self._z = z

    def _measure(self, measures: Sequence[Measure], feeds: dict[str, Tensor]) -> list[Tensor]:
        outputs = self._network(feeds["x"])
        values = []
        for task, measure in zip(self._tasks, measures, strict=True):
            target, mask = usable(task, feeds[f"y.{task.name}"], feeds[f"mask.{task.name}"])
            values.append(measure(outputs[task.name], target, mask))
        return values

    def _train_step(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        self._network.train()
        self._sgd.zero_grad()
        if not self._sgd.state:
            for parameter, start in zip(self._trained, self._pieces(feeds["momentum"]), strict=True):
                self._sgd.state[parameter]["momentum_buffer"] = start.clone()
        losses = self._measure(self._losses, feeds)
        norms = self._norms(losses) if self._balanced else {}
        total = (torch.stack(losses) * feeds["task_weights"]).sum()
        total.backward()
        for parameter, gradient in zip(self._trained, self._gradients(self._trained), strict=True):
            of_encoder = any(parameter is other for other in self._encoder)
            parameter.grad = gradient * self._scale if of_encoder else gradient
        if self._options.clip_norm > 0:
            nn.utils.clip_grad_norm_(self._trained, self._options.clip_norm)
        if self._options.proximal_mu > 0:
            gradients, anchors = self._gradients(self._trained), self._pieces(feeds["anchor"])
            for parameter, gradient, anchor in zip(self._trained, gradients, anchors, strict=True):
                parameter.grad = gradient + self._options.proximal_mu * (parameter.detach() - anchor)
        self._sgd.step()
        velocity = [self._sgd.state[parameter]["momentum_buffer"].reshape(-1) for parameter in self._trained]
        weights = torch.tensor(vector_of(self._network))
        return {"weights": weights, "momentum": torch.cat(velocity), "losses": torch.stack(losses), **norms}

    def _norms(self, losses: Sequence[Tensor]) -> dict[str, Tensor]:
        return {"norms": torch.stack([gradient.norm() for gradient in self._by_features(losses)])}

    def _by_features(self, losses: Sequence[Tensor]) -> list[Tensor]:
        """The gradient of each loss by the encoder's output."""
        return [
            torch.autograd.grad(loss, self._z, retain_graph=True, allow_unused=True, materialize_grads=True)[0]
            for loss in losses
        ]

    def _pieces(self, vector: Tensor) -> list[Tensor]:
        pieces = torch.split(vector, [parameter.numel() for parameter in self._trained])
        return [piece.view_as(parameter) for piece, parameter in zip(pieces, self._trained, strict=True)]

    @staticmethod
    def _gradients(parameters: Sequence[nn.Parameter]) -> list[Tensor]:
        """Copies of the gradients; zeros where no loss depends on the parameter, which decays all the same."""
        return [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in parameters]

    def _evaluate(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        self._network.eval()
        with torch.no_grad():
            losses, metrics = self._measure(self._losses, feeds), self._measure(self._metrics, feeds)
        return {"losses": torch.stack(losses), "metrics": torch.stack(metrics)}

    def _infer(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        self._network.eval()
        with torch.no_grad():
            return {f"out.{task}": output for task, output in self._network(feeds["x"]).items()}

    def _affinity(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        self._network.train()
        before = self._measure(self._losses, feeds)
        if self._kind == "features":
            gradients = [gradient.flatten() for gradient in self._by_features(before)]
            return _gram(before, gradients, gradients)
        rate, decay = feeds["hyper"][0], feeds["hyper"][2]
        moves = []
        for loss in before:
            self._sgd.zero_grad()
            loss.backward(retain_graph=True)
            moves.append([self._scale * gradient for gradient in self._gradients(self._encoder)])
        start = [parameter.detach().clone() for parameter in self._encoder]
        if self._kind == "first_order":
            flat = [torch.cat([gradient.flatten() for gradient in move]) for move in moves]
            decayed = decay * torch.cat([origin.flatten() for origin in start])
            return _gram(before, [move + decayed for move in flat], [move / self._scale for move in flat])
        rows = []
        with torch.no_grad():
            for move in moves:
                for parameter, origin, gradient in zip(self._encoder, start, move, strict=True):
                    parameter.copy_(origin - rate * (gradient + decay * origin))
                pairs = zip(self._measure(self._losses, feeds), before, strict=True)
                rows.append([(1 - after / loss) / rate if loss != 0 else 0.0 for after, loss in pairs])
        return {"losses": torch.stack(before), "affinity": torch.tensor(rows)}


def _gram(losses: Sequence[Tensor], steps: Sequence[Tensor], gradients: Sequence[Tensor]) -> dict[str, Tensor]:
    """S_ij = <step_i, g_j> / L_j, and 0 where either task has no loss."""
    rows = [
        [
            float(step @ gradient / loss) if loss != 0 and own != 0 else 0.0
            for gradient, loss in zip(gradients, losses, strict=True)
        ]
        for step, own in zip(steps, losses, strict=True)
    ]
    return {"losses": torch.stack(list(losses)), "affinity": torch.tensor(rows)}
