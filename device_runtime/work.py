"""Carrying out one plan: the bench where engine, data and artifacts meet. Runs in the agent's background thread."""

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
from device_runtime.deployed import check_health
from device_runtime.edge.artifacts import ArtifactStore
from device_runtime.engines import open_engine
from device_runtime.engines.base import Engine, Runner
from device_runtime.last_words import LastWords
from device_runtime.memory import in_units, ran_out, resident_bytes
from device_runtime.power.meter import Meter
from device_runtime.slots import Slots
from mas_edge.protocol import program as program_format
from mas_edge.protocol.errors import DeviceError, EdgeError
from mas_edge.protocol.memory import memory_needed
from mas_edge.protocol.messages import Plan, Report
from mas_edge.protocol.models import ENGINE_OF
from mas_edge.protocol.program import Program
from mas_edge.protocol.topics import check_name
from mas_edge.protocol.weights import Layout, gather, pack, require_finite, sent_layout, unpack

# Programs kept ready to run. A device serves at most a few groups; each loaded one costs a few MB.
MAX_LOADED = 4


@dataclass(frozen=True)
class Outcome:
    """What a plan led to: a report and, after training, the safetensors bytes of what this device sends."""

    report: Report
    update: bytes | None = None


class Programs:
    """The engine of a process, loaded when first needed, and the programs that are ready to run on it.

    ``engine_name`` as for ``open_engine``; at most ``most`` programs are kept ready, the oldest go first.
    """

    def __init__(self, engine_name: str, most: int = MAX_LOADED) -> None:
        self.most = most
        self._name = engine_name
        self._engine: Engine | None = None
        self._loaded: dict[str, tuple[Program, Runner]] = {}

    @property
    def engine(self) -> Engine:
        """The engine. Raises DeviceError if it does not start."""
        if self._engine is None:
            self._engine = open_engine(self._name)
        return self._engine

    @property
    def used(self) -> str:
        """The name of the engine; empty if it was not needed yet."""
        return self._engine.name if self._engine else ""

    def held(self, artifact: str) -> Program | None:
        """The program of this digest, if it is ready to run."""
        loaded = self._loaded.get(artifact)
        return loaded[0] if loaded else None

    def runner(self, artifact: str, program: Program) -> Runner:
        """Make ``program``, whose digest is ``artifact``, ready to run."""
        if artifact not in self._loaded:
            engine = self.engine
            while len(self._loaded) >= self.most:
                del self._loaded[next(iter(self._loaded))]
            self._loaded[artifact] = (program, engine.load(program))
        return self._loaded[artifact][1]

    def clear(self) -> None:
        """Let go of every program."""
        self._loaded.clear()


