"""The reference that programs are held against: ordinary modules, ``backward()`` and ``torch.optim.SGD``.

Nothing of the functional step is used here, only the network, its losses and its metrics, so that an error of the step
and an error of an engine both show.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
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
        self._affinity_kind, self._balance = job.affinity.kind, job.method.balance
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
            "affinity": self._affinity if self._affinity_kind == "lookahead" else self._gram_affinity,
            "infer": self._infer,
        }
        results = methods[method]({name: torch.tensor(array) for name, array in feeds.items()})
        return {name: tensor.detach().numpy() for name, tensor in results.items()}

    def _measure(self, measures: Sequence[Measure], feeds: dict[str, Tensor]) -> list[Tensor]:
        return self._measure_outputs(measures, self._network(feeds["x"]), feeds)

    def _measure_outputs(
        self, measures: Sequence[Measure], outputs: Mapping[str, Tensor], feeds: dict[str, Tensor]
    ) -> list[Tensor]:
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
        norms = self._norms(feeds) if self._balance == "gradnorm" else {}
        losses = self._measure(self._losses, feeds)
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

    def _norms(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        """|dL_i/dz| on a network of its own: batch statistics move once a step, and dropout draws the same."""
        with torch.random.fork_rng(devices=[]):
            rows, _ = copy.deepcopy(self)._feature_gradients(feeds)
        return {"norms": torch.stack([row.norm() for row in rows])}

    def _feature_gradients(self, feeds: dict[str, Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """dL_i/dz at the encoder's output z, flat, and the losses."""
        z = self._network.encoder(feeds["x"]).detach().requires_grad_()
        outputs = {task: head(z) for task, head in self._network.heads.items()}
        losses = self._measure_outputs(self._losses, outputs, feeds)
        return [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses], losses

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

    def _gram_affinity(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        """<move_i, gradient_j> / L_j, at the encoder's output or in its weights, entry by entry."""
        self._network.train()
        if self._affinity_kind == "features":
            gradients, losses = self._feature_gradients(feeds)
            moves = gradients
        else:
            gradients, losses = [], self._measure(self._losses, feeds)
            for loss in losses:
                self._sgd.zero_grad()
                loss.backward(retain_graph=True)
                gradients.append(torch.cat([gradient.flatten() for gradient in self._gradients(self._encoder)]))
            theta = torch.cat([parameter.detach().flatten() for parameter in self._encoder])
            moves = [self._scale * gradient + feeds["hyper"][2] * theta for gradient in gradients]
        with torch.no_grad():
            pairs = list(zip(gradients, losses, strict=True))
            rows = [[torch.dot(move, g) / loss if loss != 0 else 0.0 for g, loss in pairs] for move in moves]
        return {"losses": torch.stack(losses), "affinity": torch.tensor(rows)}

    def _affinity(self, feeds: dict[str, Tensor]) -> dict[str, Tensor]:
        self._network.train()
        rate, decay = feeds["hyper"][0], feeds["hyper"][2]
        before = self._measure(self._losses, feeds)
        moves = []
        for loss in before:
            self._sgd.zero_grad()
            loss.backward(retain_graph=True)
            moves.append([self._scale * gradient for gradient in self._gradients(self._encoder)])
        start = [parameter.detach().clone() for parameter in self._encoder]
        rows = []
        with torch.no_grad():
            for move in moves:
                for parameter, origin, gradient in zip(self._encoder, start, move, strict=True):
                    parameter.copy_(origin - rate * (gradient + decay * origin))
                pairs = zip(self._measure(self._losses, feeds), before, strict=True)
                rows.append([(1 - after / loss) / rate if loss != 0 else 0.0 for after, loss in pairs])
        return {"losses": torch.stack(before), "affinity": torch.tensor(rows)}
