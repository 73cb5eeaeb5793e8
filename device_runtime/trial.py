"""The trial of a model in a process of its own: one that hangs, crashes or eats memory harms nobody, and is refused.

The device asks a question, a child answers, and whatever happens to the child is an answer, too. Where there is not
enough memory for a second process the question is answered in this one (``Here``): then only the starts that are
counted before (``slots``) stand between a deadly model and the device.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import msgspec

from device_runtime import child
from device_runtime.data import DataFolder, open_data
from device_runtime.deployed import Bounds, Health, check_health, measured_latency
from device_runtime.engines import ENGINES
from device_runtime.memory import available_bytes, in_units, resident_bytes
from device_runtime.regression import regression
from device_runtime.work import Where
from mas_edge.protocol.errors import EdgeError
from mas_edge.protocol.models import ENGINE_OF

log = logging.getLogger(__name__)

# A second process with NumPy and an engine holds 60 to 110 MB, and a model some times the size of its file while it is
# opened. With less than this free the check is made in the agent's own process.
CHILD_BYTES, MODEL_TIMES = 128 * 1024 * 1024, 4
SHARE = 0.9  # of what is free that a model may take: the rest is for the agent and whatever else the device is for
# Of a check: to start Python and an engine from a slow card, and the device's own samples (``deployed.OWN_S``). Then
# so many runs of the slowest model that is allowed: golden samples, and the runs that are timed.
BASE_S, RUNS = 120.0, 20
MOST_S = 900.0  # however slow a model may be: an orchestrator waits for ten minutes by itself
LOOK_S = 0.05  # between two looks at the child: a model that eats a gigabyte a second is found at 50 MB more
_BEGUN = b'"trial has begun"'  # the child says it before it touches the model


class Question(msgspec.Struct, frozen=True):
    """Is the model healthy? ``golden``: a file; ``active``: that in use, whose speed counts; ``data``: a folder."""

    model: str
    golden: str
    bounds: Bounds
    active: str = ""
    max_slowdown: float = 0.0
    data: str = ""
    against: Against | None = None


class Against(msgspec.Struct, frozen=True):
    """Not: is it healthy, but: how much worse is it than the model of all tasks, ``whole``?"""

    tasks: list[str]
    whole: str
    whole_tasks: list[str]


class Answer(msgspec.Struct, frozen=True):
    """What a child says."""

    health: Health | None = None
    regression: float | None = None
    problem: str = ""
    cpu_seconds: float = 0.0


class Examiner(Protocol):
    """Who answers."""

    def answer(self, question: Question, data: DataFolder) -> Answer:
        """The answer to a question; ``data``: the folder that it names, open."""
        ...


class Here:
    """In this process."""

    def answer(self, question: Question, data: DataFolder) -> Answer:
        """See ``Examiner``; cpu_seconds are those of the thread, and counted by whoever asks."""
        if question.against is None:
            return Answer(health=_examined(question, data))
        try:
            return Answer(regression=_compared(question, question.against, data))
        except EdgeError as error:
            return Answer(problem=str(error))


class Apart:
    """In a child. ``where``: "auto" asks ``Here`` where memory is short; ``memory``: what the owner allows, 0 = all."""

    def __init__(self, where: Where = "auto", memory: int = 0) -> None:
        self._where = where
        self._memory = memory

    def answer(self, question: Question, data: DataFolder) -> Answer:
        """See ``Examiner``."""
        free = self._free()
        model = Path(question.model)
        needed = CHILD_BYTES + (MODEL_TIMES * model.stat().st_size if model.is_file() else 0)
        if self._where == "here" or (self._where == "auto" and free is not None and free < needed):
            if self._where == "auto":
                log.warning(
                    "%s of memory are free, a process for the trial of a model takes %s: it is tried in the agent's",
                    in_units(free or 0), in_units(needed),
                )  # fmt: skip
            return Here().answer(question, data)
        asked = msgspec.structs.replace(question, data=str(data.directory))
        found = _asked(asked, None if free is None else int(SHARE * free))
        return Here().answer(question, data) if found is None else found

    def _free(self) -> int | None:
        """The bytes that a child may take; None if the system does not tell."""
        free = available_bytes()
        if not self._memory:
            return free
        allowed = max(0, self._memory - resident_bytes())
        return allowed if free is None else min(free, allowed)


def _asked(question: Question, memory: int | None) -> Answer | None:
    """What a child answers, or what became of it; None if none could be started."""
    limit_s = min(MOST_S, BASE_S + RUNS * question.bounds.max_latency_s)
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        asked.write(msgspec.json.encode(question))
        asked.seek(0)
        try:
            process = subprocess.Popen(child.command(__name__), stdin=asked, stdout=said)  # noqa: S603 - ours
        except OSError as error:
            log.warning("no process for the trial of a model (%s): it is tried in the agent's", error.strerror)
            return None
        stopped = _watched(process, limit_s, memory)
        said.seek(0)
        output = said.read()
    if found := child.answer(output, Answer):
        return found
    if _BEGUN not in output and not stopped:
        log.warning("the process for the trial of a model ended at once (%d): it is tried here", process.returncode)
        return None
    reason, final = stopped or _end_of(process.returncode)
    return Answer(health=Health(healthy=False, reason=reason, final=final), problem=reason)


def _watched(process: subprocess.Popen[bytes], limit_s: float, memory: int | None) -> tuple[str, bool] | None:
    """Wait for the child's end; if it has to be killed, why, and whether the model is to blame for ever."""
    until, stopped = time.monotonic() + limit_s, None
    try:
        while True:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
                return stopped
            if time.monotonic() > until:
                stopped = f"it did not end within {limit_s:.0f} s", True
            elif memory is not None and (held := resident_bytes(process.pid)) > memory:
                stopped = f"it took {in_units(held)} of memory, {in_units(memory)} are free on this device", False
            if stopped:
                process.kill()
    finally:
        if process.poll() is None:  # we are being stopped ourselves
            process.kill()
            process.wait()