class Bench:
    """One device's data, programs and artifacts.

    ``step_memory``: the bytes that a program may take beside the process with its engine loaded; 0 = no limit.
    ``meter``: counts the joules of each plan. ``last_words``: what a process that is killed leaves to the next.
    ``checkpoints``: the folder where trainings are saved, to be gone on with after a power cut; None = nowhere.
    """

    def __init__(
        self,
        data: DataFolder,
        store: ArtifactStore,
        programs: Programs,
        deployed: Path,
        meter: Meter | None = None,
        checkpoints: Path | None = None,
        last_words: LastWords | None = None,
    ) -> None:
        self.step_memory = 0
        self.joules = 0.0  # that the last plan took, also one that failed
        self._meter = meter
        self._last_words = last_words
        self._data = data
        self._store = store
        self._programs = programs
        self._deployed = deployed
        self._checkpoints = checkpoints

    def limit(self, memory: int) -> None:
        """Let the process hold ``memory`` bytes at most, as far as that is a matter of programs.

        Raises:
            DeviceError: the engine does not start, or takes it all by itself.
        """
        name = self._programs.engine.name
        held = resident_bytes()
        if memory <= held:
            message = (
                f"--memory {in_units(memory)} is not enough: with the engine {name} loaded this process holds "
                f"{in_units(held)} already; give it more, or choose a smaller engine with --engine"
            )
            raise DeviceError(message)
        self.step_memory = memory - held
        self._programs.most = 1

    def learn(self) -> None:
        """Allow less where an earlier process of this device was killed for memory."""
        learned = self._last_words.learn() if self._last_words else 0
        if learned:
            self.step_memory = min(self.step_memory or learned, learned)
            self._programs.most = 1

    def carry_out(self, plan: Plan, stop: Callable[[], bool]) -> Outcome:
        """Do what the plan says.

        Raises:
            session.Stopped: ``stop()`` returned True.
            EdgeError: it cannot be done; the text is what the orchestrator and the operator read.
        """
        if self._meter is None:
            return self._carry_out(plan, stop)
        self._meter.begin()
        try:
            outcome = self._carry_out(plan, stop)
        finally:
            energy = self._meter.end()
            self.joules = sum(energy.joules.values()) if energy else 0.0
        return Outcome(msgspec.structs.replace(outcome.report, energy=energy), outcome.update)

    def _carry_out(self, plan: Plan, stop: Callable[[], bool]) -> Outcome:
        if plan.kind == "deploy":
            return Outcome(self._deploy(plan))
        began = time.monotonic()
        artifact = plan.program.artifact
        program = self._programs.held(artifact) or program_format.load(self._store.read(artifact))
        if self._last_words:
            self._last_words.begin(memory_needed(program))
        try:
            return self._run(plan, program, began, stop)
        except (EdgeError, MemoryError) as error:
            if not ran_out(error):
                raise
            raise DeviceError(self._on_ran_out(program, error)) from None
        finally:
            if self._last_words:
                self._last_words.end()

    def _run(self, plan: Plan, program: Program, began: float, stop: Callable[[], bool]) -> Outcome:
        self._data.fits(program)
        runner = self._programs.runner(plan.program.artifact, program)
        if plan.weights is None or program.tasks != plan.tasks:
            message = f"plan {plan.round_id} is for tasks {plan.tasks}, its program for {program.tasks}"
            raise DeviceError(message)
        with self._store.opened(plan.weights.manifest.artifact) as data:
            vector = gather(program.layout, unpack(data))
        loading = time.monotonic() - began
        if plan.kind == "evaluate" or plan.training is None:
            report = session.evaluate(runner, program, vector, self._data, stop=stop, meter=self._meter)
            return Outcome(self._named(report, loading))
        with self._checkpoint(plan) as checkpoint:
            trained, report = session.train(
                runner, program, vector, self._data, plan.training, stop=stop, meter=self._meter, checkpoint=checkpoint
            )
        require_finite(trained, "the trained network")
        return Outcome(self._named(report, loading), _update(program.layout, trained, report))

    @contextmanager
    def _checkpoint(self, plan: Plan) -> Iterator[Checkpoint | None]:
        """Where this plan's training is saved; kept only when it is stopped, because then the plan may come again."""
        if self._checkpoints is None:
            yield None
            return
        name = checkpoint_name(plan, self._programs.engine.name, self._data.directory)
        checkpoint = Checkpoint(self._checkpoints, name)
        try:
            yield checkpoint
        except session.Stopped:
            raise
        except BaseException:
            checkpoint.remove()
            raise
        checkpoint.remove()

    def _on_ran_out(self, program: Program, error: Exception) -> str:
        """Let go of what is loaded, allow less than this program takes from now on, and say so."""
        self._programs.clear()
        needed = memory_needed(program)
        if needed:
            self.step_memory = min(self.step_memory or needed, needed) - 1
            self._programs.most = 1
        asked = "a smaller one is asked for" if needed and program.batch_size > 1 else "give this device more memory"
        reason = str(error).partition("\n")[0][:300] or type(error).__name__
        return f"not enough memory for batches of {program.batch_size} samples: {asked} ({reason})"

    def _named(self, report: Report, loading: float) -> Report:
        return msgspec.structs.replace(report, engine=self._programs.used, seconds={**report.seconds, "load": loading})

    def _deploy(self, plan: Plan) -> Report:
        """Try the model beside the one in use; it takes its place only if it passes its health check."""
        if plan.health is None:
            message = f"plan {plan.round_id} deploys without a health check"
            raise DeviceError(message)
        if plan.format not in ENGINE_OF:
            known = ", ".join(ENGINE_OF)
            message = f"plan {plan.round_id} deploys a model of format {plan.format[:40]!r}; known here: {known}"
            raise DeviceError(message)
        began, cpu = time.monotonic(), time.thread_time()
        slots = Slots(self._deployed / check_name(plan.group, "group"))
        golden = self._store.read(plan.health.golden.artifact)
        self._store.manifest(plan.program.artifact)  # what the disk damaged since it came does not get into a slot
        try:
            trial = slots.put_on_trial(self._store.path(plan.program.artifact), plan.format)
            health = check_health(trial, golden, plan.health.tolerance, plan.health.max_latency_s, self._data)
            if health.healthy:
                slots.activate(trial)
            else:
                trial.unlink()
        except OSError as error:
            message = f"the model of {plan.group} cannot be put in its place: {error}; free the disk of this device"
            raise DeviceError(message) from None
        return Report(
            samples={}, losses={}, healthy=health.healthy, health_reason=health.reason, latency_s=health.latency_s,
            engine=health.engine, seconds={"check": time.monotonic() - began}, cpu_seconds=time.thread_time() - cpu,
        )  # fmt: skip


def _update(layout: Layout, trained: np.ndarray, report: Report) -> bytes:
    """The tensors this device counts for: the encoder, and the heads it has labels for."""
    tensors = {name: trained[place] for name, place in layout.slices().items()}
    sent = sent_layout(layout, report.samples)
    flat = np.concatenate([tensors[entry.name] for entry in sent.entries])
    return pack(sent, flat.astype(np.float32, copy=False))
