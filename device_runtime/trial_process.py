"""The trial of models in a process of its own: one that hangs, crashes or eats memory harms nobody, and is refused.

The device asks a question, a child answers, and whatever happens to the child is an answer, too. A child is kept for
the next model of the same engine, but what it says against a model counts only if it has tried nothing else before:
otherwise a new one is asked. Where there is not enough memory for a second process the question is answered in this one
(``trial.Here``): then only the starts that are counted before (``slots``) stand between a deadly model and the device.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple, cast

import msgspec

from device_runtime import child
from device_runtime.data import DataFolder
from device_runtime.deployed import Health
from device_runtime.memory import available_bytes, in_units, resident_bytes
from device_runtime.trial import BEGUN, LOADING, Answer, Check, Here, Question
from mas_edge.protocol.models import ENGINE_OF

if TYPE_CHECKING:
    from device_runtime.work import Where

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
MOST_LINE = 64 * 1024  # bytes of an answer, a few hundred in truth: what libraries print without an end is dropped


class Apart:
    """Who asks children. ``where``: "auto" asks ``Here`` where memory is short.

    ``memory``: bytes that this process and its child may hold together, as the owner allows; 0 = all that are free.
    """

    def __init__(self, where: Where = "auto", memory: int = 0) -> None:
        self._where = where
        self._memory = memory
        self._kept: _Child | None = None

    def answer(self, question: Question, data: DataFolder) -> Answer:
        """See ``Examiner``."""
        asked = msgspec.structs.replace(question, data=str(data.directory))
        spent = 0.0
        if self._kept and self._is_of_use(self._kept, asked):
            found = self._asked(self._kept, asked)
            if found and not found.objects(asked):
                return found
            spent = found.cpu_seconds if found else 0.0
        self.close()
        found = self._asked_anew(asked) or Here().answer(question, data)
        return msgspec.structs.replace(found, cpu_seconds=found.cpu_seconds + spent)

    def close(self) -> None:
        """End the child that is kept for the next question."""
        if self._kept:
            self._kept.end()
            self._kept = None

    def _is_of_use(self, kept: _Child, question: Question) -> bool:
        """Whether this child can be asked: it has the engine, and there is memory for the model."""
        free = self._free()
        return kept.engine == _engine_of(question) and (free is None or free >= _model_bytes(question))

    def _asked_anew(self, question: Question) -> Answer | None:
        """What a new child answers; None if there is to be none, or none could be started."""
        free, needed = self._free(), CHILD_BYTES + _model_bytes(question)
        if self._where == "here":
            return None
        if self._where == "auto" and free is not None and free < needed:
            log.warning(
                "%s of memory are free, a process for the trial of a model takes %s: it is tried in the agent's",
                in_units(free), in_units(needed),
            )  # fmt: skip
            return None
        try:
            new = self._kept = _Child(_engine_of(question))
        except OSError as error:
            log.warning("no process for the trial of a model (%s): it is tried in the agent's", error.strerror)
            return None
        found = self._asked(new, question)
        if found is None:
            log.warning("no process came as far as the trial of a model: it is tried in the agent's")
        return found

    def _asked(self, process: _Child, question: Question) -> Answer | None:
        """What a child answers, or what became of it; None if it did not start, or had no memory to."""
        free = self._free()
        memory = None if free is None else process.holds + int(SHARE * free)
        limit_s = BASE_S + RUNS * (question.bounds.max_latency_s if isinstance(question, Check) else 0.0)
        heard = process.ask(question, min(MOST_S, limit_s), memory)
        if isinstance(heard, Answer):
            return heard
        self.close()
        if heard is None:
            return None
        return Answer(health=Health(healthy=False, reason=heard.reason, final=heard.final), problem=heard.reason)

    def _free(self) -> int | None:
        """The bytes that may be taken beside what this process and its child hold; None if the system does not tell."""
        free = available_bytes()
        if not self._memory:
            return free
        held = resident_bytes() + (self._kept.holds if self._kept else 0)
        allowed = max(0, self._memory - held)
        return allowed if free is None else min(free, allowed)


class _End(NamedTuple):
    """How a child ended that tried a model. ``final``: the model is to blame for ever."""

    reason: str
    final: bool


class _Child:
    """A process that answers one question after the other. Raises OSError if it cannot be started."""

    def __init__(self, engine: str) -> None:
        self.engine = engine
        self._process = subprocess.Popen(  # noqa: S603 - ours
            child.command("device_runtime.trial"), bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._input, self._output = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)
        self._line = b""
        self._stage = b""  # the last that it has said of LOADING and BEGUN
        self._said = select.poll()  # not select.select: an agent among many may have more than 1024 files open
        self._said.register(self._output, select.POLLIN)

    @property
    def holds(self) -> int:
        """Bytes of memory."""
        return resident_bytes(self._process.pid)

    def ask(self, question: Question, limit_s: float, memory: int | None) -> Answer | _End | None:
        """The answer; else how it ended, and None if it did not come as far as the model. Then it is gone.

        ``limit_s``, ``memory``: seconds that it may take, and bytes that it may hold in all; None: as many as it likes.
        """
        found: Answer | _End | None = None
        self._stage = b""
        try:
            found = self._heard(question, time.monotonic() + limit_s, memory)
        except subprocess.TimeoutExpired:
            found = self._ended(f"it did not end within {limit_s:.0f} s")
        finally:  # also if we are being stopped ourselves
            if not isinstance(found, Answer):
                self.end()
        return found

    def end(self) -> None:
        """Kill it, if it is still there."""
        with self._process:  # closes both pipes, and waits
            self._process.kill()

    def _heard(self, question: Question, until: float, memory: int | None) -> Answer | _End | None:
        """See ``ask``. Raises TimeoutExpired."""
        self._send(question)
        while (lines := self._lines(until)) is not None:
            for line in lines:
                self._stage = line if line in (LOADING, BEGUN) else self._stage
                if self._stage == BEGUN and (answer := child.answer(line, Answer)):
                    return answer
            if memory is not None and (held := self.holds) > memory:
                reason = f"it took {in_units(held)} of memory, {in_units(memory)} are free on this device"
                return self._ended(reason, final=False) if self._stage == BEGUN else None
        code = self._process.wait(max(0.0, until - time.monotonic()))
        if code == -signal.SIGKILL:  # not ours: the system's, which does so when memory runs out
            return self._ended("the system killed the process that tried it, most likely for its memory", final=False)
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return self._ended(f"it crashed the process that tried it ({name})")

    def _ended(self, reason: str, *, final: bool = True) -> _End | None:
        """An engine that does not start is not the model's fault, and would harm the agent as well."""
        if self._stage == LOADING:
            return _End(f"{self.engine}, the engine of the model, does not start: {reason}", final=False)
        return _End(reason, final) if self._stage == BEGUN else None

    def _send(self, question: Question) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, which is seen when its answer is read
            self._input.write(msgspec.json.encode(question) + b"\n")

    def _lines(self, until: float) -> list[bytes] | None:
        """The lines that came by now or soon; None if no more can come. Raises TimeoutExpired."""
        if time.monotonic() > until:
            raise subprocess.TimeoutExpired(self._process.args, 0.0)
        if not self._said.poll(1000 * LOOK_S):
            return []
        came = os.read(self._output.fileno(), MOST_LINE)
        *lines, rest = (self._line + came).split(b"\n")
        self._line = rest[-MOST_LINE:]
        return lines if came else None


def _engine_of(question: Question) -> str:
    return ENGINE_OF[Path(question.model).suffix[1:]]  # ``deploy`` takes no other files


def _model_bytes(question: Question) -> int:
    """That a model may take while it is opened."""
    path = Path(question.model)
    return MODEL_TIMES * path.stat().st_size if path.is_file() else 0