def _end_of(code: int) -> tuple[str, bool]:
    if code == -signal.SIGKILL:  # not ours: the system's, which does so when memory runs out
        return "the system killed the process that tried it, most likely for its memory", False
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return f"it crashed the process that tried it ({name})", True


def _examined(question: Question, data: DataFolder) -> Health:
    _load_engine(question.model)
    golden, bounds = Path(question.golden).read_bytes(), question.bounds
    if question.max_slowdown and question.active and (takes := measured_latency(Path(question.active), golden)):
        most = min(bounds.max_latency_s, question.max_slowdown * takes)
        bounds = msgspec.structs.replace(bounds, max_latency_s=most)
    return check_health(Path(question.model), golden, bounds, data)


def _load_engine(model: str) -> None:
    """What the engine's library takes is not what the model takes; where it is missing the check says so."""
    engine = ENGINE_OF[Path(model).suffix[1:]]  # ``deploy`` takes no others
    with contextlib.suppress(ImportError, OSError):
        importlib.import_module(engine if engine == "onnxruntime" else ENGINES[engine].module)


def _compared(question: Question, against: Against, data: DataFolder) -> float:
    return regression(Path(question.model), against.tasks, Path(against.whole), against.whole_tasks, data)


def _die_first() -> None:
    """Whom the system ends when memory runs out: this process, not the agent or anybody else."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")


def main(_arguments: Sequence[str] = ()) -> int:
    """Answer the question on the standard input."""
    child.end_with_parent()
    _die_first()
    question = msgspec.json.decode(sys.stdin.buffer.read(), type=Question)
    data = open_data(Path(question.data))
    os.write(1, b"\n" + _BEGUN + b"\n")
    found = Here().answer(question, data)
    found = msgspec.structs.replace(found, cpu_seconds=time.process_time())
    sys.stdout.write("\n" + msgspec.json.encode(found).decode() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
