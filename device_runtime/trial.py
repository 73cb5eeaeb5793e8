"""The trial of a model: what a device asks of it, and who answers. In this process, or in one that is a child.

A child (``trial_process``) answers one question after the other, each with what is loaded already: most of what a short
trial takes is the start of Python and of an engine.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import os
import sys
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import msgspec

from device_runtime import child
from device_runtime.data import DataFolder, open_data
from device_runtime.deployed import Bounds, Health, check_health, measured_latency
from device_runtime.engines import open_engine
from device_runtime.memory import resident_bytes
from device_runtime.regression import regression
from mas_edge.protocol.errors import DeviceError, EdgeError
from mas_edge.protocol.models import ENGINE_OF

# What a child says before it loads a model's engine, and before it touches the model.
LOADING, BEGUN = b'"engine is being loaded"', b'"trial has begun"'


class _Question(msgspec.Struct, frozen=True, tag_field="ask"):
    model: str  # its file


class Check(_Question, frozen=True, tag="health"):
    """Is the model healthy? ``golden``: the file of the samples."""

    golden: str
    bounds: Bounds
    data: str = ""  # the folder that the child opens


class Time(_Question, frozen=True, tag="latency"):
    """How long does a sample take a model that is in use?"""

    golden: str
    data: str = ""


class Compare(_Question, frozen=True, tag="regression"):
    """How much worse is it than the model of all tasks, ``whole``? ``most``: beyond that it is refused."""

    tasks: list[str]
    whole: str
    whole_tasks: list[str]
    most: float
    data: str = ""


Question = Check | Time | Compare


class Answer(msgspec.Struct, frozen=True):
    """What the question was about; ``problem``: why there is nothing to say. Seconds of the processor of a child."""

    health: Health | None = None
    latency_s: float = 0.0  # 0: it does not run
    regression: float | None = None
    problem: str = ""
    cpu_seconds: float = 0.0

    def objects(self, question: Question) -> bool:
        """Whether it is said against the model, so that it may be refused for it."""
        if isinstance(question, Compare):
            return self.regression is None or self.regression > question.most
        return bool(self.problem) or (self.health is not None and not self.health.healthy)


class Examiner(Protocol):
    """Who answers."""

    def answer(self, question: Question, data: DataFolder) -> Answer:
        """The answer to a question; ``data``: the folder whose samples are tried."""
        ...


class Here:
    """In this process; cpu_seconds are counted by whoever asks. ``held``: bytes that are not the models'; 0 = now."""

    def __init__(self, held: int = 0) -> None:
        self._held = held

    def answer(self, question: Question, data: DataFolder) -> Answer:
        """See ``Examiner``."""
        match question:
            case Check(model, golden, bounds):
                load_engine(model)
                samples = Path(golden).read_bytes()
                return Answer(health=check_health(Path(model), samples, bounds, data, self._held))
            case Time(model, golden):
                return Answer(latency_s=measured_latency(Path(model), Path(golden).read_bytes()))
            case Compare():
                return _compared(question, data)


def _compared(question: Compare, data: DataFolder) -> Answer:
    try:
        found = regression(Path(question.model), question.tasks, Path(question.whole), question.whole_tasks, data)
    except EdgeError as error:
        return Answer(problem=str(error))
    return Answer(regression=found) if math.isfinite(found) else Answer(problem="its error is no finite number")


def load_engine(model: str) -> None:
    """What the engine's library takes is not what the model takes; where it is missing the check says so."""
    with contextlib.suppress(DeviceError):
        open_engine(ENGINE_OF[Path(model).suffix[1:]])  # ``deploy`` takes no other files


def _die_first() -> None:
    """Whom the system ends when memory runs out: this process, not the agent or anybody else."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def _give_back() -> None:
    """Return what a model held to the system, so that the next one is not let in on it."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # a function of glibc
        ctypes.CDLL(None).malloc_trim(0)


def main(_arguments: Sequence[str] = ()) -> int:
    """Answer the questions on the standard input, a line each."""
    child.end_with_parent()
    _die_first()
    folder, held, spent = cache(open_data), 0, 0.0
    for line in sys.stdin.buffer:
        question = msgspec.json.decode(line, type=Question)
        data = folder(Path(question.data))
        os.write(1, b"\n" + LOADING + b"\n")
        load_engine(question.model)
        held = held or resident_bytes()
        os.write(1, b"\n" + BEGUN + b"\n")
        found = Here(held).answer(question, data)
        now = time.process_time()
        said = msgspec.structs.replace(found, cpu_seconds=now - spent)
        _give_back()
        spent = now
        os.write(1, b"\n" + msgspec.json.encode(said) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
