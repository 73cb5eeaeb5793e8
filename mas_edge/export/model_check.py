"""No inference model leaves before it has answered as the network does in eager PyTorch, on its own engine.

The exporters hold their models against eager themselves, where they can; this is the gate behind all of them, and the
numbers of the report.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from device_runtime.inference import INPUT, open_model
from mas_edge.export.describe import Trained
from mas_edge.export.inference import OUTPUT_PREFIX
from mas_edge.export.quality import Answers, Run, Samples, answers_of, losses_of
from mas_edge.export.report import MODEL, Loss
from mas_edge.export.trained import TOLERANCE, eager_answers, trained_network
from mas_edge.export.verify import Comparison, compare, require_close
from mas_edge.protocol.errors import EdgeError, ServerError
from mas_edge.protocol.program import Program
from mas_edge.protocol.weights import Entry, Layout, pack, unpack

# A step of int8 is 1/255 of a range: 0.6 to 2 % of an output (relative L2) in the networks of ten layers that were
# measured, 7 % in the worst, up to 30 % where an untrained one answers with numbers near 0. A range set wrongly, or a
# layer in another layout, gives answers that have nothing to do with the network's: 100 % and more.
RELATIVE_L2_TOLERANCE = 0.5
ROUNDED_TOLERANCE = 0.5  # of the largest number, for each single one


@dataclass(frozen=True)
class Checked:
    """What the check found; ``golden`` are the samples that a device holds its copy against."""

    found: list[Comparison]
    golden: bytes
    losses: list[Loss] = field(default_factory=list)

    def require(self, what: str) -> None:
        """Raise ServerError if the model is further off than allowed."""
        require_close(self.found, what)
        for loss in self.losses:
            if not loss.relative_l2 <= RELATIVE_L2_TOLERANCE:
                message = (
                    f"{what} loses too much of {loss.task}: {loss.relative_l2:.2g} of the answer (relative L2, allowed "
                    f"{RELATIVE_L2_TOLERANCE:g}); give more or other samples by --data, or export in fp32"
                )
                raise ServerError(message)


def check_exact(run: Run, golden: bytes, trained: Trained) -> Checked:
    """Hold a float32 model against eager on the golden samples."""
    samples = unpack(golden)
    answers = answers_of(run, samples[INPUT], len(samples[INPUT]))
    found = [compare(MODEL, task, answers[task], samples[OUTPUT_PREFIX + task], TOLERANCE) for task in trained.tasks]
    return Checked(found, golden)


def check_rounded(
    run: Run, golden: bytes, trained: Trained, traced: Program, samples: Samples, batch: int = 0
) -> Checked:
    """Hold an int8 model against eager on the test samples, where its ranges fit; ``batch`` of them a call (0 = any).

    The golden outputs become the model's own: a device that gives others does not do what was checked here.
    """
    tests = samples.tests(traced)
    exact = answers_of(_eager(trained), tests["x"], traced.batch_size)
    got = answers_of(run, tests["x"], batch or traced.batch_size)
    x = unpack(golden)[INPUT]
    return Checked(
        [compare(MODEL, task, got[task], exact[task], ROUNDED_TOLERANCE) for task in trained.tasks],
        _golden(x, answers_of(run, x, len(x)), trained),
        losses_of(trained.job, tests, exact, got),
    )


def runner_of(model: bytes, trained: Trained) -> Run:
    """What runs a model file on its own engine, here. Raises ServerError, also later, if it does not run."""
    try:
        opened = open_model(model, trained.tasks)
    except EdgeError as error:
        message = f"the exported model of {trained.group!r} cannot be opened: {error}; it was not released"
        raise ServerError(message) from None

    def run(x: NDArray[np.float32]) -> Answers:
        try:
            return opened.run(x)
        except EdgeError as error:
            message = f"the exported model of {trained.group!r} does not run: {error}; it was not released"
            raise ServerError(message) from None

    return run


def _eager(trained: Trained) -> Run:
    network = trained_network(trained.job, trained.tasks, trained.vector)

    return lambda x: eager_answers(network, x)


def _golden(x: NDArray[np.float32], answers: Answers, trained: Trained) -> bytes:
    tensors = {INPUT: x} | {OUTPUT_PREFIX + task: answers[task] for task in trained.tasks}
    layout = Layout([Entry(name, list(tensor.shape), "golden", False) for name, tensor in tensors.items()])
    return pack(layout, np.concatenate([tensor.reshape(-1).astype(np.float32) for tensor in tensors.values()]))
