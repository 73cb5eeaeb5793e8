"""Training and evaluating as a plan says: weights in, a report and what this device sends out.

Imported with the first plan: it needs NumPy, and an engine beside it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from device_runtime import session
from device_runtime.checkpoint import Checkpoint, checkpoint_name
from device_runtime.data import DataFolder
from device_runtime.engines.base import Runner
from device_runtime.outcome import Outcome, Stopped
from device_runtime.power.meter import Meter
from mas_edge.protocol.artifact import Buffer
from mas_edge.protocol.messages import Plan, Report
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Layout, Vector, gather, pack, require_finite, sent_layout, unpack


def starting_weights(program: Program, weights: Buffer) -> Vector:
    """The flat vector of a program out of safetensors bytes, copied. Raises WeightsError if they are of another."""
    return gather(program.layout, unpack(weights))


@dataclass(frozen=True)
class Trainer:
    """A program that is ready to run, the data to run it on, and what is counted beside it.

    ``engine``: its name, for the report. ``checkpoints``: the folder where a training is saved; None = nowhere.
    """

    program: Program
    runner: Runner
    engine: str
    data: DataFolder
    meter: Meter | None
    checkpoints: Path | None

    def carry_out(self, plan: Plan, weights: Vector, began: float, stop: Callable[[], bool]) -> Outcome:
        """Train or evaluate; ``began``: when the loading did, in monotonic seconds.

        Raises:
            Stopped: ``stop()`` returned True.
            EdgeError: it cannot be done.
        """
        loading = time.monotonic() - began
        if plan.kind == "evaluate" or plan.training is None:
            report = session.evaluate(self.runner, self.program, weights, self.data, stop=stop, meter=self.meter)
            return Outcome(self._named(report, loading))
        with self._checkpoint(plan) as checkpoint:
            trained, report = session.train(
                self.runner, self.program, weights, self.data, plan.training, stop=stop, meter=self.meter,
                checkpoint=checkpoint,
            )  # fmt: skip
        require_finite(trained, "the trained network")
        return Outcome(self._named(report, loading), _update(self.program.layout, trained, report))

    @contextmanager
    def _checkpoint(self, plan: Plan) -> Iterator[Checkpoint | None]:
        """Where this plan's training is saved; kept only when it is stopped, because then the plan may come again."""
        if self.checkpoints is None:
            yield None
            return
        checkpoint = Checkpoint(self.checkpoints, checkpoint_name(plan, self.engine, self.data.directory))
        try:
            yield checkpoint
        except Stopped:
            raise
        except BaseException:
            checkpoint.remove()
            raise
        checkpoint.remove()

    def _named(self, report: Report, loading: float) -> Report:
        return msgspec.structs.replace(report, engine=self.engine, seconds={**report.seconds, "load": loading})


def _update(layout: Layout, trained: Vector, report: Report) -> bytes:
    """The tensors this device counts for: the encoder, and the heads it has labels for."""
    tensors = {name: trained[place] for name, place in layout.slices().items()}
    sent = sent_layout(layout, report.samples)
    flat = np.concatenate([tensors[entry.name] for entry in sent.entries])
    return pack(sent, flat.astype(np.float32, copy=False))
